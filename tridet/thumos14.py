"""THUMOS14 as TriDet reads it: one feature file a video, windows of them in training, batches, the ground truth.

Times are seconds in the annotations and steps of the feature grid in the items: step t is the centre of clip t, so a
segment can start a little below 0. Every random choice follows from (seed, epoch, index): the number of workers,
other code's draws and an interruption change nothing.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tridet.annotations import Annotations, Video, read_annotations
from tridet.average_precision import Segments
from tridet.errors import InputError, first_few
from tridet.schema import DatasetConfig
from tridet.windows import cut, random_window

logger = logging.getLogger(__name__)

NPY_ERRORS = (OSError, ValueError, EOFError, SyntaxError, TokenError, TypeError, KeyError, OverflowError)
"""What NumPy raises for a damaged file: it reads the header as Python."""
CACHED_BYTES = 2 * 2**30
"""Features that take less than this are kept in memory."""


class Item(TypedDict):
    """A video as the network takes it; under the public release's names. Tensors may be shared: read only."""

    video_id: str
    feats: Tensor  # [D, T] float32
    segments: Tensor  # [N, 2] float32
    """In steps of the feature grid; N is 0 for a video, or a window, without annotations."""
    labels: Tensor  # [N] int64
    fps: float
    duration: float
    """Seconds; of the whole video, also in a window."""
    feat_stride: int
    """Frames between two features."""
    feat_num_frames: int
    """Frames that a feature sees."""


class ThumosDataset(Dataset):
    """Videos of some subsets that have a feature file, each an `Item`.

    Args:
        config: The `dataset` section: `json_file`, `feat_folder` and others.
        split: Subsets of the annotation file, such as ["validation"].
        training: Items are random windows (`random_window`); otherwise whole videos.
        seed: Of the windows and of the order of batches.
        anonymizer: [T, D] -> [T, D], float32, applied once to a file's features as they are stored, all of them.
        cache: Keep features in memory; None does so below `CACHED_BYTES`. With an anonymizer they always are.
        annotations: Already read; otherwise `config.json_file` is.

    Raises:
        InputError: The annotation file is faulty; no feature file is there; one is no array of [T >= 1, input_dim].
    """

    def __init__(
        self,
        config: DatasetConfig,
        split: Sequence[str],
        *,
        training: bool,
        seed: int = 0,
        anonymizer: Callable[[Tensor], Tensor] | None = None,
        cache: bool | None = None,
        annotations: Annotations | None = None,
    ) -> None:
        self.config, self.split, self.training, self.seed = config, tuple(split), training, seed
        self.annotations = annotations or read_annotations(
            config.json_file, num_classes=config.num_classes, default_fps=config.default_fps
        )
        self._anonymizer = anonymizer
        self.videos, self.missing = self._listed()
        self.lengths = tuple(math.ceil(self._num_features(video) / config.downsample_rate) for video in self.videos)
        """Time steps of each video."""
        small = 4 * config.input_dim * sum(self.lengths) < CACHED_BYTES
        self.is_cached = anonymizer is not None or (small if cache is None else cache)
        self._cache: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Item:
        return self.item(index)

    def item(self, index: int, *, epoch: int = 0) -> Item:
        """A video; in training the window of it that belongs to an epoch.

        Raises:
            InputError: The feature file can't be read or holds NaN or infinite values; so does the anonymizer's answer.
        """
        config, video, feats = self.config, self.videos[index], self._features(index)
        item = Item(
            video_id=video.name,
            feats=feats,
            segments=torch.from_numpy(self.on_grid(video.segments, video.fps)),
            labels=torch.from_numpy(video.labels),
            fps=video.fps,
            duration=video.duration,
            feat_stride=config.feat_stride * config.downsample_rate,
            feat_num_frames=config.num_frames,
        )
        if not self.training:
            return item
        window = random_window(
            feats.shape[1],
            item["segments"],
            max_seq_len=config.max_seq_len,
            trunc_thresh=config.trunc_thresh,
            crop_ratio=config.crop_ratio,
            generator=random.Random(f"{self.seed}/{epoch}/0/{index}"),  # the 0 stays, so that draws do
        )
        if window is not None:
            item["feats"] = feats[:, window.start : window.start + window.width].contiguous()
            item["segments"], item["labels"] = cut(item["segments"], item["labels"], window)
        return item

    def on_grid(self, seconds: NDArray[np.float64], fps: float) -> NDArray[np.float32]:
        """Seconds as steps of the feature grid; in float32 throughout, as published."""
        stride = self.config.feat_stride * self.config.downsample_rate
        return (seconds.astype(np.float32) * fps - 0.5 * self.config.num_frames) / stride

    def path(self, video: Video) -> Path:
        """Of the video's features."""
        return Path(self.config.feat_folder, f"{self.config.file_prefix or ''}{video.name}{self.config.file_ext}")

    def _listed(self) -> tuple[tuple[Video, ...], tuple[str, ...]]:
        """The videos that have features, and the names of those that don't."""
        if self.config.feat_folder is None:
            raise InputError("dataset.feat_folder", "is not set", "give the folder of feature files")
        wanted = self.annotations.of(self.split)
        found = tuple(video for video in wanted if self.path(video).is_file())
        missing = tuple(video.name for video in wanted if video not in found)  # videos compare by identity
        if not found:
            raise InputError(
                self.config.feat_folder,
                f"has features of none of the {len(wanted)} videos of {', '.join(self.split)}",
                f"expected files such as {self.path(wanted[0]).name}; check feat_folder, file_prefix and file_ext",
            )
        if missing:
            logger.warning(
                "%s: %d of %d videos of %s have no features and are left out (%s)",
                self.config.feat_folder,
                len(missing),
                len(wanted),
                ", ".join(self.split),
                first_few(missing),
            )
        return found, missing

    def _num_features(self, video: Video) -> int:
        """Rows of a feature file, from its header alone."""
        array, width = self._opened(video), self.config.input_dim
        if array.ndim != 2 or not np.issubdtype(array.dtype, np.floating):
            problem = f"holds {array.dtype} of shape {array.shape}, expected floats [T, {width}]"
            raise InputError(self.path(video), problem, "give one row a clip; average crops, if there are any")
        if len(array) == 0:
            raise InputError(self.path(video), "holds no features", "extract them again, or remove the file")
        if array.shape[1] != width:
            raise InputError(
                self.path(video),
                f"is {array.shape[1]} wide, dataset.input_dim is {width}",
                f"set dataset.input_dim to {array.shape[1]}, or extract with the other encoder",
            )
        return len(array)

    def _opened(self, video: Video) -> NDArray[Any]:
        path = self.path(video)
        if not path.resolve().is_relative_to(Path(self.config.feat_folder or "").resolve()):
            raise InputError(path, f"leads out of its folder, to '{path.resolve()}'", "copy the file into the folder")
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except NPY_ERRORS as error:
            raise InputError(self.path(video), f"can't be read ({error})", "extract it again") from error
        if not isinstance(array, np.ndarray):
            raise InputError(self.path(video), "is an archive of arrays", "save one array with numpy.save")
        return array

    def _features(self, index: int) -> Tensor:  # [D, T]
        if index in self._cache:
            return self._cache[index]
        video = self.videos[index]
        feats = torch.from_numpy(np.array(self._opened(video), dtype=np.float32))  # [T, D]
        _require_finite(feats, self.path(video), "extract it again")
        if self._anonymizer is not None:
            with torch.no_grad():
                answer = self._anonymizer(feats)
            if answer.shape != feats.shape:
                shapes = f"{tuple(feats.shape)} to {tuple(answer.shape)}"
                raise InputError("anonymizer", f"turns {shapes} ({video.name})", "it must keep the shape [T, D]")
            feats = answer.detach().to(device="cpu", dtype=torch.float32)
            _require_finite(feats, f"anonymized {video.name}", "check the anonymizer")
        feats = feats[:: self.config.downsample_rate].T.contiguous()
        if self.is_cached:
            self._cache[index] = feats
        return feats


def _require_finite(feats: Tensor, culprit: object, remedy: str) -> None:  # [T, D]
    finite = feats.isfinite().all(dim=1)
    if not finite.all():
        rows = torch.nonzero(~finite).flatten()
        raise InputError(culprit, f"{len(rows)} of {len(feats)} rows hold NaN or Inf, from row {int(rows[0])}", remedy)


@dataclass(frozen=True)
class Batches:
    """Lists of items: shuffled and full batches in training, otherwise every video in order.

    Args:
        num_workers: Processes that read files; none are used for a cached data set.

    Raises:
        InputError: A training set has fewer videos than a batch.
    """

    dataset: ThumosDataset
    batch_size: int = 1
    num_workers: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1 or not len(self):
            problem = f"{self.batch_size} makes no batch of {len(self.dataset)} videos"
            raise InputError("loader.batch_size", problem, f"use 1 to {len(self.dataset)}")

    def __len__(self) -> int:
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.dataset.training)

    def epoch(self, epoch: int = 0, *, first: int = 0, count: int | None = None) -> Iterator[list[Item]]:
        """The batches of an epoch, or `count` of them from number `first` on, without reading earlier ones.

        The same for the same numbers, whatever came before.
        """
        order = list(range(len(self.dataset)))
        if self.dataset.training:
            random.Random(f"{self.dataset.seed}/{epoch}/0").shuffle(order)
        stop = len(self) if count is None else first + count
        loader = DataLoader(
            _Epoch(self.dataset, epoch),
            batch_sampler=[order[n * self.batch_size :][: self.batch_size] for n in range(first, stop)],
            collate_fn=list,
            num_workers=0 if self.dataset.is_cached else self.num_workers,
            generator=torch.Generator(),  # else it draws from the global one
        )
        for batch in loader:
            for item in batch:
                if isinstance(item, InputError):
                    raise item
            yield batch


@dataclass(frozen=True)
class _Epoch(Dataset):
    """The items of an epoch by index; an error is an item too, for a worker would make a traceback of it."""

    dataset: ThumosDataset
    epoch: int

    def __getitem__(self, index: int) -> Item | InputError:
        try:
            return self.dataset.item(index, epoch=self.epoch)
        except InputError as error:
            return error


def ground_truth(annotations: Annotations, subset: str, *, keep_outside: bool = True) -> Segments:
    """What `mean_average_precision` scores detections of a subset against, videos without features included.

    Args:
        keep_outside: Count annotations past their video's stated end, too, as published; no detection reaches them.

    Raises:
        InputError: There is no such subset.
    """
    videos = annotations.of([subset])
    kept = [np.ones_like(video.is_outside) if keep_outside else ~video.is_outside for video in videos]
    return Segments(
        video=np.repeat([video.name for video in videos], [int(rows.sum()) for rows in kept]),
        segments=np.concatenate([video.segments[rows] for video, rows in zip(videos, kept, strict=True)]),
        label=np.concatenate([video.labels[rows] for video, rows in zip(videos, kept, strict=True)]),
    )

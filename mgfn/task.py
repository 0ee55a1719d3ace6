"""How MGFN joins co-training, and how an anonymizer joins MGFN: the one module here that imports `splavu`.

Each crop of a video is one sequence to the anonymizer, at full length; pooling and magnitudes come after it, as they
will for features that were released. Only a training video longer than `MAX_SNIPPETS` is thinned first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mgfn.checkpoints import read_network
from mgfn.command_line import parse
from mgfn.data.batches import balanced_batches, split_validation
from mgfn.data.features import FeatureVideos
from mgfn.data.lists import read_list, require_both_kinds
from mgfn.errors import InputError
from mgfn.losses import Objective, training_terms
from mgfn.model import MGFN, build_model
from mgfn.option import Options
from mgfn.scoring import video_figures
from mgfn.snippets import crops_first, pooled, with_magnitude
from splavu.anonymizers import Anonymizer
from splavu.errors import as_user_errors
from splavu.stores import FeatureFolder
from splavu.training.learners import Learner
from splavu.training.tasks import passes

MAX_SNIPPETS = 2048
"""Attention over a whole video costs its length squared; longer ones give evenly spaced snippets in training."""
CACHED_BYTES = 2 * 2**30
"""Features that take less than this are kept in memory."""


@dataclass(frozen=True)
class WeakBatch:
    """Videos of which only this is known: something abnormal happens in them, or nothing does."""

    videos: tuple[Tensor, ...]  # each [N, T, D], a crop a sequence
    is_abnormal: Tensor  # [B] bool

    def to(self, device: torch.device) -> WeakBatch:
        videos = tuple(video.to(device, non_blocking=True) for video in self.videos)
        return WeakBatch(videos, self.is_abnormal.to(device))


class WeakVideos:
    """Batches of training videos without end, as many normal as abnormal; a `splavu.training.tasks.BatchSource`."""

    def __init__(
        self,
        videos: FeatureVideos,
        indices: NDArray[np.int64],
        is_abnormal: NDArray[np.bool_],
        *,
        root: Path,
        batch_size: int,
        seed: int,
    ) -> None:
        self.videos, self.indices, self.is_abnormal = videos, indices, is_abnormal
        self.root, self.batch_size, self.seed = root, batch_size, seed
        size = sum(4 * file.width * file.num_crops * min(file.num_snippets, MAX_SNIPPETS) for file in videos.files)
        self._cache: dict[int, Tensor] | None = {} if size < CACHED_BYTES else None

    def __len__(self) -> int:
        largest = max(int(self.is_abnormal.sum()), int((~self.is_abnormal).sum()))
        return -(-largest // self.batch_size)

    @property
    def provenance(self) -> dict[str, Any]:
        """What the feature folder says of its making."""
        return dict(FeatureFolder(self.root).attributes)

    def steps(self, first: int, count: int) -> Iterator[WeakBatch]:
        """Batches number `first` to `first + count - 1` of pass after pass, each in another order."""
        for number, start, taken in passes(first, count, len(self)):
            drawn = balanced_batches(self.is_abnormal, batch_size=self.batch_size, seed=self.seed, epoch=number)
            for places in islice(drawn, start, start + taken):
                yield WeakBatch(tuple(map(self._video, places)), torch.from_numpy(self.is_abnormal[places]))

    def _video(self, place: int) -> Tensor:  # -> [N, T, D]
        if self._cache is not None and place in self._cache:
            return self._cache[place]
        with as_user_errors(InputError):
            video = crops_first(self.videos[int(self.indices[place])])
        if video.shape[1] > MAX_SNIPPETS:
            video = video[:, np.linspace(0, video.shape[1] - 1, MAX_SNIPPETS).astype(int)]
        if self._cache is not None:
            self._cache[place] = video
        return video


@dataclass
class AnomalyDetection:
    """MGFN on anonymized videos; a `splavu.training.tasks.Task`. Validation videos are part of the training list."""

    learner: Learner
    source: WeakVideos
    validation: Sequence[int]
    """Which videos of the list are kept apart."""
    validation_is_abnormal: NDArray[np.bool_]
    objective: Objective
    num_segments: int
    device: torch.device
    name: str = "ad"
    checkpoint_key: str = "ft_model_ad_state_dict"
    score: str = field(default="auc", init=False)
    """Share of (abnormal, normal) validation videos in the right order."""
    splits_batches: bool = field(default=False, init=False)
    """Losses compare the videos of a batch with one another: each process takes all of it."""

    def loss(self, anonymizer: nn.Module, batch: WeakBatch) -> Tensor:
        items = [with_magnitude(pooled(anonymizer(video), self.num_segments)) for video in batch.videos]
        return training_terms(self.learner.network, torch.stack(items), batch.is_abnormal, self.objective)["total"]

    @torch.no_grad()
    def evaluate(self, anonymizer: Anonymizer) -> dict[str, float]:
        anonymizer.eval()

        def whole(index: int) -> Tensor:  # -> [1, N, T, D + 1]
            return with_magnitude(anonymizer(crops_first(self.source.videos[index]).to(self.device)))[None]

        with as_user_errors(InputError):
            return video_figures(self.learner.network, map(whole, self.validation), self.validation_is_abnormal)


def anomaly_detection(
    arguments: Sequence[str],
    *,
    train_list: Path,
    feat_folder: Path,
    feature_dim: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    device: torch.device,
    saved_model: str | Path | None = None,
) -> AnomalyDetection:
    """The task that MGFN's options describe, on a study's data.

    Args:
        arguments: As on MGFN's command line: the network, the loss, the share kept for validation.
        train_list: Training list, in place of the options'.
        feat_folder: Features, in place of the options'.
        feature_dim: D of the study's encoder.
        batch_size: Normal videos a batch, and as many abnormal ones.
        learning_rate: Of Adam, with weight decay 5e-4.
        seed: Of batches.
        saved_model: An MGFN checkpoint to start from; the paper starts from the raw-feature baseline.

    Raises:
        UserError: Anything wrong with the options, the data or the checkpoint.
    """
    with as_user_errors(InputError):
        options: Options = parse(arguments, description="MGFN's options")
        if options.validation_share == 0:
            raise InputError("--validation-share", "0 leaves no video to validate on", "add --validation-share 0.2")
        entries = read_list(train_list, options.datasetname)
        require_both_kinds(entries, train_list)
        videos = FeatureVideos(entries, feat_folder, feature_size=feature_dim)
        is_abnormal = np.array([entry.is_abnormal for entry in entries])
        train, apart = split_validation(is_abnormal, share=options.validation_share, seed=options.list_seed)
        network = load_network(options, feature_dim, saved_model).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, weight_decay=5e-4)
    return AnomalyDetection(
        Learner("ft_ad", network, optimizer),
        WeakVideos(videos, train, is_abnormal[train], root=feat_folder, batch_size=batch_size, seed=seed),
        apart.tolist(),
        is_abnormal[apart],
        Objective(variant=options.variant, clustering=options.clustering, dropout=options.dropout_rate),
        options.seg_length,
        device,
    )


def load_detector(arguments: Sequence[str], feature_dim: int, checkpoint: str | Path | None = None) -> MGFN:
    """The network of a checkpoint, or of MGFN's options; see `load_network`.

    Raises:
        UserError: No such checkpoint, or one for another width.
    """
    with as_user_errors(InputError):
        return load_network(parse(arguments, description="MGFN's options"), feature_dim, checkpoint)


def load_network(options: Options, feature_dim: int, checkpoint: str | Path | None = None) -> MGFN:
    """The network of a checkpoint, whose weights determine its architecture; without one, the options' at random.

    Raises:
        InputError: No such checkpoint, or one for another width.
    """
    if checkpoint is None:
        return build_model(
            feature_dim,
            dims=options.widths,
            depths=(options.depths1, options.depths2, options.depths3),
            types=(options.mgfn_type1, options.mgfn_type2, options.mgfn_type3),
            mag_ratio=options.mag_ratio,
        )
    network = read_network(checkpoint, mag_ratio=options.mag_ratio)
    if (width := network.architecture.feature_size) != feature_dim:
        raise InputError(checkpoint, f"takes features {width} wide, these are {feature_dim}", "use its encoder's")
    return network

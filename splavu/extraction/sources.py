"""What is to be extracted: the files of a folder or split, the stores they fill, and how a file becomes clips.

A video gives two outputs from one pass over it, its clips and its static clips; an image gives tiled views.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from splavu.data.datasets import DatasetSpec
from splavu.data.encoders import Preprocessing
from splavu.data.keys import file_key, require_below
from splavu.data.labels import read_attribute_pickle, read_vector_csv
from splavu.errors import UserError
from splavu.extraction.clips import cut_clips, even_indices, key_generator
from splavu.extraction.decoding import Pieces
from splavu.extraction.images import list_images, read_image
from splavu.extraction.obfuscation import Obfuscation, obfuscated, obfuscated_image
from splavu.extraction.preprocessing import centre_view, random_view
from splavu.extraction.videos import list_videos, open_video

CLIPS, STATIC, VIEWS = "clips", "static", "views"
"""Outputs, each with its own store: clips of a video, its static clips, views of an image."""


@dataclass(frozen=True)
class Source:
    """One set of files to extract: a folder, or a split of a data set."""

    files: dict[str, Path]
    """Key in the store -> video or image."""
    stores: dict[str, Path]
    """Output -> store to write."""
    preprocessing: Preprocessing
    is_augmented: bool
    """Whether static clips and image views are random crops."""
    num_static: int = 0
    """Static clips of each video."""
    num_views: int = 1
    """Views of each image."""
    seed: int = 0
    """Of the augmentation, together with each key."""
    hide: Obfuscation | None = None
    """What is done to the frames before anything else."""

    def only(self, key: str) -> Source:
        """This source with one file: what is sent to a process that decodes it."""
        hide = None if self.hide is None else self.hide.only(key)
        return dataclasses.replace(self, files={key: self.files[key]}, hide=hide)

    def pieces(self, key: str, outputs: Collection[str], *, num_frames: int, backend: str) -> Pieces:
        """The clips of one file for those `outputs`, as an extraction job wants them."""
        if VIEWS in outputs:
            image = torch.from_numpy(obfuscated_image(read_image(self.files[key]), self.hide, key))
            yield VIEWS, self._still_clips(key, [image] * self.num_views)
            return
        with obfuscated(open_video(self.files[key], backend), self.hide, key) as video:
            wanted = even_indices(video.expected_frames, self.num_static) if STATIC in outputs else []
            found: dict[int, Tensor] = {}
            length = 0

            def frames() -> Iterator[Tensor]:
                """The video's frames; those for static clips are put aside in passing."""
                nonlocal length
                for batch in video.frames(batch_size=4 * num_frames):
                    some = torch.from_numpy(batch)  # [n, H, W, 3]
                    found.update({i: some[i - length].clone() for i in wanted if 0 <= i - length < len(some)})
                    length += len(some)
                    yield some

            if CLIPS in outputs:
                for clips in cut_clips((centre_view(some, self.preprocessing) for some in frames()), num_frames):
                    yield CLIPS, clips
            else:
                yield from (None for _ in frames())
            if STATIC in outputs:
                wanted = even_indices(length, self.num_static)
                if not found.keys() >= set(wanted):  # the container's frame count was wrong
                    length = 0
                    yield from (None for _ in frames())
                yield STATIC, self._still_clips(key, [found[index] for index in wanted])

    def _still_clips(self, key: str, frames: Sequence[Tensor]) -> Tensor:  # n x [H, W, 3] -> [n, 1, crop, crop, 3]
        if self.is_augmented:
            generator = key_generator(self.seed, key)
            views = [random_view(frame, self.preprocessing, generator) for frame in frames]
        else:
            views = [centre_view(frame[None], self.preprocessing)[0] for frame in frames]
        return torch.stack(views)[:, None]


def video_stores(out: Path, num_static: int) -> dict[str, Path]:
    """`FILE.h5` for the clips and, if there are static clips, `FILE_fbN.h5` for those."""
    stores = {CLIPS: out}
    if num_static:
        stores[STATIC] = out.with_name(f"{out.stem}_fb{num_static}{out.suffix}")
    return stores


def folder_files(folder: Path) -> dict[str, Path]:
    """All videos in `folder` and below, by file name without extension.

    Raises:
        UserError: No video there, or two that share their name.
    """
    return _by_name(list_videos(folder))


def folder_source(
    folder: Path,
    out: Path,
    preprocessing: Preprocessing,
    *,
    num_static: int = 0,
    seed: int = 0,
    hide: Obfuscation | None = None,
) -> Source:
    """The videos of a folder, whose static clips are random crops; raises what `folder_files` does."""
    stores = video_stores(out, num_static)
    return Source(folder_files(folder), stores, preprocessing, True, num_static, seed=seed, hide=hide)


def split_files(spec: DatasetSpec, data: Path, split: str) -> dict[str, Path]:
    """The videos of a split, below `data/{folder}/videos`: those that its label file names, or whose names say so."""
    spec.check_split(split)
    folder = data / spec.folder
    paths = list_videos(folder / "videos")
    names = spec.read_labels(folder, split, spec.keys(data, split, sorted({path.stem for path in paths})))
    return _named(names, folder / "videos", paths, suffix=".avi")


def vp_files(labels: Path, spec: DatasetSpec, data: Path, split: str) -> dict[str, Path]:
    """The videos that a VP label file names by their path below `data/{folder}/videos` of the set they are from.

    Args:
        labels: The label file, which names no split.
        spec: The set that the videos are from, and whose split counts.
        data: Data root.
        split: A split of that set.
    """
    spec.check_split(split)
    folder = data / spec.folder
    of_split = spec.read_labels(folder, split, ())
    keys = [require_below(key, source=labels) for key in read_vector_csv(labels)]
    return {key: folder / "videos" / key for key in keys if file_key(key) in of_split}


def listed_files(names: Iterable[str], folder: Path) -> dict[str, Path]:
    """The videos of these names in `folder` and below it."""
    return _named(names, folder, list_videos(folder))


def vispr_files(root: Path, split: str) -> dict[str, Path]:
    """The images of `root/{split}2017` by file name, those of `{split}_labels.pkl` only if there is one."""
    folder, labels = root / f"{split}2017", root / f"{split}_labels.pkl"
    files = _by_name(list_images(folder))
    names = read_attribute_pickle(labels) if labels.is_file() else files
    paths = (files.get(name, folder / f"{name}.jpg") for name in names)
    return {path.name: path for path in paths}


def _named(names: Iterable[str], folder: Path, paths: Iterable[Path], *, suffix: str = ".mp4") -> dict[str, Path]:
    """The files of these names; one that is missing keeps a path, so that it is reported among the failures."""
    wanted = dict.fromkeys(require_below(name, source=f"the names of the videos in {folder}") for name in names)
    files = _by_name(path for path in paths if path.stem in wanted)
    return {name: files.get(name, folder / f"{name}{suffix}") for name in wanted}


def _by_name(paths: Iterable[Path]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in paths:
        if path.stem in files:
            other = files[path.stem]
            raise UserError(path, f"has the same name as {other}, and the name is the key", "rename one of them")
        files[path.stem] = path
    return files

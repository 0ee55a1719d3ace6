"""What must be there of a data set, for each kind of row: a split's labels, its files, its stores.

Note: which videos a split has may depend on what is there. Where labels are in the names (NTU, Casia-B), no file says
how many videos there should be.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from splavu.data.encoders import ENCODERS, EncoderSpec
from splavu.data.keys import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, file_key
from splavu.data.labels import read_vector_csv
from splavu.runtime.files import is_companion
from study.datasets.catalog import CatalogueRow, row_of
from study.datasets.untrimmed import AnnotatedSpec, UntrimmedSpec


@dataclass(frozen=True)
class Places:
    """Where to look, and whose stores there must be."""

    data: Path
    features: Path
    encoder: EncoderSpec | None
    """None: any encoder's, or none if the videos are there."""

    @property
    def encoders(self) -> list[EncoderSpec]:
        return list(ENCODERS.values()) if self.encoder is None else [self.encoder]


@dataclass(frozen=True)
class Part:
    """What must agree with each other: a split's labels, its files, and the stores of its features."""

    split: str
    label_files: tuple[str, ...]
    """Below the data root."""
    folder: Path
    """Of the videos or images."""
    labelled: Callable[[Sequence[str]], Sequence[str]]
    """(names that are there) -> the keys that have labels; where names tell the labels, the split's among them."""
    stores: Callable[[EncoderSpec], Sequence[Path]]
    """Where the features of an encoder lie: one store, or several of which each holds some."""
    holds_others: bool = False
    """The stores may hold videos that are not of this part."""
    extensions: frozenset[str] = VIDEO_EXTENSIONS

    def is_told(self, places: Places) -> bool:
        """Whether its label files are there."""
        return all((places.data / file).exists() for file in self.label_files)

    def files(self) -> dict[str, Path]:
        """File name without extension -> video or image, in the folder and below."""
        if not self.folder.is_dir():
            return {}
        return {
            path.stem: path
            for path in self.folder.rglob("*")
            if path.suffix.lower() in self.extensions and not is_companion(path.name)
        }


def split_parts(spec: CatalogueRow, places: Places) -> list[Part]:
    """A split each; 'val', which no set publishes, only where somebody made one."""
    origin = spec if spec.videos_of is None else row_of(spec.videos_of, places.data)

    def labelled(split: str, present: Sequence[str]) -> Sequence[str]:
        folder = places.data / spec.folder
        if origin is not spec and _is_told(origin, split, places):
            of_split = origin.read_labels(places.data / origin.folder, split, ())
            listed = read_vector_csv(places.data / spec.layout.label_files[0])
            return [key for key in listed if file_key(key) in of_split]
        if spec.keep is not None:  # names are the labels
            return [] if not present else list(spec.read_labels(folder, split, spec.keys(places.data, split, present)))
        return list(spec.read_labels(folder, split, present))

    parts = [
        Part(
            split,
            tuple(file.format(split=split) for file in spec.layout.label_files),
            places.data / spec.layout.videos.format(split=split),
            functools.partial(labelled, split),
            lambda encoder, split=split: [spec.store_path(places.features, split, encoder.name)],
            holds_others=spec.keep is not None,
            extensions=IMAGE_EXTENSIONS if spec.is_images else VIDEO_EXTENSIONS,
        )
        for split in spec.splits
    ]
    return [
        part
        for part in parts
        if part.split != "val"
        or _is_told(origin, "val", places)
        or any(path.exists() for encoder in places.encoders for path in part.stores(encoder))
    ]


def _is_told(spec: CatalogueRow, split: str, places: Places) -> bool:
    """Whether the label files say which videos are of a split."""
    return all((places.data / file.format(split=split)).exists() for file in spec.layout.label_files)


def untrimmed_parts(spec: UntrimmedSpec, places: Places) -> list[Part]:
    """A split each, all with one folder of videos and one of features."""

    def stores(encoder: EncoderSpec) -> list[Path]:
        return [places.features / f"{spec.name}_{encoder.file_tag}"]

    def labelled(split: str, present: Sequence[str]) -> Sequence[str]:
        return spec.read_names(places.data / spec.name)[split]

    folder, files = places.data / spec.layout.videos, spec.layout.label_files
    return [
        Part(split, files, folder, functools.partial(labelled, split), stores, holds_others=True)
        for split in spec.layout.num_videos
    ]


def annotated_parts(spec: AnnotatedSpec, places: Places) -> list[Part]:
    """One, whose features lie in any of the stores of the set that is annotated."""
    origin = row_of(spec.origin, places.data)

    def stores(encoder: EncoderSpec) -> list[Path]:
        paths = [origin.store_path(places.features, split, encoder.name) for split in origin.splits]
        return [path for path in paths if path.exists()] or paths[-1:]

    folder = places.data / spec.layout.videos
    return [
        Part("all", spec.layout.label_files, folder, lambda _: spec.read_names(places.data), stores, holds_others=True)
    ]

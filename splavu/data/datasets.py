"""Data sets as rows of a catalogue: the stores and label files of each, and its official size."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from splavu.data.clips import ClipBatch, EvenClips, FeatureDataset, RandomClip, uniform
from splavu.data.csv_table import read_rows
from splavu.data.encoders import encoder_spec
from splavu.data.keys import match_keys
from splavu.data.labels import VISPR_ATTRIBUTES
from splavu.data.loader import BatchLoader
from splavu.data.private_labels import PrivateLabels, read_private_table
from splavu.errors import UserError
from splavu.stores import FeatureStore

logger = logging.getLogger(__name__)

__all__ = [
    "BatchLoader",
    "ClipBatch",
    "DatasetSpec",
    "EvenClips",
    "FeatureDataset",
    "Layout",
    "RandomClip",
    "matched",
    "open_split",
    "uniform",
]


@dataclass(frozen=True)
class Layout:
    """The files and the official size of a data set, which `check-data` compares with the disk."""

    videos: str
    """Folder below the data root; `{split}` stands for a split."""
    label_files: tuple[str, ...]
    """Files below the data root, with `{split}`; none where file names hold the labels."""
    key: str
    """In words: how a video is named in a store."""
    num_videos: Mapping[str, int] = field(default_factory=dict)
    """Official number per split; 'all' where only the sum is known; empty where none is certain."""
    num_subjects: int | None = None
    note: str = ""
    """An explanation of the counts."""


@dataclass(frozen=True)
class DatasetSpec:
    """One row of the catalogue: all in which data sets differ."""

    name: str
    """As in params: `ar_dataset = 'hmdb51'`."""
    store_stem: str
    """Feature stores are called `{store_stem}_{split}_{file tag}.h5`, static clips `..._fb10.h5`."""
    folder: str
    """Folder of its label files, below the data root."""
    num_classes: int
    """Classes C, or attributes A."""
    read_labels: Callable[[Path, str, Sequence[str]], Mapping[str, Any]]
    """(label folder, split, the store's keys) -> {key: class or attribute vector}."""
    splits: tuple[str, ...] = ("train", "test")
    multi_label: bool = False
    is_images: bool = False
    """Stores hold views of still images instead of clips."""
    keep: Callable[[Path, str, Sequence[str]], Sequence[str]] | None = None
    """(label folder, split, the store's keys) -> those that belong to the split; None keeps all."""
    read_private: Callable[[Path, str, Sequence[str]], PrivateLabels] = (
        lambda folder, split, keys: read_side_table(folder / "private_labels.csv", keys)
    )  # fmt: skip
    """(label folder, split, the store's keys) -> the private labels, at least of some of the keys."""
    layout: Layout | None = None

    def keys(self, labels_root: str | Path, split: str, stored: Sequence[str]) -> list[str]:
        """The keys of a store that belong to the split.

        Raises:
            UserError: None does.
        """
        kept = list(stored) if self.keep is None else list(self.keep(Path(labels_root) / self.folder, split, stored))
        if not kept:
            raise UserError(self.name, f"no video of the split '{split}' among {len(stored)} features", "extract it")
        return kept

    def check_split(self, split: str, *, name: str = "split", remedy: str = "") -> None:
        """Refuse an unknown split, under the name of the parameter that holds it."""
        if split not in self.splits:
            known = f"known: {', '.join(self.splits)}"
            raise UserError(name, f"'{split}' is not a split of {self.name}", "; ".join(filter(None, (known, remedy))))

    def store_path(self, root: str | Path, split: str, encoder: str, *, static_frames: int = 0) -> Path:
        """The store of a split; `static_frames` selects the one with that many static clips per video."""
        self.check_split(split)
        suffix = f"_fb{static_frames}" if static_frames else ""
        return Path(root) / f"{self.store_stem}_{split}_{encoder_spec(encoder).file_tag}{suffix}.h5"


def open_split(
    spec: DatasetSpec,
    split: str,
    *,
    features_root: str | Path,
    labels_root: str | Path,
    encoder: str,
    with_labels: bool = True,
    classes: Container[int] | None = None,
    static_frames: int = 0,
    draw: RandomClip | EvenClips = RandomClip(),  # noqa: B008  frozen
    seed: int = 0,
) -> FeatureDataset:
    """The data set of one catalogue row and split; opens only the files that are needed.

    With labels, `classes` selects the videos of some classes.

    Raises:
        UserError: A store or label file is missing or damaged, has another width than the encoder, or labels and
            features don't name the same videos.
    """
    width = encoder_spec(encoder).feature_dim
    store = FeatureStore(spec.store_path(features_root, split, encoder), feature_dim=width)
    static = None
    if static_frames:
        path = spec.store_path(features_root, split, encoder, static_frames=static_frames)
        static = FeatureStore(path, feature_dim=width)
    keys, labels = spec.keys(labels_root, split, store.keys()), None
    if with_labels:
        source = f"the {split} labels of {spec.name}"
        found = spec.read_labels(Path(labels_root) / spec.folder, split, keys)
        labels = matched(found, keys, label_source=source, store_source=store.path)
        keys = list(labels)
        if not spec.multi_label and (beyond := [key for key in keys if labels[key] >= spec.num_classes]):
            problem = f"'{beyond[0]}' has class {labels[beyond[0]]}, but there are {spec.num_classes}, counted from 0"
            raise UserError(source, problem, "check the label file")
        if classes is not None:
            keys = [key for key in keys if labels[key] in classes]
    if static is not None:
        for key in keys:
            if key not in static:
                raise UserError(static.path, f"no static clips for '{key}'", f"extract them (--static {static_frames})")
    return FeatureDataset(store, keys, labels=labels, draw=draw, static=static, seed=seed)


def read_side_table(path: str | Path, keys: Sequence[str]) -> PrivateLabels:
    """`private_labels.csv` beside the labels of a data set, for the keys of a store.

    VISPR's seven attributes where the table has them all, otherwise every binary column; what was read is logged.

    Raises:
        UserError: As `read_private_table`; no subjects, or no binary column.
    """
    has_seven = set(VISPR_ATTRIBUTES).issubset(read_rows(path)[0])
    attributes = [f"{name}:binary" for name in VISPR_ATTRIBUTES] if has_seven else None
    try:
        table = read_private_table(path, attributes=attributes)
        table.require_binary("the evaluation")
    except UserError as error:  # the options that its remedy offers belong to other commands
        raise UserError(error.culprit, error.problem, "mend the table") from error
    table.require_subjects()
    table.report("attacked", by_user=False)
    return table.of(keys)


def matched(
    labels: Mapping[str, Any], keys: Sequence[str], *, label_source: object, store_source: object
) -> dict[str, Any]:
    """Key of the features -> label, in the labels' order; names and keys match as `keys.match_keys` says.

    Raises:
        UserError: A label without features, or features without a label; one is named, and how many there are. A name
            that could be two keys, or a key two names.
    """
    key_of = {name: key for key, name in match_keys(labels, keys, source=label_source).items()}
    if absent := [name for name in labels if name not in key_of]:
        raise UserError(
            store_source,
            f"no features for '{absent[0]}' ({len(absent)} of {len(labels)} in {label_source} have none)",
            "extract them, or remove them from the label file",
        )
    if surplus := sorted(set(keys).difference(key_of.values())):
        raise UserError(
            store_source,
            f"'{surplus[0]}' is not in {label_source} ({len(surplus)} of {len(keys)} features have no label)",
            "label them, or extract this split alone",
        )
    return {key_of[name]: label for name, label in labels.items()}

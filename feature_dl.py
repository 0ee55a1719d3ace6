"""Which data sets this study knows: one row each, read by one class.

The public names (`HMDBFeaturesDataset`, ...) are that class with a row. An item is `(features, label, name)` and, with
`return_fb_frames`, a fourth `(2, D)`: two different static clips of the same video. Labels are 0-based everywhere.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

import config
from splavu import labels as read
from splavu.datasets import DatasetSpec, EvenClips, FeatureDataset, RandomClip, open_split
from splavu.encoders import encoder_spec
from splavu.errors import UserError, nearest
from splavu.labels import VISPR_ATTRIBUTES
from splavu.labels_private import (
    PAHMDB51_VALUES,
    Person,
    PrivateLabels,
    gender_labels,
    read_ntu_genders,
    read_smarthome,
)
from splavu.protocols import Rows
from splavu.splits import (
    CASIA_B_REPETITIONS,
    NTU_BIAS,
    NTU_NUM_ACTIONS,
    casia_name,
    ntu_bias_side,
    ntu_name,
    ntu_split,
)
from splavu.stores import FeatureStore

logger = logging.getLogger(__name__)

Label = TypeVar("Label")
ReadLabels = Callable[[Path, str, Sequence[str]], Mapping[str, Any]]
"""(label folder, split, the store's keys) -> {key: label}."""


CASIA_B_TRAIN_SUBJECTS = 74
"""Casia-B's subjects 001 to 074 are its training half, by convention; recognising them is never trained here."""


def _stored_as(known: Mapping[str, Label], keys: Sequence[str]) -> dict[str, Label]:
    """Labels by file name without extension -> by the store's keys, which may carry one."""
    key_of_name = {read.without_extension(key): key for key in keys}
    return {key_of_name.get(name, name): label for name, label in known.items()}


def _ucf(folder: Path, split: str, keys: Sequence[str]) -> Mapping[str, int]:
    return read.read_ucf_labels(folder / f"ucfTrainTestlist/{split}list01.txt", folder / "action_classes.json")


def _smarthome(folder: Path, split: str, keys: Sequence[str]) -> Mapping[str, int]:
    videos = read_smarthome(folder / "tsh_labels.csv")
    return _stored_as({name: video.label for name, video in videos.items() if video.split == split}, keys)


def _smarthome_people(folder: Path, keys: Sequence[str]) -> Mapping[str, Person]:
    people = {n: Person(v.subject, v.gender) for n, v in read_smarthome(folder / "tsh_labels.csv").items()}
    return _those_of(_stored_as(people, keys), keys, folder / "tsh_labels.csv")


def _ntu_people(folder: Path, keys: Sequence[str]) -> Mapping[str, Person]:
    path = folder / "ntu_subject_gender_labels.json"
    genders = read_ntu_genders(path)
    subjects = {key: ntu_name(key).subject for key in keys}
    if strangers := sorted(set(subjects.values()) - set(genders)):
        raise UserError(path, f"has no gender of {strangers[0]} ({len(strangers)} subjects have none)", "add it")
    return {key: Person(subject, genders[subject]) for key, subject in subjects.items()}


def _ntu_side(folder: Path, split: str, keys: Sequence[str]) -> Sequence[str]:
    return getattr(ntu_split(keys), split)


def _ntu_bias_side(variant: str) -> Callable[[Path, str, Sequence[str]], Sequence[str]]:
    def side(folder: Path, split: str, keys: Sequence[str]) -> Sequence[str]:
        genders = read_ntu_genders(folder / "ntu_subject_gender_labels.json")
        return ntu_bias_side(variant, keys, genders, split)

    return side


def _casia_side(folder: Path, split: str, keys: Sequence[str]) -> Sequence[str]:
    return [k for k in keys if (int(casia_name(k).subject) <= CASIA_B_TRAIN_SUBJECTS) == (split == "train")]


def _casia_walks(folder: Path, split: str, keys: Sequence[str]) -> Mapping[str, int]:
    return {key: list(CASIA_B_REPETITIONS).index(casia_name(key).walk) for key in keys}


VP_LABELS = {"vp_hmdb": ("vphmdb51_labels_num.csv", "hmdb51"), "vp_ucf": ("vpucf101_labels_num.csv", "ucf101")}
"""VP set -> its label file, and the set whose videos it labels."""


def _vp_rows(
    name: str, splits: tuple[str, ...], actions: ReadLabels, num_actions: int
) -> tuple[DatasetSpec, DatasetSpec]:
    """The private attributes and the actions of the same videos. Label files don't name a split, stores do."""
    file_name, _ = VP_LABELS[name]

    def vectors(folder: Path, split: str, keys: Sequence[str]) -> Mapping[str, NDArray]:
        return _those_of(read.read_vector_csv(folder / file_name), keys, folder / file_name)

    def private(folder: Path, split: str, keys: Sequence[str]) -> PrivateLabels:
        films = {key: film_of(key) for key in keys}
        return PrivateLabels(tuple(PAHMDB51_VALUES), vectors(folder, split, keys), films)

    options = {"splits": splits, "read_private": private}
    return (
        DatasetSpec(name, f"features_{name}", "vp", len(PAHMDB51_VALUES), vectors, multi_label=True, **options),
        DatasetSpec(f"{name}_actions", f"features_{name}", "vp", num_actions, actions, **options),
    )


def _vp_hmdb_actions(folder: Path, split: str, keys: Sequence[str]) -> Mapping[str, int]:
    path = folder.parent / f"hmdb51/hmdb51_{split}_labels.csv"
    known = read.read_csv_labels(path)
    names = {key: read.without_extension(key) for key in keys}
    if absent := [key for key, name in names.items() if name not in known]:
        raise UserError(path, f"has no label for '{absent[0]}' ({len(absent)} have none)", "label it")
    return {key: known[name] for key, name in names.items()}


def _vp_ucf_actions(folder: Path, split: str, keys: Sequence[str]) -> Mapping[str, int]:
    return dict(zip(keys, read.read_ucf_classes(folder.parent / "ucf101/action_classes.json", keys), strict=True))


def _those_of(known: Mapping[str, Label], keys: Sequence[str], path: Path) -> dict[str, Label]:
    if absent := [key for key in keys if key not in known]:
        raise UserError(path, f"has no label for '{absent[0]}' ({len(absent)} have none)", "label it")
    return {key: known[key] for key in keys}


def film_of(key: str) -> str:
    """The source of an HMDB51 or UCF101 clip, told by its name: clips of one film or group show the same people."""
    folder, _, name = key.rpartition("/")
    if group := re.match(r"(v_.+_g\d+)_c\d+", name):
        return group[1]
    return name.split(f"_{folder}_")[0] if folder else name


def _vispr(folder: Path, split: str, keys: Sequence[str]) -> Mapping[str, NDArray]:
    return _stored_as(read.read_attribute_pickle(folder / f"{split}_labels.pkl"), keys)


def _vispr_private(folder: Path, split: str, keys: Sequence[str]) -> PrivateLabels:
    labels = _vispr(folder, split, keys)
    return PrivateLabels(VISPR_ATTRIBUTES, labels, {key: key for key in labels})


def _ntu_row(name: str, keep: Callable[[Path, str, Sequence[str]], Sequence[str]]) -> DatasetSpec:
    return DatasetSpec(
        name,
        "features_ntu",
        "ntu",
        NTU_NUM_ACTIONS,
        lambda folder, split, keys: read.read_ntu_actions(keys),
        keep=keep,
        read_private=lambda folder, split, keys: gender_labels(_ntu_people(folder, keys)),
    )


CATALOGUE: Mapping[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            "k400",
            "features_kinetics",
            "k400",
            400,
            lambda folder, split, keys: read.read_json_labels(folder / f"k400_{split}_labels.json"),
        ),
        DatasetSpec(
            "hmdb51",
            "features_hmdb",
            "hmdb51",
            51,
            lambda folder, split, keys: read.read_csv_labels(folder / f"hmdb51_{split}_labels.csv"),
            splits=("train", "val", "test"),
        ),
        DatasetSpec("ucf101", "features_ucf101", "ucf101", 101, _ucf),
        _ntu_row("ntu", _ntu_side),
        *(_ntu_row(variant, _ntu_bias_side(variant)) for variant in NTU_BIAS),
        DatasetSpec(
            "tsh",
            "features_tsh",
            "tsh",
            31,
            _smarthome,
            read_private=lambda folder, split, keys: gender_labels(_smarthome_people(folder, keys)),
        ),
        DatasetSpec("casia_b", "features_casia_b", "casia_b", len(CASIA_B_REPETITIONS), _casia_walks, keep=_casia_side),
        DatasetSpec(
            "vispr",
            "features_vispr",
            "vispr",
            7,
            _vispr,
            multi_label=True,
            is_images=True,
            read_private=_vispr_private,
        ),
        *_vp_rows("vp_hmdb", ("train", "val", "test"), _vp_hmdb_actions, 51),
        *_vp_rows("vp_ucf", ("train", "test"), _vp_ucf_actions, 101),
    )
}
"""`ar_dataset` or `dataset` in params -> row. Labels of `vp_hmdb` and `vp_ucf` are private attributes, those of
`vp_*_actions` the actions in the same features."""

STORED = tuple({spec.store_stem: spec.name for spec in reversed(CATALOGUE.values())}.values())
"""The rows that have feature stores of their own: of those that share some, the first."""

PEOPLE: Mapping[str, Callable[[Path, Sequence[str]], Mapping[str, Person]]] = {
    **dict.fromkeys(("ntu", *NTU_BIAS), _ntu_people),
    "tsh": _smarthome_people,
}
"""Data sets that say who is in a video: (label folder, keys) -> {key: person}."""


@dataclass(frozen=True)
class UntrimmedSpec:
    """A data set of long videos: a folder of .npy files, `[T, D]` each, and a file that says what happens when."""

    name: str
    """Its folder below the data root; its features are in `{name}_{file tag}`, as long_videos.py writes them."""
    annotations: str
    """In that folder."""

    def paths(self, encoder: str, data_root: str | None = None) -> tuple[Path, Path]:
        """(annotation file, folder of features), at the roots of config.py or below `data_root`."""
        data, features = config.roots(data_root)
        return data / self.name / self.annotations, features / f"{self.name}_{encoder_spec(encoder).file_tag}"


UNTRIMMED: Mapping[str, UntrimmedSpec] = {
    spec.name: spec
    for spec in (
        UntrimmedSpec("thumos14", "thumos14.json"),
        UntrimmedSpec("ucf_crime", "ucf-i3d.list"),
        UntrimmedSpec("xd_violence", "xd-i3d.list"),
        UntrimmedSpec("shanghaitech", "shanghai-i3d.list"),
    )
}
"""`tad_dataset` or `ad_dataset` in params -> row; for anomaly detection the file is the training list."""


def untrimmed_spec(name: str) -> UntrimmedSpec:
    """The row of `UNTRIMMED` called `name`."""
    if name not in UNTRIMMED:
        raise UserError("tad_dataset, ad_dataset", f"'{name}' is unknown", nearest(name, UNTRIMMED))
    return UNTRIMMED[name]


def dataset_spec(name: str) -> DatasetSpec:
    """The catalogue row called `name`."""
    if name not in CATALOGUE:
        raise UserError("dataset", f"'{name}' is unknown", nearest(name, CATALOGUE))
    return CATALOGUE[name]


def open_dataset(
    name: str, split: str, *, encoder: str, data_root: str | None = None, **options: Any
) -> FeatureDataset:
    """`splavu.datasets.open_split` for the row called `name`, at the roots of config.py or below `data_root`."""
    data, features = config.roots(data_root)
    return open_split(dataset_spec(name), split, features_root=features, labels_root=data, encoder=encoder, **options)


def people(name: str, keys: Sequence[str], *, data_root: str | None = None) -> Mapping[str, Person]:
    """Subject and perceived gender of each video of the row called `name`.

    Raises:
        UserError: The data set doesn't say, or not of one of the videos.
    """
    if name not in PEOPLE:
        raise UserError("dataset", f"'{name}' doesn't tell women from men", f"known: {', '.join(PEOPLE)}")
    return PEOPLE[name](config.roots(data_root)[0] / dataset_spec(name).folder, keys)


class CatalogueDataset(FeatureDataset):
    """A split of the class's row.

    Args:
        split: 'train', 'test', for HMDB51 also 'val'.
        encoder: As `ft_arch` in params.
        num_modes: None draws one random clip a video; a number takes so many evenly spaced ones, `[M, D]`.
        return_fb_frames: Add two static clips, drawn from `fb_frame_pool` a video.
        seed: Seed of the draws; `set_epoch` changes them.
    """

    row: ClassVar[DatasetSpec]

    def __init__(
        self,
        split: str = "train",
        *,
        encoder: str = "videoMAE",
        num_modes: int | None = None,
        return_fb_frames: bool = False,
        fb_frame_pool: int = 10,
        seed: int = 0,
    ) -> None:
        opened = open_dataset(
            self.row.name,
            split,
            encoder=encoder,
            draw=RandomClip() if num_modes is None else EvenClips(num_modes),
            static_frames=fb_frame_pool if return_fb_frames else 0,
            seed=seed,
        )
        self.__dict__.update(opened.__dict__)


class KineticsFeaturesDataset(CatalogueDataset):
    row = CATALOGUE["k400"]


class HMDBFeaturesDataset(CatalogueDataset):
    row = CATALOGUE["hmdb51"]


class UCFFeaturesDataset(CatalogueDataset):
    row = CATALOGUE["ucf101"]


class NTUFeaturesDataset(CatalogueDataset):
    row = CATALOGUE["ntu"]


class TSHFeaturesDataset(CatalogueDataset):
    row = CATALOGUE["tsh"]


class VISPRFeaturesDataset(CatalogueDataset):
    row = CATALOGUE["vispr"]


class VPHMDBFeaturesDataset(CatalogueDataset):
    row = CATALOGUE["vp_hmdb"]


class VPUCFFeaturesDataset(CatalogueDataset):
    row = CATALOGUE["vp_ucf"]


def privacy_rows(
    dataset: str, split: str, view: str, *, encoder: str, static_frames: int = 10, data_root: str | None = None
) -> tuple[Rows, tuple[str, ...]]:
    """Every served feature of those videos of a split whose private attributes are known.

    Args:
        dataset: A row of the catalogue; one without private labels of its own needs `private_labels.csv` (filename,
            subject, VISPR's attributes) in its folder, of some of its videos at least.
        split: As in the catalogue.
        view: 'temporal' are the released clips, 'static' the static clips (for images: the stored views).
        encoder: As `ft_arch` in params.
        static_frames: How many static clips a video the store holds.
        data_root: Another root than config.DATA.

    Returns:
        A row a feature, whose cluster is the person; and the names of the attributes.
    """
    spec = dataset_spec(dataset)
    data, features = config.roots(data_root)
    if spec.is_images and view != "static":
        raise UserError(
            "views", f"'{view}' of {dataset}: still images have no clips in time", "use views = ('static',)"
        )
    frames = static_frames if view == "static" and not spec.is_images else 0
    path = spec.store_path(features, split, encoder, static_frames=frames)
    store = FeatureStore(path, feature_dim=encoder_spec(encoder).feature_dim)
    stored = spec.keys(data, split, store.keys())
    private = spec.read_private(data / spec.folder, split, stored)
    keys = [key for key in stored if key in private.values]
    if not keys:
        raise UserError(
            path, f"none of its {len(stored)} videos is in the private labels of {dataset}", "label some of them"
        )
    if len(keys) < len(stored):
        logger.info("%s: %d of %d videos have private labels", path, len(keys), len(stored))
    store.verify(keys)
    blocks = [np.atleast_2d(store[key]) for key in keys]
    counts = [len(block) for block in blocks]
    rows = Rows(
        np.concatenate(blocks),
        np.repeat(np.stack([private.values[key] for key in keys]), counts, axis=0),
        np.repeat(np.array([private.people[key] for key in keys]), counts),
        np.repeat(np.array(keys), counts),
    )
    return rows, private.attributes

"""The data sets of this study, a row each: labels, splits, key rule, layout on disk, official counts, public class.

To add a data set, add its row here (and a reader to `splavu/data/labels.py` if the format of its labels is new): the
scripts, `check-data`, feature extraction and `feature_dl` go by the rows.

Note: the keys of a store are not always bare names. VISPR's have `.jpg`, those of the VP sets the folder and `.avi`;
each row says its rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from splavu.data import labels as read
from splavu.data.datasets import DatasetSpec, Layout
from splavu.data.keys import match_keys
from splavu.data.label_table import LABELS_FILE, read_label_table
from splavu.data.labels import VISPR_ATTRIBUTES
from splavu.data.name_tables import NAME_RULES, VpName, table_name
from splavu.data.pahmdb51 import PAHMDB51_VALUES
from splavu.data.private_labels import PrivateLabels
from splavu.data.splits import (
    CASIA_B_REPETITIONS,
    NTU_BIAS,
    NTU_NUM_ACTIONS,
    CasiaName,
    NtuName,
    ntu_bias_side,
    ntu_split,
)
from splavu.data.subjects import Subject, gender_labels, read_ntu_genders, read_smarthome
from splavu.errors import UserError, nearest

Label = TypeVar("Label")
ReadLabels = Callable[[Path, str, Sequence[str]], Mapping[str, Any]]
"""(label folder, split, the store's keys) -> {key: label}."""
ReadSubjects = Callable[[Path, Sequence[str]], Mapping[str, Subject]]
"""(label folder, keys) -> {key: subject and perceived gender}."""


@dataclass(frozen=True)
class CatalogueRow(DatasetSpec):
    """A data set, with what only this study asks of it."""

    layout: Layout = field(kw_only=True)
    public_class: str | None = None
    """Name of its class in `feature_dl`; None: it has none of its own."""
    read_subjects: ReadSubjects | None = None
    """None: no file says who is in its videos."""
    videos_of: str | None = None
    """The row whose videos these are; None: it has videos of its own. The first label file names them by path."""


CASIA_B_TRAIN_SUBJECTS = 74
"""Casia-B's subjects 001 to 074 are its training half, by convention; recognising them is never trained here."""


def _stored_as(known: Mapping[str, Label], keys: Sequence[str], source: Path) -> dict[str, Label]:
    """Labels by file name without extension -> by the store's keys, which may carry one."""
    key_of_name = {name: key for key, name in match_keys(known, keys, source=source).items()}
    return {key_of_name.get(name, name): label for name, label in known.items()}


def _ucf(folder: Path, split: str, keys: Sequence[str]) -> Mapping[str, int]:
    return read.read_ucf_labels(folder / f"ucfTrainTestlist/{split}list01.txt", folder / "action_classes.json")


def _smarthome(folder: Path, split: str, keys: Sequence[str]) -> Mapping[str, int]:
    path = folder / "tsh_labels.csv"
    videos = read_smarthome(path)
    return _stored_as({name: video.label for name, video in videos.items() if video.split == split}, keys, path)


def _smarthome_subjects(folder: Path, keys: Sequence[str]) -> Mapping[str, Subject]:
    path = folder / "tsh_labels.csv"
    subjects = {name: Subject(video.subject, video.gender) for name, video in read_smarthome(path).items()}
    return _those_of(_stored_as(subjects, keys, path), keys, path)


def _ntu_subjects(folder: Path, keys: Sequence[str]) -> Mapping[str, Subject]:
    path = folder / "ntu_subject_gender_labels.json"
    genders = read_ntu_genders(path)
    subjects = {key: said.subject for key, said in ntu_names(folder, keys).items()}
    if strangers := sorted(set(subjects.values()) - set(genders)):
        raise UserError(path, f"has no gender of {strangers[0]} ({len(strangers)} subjects have none)", "add it")
    return {key: Subject(subject, genders[subject]) for key, subject in subjects.items()}


def _ntu_side(folder: Path, split: str, keys: Sequence[str]) -> Sequence[str]:
    names = ntu_names(folder, keys)
    return getattr(ntu_split(names, names), split)


def _ntu_bias_side(variant: str) -> Callable[[Path, str, Sequence[str]], Sequence[str]]:
    def side(folder: Path, split: str, keys: Sequence[str]) -> Sequence[str]:
        genders = read_ntu_genders(folder / "ntu_subject_gender_labels.json")
        names = ntu_names(folder, keys)
        return ntu_bias_side(variant, names, genders, split, said=names)

    return side


def _casia_side(folder: Path, split: str, keys: Sequence[str]) -> Sequence[str]:
    names = casia_names(folder, keys)
    return [key for key, said in names.items() if (int(said.subject) <= CASIA_B_TRAIN_SUBJECTS) == (split == "train")]


def _casia_walks(folder: Path, split: str, keys: Sequence[str]) -> Mapping[str, int]:
    return {key: list(CASIA_B_REPETITIONS).index(said.walk) for key, said in casia_names(folder, keys).items()}


def ntu_names(folder: Path, keys: Sequence[str]) -> dict[str, NtuName]:
    """What the names of NTU's videos say, or the table of names in its folder."""
    return NAME_RULES["ntu"].read(keys, folder / table_name("ntu"))


def casia_names(folder: Path, keys: Sequence[str]) -> dict[str, CasiaName]:
    """What the names of Casia-B's videos say, or the table of names in its folder."""
    return NAME_RULES["casia_b"].read(keys, folder / table_name("casia_b"))


def vp_names(name: str, folder: Path, keys: Sequence[str]) -> dict[str, VpName]:
    """What the keys of a VP set say, or the table of names in the folder of both."""
    return NAME_RULES[name].read(keys, folder / table_name(name))


BARE_NAME = "file name without extension"


def _vp_rows(
    name: str,
    file_name: str,
    videos_of: str,
    public_class: str,
    *,
    splits: tuple[str, ...],
    read_actions: ReadLabels,
    action_file: str,
    num_actions: int,
) -> tuple[CatalogueRow, CatalogueRow]:
    """The private attributes and the actions of the same videos. Label files don't name a split, stores do."""

    def vectors(folder: Path, split: str, keys: Sequence[str]) -> Mapping[str, NDArray]:
        return _those_of(read.read_vector_csv(folder / file_name), keys, folder / file_name)

    def private(folder: Path, split: str, keys: Sequence[str]) -> PrivateLabels:
        films = {key: said.film for key, said in vp_names(name, folder, keys).items()}
        return PrivateLabels(tuple(PAHMDB51_VALUES), vectors(folder, split, keys), films)

    layout = Layout(
        f"{videos_of}/videos",
        (f"vp/{file_name}",),
        "path in the label file, ACTION/NAME.avi",
        note=f"{videos_of}'s videos; for their extraction its own split files say which are trained on",
    )
    attributes = CatalogueRow(
        name,
        f"features_{name}",
        "vp",
        len(PAHMDB51_VALUES),
        vectors,
        multi_label=True,
        splits=splits,
        read_private=private,
        layout=layout,
        videos_of=videos_of,
        public_class=public_class,
    )
    actions = replace(
        attributes,
        name=f"{name}_actions",
        num_classes=num_actions,
        read_labels=read_actions,
        multi_label=False,
        layout=replace(layout, label_files=(*layout.label_files, action_file)),
        public_class=None,
    )
    return attributes, actions


def _vp_hmdb_actions(folder: Path, split: str, keys: Sequence[str]) -> Mapping[str, int]:
    path = folder.parent / f"hmdb51/hmdb51_{split}_labels.csv"
    known = read.read_csv_labels(path)
    name_of = match_keys(known, keys, source=path)
    return _those_of({key: known[name] for key, name in name_of.items()}, keys, path)


def _vp_ucf_actions(folder: Path, split: str, keys: Sequence[str]) -> Mapping[str, int]:
    names = vp_names("vp_ucf", folder, keys)
    actions = [said.action for said in names.values()]
    classes = read.read_ucf_classes(folder.parent / "ucf101/action_classes.json", actions)
    return dict(zip(names, classes, strict=True))


def _those_of(known: Mapping[str, Label], keys: Sequence[str], path: Path) -> dict[str, Label]:
    if absent := [key for key in keys if key not in known]:
        raise UserError(path, f"has no label for '{absent[0]}' ({len(absent)} have none)", "label it")
    return {key: known[key] for key in keys}


def _vispr(folder: Path, split: str, keys: Sequence[str]) -> Mapping[str, NDArray]:
    path = folder / f"{split}_labels.pkl"
    return _stored_as(read.read_attribute_pickle(path), keys, path)


def _vispr_private(folder: Path, split: str, keys: Sequence[str]) -> PrivateLabels:
    labels = _vispr(folder, split, keys)
    return PrivateLabels(VISPR_ATTRIBUTES, labels, {key: key for key in labels})


def _ntu_row(
    name: str, keep: Callable[[Path, str, Sequence[str]], Sequence[str]], public_class: str | None = None
) -> CatalogueRow:
    return CatalogueRow(
        name,
        "features_ntu",
        "ntu",
        NTU_NUM_ACTIONS,
        lambda folder, split, keys: {key: said.action - 1 for key, said in ntu_names(folder, keys).items()},
        keep=keep,
        read_private=lambda folder, split, keys: gender_labels(_ntu_subjects(folder, keys)),
        read_subjects=_ntu_subjects,
        public_class=public_class,
        layout=Layout(
            "ntu/videos",
            ("ntu/ntu_subject_gender_labels.json",),
            "SsssCcccPpppRrrrAaaa and its tail, without extension",
            {"all": 56_880},
            num_subjects=40,
            note="six subjects are left out of both splits",
        ),
    )


CATALOGUE: Mapping[str, CatalogueRow] = {
    spec.name: spec
    for spec in (
        CatalogueRow(
            "k400",
            "features_kinetics",
            "k400",
            400,
            lambda folder, split, keys: read.read_json_labels(folder / f"k400_{split}_labels.json"),
            layout=Layout(
                "k400/videos",
                ("k400/k400_{split}_labels.json",),
                BARE_NAME,
                note="videos vanish from the web, so every copy has its own count",
            ),
            public_class="KineticsFeaturesDataset",
        ),
        CatalogueRow(
            "hmdb51",
            "features_hmdb",
            "hmdb51",
            51,
            lambda folder, split, keys: read.read_csv_labels(folder / f"hmdb51_{split}_labels.csv"),
            splits=("train", "val", "test"),
            layout=Layout(
                "hmdb51/videos",
                ("hmdb51/hmdb51_{split}_labels.csv",),
                BARE_NAME,
                {"train": 3570, "test": 1530},
                note="split 1; it leaves videos out, and a val split of your own takes some from train",
            ),
            public_class="HMDBFeaturesDataset",
        ),
        CatalogueRow(
            "ucf101",
            "features_ucf101",
            "ucf101",
            101,
            _ucf,
            layout=Layout(
                "ucf101/videos",
                ("ucf101/ucfTrainTestlist/{split}list01.txt", "ucf101/action_classes.json"),
                BARE_NAME,
                {"train": 9537, "test": 3783},
                note="split 1",
            ),
            public_class="UCFFeaturesDataset",
        ),
        _ntu_row("ntu", _ntu_side, "NTUFeaturesDataset"),
        *(_ntu_row(variant, _ntu_bias_side(variant)) for variant in NTU_BIAS),
        CatalogueRow(
            "tsh",
            "features_tsh",
            "tsh",
            31,
            _smarthome,
            read_private=lambda folder, split, keys: gender_labels(_smarthome_subjects(folder, keys)),
            read_subjects=_smarthome_subjects,
            layout=Layout("tsh/videos", ("tsh/tsh_labels.csv",), BARE_NAME, {"all": 16_115}, num_subjects=18),
            public_class="TSHFeaturesDataset",
        ),
        CatalogueRow(
            "casia_b",
            "features_casia_b",
            "casia_b",
            len(CASIA_B_REPETITIONS),
            _casia_walks,
            keep=_casia_side,
            layout=Layout(
                "casia_b/videos",
                (),
                "SSS-TT-NN-VVV: subject, walk, repetition, view",
                {"train": 74 * 110, "test": 50 * 110},
                num_subjects=124,
                note="124 subjects x 10 walks x 11 views; some copies lack a few",
            ),
        ),
        CatalogueRow(
            "vispr",
            "features_vispr",
            "vispr",
            7,
            _vispr,
            multi_label=True,
            is_images=True,
            read_private=_vispr_private,
            layout=Layout(
                "vispr/{split}2017",
                ("vispr/{split}_labels.pkl",),
                "file name with .jpg",
                {"train": 10_000, "test": 8_000},
                note="images; the validation part is not used",
            ),
            public_class="VISPRFeaturesDataset",
        ),
        *_vp_rows(
            "vp_hmdb",
            "vphmdb51_labels_num.csv",
            "hmdb51",
            "VPHMDBFeaturesDataset",
            splits=("train", "val", "test"),
            read_actions=_vp_hmdb_actions,
            action_file="hmdb51/hmdb51_{split}_labels.csv",
            num_actions=51,
        ),
        *_vp_rows(
            "vp_ucf",
            "vpucf101_labels_num.csv",
            "ucf101",
            "VPUCFFeaturesDataset",
            splits=("train", "test"),
            read_actions=_vp_ucf_actions,
            action_file="ucf101/action_classes.json",
            num_actions=101,
        ),
    )
}
"""`ar_dataset` or `dataset` in params -> row. Labels of `vp_hmdb` and `vp_ucf` are private attributes, those of
`vp_*_actions` the actions in the same features."""

STORED = tuple({spec.store_stem: spec.name for spec in reversed(CATALOGUE.values())}.values())
"""The rows that have feature stores of their own: of those that share some, the first."""

WITH_SUBJECTS = tuple(name for name, row in CATALOGUE.items() if row.read_subjects is not None)
"""The rows that say who is in a video, and the perceived gender of each subject."""

FOLDER = "folder:"
"""`dataset = 'folder:gym'` is the folder gym/ below the data root: any videos, with a labels.csv."""


def folder_of(name: str) -> str:
    """The folder in `name`, which starts with `FOLDER`."""
    folder = name.removeprefix(FOLDER)
    if not re.fullmatch(r"\w[\w.-]*", folder):
        raise UserError(
            "dataset", f"'{name}' names no folder", f"write '{FOLDER}NAME' for a folder below the data root"
        )
    return folder


def folder_row(name: str, data_root: Path) -> CatalogueRow:
    """The row of a user's own videos, named `FOLDER` and their folder; their labels.csv gives classes and splits.

    Raises:
        UserError: It is not the name of a folder, or its labels.csv is missing or damaged.
    """
    folder = folder_of(name)
    table = read_label_table(data_root / folder / LABELS_FILE)
    return CatalogueRow(
        name,
        f"features_folder_{folder}",
        folder,
        len(table.classes),
        lambda folder, split, keys: read_label_table(folder / LABELS_FILE).of(split),
        splits=table.splits,
        layout=Layout(f"{folder}/videos", (f"{folder}/{LABELS_FILE}",), BARE_NAME),
    )


def row_of(name: str, data_root: Path) -> CatalogueRow:
    """The row of `CATALOGUE` called `name`, or that of a user's own folder (`FOLDER`)."""
    if name.startswith(FOLDER):
        return folder_row(name, data_root)
    if name not in CATALOGUE:
        raise UserError(
            "dataset", f"'{name}' is unknown", f"{nearest(name, CATALOGUE)} Your own videos: '{FOLDER}NAME'"
        )
    return CATALOGUE[name]

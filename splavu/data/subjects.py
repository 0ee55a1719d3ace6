"""Who is in a video: a table of one's own; subjects and their gender in NTU RGB+D and in Toyota Smarthome.

Note: "gender" is what annotators perceived; no one in these files was asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splavu.data.csv_table import by_key, check_splits, filled, read_rows, split_of
from splavu.data.keys import match_keys
from splavu.data.labels import class_index, read_json
from splavu.data.private_labels import PrivateLabels
from splavu.errors import UserError, nearest

GENDERS = ("female", "male")


@dataclass(frozen=True)
class Subject:
    """A subject as a fairness evaluation groups them."""

    name: str
    gender: str
    """As annotators perceived it: 'female' or 'male'."""


def read_subjects(path: str | Path, keys: Iterable[str]) -> PrivateLabels:
    """Who is in those of the keys that have a row in a table `filename,subject`, and their splits, if it has any.

    A table `filename,split` says who is trained on and not who is who.

    Raises:
        UserError: Besides damaged rows, a row without a subject, a subject in two splits, and rows and keys that match
            in two ways.
    """
    rows = read_rows(path)
    if "split" not in rows[0]:
        rows = read_rows(path, ("filename", "subject"))
    names = [row["filename"] for row in rows]
    splits = {name: split_of(row["split"], name, path) for name, row in zip(names, rows, strict=True) if "split" in row}
    subjects: dict[str, str] = {}
    if "subject" in rows[0]:
        cells = filled(rows, "subject", path, remedy="fill them in, or take the rows out")
        subjects = dict(zip(names, cells, strict=True))
        check_splits(subjects, splits, path)
    name_of = match_keys(names, keys, source=path)
    return PrivateLabels(
        (),
        {},
        {key: subjects[name] for key, name in name_of.items() if name in subjects},
        {key: splits[name] for key, name in name_of.items() if name in splits},
    )


def gender_labels(subjects: Mapping[str, Subject]) -> PrivateLabels:  # key -> subject
    """Gender as the one private attribute, 1 for 'female'."""
    values = {key: np.array([subject.gender == "female"], dtype=np.float32) for key, subject in subjects.items()}
    return PrivateLabels(("gender",), values, {key: subject.name for key, subject in subjects.items()})


def read_ntu_genders(path: str | Path) -> dict[str, str]:
    """`{"male": ["P003", ...], "female": [...]}` (ntu_subject_gender_labels.json) -> {subject: gender}."""
    listed = read_json(path)
    for gender in GENDERS:
        if not isinstance(listed.get(gender), list):
            raise UserError(path, f"has no list '{gender}'", "it takes a list 'male' and a list 'female' of subjects")
    if unknown := sorted(set(listed) - set(GENDERS)):
        raise UserError(path, f"'{unknown[0]}' is no gender of this file", nearest(unknown[0], GENDERS))
    genders: dict[str, str] = {}
    for gender in GENDERS:
        for subject in listed[gender]:
            if not isinstance(subject, str) or not re.fullmatch(r"P[0-9]{3}", subject):
                raise UserError(path, f"{subject!r} is no subject of the form Pppp, such as P003", "mend the list")
            if subject in genders:
                raise UserError(path, f"duplicate subject '{subject}'", "give each subject one gender")
            genders[subject] = gender
    return genders


@dataclass(frozen=True)
class SmarthomeVideo:
    """One row of tsh_labels.csv."""

    subject: str
    gender: str
    split: str
    """'train' or 'test', here and there 'val': the split is the file's, none is made."""
    label: int
    """0-based, unlike in the file."""


def read_smarthome(path: str | Path, *, num_classes: int = 31) -> dict[str, SmarthomeVideo]:
    """Toyota Smarthome's `filename,subject,gender,split,label` -> {file name without media extension: row}.

    Raises:
        UserError: Besides damaged rows, a row without a subject, and a subject of two genders or in two splits.
    """
    videos: dict[str, SmarthomeVideo] = {}
    of_subject: dict[str, SmarthomeVideo] = {}
    rows = read_rows(path, ("filename", "subject", "gender", "split", "label"))
    filled(rows, "subject", path, remedy="use the published label file")
    for key, row in by_key(rows, path).items():
        if row["split"] not in ("train", "val", "test"):
            raise UserError(path, f"'{key}' is in split '{row['split']}'", "known: train, val, test")
        label = class_index(row["label"], path, key, base=1, num_classes=num_classes)
        video = SmarthomeVideo(row["subject"], _gender(row["gender"], path, key), row["split"], label)
        first = of_subject.setdefault(video.subject, video)
        for field in ("gender", "split"):
            if getattr(first, field) != getattr(video, field):
                values = f"{field} {getattr(first, field)} and {getattr(video, field)}"
                raise UserError(path, f"subject '{video.subject}' has {values}", "give each subject one")
        videos[key] = video
    return videos


def _gender(value: str, path: object, key: str) -> str:
    gender = {"f": "female", "m": "male"}.get(value.strip().lower(), value.strip().lower())
    if gender not in GENDERS:
        raise UserError(path, f"'{key}' has gender '{value}'", f"known: {', '.join(GENDERS)}")
    return gender

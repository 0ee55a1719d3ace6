"""`labels.csv`: the labels of one's own videos, a row per video, and which of them are trained on and which tested on.

Note: without a column `split` the videos are dealt out by a hash of their subject (of their own name, if there is no
column `subject`). So a video stays on its side when others are added, and no subject is on both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from splavu.data.csv_table import by_key, check_splits, filled, read_rows, split_of
from splavu.data.labels import class_index
from splavu.errors import UserError

LABELS_FILE = "labels.csv"
SPLITS = ("train", "val", "test")
TEST_SHARE = 0.2
"""Of the subjects (or videos) that are tested on where the table has no column `split`."""
MOST_CLASSES = 100_000
"""A number beyond is taken for a mistake: a head has an output for each."""


@dataclass(frozen=True)
class LabelTable:
    """What `labels.csv` says."""

    classes: tuple[str, ...]
    """Names, in the order of the class numbers: as in the file, sorted; or the numbers themselves."""
    label_of: Mapping[str, int]
    """Key (file name without folder and media extension) -> class, 0-based."""
    split_of: Mapping[str, str]
    """Key -> 'train', 'val' or 'test'."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that have a video."""
        held = set(self.split_of.values())
        return tuple(split for split in SPLITS if split in held)

    def of(self, split: str) -> dict[str, int]:
        """Key -> class of one split, in the order of the file."""
        return {key: label for key, label in self.label_of.items() if self.split_of[key] == split}


def read_label_table(path: str | Path) -> LabelTable:
    """Columns `filename,label` and, if there are such, `split` and `subject`.

    Labels are names, or numbers counted from 0.

    Raises:
        UserError: Besides damaged rows, names mixed with numbers, a row without its subject, an unknown split, a
            subject on two sides, no video to train on or to test on.
    """
    listed = read_rows(path, ("filename", "label"))
    rows = by_key(listed, path)
    classes, label_of = _numbered({key: row["label"].strip() for key, row in rows.items()}, path)
    subjects = {key: key for key in rows}
    if "subject" in listed[0]:
        named = filled(listed, "subject", path, remedy="fill them in, or take the column out")
        subjects = dict(zip(rows, named, strict=True))
    if "split" in listed[0]:
        split_of_key = {key: split_of(row["split"], key, path) for key, row in rows.items()}
    else:
        split_of_key = {key: "test" if _share(subject) < TEST_SHARE else "train" for key, subject in subjects.items()}
    check_splits(subjects, split_of_key, path)
    for split in ("train", "test"):
        if split not in split_of_key.values():
            raise UserError(path, f"no video is in split '{split}'", "add a column split with train and test")
    return LabelTable(classes, label_of, split_of_key)


def _numbered(labels: Mapping[str, str], path: str | Path) -> tuple[tuple[str, ...], dict[str, int]]:
    """The names of the classes, and the class of each key."""
    numbers = {key for key, label in labels.items() if label.isdecimal()}
    if numbers and len(numbers) < len(labels):
        number, name = next(iter(numbers)), next(key for key in labels if key not in numbers)
        problem = f"'{number}' has label {labels[number]}, '{name}' has label '{labels[name]}'"
        raise UserError(path, problem, "label with names or with numbers counted from 0, not with both")
    if numbers:
        label_of = {
            key: class_index(label, path, key, base=0, num_classes=MOST_CLASSES) for key, label in labels.items()
        }
        return tuple(map(str, range(1 + max(label_of.values())))), label_of
    if "" in labels.values():
        nameless = next(key for key, label in labels.items() if not label)
        raise UserError(path, f"'{nameless}' has no label", "label it, or take it out")
    classes = tuple(sorted(set(labels.values())))
    place = {name: index for index, name in enumerate(classes)}
    return classes, {key: place[label] for key, label in labels.items()}


def _share(subject: str) -> float:
    """A number in [0, 1) that belongs to a name."""
    return int.from_bytes(hashlib.sha256(subject.encode(errors="surrogateescape")).digest()[:6], "big") / 2**48

"""Labels: one reader per file format, each giving `{key: label}` with the keys of the feature stores.

Class labels come out 0-based whatever the file counts from. Several published files count from 1 and the reference
added one output to its heads to live with it; here the file's base is part of its reader.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from splavu.data.csv_table import by_key, lines_of, read_rows, read_text
from splavu.data.keys import file_key
from splavu.data.splits import ntu_name
from splavu.errors import UserError
from splavu.runtime.plain_values import load_arrays

VISPR_ATTRIBUTES = (
    "skin_color",
    "gender",
    "complete_face",
    "partial_face",
    "semi_nudity",
    "personal_relationship",
    "social_relationship",
)
"""Order of the 7-vectors in the VISPR label files (spec: splavu, section 4)."""


def read_csv_labels(
    path: str | Path, *, column: str = "label", base: int = 0, num_classes: int | None = None
) -> dict[str, int]:
    """Columns `filename,label` (HMDB51: `hmdb51_{train,test}_labels.csv`) -> {file name without extension: class}.

    Args:
        path: The CSV file, with a header.
        column: The column that holds the class.
        base: The number of the first class in the file.
        num_classes: Refuse classes beyond so many.
    """
    return {
        key: class_index(row[column], path, row["filename"], base=base, num_classes=num_classes)
        for key, row in by_key(read_rows(path, ("filename", column)), path).items()
    }


def read_json_labels(path: str | Path, *, base: int = 1) -> dict[str, int]:
    """`{key: class}` counting from `base` (Kinetics-400: `k400_{split}_labels.json`)."""
    labels = read_json(path)
    if "" in labels:
        raise UserError(path, "has a label without a key", "use the published label file")
    return {key: class_index(label, path, key, base=base) for key, label in labels.items()}


def read_ucf_labels(split_path: str | Path, classes_path: str | Path) -> dict[str, int]:
    """UCF101: lines `Class/v_Class_g01_c01.avi [1]` and `{"classes": {name: 1-based}}` -> {video name: class}."""
    lines = [
        re.split(r"[ \t]", line.strip(" \t"))[0]
        for line in lines_of(read_text(split_path, opaque=True))
        if line.strip()
    ]
    labels: dict[str, int] = {}
    for file_name, label in zip(lines, read_ucf_classes(classes_path, lines, source=split_path), strict=True):
        if not (key := file_key(file_name)):
            raise UserError(split_path, f"'{file_name}' names no file", "mend the line")
        if key in labels:
            raise UserError(split_path, f"duplicate key '{key}'", "keep one line a video")
        labels[key] = label
    return _filled(labels, split_path)


def read_ucf_classes(path: str | Path, file_names: Sequence[str], *, source: object = "a video") -> list[int]:
    """The classes of videos `Class/v_Class_g01_c01.avi` by `{"classes": {name: 1-based}}` (action_classes.json).

    Args:
        path: The class list.
        file_names: With the folder, which is the class.
        source: Where they are named, for the error.
    """
    classes = read_json(path).get("classes")
    if not isinstance(classes, dict):
        raise UserError(path, "has no object 'classes'", "use the published label file")
    labels = []
    for file_name in file_names:
        if (name := file_name.split("/")[0]) not in classes:
            raise UserError(source, f"class '{name}' is not in {path}", "use the matching class list")
        labels.append(class_index(classes[name], path, name, base=1))
    return labels


def read_attribute_pickle(path: str | Path, *, num_attributes: int = 7) -> dict[str, np.ndarray]:
    """VISPR's `{train,test}_labels.pkl` -> {image id without extension: float32 [A] of 0 and 1}.

    The pickle may name NumPy arrays and nothing else: a file with any other global in it is refused unread.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(path, "no such label file", "see docs/data.md for the layout of each data set")
    try:
        loaded = load_arrays(path.read_bytes())
    except Exception as error:  # a damaged stream makes the unpickler call anything with anything
        problem = f"is no pickle of NumPy arrays ({type(error).__name__}: {error})"
        raise UserError(path, problem, "use the published label file") from error
    if not isinstance(loaded, dict):
        raise UserError(path, f"holds a {type(loaded).__name__}, expected a dictionary of image id to vector")
    if strangers := [key for key in loaded if not isinstance(key, str) or not key]:
        raise UserError(path, f"has the key {strangers[0]!r}, expected image ids", "use the published label file")
    return {key: _attribute_vector(value, num_attributes, path, key) for key, value in loaded.items()}


def read_vector_csv(path: str | Path, *, num_attributes: int = 5) -> dict[str, np.ndarray]:
    """VP-HMDB51 and VP-UCF101: `filename,label` with label text such as "[0. 1. 0. 1. 1.]" -> {file name: [A]}."""
    labels = {}
    for row in read_rows(path, ("filename", "label")):
        numbers = row["label"].strip().removeprefix("[").removesuffix("]").replace(",", " ").split()
        labels[row["filename"]] = _attribute_vector(numbers, num_attributes, path, row["filename"])
    return labels


def read_ntu_actions(names: Iterable[str]) -> dict[str, int]:
    """NTU RGB+D names `SsssCcccPpppRrrrAaaa...` -> {name: action, 0-based}."""
    return {name: ntu_name(name).action - 1 for name in names}


def class_index(value: object, path: object, key: str, *, base: int, num_classes: int | None = None) -> int:
    """The 0-based class that `value` means in a file that counts from `base`."""
    try:
        if isinstance(value, bool) or "_" in str(value):  # float() takes True and 1_0
            raise ValueError
        index = int(number := float(str(value))) - base  # some files write the class as 3.0
        if index != number - base:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise UserError(path, f"'{key}' has label {_shown(value)}, expected a whole number") from None
    if index < 0:
        raise UserError(path, f"'{key}' has label {value}, but this file counts from {base}", "check the label file")
    if num_classes is not None and index >= num_classes:
        problem = f"'{key}' has label {value}, but there are {num_classes} classes counted from {base}"
        raise UserError(path, problem, "check the label file")
    return index


def _attribute_vector(value: object, num_attributes: int, path: object, key: str) -> np.ndarray:
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            vector = np.asarray(value, dtype=np.float32).reshape(-1)  # [A]
    except (TypeError, ValueError, OverflowError):
        raise UserError(path, f"'{key}' has label {_shown(value)}, expected {num_attributes} numbers") from None
    if vector.shape != (num_attributes,) or not np.isin(vector, (0.0, 1.0)).all():
        raise UserError(path, f"'{key}' has label {_shown(vector.tolist())}, expected {num_attributes} values 0 or 1")
    return vector


def _shown(value: object) -> str:
    """A value in a message, cut to a length that can be read."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python prints
        text = "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _filled(labels: dict[str, int], path: object) -> dict[str, int]:
    if not labels:
        raise UserError(path, "names no file", "see docs/data.md for the layout of each data set")
    return labels


def read_json(path: str | Path) -> dict:
    """The object in a JSON file; a duplicate key, anywhere in it, is refused."""

    def unique(pairs: list[tuple[str, object]]) -> dict:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))
            raise UserError(path, f"duplicate key '{twice}'", "keep one of the two")
        return found

    try:
        loaded = json.loads(read_text(path), object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise UserError(
            path, f"is no JSON (line {error.lineno}: {error.msg})", "use the published label file"
        ) from error
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
        raise UserError(path, f"is no JSON of labels ({error})", "use the published label file") from error
    if not isinstance(loaded, dict):
        raise UserError(path, f"holds a {type(loaded).__name__}, expected an object", "use the published label file")
    return loaded

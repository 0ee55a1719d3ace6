"""Labels: one reader per file format, each giving `{key: label}` with the keys of the feature stores.

Class labels come out 0-based whatever the file counts from. Several published files count from 1 and the reference
added one output to its heads to live with it; here the file's base is part of its reader.
"""

from __future__ import annotations

import csv
import io
import json
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from splavu.errors import UserError

try:
    from numpy._core import multiarray as _multiarray
except ImportError:  # NumPy 1
    from numpy.core import multiarray as _multiarray

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


def without_extension(file_name: str) -> str:
    """`"brush_hair/a.b.avi"` -> `"a.b"`: the key rule of most stores (the last extension only, no folder)."""
    name = file_name.rsplit("/", 1)[-1]
    return name.rsplit(".", 1)[0] if re.search(r"\.[A-Za-z0-9]{2,4}$", name) else name


def read_csv_labels(path: str | Path, *, column: str = "label", base: int = 0) -> dict[str, int]:
    """Columns `filename,label` (HMDB51: `hmdb51_{train,test}_labels.csv`) -> {file name without extension: class}.

    Args:
        path: The CSV file, with a header.
        column: The column that holds the class.
        base: The number of the first class in the file.
    """
    return {
        without_extension(row["filename"]): _class_index(row[column], base, path, row["filename"])
        for row in read_rows(path, ("filename", column))
    }


def read_json_labels(path: str | Path, *, base: int = 1) -> dict[str, int]:
    """`{key: class}` counting from `base` (Kinetics-400: `k400_{split}_labels.json`)."""
    loaded = _read_json(path)
    if not isinstance(loaded, dict):
        raise UserError(path, f"holds a {type(loaded).__name__}, expected an object of key to class")
    return {key: _class_index(label, base, path, key) for key, label in loaded.items()}


def read_ucf_labels(split_path: str | Path, classes_path: str | Path) -> dict[str, int]:
    """UCF101: lines `Class/v_Class_g01_c01.avi [1]` and `{"classes": {name: 1-based}}` -> {video name: class}."""
    classes = _read_json(classes_path).get("classes", {})
    labels = {}
    for line in _read_text(split_path).splitlines():
        if not line.strip():
            continue
        file_name = line.split()[0]
        class_name = file_name.split("/")[0]
        if class_name not in classes:
            raise UserError(split_path, f"class '{class_name}' is not in {classes_path}", "use the matching class list")
        labels[without_extension(file_name)] = int(classes[class_name]) - 1
    return _filled(labels, split_path)


def read_attribute_pickle(path: str | Path, *, num_attributes: int = 7) -> dict[str, np.ndarray]:
    """VISPR's `{train,test}_labels.pkl` -> {image id without extension: float32 [A] of 0 and 1}.

    The pickle may name NumPy arrays and nothing else: a file with any other global in it is refused unread.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(path, "no such label file", "see the README for the layout of each data set")
    try:
        loaded = _ArrayUnpickler(io.BytesIO(path.read_bytes())).load()
    except (pickle.UnpicklingError, EOFError, ValueError, AttributeError, IndexError, KeyError, TypeError) as error:
        raise UserError(path, f"is no pickle of NumPy arrays ({error})", "use the published label file") from error
    if not isinstance(loaded, dict):
        raise UserError(path, f"holds a {type(loaded).__name__}, expected a dictionary of image id to vector")
    return {key: _attribute_vector(value, num_attributes, path, key) for key, value in loaded.items()}


def read_vector_csv(path: str | Path, *, num_attributes: int = 5) -> dict[str, np.ndarray]:
    """VP-HMDB51 and VP-UCF101: `filename,label` with label text such as "[0. 1. 0. 1. 1.]" -> {file name: [A]}."""
    labels = {}
    for row in read_rows(path, ("filename", "label")):
        numbers = re.findall(r"[-+]?\d*\.?\d+", row["label"])
        labels[row["filename"]] = _attribute_vector(numbers, num_attributes, path, row["filename"])
    return labels


def read_ntu_actions(names: Iterable[str]) -> dict[str, int]:
    """NTU RGB+D names `SsssCcccPpppRrrrAaaa...` -> {name: action, 0-based}."""
    return {name: ntu_part(name, "A") - 1 for name in names}


def ntu_part(name: str, letter: str) -> int:
    """The number behind `letter` (S setup, C camera, P person, R repetition, A action) in an NTU RGB+D file name."""
    match = re.match(r"S(?P<S>\d{3})C(?P<C>\d{3})P(?P<P>\d{3})R(?P<R>\d{3})A(?P<A>\d{3})", name)
    if match is None:
        raise UserError(name, "is no NTU RGB+D name of the form SsssCcccPpppRrrrAaaa", "check the store's keys")
    return int(match[letter])


def read_private_labels(
    path: str | Path, *, attributes: tuple[str, ...] = VISPR_ATTRIBUTES
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """A side file `filename,subject,...,<attributes>` -> ({key: float32 [A]}, {key: subject})."""
    rows = read_rows(path, ("filename", "subject", *attributes))
    values = {}
    for row in rows:
        values[without_extension(row["filename"])] = _attribute_vector(
            [row[name] for name in attributes], len(attributes), path, row["filename"]
        )
    return values, {without_extension(row["filename"]): row["subject"] for row in rows}


def read_rows(path: str | Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV file that must have a header with `columns`, at least one row, and no file name twice."""
    reader = csv.DictReader(io.StringIO(_read_text(path)))
    header = reader.fieldnames or []
    if missing := [name for name in columns if name not in header]:
        raise UserError(path, f"has columns {', '.join(header) or '(none)'} but not '{missing[0]}'", "mend the header")
    rows = list(reader)
    if not rows:
        raise UserError(path, "has a header but no row", "write at least one label")
    seen: set[str] = set()
    for row in rows:
        name = row[columns[0]]
        if name in seen:
            raise UserError(path, f"'{name}' stands there twice", "keep one row a file")
        seen.add(name)
    return rows


class _ArrayUnpickler(pickle.Unpickler):
    """Rebuilds NumPy arrays and scalars; every other global in the stream is refused."""

    _ALLOWED: Mapping[tuple[str, str], Callable] = {
        (f"numpy.{core}.multiarray", name): getattr(_multiarray, name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    } | {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it wants to load {module}.{name}")
        return self._ALLOWED[module, name]


def _class_index(value: object, base: int, path: object, key: str) -> int:
    try:
        index = int(float(value)) - base  # some files write the class as 3.0
    except (TypeError, ValueError):
        raise UserError(path, f"'{key}' has label {value!r}, expected a whole number") from None
    if index < 0:
        raise UserError(path, f"'{key}' has label {value}, but this file counts from {base}", "check the label file")
    return index


def _attribute_vector(value: object, num_attributes: int, path: object, key: str) -> np.ndarray:
    try:
        vector = np.asarray(value, dtype=np.float32).reshape(-1)  # [A]
    except (TypeError, ValueError):
        raise UserError(path, f"'{key}' has label {value!r}, expected {num_attributes} numbers") from None
    if vector.shape != (num_attributes,) or not np.isin(vector, (0.0, 1.0)).all():
        raise UserError(path, f"'{key}' has label {vector.tolist()}, expected {num_attributes} values 0 or 1")
    return vector


def _filled(labels: dict[str, int], path: object) -> dict[str, int]:
    if not labels:
        raise UserError(path, "names no file", "see the README for the layout of each data set")
    return labels


def _read_text(path: str | Path) -> str:
    path = Path(path)
    if not path.is_file():
        raise UserError(path, "no such label file", "see the README for the layout of each data set")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(path, "is no text file", "use the published label file") from error


def _read_json(path: str | Path) -> dict:
    try:
        return json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(
            path, f"is no JSON (line {error.lineno}: {error.msg})", "use the published label file"
        ) from error

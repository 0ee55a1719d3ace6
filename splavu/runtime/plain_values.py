"""Reading pickles and checkpoints of strangers: what they hold is tensors, arrays and plain values, or it isn't loaded.

A pickle names functions and has them called. Here a name is looked up in a list and nowhere else; all that stand in it
build a value from what the file gives, and do nothing else. NumPy's own believe the file: a kind of numbers whose size
was changed makes them read, or write, beyond the array. So others that check stand in their place. Checkpoints are read
by torch's own unpickler for weights, `weights_only=True`, with the same list beside its own.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import pathlib
import pickle
import re
import types
import warnings
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """`_codecs.encode` as protocols 0 to 2 call it for bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it wants to encode as {encoding}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """`bytes` as protocols 0 to 2 call it; with a number it would take as much memory."""
    return b""


def _without_default(_factory: object = None) -> dict[Any, Any]:
    """`collections.defaultdict`: torch's unpickler fills plain dictionaries alone."""
    return {}


class _Kind:
    """`numpy.dtype` of plain numbers and texts, by its name; the state that follows may choose the order of bytes."""

    def __init__(self, name: str | bytes, *_options: object) -> None:
        text = name.decode("latin1") if isinstance(name, bytes) else str(name)
        if not re.fullmatch(r"[<>=|]?([biufc?]\d{0,2}|[SU]\d{1,6})", text):
            raise pickle.UnpicklingError(f"it holds numbers of the kind {text[:20]!r}")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, order, subarray, names, fields, size, *_ = state
        byte_order: Any = order.decode("latin1") if isinstance(order, bytes) else order
        if any(part is not None for part in (subarray, names, fields)) or size not in (-1, self.dtype.itemsize):
            raise pickle.UnpicklingError("it holds a kind of numbers made of others")
        self.dtype = self.dtype.newbyteorder(byte_order)


class _Array(np.ndarray):
    """An array whose bytes are as many as its shape and kind say."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, kind, is_fortran, content = state
        found = _from_bytes(content, kind, shape, "F" if is_fortran else "C")
        state = 1, found.shape, found.dtype, bool(is_fortran), found.tobytes("A")
        super().__setstate__(state)  # pyright: ignore[reportArgumentType]  it says np.bool


def _new_array(_kind: object = None, _shape: object = None, _code: object = None) -> _Array:
    """`_reconstruct`: an array without a number, which gets its state next."""
    return np.ndarray.__new__(_Array, (0,), np.int8)


def _scalar(kind: _Kind, content: bytes | str) -> Any:
    """`scalar`: one number from its bytes."""
    return _from_bytes(content, kind, (), "C")[()]


def _from_bytes(content: bytes | str, kind: _Kind | np.dtype, shape: Any, order: Any = "C") -> np.ndarray:
    """`_frombuffer`: as many numbers as `shape` says, no more and no less."""
    dtype = kind.dtype if isinstance(kind, _Kind) else np.dtype(kind)
    values = np.frombuffer(content.encode("latin1") if isinstance(content, str) else content, dtype)
    return values.reshape(shape, order=order)


ARRAYS: Mapping[str, Any] = {
    **{f"numpy.{core}.multiarray._reconstruct": _new_array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_bytes for core in ("core", "_core")},
    "numpy.ndarray": _Array,
    "numpy.dtype": _Kind,
    "_codecs.encode": _latin1,
    "__builtin__.bytes": _no_bytes,
    "builtins.bytes": _no_bytes,
    "collections.OrderedDict": collections.OrderedDict,
}
"""Dotted name -> what it stands for, in pickles of arrays."""
BESIDE_WEIGHTS: Mapping[str, Any] = {
    **ARRAYS,
    **{
        f"{module}.{kind.__name__}": kind
        for module in ("__builtin__", "builtins")
        for kind in (list, dict, set, frozenset, int, float, str, bool)
    },
    "collections.defaultdict": _without_default,
    **{f"datetime.{name}": getattr(datetime, name) for name in ("date", "datetime", "time", "timedelta", "timezone")},
    "argparse.Namespace": argparse.Namespace,
    "types.SimpleNamespace": types.SimpleNamespace,
    **{
        f"{module}.{name}": pathlib.PurePath  # a PosixPath can't be made on Windows
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath")
    },
}
"""The same for what training programs keep beside weights: options, paths, metrics."""


class _ArrayUnpickler(pickle._Unpickler):  # pyright: ignore  in Python: the one in C takes memory as the file wishes
    def find_class(self, module: str, name: str) -> object:
        if f"{module}.{name}" not in ARRAYS:
            raise pickle.UnpicklingError(f"it wants to load {module}.{name}")
        return ARRAYS[f"{module}.{name}"]


def load_arrays(content: bytes) -> Any:
    """The NumPy arrays and plain values in a pickle of any protocol.

    Raises:
        Exception: It names something else, or is damaged: then the unpickler calls anything with anything.
    """
    return _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()  # text of Python 2 is bytes


def load_checkpoint(path: str | pathlib.Path, *, device: torch.device | str = "cpu", mmap: bool = False) -> Any:
    """What a file of `torch.save` holds.

    Args:
        path: The file.
        device: Of the tensors.
        mmap: Leave tensors on the disk until they are used, where the format allows.

    Raises:
        ValueError: It can't be read: says why, in a few words.
    """
    import torch

    try:
        allowed: list[Any] = [(value, name) for name, value in BESIDE_WEIGHTS.items()]
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of protocols that torch doesn't read, which is an error then
            return torch.load(
                path, map_location=device, weights_only=True, mmap=True if mmap and zipfile.is_zipfile(path) else None
            )
    except Exception as error:  # a damaged stream makes the unpickler call anything with anything
        raise ValueError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """In a few words; torch's own advise to run the file's code."""
    said = str(error)
    if "Unsupported operand" in said or "pickle protocol" in said:
        return "it isn't written in torch.save's own pickle protocol, 2"
    if "Unsupported global: GLOBAL " in said:
        return f"it holds {said.partition('Unsupported global: GLOBAL ')[2].split()[0]}, which could run code"
    if isinstance(error, pickle.UnpicklingError) and "weights_only" in said:
        return "it holds more than tensors and plain values, which could run code"
    if isinstance(error, EOFError) or not said.strip():
        return "it is empty or cut off" if isinstance(error, EOFError) else type(error).__name__
    return said.strip().splitlines()[0][:200]

"""A folder of .npy files, one per long video: read, and filled file by file."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError

import numpy as np

from splavu.errors import UserError
from splavu.runtime.files import replacing
from splavu.stores.provenance import (
    ATTRIBUTES_FILE,
    EXTRACT_AGAIN,
    Attributes,
    read_json,
    refuse_conflict,
    warn_without_attributes,
)
from splavu.stores.reader import FeatureReader, first_middle_last

CHECKSUMS_FILE = "SHA256SUMS"
"""In a folder that `FolderWriter` filled: one line per file, as `sha256sum -c` reads it."""
_ESCAPE = "\\"
NPY_ERRORS = (OSError, ValueError, EOFError, SyntaxError, TokenError, TypeError, KeyError, OverflowError, MemoryError)
"""What NumPy raises for a .npy file whose header is damaged: it reads the header as Python."""


class FeatureFolder(FeatureReader):
    """A folder of .npy files, one per long video, each [T, D] or [T, N, D] with a row per 16 frames.

    The key is the file's path within the folder, without `.npy`.

    Raises:
        UserError: The folder is missing or holds no .npy file.
    """

    def __init__(self, path: str | os.PathLike[str], *, feature_dim: int | None = None) -> None:
        self.path = Path(path)
        self._feature_dim = feature_dim
        if not self.path.is_dir():
            raise UserError(self.path, "no such folder", "give the folder that holds one .npy file per video")
        self._keys = sorted(file.relative_to(self.path).as_posix()[:-4] for file in self.path.rglob("*.npy"))
        if not self._keys:
            raise UserError(self.path, "the folder holds no .npy file", EXTRACT_AGAIN)
        attributes = self.path / ATTRIBUTES_FILE
        self.attributes = json.loads(attributes.read_text(encoding="utf-8")) if attributes.is_file() else {}
        if not self.attributes:
            warn_without_attributes(str(self.path))

    def keys(self) -> list[str]:
        return list(self._keys)

    def __getitem__(self, key: str) -> np.ndarray:
        features = np.array(self._map(key), dtype=np.float32)
        self._check_shape(key, features.shape)
        return features

    def some_rows(self, key: str) -> np.ndarray:
        features = self._map(key)
        self._check_shape(key, features.shape)
        return first_middle_last(features)

    def is_as_written(self, key: str, features: np.ndarray) -> bool | None:
        recorded = self._checksums.get(f"{key}.npy")
        return None if recorded is None else recorded == _file_checksum(self.path / f"{key}.npy")

    @functools.cached_property
    def _checksums(self) -> dict[str, str]:
        """File -> SHA-256; for a file that was written again, the last line counts."""
        path = self.path / CHECKSUMS_FILE
        text = path.read_bytes().decode(errors="surrogateescape") if path.is_file() else ""
        return dict(map(_read_checksum, text.replace("\r\n", "\n").split("\n")))

    def _header(self, key: str) -> tuple[tuple[int, ...], np.dtype]:
        features = self._map(key)
        return features.shape, features.dtype

    def _map(self, key: str) -> np.ndarray:
        self._require(key)
        try:
            return np.load(self.path / f"{key}.npy", mmap_mode="r", allow_pickle=False)
        except NPY_ERRORS as error:
            raise UserError(self.path / f"{key}.npy", f"cannot be read ({error})", EXTRACT_AGAIN) from error


class FolderWriter:
    """Fills a folder with one .npy per long video, each complete or not at all; existing files are kept.

    The attributes go into the folder first, so all files in it have a known origin: features of another encoder,
    stride or preprocessing are refused, and so is a folder of .npy files without attributes.

    Args:
        path: The folder; made when the first features come.
        attributes: Provenance, kept in `ATTRIBUTES_FILE`.

    Raises:
        UserError: The folder holds features made with other attributes or of unknown origin, or is a file.
    """

    def __init__(self, path: str | os.PathLike[str], *, attributes: Mapping[str, str | int | float]) -> None:
        self.path = Path(path)
        self.attributes: Attributes = dict(attributes)
        described = self.path / ATTRIBUTES_FILE
        if described.is_file():
            refuse_conflict(self.path, read_json(described), self.attributes)
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.rglob("*.npy"))):
            raise UserError(self.path, "holds something of unknown origin", "write to another folder")

    def done(self, key: str) -> bool:
        """Whether the features of `key` are in the folder, whole."""
        try:
            return np.load(self.path / f"{key}.npy", mmap_mode="r", allow_pickle=False).size > 0
        except NPY_ERRORS:
            return False

    def add(self, key: str, features: np.ndarray) -> None:  # [T, D] or [T, N, D]
        """Write the features of `key`, as float32.

        Raises:
            UserError: They are empty, of another rank, or not finite.
        """
        if features.ndim not in (2, 3) or features.size == 0:
            raise UserError(self.path, f"'{key}' has shape {features.shape}, (T, D) or (T, N, D) expected")
        if not np.isfinite(features).all():
            raise UserError(self.path, f"the features of '{key}' are not finite", "check the video and the weights")
        described = self.path / ATTRIBUTES_FILE
        if not described.is_file():
            self.path.mkdir(parents=True, exist_ok=True)
            with replacing(described) as temporary:
                temporary.write_text(json.dumps(self.attributes, indent=1), encoding="utf-8")
        path = self.path / f"{key}.npy"
        write_npy(path, features)
        line = checksum_line(_file_checksum(path), f"{key}.npy").encode(errors="surrogateescape")
        with (self.path / CHECKSUMS_FILE).open("ab", buffering=0) as file:  # one write: several may append
            file.write(line)


def write_npy(path: str | os.PathLike[str], features: np.ndarray) -> None:  # [T, D] or [T, N, D]
    """Write one long video's features as float32 .npy, complete or not at all; folders are made as needed."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.ascontiguousarray(features, dtype=np.float32))


def checksum_line(digest: str, name: str) -> str:
    """A line of `CHECKSUMS_FILE`: a name with a line end or a backslash is escaped, and the line begins with one."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == name else _ESCAPE}{digest}  {escaped}\n"


def _read_checksum(line: str) -> tuple[str, str]:
    """Name and checksum, as `checksum_line` wrote them."""
    digest, _, name = line.removeprefix(_ESCAPE).partition("  ")
    if line.startswith(_ESCAPE):
        name = re.sub(r"\\([\\nr])", lambda found: {"n": "\n", "r": "\r"}.get(found[1], _ESCAPE), name)
    return name, digest


def _file_checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

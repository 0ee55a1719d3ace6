"""A folder of .npy files, one per long video: read, and filled file by file."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from splavu.errors import UserError
from splavu.runtime import limits
from splavu.runtime.files import replacing
from splavu.stores.npy_files import map_npy, npy_names, read_npy, read_npy_header
from splavu.stores.provenance import (
    ATTRIBUTES_FILE,
    EXTRACT_AGAIN,
    Attributes,
    checksum,
    read_attributes,
    refuse_conflict,
    warn_without_attributes,
)
from splavu.stores.reader import Examined, FeatureReader, first_middle_last

CHECKSUMS_FILE = "SHA256SUMS"
"""In a folder that `FolderWriter` filled: one line per file, as `sha256sum -c` reads it."""
_ESCAPE = "\\"
FOLLOW = "give --follow-links to read what it leads to within the folder"


class FeatureFolder(FeatureReader):
    """A folder of .npy files, one per long video, each [T, D] or [T, N, D] with a row per 16 frames.

    The key is the file's path within the folder, without `.npy`. Links are keys, too, but reading one is refused.

    Raises:
        UserError: The folder is missing or holds no .npy file; its attributes are damaged.
    """

    def __init__(self, path: str | os.PathLike[str], *, feature_dim: int | None = None) -> None:
        self.path = Path(path)
        self._feature_dim = feature_dim
        if not self.path.is_dir():
            raise UserError(self.path, "no such folder", "give the folder that holds one .npy file per video")
        found = npy_names(self.path, follow_links=limits.follows_links())
        self._problems = dict(sorted((name[:-4] if name.endswith(".npy") else name, why) for name, why in found))
        if not self._problems:
            raise UserError(self.path, "the folder holds no .npy file", EXTRACT_AGAIN)
        attributes = self.path / ATTRIBUTES_FILE
        self.attributes = read_attributes(self._own(attributes)) if attributes.is_file() else {}
        if not self.attributes:
            warn_without_attributes(str(self.path))

    def keys(self) -> list[str]:
        return list(self._problems)

    def __getitem__(self, key: str) -> np.ndarray:
        return self._read(key)[0]

    def examined(self, key: str) -> Examined:
        features, content = self._read(key)
        recorded = self._checksums.get(f"{key}.npy")
        is_as_written = None if recorded is None else recorded == hashlib.sha256(content).hexdigest()
        return Examined(features, checksum(features), is_as_written)

    def some_rows(self, key: str) -> np.ndarray:
        features = map_npy(self._file(key))
        self._check_kind(key, features.dtype)
        self._check_shape(key, features.shape)
        return first_middle_last(features)

    def files(self) -> list[Path]:
        return [self.path / f"{key}.npy" for key in self._problems]

    @functools.cached_property
    def _checksums(self) -> dict[str, str]:
        """File -> SHA-256; for a file that was written again, the last line counts."""
        path = self.path / CHECKSUMS_FILE
        text = self._own(path).read_bytes().decode(errors="surrogateescape") if path.is_file() else ""
        return dict(map(_read_checksum, text.replace("\r\n", "\n").split("\n")))

    def _header(self, key: str) -> tuple[tuple[int, ...], np.dtype]:
        header = read_npy_header(self._file(key))
        return header.shape, header.dtype

    def _read(self, key: str) -> tuple[np.ndarray, bytearray]:
        """Features and the bytes of their file."""
        values, content = read_npy(self._file(key))
        self._check_kind(key, values.dtype)
        self._check_shape(key, values.shape)
        return np.ascontiguousarray(values, dtype=np.float32), content

    def _file(self, key: str) -> Path:
        self._require(key)
        if problem := self._problems[key]:
            raise UserError(self.path, f"'{key}' {problem}", f"{FOLLOW}, or copy the file into the folder")
        return self.path / f"{key}.npy"

    def _own(self, path: Path) -> Path:
        """A file that describes the others, if it is one of the folder's."""
        if path.is_symlink() and not (limits.follows_links() and path.resolve().is_relative_to(self.path.resolve())):
            raise UserError(path, f"is a link to '{path.resolve()}'", f"{FOLLOW}, or copy the file into the folder")
        return path


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
            refuse_conflict(self.path, read_attributes(described), self.attributes)
        elif self.path.exists() and (not self.path.is_dir() or next(npy_names(self.path, follow_links=False), None)):
            raise UserError(self.path, "holds something of unknown origin", "write to another folder")

    def done(self, key: str) -> bool:
        """Whether the features of `key` are in the folder, whole."""
        try:
            return read_npy_header(self.path / f"{key}.npy").num_bytes > 0
        except UserError:
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

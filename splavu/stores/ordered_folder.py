"""A folder of .npy files, one per video, that gets its name when it is complete."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np

from splavu.errors import UserError
from splavu.runtime.files import replacing
from splavu.stores.folder import CHECKSUMS_FILE, checksum_line
from splavu.stores.journal import FILES, REPLACED
from splavu.stores.ordered import FeatureWriter
from splavu.stores.provenance import ATTRIBUTES_FILE


class FolderInOrder(FeatureWriter):
    """A `FeatureWriter` of a folder with the same files as one of `FolderWriter`.

    Raises:
        UserError: The folder to replace holds a file that is no feature file.
    """

    is_folder = True

    def _check_finished(self) -> bool:
        if not self.path.is_dir() or not (self.path / ATTRIBUTES_FILE).is_file():
            raise UserError(self.path, "holds something of unknown origin", "write to another folder")
        foreign = [file for file in self.path.rglob("*") if not _is_ours(file)]
        if foreign:
            raise UserError(foreign[0], "is no feature file", "move it: the folder is replaced as a whole")
        return super()._check_finished()

    def _open(self) -> None:
        self._files = self._journal.path / FILES
        self._files.mkdir(exist_ok=True)

    def _put(self, index: int, item: np.ndarray) -> tuple[int, bytes]:
        features = self._checked(index, item)
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(features))
        path = self._place(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(header.getvalue())
            file.write(features.data)
        digest = hashlib.sha256(header.getvalue())
        digest.update(features.reshape(-1))
        return features.nbytes, digest.digest()

    def _complete(self) -> None:
        lines = (
            checksum_line(digest.hex(), f"{key}.npy")
            for digest, (key, _) in zip(self._digests, self.headers, strict=True)
        )
        for name, text in (
            (CHECKSUMS_FILE, "".join(lines)),
            (ATTRIBUTES_FILE, json.dumps(self.attributes, indent=1)),
        ):
            with replacing(self._files / name) as temporary:
                temporary.write_bytes(text.encode(errors="surrogateescape"))
        if self.path.exists():
            # Two moves: if only the first was made, the next run finds all items done and makes the second.
            self.path.rename(self._journal.path / REPLACED)
        self._files.rename(self.path)

    def _place(self, index: int) -> Path:
        return self._files / f"{self.headers[index][0]}.npy"


def _is_ours(path: Path) -> bool:
    return path.is_dir() or path.suffix == ".npy" or path.name in (ATTRIBUTES_FILE, CHECKSUMS_FILE)

"""Feature stores: key -> float32 array, read from HDF5 files and folders of .npy, written so that a kill loses nothing.

Nobody else opens one. What a reader would get wrong: a finished store is never changed in place. `StoreWriter` keeps
each item in a journal folder, `<path>.partial/`, and puts the whole file under its name in one move at the end; so a
store that exists is complete, can be read without locks, and a run that was killed goes on where it stopped.

Letters: K clips of one video, T time steps of a long video, N crops, D feature width.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import json
import logging
import os
import shutil
import uuid
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tokenize import TokenError
from types import TracebackType

import h5py
import numpy as np

from splavu.errors import UserError

logger = logging.getLogger(__name__)

ATTRIBUTES_FILE = "attributes.json"
INFORMATIVE_ATTRIBUTES = frozenset({"splavu_version"})
"""Attributes in which two runs may differ and still extend one store."""

CHECKSUM_ATTRIBUTE = "sha256"
"""Of each HDF5 dataset, where `StoreWriter` made it: `checksum` of its features."""
CHECKSUMS_FILE = "SHA256SUMS"
"""In a folder that `FolderWriter` filled: a line a file, as `sha256sum -c` reads it."""
HDF5_ERRORS = (OSError, RuntimeError, ValueError, TypeError, KeyError)
"""What h5py raises for a file whose structure is damaged."""
NPY_ERRORS = (OSError, ValueError, EOFError, SyntaxError, TokenError, TypeError, KeyError, OverflowError, MemoryError)
"""What NumPy raises for a .npy file whose header is damaged: it reads the header as Python."""

BYTES_MOVED_AT_ONCE = 2**26
"""Of part files into a store that is merged, before they are deleted."""

Attributes = dict[str, str | int | float]


class FeatureReader(ABC):
    """What a store of either format offers: a read-only mapping from key to float32 array.

    Attributes:
        path: The file or folder.
        attributes: Provenance: encoder, weights hash, preprocessing, decoder, version. Empty for foreign stores.
    """

    path: Path
    attributes: Attributes
    _feature_dim: int | None

    @abstractmethod
    def keys(self) -> list[str]:
        """All keys, sorted."""

    @abstractmethod
    def __getitem__(self, key: str) -> np.ndarray:  # -> [K, D], [D], [T, D] or [T, N, D] float32
        """The array of `key`, as stored.

        Raises:
            UserError: There is no such key, its data cannot be read, or it is not `feature_dim` wide.
        """

    @abstractmethod
    def _header(self, key: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and stored dtype of `key`, without reading its data."""

    def header(self, key: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and stored dtype of `key`, unchecked, without reading its data."""
        return self._header(key)

    def is_as_written(self, key: str, features: np.ndarray) -> bool | None:
        """Whether `features`, read from `key`, have the checksum recorded when they were written; None if none was."""
        return None

    def __contains__(self, key: object) -> bool:
        return key in self._key_set

    def __len__(self) -> int:
        return len(self._key_set)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    @functools.cached_property
    def _key_set(self) -> frozenset[str]:
        return frozenset(self.keys())

    @property
    def feature_dim(self) -> int:
        """Width D of all features: the one asked for at opening, else that of the first key."""
        if self._feature_dim is None:
            shape, _ = self._header(self._first_key())
            if not shape:
                raise UserError(self.path, f"'{self._first_key()}' is a single number, not a feature", _EXTRACT_AGAIN)
            self._feature_dim = shape[-1]
        return self._feature_dim

    def _first_key(self) -> str:
        return self.keys()[0]

    def num_rows(self, key: str) -> int:
        """Number of clips (or time steps) under `key`; 1 for a single feature [D]."""
        shape, _ = self._header(key)
        return shape[0] if len(shape) > 1 else 1

    def verify(self, keys: Iterable[str] | None = None, *, checksums: bool = False) -> None:
        """Read every feature of `keys` (of all keys) once and check width, dtype, finiteness and that it isn't empty.

        Args:
            keys: Names; None takes all.
            checksums: Check too that they are what was written, where that was recorded: about twice as slow.

        Raises:
            UserError: The first fault: file, key, what was found, what was expected, what to do.
        """
        for key in self.keys() if keys is None else keys:
            self._require(key)
            shape, dtype = self._header(key)
            if dtype != np.float32:
                raise UserError(self.path, f"'{key}' holds {dtype}, features are float32", _EXTRACT_AGAIN)
            self._check_shape(key, shape)
            features = self[key]
            if not np.isfinite(features).all():
                raise UserError(self.path, f"'{key}' holds values that are not finite", _EXTRACT_AGAIN)
            if checksums and self.is_as_written(key, features) is False:
                raise UserError(self.path, f"'{key}' is not what was written: its checksum differs", _EXTRACT_AGAIN)

    def load_all(self, keys: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """`keys` (all keys) read into memory, in the order given. Takes as much memory as the store is large."""
        return {key: self[key] for key in (self.keys() if keys is None else keys)}

    def _require(self, key: str) -> None:
        if key not in self._key_set:
            raise UserError(
                self.path,
                f"no features under '{key}'; it holds {len(self)} keys such as '{self._first_key()}'",
                "check the labels' names against the store, or extract the missing video",
            )

    def _check_shape(self, key: str, shape: tuple[int, ...]) -> None:
        if not shape or 0 in shape:
            raise UserError(self.path, f"'{key}' is empty (shape {shape})", _EXTRACT_AGAIN)
        if shape[-1] != self.feature_dim:
            raise UserError(
                self.path,
                f"'{key}' is {shape[-1]} wide, {self.feature_dim} expected",
                "choose the encoder (ft_arch) that made this store, or extract again",
            )


class FeatureStore(FeatureReader):
    """An HDF5 file with one float32 dataset [K, D] or [D] per key, the format of the published features.

    A key with slashes is a dataset in nested groups. The file is opened again in each process, so the object may be
    pickled and may be used in the workers of a DataLoader, forked or spawned. Attributes are read at construction,
    keys on first use. Data of another float type are converted when read; `verify` refuses them.

    Args:
        path: The file.
        feature_dim: Width expected; checked on the first key now and on every array read. None takes the store's own.
        check_first: False leaves the first key unchecked, for those who look for faults in all of them.

    Raises:
        UserError: The file is missing, is no complete HDF5 file, holds nothing, or has another width.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, feature_dim: int | None = None, check_first: bool = True
    ) -> None:
        self.path = Path(path)
        self._feature_dim = feature_dim
        self._file: h5py.File | None = None
        self._pid = 0
        file = self._open()
        try:
            self.attributes = {str(_plain(name)): _plain(value) for name, value in file.attrs.items()}
            self._first = next(_dataset_names(file, first_only=True), None)
        except HDF5_ERRORS as error:
            raise UserError(self.path, f"its table of contents is damaged ({error})", _EXTRACT_AGAIN) from error
        if self._first is None:
            raise UserError(self.path, "the store is empty", _EXTRACT_AGAIN)
        shape, _ = self._header(self._first, checked=True)
        if self._feature_dim is None and shape:
            self._feature_dim = shape[-1]
        if check_first:
            self._check_shape(self._first, shape)
        if not self.attributes:
            _warn_without_attributes(str(self.path))

    def keys(self) -> list[str]:
        return list(self._keys)

    @functools.cached_property
    def _keys(self) -> list[str]:
        return sorted(_dataset_names(self._open()))

    def __getitem__(self, key: str) -> np.ndarray:
        dataset = self._dataset(key)
        self._check_shape(key, dataset.shape)
        features = np.empty(dataset.shape, dtype=np.float32)
        try:
            dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, features)
        except (OSError, TypeError) as error:
            raise UserError(self.path, f"'{key}' cannot be read ({error})", _EXTRACT_AGAIN) from error
        return features

    def is_as_written(self, key: str, features: np.ndarray) -> bool | None:
        recorded = h5py.Dataset(self._dataset(key)).attrs.get(CHECKSUM_ATTRIBUTE)
        return None if recorded is None else _plain(recorded) == checksum(features)

    def dataset_attributes(self, key: str) -> dict[str, object]:
        """What is noted with the features of `key`, such as their checksum."""
        attributes = h5py.Dataset(self._dataset(key)).attrs
        return {name: np.bytes_(value) if isinstance(value, bytes) else value for name, value in attributes.items()}

    def close(self) -> None:
        """Close the file; the next access opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _first_key(self) -> str:
        return self._first

    def _header(self, key: str, *, checked: bool = False) -> tuple[tuple[int, ...], np.dtype]:
        dataset = self._dataset(key, checked=checked)
        return dataset.shape, dataset.dtype

    def _dataset(self, key: str, *, checked: bool = False) -> h5py.h5d.DatasetID:
        # h5py's low level: its Dataset objects cost several times the reading of a small array.
        if not checked:
            self._require(key)
        try:
            return h5py.h5d.open(self._open().id, key.encode(errors="surrogateescape"))
        except (KeyError, OSError) as error:
            raise UserError(self.path, f"'{key}' cannot be opened ({error})", _EXTRACT_AGAIN) from error

    def _open(self) -> h5py.File:
        if self._file is None or self._pid != os.getpid():
            self.close()  # after a fork: the parent's handle shares its state with ours
            self._file, self._pid = _open_hdf5(self.path), os.getpid()
        return self._file

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_file": None}


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
            raise UserError(self.path, "the folder holds no .npy file", _EXTRACT_AGAIN)
        attributes = self.path / ATTRIBUTES_FILE
        self.attributes = json.loads(attributes.read_text(encoding="utf-8")) if attributes.is_file() else {}
        if not self.attributes:
            _warn_without_attributes(str(self.path))

    def keys(self) -> list[str]:
        return list(self._keys)

    def __getitem__(self, key: str) -> np.ndarray:
        features = np.array(self._map(key), dtype=np.float32)
        self._check_shape(key, features.shape)
        return features

    def is_as_written(self, key: str, features: np.ndarray) -> bool | None:
        recorded = self._checksums.get(f"{key}.npy")
        return None if recorded is None else recorded == _file_checksum(self.path / f"{key}.npy")

    @functools.cached_property
    def _checksums(self) -> dict[str, str]:
        """File -> SHA-256; of a file that was made again, the last line counts."""
        path = self.path / CHECKSUMS_FILE
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines() if path.is_file() else []
        return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}

    def _header(self, key: str) -> tuple[tuple[int, ...], np.dtype]:
        features = self._map(key)
        return features.shape, features.dtype

    def _map(self, key: str) -> np.ndarray:
        self._require(key)
        try:
            return np.load(self.path / f"{key}.npy", mmap_mode="r", allow_pickle=False)
        except NPY_ERRORS as error:
            raise UserError(self.path / f"{key}.npy", f"cannot be read ({error})", _EXTRACT_AGAIN) from error


def open_features(path: str | os.PathLike[str], *, feature_dim: int | None = None) -> FeatureReader:
    """A `FeatureFolder` if `path` is a folder, else a `FeatureStore`."""
    reader = FeatureFolder if Path(path).is_dir() else FeatureStore
    return reader(path, feature_dim=feature_dim)


def checksum(features: np.ndarray) -> str:
    """SHA-256 of the features as little-endian float32, in C order."""
    return hashlib.sha256(np.ascontiguousarray(features, dtype="<f4").reshape(-1)).hexdigest()


class StoreWriter:
    """Writes one HDF5 store, item by item, alone or together with others, and survives a kill at any moment.

    Each `add` puts one part file into `<path>.partial/` (written aside, then renamed; its checksum is tested on
    resuming). Leaving the `with` block normally merges the parts, and the store that existed before, into one file,
    which then takes the store's name in one move. Leaving it by an exception keeps the parts for the next run. If
    nothing was ever added, no file is written. Keys are merged in sorted order, so the bytes of a store don't depend on
    where its run was interrupted.

    Merging needs no room for a second copy. First comes a file whose datasets have their places but no content (on
    disk, holes); from then on only content is written into it, a few parts at a time, and a part is deleted once its
    content has reached the disk. Killed in between, the next run goes on with the parts that are left. A finished store
    that is extended is copied, since it stays as it is until the new one takes its place.

    Several processes, also on several nodes with one file system that knows `flock`, fill a store together when each is
    given its `shard`. Their keys must differ. Whoever is the last to leave its block merges.

    Args:
        path: The store to write or to extend.
        attributes: Provenance, kept as the file's attributes.
        resume: Keep what an earlier run left (journal and finished store). False starts anew and replaces both; not for
            a shard, which would delete what the others write.
        shard: (index, number of shards), or None for a writer that wants to be alone.

    Attributes:
        is_merged: Whether this writer merged the store when it left.
        failures: Key -> why it has no features, for the caller to fill; after merging, those of all shards.

    Raises:
        UserError: What exists was made with other attributes, or another process is writing this store.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        attributes: Mapping[str, str | int | float],
        resume: bool = True,
        shard: tuple[int, int] | None = None,
    ) -> None:
        if shard is not None and not resume:
            raise ValueError("a shard can't start a store anew")
        self.path = Path(path)
        self.attributes: Attributes = dict(attributes)
        self.resume = resume
        self.shard = shard
        self.is_merged = False
        self.failures: dict[str, str] = {}
        self._journal = self.path.with_name(self.path.name + ".partial")
        self._merging = self._journal / "merging.h5"
        self._stored: set[str] = set()  # keys of the finished store
        self._parts: dict[str, Path] = {}
        self._groups: set[str] = set()  # 'a' and 'a/b' of a key 'a/b/c'
        self._width: int | None = None
        self._lock: int | None = None

    def __enter__(self) -> StoreWriter:
        for leftover in self.path.parent.glob(glob.escape(self._journal.name) + ".old-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        self._acquire(shared=self.shard is not None)
        try:
            if self.shard is not None:
                while self._merging.exists():  # one of us ends the merge that was killed, the others wait
                    self._unlock()
                    self._acquire(shared=False, wait=True)
                    self._end_killed_merge()
                    self._unlock()
                    self._acquire(shared=True)
                self._marker(*self.shard).unlink(missing_ok=True)
                self._recover()
            else:
                self._end_killed_merge()
                self._recover()
                self._recover_parts()
        except BaseException:
            if not any(self._journal.glob("*.npz")) and not self._merging.exists() and self.shard is None:
                self._remove_journal()
            self._unlock()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self.shard is not None:
                self._leave_shard(*self.shard)
            elif kind is None:
                self._merge()
        finally:
            self._unlock()

    def __len__(self) -> int:
        return len(self._stored) + len(self._parts)

    def done(self, key: str) -> bool:
        """Whether `key` is in the store or the journal already."""
        if self.shard is not None and key not in self._stored and key not in self._parts:
            part = self._part(key)
            if part.exists():  # only these are read: the other shards' parts are none of our business
                self._recover_part(part)
        return key in self._stored or key in self._parts

    def add(self, key: str, features: np.ndarray) -> None:  # [K, D] or [D]
        """Put the features of `key` into the journal, as float32.

        Raises:
            UserError: The key is no HDF5 name or is there already; the features are empty, of another width than
                those before, or not finite.
        """
        features = np.ascontiguousarray(features, dtype=np.float32)
        self._check(key, features)
        part = self._part(key)
        with _written_aside(part, durable=False) as temporary, temporary.open("wb") as file:
            np.savez(file, key=np.array(key), features=features)
        self._register(key, part, features.shape[-1])

    def _check(self, key: str, features: np.ndarray) -> None:
        if "\0" in key or any(name in ("", ".") for name in key.split("/")):
            raise UserError(self.path, f"'{key}' cannot be a key of an HDF5 file", "rename the video")
        if self.done(key):
            raise UserError(self.path, f"'{key}' is stored already", "give each video a name of its own")
        if key in self._groups or any(self.done(group) for group in _groups_of(key)):
            raise UserError(self.path, f"'{key}' is both a feature and a folder of features", "rename the video")
        if features.ndim not in (1, 2) or features.size == 0:
            raise UserError(self.path, f"'{key}' has shape {features.shape}, (K, D) or (D,) expected")
        if self._width not in (None, features.shape[-1]):
            raise UserError(
                self.path,
                f"'{key}' is {features.shape[-1]} wide, what the store holds is {self._width} wide",
                "write another encoder's features to another file",
            )
        if not np.isfinite(features).all():
            raise UserError(self.path, f"the features of '{key}' are not finite", "check the video and the weights")

    def _register(self, key: str, part: Path, width: int) -> None:
        self._parts[key] = part
        self._groups.update(_groups_of(key))
        self._width = width

    def _part(self, key: str) -> Path:
        return self._journal / (hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:32] + ".npz")

    def _marker(self, index: int, count: int) -> Path:
        """What shard `index` of `count` leaves when it has done all it could: its failures."""
        return self._journal / f"shard-{index}-of-{count}.json"

    def _recover(self) -> None:
        """Take up what an earlier run left, or clear it."""
        described = self._journal / ATTRIBUTES_FILE
        if not self.resume:
            for old in self._journal.glob("*.npz*"):
                old.unlink()
        elif self.path.exists():
            store = FeatureStore(self.path)
            _refuse_conflict(self.path, store.attributes, self.attributes)
            self._stored, self._width = set(store), store.feature_dim
            self._groups.update(group for key in store for group in _groups_of(key))
            store.close()
        if any(self._journal.glob("*.npz")):
            _refuse_conflict(self._journal, _read_json(described), self.attributes)
        with _written_aside(described, durable=False) as temporary:
            temporary.write_text(json.dumps(self.attributes, indent=1), encoding="utf-8")

    def _recover_parts(self) -> None:
        """Read all parts; to be called when nobody else writes any."""
        for part in sorted(self._journal.glob("*.npz")):
            self._recover_part(part)
        for torn in self._journal.glob("*.tmp-*"):
            torn.unlink()

    def _recover_part(self, part: Path) -> None:
        try:
            key, features = _read_part(part)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            logger.warning("%s: torn by a crash, will be made again", part)
            part.unlink()
            return
        if key in self._stored:  # killed between the move and the removal of the journal
            part.unlink()
        else:
            self._register(key, part, features.shape[-1])

    def _leave_shard(self, index: int, count: int) -> None:
        """Say that this shard is done, and merge if it is the last: then nobody else holds the lock."""
        with _written_aside(self._marker(index, count), durable=False) as temporary:
            temporary.write_text(json.dumps(self.failures), encoding="utf-8")
        self._unlock()
        try:
            self._acquire(shared=False)
        except UserError:  # others are at work, one of whom will be last
            return
        markers = [self._marker(other, count) for other in range(count)]
        if not all(marker.exists() for marker in markers):  # another has merged, or is yet to run
            if not any(self._journal.glob("*.json")):
                self._remove_journal()
            return
        for marker in markers:
            self.failures.update(_read_json(marker))
        self._recover()
        self._recover_parts()
        self._merge()

    def _merge(self) -> None:
        if not self:
            logger.warning("%s: nothing to store, no file written", self.path)
        elif self._parts:
            self._lay_out()
            self._fill()
        self._remove_journal()
        self.is_merged = True

    def _lay_out(self) -> None:
        """Write `merging.h5`: whole but for the content of the parts, whose places are there."""
        places = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        places.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        places.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        old = FeatureStore(self.path) if self._stored else None
        with _written_aside(self._merging, durable=True) as temporary, h5py.File(temporary, "w", locking=False) as file:
            others = old.attributes if old is not None else {}
            file.attrs.update(self.attributes | {name: others[name] for name in others.keys() - self.attributes})
            for key in sorted(self._stored | self._parts.keys()):
                features = _read_part(self._parts[key])[1] if key in self._parts else old[key]
                dataset = file.create_dataset(key, features.shape, np.float32, dcpl=places)
                if key in self._parts:
                    dataset.attrs[CHECKSUM_ATTRIBUTE] = np.bytes_(checksum(features))
                else:
                    dataset.attrs.update(old.dataset_attributes(key))
                    dataset[...] = features
        if old is not None:
            old.close()

    def _fill(self) -> None:
        """Move the content of the parts into `merging.h5`, and that to its place."""
        moved: list[Path] = []
        num_bytes = 0

        def settle() -> None:
            content.flush()
            os.fsync(content.fileno())
            while moved:
                moved.pop().unlink()

        with h5py.File(self._merging, "r", locking=False) as file, self._merging.open("rb+") as content:
            for part in sorted(self._journal.glob("*.npz")):
                key, features = _read_part(part)
                dataset = file[key]
                if dataset.shape != features.shape:
                    raise UserError(part, f"is not what {self._merging} has a place for", _EXTRACT_AGAIN)
                content.seek(dataset.id.get_offset())
                content.write(np.ascontiguousarray(features, dtype="<f4").data)
                moved.append(part)
                num_bytes += features.nbytes
                if num_bytes >= BYTES_MOVED_AT_ONCE:
                    settle()
                    num_bytes = 0
            settle()
        self._merging.replace(self.path)

    def _end_killed_merge(self) -> None:
        if self._merging.exists():
            if self.resume:
                self._fill()
            else:
                self._merging.unlink()

    def _remove_journal(self) -> None:
        # Moved first: whoever waits for its lock must find either the whole journal or none.
        old = self._journal.with_name(f"{self._journal.name}.old-{os.getpid()}")
        self._journal.rename(old)
        shutil.rmtree(old, ignore_errors=True)

    def _acquire(self, *, shared: bool, wait: bool = False) -> None:
        while self._lock is None:
            self._journal.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # the journal was removed just now
                wait = wait or (shared and self._merging.exists())
                self._lock = _lock(self._journal / "lock", culprit=self.path, shared=shared, wait=wait)

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class FolderWriter:
    """Fills a folder with one .npy per long video, each in one move; what is there already is kept.

    The attributes go into the folder first, so whatever lies in it has a known origin: features of another encoder,
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
            _refuse_conflict(self.path, _read_json(described), self.attributes)
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
            with _written_aside(described, durable=True) as temporary:
                temporary.write_text(json.dumps(self.attributes, indent=1), encoding="utf-8")
        path = self.path / f"{key}.npy"
        write_npy(path, features)
        line = f"{_file_checksum(path)}  {key}.npy\n".encode(errors="surrogateescape")
        with (self.path / CHECKSUMS_FILE).open("ab", buffering=0) as file:  # one write: several writers may append
            file.write(line)


def write_npy(path: str | os.PathLike[str], features: np.ndarray) -> None:  # [T, D] or [T, N, D]
    """Write one long video's features as float32 .npy, in one move; folders are made as needed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _written_aside(path, durable=True) as temporary, temporary.open("wb") as file:
        np.save(file, np.ascontiguousarray(features, dtype=np.float32))


_EXTRACT_AGAIN = "extract the features again"


@contextlib.contextmanager
def _written_aside(path: Path, *, durable: bool) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place at the end; `durable` also survives a loss of power."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}")  # pids of nodes may agree
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _lock(path: Path, *, culprit: Path, shared: bool, wait: bool) -> int | None:
    """Hold `path` until its descriptor is closed, also by a kill. None if it was removed while we waited.

    `shared` locks bear each other, but none that is not.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
    if os.name == "posix":
        import fcntl

        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            os.close(descriptor)
            raise UserError(culprit, "another process is writing this store", "wait for it, or stop it") from error
        except OSError as error:
            os.close(descriptor)
            raise UserError(culprit, f"its folder's file system can't lock ({error})", "write elsewhere") from error
        if not path.exists() or os.fstat(descriptor).st_ino != path.stat().st_ino:
            os.close(descriptor)
            return None
    return descriptor


def _open_hdf5(path: Path) -> h5py.File:
    if not path.is_file():
        raise UserError(path, "no such feature store", "check the path, or extract the features first")
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        raise UserError(
            path, "not a complete HDF5 file (truncated, or of another format)", "delete it and " + _EXTRACT_AGAIN
        ) from error


def _dataset_names(file: h5py.File, *, first_only: bool = False) -> Iterator[str]:
    names: list[str] = []

    def collect(name: bytes, info: h5py.h5o.ObjInfo) -> bool | None:
        if info.type == h5py.h5o.TYPE_DATASET:
            names.append(name.decode(errors="surrogateescape"))
            return first_only or None  # True ends the visit
        return None

    h5py.h5o.visit(file.id, collect, info=True)
    yield from names


def _file_checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_part(part: Path) -> tuple[str, np.ndarray]:
    with np.load(part, allow_pickle=False) as content:  # a zip: reading tests the checksums
        return str(content["key"]), content["features"]


def _refuse_conflict(culprit: Path, found: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Refuse to extend what was made with other attributes."""
    for name in sorted((wanted.keys() | found.keys()) - INFORMATIVE_ATTRIBUTES):
        if found.get(name) != wanted.get(name):
            raise UserError(
                culprit,
                f"was made with {name} = {found.get(name)!r}, this run has {wanted.get(name)!r}",
                "write elsewhere, delete this one, or run with the same settings",
            )


def _read_json(path: Path) -> dict[str, object]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(path, "cannot be read", f"delete {path.parent} and extract again") from error


def _groups_of(key: str) -> list[str]:
    names = key.split("/")
    return ["/".join(names[:depth]) for depth in range(1, len(names))]


def _plain(value: object) -> str | int | float:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.item() if isinstance(value, np.generic) else value


@functools.cache
def _warn_without_attributes(path: str) -> None:
    logger.warning("%s: no provenance attributes; cannot tell which encoder and weights made these features", path)

"""Secret keys: the names under which features are released so that they reveal nothing, and the map back.

A released key is the keyed hash of the raw one: HMAC-SHA256 under a secret of 32 random bytes, cut to 128 bits. Who
lacks the secret can't test a guess of a name. Released keys sort in an order that says nothing either.

Note: the secret and the map stay with the owner. Equal secrets give one video the same released key in every store,
such as in that of its static clips; other secrets give keys that can't be linked.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import hmac
import io
import operator
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splavu.data.keys import match_keys
from splavu.errors import UserError, writing
from splavu.runtime.files import PathLike, replacing

SECRET_BYTES = 32
KEY_DIGITS = 32
"""Hexadecimal digits of a released key. Among a billion keys two agree with probability 1e-21; it is checked."""
HEADER = ("raw", "released")
KEYS_ATTRIBUTE, SECRET_ATTRIBUTE = "keys", "keys_secret_sha256"
"""Attributes of a store whose keys are hashes: by which rule, and under which secret, which this doesn't give away."""
OWNER_ONLY = 0o600

_CROP = re.compile(r"(.+)(__\d+)", re.DOTALL)


def keyed_hash(name: str, secret: bytes) -> str:
    """`KEY_DIGITS` hexadecimal digits of HMAC-SHA256 of a name, as the bytes of its file name or key."""
    return hmac.new(secret, name.encode(errors="surrogateescape"), hashlib.sha256).hexdigest()[:KEY_DIGITS]


def hashed_order(num_rows: int, secret: bytes) -> NDArray[np.int64]:  # -> [num_rows]
    """Row numbers in the order of the keyed hashes of the numbers: a permutation that the secret alone gives."""
    hashes = [keyed_hash(f"\0row {row}", secret) for row in range(num_rows)]  # no key holds a NUL
    return np.argsort(np.array(hashes, dtype=f"S{KEY_DIGITS}"), kind="stable")


def fingerprint(secret: bytes) -> str:
    """SHA-256 that names a secret without giving it away: of 32 random bytes nothing can be guessed from it."""
    return hashlib.sha256(b"splavu: fingerprint of a secret of keys" + secret).hexdigest()


@dataclass(frozen=True)
class KeyMap:
    """Raw key -> released key, one to one."""

    released_of: Mapping[str, str]
    source: str = "the map of keys"
    """Where it is from, for messages."""

    @functools.cached_property
    def raw_of(self) -> dict[str, str]:
        """Released key -> raw key."""
        return {released: raw for raw, released in self.released_of.items()}

    @functools.cached_property
    def videos(self) -> dict[str, str]:
        """`released_of`, where the files of a video's crops, `NAME__0`, `NAME__1`, are one video `NAME`."""
        return {
            raw.rpartition("__")[0] if len(released) > KEY_DIGITS else raw: released[:KEY_DIGITS]
            for raw, released in self.released_of.items()
        }

    @functools.cached_property
    def names(self) -> dict[str, str]:
        """What a label file may name -> its released name: a key, or the video of several crops."""
        return {**self.released_of, **self.videos}

    def raw(self, released: str) -> str:
        """The raw key.

        Raises:
            UserError: The map has no such released key.
        """
        if released not in self.raw_of:
            problem = f"has no released key '{released}'; it holds {len(self.raw_of)}"
            raise UserError(self.source, problem, "give the map that was written with this store")
        return self.raw_of[released]

    def renamed(self, names: Iterable[str], *, source: object) -> dict[str, str]:
        """Name in a label file -> released key; names without one are left out.

        A name means the key or video that `keys.match_keys` finds: folders and media extensions may differ.

        Raises:
            UserError: A name could be two videos, or a video two names.
        """
        name_of = match_keys(names, self.names, source=source)
        return {name: self.names[key] for key, name in name_of.items()}


def hashed_keys(keys: Sequence[str], secret: bytes, *, crops: bool = False) -> KeyMap:
    """The map of a store's keys under a secret.

    Args:
        keys: Each once.
        secret: `SECRET_BYTES` bytes.
        crops: A folder of long videos: files `NAME__0`, `NAME__1` are crops of one video, and stay so: the name is
            hashed and the number kept.

    Raises:
        UserError: Two keys have the same hash.
    """
    known, released_of = set(keys), {}
    for key in keys:
        crop = _CROP.fullmatch(key) if crops else None
        if crop and f"{crop[1]}__0" in known and crop[1] not in known:
            released_of[key] = keyed_hash(crop[1], secret) + crop[2]
        else:
            released_of[key] = keyed_hash(key, secret)
    if len(set(released_of.values())) < len(released_of):
        raise UserError("--secret", "gives two keys the same hash", "use another secret")
    return KeyMap(released_of)


def read_secret(path: PathLike) -> bytes:
    """The secret in a file of 64 hexadecimal digits.

    Raises:
        UserError: There is no such file, or it holds something else.
    """
    try:
        text = Path(path).read_text(encoding="ascii").strip()
        secret = bytes.fromhex(text) if re.fullmatch(f"[0-9a-f]{{{2 * SECRET_BYTES}}}", text) else b""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(path, f"can't be read as a secret ({error})", "give the file that anonymize wrote") from error
    if not secret:
        problem = f"holds no secret of {2 * SECRET_BYTES} hexadecimal digits"
        raise UserError(path, problem, "give the file that anonymize wrote, or a name that is free: it is made then")
    return secret


def secret_of(path: PathLike) -> bytes:
    """The secret in a file; a new one, not yet written (`keep_secret`), if there is none."""
    return read_secret(path) if Path(path).exists() else secrets.token_bytes(SECRET_BYTES)


def keep_secret(path: PathLike, secret: bytes, *, inputs: Iterable[PathLike] = ()) -> None:
    """Write the secret where there is none yet, for its owner alone to read."""
    if not Path(path).exists():
        write_owned(path, f"{secret.hex()}\n".encode(), inputs=inputs)


def write_key_map(path: PathLike, keys: KeyMap, *, inputs: Iterable[PathLike] = ()) -> None:
    """CSV `raw,released`, in the order of the released keys, for its owner alone to read.

    Any raw key can be in it: with commas, quotes, line ends, and bytes that are no UTF-8.
    """
    text = io.StringIO(newline="")
    text.write(",".join(HEADER) + "\n")
    rows = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)  # a lone carriage return isn't quoted otherwise
    rows.writerows(sorted(keys.released_of.items(), key=operator.itemgetter(1)))
    if Path(path).exists():
        read_key_map(path)  # what else has that name is not replaced
    write_owned(path, text.getvalue().encode(errors="surrogateescape"), inputs=inputs)


def read_key_map(*paths: PathLike) -> KeyMap:
    """The maps of one or several stores as one.

    Raises:
        UserError: No such file, no CSV of `HEADER`, a damaged row, a raw or released key twice, a released key that is
            no hash.
    """
    released_of: dict[str, str] = {}
    raw_of: dict[str, str] = {}
    for path in paths:
        for number, cells in enumerate(_rows(path), start=1):
            if len(cells) != len(HEADER) or not re.fullmatch(rf"[0-9a-f]{{{KEY_DIGITS}}}(__\d+)?", cells[1], re.ASCII):
                raise UserError(path, f"row {number} is no raw key and its hash", "give the file that anonymize wrote")
            raw, released = cells
            if released_of.setdefault(raw, released) != released:
                raise UserError(path, f"duplicate raw key '{raw}'", "give maps that were made under one secret")
            if raw_of.setdefault(released, raw) != raw:
                raise UserError(path, f"duplicate released key '{released}'", "give the file that anonymize wrote")
    return KeyMap(released_of, ", ".join(str(path) for path in paths))


def _rows(path: PathLike) -> list[list[str]]:
    if Path(path).exists() and not Path(path).is_file():
        raise UserError(path, "is no regular file", "give the map that anonymize wrote")
    try:
        text = Path(path).read_bytes().decode(errors="surrogateescape")
        header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    except OSError as error:
        raise UserError(path, f"can't be read ({error.strerror})", "give the map that anonymize wrote") from error
    except (csv.Error, ValueError) as error:
        raise UserError(path, f"is no map of keys ({error})", "give the file that anonymize wrote") from error
    if tuple(header) != HEADER or not rows:
        raise UserError(path, f"is no map of keys: a CSV '{','.join(HEADER)}'", "give the file that anonymize wrote")
    return rows


def write_owned(path: PathLike, content: bytes, *, inputs: Iterable[PathLike] = ()) -> None:
    """Write a file as `files.replacing` does, for its owner alone to read."""
    with writing(path), replacing(path, inputs=inputs) as temporary:
        temporary.touch(OWNER_ONLY, exist_ok=False)
        temporary.write_bytes(content)

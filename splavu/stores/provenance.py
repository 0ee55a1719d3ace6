"""Provenance of a store: attributes, checksums, and which runs may extend an existing store."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from splavu.errors import UserError

logger = logging.getLogger(__name__)

Attributes = dict[str, str | int | float]

ATTRIBUTES_FILE = "attributes.json"
"""The file that holds them in a folder of features or a journal."""
ORIGIN_ATTRIBUTE = "made_from"
"""Attribute of a store that is made from another one: what identifies the content of that one."""
INFORMATIVE_ATTRIBUTES = frozenset({"splavu_version", ORIGIN_ATTRIBUTE})
"""Attributes in which a run may differ from the store that it extends."""
OUR_ATTRIBUTES = frozenset(
    {
        "encoder",
        "weights_sha256",
        "weights_hub",
        "weights_revision",
        "preprocessing",
        "decoder",
        "decoding",
        "precision",
        "arithmetic",
        "clip_rule",
        "obfuscation",
        "splavu_version",
    }
)
"""Attributes that extraction writes: none names a video, a file of one, or a subject."""
CHECKSUM_ATTRIBUTE = "sha256"
"""Attribute of each HDF5 dataset that this program writes: `checksum` of its features."""

EXTRACT_AGAIN = "copy it again, or extract or anonymize the features again"
"""The remedy for damaged features."""


def checksum(features: np.ndarray) -> str:
    """SHA-256 of the features as little-endian float32, in C order."""
    return hashlib.sha256(np.ascontiguousarray(features, dtype="<f4").reshape(-1)).hexdigest()


def refuse_conflict(culprit: Path, found: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Refuse to extend a store that was made with other attributes."""
    for name in sorted((wanted.keys() | found.keys()) - INFORMATIVE_ATTRIBUTES):
        if repr(found.get(name)) != repr(wanted.get(name)):  # NaN is another number than itself
            raise UserError(
                culprit,
                f"was made with {name} = {found.get(name)!r}, this run has {wanted.get(name)!r}",
                "write elsewhere, delete this one, or run with the same settings",
            )


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a journal.

    Raises:
        UserError: It can't be read.
    """
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError(f"a JSON object expected, not {type(found).__name__}")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            path, f"cannot be read ({error})", f"delete the journal {path.parent} to start again"
        ) from error
    return found


def read_attributes(path: Path) -> Attributes:
    """The attributes that a JSON file of a store holds.

    Raises:
        UserError: It is no JSON object of texts and numbers.
    """
    try:
        return parsed_attributes(path, path.read_bytes())
    except OSError as error:
        raise UserError(path, f"cannot be read ({error.strerror})", "check its permissions") from error


def parsed_attributes(culprit: Path, content: bytes) -> Attributes:
    """The attributes that some JSON holds; those that are no texts or numbers are left out, as `scalar_attributes`.

    Raises:
        UserError: It is no JSON object.
    """
    try:
        found = json.loads(content.decode("utf-8", errors="surrogateescape"))
        if not isinstance(found, dict):
            raise ValueError(f"a JSON object expected, not {type(found).__name__}")
    except (ValueError, RecursionError) as error:
        raise UserError(culprit, f"its attributes are damaged ({error})", EXTRACT_AGAIN) from error
    return scalar_attributes(culprit, found.items())


def scalar_attributes(culprit: Path, found: Iterable[tuple[Any, Any]]) -> Attributes:
    """The attributes that are texts and numbers; others (arrays, references) are named and left out."""
    kept: Attributes = {}
    left_out = []
    for name, value in ((plain(name), plain(value)) for name, value in found):
        if isinstance(value, str | int | float):
            kept[str(name)] = value
        else:
            left_out.append(str(name))
    if left_out:
        _warn_of_left_out(str(culprit), ", ".join(sorted(left_out)))
    return kept


@functools.cache
def _warn_of_left_out(path: str, names: str) -> None:
    logger.warning("%s: attributes that are no text and no number are left out: %s", path, names)


def plain(value: Any) -> Any:
    """A NumPy or HDF5 value as Python has it; an array of one value as that value."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    return value.item() if isinstance(value, np.generic) else value


@functools.cache
def warn_without_attributes(path: str) -> None:
    logger.warning("%s: no provenance attributes; cannot tell which encoder and weights made these features", path)

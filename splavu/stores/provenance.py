"""Provenance of a store: attributes, checksums, and which runs may extend an existing store."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from splavu.errors import UserError

logger = logging.getLogger(__name__)

Attributes = dict[str, str | int | float]

ATTRIBUTES_FILE = "attributes.json"
"""The file that holds them in a folder of features or a journal."""
INFORMATIVE_ATTRIBUTES = frozenset({"splavu_version"})
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

EXTRACT_AGAIN = "extract the features again"
"""The remedy for damaged features."""


def checksum(features: np.ndarray) -> str:
    """SHA-256 of the features as little-endian float32, in C order."""
    return hashlib.sha256(np.ascontiguousarray(features, dtype="<f4").reshape(-1)).hexdigest()


def refuse_conflict(culprit: Path, found: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Refuse to extend a store that was made with other attributes."""
    for name in sorted((wanted.keys() | found.keys()) - INFORMATIVE_ATTRIBUTES):
        if found.get(name) != wanted.get(name):
            raise UserError(
                culprit,
                f"was made with {name} = {found.get(name)!r}, this run has {wanted.get(name)!r}",
                "write elsewhere, delete this one, or run with the same settings",
            )


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file of a store or journal.

    Raises:
        UserError: It can't be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(path, "cannot be read", f"delete {path.parent} and extract again") from error


def plain(value: Any) -> str | int | float:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.item() if isinstance(value, np.generic) else value


@functools.cache
def warn_without_attributes(path: str) -> None:
    logger.warning("%s: no provenance attributes; cannot tell which encoder and weights made these features", path)

"""report.html of a protection: what was done, what the release leaks, what it costs, what the data can't say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from splavu.anonymizers.fitted_to import row_hashes
from splavu.audit.report import page
from splavu.data.key_map import KeyMap
from splavu.metrics.vector_owners import VectorOwners, vector_owners
from splavu.protect.inventory import Inventory
from splavu.protect.recipe import Recipe
from splavu.runtime.files import write_text
from splavu.stores import open_features

TITLE = "Protected features"
MARKS = page.MARKS


@dataclass(frozen=True)
class Protection:
    """All that the page shows."""

    inventory: Inventory
    splits: Mapping[str, str]
    recipe: Recipe
    encoder: str
    released: str
    """Name of the store to give away."""
    owned: Sequence[str]
    """Names of files that lead back, and are not given away."""
    vectors: VectorOwners
    """Of the release, by subject."""
    guarantees: Sequence[str]
    commands: Sequence[str]
    evidence: Mapping[str, Any] | None
    """Of the audit, as JSON holds it."""
    use: Mapping[str, Any] | None
    """Of the probe, as JSON holds it."""
    unknown: Sequence[str]
    """What could not be judged, a sentence each."""
    failures: Sequence[str] = ()
    """Videos that could not be read."""


def released_vectors(released: Path, keys: KeyMap, inventory: Inventory) -> VectorOwners:
    """How many released vectors are one subject's alone."""
    store = open_features(released)
    hashes = [row_hashes(store[key].reshape(-1, store.feature_dim)) for key in store]
    owners = [inventory.owner(keys.raw(key)) for key in store]
    return vector_owners(np.concatenate(hashes), np.repeat(owners, [len(one) for one in hashes]))


def write_page(path: Path, protection: Protection, *, inputs: Sequence[Path] = ()) -> Path:
    """Write the page in one move."""
    return write_text(path, render(protection), inputs=inputs)


def render(protection: Protection) -> str:
    """The page; equal parts give equal bytes."""
    evidence = protection.evidence
    shown = {} if evidence is None else page.context(evidence)
    counts = {name: sum(split == name for split in protection.splits.values()) for name in ("train", "val", "test")}
    template = page.environment("splavu.protect").get_template("protect.html")
    return template.render(title=TITLE, protection=protection, counts=counts, **shown)

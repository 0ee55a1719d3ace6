"""The reader for a path."""

from __future__ import annotations

import os
from pathlib import Path

from splavu.stores.folder import FeatureFolder
from splavu.stores.hdf5 import FeatureStore
from splavu.stores.reader import FeatureReader


def open_features(path: str | os.PathLike[str], *, feature_dim: int | None = None) -> FeatureReader:
    """A `FeatureFolder` if `path` is a folder, else a `FeatureStore`."""
    reader = FeatureFolder if Path(path).is_dir() else FeatureStore
    return reader(path, feature_dim=feature_dim)

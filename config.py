"""Where this study's data and results lie. Each root can be moved by an environment variable."""

from __future__ import annotations

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent

DATA = Path(os.environ.get("SPLAVU_DATA", HERE / "data"))
"""Videos, images and label files, one folder a data set (SPLAVU_DATA)."""

FEATURES = Path(os.environ.get("SPLAVU_FEATURES", DATA / "features"))
"""Feature stores (SPLAVU_FEATURES)."""

RUNS = Path(os.environ.get("SPLAVU_RUNS", HERE / "saved_models"))
"""Run folders: checkpoints, parameters, metrics, reports (SPLAVU_RUNS)."""


def roots(data_root: str | None = None) -> tuple[Path, Path]:
    """(data, features): the two above, or those of another root, named from the repository's folder."""
    if data_root is None:
        return DATA, FEATURES
    return HERE / data_root, HERE / data_root / "features"

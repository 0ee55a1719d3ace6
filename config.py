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

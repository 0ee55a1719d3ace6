"""Made-up anomaly detection data in the real layouts: features in which an anomaly is a shift in one direction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

WIDTH, FRAMES = 12, 16


@dataclass(frozen=True)
class AnomalyWorld:
    """Lists, ground truth and features below one folder."""

    root: Path

    @property
    def features(self) -> Path:
        return self.root / "features"

    def options(self, **changes: object) -> list[str]:
        """A command line for a network small enough for tests."""
        values = {
            "rgb-list": self.root / "train.list",
            "test-rgb-list": self.root / "test.list",
            "gt": self.root / "gt.npy",
            "features": self.features,
            "output": self.root / "runs",
            "max-epoch": 3,
            "batch-size": 4,
            "seg-length": 8,
            "depths1": 1,
            "depths2": 1,
            "depths3": 1,
            "device": "cpu",
            **{name.replace("_", "-"): value for name, value in changes.items()},
        }
        flags = ["--widths", "64", "64", "64", "--quiet"]
        for name, value in values.items():
            flags += [] if value is None else [f"--{name}"] if value is True else [f"--{name}", str(value)]
        return flags


def write_world(root: Path, *, crops: int | None = None, num_train: int = 10, num_test: int = 4) -> AnomalyWorld:
    """`num_train` and `num_test` videos of each kind; `crops` None writes (T, D) files."""
    world, rng = AnomalyWorld(root), np.random.default_rng(0)
    world.features.mkdir(parents=True)
    direction = np.abs(rng.normal(size=WIDTH))
    for split, count, first in (("train", num_train, 0), ("test", num_test, 100)):
        names, truths = [], []
        for number in range(first, first + count):
            for name in (f"{('Fighting', 'Robbery')[number % 2]}{number:03d}_x264", f"Normal_Videos_{number:03d}_x264"):
                time = int(rng.integers(9, 15))
                shape = (time, WIDTH) if crops is None else (time, crops, WIDTH)
                features, truth = np.abs(rng.normal(size=shape)), np.zeros(time)
                if not name.startswith("Normal"):
                    start = int(rng.integers(0, time - 4))
                    truth[start : start + 4] = 1
                    features[start : start + 4] += direction
                np.save(world.features / f"{name}.npy", features.astype(np.float32))
                names.append(name)
                truths.append(np.repeat(truth, FRAMES))
        # The folder in a list is of somebody else's machine.
        (root / f"{split}.list").write_text("".join(f"data/elsewhere/{name}.npy\n" for name in names))
    np.save(root / "gt.npy", np.concatenate(truths))
    return world

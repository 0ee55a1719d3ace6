"""Made-up untrimmed videos in THUMOS14's layout: features in which an action is a shift in its class's direction.

A feature is a second: 16 frames at 16 frames per second. A network small enough for tests learns them in seconds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from conftest import REPOSITORY, WIDTH

CLASSES = ("Jump", "Run")
FPS = 16

SMALL = {
    "base": str(REPOSITORY / "tridet/thumos_demo.yaml"),
    "dataset": {"num_classes": len(CLASSES), "max_seq_len": 64},
    "model": {
        "backbone_arch": [1, 1, 2],
        "regression_range": [[0, 4], [4, 8], [8, 10000]],
        "embd_dim": 32,
        "fpn_dim": 32,
        "head_dim": 32,
        "head_num_layers": 2,
        "sgp_mlp_dim": 32,
        "num_bins": 8,
    },
    "opt": {"learning_rate": 0.005, "epochs": 10, "warmup_epochs": 2, "ema_decay": 0.9},
}
"""What the configuration of the tests has otherwise than the demo's."""


@dataclass(frozen=True)
class ThumosWorld:
    """Annotations, features and a configuration below one folder."""

    root: Path

    @property
    def annotations(self) -> Path:
        return self.root / "thumos14.json"

    @property
    def features(self) -> Path:
        return self.root / "features"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def config(self) -> Path:
        return self.root / "small.yaml"

    def run(self, name: str) -> Path:
        """The folder of `train.py CONFIG --output name`."""
        return self.runs / f"{self.config.stem}_{name}"

    def annotate(self, video: str, annotations: list[dict[str, object]]) -> None:
        """Replace what the annotation file says about a video."""
        content = json.loads(self.annotations.read_text())
        content["database"][video]["annotations"] = annotations
        self.annotations.write_text(json.dumps(content))


def write_world(root: Path, *, num_train: int = 8, num_test: int = 4) -> ThumosWorld:
    """Videos, and a configuration that reads them and writes to `runs/`."""
    world = ThumosWorld(root)
    write_videos(world.annotations, world.features, num_train=num_train, num_test=num_test)
    write_config(world.config, json_file=world.annotations, feat_folder=world.features, output_folder=world.runs)
    return world


def write_config(path: Path, *, output_folder: Path | None = None, **dataset: object) -> None:
    """The small configuration, with what `dataset` says of the data."""
    content = {**SMALL, "dataset": {**SMALL["dataset"], **{name: str(value) for name, value in dataset.items()}}}
    if output_folder is not None:
        content["output_folder"] = str(output_folder)
    path.write_text(yaml.safe_dump(content))


def write_videos(json_file: Path, feat_folder: Path, *, num_train: int = 8, num_test: int = 4) -> None:
    """Videos of 24 to 48 seconds with an action of 3 to 7 seconds in every 12."""
    rng = np.random.default_rng(0)
    json_file.parent.mkdir(parents=True, exist_ok=True)
    feat_folder.mkdir(parents=True)
    directions = rng.normal(size=(len(CLASSES), WIDTH))
    database = {}
    for split, count in (("Validation", num_train), ("Test", num_test)):
        for number in range(1, count + 1):
            name, length = f"video_{split.lower()}_{number:07d}", 12 * int(rng.integers(2, 5))
            features, annotations = 0.5 * rng.normal(size=(length, WIDTH)), []
            for start in range(0, length, 12):
                start, label = start + int(rng.integers(1, 4)), int(rng.integers(len(CLASSES)))
                end = start + int(rng.integers(3, 8))
                features[start:end] += directions[label]
                annotations.append({"segment": [start, end], "label": CLASSES[label], "label_id": label})
            database[name] = {"subset": split, "fps": FPS, "duration": length, "annotations": annotations}
            np.save(feat_folder / f"{name}.npy", features.astype(np.float32))
    json_file.write_text(json.dumps({"version": "made up", "database": database}))

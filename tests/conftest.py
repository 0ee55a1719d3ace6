"""A study small enough for tests: the real layouts, features drawn from a linear model with known leakage."""

from __future__ import annotations

import atexit
import csv
import functools
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import forks
import numpy as np
import pytest
import torch

from splavu.data.labels import VISPR_ATTRIBUTES
from splavu.stores import StoreWriter

QUICK_SCRIPTS = {"test_readme.py"}
"""What of tests/scripts is quick, but for its own marks. The other files take many seconds and are marked slow."""
LONG_SCRIPTS = {
    "test_adding.py": "copies of the repository are changed, and their commands run",
    "test_distributed.py": "several processes train together",
    "test_every_dataset.py": "a world of every data set is rendered and extracted",
    "test_extraction_kill.py": "a command is killed over and over",
    "test_extraction_torchrun.py": "several processes extract together",
    "test_fuzz_campaign.py": "300 random command lines",
    "test_sweep.py": "many anonymizers are fitted and measured",
    "test_training_kill.py": "a command is killed over and over",
    "test_wheel.py": "the wheel is built, installed and used",
}
"""What of tests/scripts is long by nature, and why."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run what is long by nature, too")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Before `-m` chooses among them."""
    for item in items:
        if item.path.parent.name == "scripts" and item.path.name not in QUICK_SCRIPTS:
            item.add_marker(pytest.mark.slow)
            if item.path.name in LONG_SCRIPTS:
                item.add_marker(pytest.mark.long(reason=LONG_SCRIPTS[item.path.name]))
        if (long := item.get_closest_marker("long")) and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason=f"{long.kwargs['reason']}: with --slow"))


REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"
WIDTH = 192  # of the demo encoder
NUM_ACTIONS = 4


@pytest.fixture(autouse=True)
def _one_thread():
    """Small matrices: more threads cost time, and the pool is shared by all tests."""
    torch.set_num_threads(1)


@pytest.fixture
def shared() -> Path:
    """Reference data beside the checkout; tests that need it are skipped, visibly, elsewhere."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared (golden data, real annotations, real videos), which is not here")
    return SHARED


@dataclass(frozen=True)
class Study:
    """Roots of a made-up study."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def features(self) -> Path:
        return self.root / "features"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def environment(self) -> dict[str, str]:
        """For a script in a process of its own."""
        return {
            **os.environ,
            "SPLAVU_DATA": str(self.data),
            "SPLAVU_FEATURES": str(self.features),
            "SPLAVU_RUNS": str(self.runs),
            "TQDM_DISABLE": "1",
            "OMP_NUM_THREADS": "1",
        }

    def script(self, name: str, *args: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a script of the repository as a user would."""
        return forks.python(REPOSITORY / name, *args, cwd=self.root, environment=self.environment, timeout=timeout)


def write_study(root: Path, *, videos_per_subject: int = 6, noise: float = 0.5, seed: int = 0) -> Study:
    """Videos of 12 + 6 + 8 subjects: action, seven attributes and the subject add up linearly in each feature."""
    shutil.copytree(_template(videos_per_subject, noise, seed), root, dirs_exist_ok=True)
    return Study(root)


@functools.cache
def _template(videos_per_subject: int, noise: float, seed: int) -> Path:
    """A study that is copied for each test, which takes a hundredth of the time."""
    root = Path(tempfile.mkdtemp(prefix="splavu-study-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    study, rng = Study(root), np.random.default_rng(seed)
    actions = rng.normal(size=(NUM_ACTIONS, WIDTH))
    attributes = rng.normal(size=(len(VISPR_ATTRIBUTES), WIDTH))
    provenance = {"encoder": "demo", "weights": "made up", "preprocessing": "none"}
    hmdb = study.data / "hmdb51"
    hmdb.mkdir(parents=True)
    private: list[dict[str, object]] = []
    for split, subjects in (("train", range(12)), ("val", range(12, 18)), ("test", range(18, 26))):
        labels = []
        clip_path, static_path = (study.features / f"features_hmdb_{split}_demo{s}.h5" for s in ("", "_fb10"))
        with (
            StoreWriter(clip_path, attributes=provenance) as clips,
            StoreWriter(static_path, attributes=provenance) as static,
        ):
            for subject in subjects:
                person = rng.normal(size=WIDTH) * 0.3
                for video in range(videos_per_subject):
                    action, private_bits = video % NUM_ACTIONS, rng.integers(0, 2, len(VISPR_ATTRIBUTES))
                    name = f"subject{subject:02d}_{video}"
                    appearance = person + private_bits @ attributes * 0.7
                    motion = actions[action] + appearance
                    clips.add(name, motion + rng.normal(size=(rng.integers(2, 5), WIDTH)) * noise)
                    static.add(name, appearance + rng.normal(size=(10, WIDTH)) * noise)
                    labels.append({"filename": f"{name}.avi", "label": action})
                    bits = dict(zip(VISPR_ATTRIBUTES, private_bits.tolist(), strict=True))
                    private.append({"filename": f"{name}.avi", "subject": f"p{subject}", "split": split, **bits})
        _write_csv(hmdb / f"hmdb51_{split}_labels.csv", labels)
    _write_csv(hmdb / "private_labels.csv", private)
    return root


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    """A made-up study, with config.py pointing at it."""
    import config

    made = write_study(tmp_path)
    monkeypatch.setattr(config, "DATA", made.data)
    monkeypatch.setattr(config, "FEATURES", made.features)
    monkeypatch.setattr(config, "RUNS", made.runs)
    return made


def _write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)

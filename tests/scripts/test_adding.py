"""What adding one thing costs: each is added to a copy of the repository, and works by the files that it may touch."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, WIDTH, write_study

from splavu.stores import StoreWriter


@pytest.fixture
def copy(tmp_path) -> Path:
    """The Python code of the repository, to change."""
    target = tmp_path / "copy"
    for folder in ("splavu", "study", "tridet", "mgfn", "params"):
        shutil.copytree(REPOSITORY / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path in REPOSITORY.glob("*.py"):
        shutil.copy(path, target)
    return target


def run(copy: Path, *args: str) -> str:
    """What `python ARGS` prints in the copy, with its data beside it."""
    root = copy.parent
    places = {"SPLAVU_DATA": root / "data", "SPLAVU_FEATURES": root / "features", "SPLAVU_RUNS": root / "runs"}
    environment = os.environ | {name: str(path) for name, path in places.items()} | {"PYTHONPATH": str(copy)}
    done = subprocess.run([sys.executable, *args], capture_output=True, text=True, cwd=copy, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


PENN = """
        CatalogueRow(
            "penn",
            "features_penn",
            "penn",
            2,
            lambda folder, split, keys: read.read_csv_labels(folder / f"penn_{split}_labels.csv"),
            layout=Layout("penn/videos", ("penn/penn_{split}_labels.csv",), BARE_NAME, {"train": 12, "test": 12}),
            public_class="PennFeaturesDataset",
        ),
"""


def test_a_data_set_is_a_row(copy):
    """`check-data`, `feature_dl` and `train_ft.py` know it."""
    catalogue, first = copy / "study/datasets/catalog.py", '        CatalogueRow(\n            "k400",'
    text = catalogue.read_text()
    assert text.count(first) == 1
    catalogue.write_text(text.replace(first, PENN.lstrip("\n") + first))
    rng, root = np.random.default_rng(0), copy.parent
    (root / "data/penn").mkdir(parents=True)
    (root / "features").mkdir()
    for split in ("train", "test"):
        with (
            StoreWriter(root / f"features/features_penn_{split}_demo.h5", attributes={"encoder": "demo"}) as store,
            (root / f"data/penn/penn_{split}_labels.csv").open("w", newline="") as file,
        ):
            rows = csv.writer(file)
            rows.writerow(["filename", "label"])
            for number in range(12):
                store.add(f"{split}{number}", (rng.normal(size=(2, WIDTH)) + 4 * (number % 2)).astype(np.float32))
                rows.writerow([f"{split}{number}", number % 2])
    assert "1 of 1 usable" in run(copy, "-m", "study.check_data.command", "penn", "--encoder", "demo")
    program = "from feature_dl import PennFeaturesDataset as P; print(len(P('train', encoder='demo')))"
    assert run(copy, "-c", program) == "12\n"
    settings = ("dataset=penn", "ft_arch=demo", "anon=False", "val_split=None", "num_epochs=20", "run_id=x")
    options = [part for text in settings for part in ("--set", text)]
    assert "top-1" in run(copy, "train_ft.py", "--device", "cpu", "--quiet", *options)


TERM = '''
def clip_norms(inputs: TermInputs) -> Tensor:
    """Anonymized clips shall be short."""
    return inputs.anonymized_clips.norm(dim=1).sum() / inputs.clips.num_total


'''


@pytest.mark.parametrize(
    ("setting", "loss"),
    [("extra_terms={'clip_norms': 0.1}", "clip_norms"), ("privacy_objective=clip_norms", "privacy")],
)
def test_a_loss_term_is_a_function_and_its_line(copy, setting, loss):
    """A parameter file names it, as a term of its own or as the privacy objective."""
    objectives, table = copy / "splavu/training/objectives.py", "OBJECTIVES: dict[str, Objective] = {\n"
    text = objectives.read_text()
    assert text.count(table) == 1
    objectives.write_text(text.replace(table, TERM.lstrip() + table + '    "clip_norms": Objective(clip_norms),\n'))
    study = write_study(copy.parent)
    settings = ("data_root=None", "ft_tad_loss_weight=0", "ft_ad_loss_weight=0", "num_epochs=2", "run_id=x", setting)
    options = [part for text in settings for part in ("--set", text)]
    run(copy, "multitask_train_fa.py", "--params", "params/params_demo.py", "--device", "cpu", "--quiet", *options)
    losses = [json.loads(line)[f"loss/{loss}"] for line in (study.runs / "x/metrics.jsonl").read_text().splitlines()]
    assert 0 < losses[1] < losses[0]

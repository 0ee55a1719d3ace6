"""Killed again and again at random moments, every training script ends with the same bits as if it hadn't been.

One kill for some of the scripts here; SPLAVU_KILLS=20 gives each twenty, which takes a while.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mgfn_world
import pytest
import torch
import untrimmed_world
import vp_world
from conftest import REPOSITORY, Study, write_study

from splavu.anonymizers import build_anonymizer

NUM_KILLS = int(os.environ.get("SPLAVU_KILLS", "1"))
IS_THOROUGH = "SPLAVU_KILLS" in os.environ
PARAMS = REPOSITORY / "params"


@dataclass(frozen=True)
class Script:
    """One way to train."""

    path: str
    prepare: Callable[[Path], Study]
    """Writes the data it reads."""
    arguments: Callable[[Study, str], list[object]]
    """(study, run) -> the command line that trains in the folder `runs/{run}`."""
    epochs: str
    """How a number of epochs is said, `{}` standing for it; long enough to be hit in the middle."""
    num_epochs: int
    is_like_another: bool = False
    """Whether another of these runs the same code."""


def untrimmed(root: Path) -> Study:
    study = write_study(root)
    untrimmed_world.add_untrimmed(study)
    return study


def vp(root: Path) -> Study:
    vp_world.write_world(root)
    return Study(root)


def anomalies(root: Path) -> Study:
    mgfn_world.write_world(root)
    return Study(root)


def anonymized(root: Path) -> Study:
    study = write_study(root)
    weights = build_anonymizer("transformer", 192, num_layers=1).state_dict()
    torch.save({"fa_model_state_dict": weights}, study.root / "aam.pth")
    return study


def settings(*assignments: str) -> list[str]:
    return [part for text in assignments for part in ("--set", text)]


DEMO = ["--params", PARAMS / "params_demo.py", *settings("data_root=None", "val_freq=7", "num_layers_fa=1")]
CLIPS = settings("ft_tad_loss_weight=0", "ft_ad_loss_weight=0", "learning_rate_fa=1e-3")
VP = settings(
    "ft_arch=demo", "batch_size=32", "num_layers_fa=1", "fa_loss_weight=1", "anon=False", "val_split=test", "val_freq=7"
)
SCRIPTS = {
    "multitask": Script(
        "multitask_train_fa.py",
        write_study,
        lambda study, run: [*DEMO, *CLIPS, *settings(f"run_id={run}", "ema_decay=0.9", "clip_norm=1.0")],
        "--set num_epochs={}",
        200,
        is_like_another=True,
    ),
    "multitask, every task": Script(
        "multitask_train_fa.py",
        untrimmed,
        lambda study, run: [
            *DEMO,
            *settings(f"run_id={run}", f"tad_config={study.root / 'small.yaml'}", "batch_size_ad=4"),
            *settings(f"ad_options={untrimmed_world.OPTIONS}", "batch_size_ar=24", "accumulate=2"),
        ],
        "--set num_epochs={}",
        30,
    ),
    "pretrain": Script(
        "pretrain_fa.py",
        write_study,
        lambda study, run: [
            "--params",
            PARAMS / "params_pretrain.py",
            *settings("ar_dataset=hmdb51", "val_split=val", "ft_arch=demo", f"run_id={run}", "val_freq=7"),
        ],
        "--set num_epochs={}",
        200,
    ),
    "head": Script(
        "train_ft.py",
        anonymized,
        lambda study, run: [
            "--params",
            PARAMS / "params_demo_ft.py",
            *settings("data_root=None", f"run_id={run}", f"saved_fa_model={study.root / 'aam.pth'}", "num_heads=8"),
        ],
        "--set num_epochs={}",
        300,
    ),
    "vp anonymizer": Script(
        "vp/train_vp_fa.py", vp, lambda study, run: [*VP, *settings(f"run_id={run}")], "--set num_epochs={}", 100, True
    ),
    "vp utility": Script(
        "vp/train_vp_ft.py",
        vp,
        lambda study, run: [*VP, *settings(f"run_id={run}")],
        "--set num_epochs_ft={}",
        300,
        True,
    ),
    "vp privacy": Script(
        "vp/train_vp_fb.py",
        vp,
        lambda study, run: [*VP, *settings(f"run_id={run}")],
        "--set num_epochs_fb={}",
        300,
        True,
    ),
    "mgfn": Script(
        "mgfn/main.py",
        anomalies,
        lambda study, run: mgfn_world.AnomalyWorld(study.root).options(
            output=study.runs, model_name=run, test_freq=5, val_freq=3
        ),
        "--max-epoch {}",
        60,
    ),
    "tridet": Script(
        "tridet/train.py",
        untrimmed,
        lambda study, run: [
            study.root / "small.yaml",
            *("--output", run, "-c", "3"),
            *settings(
                f"output_folder={study.runs}",
                f"dataset.json_file={study.data / 'thumos14/thumos14.json'}",
                f"dataset.feat_folder={study.features / 'thumos14_demo'}",
            ),
        ],
        "--set opt.epochs={}",
        30,
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_training_killed_at_random_moments_ends_with_the_same_bits(name, tmp_path):
    script = SCRIPTS[name]
    if script.is_like_another and not IS_THOROUGH:
        pytest.skip("shares its code with another script; SPLAVU_KILLS=20 kills this one too")
    study = script.prepare(tmp_path)
    seconds = _run(script, study, "whole")
    (whole,) = _folders(study, "whole")
    seed = random.randrange(2**32)
    moment = random.Random(seed)
    for number in range(NUM_KILLS):
        with _started(script, study, "killed") as process:
            # From before it opens its data to after its last epoch; each time it gets a little further.
            delay = moment.uniform(0.3, 1) * seconds * (1.2 if number % 3 else 0.7)
            try:
                process.wait(delay)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        for file in study.runs.rglob("*.pth*"):
            if not file.name.endswith(".tmp"):
                torch.load(file, weights_only=True)  # whole, whenever it was killed
    _run(script, study, "killed")
    (killed,) = _folders(study, "killed")
    assert _files(killed) == _files(whole), f"seed {seed}"
    assert (killed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes(), f"seed {seed}"
    for file in whole.glob("*.pth*"):
        first, second = (torch.load(folder / file.name, weights_only=True) for folder in (whole, killed))
        assert _differences(first, second) == [], f"{file.name}, seed {seed}"


def _started(script: Script, study: Study, run: str) -> subprocess.Popen:
    arguments = [*script.arguments(study, run), *script.epochs.format(script.num_epochs).split()]
    if "--device" not in arguments:
        arguments += ["--device", "cpu"]
    command = [sys.executable, str(REPOSITORY / script.path), *map(str, arguments)]
    return subprocess.Popen(
        command, env=study.environment, cwd=study.root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _run(script: Script, study: Study, run: str) -> float:
    """To its end; returns the seconds it took."""
    started = time.perf_counter()
    with _started(script, study, run) as process:
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return time.perf_counter() - started


def _folders(study: Study, run: str) -> list[Path]:
    """The run's folder; scripts add to its name, in front or behind."""
    return [path.parent for path in study.runs.rglob("metrics.jsonl") if run in path.parent.name]


def _files(folder: Path) -> list[str]:
    """Names of what a run leaves, but for TensorBoard's, which hold the time, and for what a kill left half written."""
    return sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _differences(first: object, second: object, path: str = "") -> list[str]:
    """Where two checkpoints differ; the name of the run and of its folder may."""
    if isinstance(first, torch.Tensor):
        return [] if torch.equal(first, second) else [path]
    if isinstance(first, dict):
        if first.keys() != second.keys():
            return [f"{path}: {sorted(map(str, first.keys() ^ second.keys()))}"]
        parts = [_differences(first[key], second[key], f"{path}/{key}") for key in first]
    elif isinstance(first, list | tuple):
        parts = [
            _differences(one, other, f"{path}/{n}") for n, (one, other) in enumerate(zip(first, second, strict=True))
        ]
    else:
        same = first == second or path.endswith(("run_id", "model_name", "output_folder"))
        return [] if same else [f"{path}: {json.dumps([first, second], default=str)}"]
    return [found for part in parts for found in part]

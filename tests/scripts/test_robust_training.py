"""Recipes and critics as a user starts them: the script, its parameter file, several processes."""

import json
import math
import re
import subprocess
import sys

import forks
import pytest
import torch
from conftest import REPOSITORY
from refusals import assert_names, assert_refuses

SCRIPT = str(REPOSITORY / "multitask_train_fa.py")
ROBUST = str(REPOSITORY / "params/params_robust.py")
CRITIC = {
    "run_id": "critic", "fa_arch": "encoder", "num_layers_fa": 1, "privacy_objective": "critic", "erase_rank": None,
    "bits": None, "code_space": None, "code_dims": None, "critic_steps": 2, "critic_reset": 1,
    "consistency": "relative", "fa_loss_weight": 10, "num_epochs": 3, "batch_size_ar": 25,
    "val_freq": 2, "learning_rate_fa": 1e-3,
}  # fmt: skip  # 72 videos: batches of 25, 25, 22, which two processes can't halve


def run(study, *, processes=1, **changes):
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    settings = [part for name, value in changes.items() for part in ("--set", f"{name}={value}")]
    options = ["--params", ROBUST, "--device", "cpu", "--quiet", "--set", "data_root=None", *settings]
    if processes == 1:
        return forks.python(SCRIPT, *options, cwd=study.root, environment=study.environment)
    return subprocess.run(
        [sys.executable, *start, SCRIPT, *options],
        capture_output=True,
        text=True,
        timeout=300,
        env=study.environment,
        cwd=study.root,
    )


def test_the_recommended_setting_takes_no_epoch(study):
    done = run(study)
    assert done.returncode == 0, done.stderr
    folder = study.runs / "demo/robust"
    assert {file.name for file in folder.iterdir()} == {
        "params.json", "versions.json", "results.json", "model_temp.pth"
    }  # fmt: skip
    assert json.loads((folder / "results.json").read_text())["epoch"] == 0
    content = torch.load(folder / "model_temp.pth", weights_only=True)
    eraser, quantizer = content["fa_architecture"]["stages"]
    reached = math.log2(math.prod(quantizer["codes"]))
    # The file's 20 are an upper limit: five of the twelve training subjects stand behind each centroid.
    assert 4 < reached <= 20
    assert (eraser["rank"], quantizer["support"]["unit"], quantizer["support"]["at_least"]) == (32, "subject", 5)
    assert all(5 <= units <= 12 for book in quantizer["support"]["histogram"] for units, _ in book)
    assert_names(" ".join(done.stdout.split()), ("32 of 192", f"{reached:.2f} bits"))
    assert len(content["fitted_to"]["hashes"]) == content["fitted"]["clips"]


@pytest.mark.parametrize(
    ("changes", "culprit", "names"),
    [
        ({"fa_arch": "eraser+quantiser", "bits": 4}, "fa_arch", ("'quantiser'", "'quantizer'")),
        ({"erase_rank": 150}, "rank", "150"),
        ({"privacy_objective": "critics"}, "privacy_objective", ("'critics'", "'critic'")),
    ],
)
def test_what_cannot_be_is_one_line(study, changes, culprit, names):
    done = run(study, **changes)
    assert_refuses(done, culprit, names)
    assert not (study.runs / "demo/robust/model_temp.pth").exists()


@pytest.mark.long(reason="several processes train together")
def test_critics_of_two_processes_are_those_of_one_to_rounding(study):
    records = []
    for processes in (1, 2):
        done = run(study, processes=processes, **{**CRITIC, "run_id": f"of{processes}"})
        assert done.returncode == 0, done.stderr
        lines = (study.runs / f"of{processes}/metrics.jsonl").read_text().splitlines()
        records.append([{k: v for k, v in json.loads(line).items() if k.startswith("loss/")} for line in lines])
    for alone, together in zip(*records, strict=True):
        assert together == pytest.approx(alone, rel=1e-3)  # a critic's steps amplify the rounding of those before
    first, second = (torch.load(study.runs / f"of{n}/model_temp.pth", weights_only=True) for n in (1, 2))
    for name, weight in first["fa_model_state_dict"].items():
        torch.testing.assert_close(second["fa_model_state_dict"][name], weight, rtol=1e-2, atol=2e-4)


def test_closed_forms_are_refused_to_several_processes(study):
    done = run(study, processes=2)
    assert done.returncode != 0
    assert re.search(r"^multitask_train_fa\.py: fa_arch: ", done.stderr, flags=re.MULTILINE)  # and torchrun's own lines

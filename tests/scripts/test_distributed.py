"""Several processes under torchrun: what one process does, to rounding."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import REPOSITORY
from untrimmed_world import OPTIONS, add_untrimmed

PARAMS = str(REPOSITORY / "params/params_demo.py")
SETTINGS = {
    "data_root": None, "ft_tad_loss_weight": 0, "ft_ad_loss_weight": 0, "num_epochs": 4, "batch_size_ar": 25,
    "val_freq": 2, "learning_rate_fa": 1e-3,
}  # fmt: skip  # 72 videos: batches of 25, 25, 22, which two processes can't halve


def train(study, processes, **changes):
    """The records of a run of so many processes."""
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    settings = [
        part for name, value in {**SETTINGS, **changes}.items() for part in ("--set", f"{name}={value}")
    ]  # fmt: skip
    script = [str(REPOSITORY / "multitask_train_fa.py"), "--params", PARAMS, "--device", "cpu", "--quiet", *settings]
    done = subprocess.run(
        [sys.executable, *start, *script],
        capture_output=True,
        text=True,
        timeout=300,
        env=study.environment,
        cwd=study.root,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best epoch") == 1  # one of them speaks
    folder = study.runs / changes["run_id"]
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same(records, expected, relative=1e-5):
    assert len(records) == len(expected)
    for record, other in zip(records, expected, strict=True):
        assert record.keys() == other.keys()
        losses = {name: value for name, value in record.items() if name.startswith("loss/")}
        assert losses == pytest.approx({name: other[name] for name in losses}, rel=relative)


def test_two_processes_are_one_to_rounding_and_may_go_on_as_another_number(study):
    alone = train(study, 1, run_id="alone")
    together = train(study, 2, run_id="together")
    assert_same(together, alone)
    assert {"loss/ar", "loss/latent", "loss/privacy", "loss/total"} <= alone[0].keys()
    assert together[-1]["val/ar/top1"] == alone[-1]["val/ar/top1"]
    first, second = (
        torch.load(study.runs / run / "model_temp.pth", weights_only=True)["fa_model_state_dict"]
        for run in ("alone", "together")
    )
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=1e-3, atol=2e-5)

    train(study, 3, run_id="changing", num_epochs=2)
    assert_same(train(study, 1, run_id="changing"), alone)


def test_detection_and_anomaly_detection_are_computed_whole_by_each_process(study):
    add_untrimmed(study)
    tasks = {
        "ft_tad_loss_weight": 1, "ft_ad_loss_weight": 1, "tad_config": study.root / "small.yaml", "ad_options": OPTIONS,
        "batch_size_ad": 4, "num_epochs": 2,
    }  # fmt: skip
    alone = train(study, 1, run_id="alone", **tasks)
    assert {"loss/tad", "loss/ad"} <= alone[0].keys()
    assert_same(train(study, 2, run_id="together", **tasks), alone)


def test_a_loss_that_is_not_finite_stops_all_processes(study):
    with pytest.raises(AssertionError, match=r"multitask_train_fa\.py: (loss term|weight) '"):
        train(study, 2, run_id="spoiled", learning_rate_fa=1e30, num_epochs=20)
    for saved in (study.runs / "spoiled").glob("*.pth"):
        content = torch.load(saved, weights_only=True)
        assert all(value.isfinite().all() for value in content["fa_model_state_dict"].values())


def test_a_mixing_batch_is_refused_for_several_processes(study):
    with pytest.raises(AssertionError, match=r"multitask_train_fa\.py: batch_as_sequence: "):
        train(study, 2, run_id="mixing", batch_as_sequence=True)
    assert not (study.runs / "mixing").exists()

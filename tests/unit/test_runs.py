import json
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from refusals import refused

from splavu.errors import UserError, nearest
from splavu.runtime import cli, environment, extras, run_folder
from splavu.runtime.files import write_text
from splavu.runtime.run_folder import TABLE, RunFolder


@dataclass(frozen=True)
class Params:
    seed: int = 0


def test_log_history_and_rewind_after_a_torn_line(tmp_path):
    run = RunFolder(tmp_path, "group/run")
    for step in range(4):
        run.log(step=step, loss=step / 2)
    run.close()
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    run.rewind(2)
    assert run.history() == [{"step": 0, "loss": 0.0}, {"step": 1, "loss": 0.5}]
    assert list((run.path / "tensorboard").iterdir())


def test_json_round_trip_and_no_temporary_file(tmp_path):
    run = RunFolder(tmp_path, "r")
    assert run.read_json("a.json") is None
    run.write_json("a.json", {"x": [1, 2]})
    assert run.read_json("a.json") == {"x": [1, 2]}
    assert [path.name for path in run.path.iterdir()] == ["a.json"]
    assert write_text(tmp_path / "t.txt", "é").read_text(encoding="utf-8") == "é"


@pytest.mark.parametrize("run_id", ["", "../outside", "/tmp/outside"])
def test_a_run_stays_below_its_root(tmp_path, run_id):
    with refused("run_id"):
        RunFolder(tmp_path, run_id)


def test_seeds_depend_on_every_part_and_repeat():
    seeds = {environment.derived_seed(*parts) for parts in ((0,), (0, 0), (0, 1), (1, 0), (1,))}
    assert len(seeds) == 5
    environment.seed_everything(3, 4)
    first = (torch.rand(2).tolist(), np.random.rand(2).tolist())  # noqa: NPY002  the global generator is the subject
    environment.seed_everything(3, 4)
    assert first == (torch.rand(2).tolist(), np.random.rand(2).tolist())  # noqa: NPY002


def test_device_and_precision_by_name():
    assert environment.pick_device("cpu") == torch.device("cpu")
    assert environment.pick_device().type in ("cpu", "cuda", "mps")
    with refused("--device"):
        environment.pick_device("gpu7")
    with environment.autocast(torch.device("cpu"), "bf16"):
        assert (torch.zeros(2, 2) @ torch.zeros(2, 2)).dtype == torch.bfloat16
    with refused("precision"):
        environment.autocast(torch.device("cpu"), "fp8")


def test_versions_name_what_decides_a_number():
    found = environment.versions()
    assert {"splavu", "python", "torch", "numpy", "device"} <= set(found)
    json.dumps(found)


@pytest.mark.parametrize(
    ("outcome", "code"), [(None, 0), (3, 3), (UserError("a.h5", "is bad", "mend it"), 2), (KeyboardInterrupt(), 130)]
)
def test_exit_codes(monkeypatch, capsys, outcome, code):
    monkeypatch.setattr(sys, "argv", ["dir/script.py"])

    def main(argv):
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    with pytest.raises(SystemExit) as left:
        cli.run(main)
    assert left.value.code == code
    if code == 2:
        assert capsys.readouterr().err == "script.py: a.h5: is bad; mend it\n"  # the form of every refusal


def test_nearest_offers_one_name_or_all():
    assert nearest("hmbd51", ["hmdb51", "ucf101"]) == "did you mean 'hmdb51'?"
    assert nearest("zzz", ["b", "a"]) == "known: a, b"


def test_quiet_silences_progress_bars():
    """Ours, and nobody else's: tqdm itself is as it was."""
    program = (
        "import argparse; from tqdm import tqdm; from splavu.runtime import cli, progress;"
        "cli.start(argparse.Namespace(quiet={quiet}));"
        "list(progress.progress_bar(range(3))); list(tqdm(range(7)))"
    )
    for quiet in (True, False):
        command = [sys.executable, "-c", program.format(quiet=quiet)]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        assert ("3/3" in shown) is not quiet
        assert "7/7" in shown


def test_without_tensorboard_the_metrics_are_kept_and_one_line_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    run_folder._summary_writer.cache_clear()
    run = RunFolder(tmp_path, "run")
    for step in range(3):
        run.log(step=step, loss=0.5)
    run.close()
    run_folder._summary_writer.cache_clear()
    assert [row["step"] for row in run.history()] == [0, 1, 2]
    assert not (run.path / "tensorboard").exists()
    assert [extras.remedy("train") in message for message in caplog.messages] == [True]


def test_an_evaluation_is_cached_for_its_inputs_only(tmp_path):
    """Once for equal inputs and parameters; again for others, or when forced; what stands there is the last one."""
    calls = []

    def evaluate():
        calls.append(1)
        return {"figure": len(calls)}

    run = RunFolder(tmp_path, "x")
    options = {"key": "gait", "table": lambda result: f"figure {result['figure']}\n"}
    assert run.cached_result(Params(), {"data": "a"}, evaluate, **options)[1] is False
    assert run.cached_result(Params(), {"data": "a"}, evaluate, **options)[1] is True
    assert len(calls) == 1
    for params, data, force in ((Params(), "b", False), (Params(seed=1), "b", False), (Params(seed=1), "b", True)):
        result, stored = run.cached_result(params, {"data": data}, evaluate, force=force, **options)
        assert not stored
        assert result["figure"] == len(calls)
    assert len(calls) == 4
    assert run.read_json("results.json")["gait"]["figure"] == 4
    assert (run.path / TABLE).read_text() == "figure 4\n"
    assert run.read_json("params.json")["seed"] == 1

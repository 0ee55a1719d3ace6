"""What can go wrong with the disk: full, read-only, a write that is cut off. One line, exit code 2, nothing lost."""

import json
import re

import forks
import pytest
import torch
from conftest import REPOSITORY
from refusals import assert_refuses, refused

from splavu.runtime import checkpoints

ARGUMENTS = [
    "--params", str(REPOSITORY / "params/params_demo.py"), "--device", "cpu", "--quiet",
    *(part for text in ("data_root=None", "ft_tad_loss_weight=0", "ft_ad_loss_weight=0", "val_freq=2", "run_id=run")
      for part in ("--set", text)),
]  # fmt: skip

LIMITED = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write past the limit fails as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def train(study, *settings, limit=None, runs=None):
    script = [str(REPOSITORY / "multitask_train_fa.py"), *ARGUMENTS]
    script += [part for text in settings for part in ("--set", text)]
    start = [] if limit is None else ["-c", LIMITED, str(limit)]
    environment = {**study.environment, **({} if runs is None else {"SPLAVU_RUNS": str(runs)})}
    return forks.python(*start, *script, cwd=study.root, environment=environment)


def test_a_full_disk_stops_with_one_line_and_the_run_goes_on_when_there_is_room(study):
    assert train(study, "num_epochs=2").returncode == 0
    before = checkpoints.read(study.runs / "run/model_temp.pth")
    full = train(study, "num_epochs=4", limit=1_000_000)  # a checkpoint takes more than that
    assert_refuses(full, re.search(r"\bmodel_\S+\.pth", full.stderr)[0])
    after = checkpoints.read(study.runs / "run/model_temp.pth")  # the last one is whole
    assert after["epoch"] == before["epoch"] == 2
    assert not list((study.runs / "run").glob(".*tmp"))
    assert train(study, "num_epochs=4").returncode == 0
    assert train(study, "num_epochs=4", "run_id=whole").returncode == 0
    histories = [(study.runs / run / "metrics.jsonl").read_bytes() for run in ("run", "whole")]
    assert histories[0] == histories[1]


@pytest.mark.parametrize("place", ["a file", "a read-only file system"])
def test_an_output_folder_that_can_not_be_written(study, place):
    if place == "a file":
        runs = study.root / "occupied"
        runs.write_text("not a folder")
    else:
        runs = "/proc/splavu"  # nobody can make folders there, not even root
    assert_refuses(train(study, "num_epochs=1", runs=runs), f"{runs}/run")


def test_metrics_that_a_kill_cut_off_are_written_again(study):
    assert train(study, "num_epochs=3").returncode == 0
    metrics = study.runs / "run/metrics.jsonl"
    whole = metrics.read_text()
    metrics.write_text(whole + '{"step": 3, "loss/ar"')
    assert train(study, "num_epochs=4").returncode == 0
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps == [0, 1, 2, 3]
    assert metrics.read_text().startswith(whole)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("unexpected pos 64 vs 0")])
def test_an_interrupted_write_leaves_the_checkpoint_before(tmp_path, monkeypatch, error):
    path = checkpoints.write(tmp_path / "model.pth", {"weights": torch.ones(3)})

    def fail(content, file):
        file.write(b"half")
        raise error

    monkeypatch.setattr(torch, "save", fail)
    with refused("model.pth", naming=str(error.args[-1])):
        checkpoints.write(path, {"weights": torch.zeros(3)})
    monkeypatch.undo()
    assert torch.equal(checkpoints.read(path)["weights"], torch.ones(3))
    assert [file.name for file in tmp_path.iterdir()] == ["model.pth"]

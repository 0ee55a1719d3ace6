"""The MGFN scripts as a user runs them, on made-up features."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import forks
import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from mgfn_world import WIDTH, write_world
from refusals import assert_refuses, refused

from mgfn import main as main_script
from mgfn import test as test_script
from mgfn import train as train_script
from mgfn.checkpoints import read_checkpoint, read_network
from splavu.training.engine import EngineParams
from splavu.training.learners import Learner


@pytest.fixture
def world(tmp_path):
    return write_world(tmp_path)


def records(world, name="mgfn"):
    lines = (world.root / "runs" / name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_main_trains_and_tests_and_says_what_chose_the_epoch(world, capsys):
    main_script.main(world.options())
    run = world.root / "runs/mgfn"
    lines = capsys.readouterr().out.splitlines()
    last = re.fullmatch(r"frame-level AUC (\d+\.\d) % \(epoch (\d), chosen on validation videos\)", lines[-1])
    assert last
    literature = re.search(r"chosen on the test set\): frame-level AUC (\d+\.\d) %, epoch \d", lines[-2])
    assert float(literature[1]) >= float(last[1])
    history = records(world)
    assert [record["step"] for record in history] == [0, 1, 2]
    chosen = max(history, key=lambda record: (record["val/auc"], -record["val/bce"]))
    assert chosen["step"] + 1 == int(last[2])
    assert f"{100 * chosen['test/roc_auc']:.1f}" == last[1]
    results = json.loads((run / "results.json").read_text())["ad"]
    assert f"{100 * results['roc_auc']:.1f}" == last[1]
    assert results["best_test_epoch"]["roc_auc"] == max(record["test/roc_auc"] for record in history)
    tested = json.loads((run / "test.json").read_text())
    assert {"overall", "abnormal videos", "Fighting", "Robbery"} == tested.keys()
    scores = np.load(run / "snippet_scores.npz")
    for name in scores.files:
        assert len(scores[name]) == len(np.load(world.features / f"{name}.npy"))
    assert len(list(run.glob("model_*_*.pth"))) == 1
    for name in ("options.json", "versions.json", "model_temp.pth"):
        assert (run / name).is_file()
    assert list((run / "tensorboard").iterdir())
    assert not list(run.glob(".*"))


def test_an_anomaly_is_found_and_with_swapped_labels_the_normal_is(world, capsys):
    """The claim and its opposite: it's the labels that say what is abnormal, not the size of a feature."""
    figures = {}
    for swapped in (False, True):
        listed = (world.root / "train.list").read_text().split()
        labels = [("Normal" in line) == swapped for line in listed]
        path = world.root / f"swapped{swapped}.list"
        path.write_text("".join(f"{line} {label:d}\n" for line, label in zip(listed, labels, strict=True)))
        main_script.main(world.options(rgb_list=path, model_name=path.stem, max_epoch=8, validation_share=0))
        last = capsys.readouterr().out.splitlines()[-1]
        assert "nothing chosen" in last
        figures[swapped] = float(re.search(r"frame-level AUC (\S+) %", last)[1])
    assert figures[False] > 75
    assert figures[True] < 40


def same_training(world, one, other):
    """Whether two runs left the same behind, to the last bit."""
    whole, parts = (read_checkpoint(world.root / "runs" / name / "model_temp.pth") for name in (one, other))
    for key in ("model", "optimizer_mgfn", "schedule_mgfn"):
        torch.testing.assert_close(parts[key], whole[key], rtol=0, atol=0)
    assert parts["progress"] == whole["progress"]
    assert parts["best_test"] == whole["best_test"] is not None
    names = [sorted(path.name for path in (world.root / "runs" / name).glob("*.pth")) for name in (one, other)]
    assert names[0] == names[1]
    return records(world, one) == records(world, other)


RATES = "[0.001,0.0005]*2+[0.0001]*20"


def test_a_run_that_goes_on_ends_with_the_same_weights(world):
    train_script.main(world.options(model_name="whole", max_epoch=4, lr=RATES))
    train_script.main(world.options(model_name="parts", max_epoch=2, lr=RATES))
    train_script.main(world.options(model_name="parts", max_epoch=4, lr=RATES))
    assert same_training(world, "whole", "parts")


@pytest.mark.long(reason="a command is killed over and over")
def test_killed_at_a_random_moment_and_started_again_equals_uninterrupted(world):
    options = {"max_epoch": 10, "lr": RATES}
    train_script.main(world.options(model_name="whole", **options))
    command = [sys.executable, str(REPOSITORY / "mgfn/train.py"), *world.options(model_name="killed", **options)]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # as in this process: another number sums in another order
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=one_thread)
    history = world.root / "runs/killed/metrics.jsonl"
    while process.poll() is None and not (history.is_file() and len(history.read_text().splitlines()) >= 2):
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.1))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it finished before it could be killed"
    assert subprocess.run(command, capture_output=True, env=one_thread).returncode == 0
    assert same_training(world, "whole", "killed")


def test_the_learning_rate_goes_by_the_epoch(world, monkeypatch):
    seen, step = [], Learner.step

    def watched(learner, scaler):
        seen.append(learner.optimizer.param_groups[0]["lr"])
        step(learner, scaler)

    monkeypatch.setattr(Learner, "step", watched)
    train_script.main(world.options(lr="[0.003]*2+[0.0007]*2", max_epoch=3))
    train_script.main(world.options(lr="[0.003]*2+[0.0007]*2", max_epoch=4))
    assert seen == [0.003] * 4 + [0.0007] * 4  # 8 videos of each kind to train on, 4 a step


def test_every_parameter_of_the_engine_is_an_option():
    own = {field.name: field for field in dataclasses.fields(train_script.TrainingOptions)}
    for field in dataclasses.fields(EngineParams):
        assert own[field.name].default == field.default
        assert own[field.name].metadata["help"]


def test_the_average_is_what_is_tested_and_loaded(world, capsys):
    """Every option of the engine; the average differs from the weights, and main.py and test.py agree on it."""
    engine = {"precision": "bf16", "accumulate": 2, "clip_norm": 1, "ema_decay": 0.9, "checkpoint_freq": 2}
    main_script.main(world.options(**engine, mag_ratio=0.3, validation_share=0))
    figure = capsys.readouterr().out.splitlines()[-1].split(" (")[0]
    checkpoint = world.root / "runs/mgfn/model_temp.pth"
    content, network = read_checkpoint(checkpoint), read_network(checkpoint)
    assert network.architecture.mag_ratio == 0.3
    torch.testing.assert_close(dict(network.state_dict()), dict(content["model_ema"]), rtol=0, atol=0)
    assert any(not torch.equal(content["model"][name], weight) for name, weight in content["model_ema"].items())
    assert {name: content["params"][name] for name in engine} == engine
    assert not list(checkpoint.parent.glob("model_*_*.pth"))
    test_script.main(world.options(rgb_list=None, max_epoch=None, pretrained_ckpt=checkpoint, model_name="tested"))
    assert capsys.readouterr().out.splitlines()[-1].split(" (")[0] == figure


def test_a_loss_that_is_not_finite_is_named_and_never_written(world):
    with refused("loss term 'bce'", naming=("step 2", "epoch 1")):
        train_script.main(world.options(lr="1e30"))
    for path in (world.root / "runs/mgfn").glob("*.pth"):
        assert all(weight.isfinite().all() for weight in read_checkpoint(path)["model"].values())


@pytest.mark.parametrize("script", [train_script, main_script])
def test_several_processes_are_refused(world, script, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with refused(f"mgfn/{Path(script.__file__).name}", naming="torchrun"):
        script.main(world.options())
    assert not (world.root / "runs").exists()


def test_a_run_is_not_continued_with_other_options(world):
    train_script.main(world.options())
    with refused("model_temp.pth", naming=("seed = 0", "1")):
        train_script.main(world.options(seed=1, max_epoch=4))
    train_script.main(world.options(seed=1, restart=True))


def test_test_script_repeats_the_figure_and_draws(world, capsys):
    main_script.main(world.options(test_freq=0))
    output = capsys.readouterr().out.splitlines()
    assert not any("literature" in line for line in output)
    checkpoint = next((world.root / "runs/mgfn").glob("model_*_*.pth"))
    test_script.main(
        world.options(rgb_list=None, max_epoch=None, pretrained_ckpt=checkpoint, model_name="tested", plots=True)
    )
    assert capsys.readouterr().out.splitlines()[-1].split(" (")[0] == output[-1].split(" (")[0]
    assert len(list((world.root / "runs/tested/plots").glob("*.png"))) == 8


@pytest.mark.parametrize("variant", ["A", "B"])
def test_crops_and_both_variants(tmp_path, variant):
    world = write_world(tmp_path, crops=3)
    main_script.main(world.options(variant=variant, max_epoch=1, clustering="videos"))
    assert records(world)[0]["loss/separation"] > 0


def test_preprocessed_training_files(world):
    ready = world.root / "ready"
    ready.mkdir()
    for path in world.features.glob("*.npy"):
        np.save(ready / path.name, np.random.default_rng(0).random((1, 8, WIDTH + 1), dtype=np.float32))
    main_script.main(world.options(features=ready, test_features=world.features, preprocessed=True, max_epoch=1))
    assert len(records(world)) == 1


def test_features_pass_through_the_anonymizer_first(world, monkeypatch):
    """An anonymizer that blanks everything leaves nothing to tell frames apart by."""
    seen = []

    def anonymizing(checkpoint, device, *, serving):
        assert (checkpoint, device.type, serving) == ("some.pth", "cpu", "video")

        def blank(sequence):
            seen.append(sequence.shape)
            return torch.zeros_like(sequence)

        return blank

    monkeypatch.setitem(sys.modules, "mgfn.anonymize", types.SimpleNamespace(anonymizing=anonymizing))
    main_script.main(world.options(aam="some.pth", max_epoch=1, test_freq=0))
    assert len(seen) == 20 + 8  # each training or validation video once, each test video once
    assert {len(shape) for shape in seen} == {2}
    scores = np.load(world.root / "runs/mgfn/snippet_scores.npz")
    by_length = {}
    for name in scores.files:
        by_length.setdefault(len(scores[name]), []).append(scores[name])
    for group in by_length.values():
        np.testing.assert_allclose(group, np.broadcast_to(group[0], np.shape(group)), atol=1e-6)


def spoil(world, what):
    """Make one thing wrong; returns the culprit and what the line must name."""
    video = world.features / "Fighting102_x264.npy"
    truth = np.load(world.root / "gt.npy")
    if what == "missing file":
        video.unlink()
        return "test.list line 5", ("'Fighting102_x264.npy'", "1 of 8")
    if what == "empty file":
        video.write_bytes(b"")
        return "Fighting102_x264.npy", ()
    if what == "wrong width":
        np.save(video, np.load(video)[:, 1:])
        return "Fighting102_x264.npy", "11"
    if what == "NaN":
        video = world.features / "Robbery001_x264.npy"
        np.save(video, np.load(video) * np.nan)
        return "Robbery001_x264.npy", ("snippet 0", "NaN")
    if what == "short truth":
        np.save(world.root / "gt.npy", truth[:-20])
        return "gt.npy", "'Normal_Videos_103_x264'"
    if what == "long truth":
        np.save(world.root / "gt.npy", np.append(truth, 0))
        return "gt.npy", str(len(truth) + 1)
    if what == "no abnormal video":
        lines = (world.root / "train.list").read_text().split()
        (world.root / "train.list").write_text("\n".join(line for line in lines if "Normal" in line))
        return "train.list", "10"
    (world.root / "test.list").write_text("")
    return "test.list", ()


@pytest.mark.parametrize(
    "what",
    [
        "missing file",
        "empty file",
        "wrong width",
        "NaN",
        "short truth",
        "long truth",
        "no abnormal video",
        "empty list",
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing_behind(world, what):
    culprit, names = spoil(world, what)
    with refused(culprit, naming=names):
        main_script.main(world.options())
    assert not (world.root / "runs").exists()


def test_the_command_line_leaves_with_code_2_and_one_line(world):
    culprit, names = spoil(world, "missing file")
    done = forks.python(REPOSITORY / "mgfn/main.py", *world.options(), cwd=world.root, environment=os.environ)
    assert_refuses(done, culprit, names)
    assert done.stderr.startswith("main.py: ")

"""TriDet's scripts as a user runs them, on made-up features: what they print and write, and what they refuse."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import pickle
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
import torch
import yaml
from conftest import REPOSITORY, WIDTH, Study
from refusals import assert_refuses
from thumos_world import CLASSES, write_world

from splavu.anonymizers import build_anonymizer, one_by_one
from splavu.runtime.checkpoints import RESUMABLE
from tridet import cli
from tridet import config as configuration
from tridet import eval as eval_script
from tridet import train as train_script
from tridet.average_precision import Segments, mean_average_precision
from tridet.checkpoints import newest
from tridet.detector import TriDet
from tridet.thumos14 import ground_truth

LAST = "epoch_011.pth.tar"  # of 12 epochs


@pytest.fixture
def world(tmp_path):
    return write_world(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A world with a run called `raw`, trained in a process of its own."""
    world = write_world(tmp_path_factory.mktemp("world"))
    done = script(world, "train.py", world.config, "--output", "raw", "-c", "2", "-p", "2", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    return world, done


@pytest.fixture
def command(monkeypatch, capsys):
    """`command(script, *args)`: a script's command line in this process, for one of its own takes seconds to start."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def run(module, *args):
        line = [f"{module.__name__.split('.')[-1]}.py", "--device", "cpu", *map(str, args)]
        monkeypatch.setattr(sys, "argv", line)
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.run(module.main)
        return subprocess.CompletedProcess(line, left.value.code, *capsys.readouterr())

    yield run
    for handler in list(root.handlers):
        root.removeHandler(handler)
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)


@pytest.fixture
def train(command):
    return functools.partial(command, train_script)


@pytest.fixture
def evaluated(command):
    return functools.partial(command, eval_script)


def script(world, name, *args):
    """A script in a process of its own, started in another folder than the repository's."""
    return Study(world.root).script(f"tridet/{name}", *map(str, args))


def read(path):
    return torch.load(path, weights_only=True)


def same(first, second):
    """Whether nested dictionaries and lists of tensors and numbers agree in every bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def same_training(first, second):
    """Whether two checkpoints agree in everything but what they were told of their data."""
    kept = ("epoch", "state_dict", "state_dict_ema", "optimizer", "scheduler", "loss_normaliser")
    return all(same(first[key], second[key]) for key in kept)


def records(folder):
    """metrics.jsonl."""
    return list(map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()))


def detections(evaluated, world, checkpoint, *args):
    """What --saveonly writes."""
    done = evaluated(world.config, checkpoint, "--saveonly", "--quiet", *args)
    assert done.returncode == 0, done.stderr
    path = checkpoint.parent / "eval_results.pkl" if checkpoint.is_file() else checkpoint / "eval_results.pkl"
    assert done.stdout == f"{path}\n"
    found = pickle.loads(path.read_bytes())
    path.unlink()
    return {name: np.asarray(column) for name, column in found.items()}


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_a_run_folder_holds_what_the_public_one_does_and_what_a_reader_needs(trained):
    world, done = trained
    run = world.run("raw")
    assert done.stdout == f"{run / LAST}\n"
    names = {path.name for path in run.iterdir()}
    # Published: after an epoch past the first whose number the frequency divides, and after the last.
    epochs = {f"epoch_{epoch:03d}.pth.tar" for epoch in (2, 4, 6, 8, 10, 11)}
    assert names == epochs | {"config.txt", "params.json", "versions.json", "metrics.jsonl", "tensorboard", RESUMABLE}
    content = read(run / LAST)
    assert {"epoch", "state_dict", "state_dict_ema", "optimizer", "scheduler"} <= content.keys()
    assert content["epoch"] == 11
    assert all(name.startswith("module.") for name in content["state_dict"])
    assert not same(content["state_dict"], content["state_dict_ema"])
    config = configuration.load(world.config)
    expected = json.loads(json.dumps(configuration.to_dict(config)))
    params = json.loads((run / "params.json").read_text())
    engine = expected.pop("engine")
    assert params.pop("config") == expected
    assert {name: params[name] for name in engine} == engine
    told = {"clip_norm": 1.0, "ema_decay": 0.9, "num_epochs": 12, "seed": expected["init_rand_seed"]}
    assert {name: params[name] for name in told} == told
    assert "'embd_dim': 32" in (run / "config.txt").read_text()
    assert json.loads((run / "versions.json").read_text())["torch"] == torch.__version__
    history = records(run)
    assert [line["step"] for line in history] == list(range(12))  # epochs
    assert history[-1]["loss/total"] < history[0]["loss/total"]
    assert {"step", "loss/cls", "loss/reg", "loss/total", "learning_rate"} == history[0].keys()
    for figures in ("8 videos", "4 steps", "12 epochs", "0 of 25 actions"):
        assert figures in done.stderr


def test_evaluation_prints_the_average_last_and_finds_the_actions(trained):
    world, _ = trained
    done = script(world, "eval.py", world.config, world.run("raw"), "--device", "cpu", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    *each, average = done.stdout.splitlines()
    per_tiou = {}
    for line in each:
        tiou, value = re.fullmatch(r"mAP at tIoU (\d\.\d\d): +(\d+\.\d\d) %", line).groups()
        per_tiou[tiou] = float(value)
    assert list(per_tiou) == ["0.30", "0.40", "0.50", "0.60", "0.70"]
    figure = float(re.fullmatch(r"average mAP: (\d+\.\d\d) %", average)[1])
    assert figure > 75
    assert figure == pytest.approx(np.mean(list(per_tiou.values())), abs=0.011)  # all are rounded to two digits
    judged = json.loads((world.run("raw") / "results.json").read_text())["tad"]
    assert (judged["checkpoint"], judged["split"], judged["videos"], judged["aam"]) == (LAST, "test", 4, None)
    assert {tiou: round(100 * value, 2) for tiou, value in judged["map"].items()} == per_tiou
    assert sorted(judged["ap"]) == sorted(CLASSES)
    # Classes count alike: the mean of their average precisions is the mAP.
    np.testing.assert_allclose(np.mean(list(judged["ap"].values()), axis=0), list(judged["map"].values()))


def test_actions_called_by_the_other_class_are_not_found(trained, evaluated):
    world, _ = trained
    text = world.annotations.read_text()
    for old, new in (("Jump", "?"), ("Run", "Jump"), ("?", "Run"), ('_id": 0', '_id": ?'), ('_id": 1', '_id": 0')):
        text = text.replace(old, new)
    (world.root / "exchanged.json").write_text(text.replace('_id": ?', '_id": 1'))
    exchanged = ["--set", f"dataset.json_file={world.root / 'exchanged.json'}"]
    done = evaluated(world.config, world.run("raw"), "--quiet", *exchanged)
    assert float(re.search(r"average mAP: (\S+) %", done.stdout)[1]) < 15


def test_saved_detections_are_those_that_are_judged(trained, evaluated):
    world, _ = trained
    found = detections(evaluated, world, world.run("raw"))
    assert list(found) == ["video-id", "t-start", "t-end", "label", "score"]
    assert (found["t-start"] <= found["t-end"]).all()
    table = Segments(
        found["video-id"], np.stack([found["t-start"], found["t-end"]], axis=1), found["label"], found["score"]
    )
    annotations = eval_script.ThumosDataset(
        configuration.load(world.config).dataset, ["test"], training=False
    ).annotations
    figure = mean_average_precision(ground_truth(annotations, "test"), table).average
    assert f"average mAP: {100 * figure:.2f} %" in evaluated(world.config, world.run("raw")).stdout


def test_topk_keeps_the_best_of_each_video(trained, evaluated):
    world, _ = trained
    every, few = (detections(evaluated, world, world.run("raw"), *args) for args in ((), ("--topk", "2")))
    assert Counter(few["video-id"]) == dict.fromkeys(np.unique(every["video-id"]), 2)
    for video in np.unique(every["video-id"]):
        best = np.sort(every["score"][every["video-id"] == video])[-2:]
        np.testing.assert_array_equal(np.sort(few["score"][few["video-id"] == video]), best)


def test_batches_of_videos_change_no_detection(trained, evaluated):
    world, _ = trained
    alone, together = (detections(evaluated, world, world.run("raw"), *args) for args in ((), ("--batch-size", "3")))
    assert list(alone["video-id"]) == list(together["video-id"])
    for name in ("t-start", "t-end", "score"):
        np.testing.assert_allclose(alone[name], together[name], atol=1e-3)  # sums in another order


@pytest.mark.long(reason="a command is killed over and over")
def test_killed_at_a_random_moment_and_started_again_equals_uninterrupted(trained):
    world, _ = trained
    run, whole = world.run("killed"), world.run("raw")
    args = [world.config, "--output", "killed", "-c", "2", "-p", "2", "--device", "cpu", "--quiet"]
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "tridet/train.py"), *map(str, args)],
        env=Study(world.root).environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not (run / "metrics.jsonl").is_file():
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.3))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it finished before it could be killed"
    done = script(world, "train.py", *args)
    assert (done.returncode, done.stdout) == (0, f"{run / LAST}\n")
    assert same_training(read(run / LAST), read(whole / LAST))
    assert records(run) == records(whole)
    assert {path.name for path in run.glob("epoch*")} == {path.name for path in whole.glob("epoch*")}


@pytest.mark.parametrize("steps", [3, 30])
def test_interrupted_before_and_after_a_checkpoint_it_says_how_to_go_on(trained, train, monkeypatch, steps):
    world, _ = trained
    args = [world.config, "--output", f"interrupted{steps}", "-c", "2", "-p", "2", "--quiet"]
    objective, calls = train_script.DetectorTrainer.objective, []

    def impatient(trainer, videos):
        if len(calls) == steps:
            raise KeyboardInterrupt
        return counted(trainer, videos)

    def counted(trainer, videos):
        calls.append(len(videos))
        return objective(trainer, videos)

    monkeypatch.setattr(train_script.DetectorTrainer, "objective", impatient)
    done = train(*args)
    way_on = "" if steps == 3 else "; run the same command to go on"  # said only where something is kept
    assert (done.returncode, done.stderr) == (130, f"interrupted{way_on}\n")
    run = world.run(f"interrupted{steps}")
    assert (newest(run) is None) is (steps == 3)
    calls.clear()
    monkeypatch.setattr(train_script.DetectorTrainer, "objective", counted)
    assert train(*args).returncode == 0
    assert len(calls) == 4 * (12 - steps // 4)  # an epoch is four steps, and each is a point to go on from
    assert same_training(read(run / LAST), read(world.run("raw") / LAST))
    assert records(run) == records(world.run("raw"))


def test_a_finished_run_is_not_trained_again_and_resume_goes_back(trained, train):
    world, _ = trained
    run = world.run("raw")
    before, written = records(run), (run / LAST).stat().st_mtime_ns
    done = train(world.config, "--output", "raw", "--quiet")
    assert (done.returncode, done.stdout) == (0, f"{run / LAST}\n")
    assert records(run) == before
    assert (run / LAST).stat().st_mtime_ns == written
    done = train(
        world.config, "--output", "raw", "--resume", run / "epoch_008.pth.tar", "-c", "2", "-p", "2", "--quiet"
    )
    assert done.stdout == f"{run / LAST}\n"
    assert records(run) == before
    assert (run / LAST).stat().st_mtime_ns > written


def test_a_run_without_its_resumable_checkpoint_goes_on_from_the_last_epoch_that_there_is(trained, train):
    """As runs of older versions are; also a copy of the public release's checkpoint."""
    world, _ = trained
    run, whole = world.run("older"), world.run("raw")
    run.mkdir()
    for name in ("epoch_008.pth.tar", "metrics.jsonl"):
        (run / name).write_bytes((whole / name).read_bytes())
    (run / "params.json").write_text(json.dumps({"opt": {}, "aam": "other.pth"}))
    args = [world.config, "--output", "older", "-c", "2", "--quiet"]
    assert_only_refuses(train(*args), run, ("aam = 'other.pth'", "None"))
    (run / "params.json").unlink()
    done = train(*args)
    assert (done.returncode, done.stdout) == (0, f"{run / LAST}\n")
    assert {path.name for path in run.glob("epoch*")} == {f"epoch_{epoch:03d}.pth.tar" for epoch in (8, 10, 11)}
    assert same_training(read(run / LAST), read(whole / LAST))
    assert records(run) == records(whole)
    (run / RESUMABLE).unlink()
    written = (run / LAST).stat().st_mtime_ns
    assert train(*args).stdout == f"{run / LAST}\n"
    assert (run / LAST).stat().st_mtime_ns == written


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_nearly_the_same_training(trained, train, evaluated, precision):
    world, _ = trained
    done = train(world.config, "--output", precision, "--quiet", "--set", f"engine.precision={precision}")
    assert done.returncode == 0, done.stderr
    half, single = (records(world.run(name))[0]["loss/total"] for name in (precision, "raw"))
    assert half != single
    assert half == pytest.approx(single, rel=0.02)
    content = read(world.run(precision) / LAST)
    assert {value.dtype for value in content["state_dict"].values()} == {torch.float32}
    figure = re.search(r"average mAP: (\S+) %", evaluated(world.config, world.run(precision)).stdout)[1]
    assert float(figure) > 75


def test_accumulated_batches_make_one_update_and_the_schedule_knows(trained, train):
    world, _ = trained
    done = train(world.config, "--output", "accumulated", "--quiet", "--set", "engine.accumulate=3")
    assert done.returncode == 0, done.stderr
    scheduler = read(world.run("accumulated") / LAST)["scheduler"]
    assert scheduler["last_epoch"] == scheduler["max_epochs"] == 12 * 2  # three batches, then the fourth
    again = train(world.config, "--output", "accumulated", "--quiet", "--set", "engine.accumulate=2")
    assert_only_refuses(again, world.run("accumulated"), ("accumulate = 3", "2"))


def test_several_processes_are_refused(world, train, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert_only_refuses(train(world.config, "--output", "x"), "tridet/train.py", "torchrun")
    assert not world.runs.exists()


def test_restart_trains_anew_with_what_another_run_would_refuse(world, train):
    first = train(world.config, "--output", "x", "--set", "opt.early_stop_epochs=3", "-c", "1", "--quiet")
    assert first.returncode == 0
    run, other = world.run("x"), ["--set", "opt.early_stop_epochs=2"]
    before = {path.name: path.read_bytes() for path in run.glob("*.*")}
    assert_refuses(
        train(world.config, "--output", "x", "--quiet", *other), run, ("config.opt.early_stop_epochs = 3", "2")
    )
    faulty = train(world.config, "--output", "x", "--quiet", "--restart", "--set", "train_split=[vaildation]")
    assert_refuses(faulty, "thumos14.json", "vaildation")
    assert {path.name: path.read_bytes() for path in run.glob("*.*")} == before  # only sound input replaces a run
    assert train(world.config, "--output", "x", "--quiet", "--restart", *other).returncode == 0
    assert [path.name for path in run.glob("epoch*")] == ["epoch_001.pth.tar"]
    assert [line["step"] for line in records(run)] == [0, 1]
    content = read(run / RESUMABLE)
    assert (content["epoch"], content["params"]["num_epochs"]) == (2, 2)


def test_looking_at_the_test_split_changes_no_weight(trained, train):
    world, _ = trained
    done = train(world.config, "--output", "watched", "--eval-freq", "5", "--quiet")
    assert done.returncode == 0
    assert same_training(read(world.run("watched") / LAST), read(world.run("raw") / LAST))
    name = "test/average_map"
    watched = {line["step"]: line[name] for line in records(world.run("watched")) if name in line}
    assert list(watched) == [4, 9, 11]
    assert watched[11] > watched[4]


def test_without_a_name_the_run_is_called_by_the_time(world, train):
    assert train(world.config, "--set", "opt.early_stop_epochs=1", "--quiet").returncode == 0
    (folder,) = world.runs.iterdir()
    assert re.fullmatch(r"small_\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", folder.name)


@pytest.fixture
def aam(tmp_path):
    """`aam(arch)`: a checkpoint of an anonymizer, the identity unless told otherwise."""

    def write(arch, identity=True, width=WIDTH):
        torch.manual_seed(0)
        network = build_anonymizer(arch, width, identity=identity).eval()
        path = tmp_path / f"{arch}{identity}{width}.pth"
        torch.save({"fa_model_state_dict": network.state_dict(), "fa_architecture": network.architecture}, path)
        return path, network

    return write


@pytest.mark.parametrize("arch", ["transformer", "mlp"])
def test_an_anonymizer_that_does_nothing_changes_nothing(trained, evaluated, aam, arch):
    world, _ = trained
    raw = detections(evaluated, world, world.run("raw"))
    for serving in ("video", "alone"):
        assert_equal(
            detections(evaluated, world, world.run("raw"), "--aam", aam(arch)[0], "--aam-serving", serving), raw
        )


def test_training_through_an_anonymizer_that_does_nothing_is_training_on_raw_features(trained, train, aam):
    world, _ = trained
    path, _ = aam("mlp")
    assert train(world.config, "--output", "identity", "--aam", path, "--quiet").returncode == 0
    assert same_training(read(world.run("identity") / LAST), read(world.run("raw") / LAST))
    params = json.loads((world.run("identity") / "params.json").read_text())
    assert (params["aam"], params["aam_serving"]) == (str(path), "video")
    torch.save({**torch.load(path), "epoch": 1}, path)  # another file of the same name
    changed = train(world.config, "--output", "identity", "--aam", path, "--quiet")
    assert_refuses(changed, world.run("identity"), "aam_sha256 = ")


def test_an_anonymizer_that_does_something_is_named_with_its_result(trained, evaluated, aam):
    world, _ = trained
    path, _ = aam("mlp", identity=False)
    raw = detections(evaluated, world, world.run("raw"))
    safe = detections(evaluated, world, world.run("raw"), "--aam", path)
    assert len(raw["score"]) != len(safe["score"]) or (raw["score"] != safe["score"]).any()
    assert evaluated(world.config, world.run("raw"), "--aam", path, "--aam-serving", "alone").returncode == 0
    judged = json.loads((world.run("raw") / "results_other_features.json").read_text())["tad"]
    assert (judged["aam"], judged["aam_serving"]) == (str(path), "alone")
    assert evaluated(world.config, world.run("raw")).returncode == 0
    own = json.loads((world.run("raw") / "results.json").read_text())["tad"]
    assert (own["aam"], own["aam_serving"]) == (None, None)


def test_a_released_folder_is_read_as_serving_alone_would_make_it(trained, evaluated, train, aam, tmp_path):
    world, _ = trained
    path, network = aam("transformer", identity=False)
    released = tmp_path / "released"
    released.mkdir()
    for file in world.features.glob("*.npy"):
        with torch.no_grad():
            np.save(released / file.name, one_by_one(network, torch.from_numpy(np.load(file))).numpy())
    folder = ["--set", f"dataset.feat_folder={released}"]
    alone = detections(evaluated, world, world.run("raw"), "--aam", path, "--aam-serving", "alone")
    assert_equal(detections(evaluated, world, world.run("raw"), *folder), alone)
    video = detections(evaluated, world, world.run("raw"), "--aam", path)
    assert len(video["score"]) != len(alone["score"]) or (video["score"] != alone["score"]).any()
    short = ["--quiet", "--set", "opt.early_stop_epochs=1"]
    assert train(world.config, "--output", "released", *short, *folder).returncode == 0
    assert train(world.config, "--output", "alone", *short, "--aam", path, "--aam-serving", "alone").returncode == 0
    first, second = (read(world.run(name) / "epoch_000.pth.tar") for name in ("released", "alone"))
    assert same_training(first, second)


def write_video(path, *, seconds, size=64):
    """A moving pattern at 16 frames a second."""
    av = pytest.importorskip("av")
    still = np.random.default_rng(0).integers(0, 255, (8, 8, 3)).astype(np.uint8).repeat(size // 8, 0)
    still = still.repeat(size // 8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=16)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for number in range(16 * seconds):
            frame = np.ascontiguousarray(np.roll(still, number, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def shape_of(path):
    """Height and width of a PNG that can be read."""
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    return imread(path).shape[:2]


def test_pictures_of_some_videos_with_their_frames(trained, evaluated, tmp_path):
    pytest.importorskip("matplotlib")
    world, _ = trained
    timelines = world.run("raw") / "timelines"
    plain = evaluated(world.config, world.run("raw"), "--pictures", "2", "--quiet")
    names = ["video_test_0000001.png", "video_test_0000004.png"]  # spread over the four
    assert plain.stdout.splitlines()[:2] == [str(timelines / name) for name in names]
    assert plain.stdout.splitlines()[-1].startswith("average mAP: ")
    without = shape_of(timelines / names[0])
    missing = evaluated(world.config, world.run("raw"), "--pictures", "1", "--videos", tmp_path, "--quiet")
    assert_refuses(missing, tmp_path / "video_test_0000001.mp4")
    write_video(tmp_path / "video_test_0000001.mp4", seconds=3)
    shown = evaluated(world.config, world.run("raw"), "--pictures", "1", "--videos", tmp_path, "--quiet")
    assert shown.returncode == 0, shown.stderr
    assert shape_of(timelines / names[0]) > without  # a row of frames more


def test_a_video_of_unknown_duration_is_drawn_to_its_last_feature(trained, evaluated, monkeypatch):
    pytest.importorskip("matplotlib")
    world, _ = trained
    content = json.loads(world.annotations.read_text())
    length = content["database"]["video_test_0000001"].pop("duration")
    path = world.root / "endless.json"
    path.write_text(json.dumps(content))
    drawn = []

    def note(path, **options):
        drawn.append(options["duration"])
        return path

    monkeypatch.setattr(eval_script, "draw_timeline", note)
    done = evaluated(world.config, world.run("raw"), "--pictures", "1", "--set", f"dataset.json_file={path}")
    assert done.returncode == 0, done.stderr
    assert drawn == [length]  # a feature is a second


def test_one_call_from_a_video_to_detections_and_a_picture(trained):
    for needed in ("cv2", "av", "transformers", "matplotlib"):
        pytest.importorskip(needed)
    world, _ = trained
    write_video(world.root / "clip.mp4", seconds=12)
    done = script(
        world, "eval.py", world.config, world.run("raw"), "--video", "clip.mp4", "--encoder", "demo", "--out", "c.png"
    )
    assert done.returncode == 0, done.stderr
    first, *found, note, drawn = done.stdout.splitlines()
    count = int(re.fullmatch(r"clip.mp4: 12 features, 12.0 s, (\d+) detections", first)[1])
    assert len(found) == min(count, 10)
    scores = []
    for line in found:
        start, end, name, score = re.fullmatch(r" +([\d.]+) - +([\d.]+) s   (\w+) +([\d.]+)", line).groups()
        assert 0 <= float(start) <= float(end) <= 12
        assert name in CLASSES
        scores.append(float(score))
    assert scores == sorted(scores, reverse=True)
    assert note.startswith("note: the demo encoder knows the synthetic world only")
    assert drawn == "c.png"
    assert min(shape_of(world.root / "c.png")) > 100


@pytest.mark.parametrize("name", ["highjump", "tennis26"])
def test_real_clips_pass_without_an_error(trained, evaluated, shared, aam, name):
    for needed in ("cv2", "av", "transformers", "matplotlib"):
        pytest.importorskip(needed)
    world, _ = trained
    done = evaluated(
        world.config,
        world.run("raw"),
        "--video",
        shared / f"videos/{name}.mp4",
        "--encoder",
        "demo",
        "--aam",
        aam("mlp")[0],
        "--set",
        "dataset.json_file=null",
    )
    assert done.returncode == 0, done.stderr
    truth = json.loads((shared / "videos/ground_truth.json").read_text())
    seconds = float(re.match(rf"{name}.mp4: \d+ features, (\S+) s", done.stdout)[1])
    assert seconds > 10, truth
    assert "class 0" in done.stdout or "class 1" in done.stdout  # without annotations nobody names the classes
    assert min(shape_of(world.run("raw") / f"timelines/{name}.png")) > 100


def assert_only_refuses(done, culprit, names=()):
    """Nothing is printed but the line of a refusal, after warnings."""
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(("train.py: ", "eval.py: "))
    assert_refuses(done, culprit, names)


def test_missing_features_are_counted_and_listed_until_none_is_left(world, train):
    short = ["--set", "opt.early_stop_epochs=1", "--quiet"]
    for number in (2, 5):
        (world.features / f"video_validation_{number:07d}.npy").unlink()
    done = train(world.config, "--output", "some", *short)
    assert done.returncode == 0
    assert re.search(r"\b2 of 8\b.*\bvalidation\b.*\(video_validation_0000002, video_validation_0000005\)", done.stderr)
    for path in world.features.glob("video_validation_*"):
        path.unlink()
    assert_only_refuses(train(world.config, "--output", "none", *short), world.features, ("8", "validation"))
    assert not world.run("none").exists()


def test_annotations_outside_their_video_are_kept_and_counted(world, train):
    for number in (1, 2):
        action = {"segment": [20.0, 1000.0 * number], "label": "Run", "label_id": 1}
        world.annotate(f"video_validation_{number:07d}", [action])
    done = train(world.config, "--output", "x", "--set", "opt.early_stop_epochs=1")
    assert done.returncode == 0
    assert re.search(r"\b2 annotations of 2 videos\b.*\(video_\S+1, \S+2\)", done.stderr)
    assert "of 20 actions" in done.stderr  # 25 less those of the two videos, which are one each now


def spoil(world, what):
    """Make one thing wrong; returns what to add to the command line, the culprit and what the line must name."""
    features = world.features / "video_validation_0000003.npy"
    if what == "wrong width":
        np.save(features, np.load(features)[:, :100])
        return [], "video_validation_0000003.npy", ("100", "dataset.input_dim", "192")
    if what == "NaN":
        array = np.load(features)
        array[4, 7] = np.nan
        np.save(features, array)
        return [], "video_validation_0000003.npy", ("1 of ", "row 4")
    if what == "empty segment":
        world.annotate("video_validation_0000003", [{"segment": [5.0, 5.0], "label": "Run", "label_id": 1}])
        return [], f"{world.annotations}: video_validation_0000003: annotation 0", "[5.0, 5.0]"
    if what == "unknown key":
        world.config.write_text(world.config.read_text().replace("embd_dim", "embed_dim"))
        return [], "small.yaml", ("'model.embed_dim'", "'embd_dim'")
    if what == "no configuration":
        world.config.unlink()
        return [], "small.yaml", ()
    if what == "checkpoint of another configuration":
        config = configuration.load(world.config)
        other = TriDet(dataclasses.replace(config, model=dataclasses.replace(config.model, head_dim=48)))
        content = {"epoch": 0, "state_dict": other.state_dict(), "state_dict_ema": other.state_dict()}
        torch.save(content | {"optimizer": {}, "scheduler": {}}, world.root / "other.pth.tar")
        return ["--resume", world.root / "other.pth.tar"], "other.pth.tar", "(32, 32, 3)"
    if what == "checkpoint with code":
        torch.save({"state_dict": subprocess.Popen}, world.root / "evil.pth.tar")
        return ["--resume", world.root / "evil.pth.tar"], "evil.pth.tar", ()
    if what == "missing checkpoint":
        return ["--resume", world.root / "epoch_001.pth.tar"], "epoch_001.pth.tar", ()
    if what == "no output folder":
        return ["--set", "output_folder=null"], "small.yaml", "output_folder"
    return {
        "override without sign": (["--set", "opt.epochs"], "--set opt.epochs", "'='"),
        "override of a value": (
            ["--set", "opt.epochs=3", "--set", "opt.epochs.x=3"],
            "--set opt.epochs.x=3",
            "'epochs'",
        ),
        "override that is no YAML": (["--set", "opt.epochs=[3"], "--set opt.epochs=[3", ()),
        "precision that there isn't": (["--set", "engine.precision=int8"], "small.yaml", "engine.precision"),
        "update that never comes": (["--set", "engine.accumulate=0"], "engine.accumulate", "0"),
        "override of another type": (["--set", "opt.epochs=many"], "small.yaml", ("opt.epochs", "'many'")),
        "anonymizer that isn't there": (["--aam", "aam.pth"], "aam.pth", ()),
        "batch without end": (["--set", "loader.batch_size=9"], "loader.batch_size", ("9", "8")),
    }[what]


@pytest.mark.parametrize(
    "what",
    [
        "wrong width",
        "empty segment",
        "unknown key",
        "no configuration",
        "checkpoint of another configuration",
        "checkpoint with code",
        "missing checkpoint",
        "no output folder",
        "override without sign",
        "override of a value",
        "override that is no YAML",
        "precision that there isn't",
        "update that never comes",
        "override of another type",
        "anonymizer that isn't there",
        "batch without end",
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(world, train, what):
    args, culprit, names = spoil(world, what)
    assert_only_refuses(train(world.config, "--output", "x", *args), culprit, names)
    assert not world.runs.exists()


def test_a_feature_that_is_no_number_stops_before_a_checkpoint(world, train):
    _, culprit, names = spoil(world, "NaN")
    assert_only_refuses(train(world.config, "--output", "x", "--quiet"), culprit, names)
    assert newest(world.run("x")) is None
    assert not list(world.run("x").glob(".*"))


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"loader.batch_size": 4}, r"loss term '\w+': .*\bstep 2 of epoch 1\b"),
        ({"loader.batch_size": 8}, r"weight 'backbone\S+' of tridet: .*\bepoch 1\b"),
    ],
)
def test_what_is_not_finite_is_never_saved(world, train, changes, culprit):
    """In an epoch of two steps it shows in the loss; after one step the loss was finite, the weights aren't."""
    changes = {"opt.type": "SGD", "opt.learning_rate": 1e38, "opt.warmup": False, **changes}
    changes |= {"train_cfg.clip_grad_l2norm": 0, "train_cfg.loss_weight": 1e4}
    flags = [part for name, value in changes.items() for part in ("--set", f"{name}={value}")]
    done = train(world.config, "--output", "x", "-c", "1", "--quiet", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.match(rf"train\.py: {culprit}", done.stderr.splitlines()[-1])
    assert newest(world.run("x")) is None
    assert not (world.run("x") / RESUMABLE).exists()


def test_evaluation_refuses_what_does_not_fit(trained, evaluated, aam, world):
    fitting, _ = trained
    checkpoint = fitting.run("raw") / LAST
    torch.save({"state_dict": subprocess.Popen}, world.root / "evil.pth.tar")
    faulty = yaml.safe_load(fitting.config.read_text())
    faulty["model"] |= {"head_dim": 48}
    other, (wide, _) = world.root / "other.yaml", aam("mlp", width=64)
    other.write_text(yaml.safe_dump(faulty))
    cases = [
        ([other, checkpoint], checkpoint, "model.head_dim = 32"),
        ([fitting.config, world.root / "evil.pth.tar"], world.root / "evil.pth.tar", ()),
        ([fitting.config, world.root / "none.pth.tar"], world.root / "none.pth.tar", ()),
        ([fitting.config, world.features], world.features, "epoch_NNN.pth.tar"),
        ([fitting.config, checkpoint, "--set", "topk"], "--set topk", "'='"),
        ([fitting.config, checkpoint, "--aam", wide], wide, ("64", "192")),
        ([fitting.config, checkpoint, "--set", "val_split=[tset]"], fitting.annotations, ("'tset'", "'test")),
    ]
    before = {path: path.stat().st_mtime_ns for path in fitting.run("raw").rglob("*")}
    for args, culprit, names in cases:
        assert_only_refuses(evaluated(*args), culprit, names)
    assert {path: path.stat().st_mtime_ns for path in fitting.run("raw").rglob("*")} == before


def test_a_video_that_cannot_be_read(trained, evaluated, tmp_path):
    for needed in ("cv2", "av", "transformers"):
        pytest.importorskip(needed)
    world, _ = trained
    (tmp_path / "torn.mp4").write_bytes(b"no video")
    cases = [
        (["--video", tmp_path / "none.mp4"], "none.mp4", ()),
        (["--video", tmp_path / "torn.mp4"], "torn.mp4", ()),
        (["--video", tmp_path / "torn.mp4", "--encoder", "dmeo"], "encoder 'dmeo'", "'demo'"),
        (["--video", tmp_path / "torn.mp4", "--set", "dataset.json_file=3"], world.config, "dataset.json_file"),
    ]
    for args, culprit, names in cases:
        done = evaluated(world.config, world.run("raw"), "--encoder", "demo", *args)
        assert_only_refuses(done, culprit, names)
    assert not list(world.run("raw").glob("timelines/torn*"))


def test_the_exit_code_of_a_process(world):
    done = script(world, "train.py", world.config, "--output", "x", "--device", "nonsense")
    assert_refuses(done, "--device", ("'nonsense'", "auto", "cpu"))
    assert done.stderr.startswith("train.py: ")
    assert not world.runs.exists()


def test_help_teaches(evaluated):
    shown = evaluated("--help")
    assert shown.returncode == 0
    for word in ("--topk", "--saveonly", "--aam-serving", "--pictures", "--video", "Exit codes"):
        assert word in shown.stdout

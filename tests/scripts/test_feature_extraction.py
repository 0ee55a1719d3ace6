"""`feature_extraction_action.py` as a user runs it, on small videos and a random VideoMAE."""

from __future__ import annotations

import csv
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import forks
import h5py
import numpy as np
import pytest
import torch
from refusals import assert_refuses, refused

av = pytest.importorskip("av")
cv2 = pytest.importorskip("cv2")
transformers = pytest.importorskip("transformers")

from feature_extraction.feature_extraction_action import main  # noqa: E402  needs the above
from splavu.stores import FeatureStore  # noqa: E402

SCRIPT = Path(__file__).resolve().parents[2] / "feature_extraction" / "feature_extraction_action.py"
ROUNDING = 1e-4  # features are of order 1; batches differ between runs


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    """A VideoMAE as wide as the demo encoder, of one block and 32 pixels."""
    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(
        image_size=32,
        patch_size=16,
        num_frames=16,
        tubelet_size=4,
        hidden_size=192,
        num_hidden_layers=1,
        num_attention_heads=3,
        intermediate_size=384,
        use_mean_pooling=True,
    )
    folder = tmp_path_factory.mktemp("videomae")
    transformers.VideoMAEForVideoClassification(config).save_pretrained(folder)
    return str(folder)


def write_video(path: Path, num_frames: int, *, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    still = rng.integers(0, 255, (6, 8, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)  # [48, 64, 3]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(num_frames):
            frame = np.ascontiguousarray(np.roll(still, i, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def videos(tmp_path) -> Path:
    folder = tmp_path / "videos"
    for seed, (name, length) in enumerate({"long.mp4": 70, "below/exact.avi": 32, "short.avi": 5}.items()):
        write_video(folder / name, length, seed=seed)
    return folder


def run(*args: object) -> int:
    return main([str(arg) for arg in args] + ["--quiet", "--device", "cpu"])


def test_a_folder_becomes_two_stores_in_one_pass(videos, tmp_path, weights, capsys):
    out = tmp_path / "out.h5"
    assert run("--videos", videos, "--out", out, "--weights", weights, "--static", 10, "--batch-size", 5) == 0
    store, static = FeatureStore(out), FeatureStore(tmp_path / "out_fb10.h5")
    assert {key: store[key].shape for key in store} == {"long": (4, 192), "exact": (2, 192), "short": (1, 192)}
    assert {key: static[key].shape for key in static} == dict.fromkeys(("long", "exact", "short"), (10, 192))
    store.verify()
    static.verify()
    for name in ("encoder", "weights_sha256", "preprocessing", "decoder", "decoding", "splavu_version", "clip_rule"):
        assert store.attributes[name]
    assert "demo" in capsys.readouterr().out


def test_features_are_those_of_the_encoder_called_by_hand(videos, tmp_path, weights):
    run(
        "--videos", videos, "--out", tmp_path / "o.h5", "--weights", weights, "--static", 3, "--static-augment", "never"
    )
    model = transformers.VideoMAEForVideoClassification.from_pretrained(weights).eval()
    with av.open(str(videos / "long.mp4")) as container:
        frames = torch.from_numpy(np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)]))
    pixels = torch.nn.functional.interpolate(  # the demo's short side is its crop: 32 of 48 rows, 42 of 64 columns
        frames.permute(0, 3, 1, 2).float(), size=(32, 42), mode="bilinear", antialias=True
    )[..., 5:37]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (pixels / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)  # [n, 3, 32, 32]

    def feature(clip):  # [16, 3, 32, 32] -> [192]
        with torch.no_grad():
            return model.fc_norm(model.videomae(clip[None]).last_hidden_state.mean(1))[0].numpy()

    store, static = FeatureStore(tmp_path / "o.h5"), FeatureStore(tmp_path / "o_fb3.h5")
    # The script rounds resized pixels to whole levels, this test does not.
    for i in range(4):
        np.testing.assert_allclose(store["long"][i], feature(pixels[16 * i : 16 * i + 16]), atol=0.03)
    for row, index in enumerate((0, 34, 69)):
        tiled = pixels[index].expand(16, -1, -1, -1)
        np.testing.assert_allclose(static["long"][row], feature(tiled), atol=0.03)
    assert np.abs(store["long"][0] - static["long"][0]).max() > 0.1  # so the tolerance tells clips apart


def test_features_of_another_decoding_are_not_mixed(videos, tmp_path, weights):
    """A store of before: its videos were left as stored, in the colours of BT.601. A shard writes as any other run."""
    out = tmp_path / "out.h5"
    assert run("--videos", videos / "below", "--out", out, "--weights", weights) == 0
    with h5py.File(out, "a") as file:
        del file.attrs["decoding"]
    before = out.read_bytes()
    for more in ((), ("--shard", "0/2")):
        with refused(out, naming="decoding"):
            run("--videos", videos, "--out", out, "--weights", weights, *more)
    assert out.read_bytes() == before


def test_augmented_static_clips_repeat_with_the_seed(videos, tmp_path, weights):
    def static(name, *args):
        run("--videos", videos, "--out", tmp_path / f"{name}.h5", "--weights", weights, "--static", 4, *args)
        return FeatureStore(tmp_path / f"{name}_fb4.h5")["long"]

    first, again, other = static("a"), static("b", "--workers", 1, "--batch-size", 3), static("c", "--seed", 1)
    np.testing.assert_allclose(first, again, atol=ROUNDING)
    assert np.abs(first - other).max() > 100 * ROUNDING


def test_decoders_agree(videos, tmp_path, weights):
    pytest.importorskip("decord")
    stores = []
    for backend in ("pyav", "decord"):
        run("--videos", videos, "--out", tmp_path / f"{backend}.h5", "--weights", weights, "--backend", backend)
        stores.append(dict(FeatureStore(tmp_path / f"{backend}.h5")))
    for key in stores[0]:
        np.testing.assert_allclose(stores[0][key], stores[1][key], atol=1e-3)


def test_one_bad_video_is_reported_and_stops_nothing(videos, tmp_path, weights, capsys):
    (videos / "broken.mp4").write_bytes(b"")
    command = ("--videos", videos, "--out", tmp_path / "o.h5", "--weights", weights)
    assert run(*command) == 1
    assert re.search(r"failed: broken: .*broken\.mp4: ", capsys.readouterr().out)
    assert FeatureStore(tmp_path / "o.h5").keys() == ["exact", "long", "short"]
    write_video(videos / "broken.mp4", 20)
    assert run(*command) == 0
    assert re.search(r"\b3 were there\b", capsys.readouterr().out)
    assert len(FeatureStore(tmp_path / "o.h5")) == 4


@pytest.mark.long(reason="a command is killed over and over")
def test_kill_and_resume_equals_an_uninterrupted_run(tmp_path, weights):
    folder = tmp_path / "videos"
    for i in range(40):
        write_video(folder / f"v{i}.avi", 40 + i, seed=i)
    args = ["--videos", str(folder), "--weights", weights, "--static", "2", "--batch-size", "4", "--quiet"]
    command = [sys.executable, str(SCRIPT), *args, "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = tmp_path / "killed.h5"
    process = subprocess.Popen([*command, str(killed)], env=environment, stdout=subprocess.DEVNULL)
    journal, deadline = tmp_path / "killed.h5.partial", time.monotonic() + 120
    while len(list(journal.glob("*.npz"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert journal.is_dir()
    assert not killed.exists()
    num_parts = len(list(journal.glob("*.npz")))
    resumed = subprocess.run([*command, str(killed)], env=environment, capture_output=True, text=True, check=True)
    assert int(re.search(r"(\d+) were there already", resumed.stdout)[1]) >= num_parts - 2
    assert not journal.exists()
    run(*args[:-1], "--out", tmp_path / "whole.h5")
    for suffix in ("", "_fb2"):
        first, second = FeatureStore(tmp_path / f"killed{suffix}.h5"), FeatureStore(tmp_path / f"whole{suffix}.h5")
        assert first.keys() == second.keys()
        assert first.attributes == second.attributes
        assert len(first) == 40
        for key in first:
            np.testing.assert_allclose(first[key], second[key], atol=ROUNDING)


def test_data_sets_give_the_published_names_keys_and_shapes(tmp_path, weights, capsys):
    data, features = tmp_path / "data", tmp_path / "features"
    for split in ("train", "val", "test"):
        write_video(data / "hmdb51" / "videos" / "wave" / f"{split}_1.avi", 33)
        with (data / "hmdb51" / f"hmdb51_{split}_labels.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("filename", "label"), (f"{split}_1.avi", 0)])
    (data / "vispr").mkdir()
    for split in ("train", "test"):
        folder = data / "vispr" / f"{split}2017"
        folder.mkdir()
        labels = {}
        for i in range(2):
            image = np.random.default_rng(i).integers(0, 255, (50, 70, 3)).astype(np.uint8)
            cv2.imwrite(str(folder / f"2017_{i}.jpg"), image)
            labels[f"2017_{i}"] = np.zeros(7, dtype=np.int64)
        (data / "vispr" / f"{split}_labels.pkl").write_bytes(pickle.dumps(labels))
    where = ("--data", data, "--features", features, "--weights", weights)
    assert run("--dataset", "hmdb51", "--split", "train,val,test", "--static", 10, *where) == 0
    assert run("--dataset", "vispr", *where) == 0
    shapes = {}
    for path in features.iterdir():
        with h5py.File(path) as file:
            shapes[path.name] = {key: value.shape for key, value in file.items()}
    expected = {}
    for split in ("train", "val", "test"):
        expected[f"features_hmdb_{split}_demo.h5"] = {f"{split}_1": (2, 192)}
        expected[f"features_hmdb_{split}_demo_fb10.h5"] = {f"{split}_1": (10, 192)}
    expected["features_vispr_train_demo.h5"] = {f"2017_{i}.jpg": (20, 192) for i in range(2)}
    expected["features_vispr_test_demo.h5"] = {f"2017_{i}.jpg": (192,) for i in range(2)}
    assert shapes == expected
    assert '"augmented": true' in FeatureStore(features / "features_hmdb_train_demo_fb10.h5").attributes["clip_rule"]
    assert '"augmented": false' in FeatureStore(features / "features_hmdb_test_demo_fb10.h5").attributes["clip_rule"]
    (data / "hmdb51" / "videos" / "wave" / "val_1.avi").unlink()
    (features / "features_hmdb_val_demo.h5").unlink()
    write_video(data / "hmdb51" / "videos" / "wave" / "unlabelled.avi", 16)
    assert run("--dataset", "hmdb51", "--split", "val", *where) == 1
    assert re.search(r"failed: val_1: .*val_1\b", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("args", "culprit", "names"),
    [
        ((), "arguments", ("--videos", "--dataset")),
        (("--videos", "nowhere", "--out", "o.h5"), "nowhere", ()),
        (("--videos", "videos"), "--out", ()),
        (("--videos", "videos", "--out", "o.h5", "--split", "train"), "--split", ()),
        (("--dataset", "hmdb51", "--split", "tran"), "--split", ("'tran'", "'train'")),
        (
            ("--videos", "videos", "--out", "o.h5", "--set", "batch_sise=3"),
            "params_feature_ex.py",
            ("'batch_sise'", "'batch_size'"),
        ),
        (("--videos", "videos", "--out", "o.h5", "--encoder", "videomae"), "encoder 'videomae'", "'videoMAE'"),
        (("--videos", "videos", "--out", "o.h5", "--encoder", "i3d"), "encoder 'i3d'", "rgb_imagenet.pt"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(videos, tmp_path, weights, monkeypatch, args, culprit, names):
    monkeypatch.chdir(tmp_path)
    if "--encoder" not in args:
        args = (*args, "--weights", weights)
    with refused(culprit, naming=names):
        run(*args)
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


def test_two_videos_of_one_name_are_refused(videos, tmp_path, weights):
    write_video(videos / "other" / "long.avi", 16)
    with refused("long.avi", naming="long.mp4"):
        run("--videos", videos, "--out", tmp_path / "o.h5", "--weights", weights)


def test_exit_code_of_bad_input(tmp_path):
    command = [SCRIPT, "--videos", tmp_path / "none", "--out", "x.h5", "--backend", "pyav", "--batch-size", "0"]
    finished = forks.python(*command, cwd=tmp_path, environment=os.environ)
    assert_refuses(finished, "--batch-size", "0")


def test_real_videos_give_the_known_clips(shared, tmp_path, weights):
    assert run("--videos", shared / "videos", "--out", tmp_path / "real.h5", "--weights", weights) == 0
    store = FeatureStore(tmp_path / "real.h5")
    assert {key: store.num_rows(key) for key in store} == {"highjump": 45, "tennis26": 21}

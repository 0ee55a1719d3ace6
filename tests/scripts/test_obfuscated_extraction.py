"""`--obfuscate` as a user gives it: the features are those of files that were hidden beforehand, and are kept apart."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from refusals import refused

av = pytest.importorskip("av")
cv2 = pytest.importorskip("cv2")
transformers = pytest.importorskip("transformers")

import config  # noqa: E402  needs the above
from feature_extraction import feature_extraction_action, long_videos  # noqa: E402
from splavu.extraction.encoders import load_encoder  # noqa: E402
from splavu.extraction.obfuscation import downsampled, obfuscation  # noqa: E402
from splavu.extraction.video_features import video_features  # noqa: E402
from splavu.stores import FeatureFolder, FeatureStore  # noqa: E402

ROUNDING = 1e-4  # features are of order 1; batches differ between runs
BOX = (10, 8, 40, 44)  # left, top, right, bottom
LENGTHS = {"long": 70, "short": 5}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    """A VideoMAE as wide as the demo encoder, of one block and 32 pixels."""
    torch.manual_seed(0)
    small = transformers.VideoMAEConfig(
        image_size=32, patch_size=16, num_frames=16, tubelet_size=4, hidden_size=192, num_hidden_layers=1,
        num_attention_heads=3, intermediate_size=384, use_mean_pooling=True,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("videomae")
    transformers.VideoMAEForVideoClassification(small).save_pretrained(folder)
    return str(folder)


def frames_of(key: str) -> np.ndarray:  # [T, 48, 64, 3], never black
    rng = np.random.default_rng(len(key))
    return rng.integers(30, 255, (LENGTHS[key], 48, 64, 3)).astype(np.uint8)


def blackened(frames: np.ndarray) -> np.ndarray:
    left, top, right, bottom = BOX
    hidden = frames.copy()
    hidden[:, top:bottom, left:right] = 0
    return hidden


def write_videos(folder: Path, change=lambda frames: frames) -> Path:
    """Lossless, so that what is decoded is what was written."""
    folder.mkdir(parents=True)
    for key in LENGTHS:
        with av.open(str(folder / f"{key}.mkv"), "w") as container:
            stream = container.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
            for frame in change(frames_of(key)):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    return folder


@pytest.fixture
def boxes(tmp_path) -> Path:
    path, box = tmp_path / "boxes.csv", ",".join(map(str, BOX))
    lines = [f"{key},{frame},{box}" for key, length in LENGTHS.items() for frame in range(length)]
    path.write_text("\n".join(["key,frame,left,top,right,bottom", *lines, f"2017_0.png,0,{box}"]))
    return path


def run(script, *args: object) -> int:
    return script.main([str(arg) for arg in args] + ["--quiet", "--device", "cpu"])


def extracted(script, videos: Path, out: Path, weights: str, *args: object):
    assert run(script, "--videos", videos, "--out", out, "--weights", weights, *args) == 0
    return FeatureStore(out) if out.is_file() else FeatureFolder(out)


def assert_same(first, second) -> None:
    assert first.keys() == second.keys() == sorted(LENGTHS)
    for key in first:
        np.testing.assert_allclose(first[key], second[key], atol=ROUNDING)


@pytest.mark.parametrize("name", ["downsample-4x", "blacken"])
def test_clips_static_clips_and_long_videos_are_those_of_files_hidden_beforehand(tmp_path, weights, boxes, name):
    videos = write_videos(tmp_path / "videos")
    hidden = write_videos(tmp_path / "hidden", blackened if name == "blacken" else lambda f: downsampled(f, 4))
    how = ("--obfuscate", name, *(("--person-boxes", boxes) if name == "blacken" else ()))
    for script, options, suffix in ((feature_extraction_action, ("--static", 3), ".h5"), (long_videos, (), "")):
        stores = [
            extracted(script, videos, tmp_path / f"ours{suffix}", weights, *options, *how),
            extracted(script, hidden, tmp_path / f"before{suffix}", weights, *options),
            extracted(script, videos, tmp_path / f"raw{suffix}", weights, *options),
        ]
        assert_same(stores[0], stores[1])
        assert np.abs(stores[0]["long"] - stores[2]["long"]).max() > 100 * ROUNDING
        assert stores[0].attributes["obfuscation"].startswith(name)
        assert "obfuscation" not in stores[2].attributes
    assert_same(FeatureStore(tmp_path / "ours_fb3.h5"), FeatureStore(tmp_path / "before_fb3.h5"))


@pytest.mark.parametrize("name", ["downsample-4x", "blacken"])
def test_one_video_is_hidden_as_a_folder_is(tmp_path, weights, boxes, name):
    videos, encoder = write_videos(tmp_path / "videos"), load_encoder("demo", weights)
    with_boxes = {"person_boxes": str(boxes)} if name == "blacken" else {}
    how = ("--obfuscate", name, *(("--person-boxes", boxes) if with_boxes else ()))
    folder = extracted(long_videos, videos, tmp_path / "out", weights, *how)
    (path,) = videos.rglob("long.*")
    hidden = video_features(path, encoder, hide=obfuscation(name, **with_boxes)).features
    np.testing.assert_allclose(hidden, folder["long"], atol=ROUNDING)
    assert np.abs(hidden - video_features(path, encoder).features).max() > 100 * ROUNDING


def test_a_store_of_raw_features_takes_no_hidden_ones(tmp_path, weights, boxes):
    videos = write_videos(tmp_path / "videos")
    for script, out in ((feature_extraction_action, tmp_path / "o.h5"), (long_videos, tmp_path / "o")):
        extracted(script, videos, out, weights)
        for how in (("downsample-2x",), ("blur", "--person-boxes", boxes)):
            with refused(out, naming="obfuscation = None"):
                extracted(script, videos, out, weights, "--obfuscate", *how)


def test_images_are_hidden_before_they_are_cropped_and_stored_in_a_folder_of_their_own(
    tmp_path, weights, boxes, monkeypatch
):
    monkeypatch.setattr(config, "FEATURES", tmp_path / "features")
    image = np.random.default_rng(0).integers(30, 255, (48, 64, 3)).astype(np.uint8)
    stores = []
    for name, content, how in (
        ("raw", image, ("--obfuscate", "blacken", "--person-boxes", boxes)),
        ("hidden", blackened(image[None])[0], ("--obfuscate", "none")),
    ):
        for split in ("train", "test"):
            folder = tmp_path / name / "vispr" / f"{split}2017"
            folder.mkdir(parents=True)
            cv2.imwrite(str(folder / "2017_0.png"), content)
            labels = tmp_path / name / "vispr" / f"{split}_labels.pkl"
            labels.write_bytes(pickle.dumps({"2017_0": np.zeros(7, dtype=np.int64)}))
        where = ("--dataset", "vispr", "--data", tmp_path / name, "--weights", weights)
        assert run(feature_extraction_action, *where, *how, "--set", "num_views=3") == 0
        features = tmp_path / "features" / ("blacken" if name == "raw" else "")
        stores.append([FeatureStore(features / f"features_vispr_{split}_demo.h5") for split in ("train", "test")])
    for ours, before in zip(*stores, strict=True):
        np.testing.assert_allclose(ours["2017_0.png"], before["2017_0.png"], atol=ROUNDING)


def test_a_video_without_boxes_fails_and_is_not_stored_unhidden(tmp_path, weights, boxes, capsys):
    videos = write_videos(tmp_path / "videos")
    boxes.write_text("key,frame,left,top,right,bottom\nshort,,,,,\n")
    command = ("--videos", videos, "--out", tmp_path / "o.h5", "--weights", weights, "--obfuscate", "blacken")
    assert run(feature_extraction_action, *command, "--person-boxes", boxes) == 1
    assert "names no boxes for 'long'" in capsys.readouterr().out
    assert FeatureStore(tmp_path / "o.h5").keys() == ["short"]


def test_bad_arguments_are_told_before_anything_is_written(tmp_path, weights):
    videos = write_videos(tmp_path / "videos")
    command = ("--videos", videos, "--out", tmp_path / "o.h5", "--weights", weights)
    with refused("obfuscate", naming=("'black'", "'blacken'")):
        run(feature_extraction_action, *command, "--set", "obfuscate=black")
    with refused("none.csv"):
        run(feature_extraction_action, *command, "--obfuscate", "blur", "--person-boxes", tmp_path / "none.csv")
    with refused("--person-boxes", naming="'none'"):
        run(long_videos, *command, "--person-boxes", tmp_path / "none.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]

"""`long_videos.py` as a user runs it: rows, strides, crops, resuming, damaged files, and what it refuses."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from refusals import refused

av = pytest.importorskip("av")
cv2 = pytest.importorskip("cv2")
transformers = pytest.importorskip("transformers")

from feature_extraction import feature_extraction_action  # noqa: E402  needs the above
from feature_extraction.long_videos import main  # noqa: E402
from splavu.extraction.encoders import load_encoder  # noqa: E402
from splavu.extraction.extract import Job, extract  # noqa: E402
from splavu.extraction.video_features import video_features  # noqa: E402
from splavu.stores import FeatureFolder, FeatureStore  # noqa: E402

ROOM = Path(__file__).resolve().parents[2] / "feature_extraction"
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


def write_video(path: Path, num_frames: int, *, seed: int = 0, mirrored: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    still = rng.integers(0, 255, (6, 8, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)  # [48, 64, 3]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg" if mirrored else "mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj444p" if mirrored else "yuv420p"
        for i in range(num_frames):
            frame = np.roll(still, i, axis=1)
            if mirrored:
                frame = np.concatenate([frame[:, :32], frame[:, 31::-1]], axis=1)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


@pytest.fixture
def videos(tmp_path) -> Path:
    folder = tmp_path / "videos"
    for seed, (name, length) in enumerate({"long.mp4": 170, "below/exact.avi": 32, "short.avi": 5}.items()):
        write_video(folder / name, length, seed=seed)
    return folder


def run(*args: object) -> int:
    return main([str(arg) for arg in args] + ["--quiet", "--device", "cpu"])


def test_a_row_is_a_clip_and_equals_that_of_the_trimmed_extraction(videos, tmp_path, weights):
    assert run("--videos", videos, "--out", tmp_path / "long", "--weights", weights) == 0
    trimmed = ["--videos", str(videos), "--out", str(tmp_path / "o.h5"), "--weights", weights, "--quiet"]
    assert feature_extraction_action.main([*trimmed, "--device", "cpu"]) == 0
    folder, store = FeatureFolder(tmp_path / "long"), FeatureStore(tmp_path / "o.h5")
    folder.verify()
    assert {key: folder[key].shape for key in folder} == {"long": (10, 192), "exact": (2, 192), "short": (1, 192)}
    for key in store:
        np.testing.assert_allclose(folder[key], store[key], atol=ROUNDING)
    rule = json.loads(folder.attributes["clip_rule"])
    assert rule == {"kind": "consecutive", "frames": 16, "every": 16, "crops": 1}
    for name in ("encoder", "weights_sha256", "preprocessing", "decoder", "splavu_version"):
        assert folder.attributes[name] == store.attributes[name]


def test_what_does_not_fit_its_folder_or_annotations_is_named(tmp_path, weights, capsys):
    """Features of an earlier decoding, and frames that are not shown when their number says."""
    path = tmp_path / "videos" / "paused.mkv"
    path.parent.mkdir()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(40):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * i, np.uint8), format="rgb24")
            picture.pts, picture.time_base = i + 100 * (i >= 20), Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    run_it = functools.partial(run, "--videos", path.parent, "--out", tmp_path / "out", "--weights", weights)
    assert run_it() == 0
    assert re.search(r"note: .*\bpaused \(1\.9 s\)", capsys.readouterr().out)
    described = tmp_path / "out" / "attributes.json"
    attributes = json.loads(described.read_text())
    described.write_text(json.dumps({name: value for name, value in attributes.items() if name != "decoding"}))
    with refused(tmp_path / "out", naming="decoding"):
        run_it()


@pytest.mark.parametrize("stride", [4, 5, 16])
def test_row_t_covers_the_frames_from_stride_times_t_on(videos, weights, stride):
    encoder = load_encoder("demo", weights)
    path = videos / "long.mp4"
    whole = video_features(path, encoder, stride=stride, batch_size=7)
    assert whole.features.shape == ((170 - 16) // stride + 1, 192)
    assert (whole.fps, whole.duration) == (25.0, 170 / 25)
    with av.open(str(path)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    for row in (0, 3, len(whole.features) - 1):
        clip = torch.from_numpy(frames[stride * row : stride * row + 16])  # [16, 48, 64, 3]
        small = torch.nn.functional.interpolate(clip.movedim(-1, 1), size=(32, 42), mode="bilinear", antialias=True)
        pixels = small[..., 5:37].float() / 255
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        with torch.no_grad():
            expected = encoder(((pixels - mean) / std)[None])[0].numpy()
        np.testing.assert_allclose(whole.features[row], expected, atol=ROUNDING)


def test_overlapping_rows_equal_those_without_overlap_where_they_meet(videos, weights):
    encoder = load_encoder("demo", weights)
    dense, sparse = (video_features(videos / "long.mp4", encoder, stride=s).features for s in (4, 16))
    np.testing.assert_allclose(dense[::4], sparse, atol=ROUNDING)
    assert np.abs(dense[1] - sparse[0]).max() > 100 * ROUNDING


def test_ten_crops_are_five_and_their_mirrors_with_the_centre_fifth(tmp_path, weights):
    encoder = load_encoder("demo", weights)
    write_video(tmp_path / "v.mp4", 40)
    ten = video_features(tmp_path / "v.mp4", encoder, crops=10).features
    assert ten.shape == (2, 10, 192)
    np.testing.assert_allclose(ten[:, 4], video_features(tmp_path / "v.mp4", encoder).features, atol=ROUNDING)
    np.testing.assert_allclose(
        ten[:, :5], video_features(tmp_path / "v.mp4", encoder, crops=5).features, atol=ROUNDING
    )  # fmt: skip
    assert np.abs(ten[:, 0] - ten[:, 1]).max() > 100 * ROUNDING
    # In a picture that is its own mirror image, the left crop's mirror is the right crop.
    write_video(tmp_path / "mirrored.avi", 16, mirrored=True)
    symmetric = video_features(tmp_path / "mirrored.avi", encoder, crops=10).features[0]
    for left, right in ((0, 1), (2, 3)):
        np.testing.assert_allclose(symmetric[5 + left], symmetric[right], atol=0.02)  # the codec isn't symmetric
    assert np.abs(symmetric[5] - symmetric[0]).max() > 0.1


def test_each_frame_is_decoded_once_also_where_clips_overlap(videos, weights, monkeypatch):
    from splavu.extraction.videos import pyav as readers

    decoded = []
    decode = readers.PyAVReader._decode

    def counted(self, wanted=None):
        for frame in decode(self, wanted):
            decoded.append(frame)
            yield frame

    monkeypatch.setattr(readers.PyAVReader, "_decode", counted)
    video_features(videos / "long.mp4", load_encoder("demo", weights), stride=1, backend="pyav")
    assert len(decoded) == 170


def test_frames_are_not_kept_however_long_the_video(tmp_path, weights):
    """Ten times as long a video leads to the same peak of frames alive at once."""
    from splavu.extraction.video_features import video_pieces
    from splavu.extraction.videos import open_video

    encoder, peaks = load_encoder("demo", weights), []
    for length in (320, 3200):
        write_video(tmp_path / f"{length}.mp4", length)
        with open_video(tmp_path / f"{length}.mp4") as video:
            pieces = video_pieces(video, encoder.spec, stride=4, crops=1)
            peaks.append(max(clips.untyped_storage().nbytes() for _, clips in pieces))
    assert peaks[0] == peaks[1]


def test_memory_does_not_grow_with_the_video(weights):
    """Half an hour at stride 16 instead of three minutes: features of small clips, frames made up on the spot."""
    encoder = load_encoder("demo", weights)
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc to see the process's memory")
    encoder.forward = lambda clips: clips.mean(dim=(1, 3, 4)).repeat(1, 64)  # only memory matters here
    used = []

    def pieces():
        clips = torch.randint(0, 255, (4, 16, 80, 80, 3), dtype=torch.uint8)
        for index in range(840):
            if index % 84 == 0:
                used.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20)
            yield "0", clips.clone()

    (result,) = extract(
        [Job("v", pieces)],
        encoder,
        preprocessing=encoder.spec.preprocessing,
        device=torch.device("cpu"),
        batch_size=16,
        num_workers=1,
    )
    assert result.features["0"].shape == (3360, 192)
    assert used[-1] - used[1] < 100, f"MB: {used}"


def test_one_bad_video_is_reported_and_a_second_run_extracts_only_what_is_missing(videos, tmp_path, weights, capsys):
    out = tmp_path / "out"
    write_video(videos / "cut.avi", 120)
    whole = (videos / "cut.avi").read_bytes()
    (videos / "cut.avi").write_bytes(whole[: len(whole) // 2])
    (videos / "empty.mp4").write_bytes(b"")
    command = ("--videos", videos, "--out", out, "--weights", weights)
    assert run(*command) == 1
    told = capsys.readouterr().out
    assert re.search(r"failed: empty: .*empty\.mp4: ", told)
    assert re.search(r"failed: cut: .*cut\.avi: ", told)
    assert FeatureFolder(out).keys() == ["exact", "long", "short"]
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.npy")}
    (videos / "cut.avi").write_bytes(whole)
    (videos / "empty.mp4").unlink()
    assert run(*command) == 0
    assert "1 files" in (told := capsys.readouterr().out)
    assert re.search(r"\b3 were there\b", told)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert FeatureFolder(out).keys() == ["cut", "exact", "long", "short"]


def test_a_torn_file_is_made_again(videos, tmp_path, weights):
    command = ("--videos", videos, "--out", tmp_path / "out", "--weights", weights)
    run(*command)
    torn = tmp_path / "out" / "long.npy"
    before = np.load(torn)
    torn.write_bytes(torn.read_bytes()[:500])
    assert run(*command) == 0
    np.testing.assert_allclose(np.load(torn), before, atol=ROUNDING)


@pytest.mark.long(reason="a command is killed over and over")
def test_a_killed_run_leaves_only_whole_files_and_is_resumed(tmp_path, weights):
    folder, out = tmp_path / "videos", tmp_path / "out"
    for i in range(40):
        write_video(folder / f"v{i}.avi", 60 + i, seed=i)
    script = str(ROOM / "feature_extraction_crime-thumos.py")  # the old name
    command = [
        sys.executable,
        script,
        "--videos",
        str(folder),
        "--out",
        str(out),
        "--weights",
        weights,
        "--stride",
        "4",
    ]
    command += ["--batch-size", "2", "--quiet", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(out.glob("*.npy"))) < 4 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 4 <= len(list(out.glob("*.npy"))) < 40
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(re.search(r"(\d+) were there already", done.stdout)[1]) >= 4
    rows = {f"v{i}": (60 + i - 16) // 4 + 1 for i in range(40)}
    features = FeatureFolder(out)
    features.verify()
    assert {key: features.num_rows(key) for key in features} == rows


def test_another_stride_or_encoder_does_not_enter_the_folder(videos, tmp_path, weights):
    command = ("--videos", videos, "--out", tmp_path / "out", "--weights", weights)
    run(*command)
    with refused("out", naming="clip_rule"):
        run(*command, "--stride", 8)
    with refused("out", naming="preprocessing"):  # the demo's own weights take larger frames
        run("--videos", videos, "--out", tmp_path / "out")
    (tmp_path / "out" / "attributes.json").unlink()
    with refused("out"):
        run(*command)


def test_data_sets_extract_what_their_lists_name(tmp_path, weights, capsys):
    data, features = tmp_path / "data", tmp_path / "features"
    for name in ("video_validation_0000001", "video_test_0000002", "not_listed"):
        write_video(data / "thumos14/videos" / f"{name}.mp4", 40)
    database = {name: {} for name in ("video_validation_0000001", "video_test_0000002", "video_test_0000003")}
    (data / "thumos14/thumos14.json").write_text(json.dumps({"version": "x", "database": database}))
    for name in ("Fighting/Fighting001_x264", "Training_Normal/Normal_Videos001_x264", "Normal_Videos_003_x264"):
        write_video(data / "ucf_crime/videos" / f"{name}.mp4", 33)
    (data / "ucf_crime/ucf-i3d.list").write_text("f/Fighting001_x264.npy\nf/Normal_Videos001_x264.npy\n")
    (data / "ucf_crime/ucf-i3d-test.list").write_text("f/Normal_Videos_003_x264.npy\n")
    where = ("--data", data, "--features", features, "--weights", weights)
    assert run("--dataset", "thumos14", *where) == 1
    assert "failed: video_test_0000003" in capsys.readouterr().out
    assert run("--dataset", "thumos14", "--stride", 4, *where) == 1
    assert run("--dataset", "ucf_crime", "--crops", 10, *where) == 0
    shapes = {str(p.relative_to(features)): np.load(p).shape for p in features.rglob("*.npy")}
    assert shapes == {
        "thumos14_demo/video_test_0000002.npy": (2, 192),
        "thumos14_demo/video_validation_0000001.npy": (2, 192),
        "thumos14_demo_stride4/video_test_0000002.npy": (7, 192),
        "thumos14_demo_stride4/video_validation_0000001.npy": (7, 192),
        "ucf_crime_demo_crops10/Fighting001_x264.npy": (2, 10, 192),
        "ucf_crime_demo_crops10/Normal_Videos001_x264.npy": (2, 10, 192),
        "ucf_crime_demo_crops10/Normal_Videos_003_x264.npy": (2, 10, 192),
    }


@pytest.mark.parametrize(
    ("args", "culprit", "names"),
    [
        ((), "arguments", ("--videos", "--dataset")),
        (("--videos", "nowhere", "--out", "o"), "nowhere", ()),
        (("--videos", "videos"), "--out", ()),
        (("--videos", "videos", "--out", "o", "--stride", "17"), "stride", ("17", "1", "16")),
        (("--videos", "videos", "--out", "o", "--stride", "0"), "stride", "0"),
        (("--videos", "videos", "--out", "o", "--crops", "3"), "crops", ("3", "1, 5, 10")),
        (("--videos", "videos", "--out", "o", "--set", "strid=3"), "params_long_videos.py", ("'strid'", "'stride'")),
        (("--dataset", "thumos14", "--data", "."), "thumos14.json", ()),
        (("--dataset", "ucf_crime", "--data", "."), "ucf-i3d.list", ()),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(videos, tmp_path, weights, monkeypatch, args, culprit, names):
    monkeypatch.chdir(tmp_path)
    with refused(culprit, naming=names):
        run(*args, "--weights", weights)
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


def test_a_damaged_video_is_an_error_of_the_function_too(tmp_path, weights):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    encoder = load_encoder("demo", weights)
    with refused("bad.mp4"):
        video_features(tmp_path / "bad.mp4", encoder)
    with refused("none.mp4"):
        video_features(tmp_path / "none.mp4", encoder)

"""Decoding, clip cutting and preprocessing: frames that are known beforehand, and files that are broken on purpose."""

from __future__ import annotations

import random
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from refusals import assert_names, refused

av = pytest.importorskip("av")

from splavu.data.encoders import IMAGENET_MEAN, IMAGENET_STD, Preprocessing  # noqa: E402
from splavu.errors import UserError  # noqa: E402
from splavu.extraction import videos  # noqa: E402  needs av
from splavu.extraction.clips import cut_clips, even_indices, key_generator  # noqa: E402
from splavu.extraction.images import read_image  # noqa: E402
from splavu.extraction.preprocessing import (  # noqa: E402
    centre_view,
    normalise,
    protocol_preprocessing,
    random_view,
)
from splavu.extraction.videos import dali, list_videos, open_video, pick_backend, reader  # noqa: E402


def usable(name: str) -> str:
    """The backend, or a skip that says why it can't work here."""
    try:
        return pick_backend(name)
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["pyav", "decord", "torchcodec"])
def backend(request) -> str:
    return usable(request.param)


@pytest.fixture(params=["decord", "torchcodec"])
def other_backend(request) -> str:
    return usable(request.param)


def write_video(
    path: Path, num_frames: int, *, codec="mpeg4", pixels="yuv420p", size=(64, 48), colours=None, **options
):
    """Frame i is a grey ramp shifted by i, around level 40 + 2 i."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        (stream.width, stream.height), stream.pix_fmt = size, pixels
        if colours is not None:
            stream.codec_context.colorspace, stream.codec_context.color_range = colours
        ramp = np.linspace(0, 40, size[0])[None, :, None].repeat(size[1], 0).repeat(3, 2)
        for i in range(num_frames):
            image = np.clip(np.roll(ramp, i, axis=1) + 2 * i + 20 * np.arange(3), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def all_frames(path, backend, **kwargs):
    with open_video(path, backend) as video:
        return np.concatenate(list(video.frames(**kwargs)))


def test_frames_come_in_order_and_can_be_picked(tmp_path, backend):
    path = write_video(tmp_path / "a.avi", 37, codec="mjpeg", pixels="yuvj420p")  # each frame coded for itself
    with open_video(path, backend) as video:
        assert video.fps == pytest.approx(25)
        batches = list(video.frames(batch_size=16))
        assert [len(batch) for batch in batches] == [16, 16, 5]
        assert len(video) == 37
        frames = np.concatenate(batches)
        assert frames.shape == (37, 48, 64, 3)
        assert frames.dtype == np.uint8
        brightness = frames.mean(axis=(1, 2, 3))
        assert np.all(np.diff(brightness) > 1)  # each is 2 levels brighter; coding errs by less
        assert np.all(np.diff(frames.mean(axis=(0, 1, 2))) > 10)  # RGB, not BGR: blue is brightest
        np.testing.assert_array_equal(video.get([30, 2, 30]), frames[[30, 2, 30]])
        with pytest.raises(IndexError):
            video.get([37])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mpeg4.avi", {}),
        ("odd.mp4", {"size": (66, 50)}),
        ("bt709.mp4", {"colours": (1, 1)}),
        ("bt601.mp4", {"colours": (5, 1)}),
        ("full.avi", {"codec": "mjpeg", "pixels": "yuvj420p", "colours": (5, 2)}),
        ("vp9.webm", {"codec": "libvpx-vp9"}),
        ("h264.mp4", {"codec": "libx264"}),
    ],
)
def test_backends_give_the_same_pixels(tmp_path, other_backend, name, options):
    path = write_video(tmp_path / name, 20, **options)
    np.testing.assert_array_equal(all_frames(path, "pyav"), all_frames(path, other_backend))


@pytest.mark.parametrize("codec", ["libvpx-vp9", "mjpeg"])
def test_dali_gives_nearly_the_same_pixels(tmp_path, codec):
    """70 frames: two whole sequences of the reader's and a part of a third."""
    usable("dali")
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_video(tmp_path / ("a.avi" if codec == "mjpeg" else "a.webm"), 70, codec=codec, pixels=pixels)
    expected = all_frames(path, "pyav").astype(int)
    with open_video(path, "dali") as video:
        assert (video.expected_frames, video.fps) == (70, pytest.approx(25))
        frames = np.concatenate(list(video.frames(batch_size=16)))
        assert len(video) == 70
        assert frames.shape == expected.shape
        assert np.abs(frames - expected).max() <= 2
        np.testing.assert_array_equal(video.get([69, 3]), frames[[69, 3]])
    for name, content in (("empty.webm", b""), ("text.webm", b"no video" * 99)):
        (tmp_path / name).write_bytes(content)
        with refused(name):
            all_frames(tmp_path / name, "dali")
    with refused("absent.webm"):
        open_video(tmp_path / "absent.webm", "dali")


def test_dali_is_asked_for_every_frame_once():
    for device, device_id in (("cpu", None), ("gpu", 1)):
        pipeline = dali.pipeline_arguments(device, 1)
        assert (pipeline["device_id"], pipeline["batch_size"]) == (device_id, 1)
        reader = dali.reader_arguments(Path("a.mp4"), sequence_length=32, device=device)
        assert (reader["device"], reader["filenames"]) == (device, ["a.mp4"])
        assert (reader["step"], reader["stride"], reader["random_shuffle"]) == (32, 1, False)
    for num_frames in (1, 31, 32, 33, 64, 70):
        sequences = -(-num_frames // 32)
        assert sum(dali.valid_frames(i, num_frames, sequence_length=32) for i in range(sequences)) == num_frames
        assert dali.valid_frames(sequences, num_frames, sequence_length=32) == 0


def _overwritten(data: bytes) -> bytes:
    middle, noise = len(data) // 2, random.Random(0).randbytes(len(data) // 6)
    return data[:middle] + noise + data[middle + len(noise) :]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("empty.mp4", lambda data: b""),
        ("text.avi", lambda data: b"no video\n" * 100),
        ("truncated.mp4", lambda data: data[: len(data) // 2]),
        ("truncated.avi", lambda data: data[: len(data) // 2]),
        ("faststart.mp4", lambda data: data[: len(data) * 2 // 3]),
        ("overwritten.avi", _overwritten),
    ],
)
def test_damaged_files_are_named(tmp_path, name, damage):
    options = {"movflags": "faststart"} if name.startswith("faststart") else {}
    path = write_video(tmp_path / name, 120, **options)
    assert len(all_frames(path, "pyav")) == 120
    path.write_bytes(damage(path.read_bytes()))
    with refused(name):
        all_frames(path, "pyav")


def test_truncated_webm_is_named(tmp_path):
    """It holds no count of its frames, only a duration, which decord and torchcodec do not tell."""
    path = write_video(tmp_path / "a.webm", 120, codec="libvpx-vp9")
    assert len(all_frames(path, "pyav")) == 120
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with refused("a.webm"):
        all_frames(path, "pyav")


@pytest.mark.parametrize("name", ["empty.mp4", "text.avi", "truncated.mp4"])
def test_files_that_do_not_open_are_named_by_both(tmp_path, backend, name):
    path = write_video(tmp_path / name, 20)
    path.write_bytes(b"" if name.startswith("empty") else path.read_bytes()[:200] if "trunc" in name else b"text" * 99)
    with refused(name):
        all_frames(path, backend)
    with refused("absent.mp4"):
        open_video(tmp_path / "absent.mp4", backend)


@pytest.mark.slow
def test_real_videos_decode_alike_and_give_the_known_clips(shared):
    for name, num_clips in (("highjump", 45), ("tennis26", 21)):
        path = shared / "videos" / f"{name}.mp4"
        frames = all_frames(path, "pyav")
        assert len(frames) // 16 == num_clips
        for other in ("decord", "torchcodec"):
            if videos.BACKENDS[other].is_installed:
                np.testing.assert_array_equal(all_frames(path, usable(other)), frames)


def test_versions_are_told_without_loading_the_library(monkeypatch):
    usable("decord")
    monkeypatch.setattr(videos.importlib, "import_module", None)
    for name in ("pyav", "decord"):
        assert re.fullmatch(rf"{name} \d+\.\d+\S*", videos.backend_version(name))


def test_backend_choice_is_never_silent(monkeypatch, caplog):
    assert pick_backend() == "pyav"
    with refused("backend 'pyavv'"):
        pick_backend("pyavv")
    monkeypatch.setattr(videos.importlib.util, "find_spec", lambda module: module == "decord" or None)
    assert pick_backend() == "decord"
    assert_names(caplog.text, ("PyAV", "decord"))
    for name, library in (("pyav", "av"), ("torchcodec", "torchcodec"), ("dali", "nvidia.dali")):
        with refused(f"backend '{name}'", naming=(library, "pip install")):
            pick_backend(name)


@pytest.mark.parametrize(("name", "library"), [("torchcodec", "torchcodec"), ("dali", "nvidia")])
def test_a_library_that_does_not_load_is_told_before_any_video(monkeypatch, name, library):
    class Broken:
        def find_spec(self, module, path=None, target=None):
            if module.split(".")[0] == library:
                raise OSError("libavutil.so.59: cannot open shared object file\nand much more")

    for module in [module for module in sys.modules if module.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    monkeypatch.setattr(videos.importlib.util, "find_spec", lambda module: object())
    with refused(f"backend '{name}'", naming="libavutil.so.59: cannot open shared object file") as caught:
        pick_backend(name)
    assert "and much more" not in str(caught.value)


def test_listing_finds_videos_below_and_refuses_none(tmp_path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("b/c/x.AVI", "b/y.mp4", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in list_videos(tmp_path)] == ["x.AVI", "y.mp4"]
    (tmp_path / "empty").mkdir()
    with refused("empty"):
        list_videos(tmp_path / "empty")
    with refused("nowhere"):
        list_videos(tmp_path / "nowhere")


@pytest.mark.parametrize("length", [1, 15, 16, 17, 47, 64])
@pytest.mark.parametrize("batch_size", [1, 7, 16, 64])
def test_clips_against_a_slow_loop(length, batch_size):
    frames = torch.arange(length)[:, None]
    expected = [[start + i for i in range(16)] for start in range(0, length - 15, 16)]
    if not expected:
        expected = [[min(i, length - 1) for i in range(16)]]
    clips = torch.cat(list(cut_clips(frames.split(batch_size), 16)))
    assert clips[..., 0].tolist() == expected


def test_no_frames_give_no_clip():
    assert list(cut_clips([], 16)) == []


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("stride", [1, 4, 7, 16])
def test_overlapping_clips_begin_every_stride_frames_whatever_the_batches(stride, batch_size):
    for length in (5, 16, 17, 50):
        frames = torch.arange(length)
        clips = torch.cat(list(cut_clips(frames.split(batch_size), 16, stride=stride))).tolist()
        starts = range(0, length - 15, stride)
        assert clips == ([list(range(i, i + 16)) for i in starts] or [[*range(length), *[length - 1] * (16 - length)]])


def test_even_indices():
    assert even_indices(91, 10) == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert even_indices(3, 5) == [0, 0, 1, 1, 2]
    assert even_indices(1, 3) == [0, 0, 0]


def test_key_generator_depends_on_seed_and_key_only():
    def draw(seed, key):
        return torch.rand(4, generator=key_generator(seed, key)).tolist()

    assert draw(0, "a") == draw(0, "a")
    assert len({tuple(draw(seed, key)) for seed in (0, 1) for key in ("a", "b")}) == 4


def test_centre_view_cuts_the_middle():
    frames = torch.zeros(2, 40, 80, 3, dtype=torch.uint8)
    frames[:, 10:30, 30:50] = 200
    view = centre_view(frames, Preprocessing(short_side=40, crop=20))
    assert view.shape == (2, 20, 20, 3)
    assert (view == 200).all()
    portrait = centre_view(frames.transpose(1, 2), Preprocessing(short_side=20, crop=10))
    assert portrait.shape == (2, 10, 10, 3)
    assert (portrait[:, 2:-2, 2:-2] == 200).all()


def test_resizing_averages_blocks():
    pixels = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    view = centre_view(pixels, Preprocessing(short_side=16, crop=16))
    # Antialiased bilinear at a quarter: a triangle of weights over 8 pixels, centred on each block of 4.
    weights = torch.tensor([1, 3, 5, 7, 7, 5, 3, 1]) / 32
    patch = pixels[0, 18:26, 18:26].double()  # output pixel 5 is centred on 21.5
    expected = torch.einsum("i,j,ijc->c", weights.double(), weights.double(), patch)
    assert (view[0, 5, 5] - expected).abs().max() <= 1  # each pass rounds to a whole level


def test_normalise_against_numpy():
    clips = torch.randint(0, 256, (2, 3, 4, 5, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = (clips.numpy() / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    normalised = normalise(clips, Preprocessing())
    assert normalised.dtype == torch.float32
    np.testing.assert_allclose(normalised.numpy(), expected.transpose(0, 1, 4, 2, 3), atol=1e-5)


def test_random_views_vary_in_place_and_side_and_repeat_with_the_seed():
    columns = torch.arange(64, dtype=torch.uint8)[None, :, None].expand(48, 64, 3).contiguous()
    preprocessing = Preprocessing(short_side=40, crop=32)

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return [random_view(columns, preprocessing, generator) for _ in range(60)]

    views = draw(0)
    assert all(view.shape == (32, 32, 3) for view in views)
    assert all(torch.equal(a, b) for a, b in zip(views, draw(0), strict=True))
    mirrored = sum(int(view[0, 0, 0] > view[0, -1, 0]) for view in views)
    assert 15 < mirrored < 45  # 60 fair coins leave this range once in 20,000 times
    covered = [abs(int(view[0, -1, 0]) - int(view[0, 0, 0])) for view in views]
    assert min(covered) >= 64 * 0.8 * 0.75 - 4  # at least 80% of the area, at most 4/3 high
    assert len(set(covered)) > 5


def test_published_protocol_differs_where_the_paper_did():
    ours = Preprocessing()
    assert protocol_preprocessing(ours, protocol="released", dataset="hmdb51") == ours
    assert protocol_preprocessing(ours, protocol="published", dataset=None) == ours
    assert protocol_preprocessing(ours, protocol="published", dataset="hmdb51").short_side == 224
    still = protocol_preprocessing(ours, protocol="published", dataset="vispr")
    levels = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2, 1).expand(1, 1, 1, 2, 3)
    assert normalise(levels, still)[0, 0, 0, 0].tolist() == [0, 1]
    with pytest.raises(ValueError, match="protocol"):
        protocol_preprocessing(ours, protocol="other", dataset=None)


def test_images_are_rgb_and_damage_is_named(tmp_path):
    cv2 = pytest.importorskip("cv2")
    red = np.zeros((40, 60, 3), np.uint8)
    red[..., 2] = 250  # OpenCV writes BGR
    path = tmp_path / "red.jpg"
    cv2.imwrite(str(path), red)
    image = read_image(path)
    assert image.shape == (40, 60, 3)
    assert image[..., 0].mean() > 200 > 50 > image[..., 2].mean()
    path.write_bytes(path.read_bytes()[:-100])
    for bad in (path, tmp_path / "absent.jpg"):
        with refused(bad):
            read_image(bad)


def test_decord_leaves_opencv_able_to_read_png(tmp_path):
    """Each in a fresh process, since the order of loading is what matters."""
    usable("decord")
    pytest.importorskip("cv2")
    video = write_video(tmp_path / "a.avi", 3)
    write = "import cv2, numpy, sys; cv2.imwrite(sys.argv[1], numpy.arange(6144, dtype='uint8').reshape(32, 64, 3))"
    read = """if True:
        import sys
        from splavu.extraction.images import read_image
        from splavu.extraction.videos import open_video
        with open_video(sys.argv[2], "decord") as video:
            assert len(video) == 3
        assert read_image(sys.argv[1]).shape == (32, 64, 3)
    """
    for program in (write, read):
        command = [sys.executable, "-c", program, str(tmp_path / "a.png"), str(video)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "form"), [("a.jpg", ">HH"), ("a.png", ">II")])
def test_an_image_that_claims_to_be_huge_is_not_decoded(tmp_path, name, form):
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / name
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8))
    assert read_image(path).shape == (64, 96, 3)
    sides = (64, 96) if name.endswith("jpg") else (96, 64)
    path.write_bytes(path.read_bytes().replace(struct.pack(form, *sides), struct.pack(form, 20_000, 20_000)))
    with refused(path, naming="20000 x 20000"):
        read_image(path)


def test_a_video_that_claims_to_be_huge_is_not_decoded(tmp_path, monkeypatch, backend):
    path = write_video(tmp_path / "a.avi", 5)
    monkeypatch.setattr(reader, "MAX_PIXELS", 64 * 48)
    assert len(all_frames(path, backend)) == 5
    monkeypatch.setattr(reader, "MAX_PIXELS", 64 * 48 - 1)
    with refused("a.avi"):
        all_frames(path, backend)


def test_batches_of_large_frames_are_shorter(tmp_path, monkeypatch, backend):
    path = write_video(tmp_path / "a.avi", 10)
    expected = all_frames(path, backend)
    monkeypatch.setattr(reader, "MAX_BATCH_BYTES", 3 * 64 * 48 * 3 + 1)
    with open_video(path, backend) as video:
        batches = list(video.frames(batch_size=64))
    assert [len(batch) for batch in batches] == [3, 3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(batches), expected)

"""Pictures, times and lengths that are known beforehand: colours by hand, turns by coordinates, times as written."""

from __future__ import annotations

import logging
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from refusals import assert_names, refused

av = pytest.importorskip("av")
cv2 = pytest.importorskip("cv2")

from splavu.errors import UserError  # noqa: E402
from splavu.extraction.images import list_images, read_image  # noqa: E402
from splavu.extraction.sources import folder_files, vispr_files  # noqa: E402
from splavu.extraction.video_features import VideoFeatures, time_error  # noqa: E402
from splavu.extraction.videos import list_videos, open_video, pick_backend  # noqa: E402

READERS = ("pyav", "decord", "torchcodec")
COLOURS = np.array(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255], [255, 0, 255], [200, 40, 90], [0, 0, 0]],
    float,
)
MATRICES = {  # number in the standards -> weights of red and blue in the brightness
    "unspecified": (2, 0.299, 0.114),  # BT.601 by convention
    "bt601": (6, 0.299, 0.114),
    "bt709": (1, 0.2126, 0.0722),
    "bt2020": (9, 0.2627, 0.0593),
}
LIMITED, FULL = 1, 2


@pytest.fixture(params=READERS)
def reader(request) -> str:
    try:
        return pick_backend(request.param)
    except UserError as error:
        pytest.skip(str(error))


def samples(colours: np.ndarray, matrix: str, span: int, bits: int) -> np.ndarray:  # [m, 3] -> [m, 3] Y, Cb, Cr
    """Rec. ITU-R BT.601, 709 and 2020: brightness, and the distances of blue and red from it, in whole levels."""
    _, red, blue = MATRICES[matrix]
    rgb = colours / 255
    y = rgb @ [red, 1 - red - blue, blue]
    cb, cr = (rgb[:, 2] - y) / (2 - 2 * blue), (rgb[:, 0] - y) / (2 - 2 * red)
    unit = 2 ** (bits - 8)
    if span == FULL:
        top = 2**bits - 1
        levels = [top * y, top * cb + 128 * unit, top * cr + 128 * unit]
    else:
        levels = [(219 * y + 16) * unit, (224 * cb + 128) * unit, (224 * cr + 128) * unit]
    return np.clip(np.round(np.stack(levels, axis=1)), 0, 2**bits - 1)


def write_stripes(path: Path, matrix: str, span: int, pixels: str, codec: str) -> np.ndarray:  # -> [H, W, 3]
    """A lossless video of vertical stripes of `COLOURS`, 16 pixels each; returns the picture that it shows."""
    bits, chroma_step = (10 if "10" in pixels else 8), (2 if "420" in pixels else 1)
    levels = samples(COLOURS, matrix, span, bits)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"qp": "0"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = 16 * len(COLOURS), 32, pixels
        stream.codec_context.colorspace, stream.codec_context.color_range = MATRICES[matrix][0], span
        for pts in range(5):
            frame = av.VideoFrame(stream.width, stream.height, pixels)
            frame.colorspace, frame.color_range, frame.pts = MATRICES[matrix][0], span, pts
            for plane, values in zip(frame.planes, levels.T, strict=True):
                step = 1 if plane is frame.planes[0] or plane.width == stream.width else chroma_step
                row = np.repeat(values, 16 // step).astype(np.uint16 if bits > 8 else np.uint8)
                rows = np.zeros((plane.height, plane.line_size // row.itemsize), row.dtype)
                rows[:, : len(row)] = row
                plane.update(rows.tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return np.repeat(COLOURS, 16, axis=0)[None].repeat(32, 0)


def shown(path: Path, reader: str, **options) -> np.ndarray | None:  # -> [n, H, W, 3]
    """The frames of a video, or None where a reader other than PyAV refuses the file by name."""
    try:
        with open_video(path, reader) as video:
            return np.concatenate(list(video.frames(**options)))
    except UserError as error:
        if reader == "pyav":
            raise
        assert_names(str(error), path.name)
        return None


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p", "yuv420p10le", "yuv444p10le"])
@pytest.mark.parametrize("span", [LIMITED, FULL])
@pytest.mark.parametrize("matrix", MATRICES)
def test_colours_are_those_of_the_matrix_and_range(tmp_path, reader, matrix, span, pixels):
    for name, codec in (("a.mp4", "libx264"), ("a.mkv", "ffv1")):
        expected = write_stripes(tmp_path / name, matrix, span, pixels, codec)
        found = shown(tmp_path / name, reader)
        if found is None:
            assert "10" in pixels or (reader == "torchcodec" and span == FULL)
            continue
        # Away from the edges, where chroma of half the width is interpolated.
        inside = np.tile(np.arange(16) % 13 > 2, len(COLOURS))
        off = np.abs(found - expected)[:, :, inside]
        # A level of rounding in each of Y, Cb and Cr; FFmpeg's way with 4:2:0 is a fast and coarser one.
        assert off.mean() < (1 if "420" in pixels else 0.5)
        assert off.max() <= (4 if "420" in pixels else 2.5)


def write_frames(path: Path, frames: np.ndarray, *, codec="libx264", stamps=None, unit=Fraction(1, 1000), **options):
    """Frames [n, H, W, 3], shown at `stamps` in `unit` seconds; by default 25 a second."""
    with av.open(str(path), "w", options=options.pop("container", {})) as container:
        stream = container.add_stream(codec, rate=25, options=options.pop("codec_options", {}))
        (stream.height, stream.width), stream.pix_fmt = frames.shape[1:3], options.pop("pixels", "yuv420p")
        for name, value in options.items():
            setattr(stream.codec_context, name, value)
        if stamps is not None:
            stream.time_base = stream.codec_context.time_base = unit
        for index, levels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(levels, format="rgb24")
            frame.pts, frame.time_base = (index, Fraction(1, 25)) if stamps is None else (int(stamps[index]), unit)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def grey_steps(count: int, size=(48, 64)) -> np.ndarray:  # -> [n, H, W, 3]
    """Frame i has level 40 + 4 i mod 160, and bright corners of three sizes, so that every turn shows."""
    frames = (
        np.zeros((count, *size, 3), np.uint8) + (40 + 4 * np.arange(count) % 160).astype(np.uint8)[:, None, None, None]
    )
    frames[:, :24, :24], frames[:, :8, -16:] = 250, 220
    return frames


def turned(picture: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:  # [H, W, 3] -> [H', W', 3]
    """Pixel (x, y) moved to (a x + c y, b x + d y), a pixel at a time."""
    a, b, c, d = matrix
    places = {
        (a * x + c * y, b * x + d * y): picture[y, x] for y in range(len(picture)) for x in range(picture.shape[1])
    }
    left, top = min(x for x, _ in places), min(y for _, y in places)
    result = np.zeros((max(y for _, y in places) - top + 1, max(x for x, _ in places) - left + 1, 3), np.uint8)
    for (x, y), levels in places.items():
        result[y - top, x - left] = levels
    return result


def copied(path: Path, to: Path) -> Path:
    """The packets and the display matrix of a video in another container."""
    with av.open(str(path)) as source, av.open(str(to), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    return to


@pytest.mark.parametrize(
    "matrix", [(s, 0, 0, t) for s in (1, -1) for t in (1, -1)] + [(0, s, t, 0) for s in (1, -1) for t in (1, -1)]
)
@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
def test_videos_are_upright(tmp_path, reader, matrix, ending):
    path = write_frames(tmp_path / f"a.{'mp4' if ending == 'mkv' else ending}", grey_steps(3))
    upright = shown(path, "pyav")
    data = path.read_bytes()
    place = data.index(b"tkhd") + 4 + 40  # version 0: 40 bytes, then the matrix: a, b, u, c, d, v, x, y, w
    a, b, c, d = (value << 16 for value in matrix)
    path.write_bytes(data[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[place + 36 :])
    if ending == "mkv":
        path = copied(path, tmp_path / "a.mkv")
    found = shown(path, reader)
    if found is None:
        is_mirrored = np.linalg.det(np.reshape(matrix, (2, 2))) < 0
        assert is_mirrored or reader == "decord", "it turns no picture of this width"
        return
    np.testing.assert_array_equal(found, [turned(frame, matrix) for frame in upright])


def test_the_largest_video_is_shown(tmp_path, reader):
    path = tmp_path / "a.ts"
    with av.open(str(path), "w") as container:
        for size in (32, 96):
            stream = container.add_stream("mpeg2video", rate=25)
            stream.width = stream.height = size
            stream.pix_fmt = "yuv420p"
        for stream in container.streams:
            for _ in range(5):
                image = np.full((stream.height, stream.height, 3), 128, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
    found = shown(path, reader)
    assert found is None or found.shape == (5, 96, 96, 3)


BURST = np.concatenate([np.arange(0, 2000, 40), np.arange(2000, 9000, 1000)])
"""Milliseconds: 50 frames in two seconds, then one a second."""
PAUSED = np.arange(100) * 40 + 8000 * (np.arange(100) >= 60)
CONTAINERS = [
    ("mp4", "libx264", 0),
    ("mov", "libx264", 3000),
    ("mkv", "libx264", 0),
    ("mkv", "libx264", 5000),
    ("webm", "libvpx-vp9", 0),
    ("ts", "libx264", 70_000),
    ("m2ts", "libx264", 0),
    ("avi", "mpeg4", 0),
    ("asf", "wmv2", 0),
    ("flv", "flv", 0),
]


@pytest.mark.parametrize(("ending", "codec", "start"), CONTAINERS)
@pytest.mark.parametrize("stamps", [BURST, PAUSED], ids=["burst", "paused"])
def test_times_are_presentation_times(tmp_path, reader, stamps, ending, codec, start):
    unit = Fraction(1, 25) if ending == "avi" else Fraction(1, 1000)
    ticks = stamps // 40 if ending == "avi" else stamps + start
    path = write_frames(tmp_path / f"a.{ending}", grey_steps(len(stamps)), codec=codec, stamps=ticks, unit=unit)
    frames = shown(path, reader)
    if frames is None:
        return
    assert len(frames) == len(stamps)
    with open_video(path, reader) as video:
        np.testing.assert_allclose(video.times, stamps / 1000, atol=0.0015)
        assert video.duration == pytest.approx(stamps[-1] / 1000 + 0.04, abs=0.01)
    assert time_error(path) > 1


def test_seconds_of_a_variable_rate():
    times = np.array([0.0, 0.1, 0.2, 5.0])
    found = VideoFeatures(np.zeros((1, 2), np.float32), 2.0, 6.0, times).seconds(np.array([0, 1.5, 2.5, 3.5, 4, 9]))
    np.testing.assert_allclose(found, [0, 0.15, 2.6, 5.5, 6, 6])


def test_a_constant_rate_has_no_error_of_time(tmp_path):
    assert time_error(write_frames(tmp_path / "a.mp4", grey_steps(60))) == 0
    thirty = write_frames(tmp_path / "a.mkv", grey_steps(90), stamps=np.round(np.arange(90) * 1001 / 30))
    assert time_error(thirty) == 0, "Matroska rounds to milliseconds"


@pytest.mark.parametrize("codec", ["mpeg2video", "libx264"])
def test_recordings_that_begin_within_a_group_of_pictures_are_read(tmp_path, reader, codec):
    path = write_frames(tmp_path / "whole.ts", grey_steps(100), codec=codec, gop_size=25, max_b_frames=2)
    whole, data = shown(path, "pyav"), path.read_bytes()
    for share in (0.15, 0.4, 0.6):
        path = tmp_path / "cut.ts"
        path.write_bytes(data[int(len(data) * share) // 188 * 188 :])
        found = shown(path, reader)
        if found is None:
            continue
        assert len(found) > 100 * (1 - share) - 26
        np.testing.assert_array_equal(found, whole[-len(found) :])
        with open_video(path, "pyav") as video:
            assert video.times[0] < 1, "from the beginning of what was recorded"
            np.testing.assert_allclose(np.diff(video.times), 0.04, atol=1e-4)


def test_a_recording_may_be_set_back_and_end_within_a_picture(tmp_path):
    """Two recordings in one file, the clock of the second as it was at the beginning; then one that stops anywhere."""
    path = write_frames(tmp_path / "a.ts", grey_steps(50), codec="mpeg2video", gop_size=10)
    once, data = shown(path, "pyav"), path.read_bytes()
    path.write_bytes(data + data)
    np.testing.assert_array_equal(shown(path, "pyav"), np.concatenate([once, once]))
    with open_video(path, "pyav") as video:
        np.testing.assert_allclose(video.times, np.arange(100) / 25, atol=1e-4)
    path.write_bytes(data[: int(len(data) * 0.55)])
    found = shown(path, "pyav")
    np.testing.assert_array_equal(found, once[: len(found)])
    assert 20 < len(found) < 30


def test_colours_that_nobody_converts_are_refused(tmp_path, reader):
    path = write_frames(tmp_path / "a.mkv", grey_steps(3), codec="ffv1", colorspace=14)  # ICtCp
    with refused(path), open_video(path, reader) as video:
        list(video.frames())


@pytest.mark.parametrize("stamps", [np.arange(0, 4000, 40), PAUSED], ids=["constant", "paused"])
@pytest.mark.parametrize(
    ("ending", "codec"), [("mkv", "libx264"), ("webm", "libvpx-vp9"), ("avi", "mpeg4"), ("flv", "flv")]
)
def test_truncated_files_are_refused(tmp_path, reader, stamps, ending, codec):
    unit = Fraction(1, 25) if ending == "avi" else Fraction(1, 1000)
    ticks = stamps // 40 if ending == "avi" else stamps
    noise = np.random.default_rng(0).integers(0, 255, (100, 48, 64, 3), np.uint8)
    fast = {"deadline": "realtime", "cpu-used": "8"} if ending == "webm" else {}
    path = write_frames(tmp_path / f"a.{ending}", noise, codec=codec, stamps=ticks, unit=unit, codec_options=fast)
    data = path.read_bytes()
    assert len(shown(path, "pyav")) == 100
    for share in (0.3, 0.5, 0.8, 0.9):
        path.write_bytes(data[: int(len(data) * share)])
        with refused(path), open_video(path, reader) as video:
            list(video.frames())


def test_a_file_cut_down_to_its_edit_list_is_whole(tmp_path, reader):
    """What an editor cuts away stays in the file: here the first and the last of three groups of pictures."""
    path = write_frames(tmp_path / "a.mov", grey_steps(75), gop_size=25, max_b_frames=0)
    data = path.read_bytes()
    place = (
        data.index(b"elst") + 4 + 8
    )  # version 0, one entry: duration in the movie's scale, first time in the track's
    track_scale = struct.unpack(">I", data[data.index(b"mdhd") + 16 :][:4])[0]
    movie_scale = struct.unpack(">I", data[data.index(b"mvhd") + 16 :][:4])[0]
    path.write_bytes(data[:place] + struct.pack(">Ii", movie_scale, track_scale) + data[place + 8 :])
    found = shown(path, reader)
    if found is not None:
        assert len(found) in (25, 26)
    with open_video(path, "pyav") as video:
        assert (video.times[0], video.times[-1]) == (0, pytest.approx(0.96, abs=0.041))


def test_what_is_left_out_of_a_folder_is_named(tmp_path, caplog):
    for name in ("a.mp4", "B.M2TS", "c.GIF", "._a.mp4", ".DS_Store", "d.webp", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "gone.mp4").symlink_to("nowhere.mp4")
    (tmp_path / "elsewhere").symlink_to(tmp_path.parent)
    with caplog.at_level(logging.WARNING):
        assert [path.name for path in list_videos(tmp_path)] == ["B.M2TS", "a.mp4", "c.GIF", "gone.mp4"]
    assert_names(caplog.text, ("d.webp", "notes.txt", "elsewhere"))
    assert "._a" not in caplog.text
    assert "DS_Store" not in caplog.text
    assert folder_files(tmp_path).keys() == {"a", "B", "c", "gone"}
    with refused(tmp_path / "gone.mp4"):
        open_video(tmp_path / "gone.mp4")
    for path in list_videos(tmp_path):
        path.unlink()
    with refused(tmp_path, naming="d.webp"):
        list_videos(tmp_path)


def test_images_that_share_a_name_are_refused(tmp_path):
    (tmp_path / "train2017").mkdir()
    for name in ("a.jpg", "a.PNG", "._a.jpg"):
        (tmp_path / "train2017" / name).touch()
    assert len(list_images(tmp_path / "train2017")) == 2
    with refused(tmp_path / "train2017" / "a.jpg"):
        vispr_files(tmp_path, "train")


def jpeg(path: Path, *, orientation: int | None = None, behind: bytes = b"", quality: int = 95) -> np.ndarray:
    """A picture of four saturated quarters; returns it as stored, [48, 64, 3] RGB."""
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32], picture[:24, 32:], picture[24:, :32] = (250, 10, 10), (10, 240, 20), (20, 30, 250)
    data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    if orientation is not None:  # a TIFF header, and one directory of one entry
        entry = struct.pack("<HHIHH", 0x112, 3, 1, orientation, 0)
        exif = b"Exif\0\0" + b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    path.write_bytes(data + behind)
    return picture


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright(tmp_path, orientation):
    """Exif 2.32, table of tag 0x112: which sides of the picture row 0 and column 0 are."""
    stored = jpeg(tmp_path / "a.jpg", orientation=orientation)
    flips = {1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1]}
    turned_over = np.swapaxes(stored, 0, 1)
    flips |= {5: turned_over, 6: turned_over[:, ::-1], 7: turned_over[::-1, ::-1], 8: turned_over[::-1]}
    found, expected = read_image(tmp_path / "a.jpg"), flips[orientation]
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 3, "what JPEG loses, at the edges of the quarters"


def test_data_behind_a_jpeg_does_not_matter_and_a_truncated_one_is_found(tmp_path):
    path = tmp_path / "a.jpg"
    jpeg(path)
    alone, data = read_image(path), path.read_bytes()
    for behind in (bytes(9000), b"\xff\xd8\xff\xe0" + bytes(5000), b"ftypmp42" * 2000):
        path.write_bytes(data + behind)
        np.testing.assert_array_equal(read_image(path), alone)
        path.write_bytes(data[:-20] + behind.replace(b"\xff\xd8\xff\xe0", b""))
        with refused(path):
            read_image(path)


@pytest.mark.parametrize("ending", ["webp", "bmp"])
def test_further_image_formats(tmp_path, ending):
    picture = np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8)
    path = tmp_path / f"a.{ending}"
    cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 101] if ending == "webp" else [])
    np.testing.assert_array_equal(read_image(path), picture)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with refused(path):
        read_image(path)


@pytest.mark.parametrize(
    ("name", "num_frames", "seconds"),
    [
        ("rot90.mp4", 48, 1.92),
        ("rot180.mp4", 48, 1.92),
        ("tv709_444.mp4", 48, 1.92),
        ("cover_stream0.mp4", 48, 1.92),
        ("vfr_long.mp4", 138, 19.017),
        ("vfr_long.mkv", 138, 19.017),
        ("vfr_long_h264.ts", 138, 19.017),
        ("pir_cut.ts", 86, 4.08),
        ("m2_cut.ts", 90, 4.16),
        ("anim.gif", 48, 1.92),
    ],
)
def test_shared_cases_have_ffmpegs_frames_and_times(shared, reader, name, num_frames, seconds):
    path = shared / "cases" / name
    if not path.is_file():
        pytest.skip("needs ../shared/cases")
    found = shown(path, reader)
    if found is None:
        return
    assert len(found) == num_frames
    assert found.shape[1:] == ((96, 64, 3) if name == "rot90.mp4" else (64, 96, 3))
    np.testing.assert_array_equal(found, shown(path, "pyav"))
    with open_video(path, reader) as video:
        assert video.duration == pytest.approx(seconds, abs=0.002)


@pytest.mark.parametrize("name", ["motion_photo.jpg", "trailing_zeros.jpg"])
def test_shared_images_are_read(shared, name):
    if not (shared / "cases" / name).is_file():
        pytest.skip("needs ../shared/cases")
    assert read_image(shared / "cases" / name).mean() > 10

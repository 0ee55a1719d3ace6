"""Pixel-level baselines: coarse frames against slow loops, persons hidden in boxes and nothing changed outside."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from refusals import refused

cv2 = pytest.importorskip("cv2")

from splavu.extraction import person_boxes  # noqa: E402  needs the above
from splavu.extraction.obfuscation import (  # noqa: E402
    BLUR_SIGMA,
    ObfuscatedReader,
    Obfuscation,
    blackened,
    blurred,
    downsampled,
    obfuscated,
    obfuscated_image,
    obfuscation,
)
from splavu.extraction.person_boxes import GROUP, BoxFile, HogDetector  # noqa: E402
from splavu.extraction.videos import VideoReader  # noqa: E402


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


class Frames(VideoReader):
    """A video in memory."""

    def __init__(self, frames: np.ndarray) -> None:
        super().__init__("memory")
        self.array, self.fps, self.expected_frames = frames, 25.0, len(frames)
        self.is_closed = False

    def _decode(self, wanted=None):
        for index, frame in enumerate(self.array):
            yield frame if wanted is None or index in wanted else None

    def close(self) -> None:
        self.is_closed = True


def coarse_by_loops(frame: np.ndarray, factor: int) -> np.ndarray:
    """Means of squares; each pixel then blends the four nearest of them by distance between centres."""
    height, width, _ = frame.shape
    rows, columns = height // factor, width // factor
    small = np.empty((rows, columns, 3))
    for i in range(rows):
        for j in range(columns):
            small[i, j] = frame[i * factor : (i + 1) * factor, j * factor : (j + 1) * factor].mean(axis=(0, 1))
    coarse = np.empty((height, width, 3))
    for i in range(height):
        for j in range(width):
            y, x = (min(max((p + 0.5) / factor - 0.5, 0), n - 1) for p, n in ((i, rows), (j, columns)))
            top, left = int(y), int(x)
            bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            coarse[i, j] = (1 - (y - top)) * ((1 - (x - left)) * small[top, left] + (x - left) * small[top, right])
            coarse[i, j] += (y - top) * ((1 - (x - left)) * small[bottom, left] + (x - left) * small[bottom, right])
    return coarse


@pytest.mark.parametrize("factor", [2, 4])
def test_downsampling_is_means_and_interpolation(factor):
    frames = noise(2, 16, 24, 3)
    coarse = downsampled(frames, factor)
    assert coarse.shape == frames.shape
    assert coarse.dtype == np.uint8
    for frame, expected in zip(coarse, (coarse_by_loops(frame, factor) for frame in frames), strict=True):
        np.testing.assert_allclose(frame, expected, atol=0.501)  # half a level of rounding


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (17, 33), (2, 90)])
def test_downsampling_takes_any_size_and_keeps_an_even_colour(shape):
    frames = np.full((1, *shape, 3), (200, 3, 77), np.uint8)
    np.testing.assert_array_equal(downsampled(frames, 4), frames)


def test_downsampling_loses_detail_for_good():
    checks = np.tile(np.array([[0, 255], [255, 0]], np.uint8), (8, 8))[None, ..., None].repeat(3, axis=3)
    assert np.ptp(downsampled(checks, 2).astype(int)) == 0


def test_only_boxes_turn_black():
    frame = noise(30, 40, 3) | 1  # no black before
    boxes = np.array([[2, 3, 10, 20], [8, 10, 40, 12]])
    inside = np.zeros((30, 40), bool)
    inside[3:20, 2:10] = inside[10:12, 8:40] = True
    hidden = blackened(frame, boxes)
    assert (hidden[inside] == 0).all()
    np.testing.assert_array_equal(hidden[~inside], frame[~inside])
    np.testing.assert_array_equal(frame, noise(30, 40, 3) | 1)  # the input stays


def test_only_boxes_are_blurred_and_nothing_from_outside_flows_in():
    frame = noise(60, 50, 3)
    box = np.array([[5, 6, 35, 54]])
    hidden = blurred(frame, box)
    inside = np.zeros((60, 50), bool)
    inside[6:54, 5:35] = True
    np.testing.assert_array_equal(hidden[~inside], frame[~inside])
    # The variance of white noise under a Gaussian of sigma s falls to about 1 / (4 pi s^2): here 1/200.
    assert hidden[20:40, 15:25].var() < frame[20:40, 15:25].var() / 50
    other = frame.copy()
    other[~inside] = 0
    np.testing.assert_array_equal(blurred(other, box)[inside], hidden[inside])


def test_blur_is_a_gaussian_as_wide_as_said():
    frame = np.zeros((121, 121, 3), np.uint8)
    frame[:, 60:] = 240  # an edge: its blur is the integral of the Gaussian
    profile = blurred(frame, np.array([[0, 0, 121, 121]]))[60, :, 0] / 240.0
    slope = np.diff(profile)
    centres = np.arange(120)
    mean = (slope * centres).sum() / slope.sum()
    assert np.sqrt((slope * (centres - mean) ** 2).sum() / slope.sum()) == pytest.approx(121 * BLUR_SIGMA, rel=0.05)


def test_a_photograph_is_blurred_in_no_time_and_a_sliver_is_searched():
    photograph = np.zeros((3000, 4000, 3), np.uint8)
    photograph[:, 2000:] = 240
    hidden = blurred(photograph, np.array([[0, 0, 4000, 3000]]))
    spread = np.abs(np.diff(hidden[1500, :, 0].astype(float)) / 240) @ (np.arange(3999) - 1999.0) ** 2
    assert np.sqrt(spread) == pytest.approx(4000 * BLUR_SIGMA, rel=0.05)
    for shape in ((2, 5000), (5000, 2), (1, 1), (31, 200), (40, 12)):
        assert HogDetector().boxes(np.zeros((1, *shape, 3), np.uint8), "i", 0)[0].shape == (0, 4)


def test_where_boxes_overlap_the_stronger_blur_counts_in_any_order():
    frame, boxes = noise(80, 80, 3), np.array([[0, 0, 80, 80], [30, 30, 42, 42]])
    for order in (boxes, boxes[::-1]):
        np.testing.assert_array_equal(blurred(frame, order), blurred(frame, boxes[:1]))


def test_none_touches_nothing():
    video, image = Frames(noise(3, 8, 8, 3)), noise(8, 8, 3)
    assert obfuscation("none") is None
    assert obfuscated(video, None, "v") is video
    assert obfuscated_image(image, None, "i") is image


class Numbered:
    """Hides the first pixels of each frame under its number, and remembers what it was asked."""

    description = "test"

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, int]] = []

    def boxes(self, frames, key, first):
        self.asked.append((key, first, len(frames)))
        return [np.array([[0, 0, 1 + (first + i) % 7, 2]]) for i in range(len(frames))]


def test_a_hidden_video_reads_like_any_other():
    frames, persons = noise(150, 6, 8, 3) | 1, Numbered()
    inner = Frames(frames)
    expected = frames.copy()
    for index, frame in enumerate(expected):
        frame[0:2, 0 : 1 + index % 7] = 0
    with ObfuscatedReader(inner, Obfuscation("blacken", persons), "key") as video:
        assert (video.fps, video.expected_frames, len(video)) == (25.0, 150, 150)
        assert not persons.asked  # counting frames hides nothing
        for batch_size in (1, 7, 64, 200):
            np.testing.assert_array_equal(np.concatenate(list(video.frames(batch_size))), expected)
        np.testing.assert_array_equal(video.get([149, 3, 3, 70]), expected[[149, 3, 3, 70]])
        with pytest.raises(IndexError):
            video.get([150])
    assert inner.is_closed
    assert all(key == "key" and first % GROUP == 0 for key, first, _ in persons.asked)


def test_the_detector_finds_a_person_of_the_synthetic_world_the_same_with_any_number_of_threads():
    from splavu.synthetic.drawing.render import render
    from splavu.synthetic.plans import generator, sample_plans, sample_subjects, stage

    joints, covered, empty = 0, 0, []
    for plan in sample_plans(3, "detector", sample_subjects(3, "detector", 4), per_subject=1):
        shot = stage(plan, generator(3, "detector", plan.index))
        shown = render(shot.scene, shot.people, np.arange(GROUP) / 30)
        found = {}
        for threads in (1, 4):
            before = cv2.getNumThreads()
            cv2.setNumThreads(threads)
            try:
                found[threads] = HogDetector().boxes(shown.frames, "v", 0)
            finally:
                cv2.setNumThreads(before)
        assert len(found[1]) == GROUP
        for one, many in zip(found[1], found[4], strict=True):
            np.testing.assert_array_equal(one, many)
        for boxes, points in zip(found[1], shown.keypoints, strict=True):
            assert (boxes[:, :2] >= 0).all()
            assert (boxes[:, 2:] <= (160, 120)).all()
            inside = (points[:, None] >= boxes[:, :2]) & (points[:, None] < boxes[:, 2:])
            covered += inside.all(axis=2).any(axis=1).sum()
            joints += len(points)
        empty.append(HogDetector().boxes(np.full_like(shown.frames, 128), "v", 0))
    assert covered / joints > 0.8
    assert all(boxes.shape == (0, 4) for group in empty for boxes in group)


def test_frames_of_a_group_share_what_was_found_in_any_of_them(monkeypatch):
    def one_per_level(frame):
        level = int(frame[0, 0, 0])
        return np.array([[level, 0, level + 1, 1]])

    monkeypatch.setattr(person_boxes, "_found_in", one_per_level)
    frames = np.arange(20, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    boxes = HogDetector().boxes(frames, "v", 0)
    assert [sorted(found[:, 0].tolist()) for found in boxes] == [[0, 4]] * 8 + [[8, 12]] * 8 + [[16]] * 4


HEADER = "key,frame,left,top,right,bottom\n"


def test_boxes_from_a_file(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text(HEADER + "b,,,,,\na,65,1.6,2,3.2,4\na,2,-5,0,3,2\na,65,0,0,99,1\na,2,50,0,60,2\n")
    boxes = BoxFile.read(path)
    frames = noise(3, 6, 8, 3)
    assert [part.tolist() for part in boxes.boxes(frames, "a", 64)] == [[], [[0, 0, 8, 1], [1, 2, 4, 4]], []]
    assert [part.tolist() for part in boxes.boxes(frames, "a", 0)] == [[], [], [[0, 0, 3, 2]]]
    assert [part.tolist() for part in boxes.boxes(frames, "b", 0)] == [[], [], []]
    with refused("boxes.csv"):
        boxes.boxes(frames, "c", 0)
    hide = obfuscation("blacken", person_boxes=path)
    again = pickle.loads(pickle.dumps(hide))  # as for a worker process
    np.testing.assert_array_equal(again(frames, "a", 64), hide(frames, "a", 64))
    assert (hide(frames, "a", 64)[1, 0] == 0).all()


@pytest.mark.parametrize(
    ("content", "place", "names"),
    [
        (b"", "", "''"),
        (b"video,x\n", "", ("'video,x'", "key,frame,left,top,right,bottom")),
        (HEADER.encode() + b"a,0,1,1,2\n", " line 2", "5"),
        (HEADER.encode() + b"a,0,1,1,2,2\n\na,0,1,one,2,2\n", " line 4", "'one'"),
        (HEADER.encode() + b"a,0.5,1,1,2,2\n", " line 2", "'0.5'"),
        (HEADER.encode() + b"a,-1,1,1,2,2\n", " line 2", "-1,1,1,2,2"),
        (HEADER.encode() + b"a,0,3,1,2,2\n", " line 2", ("0,3,1,2,2", "left < right")),
        (HEADER.encode() + b"a,0,1,1,nan,2\n", " line 2", "0,1,1,nan,2"),
        (HEADER.encode() + b"a,0,1,1,,2\n", " line 2", "''"),
        (HEADER.encode() + b"\xff\xfe,0,1,1,2,2\n", "", "UTF-8"),
        (HEADER.encode() + b'"a,0,1,1,2,2\n', "", "CSV"),
    ],
)
def test_a_bad_file_of_boxes_is_one_clear_line(tmp_path, content, place, names):
    path = tmp_path / "boxes.csv"
    path.write_bytes(content)
    with refused(f"{path}{place}", naming=names):
        BoxFile.read(path)


def test_what_cannot_be_is_refused(tmp_path):
    with refused("obfuscation 'blackened'"):
        obfuscation("blackened")
    with refused("--person-boxes"):
        obfuscation("downsample-2x", person_boxes=tmp_path)
    with refused("none.csv"):
        obfuscation("blur", person_boxes=tmp_path / "none.csv")


def test_descriptions_tell_transforms_and_boxes_apart(tmp_path):
    made = [obfuscation(name) for name in ("downsample-2x", "downsample-4x", "blur", "blacken")]
    for row in ("a,0,1,1,2,2\n", "a,0,1,1,2,3\n"):
        (tmp_path / "boxes.csv").write_text(HEADER + row)
        made.append(obfuscation("blur", person_boxes=tmp_path / "boxes.csv"))
    assert len({hide.description for hide in made}) == len(made)

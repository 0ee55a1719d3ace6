import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose
from refusals import refused

from tridet.errors import InputError
from tridet.timeline import DETECTION, TRUTH, Intervals, check_drawing, draw_timeline

image = pytest.importorskip("matplotlib.image")
colors = pytest.importorskip("matplotlib.colors")

NAMES = ["Jump", "Run", "Swim"]
NOTHING = Intervals(np.zeros((0, 2)), np.zeros(0, int), np.zeros(0))
WHITE = np.ones(3)


def rgb(colour, strength=1.0):
    """A colour drawn so opaquely on white."""
    return strength * np.array(colors.to_rgb(colour)) + (1 - strength) * WHITE


def intervals(*rows, scores=None):
    """(start, end, label) rows."""
    table = np.array(rows, dtype=float).reshape(-1, 3)
    return Intervals(table[:, :2], table[:, 2].astype(int), None if scores is None else np.array(scores))


@pytest.fixture
def drawn(tmp_path):
    """`drawn(...)`: the pixels `[H, W, 3]` of a time line of 100 seconds."""

    def draw(detections=NOTHING, **options):
        options = {"title": "a video", "duration": 100.0, "class_names": NAMES, **options}
        return image.imread(draw_timeline(tmp_path / "t.png", detections=detections, **options))[..., :3]

    return draw


def bars(pixels, colour):
    """The horizontal stretches of a colour, in pixels, that are longer than a legend's mark, over all rows."""
    found = set()
    for row in (np.abs(pixels - colour).max(axis=-1) < 1.5 / 255).astype(int):
        edges = np.diff(np.concatenate([[0], row, [0]]))
        found |= set(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))
    return sorted((start, end) for start, end in found if end - start > 30)


def seconds(pixels, colour, axis):
    """The same in seconds, of an axis that goes from `axis[0]` to `axis[1]`."""
    left, right = axis
    return [
        (100 * (start - left) / (right - left), 100 * (end - left) / (right - left))
        for start, end in bars(pixels, colour)
    ]


def axis_of(drawn):
    """Where a time line of these class names begins and ends: at the ends of a bar as long as the video."""
    (whole,) = bars(drawn(truth=intervals((0, 100, 0))), rgb(TRUTH))
    return whole


def test_missing_matplotlib_is_told_before_anything_is_computed(monkeypatch):
    check_drawing()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with refused("matplotlib", InputError):
        check_drawing()


def test_truth_and_detections_lie_where_they_should(drawn):
    axis = axis_of(drawn)
    truth, found = intervals((25, 50, 0), (60, 90, 0)), intervals((20, 45, 0), scores=[1.0])
    pixels = drawn(found, truth=truth)
    half_a_pixel = 0.2
    assert_allclose(seconds(pixels, rgb(TRUTH), axis), [(25, 50), (60, 90)], atol=half_a_pixel)
    assert_allclose(seconds(pixels, rgb(DETECTION), axis), [(20, 45)], atol=half_a_pixel)
    top = {name: np.argwhere(np.abs(pixels - rgb(name)).max(axis=-1) < 0.01)[:, 0].max() for name in (TRUTH, DETECTION)}
    assert top[TRUTH] < top[DETECTION]  # the truth above


def test_a_detection_is_the_stronger_the_higher_its_score(drawn):
    scores = [1.0, 0.6, 0.3]
    pixels = drawn(intervals((0, 20, 1), (40, 60, 1), (80, 100, 1), scores=scores))
    starts = [bars(pixels, rgb(DETECTION, score)) for score in scores]
    assert [len(found) for found in starts] == [1, 1, 1]
    assert starts[0] < starts[1] < starts[2]
    assert not bars(pixels, rgb(TRUTH))


def test_weak_detections_are_left_out(drawn):
    found = intervals((0, 20, 0), (40, 60, 0), (80, 100, 0), scores=[0.5, 0.19, 0.7])
    pixels = drawn(found)
    assert [len(bars(pixels, rgb(DETECTION, score))) for score in (0.5, 0.19, 0.7)] == [1, 0, 1]
    assert len(bars(drawn(found, min_score=0.1), rgb(DETECTION, 0.19))) == 1


def test_if_all_are_weak_the_strongest_five_are_drawn(drawn):
    scores = [0.01, 0.16, 0.12, 0.15, 0.02, 0.14, 0.13]
    found = intervals(*((14 * number, 14 * number + 10, 0) for number in range(7)), scores=scores)
    pixels = drawn(found, truth=intervals((0, 100, 0)))
    (axis,) = bars(pixels, rgb(TRUTH))
    # What has a score below 0.15 is drawn as if it had that one, lest it be invisible.
    starts = [start for strength in (0.15, 0.16) for start, _ in seconds(pixels, rgb(DETECTION, strength), axis)]
    assert_allclose(sorted(starts), [14, 28, 42, 70, 84], atol=0.3)


def labels_of(monkeypatch, **options):
    """The names at the bands, from top to bottom."""
    from tridet import timeline

    monkeypatch.setattr(timeline, "_saved", lambda figure, path: figure)
    figure = draw_timeline("unused.png", title="", duration=100.0, class_names=NAMES, **options)
    return [label.get_text() for label in figure.axes[-1].get_yticklabels()][::-1]


def test_bands_are_the_true_classes_then_the_most_certain(monkeypatch):
    found = intervals((0, 9, 0), (0, 9, 1), (0, 9, 2), scores=[0.3, 0.9, 0.5])
    assert labels_of(monkeypatch, detections=found) == ["Run", "Swim", "Jump"]
    truth = intervals((0, 9, 2))
    assert labels_of(monkeypatch, detections=found, truth=truth) == ["Swim", "Run", "Jump"]
    assert labels_of(monkeypatch, detections=found, truth=truth, max_classes=2) == ["Swim", "Run"]


def test_frames_are_shown_at_one_height(drawn):
    red = np.full((60, 80, 3), [255, 0, 0], np.uint8)
    blue = np.full((120, 160, 3), [0, 0, 255], np.uint8)
    pixels = drawn(frames=[(1.0, red), (50.0, blue)])
    areas = [(np.abs(pixels - np.array(colour)).max(axis=-1) < 0.01).sum() for colour in ((1, 0, 0), (0, 0, 1))]
    assert areas[0] > 10_000
    assert areas[0] == pytest.approx(areas[1], rel=0.05)
    assert drawn().shape[0] < pixels.shape[0]


def test_nothing_at_all_is_a_picture_too(drawn, monkeypatch):
    assert (drawn() < 0.5).any()
    assert labels_of(monkeypatch, detections=NOTHING) == []


def test_the_same_picture_has_the_same_bytes(tmp_path):
    options = {"duration": 100.0, "class_names": NAMES, "truth": intervals((10, 20, 1))}
    found = intervals((10, 30, 1), scores=[0.8])
    first, second, other = (
        draw_timeline(tmp_path / name / "t.png", title=title, detections=found, **options).read_bytes()
        for name, title in (("a", "one"), ("b", "one"), ("c", "two"))
    )
    assert first == second
    assert first != other
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["t.png"]


def test_a_picture_that_cannot_be_drawn_leaves_the_one_before(tmp_path):
    path = tmp_path / "t.png"
    path.write_bytes(b"before")
    with pytest.raises(IndexError):
        draw_timeline(path, title="", duration=1.0, detections=intervals((0, 1, 7), scores=[1.0]), class_names=NAMES)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"before"]


def test_names_are_no_formulas(drawn):
    """`$` would begin one, and a byte that isn't UTF-8 has no glyph."""
    odd = r"a$\frac$" + "\udce9\x1b"
    assert drawn(intervals((10, 20, 0), scores=[0.9]), title=odd, class_names=[odd, "Run", "Swim"]).size

"""The metric against its protocol written as loops, and against cases done by hand."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

from tridet.average_precision import THUMOS_TIOUS, Segments, mean_average_precision, repeated
from tridet.errors import InputError


def _segments(*rows):
    """From rows (video, start, end, label[, score])."""
    video, start, end, label, *score = (np.array(column) for column in zip(*rows, strict=True))
    return Segments(video, np.stack([start, end], axis=1), label, *score)


def _average_precision_loop(truth, predictions, label, threshold):
    """One class at one threshold, a prediction at a time."""
    num_true, taken, right = int((truth.label == label).sum()), set(), []
    rows = [row for row in range(len(predictions)) if predictions.label[row] == label]
    for row in sorted(rows, key=lambda row: -predictions.score[row]):
        start, end = predictions.segments[row]
        wishes = []
        for other in range(len(truth)):
            if truth.label[other] == label and truth.video[other] == predictions.video[row]:
                other_start, other_end = truth.segments[other]
                overlap = max(0.0, min(end, other_end) - max(start, other_start))
                wishes.append((overlap / (end - start + other_end - other_start - overlap), other))
        free = [other for tiou, other in sorted(wishes, key=lambda wish: -wish[0]) if tiou >= threshold]
        free = [other for other in free if other not in taken]
        taken.update(free[:1])
        right.append(bool(free))
    precision = [sum(right[: k + 1]) / (k + 1) for k in range(len(right))]
    return sum(max(precision[k:]) for k in range(len(right)) if right[k]) / num_true


def _crowded(seed):
    """Few videos, many overlapping true segments and equal scores: predictions compete and fall back."""
    rng = np.random.default_rng(seed)

    def draw(count):
        starts = rng.integers(0, 30, count) / 2
        segments = np.stack([starts, starts + rng.integers(1, 16, count) / 2], axis=1)
        return np.array([f"v{n}" for n in rng.integers(0, 4, count)]), segments, rng.integers(0, 3, count) * 5

    truth = Segments(*draw(60))
    return truth[~repeated(truth)], Segments(*draw(400), rng.integers(0, 50, 400) / 50)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_protocol_one_prediction_at_a_time(seed):
    truth, predictions = _crowded(seed)
    result = mean_average_precision(truth, predictions)
    assert result.classes.tolist() == [0, 5, 10]
    for row, threshold in enumerate(THUMOS_TIOUS):
        for column, label in enumerate(result.classes):
            expected = _average_precision_loop(truth, predictions, label, threshold)
            assert result.ap[row, column] == pytest.approx(expected, abs=1e-12)
    assert 0.05 < result.average < 0.95
    assert result.average == pytest.approx(result.per_tiou.mean())


def test_a_taken_match_falls_back_to_the_second_best():
    truth = _segments(("v", 0, 10, 1), ("v", 1, 12, 1))
    both = _segments(("v", 0, 10, 1, 0.9), ("v", 0, 10, 1, 0.8))
    assert mean_average_precision(truth, both, tious=[0.7]).average == 1  # 9 of 12 seconds
    assert mean_average_precision(truth, both, tious=[0.8]).average == 0.5


def test_precision_is_the_best_at_that_recall_or_beyond():
    truth = _segments(*((f"v{n}", 0, 1, 0) for n in range(4)))
    detections = _segments(
        ("v0", 5, 6, 0, 0.9), ("v1", 0, 1, 0, 0.8), ("v2", 0, 1, 0, 0.7), ("v3", 5, 6, 0, 0.6), ("v3", 0, 1, 0, 0.5)
    )
    # Wrong, right, right, wrong, right: precisions 1/2, 2/3 and 3/5 at the right ones; three of four are found.
    assert mean_average_precision(truth, detections).average == pytest.approx((2 / 3 + 2 / 3 + 3 / 5) / 4)


def test_an_overlap_at_the_threshold_suffices():
    truth, half = _segments(("v", 0, 2, 0)), _segments(("v", 0, 1, 0, 0.5))
    assert mean_average_precision(truth, half, tious=[0.5]).average == 1
    assert mean_average_precision(truth, half, tious=[0.5000001]).average == 0


def test_equal_scores_go_in_the_order_given():
    truth = _segments(("v", 0, 2, 0))
    right, wrong = ("v", 0, 2, 0, 0.5), ("v", 7, 9, 0, 0.5)
    assert mean_average_precision(truth, _segments(right, wrong)).average == 1
    assert mean_average_precision(truth, _segments(wrong, right)).average == 0.5


def test_repeated_segments_count_once_and_near_chains_are_cut_by_the_kept():
    truth = _segments(("v", 0, 2, 0), ("v", 0.0008, 2, 0), ("v", 0.0016, 2, 0), ("v", 0, 2, 1), ("w", 0, 2, 0))
    assert repeated(truth).tolist() == [False, True, False, False, False]  # the third is near the dropped one only
    twice = _segments(("v", 0, 2, 0), ("v", 0, 2, 0))
    assert mean_average_precision(twice, _segments(("v", 0, 2, 0, 0.3))).average == 1


def test_unknown_classes_and_videos():
    truth = _segments(("v", 0, 2, 3), ("w", 0, 2, 8))
    right, unknown_class = ("v", 0, 2, 3, 0.5), ("v", 0, 2, 4, 0.9)
    result = mean_average_precision(truth, _segments(right, unknown_class))
    assert result.num_ignored == 1
    assert result.ap.tolist() == [[1, 0]] * 5  # nothing is predicted in class 8
    elsewhere = mean_average_precision(truth, _segments(right, ("x", 0, 2, 3, 0.9)))
    assert elsewhere.ap[0].tolist() == [0.5, 0]


def test_true_segments_without_length_are_left_out_and_so_is_a_class_of_nothing_else():
    truth = _segments(("v", 0, 2, 0), ("v", 5, 5, 0), ("v", 6, 6, 1))
    result = mean_average_precision(truth, _segments(("v", 0, 2, 0, 0.5), ("v", 6, 6, 1, 0.4)))
    assert result.classes.tolist() == [0]
    assert result.average == 1
    assert result.num_ignored == 1


def test_no_predictions_give_zeros_and_a_warning(caplog):
    nothing = Segments(np.zeros(0, dtype=str), np.zeros((0, 2)), np.zeros(0), np.zeros(0))
    result = mean_average_precision(_segments(("v", 0, 2, 0), ("v", 3, 4, 1)), nothing)
    assert result.ap.tolist() == [[0, 0]] * 5
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_bad_input_is_named():
    truth, detections = _segments(("v", 0, 2, 0)), _segments(("v", 0, 2, 0, 0.5))
    with refused("predictions", InputError):
        mean_average_precision(truth, truth)
    with refused("ground truth", InputError):
        mean_average_precision(_segments(("v", 2, 2, 0)), detections)
    with refused("tIoU thresholds", InputError):
        mean_average_precision(truth, detections, tious=[0.0, 0.5])
    with refused("segments", InputError):
        _segments(("v", 3, 2, 0))
    with refused("segments", InputError):
        Segments(np.array(["v"]), np.zeros((2, 2)), np.zeros(2))
    with refused("segments", InputError):
        _segments(("v", 0, np.nan, 0))

"""Suppression against the definition, written as loops over float32 numbers, on inputs full of ties and overlaps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from refusals import refused

from tridet.errors import InputError
from tridet.nms import hard_nms, soft_nms, suppress, vote

ONE, EPSILON = np.float32(1), np.float32(1e-6)


def _candidates(count, *, seed, classes=4):
    """Whole-numbered segments and few distinct scores, so that equal ones and equal overlaps are common."""
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, 60, count)
    segments = np.stack([starts, starts + rng.integers(0, 25, count)], axis=1).astype(np.float32)
    scores = (rng.integers(1, 30, count) / 40).astype(np.float32)
    return torch.from_numpy(segments), torch.from_numpy(scores), torch.from_numpy(rng.integers(0, classes, count) * 3)


def _iou(first, second):
    overlap = max(np.float32(0), min(first[1], second[1]) - max(first[0], second[0]))
    return overlap / ((first[1] - first[0] + EPSILON) + (second[1] - second[0] + EPSILON) - overlap)


def _soft_loop(segments, scores, *, min_score, weight):
    segments, scores = segments.numpy(), scores.numpy().copy()
    left, kept = list(range(len(scores))), []
    while left:
        best = max(left, key=lambda i: (scores[i], -i))
        left.remove(best)
        kept.append(best)
        for i in left:
            scores[i] *= weight(_iou(segments[best], segments[i]))
        left = [i for i in left if not scores[i] < np.float32(min_score)]
    return kept, scores[kept]


def _hard_loop(segments, scores, *, iou_threshold, min_score):
    segments, kept = segments.numpy(), []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        above = min_score <= 0 or scores[i] > min_score
        if above and all(_iou(segments[i], segments[j]) < np.float32(iou_threshold) for j in kept):
            kept.append(i)
    return kept


WEIGHTS = {
    "gaussian": lambda iou: np.exp(-(iou * iou) / np.float32(0.4)),
    "linear": lambda iou: ONE - iou if iou >= np.float32(0.3) else ONE,
    "vanilla": lambda iou: np.float32(0) if iou >= np.float32(0.3) else ONE,
}


@pytest.mark.parametrize("method", WEIGHTS)
@pytest.mark.parametrize("min_score", [0.0, 0.001, 0.2])
def test_soft_is_the_loop_of_the_definition(method, min_score):
    for seed, count in enumerate([1, 2, 30, 150]):
        segments, scores, _ = _candidates(count, seed=seed)
        kept, lowered = soft_nms(segments, scores, sigma=0.4, min_score=min_score, method=method, iou_threshold=0.3)
        expected, expected_scores = _soft_loop(segments, scores, min_score=min_score, weight=WEIGHTS[method])
        # Products of many factors: the vector exponential differs from the scalar one in the last bit.
        np.testing.assert_allclose(lowered, expected_scores, rtol=2e-5, atol=0)
        if method == "gaussian":  # near-ties may swap
            assert sorted(kept.tolist()) == sorted(expected)
        else:
            assert kept.tolist() == expected


@pytest.mark.parametrize("min_score", [0.0, 0.4])
def test_hard_is_the_loop_of_the_definition(min_score):
    for seed, count in enumerate([1, 2, 30, 150]):
        segments, scores, _ = _candidates(count, seed=seed)
        kept = hard_nms(segments, scores, iou_threshold=0.3, min_score=min_score)
        assert kept.tolist() == _hard_loop(segments, scores, iou_threshold=0.3, min_score=min_score)


@pytest.mark.parametrize("method", ["soft", "hard"])
def test_all_classes_at_once_are_bit_for_bit_the_classes_one_by_one(method):
    segments, scores, labels = _candidates(400, seed=0)
    labels[:250] = 0  # one class far larger than the others: it outlives them in the table
    options = {"min_score": 0.01, "iou_threshold": 0.2, "max_segments": 60}
    together = suppress(segments, scores, labels, method=method, sigma=0.4, **options)
    parts = []
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        if method == "soft":
            options_of_soft = {"sigma": 0.4, "min_score": 0.01, "max_segments": 60}
            kept, lowered = soft_nms(segments[members], scores[members], **options_of_soft)
        else:
            kept = hard_nms(segments[members], scores[members], **options)
            lowered = scores[members[kept]]
        parts.append((segments[members[kept]], lowered, labels[members[kept]]))
    apart = [torch.cat(part) for part in zip(*parts, strict=True)]
    order = apart[1].argsort(descending=True, stable=True)[:60]
    for got, expected in zip(together, apart, strict=True):
        assert torch.equal(got, expected[order])


def test_the_best_survives_a_threshold_above_it_and_only_the_best():
    segments = torch.tensor([[0.0, 1], [5, 6], [9, 10]])
    kept, lowered = soft_nms(segments, torch.tensor([1e-4, 3e-4, 2e-4]), min_score=0.001)
    assert kept.tolist() == [1]
    assert lowered.tolist() == pytest.approx([3e-4])


def test_equal_scores_go_by_index():
    segments = torch.tensor([[50.0, 51], [0, 1], [20, 21], [0, 1]])
    scores = torch.full((4,), 0.5)
    kept, lowered = soft_nms(segments, scores, sigma=0.5)
    assert kept.tolist() == [0, 1, 2, 3]
    assert lowered[:3].tolist() == [0.5] * 3
    assert lowered[3].item() == pytest.approx(0.5 * np.exp(-2), rel=1e-5)  # its twin came first
    assert hard_nms(segments, scores, iou_threshold=0.9).tolist() == [0, 1, 2]


def test_selection_can_be_cut_short():
    segments, scores, labels = _candidates(100, seed=3)
    kept, lowered = soft_nms(segments, scores)
    first, first_scores = soft_nms(segments, scores, max_segments=7)
    assert first.tolist() == kept[:7].tolist()
    assert torch.equal(first_scores, lowered[:7])
    assert len(suppress(segments, scores, labels, max_segments=7)[0]) == 7
    assert hard_nms(segments, scores, iou_threshold=0.5, max_segments=2).shape == (2,)


@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_vote_is_the_weighted_mean(threshold):
    segments, scores, _ = _candidates(120, seed=4)
    kept = segments[::5]
    voted = vote(kept, segments, scores, threshold=threshold)
    moved = 0
    for (start, end), got in zip(kept.double().numpy(), voted.numpy(), strict=True):
        total, mean = 0.0, np.zeros(2)
        for (other_start, other_end), score in zip(segments.double().numpy(), scores.numpy(), strict=True):
            overlap = max(0.0, min(end, other_end) - max(start, other_start))
            union = end - start + other_end - other_start - overlap
            if union > 0 and overlap / union >= threshold:
                total += score
                mean += score * np.array([other_start, other_end])
        expected = mean / total if total else (start, end)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)
        moved += not np.allclose(expected, (start, end))
    assert moved > 5


def test_a_segment_of_zero_length_stays_where_it_is():
    segments = torch.tensor([[3.0, 3], [0, 10]])
    assert vote(segments, segments, torch.tensor([0.9, 0.8]), threshold=0.5).tolist() == segments.tolist()


def test_votes_count_in_the_class_agnostic_run_only():
    segments = torch.tensor([[0.0, 10], [0, 9], [40, 50]])
    scores, labels = torch.tensor([0.6, 0.2, 0.5]), torch.tensor([0, 1, 1])
    apart, *_ = suppress(segments, scores, labels, multiclass=True, voting_threshold=0.7)
    assert sorted(apart.tolist()) == sorted(segments.tolist())
    together, _, together_labels = suppress(segments, scores, labels, multiclass=False, voting_threshold=0.7)
    assert together[0].tolist() == pytest.approx([0, (10 * 0.6 + 9 * 0.2) / 0.8])
    assert together_labels.tolist() == [0, 1, 1]


def test_none_leaves_the_candidates_as_they_came():
    candidates = _candidates(20, seed=5)
    for got, given in zip(suppress(*candidates, method="none", max_segments=3), candidates, strict=True):
        assert torch.equal(got, given)


@pytest.mark.parametrize("multiclass", [True, False])
@pytest.mark.parametrize("method", ["soft", "hard", "none"])
def test_no_candidates_give_no_detections(method, multiclass):
    nothing = torch.zeros(0, 2), torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    segments, scores, labels = suppress(*nothing, method=method, multiclass=multiclass)
    assert segments.shape == (0, 2)
    assert scores.shape == labels.shape == (0,)
    assert hard_nms(torch.tensor([[0.0, 1]]), torch.tensor([0.2]), iou_threshold=0.5, min_score=0.3).tolist() == []


def test_bad_input_is_named():
    segments, scores = torch.tensor([[0.0, 1], [2, 3]]), torch.tensor([0.5, 0.4])
    with refused("candidates", InputError):
        soft_nms(segments, scores[:1])
    with refused("candidates", InputError):
        soft_nms(segments, scores * torch.nan)
    with refused("candidates", InputError):
        soft_nms(segments.flip(1), scores)
    with refused("soft-NMS method", InputError):
        soft_nms(segments, scores, method="gauss")
    with refused("sigma", InputError):
        soft_nms(segments, scores, sigma=0)
    with refused("IoU threshold", InputError):
        hard_nms(segments, scores, iou_threshold=0)
    with refused("NMS method", InputError):
        suppress(segments, scores, torch.zeros(2), method="nms")

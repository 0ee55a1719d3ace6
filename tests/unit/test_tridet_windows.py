import random

import pytest
import torch

from tridet.windows import coverage, cut, random_window

SEGMENTS = torch.tensor([[10.0, 20.0], [40.0, 42.0], [90.0, 96.5]])
LABELS = torch.tensor([3, 5, 7])


def drawn(length=100, segments=SEGMENTS, *, max_seq_len=30, seed=0, trunc_thresh=0.5, **options):
    return random_window(
        length,
        segments,
        max_seq_len=max_seq_len,
        trunc_thresh=trunc_thresh,
        generator=random.Random(seed),
        **options,
    )


def test_coverage_by_hand():
    shares = coverage(torch.tensor([[0.0, 10.0], [5.0, 15.0], [12.0, 18.0], [30.0, 31.0]]), 10, 5)
    torch.testing.assert_close(shares, torch.tensor([0.0, 0.5, 0.5, 0.0]))


@pytest.mark.parametrize("seed", range(30))
def test_what_a_window_keeps_is_covered_clipped_and_shifted(seed):
    window = drawn(seed=seed)
    assert window.width == 30
    assert 0 <= window.start <= 70
    assert window.kept.any()
    segments, labels = cut(SEGMENTS, LABELS, window)
    expected = []
    for (start, end), label in zip(SEGMENTS.tolist(), LABELS.tolist(), strict=True):
        inside = max(0.0, min(end, window.start + 30) - max(start, window.start))
        if inside / (end - start) >= 0.5:
            expected.append((max(start - window.start, 0), min(end - window.start, 30), label))
    assert [(*segment, label) for segment, label in zip(segments.tolist(), labels.tolist(), strict=True)] == expected


def test_a_short_sequence_without_crop_ratio_is_whole():
    assert drawn(length=30) is None
    assert drawn(length=31) is not None


def test_widths_fill_the_crop_ratio():
    windows = [drawn(max_seq_len=200, crop_ratio=(0.97, 1.0), seed=seed) for seed in range(60)]
    assert {100 if window is None else window.width for window in windows} == {97, 98, 99, 100}


def test_one_step_is_the_least():
    assert drawn(length=1, crop_ratio=(0.1, 1.0)) is None


def test_a_sequence_without_segments_takes_the_first_window():
    none = torch.zeros(0, 2)
    window = drawn(segments=none)
    assert window.start == random.Random(0).randint(0, 70)
    assert cut(none, LABELS[:0], window)[0].shape == (0, 2)


@pytest.mark.parametrize("seed", range(20))
def test_an_action_that_is_never_met_is_gone_to(seed):
    rare = torch.tensor([[5000.25, 5001.0], [9500.0, 9510.0]])
    options = {"length": 10000, "segments": rare, "max_trials": 3, "seed": seed}
    missed = drawn(**options, around_action=False)
    window = drawn(**options)
    assert window.width == 30
    assert window.kept.any()
    if not missed.kept.any():
        segments, _ = cut(rare, LABELS[:2], window)
        lengths = segments[:, 1] - segments[:, 0]
        assert lengths.item() in (0.75, 10.0)  # whole


def test_an_action_longer_than_any_window_fills_it():
    segments = torch.tensor([[10.5, 95.0]])
    assert not drawn(segments=segments, around_action=False).kept.any()
    window = drawn(segments=segments)
    inside, labels = cut(segments, LABELS[:1], window)
    assert labels.tolist() == [3]
    assert inside[0, 1].item() == 30
    assert inside[0, 0].item() <= 0.5


def test_actions_outside_the_sequence_are_not_gone_to():
    window = drawn(segments=torch.tensor([[100.0, 120.0], [-9.0, 0.0]]))
    assert 0 <= window.start <= 70
    assert not window.kept.any()


@pytest.mark.parametrize("segment", [[-20.0, 0.5], [99.5, 140.0], [98.0, 99.0]])
def test_actions_at_the_borders(segment):
    segments = torch.tensor([segment])
    window = drawn(segments=segments, max_trials=1, trunc_thresh=1.0)
    inside, _ = cut(segments, LABELS[:1], window)
    assert 0 <= window.start <= 70
    assert inside[0, 1] > inside[0, 0] >= 0

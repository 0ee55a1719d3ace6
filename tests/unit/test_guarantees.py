"""What is stated of a quantizer is true, by enumeration of small worlds; and who stands behind a centroid is said."""

import itertools
import math
import re

import numpy as np
import pytest
import torch

from splavu.anonymizers import Quantizer
from splavu.anonymizers.guarantees import floor_of, guarantees

CLIPS = 64
"""Different clips of the world."""


def quantizer(*codes):
    rng = np.random.default_rng(len(codes))
    books = [rng.normal(size=(count, 3)) / 2**level for level, count in enumerate(codes)]
    return Quantizer.of(np.zeros(4), np.eye(4)[:3], np.eye(4)[:, :3], books).eval()


def channel(made):  # -> [CLIPS] the number of each clip's released vector
    clips = torch.from_numpy(np.random.default_rng(0).normal(size=(CLIPS, 4)).astype(np.float32))
    with torch.no_grad():
        return torch.unique(made(clips), dim=0, return_inverse=True)[1].numpy()


def worlds():
    """Joint distributions [secrets, CLIPS] of something to be guessed and the clip that shows it."""
    rng = np.random.default_rng(1)
    yield np.full((1, CLIPS), 1 / CLIPS)
    yield np.eye(CLIPS) / CLIPS  # which clip it is
    for secrets, concentration in itertools.product((2, 7, 64), (0.05, 1.0)):
        yield rng.dirichlet(np.full(secrets * CLIPS, concentration)).reshape(secrets, CLIPS)


def after(joint, released):  # [S, CLIPS], [CLIPS] -> [S, vectors]
    return np.stack([joint[:, released == vector].sum(axis=1) for vector in range(released.max() + 1)], axis=1)


def mutual_information(joint):  # [S, Y] -> bits
    product = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
    there = joint > 0
    return float((joint[there] * np.log2(joint[there] / product[there])).sum())


def right_guesses(joint):
    """How often the best guess is right, with what was released and without."""
    return joint.max(axis=0).sum(), joint.sum(axis=1).max()


def stated(made):
    """Vectors and bits, as the sentences say them."""
    text = " ".join(guarantees(made.architecture))
    (vectors,) = {int(found.replace(",", "")) for found in re.findall(r"one of ([\d,]+) vectors", text)}
    (bits,) = {float(found) for found in re.findall(r"([\d.]+) bits", text)}
    return vectors, bits


@pytest.mark.parametrize("codes", [(2,), (5,), (3, 2), (2, 2, 2)])
def test_mean_and_worst_case_hold_whatever_is_guessed(codes):
    made = quantizer(*codes)
    vectors, bits = stated(made)
    assert vectors == math.prod(codes)
    assert bits == pytest.approx(math.log2(vectors), abs=0.005)
    released = channel(made)
    for joint in worlds():
        seen = after(joint, released)
        assert mutual_information(seen) <= math.log2(vectors) + 1e-9
        with_it, without = right_guesses(seen)
        assert with_it <= vectors * without + 1e-9


@pytest.mark.parametrize("codes", [(2,), (5,), (3, 2)])
def test_the_worst_case_is_reached(codes):
    """Maximal leakage of a map is log2 of what it releases: of the guess which clip it is, no less can be said."""
    released = channel(quantizer(*codes))
    with_it, without = right_guesses(after(np.eye(CLIPS) / CLIPS, released))
    assert with_it / without == pytest.approx(released.max() + 1)


def test_an_attribute_of_one_bit_may_be_known_fully():
    released = channel(quantizer(2))
    joint = np.stack([released == 0, released == 1]) / CLIPS
    assert right_guesses(after(joint, released))[0] == pytest.approx(1.0)


def test_clips_and_releases_add_up():
    """Two releases of a clip, and two clips of a person, tell at most the sum; and more than one of them alone."""
    first, second = channel(quantizer(5)), channel(quantizer(3, 2))
    pair = np.unique(np.stack([first, second]), axis=1, return_inverse=True)[1].reshape(-1)
    which = np.eye(CLIPS) / CLIPS
    both = mutual_information(after(which, pair))
    alone = [mutual_information(after(which, released)) for released in (first, second)]
    assert max(alone) < both <= sum(alone) + 1e-9 <= math.log2(5) + math.log2(6) + 1e-9
    ratio = right_guesses(after(which, pair))[0] * CLIPS
    assert max(5, 6) < ratio <= 5 * 6


SUPPORT = {"unit": "subject", "at_least": 5, "placed": "levels", "histogram": [[[7, 2], [9, 1]], [[8, 2]]]}


def test_the_floor_is_said_of_whom_it_holds():
    stage = {"arch": "quantizer", "feature_dim": 4, "codes": [3, 2], "subspace_dim": 2}
    known = floor_of({**stage, "support": SUPPORT})
    assert "at least 7 fitted subjects" in known
    videos = floor_of({**stage, "support": {**SUPPORT, "unit": "video"}})
    assert "7 fitted videos" in videos
    kmeans = floor_of({**stage, "support": {**SUPPORT, "placed": "k-means"}})
    none = floor_of({**stage, "support": {**SUPPORT, "at_least": 1}})
    assert len({known, videos, kmeans, none, floor_of(stage)}) == 5
    assert not any("at least" in text for text in (none, floor_of(stage)))
    assert known in " ".join(guarantees({**stage, "support": SUPPORT}))

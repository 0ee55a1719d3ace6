"""Codebooks with a floor: who supports a centroid, merging until enough do, and levels of a normal distribution."""

import math
import time

import numpy as np
import pytest
import torch
from refusals import refused

from splavu.anonymizers import build_anonymizer
from splavu.anonymizers.closed_form.fit_data import FitData
from splavu.anonymizers.closed_form.levels import allocate_levels, normal_levels
from splavu.anonymizers.closed_form.support import Support, merge_until_supported, nearest_centroid, supporters
from splavu.anonymizers.pipeline import build_pipeline, parse

# Max 1960, table I: levels on the positive side, and the mean squared error.
MAX_1960 = {
    2: ([0.7980], 0.3634),
    3: ([0.0, 1.224], 0.1902),
    4: ([0.4528, 1.510], 0.1175),
    8: ([0.2451, 0.7560, 1.344, 2.152], 0.03454),
}


@pytest.mark.parametrize("count", MAX_1960)
def test_levels_are_those_of_the_published_table(count):
    levels, error = normal_levels(count)
    positive, published = MAX_1960[count]
    np.testing.assert_allclose(levels[-len(positive) :], positive, atol=6e-4)
    np.testing.assert_allclose(levels, -np.array(levels)[::-1], atol=1e-7)
    assert error == pytest.approx(published, abs=1e-4)


def brute_force(variances, bits, most=6):
    """The least squared error of all allocations within the budget."""
    from itertools import product

    return min(
        sum(v * normal_levels(c)[1] for v, c in zip(variances, counts, strict=True))
        for counts in product(range(1, most + 1), repeat=len(variances))
        if sum(map(math.log2, counts)) <= bits + 1e-9
    )


@pytest.mark.parametrize("bits", [1, 2, 3.6, 5])
def test_levels_go_where_they_help_within_the_budget(bits):
    variances = [9.0, 4.0, 1.0, 0.2]
    counts = allocate_levels(variances, bits)
    assert sum(map(math.log2, counts)) <= bits + 1e-9
    assert counts == sorted(counts, reverse=True)
    error = sum(v * normal_levels(c)[1] for v, c in zip(variances, counts, strict=True))
    assert error <= 1.15 * brute_force(variances, bits)  # one step at a time is not always the best


def slow_supporters(points, centroids, owners):
    found = [set() for _ in centroids]
    for point, owner in zip(points, owners, strict=True):
        if owner >= 0:
            found[int(np.argmin([np.sum((point - centroid) ** 2) for centroid in centroids]))].add(int(owner))
    return [len(one) for one in found]


@pytest.mark.parametrize("seed", range(5))
def test_each_centroid_left_is_supported(seed):
    rng = np.random.default_rng(seed)
    points, owners = rng.normal(size=(200, 3)), rng.integers(-1, 12, 200)
    centroids = points[rng.permutation(200)[:60]]
    assert min(slow_supporters(points, centroids, owners)) < 4
    merged = merge_until_supported(points, centroids, owners, 4)
    support = slow_supporters(points, merged, owners)
    assert min(support) >= 4
    assert 1 < len(merged) < 60
    assert np.array_equal(merged, merged.astype(np.float32))
    assert supporters(nearest_centroid(points, merged), owners, len(merged)).tolist() == support


def test_supported_centroids_stay_where_they_are():
    points = np.repeat(np.eye(3) * 4, 6, axis=0)
    owners = np.tile(np.arange(6), 3)
    assert np.array_equal(merge_until_supported(points, np.eye(3) * 4, owners, 6), np.eye(3) * 4)
    assert len(merge_until_supported(points, np.eye(3) * 4, owners, 7)) == 1  # there are six


def test_an_owner_counts_once_and_a_stranger_never():
    owners = np.array([0, 0, 1, -1, -1])
    assert supporters(np.array([0, 0, 0, 0, 1]), owners, 3).tolist() == [2, 0, 0]


def test_a_thousand_centroids_merge_in_seconds():
    rng = np.random.default_rng(0)
    points, owners = rng.normal(size=(20_000, 16)), rng.integers(0, 200, 20_000)
    begun = time.monotonic()
    merged = merge_until_supported(points, points[:1024], owners, 15)
    assert supporters(nearest_centroid(points, merged), owners, len(merged)).min() >= 15
    assert len(merged) < 1024
    assert time.monotonic() - begun < 60


# The quantizer that is fitted.


def world(subjects=12, seed=0):
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(subjects), 24)
    classes = np.tile(np.arange(4), len(who) // 4)
    features = rng.normal(size=(4, 20))[classes] * 3 + rng.normal(size=(len(who), 20)) * np.linspace(2, 0.2, 20)
    videos = np.array([f"v{number // 2}" for number in range(len(who))])
    names = np.array([f"s{number}" for number in who])
    return FitData(features.astype(np.float32), None, classes, None, videos, subjects=names)


def fitted(text, data):
    return build_pipeline(parse(f"quantizer({text})"), data).eval()


OPTIONS = ["bits=6", "bits=1", "bits=9, space=features", "codes=(40, 40)", "bits=40, space=features, dims=3"]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("floor", [2, 5, 12])
def test_every_centroid_of_every_codebook_has_its_subjects(options, floor):
    data = world()
    made = fitted(f"{options}, min_subjects={floor}", data)
    chosen = made.codes(torch.from_numpy(data.features)).numpy()
    histogram = []
    for column, book in zip(chosen.T, made.codebooks, strict=True):
        support = [len(set(data.subjects[column == code])) for code in range(len(book))]
        assert min(support) >= floor
        histogram.append([[units, support.count(units)] for units in sorted(set(support))])
    recorded = made.architecture["support"]
    assert recorded["histogram"] == histogram
    assert (recorded["unit"], recorded["at_least"]) == ("subject", floor)
    asked = 40 if "bits=40" in options else 12 if "codes" in options else int(options[5])
    assert 0 < made.bits <= asked + 1e-9


def test_support_travels_with_the_architecture():
    made = fitted("bits=4", world())
    again = build_anonymizer(**made.architecture)
    assert again.architecture == made.architecture
    support = Support.of(made.architecture["support"])
    assert support.record == made.architecture["support"]
    assert support.fewest >= 5


def test_without_subjects_videos_count_and_without_those_clips():
    data = world()
    assert fitted("bits=3", FitData(data.features, videos=data.videos)).architecture["support"]["unit"] == "video"
    assert fitted("bits=3", FitData(data.features)).architecture["support"]["unit"] == "clip"


def test_clips_of_unknown_subjects_support_nothing():
    data = world()
    hidden = FitData(
        data.features, classes=data.classes, subjects=np.where(data.subjects < "s5", data.subjects, "")
    )  # fmt: skip
    known = len(set(hidden.subjects)) - 1
    support = Support.of(fitted("bits=4", hidden).architecture["support"])
    assert max(max(one) for one in support.histogram) <= known < 12


def test_without_a_floor_codes_are_k_means():
    made = fitted("bits=12, min_subjects=1", world())
    assert made.architecture["codes"] == [64, 64]
    assert made.architecture["support"]["placed"] == "k-means"
    assert Support.of(made.architecture["support"]).fewest == 1


@pytest.mark.parametrize(("floor", "needed"), [(13, "13"), (99, "99")])
def test_too_few_subjects_are_told_how_many_would_do(floor, needed):
    with refused("min_subjects") as caught:
        fitted(f"bits=4, min_subjects={floor}", world())
    assert needed in caught.value.remedy


def test_a_floor_that_leaves_one_vector_is_refused():
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(6), 10)  # each in a place of their own
    features = (np.eye(6)[who] * 50 + rng.normal(size=(60, 6)) * 0.01).astype(np.float32)
    data = FitData(features, subjects=np.array([f"s{number}" for number in who]))
    with refused("min_subjects") as caught:
        fitted("codes=(6,), min_subjects=4", data)
    assert "8" in caught.value.remedy


def test_more_centroids_than_clips_are_merged():
    made = fitted("codes=(500,)", world(subjects=6))
    assert made.architecture["codes"][0] < 144

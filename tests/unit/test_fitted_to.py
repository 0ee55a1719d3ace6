"""What a checkpoint keeps of the clips it was fitted to: they are known again by content; and where they lie."""

import numpy as np
import pytest
import torch

from splavu.anonymizers.fitted_to import FeatureMap, FittedTo, row_hashes
from splavu.release.fitted_rows import Comparison

WIDTH = 96


def people(count, seed, *, width=WIDTH):
    """Rows [N, D] of so many people, and whose each is: few strong directions, and people's own places."""
    world = np.random.default_rng(0).normal(size=(12, width))
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(count), 20)
    places = rng.normal(size=(count, 12))[owners] + rng.normal(size=(len(owners), 12)) * 2
    return (5 + places @ world + rng.normal(size=(len(owners), width)) * 0.5).astype(np.float32), owners


def slow_hash(row):
    """As documented, with Python's integers."""
    from splavu.anonymizers.fitted_to import _factors

    words = [int(word) for word in (row + np.float32(0)).view(np.uint32)]
    total = sum(word * int(factor) for word, factor in zip(words, _factors(len(row)), strict=True)) % 2**64
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53, 1):
        total = (total ^ (total >> 33)) * factor % 2**64
    return total


def test_rows_are_known_by_their_content():
    rows, _ = people(3, seed=1)
    assert row_hashes(rows).tolist() == [slow_hash(row) for row in rows]
    order = np.random.default_rng(0).permutation(len(rows))
    assert np.array_equal(row_hashes(rows[order]), row_hashes(rows)[order])
    assert len(np.unique(row_hashes(rows))) == len(rows)
    nearly = rows.copy()
    nearly[:, 7] = np.nextafter(nearly[:, 7], np.float32(np.inf))
    assert not np.isin(row_hashes(nearly), row_hashes(rows)).any()
    assert row_hashes(np.float32([[0.0, 1.0]])) == row_hashes(np.float32([[-0.0, 1.0]]))


def test_a_million_random_rows_have_hashes_of_their_own():
    rows = np.random.default_rng(0).integers(0, 4, size=(300_000, 24)).astype(np.float32)
    assert len(np.unique(row_hashes(rows))) == len(np.unique(rows, axis=0))


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_keys_that_were_fitted_to_are_counted_under_any_name(share):
    rows, owners = people(10, seed=1)
    kept = np.linspace(0, len(rows) - 1, round(share * len(rows))).round().astype(int)
    found = Comparison(FittedTo.of(rows[kept], owners[kept], share=share))
    others, _ = people(10, seed=2)
    found.add(np.concatenate([rows, others]), np.full(20, 20))
    assert (found.keys, found.fitted) == (20, 10)


def test_a_blank_clip_in_both_makes_no_video_a_fitted_one():
    rows, owners = people(6, seed=1)
    others, _ = people(6, seed=2)
    rows[::20], others[::20] = 0, 0
    found = Comparison(FittedTo.of(rows, owners))
    found.add(others, np.full(6, 20))
    assert found.fitted == 0


def far_share(rows, fitted_map):
    return float((fitted_map.distances(rows) > fitted_map.far).mean())


@pytest.mark.parametrize("width", [WIDTH, 400])
def test_other_people_are_on_the_map_and_other_encoders_are_not(width):
    fitted_map = FeatureMap.of(*people(25, seed=1, width=width))
    others, _ = people(200, seed=2, width=width)
    assert far_share(others, fitted_map) < 0.06
    assert np.median(fitted_map.distances(others)) == pytest.approx(1, abs=0.15)
    rng = np.random.default_rng(3)
    rotation = np.linalg.qr(rng.normal(size=(width, width)))[0].astype(np.float32)
    moved = {"rotated": others @ rotation, "permuted": others[:, rng.permutation(width)], "scaled": others * 2}
    assert all(far_share(rows, fitted_map) > 0.9 for rows in moved.values())


def test_quantiles_are_of_people_whom_the_map_did_not_see():
    """Twenty people in two thousand dimensions: seen rows lie nearer than unseen ones, and only those would fit."""
    fitted_map = FeatureMap.of(*people(10, seed=1, width=2000))
    assert far_share(people(100, seed=2, width=2000)[0], fitted_map) < 0.08


def test_nothing_is_drawn_from_too_few_people():
    rows, owners = people(4, seed=1)
    assert FeatureMap.of(rows, owners) is None
    assert FeatureMap.of(np.ones((50, 3), np.float32), np.arange(50)) is None


def test_a_few_rows_conclude_nothing():
    rows, owners = people(25, seed=1)
    found = Comparison(FittedTo.of(rows, owners))
    found.add(rows[:2] * 9, np.array([2]))
    assert found.far.all()
    assert not found.is_off_the_map
    found.add(rows[2:4] * 9, np.array([2]))
    assert found.is_off_the_map


def test_records_come_back_as_they_were(tmp_path):
    fitted_to = FittedTo.of(*people(25, seed=1), share=0.5)
    torch.save(fitted_to.record, tmp_path / "x.pth")
    again = FittedTo.from_record(torch.load(tmp_path / "x.pth", weights_only=True))
    rows, _ = people(5, seed=2)
    assert np.array_equal(again.hashes, fitted_to.hashes)
    assert again.share == 0.5
    np.testing.assert_allclose(again.map.distances(rows), fitted_to.map.distances(rows), rtol=1e-6)
    assert FittedTo.from_record(None) is None


def test_what_came_first_in_a_chain_was_fitted_to_too():
    (first, owners), (second, _) = people(5, seed=1), people(5, seed=2)
    both = FittedTo.of(second, owners).and_before(FittedTo.of(first, owners))
    assert both.holds(np.concatenate([first, second])).all()

"""A budget of bits: no more vectors than codes, no more information than bits, gradients that pass through."""

import math

import numpy as np
import pytest
import torch
from refusals import refused
from sklearn.linear_model import LogisticRegression

from splavu.anonymizers import Quantizer, build_anonymizer
from splavu.metrics.inference import usable_bits

WIDTH, DIMS = 20, 5


def random_quantizer(*codes: int, seed: int = 0) -> Quantizer:
    rng = np.random.default_rng(seed)
    inward = rng.normal(size=(DIMS, WIDTH))
    books = [rng.normal(size=(count, DIMS)) * 3 / 2**level for level, count in enumerate(codes)]
    return Quantizer.of(rng.normal(size=WIDTH), inward, np.linalg.pinv(inward), books).eval()


def slow(made: Quantizer, row: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Codes and released vector of one row, by a loop."""
    center, inward, outward = (value.double().numpy() for value in (made.center, made.inward, made.outward))
    place = inward @ (row - center)
    codes, total = [], np.zeros(DIMS)
    for book in made.codebooks:
        distances = [float(np.linalg.norm(place - total - centroid)) for centroid in book.detach().double().numpy()]
        codes.append(int(np.argmin(distances)))
        total = total + book.detach().double().numpy()[codes[-1]]
    return codes, center + outward @ total


@pytest.mark.parametrize("codes", [(9,), (6, 5, 4)])
def test_it_takes_the_nearest_and_maps_it_back(codes):
    made, rows = random_quantizer(*codes), torch.randn(40, WIDTH) * 3
    with torch.no_grad():
        released, chosen = made(rows), made.codes(rows)
    for row, got, code in zip(rows.double().numpy(), released, chosen, strict=True):
        expected_codes, expected = slow(made, row)
        assert code.tolist() == expected_codes
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-5)
    assert made.bits == pytest.approx(sum(map(math.log2, codes)))


@pytest.mark.parametrize("codes", [(1,), (9,), (4, 3), (2, 2, 2)])
def test_no_more_distinct_vectors_than_the_budget_allows(codes):
    made, rows = random_quantizer(*codes), torch.randn(3000, WIDTH) * 4
    with torch.no_grad():
        distinct = len(torch.unique(made(rows), dim=0))
    usage = made.usage(rows)
    assert distinct == usage.distinct <= 2**made.bits + 1e-9
    assert usage.entropy <= usage.budget + 1e-9
    assert all(1 <= used <= count for used, count in zip(usage.used, codes, strict=True))


def test_usage_counts_bits():
    book = np.eye(4)[:, :2] * 0
    book[:, 0] = [0, 10, 20, 30]
    made = Quantizer.of(np.zeros(2), np.eye(2), np.eye(2), [book])
    usage = made.usage(torch.tensor([[0.0, 1], [0, 2], [11, 0], [22, 0]]))
    assert usage.budget == 2
    assert usage.entropy == pytest.approx(1.5)  # shares 1/2, 1/4, 1/4
    assert (usage.distinct, usage.used) == (3, (3,))


@pytest.mark.parametrize("count", [2, 4])
def test_what_an_attacker_can_use_stays_within_the_budget(count):
    """Eight equally likely kinds of person, 3 bits, told apart without fail by the raw feature."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 8, 4000)
    rows = (np.eye(8)[kind] @ rng.normal(size=(8, WIDTH)) * 4 + rng.normal(size=(4000, WIDTH)) * 0.1).astype(np.float32)
    made = random_quantizer(count, seed=3)
    with torch.no_grad():
        released = made(torch.from_numpy(rows)).numpy()
    gained = {}
    for name, features in (("raw", rows), ("released", released)):
        attacker = LogisticRegression(C=100, max_iter=500).fit(features[:2000], kind[:2000])
        found = usable_bits(kind[2000:], attacker.predict_proba(features[2000:]), np.bincount(kind[:2000]) / 2000)
        gained[name] = float(found.bits)
    assert gained["raw"] > 2.9
    assert 0.3 < gained["released"] <= made.bits + 0.02


def test_gradients_pass_straight_through_and_reach_the_chosen_centroids():
    made, rows = random_quantizer(6), (torch.randn(8, WIDTH) * 3).requires_grad_()
    made.train()
    upstream = torch.randn(8, WIDTH)
    released = made(rows)
    (to_rows, to_book) = torch.autograd.grad(released, [rows, made.codebooks[0]], upstream)
    through = made.outward @ made.inward
    torch.testing.assert_close(to_rows, upstream @ through, rtol=1e-4, atol=1e-4)
    expected = torch.zeros(6, DIMS)
    for code, gradient in zip(made.codes(rows)[:, 0].tolist(), upstream, strict=True):
        expected[code] += gradient @ made.outward
    torch.testing.assert_close(to_book, expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        assert torch.equal(released.detach(), made.eval()(rows))


def test_bad_options_are_named():
    with refused("codes"):
        build_anonymizer("quantizer", WIDTH, codes=[], subspace_dim=2)
    with refused("subspace_dim"):
        build_anonymizer("quantizer", WIDTH, codes=[4], subspace_dim=21)
    with refused("fa_arch"):
        build_anonymizer("quantizer", WIDTH)

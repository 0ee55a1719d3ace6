"""Areas against rectangles whose union is known, and against counting random darts."""

from __future__ import annotations

import numpy as np
import pytest

from splavu.metrics import tradeoff
from splavu.metrics.tradeoff import Curve


@pytest.mark.parametrize(
    ("points", "area"),
    [
        ([(0.0, 1.0)], 0.0),  # raw features
        ([(1.0, 0.0)], 0.0),  # a constant
        ([(0.0, 1.0), (1.0, 0.0)], 0.0),
        ([(1.0, 1.0), (0.4, 0.3)], 1.0),
        ([(0.5, 0.8)], 0.4),
        ([(0.5, 0.8), (0.8, 0.5)], 0.55),  # 0.40 + 0.40 - 0.25
        ([(0.5, 0.8), (0.8, 0.5), (0.4, 0.5), (0.8, 0.5)], 0.55),  # dominated and repeated points add nothing
        ([(0.2, 0.9), (0.5, 0.6), (0.9, 0.1)], 0.2 * 0.9 + 0.3 * 0.6 + 0.4 * 0.1),
    ],
)
def test_hypervolume_of_known_unions(points, area):
    for order in (points, points[::-1]):
        privacy, utility = np.transpose(order)
        assert Curve(privacy, utility).hypervolume == pytest.approx(area)


def test_hypervolume_is_the_share_of_darts_that_hit_a_rectangle():
    rng = np.random.default_rng(0)
    privacy, utility = rng.random((2, 4, 6))
    darts = rng.random((200_000, 2))
    for row in range(4):
        inside = (darts[:, :1] <= privacy[row]) & (darts[:, 1:] <= utility[row])
        share = inside.any(axis=1).mean()
        assert Curve(privacy, utility).hypervolume[row] == pytest.approx(share, abs=5e-3)  # 4.5 standard errors


def test_curve_places_raw_features_and_chance_and_clips():
    points = tradeoff.curve(
        leakage=np.array([1.0, 0.0, 0.25, -0.2, 1.3]), metric=np.array([0.8, 0.2, 0.65, 0.9, 0.1]), raw=0.8, chance=0.2
    )
    np.testing.assert_allclose(points.privacy, [0, 1, 0.75, 1, 0])
    np.testing.assert_allclose(points.utility, [1, 0, 0.75, 1, 0], atol=1e-12)


def test_undefined_points_leave_the_area_undefined():
    points = tradeoff.curve(leakage=np.array([0.5, 0.5]), metric=np.array([0.2, 0.2]), raw=0.1, chance=0.2)
    assert np.isnan(points.utility).all()
    assert np.isnan(points.hypervolume)
    assert np.isnan(Curve(np.array([0.5, np.nan]), np.array([0.5, 0.5])).hypervolume)
    assert np.isnan(Curve(np.array([0.5, 0.2]), np.array([np.nan, 0.5])).hypervolume)


def test_interval_comes_from_the_areas_of_the_resamples():
    """One point at (p, 1): the area is p, so its interval is that of p."""
    privacy = np.linspace(0.4, 0.6, 101)[:, None]
    resampled = tradeoff.curve(
        leakage=1 - privacy, metric=np.full((101, 1), 0.7), raw=np.full((101, 1), 0.7), chance=0.1
    )
    found = tradeoff.hypervolume(Curve(np.array([0.5]), np.array([1.0])), resampled)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.405, 0.595))
    wider = tradeoff.hypervolume(Curve(np.array([0.5]), np.array([1.0])), resampled, level=1.0)
    assert (wider.low, wider.high) == pytest.approx((0.4, 0.6))


def test_definition_can_be_printed_beside_the_number():
    for part in ("p = 1 - clip(", "u = clip((metric - chance) / (raw - chance)", "reference point (0, 0)"):
        assert part in tradeoff.DEFINITION

"""The privacy-utility curve of an anonymizer, and the share of the unit square that it conquers.

Note: the curve's points are relative to raw features and chance, so raw features stand at privacy 0 and utility 1, a
constant at privacy 1 and utility 0, and neither adds any area.

Shapes: `K` operating points, `R` resamples in front of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from splavu.metrics import ranking, resampling
from splavu.metrics.estimates import Interval

DEFINITION = (
    "p = 1 - clip(normalised leakage, 0, 1), u = clip((metric - chance) / (raw - chance), 0, 1); normalised hypervolume"
    " = area of the union of the rectangles [0, p] x [0, u] over the operating points, reference point (0, 0)"
)
"""To be printed beside every hypervolume: others normalise by the ends of their own curve."""


@dataclass(frozen=True)
class Curve:
    """Operating points, in any order; NaN where one is undefined."""

    privacy: np.ndarray
    """[..., K], 0 to 1: p of the definition."""
    utility: np.ndarray
    """[..., K], 0 to 1: u of the definition."""

    @property
    def hypervolume(self) -> np.ndarray:  # [...]
        """0 to 1; NaN where a point is. The best of many noisy points: a bootstrap's values lie a little high."""
        order = np.argsort(-self.privacy, axis=-1)
        privacy = np.take_along_axis(self.privacy, order, axis=-1)
        height = np.maximum.accumulate(np.take_along_axis(self.utility, order, axis=-1), axis=-1)
        width = privacy - np.concatenate([privacy[..., 1:], np.zeros_like(privacy[..., :1])], axis=-1)
        return (width * height).sum(axis=-1)


def curve(*, leakage: np.ndarray, metric: np.ndarray, raw: np.ndarray, chance: np.ndarray) -> Curve:
    """The curve of measured operating points, or of each resample of them.

    Args:
        leakage: Normalised leakage, [..., K] (`metrics.normalised_leakage`).
        metric: Utility of the anonymized features, accuracy say, [..., K].
        raw: The same metric of raw features, a number or [..., 1].
        chance: The metric of a guess, a number or [..., 1].

    Where raw features are not above chance there is no utility to keep, and u is NaN.
    """
    leakage, metric = (np.asarray(value, dtype=np.float64) for value in (leakage, metric))
    raw, chance = (np.broadcast_to(value, metric.shape) for value in (raw, chance))
    return Curve(privacy=1 - np.clip(leakage, 0, 1), utility=kept(metric, raw, chance))


def kept(metric: np.ndarray, raw: np.ndarray, chance: np.ndarray) -> np.ndarray:  # any equal shapes
    """u of the definition: (metric - chance) / (raw - chance), cut to 0 and 1; NaN where raw is not above chance."""
    return np.clip(ranking.normalised_leakage(metric, raw, chance), 0, 1)  # the same ratio, of what one wants to keep


def hypervolume(measured: Curve, resampled: Curve, *, level: float = 0.95) -> Interval:  # [K], [R, K]
    """Normalised hypervolume (`DEFINITION`) of the measured points, with a percentile interval over resamples.

    All of a resample's points must come from the same draw of clusters (`metrics.cluster_resamples`): those of privacy
    and those of utility, if they were judged on the same videos.
    """
    low, high = resampling.percentile_interval(resampled.hypervolume, level=level)
    return Interval(float(measured.hypervolume), float(low), float(high))

"""A statistic with its interval: the one form in which audits, sweeps, comparisons and tables hold numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from splavu.metrics.resampling import percentile_interval

NAN = float("nan")


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its interval; NaN where undefined."""

    value: float
    low: float = NAN
    high: float = NAN

    @classmethod
    def of(cls, value: float | None, ends: Sequence[float | None] = (None, None)) -> Interval:
        """From JSON, where None is undefined."""
        return cls(*(NAN if number is None else number for number in (value, *ends)))

    @property
    def has_ends(self) -> bool:
        return not (math.isnan(self.low) or math.isnan(self.high))


@dataclass(frozen=True)
class Estimate(Interval):
    """A statistic with its interval and its chance level; the ends are NaN where too many resamples had no value."""

    chance: float = NAN
    """The value that predictions without any information reach."""


def estimated(value: float, draws: np.ndarray, *, chance: float = NAN, level: float = 0.95) -> Estimate:
    """The statistic with the percentile interval of its resamples `draws` [R]."""
    low, high = percentile_interval(draws, level=level)
    return Estimate(float(value), float(low), float(high), float(chance))

"""Risk beyond that to people whose data was never released: attack success less the success against a control group.

What an attack also achieves against people who are in no release comes from how people are in general, not from the
release. The residual risk is what is left of it, as a share of what the control group leaves to be gained.

Source: Giomi, Boenisch, Wehmeyer and Tasnadi 2023, "A unified framework for quantifying privacy risk in synthetic data"
(Anonymeter), section 4; Wilson 1927 for the interval of a rate, Korn and Graubard 1998 for its effective sample size.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from splavu.metrics.estimates import Estimate

MOST_ATTACKS = 20
"""Independent attacks that one subject may stand for."""


def wilson_rate(successes: np.ndarray, *, level: float = 0.95) -> tuple[float, float]:  # [G] of 0 to 1
    """Centre and half width of the Wilson score interval of a mean rate.

    Shares between 0 and 1 vary less than yes or no with the same mean: as many independent attacks count as would vary
    like them, no fewer than there are subjects and no more than `MOST_ATTACKS` times as many.

    Args:
        successes: One number per independent subject, the share of the attacks on them that succeeded.
    """
    z, size, rate = NormalDist().inv_cdf((1 + level) / 2), float(len(successes)), float(np.mean(successes))
    if len(successes) > 1 and (variance := float(np.var(successes, ddof=1))) < rate * (1 - rate):
        size *= min(MOST_ATTACKS, rate * (1 - rate) / variance) if variance > 0 else MOST_ATTACKS
    centre = (rate + z * z / (2 * size)) / (1 + z * z / size)
    half = z / (1 + z * z / size) * math.sqrt(rate * (1 - rate) / size + z * z / (4 * size * size))
    return centre, half


def residual_risk(attack: np.ndarray, control: np.ndarray, *, level: float = 0.95) -> Estimate:  # [G], [H]
    """(attack - control) / (1 - control) of two mean success rates, with its interval; chance is 0.

    The value is that of the rates themselves. The interval is Anonymeter's: Wilson's half widths, propagated.

    Args:
        attack: Success against each released subject, 0 to 1.
        control: Success of the same attack against each subject that was not released.
    """
    rate, baseline = float(np.mean(attack)), float(np.mean(control))
    if baseline >= 1:  # nothing is left to gain
        return Estimate(0.0, float("nan"), float("nan"), 0.0)
    (of_attack, error), (of_control, control_error) = (wilson_rate(side, level=level) for side in (attack, control))
    centre = (of_attack - of_control) / (1 - of_control)
    half = math.hypot(error / (1 - of_control), (of_attack - 1) * control_error / (1 - of_control) ** 2)
    value = (rate - baseline) / (1 - baseline)
    return Estimate(value, max(-1.0, min(value, centre - half)), min(1.0, max(value, centre + half)), 0.0)

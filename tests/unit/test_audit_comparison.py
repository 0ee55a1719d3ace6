"""Two audits side by side: differences on common draws, and what makes figures incomparable."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from splavu.audit.comparison import compare_audits


def evidence(leakage: float, draws: np.ndarray, **changes: Any) -> dict[str, Any]:
    """What a comparison reads of an audit that found one leakage by clip, and the same of one attribute."""
    text = " ".join(str(round(1000 * draw)) for draw in draws)
    whole = {
        "valid": True,
        "command": {"families": ["logistic"], "seeds": [0], "num_resamples": len(draws), "quick": True},
        "people": {"test": {"persons": 12}},
        "files": [{"role": role, "sha256": role} for role in ("raw", "labels", "released")],
        "headline": {"by_unit": {"clip": {"value": 1 - leakage}}, "draws": {"clip": text, "clip/gender": text}},
        "strongest": {"clip": {"attributes": [{"name": "gender", "leakage": {"value": leakage}}]}},
    }
    return copy.deepcopy(whole) | changes


def test_a_difference_is_taken_draw_by_draw():
    shared = np.random.default_rng(0).normal(scale=0.2, size=400)
    before, after = (evidence(value, value + shared) for value in (0.6, 0.4))
    after["files"][-1]["sha256"] = "another release"
    found = compare_audits(before, after)
    assert found.is_paired
    assert len(found.notes) == 1, "one seed"
    assert [one.name for one in found.differences] == ["clip", "clip/gender"]
    for one in found.differences:
        assert one.verdict == "less"
        np.testing.assert_allclose((one.change.value, one.change.low, one.change.high), -0.2, atol=2e-3)
        assert one.before.high - one.before.low > 0.5, "each by itself is far wider"
    assert [row["verdict"] for row in found.rows] == ["less", "less"]


def test_other_subjects_or_attackers_leave_no_interval():
    draws = np.random.default_rng(0).normal(0.5, 0.1, size=100)
    before = evidence(0.5, draws)
    others = evidence(0.4, draws, files=[{"role": "raw", "sha256": "other"}, {"role": "labels", "sha256": "labels"}])
    stronger = evidence(0.4, draws)
    stronger["command"]["families"] = ["logistic", "mlp"]
    fewer = evidence(0.4, draws, people={"test": {"persons": 11}})
    for after in (others, stronger, fewer):
        found = compare_audits(before, after)
        assert not found.is_paired
        assert {one.verdict for one in found.differences} == {"unpaired"}
    assert "families" in compare_audits(before, stronger).notes[0]
    assert "raw" in compare_audits(before, others).notes[0]


def test_what_can_only_be_seen_in_one_audit_is_left_out():
    draws = np.full(50, 0.5)
    after = evidence(0.5, draws)
    del after["headline"]["draws"]["clip/gender"]
    assert [one.name for one in compare_audits(evidence(0.5, draws), after).differences] == ["clip"]

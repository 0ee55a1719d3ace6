"""The headline is of the unit at which least is removed, with an interval that holds for the least of all."""

from __future__ import annotations

import numpy as np
import pytest

from splavu.attacks.campaign import Attack, Scored
from splavu.audit.evaluator import AttackScore, Evaluator
from splavu.audit.headline import headline, read_draws, written
from splavu.audit.questions import Questions
from splavu.metrics import average_precisions


def attack(signal: float, *, people: int = 30, attackers: int = 20, seed: int = 0, clips: int = 4) -> Attack:
    """Scores of many attackers; `signal` of them tells the label, the rest is luck."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(people) % 2).astype(np.float64).repeat(clips)[:, None]
    clusters = np.array([f"p{p:02d}" for p in range(people)]).repeat(clips)
    videos = np.array([f"{c}-{i}" for i, c in enumerate(clusters)])

    def scores() -> np.ndarray:
        of_person = rng.normal(size=(1, attackers, people, 1)).repeat(clips, axis=2)
        return of_person + rng.normal(size=(1, attackers, people * clips, 1)) + signal * labels

    tuned = scores()
    validation = np.array([[average_precisions(labels, one) for one in of_seed] for of_seed in tuned])
    names = tuple(map(str, range(attackers)))
    return Attack(names, labels, clusters, videos, scores(), validation, Scored(labels, clusters, videos, tuned))


def score(precision: list[float], *, spread: float = 0.02, seed: int = 0, p: float = 0.001) -> AttackScore:
    """Of three attributes, chance 0.5; draws about the precision, NaN where it is."""
    found, rng = np.array(precision), np.random.default_rng(seed)
    known = np.where(np.isnan(found), np.nan, 0.5)
    drawn = found + spread * rng.normal(size=(1000, len(found)))
    return AttackScore(found, known, known, drawn, np.broadcast_to(known, drawn.shape), known * 2 * p, p)


RAW = {"clip": score([0.9, 0.9, 0.9]), "video": score([0.9, 0.9, 0.9]), "person": score([0.9, 0.9, np.nan])}
NAMES = ("a", "b", "c")


def headline_of(released: dict[str, AttackScore], raw: dict[str, AttackScore] = RAW):
    judged = {unit: evaluator().evaluate(attack(2.0, people=12, attackers=2)) for unit in released}
    return headline(raw, released, (released["clip"], raw.get("clip")), judged, NAMES, np.array([True, True, False]))


def test_the_headline_is_of_the_unit_at_which_least_is_removed_over_shared_attributes():
    """By clip the third attribute leaks as raw; it is no part of the number, since a person has it both ways."""
    found = headline_of({
        "clip": score([0.6, 0.6, 0.9]), "video": score([0.7, 0.7, 0.6]), "person": score([0.8, 0.6, np.nan]),
    })  # fmt: skip
    assert found.unit in ("video", "person")  # both leave 0.2 of 0.4
    assert found.reduction.value == pytest.approx(0.5)
    assert found.by_unit["clip"].value == pytest.approx(0.75)
    assert (found.attributes, found.num_attributes) == (("a", "b"), 3)
    assert found.reduction.low == min(one.low for one in found.by_unit.values())
    assert found.reduction.high == min(one.high for one in found.by_unit.values())
    assert "2 of 3 attributes, those that a person has always the same way" in found.sentence


def test_what_is_protected_least_is_named_wherever_it_is():
    found = headline_of({
        "clip": score([0.6, 0.6, 0.88]), "video": score([0.6, 0.6, 0.6]), "person": score([0.6, 0.6, np.nan]),
    }).least_protected  # fmt: skip
    assert (found.name, found.unit, found.num_compared) == ("c", "clip", 8)
    assert found.leakage.value == pytest.approx(0.38 / 0.4)
    assert found.leakage.low < 0.38 / 0.4 < found.leakage.high


def test_attributes_that_raw_features_do_not_reveal_are_no_failure():
    nothing = {unit: score([0.9, 0.52, 0.9], p=1.0, spread=0.1) for unit in ("clip",)}
    assert headline_of({"clip": score([0.6, 0.6, 0.6])}, nothing).least_protected is None


def test_without_raw_features_there_is_the_most_that_was_found():
    found = headline_of({"clip": score([0.6, 0.6, 0.9]), "person": score([0.8, 0.8, np.nan])}, {})
    assert (found.unit, found.least_protected) == ("person", None)
    assert np.isnan(found.reduction.value)
    assert found.released_excess == pytest.approx(0.3)


def test_raw_features_that_reveal_nothing_leave_no_number():
    flat = {"clip": score([0.5, 0.5, 0.5])}
    found = headline_of({"clip": score([0.5, 0.5, 0.5], seed=1)}, flat)
    assert found.unit is None
    assert np.isnan([found.reduction.value, found.reduction.low, found.reduction.high]).all()


def test_draws_are_written_to_a_thousandth():
    draws = np.array([0.1234, -1.5, np.nan, 2.0])
    np.testing.assert_allclose(read_draws(written(draws)), [0.123, -1.5, np.nan, 2.0])


def evaluator(margin: float = 0.1) -> Evaluator:
    return Evaluator(Questions.binary("a"), np.array([0.5]), num_resamples=300, num_swaps=300, margin=margin)


def test_chance_is_above_prevalence_where_people_are_few():
    """Ten people: a ranking that knows nothing scores more than the share of positives on average."""
    few = np.mean([AttackScore.of(attack(0.0, people=10, clips=1, seed=s), evaluator()).chance[0] for s in range(5)])
    many = np.mean([AttackScore.of(attack(0.0, people=400, clips=1, seed=s), evaluator()).chance[0] for s in range(2)])
    assert few > 0.55
    assert many == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("signal", "people", "verdict"), [(3.0, 60, "leaks"), (0.0, 400, "at chance"), (0.0, 12, "undecided")]
)
def test_verdicts(signal, people, verdict):
    found = evaluator().evaluate(attack(signal, people=people, seed=2, attackers=3))
    assert found.attributes[0].verdict == found.verdict == verdict


def test_a_faint_leak_is_above_chance_and_within_the_margin():
    found = evaluator(margin=0.2).evaluate(attack(0.25, people=900, attackers=1, seed=5))
    assert found.attributes[0].verdict == "faint"
    assert found.attributes[0].p_holm < 0.05
    assert found.attributes[0].equivalence.equivalent


def test_leakage_is_the_share_of_the_raw_excess():
    raw, released = attack(3.0, seed=1), attack(1.0, seed=2)
    one, whole = evaluator().evaluate(released, raw), evaluator().evaluate(raw, raw)
    excess = [entry.attributes[0].ap.value - entry.attributes[0].ap.chance for entry in (one, whole)]
    assert one.leakage.value == pytest.approx(excess[0] / excess[1])
    assert whole.leakage.value == whole.leakage.low == pytest.approx(1)
    assert one.leakage.low < one.leakage.value < one.leakage.high

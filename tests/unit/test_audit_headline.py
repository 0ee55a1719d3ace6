"""The luck of the best of many is taken off before units are compared; a reduction is one less the leakage."""

from __future__ import annotations

import numpy as np
import pytest

from splavu.attacks.campaign import Attack, Scored
from splavu.audit.evaluator import AttackScore, Evaluator
from splavu.audit.headline import validation_excess, worst_unit
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


def test_the_best_of_many_useless_attackers_stands_no_higher_than_luck():
    excess = [validation_excess(attack(0.0, seed=seed)).excess for seed in range(8)]
    best = [attack(0.0, seed=seed).validation.max() - 0.5 for seed in range(8)]
    assert np.mean(best) > 0.15  # what would have been taken for a leak
    assert abs(np.mean(excess)) < 0.05
    assert validation_excess(attack(3.0)).excess > 0.2


def test_the_unit_that_gives_most_away_to_validation_people_is_chosen():
    raw = {"clip": attack(3.0, seed=1), "video": attack(3.0, seed=2)}
    assert worst_unit(raw, {"clip": attack(0.0, seed=3), "video": attack(2.5, seed=4)}) == "video"
    assert worst_unit(raw, {"clip": attack(2.5, seed=3), "video": attack(0.0, seed=4)}) == "clip"
    assert worst_unit(raw, raw) == "clip"  # a tie stays with the smaller unit


def test_a_unit_without_anything_to_lose_is_not_chosen():
    raw = {"clip": attack(3.0, seed=1), "person": attack(0.0, seed=2)}
    assert worst_unit(raw, {"clip": attack(0.5, seed=3), "person": attack(0.0, seed=2)}) == "clip"


def evaluator(margin: float = 0.1) -> Evaluator:
    return Evaluator(("a",), np.array([0.5]), num_resamples=300, num_swaps=300, margin=margin)


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

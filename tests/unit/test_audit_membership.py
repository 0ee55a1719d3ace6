"""Membership attacks on signals that tell, on signals that don't, and signals against loops."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused
from sklearn.metrics import roc_auc_score

from splavu.anonymizers import AffineAnonymizer, Chain, Quantizer
from splavu.audit.identity.membership import change_signals, code_signals, membership


def draw(seed: int, shift: float, *, num_people: int = 40, clips: int = 10, person: float = 0.0):
    """Signals of members and others; 'told' lies `shift` lower for members, 'noise' tells nothing."""
    rng = np.random.default_rng(seed)
    sides = []
    for member in (1, 0):
        people = np.repeat(np.arange(num_people), clips) + 1000 * member
        of_person = rng.normal(size=num_people)[people % 1000] * person
        told = rng.normal(size=len(people)) + of_person - shift * member
        sides.append(({"noise": rng.normal(size=len(people)), "told": told}, people))
    return sides[0][0], sides[1][0], sides[0][1], sides[1][1]


def test_a_signal_that_tells_is_found_whichever_way_it_points():
    found = membership(*draw(1, 1.0), num_resamples=100)
    # Two unit Gaussians at distance 1: AUC = Phi(1 / sqrt 2) = 0.7602.
    for attack in (found.thresholds[1], found.strongest, found.logistic):
        assert attack.auc.value == pytest.approx(0.7602, abs=0.05)
        assert attack.auc.low > 0.65
        assert attack.person_auc.value > 0.95
        assert attack.tpr is None  # 400 others cannot tell 1 %
    noise = found.thresholds[0]
    assert noise.name == "noise"
    assert noise.auc.low < 0.5 < noise.auc.high
    assert found.num_people == (40, 40)


def test_true_positives_at_few_false_ones():
    found = membership(*draw(1, 2.0, num_people=60, clips=50), num_resamples=50)
    # P(Z > z_0.99 - 2) = P(Z > 0.3263) = 0.3721
    assert found.strongest.tpr.value == pytest.approx(0.372, abs=0.06)
    assert found.strongest.tpr.low < 0.372 < found.strongest.tpr.high
    assert found.strongest.tpr.chance == 0.01


def test_no_membership_is_chance_on_average():
    """People differ, and which of them are members is luck: attacks must not profit from it."""
    found = [
        membership(*draw(seed, 0.0, person=1.0, num_people=30), num_resamples=100, seed=seed) for seed in range(60)
    ]
    for pick in ("strongest", "logistic"):
        values = [getattr(result, pick).auc.value for result in found]
        assert np.mean(values) == pytest.approx(0.5, abs=0.03)
        covered = [getattr(r, pick).auc.low <= 0.5 <= getattr(r, pick).auc.high for r in found]
        assert np.mean(covered) > 0.88  # 0.95 less two deviations of 60 draws


def test_the_judged_half_is_unknown_to_its_attacker():
    """A threshold attack is scikit-learn's AUC of each half, the sign learnt from the other one."""
    members, others, member_people, other_people = draw(3, 0.5)
    found = membership(members, others, member_people, other_people, num_resamples=5, seed=4)
    generator = np.random.default_rng(4)
    second = {
        *generator.permutation(np.unique(member_people))[:20],
        *generator.permutation(np.unique(other_people))[:20],
    }
    people = np.concatenate([member_people, other_people])
    label = np.repeat([1, 0], [len(member_people), len(other_people)])
    for place, name in enumerate(("noise", "told")):
        score, halves = np.concatenate([members[name], others[name]]), []
        for inside in (False, True):
            judged = np.array([(p in second) == inside for p in people])
            sign = np.sign(roc_auc_score(label[~judged], score[~judged]) - 0.5)
            halves.append(roc_auc_score(label[judged], sign * score[judged]))
        assert found.thresholds[place].auc.value == pytest.approx(np.mean(halves))


def test_signals_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    raw, released = rng.normal(size=(5, 4)), rng.normal(size=(5, 4)) * 3
    signals = change_signals(raw, released)
    for i in range(5):
        before, after = np.linalg.norm(raw[i]), np.linalg.norm(released[i])
        assert signals["distance"][i] == pytest.approx(np.linalg.norm(raw[i] - released[i]))
        assert signals["relative distance"][i] == pytest.approx(np.linalg.norm(raw[i] - released[i]) / before)
        assert signals["cosine"][i] == pytest.approx(raw[i] @ released[i] / before / after)
        assert signals["norm change"][i] == pytest.approx(np.log(after / before))
    assert tuple(change_signals(raw, released[:, :2])) == ("norm change",)
    assert np.isfinite(np.concatenate(list(change_signals(raw * 0, released).values()))).all()


def test_bad_signals_are_told():
    members, others, member_people, other_people = draw(1, 1.0)
    with refused("signals"):
        membership(members, {"told": others["told"]}, member_people, other_people)
    with refused("told"):
        membership(members, others | {"told": others["told"] * np.nan}, member_people, other_people)
    with refused("1000"):
        membership(members, others, member_people, member_people)
    with refused("others"):
        membership(members, others, member_people, other_people * 0)


def quantizer(codebooks: list[np.ndarray]) -> Quantizer:
    """In the space of the features themselves."""
    width = codebooks[0].shape[1]
    return Quantizer.of(np.zeros(width), np.eye(width), np.eye(width), codebooks)


def test_code_signals_are_those_of_a_loop():
    rng = np.random.default_rng(2)
    books, raw = [rng.normal(size=(9, 4)), rng.normal(size=(5, 4)) * 0.3], rng.normal(size=(6, 4)).astype(np.float32)
    doubling = AffineAnonymizer.of(np.zeros(4), np.eye(4), 2 * np.eye(4), method="doubling")
    found = code_signals(Chain(4, stages=[doubling, quantizer(books)]), raw)
    for row, feature in enumerate(raw.astype(np.float64)):
        left = 2 * feature
        for number, book in enumerate(books, start=1):
            distances = sorted(np.linalg.norm(left - centroid) for centroid in book)
            expected = distances[0], distances[0] / np.linalg.norm(left), distances[1] - distances[0]
            names = f"distance to code {number}", f"relative distance to code {number}", f"margin of code {number}"
            assert [found[name][row] for name in names] == pytest.approx(expected, rel=1e-4)
            left = left - min(book, key=lambda centroid: np.linalg.norm(left - centroid))
    assert code_signals(doubling, raw) == {}


def test_centroids_of_one_clip_show_who_was_fitted_and_centroids_of_others_do_not():
    """A planted overfit: each centroid is the clip of one member. Then the same number of centroids from strangers."""
    rng = np.random.default_rng(4)
    people = np.repeat(np.arange(60), 8)
    features = rng.normal(size=(60, 6)).repeat(8, axis=0) + rng.normal(size=(480, 6)) * 0.5
    members, others, strangers = (np.isin(people % 3, side) for side in (0, 1, 2))
    found = {}
    for name, fitted in (("members", members), ("strangers", strangers)):
        signals = code_signals(quantizer([features[fitted]]), features)
        split = [{key: values[rows] for key, values in signals.items()} for rows in (members, others)]
        found[name] = membership(*split, people[members], people[others], num_resamples=100)
    assert found["members"].logistic.auc.value > 0.9
    assert found["members"].strongest.auc.value > 0.9
    assert found["members"].strongest.name == "strongest signal"
    assert found["strangers"].logistic.auc.low < 0.5 < found["strangers"].logistic.auc.high

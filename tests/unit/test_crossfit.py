"""Attacks out of fold, on people whose secrets are known, against scikit-learn and SciPy where a number is compared."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from refusals import refused
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score
from tqdm import tqdm

from splavu import attackers, metrics
from splavu.attacks import campaign as attacks
from splavu.attacks.campaign import Campaign
from splavu.attacks.crossfit import POOLED, crossfit, deal, parts
from splavu.attacks.rows import Rows

WIDTH, FOLDS = 8, 4


def films(count: int = 60, *, strength: float = 4.0, seed: int = 0, unknown: float = 0.0) -> Rows:
    """Films of 1 to 4 clips whose two attributes lie along one axis each; the other axes tell films apart."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 5, count)
    labels = (generator.random((count, 2)) < [0.5, 0.2]).astype(np.float32)
    features = generator.normal(size=(count, WIDTH)).repeat(sizes, axis=0)
    features += generator.normal(size=features.shape)
    features[:, :2] += strength * labels.repeat(sizes, axis=0)
    labels = labels.repeat(sizes, axis=0)
    labels[generator.random(labels.shape) < unknown] = np.nan
    names = np.array([f"film{i}" for i in range(count)]).repeat(sizes)
    videos = np.array([f"{name}_{i // 2}" for i, name in enumerate(names)])
    order = generator.permutation(len(names))  # the clips of a film stand apart
    return Rows(features.astype(np.float32), labels, names, videos).take(order)


def campaign(*names: str, level: str = "row", seeds: tuple[int, ...] = (0,)) -> Campaign:
    return Campaign(names or ("logistic",), seeds, 20_000, level, torch.device("cpu"), tqdm(disable=True))


class Reader:
    """An attacker that learns nothing: the first axes are its scores."""

    def __init__(self, *, seed: int, device: object) -> None:
        self.calls = CALLS

    def fit(self, features, labels, validation):
        self.calls.append((features, validation[0]))
        return self

    def scores(self, features):
        self.calls.append((features,))
        return features[:, :2]


CALLS: list = []


@pytest.fixture
def reader(monkeypatch) -> str:
    CALLS.clear()
    monkeypatch.setitem(attackers.ATTACKERS._rows, "reader", attackers.AttackerSpec(Reader, stochastic=False))
    return "reader"


@pytest.mark.parametrize("seed", range(5))
def test_no_film_is_in_two_parts_and_every_row_is_held_out_once(seed):
    rows = films(seed=seed)
    fold = deal(rows, num_folds=FOLDS, seed=seed)
    held_out = []
    for number in range(FOLDS):
        data = parts(rows, fold, number)
        people = [set(part.clusters) for part in data.splits.values()]
        assert all(people)
        assert len(set.union(*people)) == sum(map(len, people))
        assert sum(len(part) for part in data.splits.values()) == len(rows)
        held_out.append(data.test.features)
    together = np.concatenate(held_out)
    np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(rows.features, axis=0))


def test_folds_have_alike_shares_of_rare_labels():
    """5 films of 200 have the rare attribute: dealt blindly, one of 5 folds gets none of them in 96% of draws."""
    for seed in range(10):
        rows = films(200, seed=seed)
        labels = rows.labels.copy()
        labels[:, 1] = np.isin(rows.clusters, [f"film{i}" for i in range(5)])
        fold = deal(dataclasses.replace(rows, labels=labels), num_folds=5, seed=seed)
        assert [len(np.unique(rows.clusters[(fold == k) & (labels[:, 1] > 0)])) for k in range(5)] == [1] * 5
        shares = [labels[fold == k, 0].mean() for k in range(5)]
        assert max(shares) - min(shares) < 0.06
        assert np.ptp(np.bincount(fold)) < 0.1 * len(rows)


def test_folds_know_labels_and_clusters_only():
    rows = films()
    other = dataclasses.replace(rows, features=rows.features[::-1].copy())
    np.testing.assert_array_equal(deal(rows, num_folds=5, seed=1), deal(other, num_folds=5, seed=1))
    assert (deal(rows, num_folds=5, seed=1) != deal(rows, num_folds=5, seed=2)).any()


def test_pooled_ranks_are_those_of_each_fold_in_the_order_of_the_rows(reader):
    rows = films()
    found = crossfit(rows, campaign(reader), num_folds=FOLDS)
    assert found.attack.attackers == (POOLED,)
    np.testing.assert_array_equal(found.attack.clusters, rows.clusters)
    np.testing.assert_array_equal(found.attack.labels, rows.labels)
    expected = np.empty(rows.labels.shape)
    for fold in range(FOLDS):
        inside = found.fold == fold
        expected[inside] = (rankdata(rows.features[inside, :2], axis=0) - 0.5) / inside.sum()
    np.testing.assert_allclose(found.attack.chosen_scores[0], expected)
    precision = [average_precision_score(rows.labels[:, a], expected[:, a]) for a in range(2)]
    np.testing.assert_allclose(found.attack.precision, precision)


def test_pooling_costs_little_beside_scores_on_one_scale(reader):
    """Where one attacker scores every fold its scores share a scale; ranking should change next to nothing."""
    rows = films(400, strength=2.0)
    pooled = crossfit(rows, campaign(reader), num_folds=5).attack.precision
    direct = [average_precision_score(rows.labels[:, a], rows.features[:, a]) for a in range(2)]
    np.testing.assert_allclose(pooled, direct, atol=0.02)


def test_attackers_never_meet_a_film_they_score(reader):
    rows = films()
    film = {row.tobytes(): name for row, name in zip(rows.features, rows.clusters, strict=True)}
    crossfit(rows, campaign(reader), num_folds=FOLDS)
    for learnt, _, scored in zip(CALLS[::3], CALLS[1::3], CALLS[2::3], strict=True):
        seen = {film[row.tobytes()] for part in learnt for row in part}
        assert not seen & {film[row.tobytes()] for row in scored[0]}
    assert len(CALLS) == 3 * FOLDS


def test_the_same_features_leak_all_and_none_leave_nothing():
    rows = films(unknown=0.1)
    raw = crossfit(rows, campaign(), num_folds=FOLDS).attack
    again = crossfit(rows, campaign(), num_folds=FOLDS).attack
    nothing = crossfit(dataclasses.replace(rows, features=0 * rows.features), campaign(), num_folds=FOLDS).attack
    np.testing.assert_array_equal(nothing.scores, 0.5)
    same = attacks.judged({"raw": raw, "anonymized": again}, ("first", "second"), 200)
    gone = attacks.judged({"raw": raw, "anonymized": nothing}, ("first", "second"), 200)
    for name in ("first", "second"):
        assert same["attributes"][name]["raw"]["ap"] > same["attributes"][name]["chance"] + 0.3
    for entry in (*same["attributes"].values(), same["mean"]):
        assert entry["leakage"] == 1
        assert entry["leakage_interval"] == [1, 1]
    for entry in (*gone["attributes"].values(), gone["mean"]):
        assert entry["leakage"] == pytest.approx(0, abs=1e-12)
        np.testing.assert_allclose(entry["leakage_interval"], 0, atol=1e-12)


def test_erasing_by_the_labels_of_the_judged_rows_shows_as_leakage_below_zero():
    """The fault that the module's head warns of: a projection fitted on all rows, and none on other rows."""
    rows, others = films(200, strength=1.5), films(200, strength=1.5, seed=1)

    def erased_by(fitted: Rows) -> Rows:
        centred = fitted.labels - fitted.labels.mean(axis=0)
        q, _ = np.linalg.qr(centred.T.dot(fitted.features - fitted.features.mean(axis=0)).T)
        return dataclasses.replace(rows, features=rows.features - rows.features @ q @ q.T)

    raw, own, fair = (crossfit(r, campaign(), num_folds=5).attack for r in (rows, erased_by(rows), erased_by(others)))
    leakage = {
        name: attacks.judged({"raw": raw, "anonymized": attack}, ("first", "second"), 200)["mean"]
        for name, attack in (("own", own), ("fair", fair))
    }
    assert leakage["own"]["leakage_interval"][1] < 0
    assert leakage["fair"]["leakage_interval"][1] > 0


@pytest.mark.slow
def test_noise_is_attacked_no_better_than_chance():
    """Mean over 6 draws of cMAP - prevalence; one draw deviates by about 0.03, and few positives push it up."""
    gaps = []
    for seed in range(6):
        rows = films(100, strength=0.0, seed=seed)
        attack = crossfit(rows, campaign("logistic", "knn"), num_folds=5, seed=seed).attack
        gaps.append(metrics.mean_known(attack.precision - metrics.prevalences(rows.labels)))
    assert abs(np.mean(gaps)) < 0.05
    noise = attacks.judged({"raw": attack, "anonymized": attack}, ("first", "second"), 100)
    assert noise["mean"]["leakage"] == 1 or np.isnan(noise["mean"]["leakage"])


def test_the_strongest_of_each_fold_is_the_one_that_validation_chose(reader):
    """The reader is blind once the axes are swapped; a learner isn't."""
    rows = films(240)
    swapped = dataclasses.replace(rows, features=rows.features[:, ::-1].copy())
    found = crossfit(swapped, campaign(reader, "logistic"), num_folds=FOLDS)
    assert found.strongest == (("logistic", "logistic"),) * FOLDS
    learner = crossfit(swapped, campaign("logistic"), num_folds=FOLDS)
    np.testing.assert_array_equal(found.attack.scores, learner.attack.scores)
    np.testing.assert_array_equal(found.attack.validation, learner.attack.validation)


def test_resampled_leakage_is_what_the_interval_is_made_of():
    rows = films()
    blurred = dataclasses.replace(
        rows, features=rows.features + np.random.default_rng(1).normal(size=rows.features.shape).astype(np.float32) * 4
    )
    raw, attack = (crossfit(r, campaign("logistic"), num_folds=FOLDS).attack for r in (rows, blurred))
    leakage = attacks.resampled_leakage(attack, raw, 200)
    judged = attacks.judged({"raw": raw, "anonymized": attack}, ("first", "second"), 200)["mean"]
    assert leakage.shape == (200,)
    np.testing.assert_allclose(judged["leakage_interval"], np.nanquantile(leakage, [0.025, 0.975]))
    assert leakage.min() < judged["leakage"] < leakage.max()
    np.testing.assert_array_equal(attacks.resampled_leakage(raw, raw, 200), 1)


def test_videos_may_be_judged_as_a_whole(reader):
    rows = films()
    attack = crossfit(rows, campaign(reader, level="video"), num_folds=FOLDS).attack
    order = list(dict.fromkeys(rows.videos.tolist()))
    assert attack.videos.tolist() == order
    film_of = dict(zip(rows.videos.tolist(), rows.clusters.tolist(), strict=True))
    assert attack.clusters.tolist() == [film_of[video] for video in order]


def test_too_few_folds_or_films_are_told():
    with refused("folds"):
        deal(films(), num_folds=2)
    with refused("folds"):
        deal(films(8), num_folds=9)

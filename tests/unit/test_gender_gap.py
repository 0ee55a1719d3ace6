"""Women and men compared: against scikit-learn seed by seed, and resamples against repeated rows."""

from __future__ import annotations

import json

import numpy as np
import pytest
from odds import equalized_odds_difference
from sklearn.metrics import accuracy_score

from bias.gender_gap import Seen, compare, statistics
from bias.report import report_section
from splavu import metrics

NUM_CLASSES = 5


@pytest.fixture
def seen() -> Seen:
    rng = np.random.default_rng(11)
    subjects = np.repeat(np.arange(12), rng.integers(20, 40, 12))
    genders = np.where(subjects % 3 == 0, "female", "male")
    return Seen(rng.integers(0, 4, len(subjects)), subjects.astype(str), genders, NUM_CLASSES)  # class 4 is never seen


def guesses(seen: Seen, share_right: dict[str, float], seed: int, num_seeds: int = 3) -> np.ndarray:  # [S, V]
    rng = np.random.default_rng(seed)
    right = rng.random((num_seeds, len(seen.targets))) < np.vectorize(share_right.get)(seen.genders)
    return np.where(right, seen.targets, rng.integers(0, NUM_CLASSES, right.shape))


def test_values_are_means_over_seeds(seen):
    predictions = guesses(seen, {"female": 0.3, "male": 0.8}, seed=0)
    found = compare(seen, {"raw": predictions}, num_resamples=50)
    assert found["subjects"] == {"female": 4, "male": 8}
    assert sum(found["videos"].values()) == len(seen.targets)
    assert "change" not in found
    raw = found["features"]["raw"]
    expected = {
        gender: np.mean([accuracy_score(seen.targets[rows], of_seed[rows]) for of_seed in predictions])
        for gender in ("female", "male")
        if (rows := seen.genders == gender).any()
    }
    assert raw["female"]["value"] == pytest.approx(expected["female"])
    assert raw["male"]["value"] == pytest.approx(expected["male"])
    assert raw["gap"]["value"] == raw["difference"]["value"] == pytest.approx(expected["male"] - expected["female"])
    assert (raw["worst"]["gender"], raw["worst"]["value"]) == ("female", raw["female"]["value"])
    overall = np.mean([accuracy_score(seen.targets, of_seed) for of_seed in predictions])
    assert raw["overall"]["value"] == pytest.approx(overall)

    per_class = [
        np.mean([equalized_odds_difference(seen.targets == c, of_seed == c, seen.genders) for of_seed in predictions])
        for c in range(4)
    ]
    odds = raw["equalised_odds"]
    assert odds["value"] == pytest.approx(np.mean(per_class))
    assert (odds["worst_class"], odds["classes_compared"]) == (int(np.argmax(per_class)), 4)


def test_resamples_are_subjects_really_repeated(seen):
    predictions = guesses(seen, {"female": 0.5, "male": 0.5}, seed=1)
    resamples = metrics.cluster_resamples(seen.subjects, num_resamples=5, seed=4)
    found = statistics(seen, predictions, resamples)
    for r, counts in enumerate(resamples.counts):
        rows = np.repeat(np.arange(len(seen.targets)), counts[resamples.cluster_of_row])
        repeated = Seen(seen.targets[rows], seen.subjects[rows], seen.genders[rows], NUM_CLASSES)
        whole = metrics.cluster_resamples(repeated.subjects, num_resamples=1)
        again = statistics(repeated, predictions[:, rows], whole).values
        for name in ("female", "male", "overall", "difference", "equalised_odds"):
            assert found.draws[name][r] == pytest.approx(again[name]), name


def test_the_change_is_paired(seen):
    raw = guesses(seen, {"female": 0.3, "male": 0.8}, seed=2)
    same = compare(seen, {"raw": raw, "anonymized": raw}, num_resamples=50)["change"]
    assert all(entry == {"value": 0.0, "interval": [0.0, 0.0]} for entry in same.values())
    fair = guesses(seen, {"female": 0.8, "male": 0.8}, seed=3)
    change = compare(seen, {"raw": raw, "anonymized": fair}, num_resamples=300)["change"]
    assert change["gap"]["interval"][1] < 0 < change["female"]["interval"][0]
    assert change["equalised_odds"]["interval"][1] < 0


def test_luck_is_told_from_bias(seen):
    """A model without regard to gender lies among the swaps, a biased one above nearly all of them."""
    entries = {
        name: compare(seen, {"raw": guesses(seen, shares, seed=5)}, num_resamples=200)["features"]["raw"]
        for name, shares in (("fair", {"female": 0.6, "male": 0.6}), ("biased", {"female": 0.2, "male": 0.9}))
    }
    assert entries["fair"]["equalised_odds"]["p"] > 0.05
    assert entries["fair"]["equalised_odds"]["value"] > 0.02  # not 0, although nothing is wrong
    assert entries["biased"]["equalised_odds"]["p"] < 0.01


def test_what_is_undefined_is_none_in_json_and_a_dash_in_the_table():
    """Women do one thing and men another, so no class can be compared; one woman is left out of many resamples."""
    seen = Seen(np.array([0, 0, 1, 1]), np.array(list("aabc")), np.array(["female"] * 2 + ["male"] * 2), 2)
    predictions = {"raw": np.zeros((2, 4), dtype=int), "anonymized": np.ones((2, 4), dtype=int)}
    found = compare(seen, predictions, num_resamples=100)
    raw = found["features"]["raw"]
    assert raw["equalised_odds"]["value"] is None
    assert raw["equalised_odds"]["p"] is None
    assert raw["female"] == {"value": 1.0, "interval": [None, None]}
    json.dumps(found, allow_nan=False)
    result = {"datasets": {"tiny": {**found, "train_videos": {"female": 1, "male": 1}}}, "seeds": [0, 1]}
    rows = [line for line in report_section(result | {"served": "alone"}).splitlines() if line.startswith("| tiny")]
    assert "100.0 [-, -]" in rows[0]
    assert "nan" not in report_section(result | {"served": "alone"}).lower()

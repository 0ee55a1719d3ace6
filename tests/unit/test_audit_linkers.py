"""Learnt metrics: what plain cosine can't link, and what must stay unlinked."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused
from sklearn.cross_decomposition import CCA

from splavu.audit.identity import similarity
from splavu.audit.identity.linkage import linkability
from splavu.audit.identity.similarity import (
    Metric,
    canonical_maps,
    learn_metric,
    strongest_cross_metric,
    strongest_metric,
    unlearnt_metric,
)

WIDTH = 24
IDENTITY = np.arange(WIDTH) < 6
"""Dimensions that tell people apart."""
TURN = np.linalg.qr(np.random.default_rng(1234).normal(size=(WIDTH, WIDTH)))[0]


def known(rows: np.ndarray) -> np.ndarray:
    """What nobody has to learn: the dimensions of identity alone."""
    return (rows - 5.0) @ TURN.T[:, IDENTITY]


KNOWN = Metric(known, known, "known")


def draw(seed: int, *, identity: float = 1.0, num_people: int = 40, clips: int = 8):
    """People in 6 dimensions, a hundred times as much of something else in the rest."""
    rng = np.random.default_rng(seed)
    people = np.repeat(np.arange(num_people), clips) + 1000 * seed
    person = rng.normal(size=(num_people, WIDTH))[people % 1000] * IDENTITY * identity
    noise = rng.normal(size=(len(people), WIDTH)) * np.where(IDENTITY, 0.5, 100.0)
    return (person + noise) @ TURN + 5.0, people


def link(seed: int, metric, **options):
    features, people = draw(seed, **options)
    own = np.arange(len(people))
    return linkability(
        features, people, features, people, exclude=(own, own), metric=metric, num_resamples=20, num_permutations=20
    )


def test_a_learnt_metric_links_what_cosine_cannot():
    plain = link(3, "cosine")
    learnt = link(3, strongest_metric(*draw(1), draw(2)))
    best = link(3, KNOWN)
    assert plain.rank1.value < 0.1
    assert learnt.rank1.value > 0.85 * best.rank1.value > 0.5
    assert learnt.eer.value < best.eer.value + 0.03 < 0.2
    assert learnt.d_sys_corrected.value > best.d_sys_corrected.value - 0.1 > 0.5
    assert plain.d_sys_corrected.value < 0.1
    assert learnt.metric.startswith("learnt")
    assert link(3, "whitened cosine").rank1.value > plain.rank1.value


def test_a_metric_learnt_without_identity_links_nobody():
    found = link(3, strongest_metric(*draw(1, identity=0), draw(2, identity=0)), identity=0)
    assert found.rank1.low < found.rank1.chance + 0.03
    assert abs(found.d_sys_corrected.value) < 0.1
    assert found.eer.value == pytest.approx(0.5, abs=0.05)


def test_learnt_directions_have_equal_variance_within_people():
    features, people = draw(1)
    for scaling in ("standardise", "whiten"):
        mapped = learn_metric(features, people, scaling=scaling, shrinkage=0.0, weighting="equal").probes(features)
        apart = mapped - np.stack([mapped[people == person].mean(axis=0) for person in people])
        within = apart.T @ apart / (len(people) - 40)
        np.testing.assert_allclose(within, np.eye(WIDTH), atol=1e-4)


def test_directions_of_identity_weigh_as_the_gaussian_model_has_it():
    """Between people 1, within 0.25: b = 4 in six dimensions, so squared weights of 4 / 9, and about none in others."""
    features, people = draw(1, num_people=400, clips=20)
    mapped = learn_metric(features, people, shrinkage=0.0).probes(features)
    apart = mapped - np.stack([mapped[people == person].mean(axis=0) for person in people])
    within = np.sort(np.linalg.eigvalsh(apart.T @ apart / (len(people) - 400)))[::-1]
    np.testing.assert_allclose(within[:6], 4 / 9, rtol=0.1)
    assert within[6:].max(initial=0.0) < 0.03


def test_cross_metrics_link_raw_to_released_by_pairs_of_others():
    """The release turns features by a secret map: plain cosine fails, pairs of other people show the map."""
    secret = np.random.default_rng(8).normal(size=(WIDTH, WIDTH))
    (train, people), (tuned, tuned_people), (raw, raw_people) = draw(1), draw(2), draw(3)
    metric = strongest_cross_metric(train, train @ secret, people, (tuned, tuned @ secret, tuned_people))
    released, own = raw @ secret, np.arange(len(raw))
    options = {"exclude": (own, own), "num_resamples": 20, "num_permutations": 20}
    plain = linkability(raw, raw_people, released, raw_people, **options)
    learnt = linkability(raw, raw_people, released, raw_people, metric=metric, **options)
    assert plain.rank1.value < 0.1
    best = link(3, KNOWN)
    assert learnt.rank1.value > 0.85 * best.rank1.value
    assert learnt.eer.value < best.eer.value + 0.03


def test_cross_metrics_take_two_widths_and_find_nothing_in_noise():
    (train, people), (tuned, tuned_people), (raw, raw_people) = draw(1), draw(2), draw(3)
    noise = [np.random.default_rng(seed).normal(size=(320, 7)) for seed in range(3)]
    metric = strongest_cross_metric(train, noise[0], people, (tuned, noise[1], tuned_people))
    found = linkability(raw, raw_people, noise[2], raw_people, metric=metric, num_resamples=20, num_permutations=20)
    assert abs(found.eer.value - 0.5) < 0.05
    assert found.rank1.value < 0.1


def test_canonical_dimensions_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(500, 2))
    first = np.concatenate([shared, rng.normal(size=(500, 3))], axis=1) @ rng.normal(size=(5, 5))
    second = np.concatenate([shared + rng.normal(size=(500, 2)), rng.normal(size=(500, 2))], axis=1)
    maps = canonical_maps(first, second, num_dims=2, shrinkage=0.0)
    expected = CCA(n_components=2, max_iter=5000, tol=1e-10).fit(first, second).transform(first, second)
    for mine, theirs in zip((maps[0](first), maps[1](second)), expected, strict=True):
        for k in range(2):
            assert abs(np.corrcoef(mine[:, k], theirs[:, k])[0, 1]) == pytest.approx(1, abs=1e-4)


def test_features_that_teach_nothing_are_told():
    features, people = draw(1)
    with refused("validation"):
        strongest_metric(features, people, (features[:3], [0, 1, 2]))
    with refused("people"):
        learn_metric(features, np.arange(len(people)))
    with refused("metric"):
        unlearnt_metric("mahalanobis", features)


def test_a_metric_that_finds_all_alike_is_not_preferred_to_one_that_errs_a_little():
    """Validation features of which the metric that tells people apart gets most pairs the wrong way round."""
    alike = Metric(lambda rows: np.ones((len(rows), 1)), lambda rows: np.ones((len(rows), 1)), "alike")
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0]])
    people, own = np.array([0, 0, 1, 1]), np.arange(4)
    errs = Metric(np.asarray, np.asarray, "errs")
    for candidates in ([alike, errs], [errs, alike]):
        assert similarity._strongest(candidates, rows, rows, people, own) is errs
    better = Metric(lambda x: rows[[0, 0, 3, 3]], lambda x: rows[[0, 0, 3, 3]], "better")
    assert similarity._strongest([alike, errs, better], rows, rows, people, own) is better
    assert similarity._strongest([alike, alike], rows, rows, people, own) is alike


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_features_that_are_all_alike_link_nobody(value):
    features, people = draw(1)
    held_out, others = draw(2)
    metric = strongest_metric(features, people, (np.full_like(held_out, value), others))
    judged, judged_people = (part[:40] for part in draw(3))
    assert np.isfinite(metric.probes(judged)).all()
    assert len(judged_people) == len(metric.gallery(judged))


def test_of_many_validation_features_whole_people_are_kept(monkeypatch):
    monkeypatch.setattr(similarity, "MOST_ROWS", 50)
    features, people = draw(2)
    kept = similarity.some_people(people, 50)
    assert 40 < len(kept) <= 50
    assert all(np.isin(np.flatnonzero(people == person), kept).all() for person in people[kept])
    assert link(3, strongest_metric(*draw(1), (features, people))).rank1.value > 0.3
    assert len(np.unique(people[similarity.some_people(people, 1)])) == 2

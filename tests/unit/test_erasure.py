"""Closed forms against their definitions: constraints they must meet, optima computed another way, and attackers."""

import numpy as np
import pytest
from refusals import refused
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from splavu.anonymizers import AffineAnonymizer, Quantizer, closed_form
from splavu.anonymizers.closed_form.covariance import class_residuals, covariance, whitening

WIDTH, ROWS = 12, 900


def correlated(seed: int = 0, attributes: int = 2):
    """Features of unequal and correlated variances, with binary attributes added along directions of their own."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (ROWS, attributes))
    mixing = rng.normal(size=(WIDTH, WIDTH)) * np.geomspace(3, 0.1, WIDTH)
    return rng.normal(size=(ROWS, WIDTH)) @ mixing + labels @ rng.normal(size=(attributes, WIDTH)), labels


def cross(features, labels):
    return (features - features.mean(0)).T @ (labels - labels.mean(0)) / len(features)


def least_change(features, labels):
    """The P of least E|(P - I)(x - mean)|^2 with P cov(x, z) = 0, by its normal equations, without any whitening.

    P = I - M, M cov(x, z) = cov(x, z), M of least tr(M S M'): each row m of M is S^-1 C (C' S^-1 C)^-1 (its row of C)'.
    """
    scatter, covaries = np.cov(features.T, bias=True), cross(features, labels)
    solved = np.linalg.solve(scatter, covaries)
    return np.eye(len(scatter)) - covaries @ np.linalg.solve(covaries.T @ solved, solved.T)


def test_leace_is_the_least_change_that_leaves_no_covariance():
    features, labels = correlated()
    made = closed_form.leace(features, labels)
    np.testing.assert_allclose(made.matrix, least_change(features, labels), atol=1e-8)
    np.testing.assert_allclose(cross(made(features), labels), 0, atol=1e-9)
    assert made.rank == 2
    np.testing.assert_allclose(made(features).mean(0), features.mean(0), atol=1e-9)


@pytest.mark.parametrize("fit", [closed_form.leace, closed_form.orthogonal])
def test_no_straight_line_tells_an_erased_attribute(fit):
    features, labels = correlated()
    released = fit(features, labels)(features)
    for column in labels.T:
        raw = LogisticRegression(C=1e6).fit(features, column).predict_proba(features)[:, 1]
        safe = LogisticRegression(C=1e6).fit(released, column).predict_proba(released)[:, 1]
        assert raw.std() > 0.2
        assert safe.std() < 1e-3  # the best line is the constant
        assert abs(safe.mean() - column.mean()) < 1e-3


def test_erasure_is_exact_with_a_ridge_and_where_variance_is_missing():
    features, labels = correlated()
    for ridge in (0.0, 0.3):
        np.testing.assert_allclose(
            cross(closed_form.leace(features, labels, ridge=ridge)(features), labels), 0, atol=1e-9
        )
    flat = features.copy()
    flat[:, 3] = 1.0  # a dimension that never changes
    made = closed_form.leace(flat, labels)
    np.testing.assert_allclose(cross(made(flat), labels), 0, atol=1e-9)
    np.testing.assert_allclose(made(flat)[:, 3], 1.0, atol=1e-9)


def test_leace_changes_features_less_than_the_orthogonal_projection():
    features, labels = correlated()
    change = [
        np.square(fit(features, labels)(features) - features).sum()
        for fit in (closed_form.leace, closed_form.orthogonal)
    ]
    assert change[0] < 0.9 * change[1]


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_the_static_eraser_is_leace_of_the_directions_that_covary_most(rank):
    """At rank r it erases the r best linear summaries of the concept (in whitened features), and those alone."""
    features, _ = correlated()
    rng = np.random.default_rng(1)
    static = features @ rng.normal(size=(WIDTH, WIDTH)) + rng.normal(size=(ROWS, WIDTH))
    made = closed_form.static_eraser(features, static, rank=rank)
    whiten = np.linalg.inv(np.linalg.cholesky(np.cov(features.T, bias=True)))  # another root: the same subspace
    left, _, right = np.linalg.svd(whiten @ cross(features, static))
    np.testing.assert_allclose(made.matrix, least_change(features, static @ right[:rank].T), atol=1e-7)
    np.testing.assert_allclose(left.T @ left, np.eye(WIDTH), atol=1e-9)
    np.testing.assert_allclose(made.matrix @ made.matrix, made.matrix, atol=1e-8)
    assert made.rank == rank == WIDTH - np.linalg.matrix_rank(made.matrix)


def test_share_takes_as_few_directions_as_hold_it():
    features, _ = correlated()
    static = features + np.random.default_rng(2).normal(size=features.shape)
    whiten, _ = whitening(np.cov(features.T, bias=True))
    squares = np.linalg.svd(whiten @ cross(features, static))[1] ** 2
    for share in (0.2, 0.5, 0.9):
        rank = closed_form.static_eraser(features, static, share=share).rank
        assert squares[:rank].sum() >= share * squares.sum() > squares[: rank - 1].sum()


def test_what_pictures_tell_of_the_action_is_spared_by_its_classes():
    """Appearance in dimensions 0-3 of a picture, the action in 4 and 5; a clip shows both."""
    rng = np.random.default_rng(3)
    action = rng.integers(0, 3, ROWS)
    appearance = rng.normal(size=(ROWS, 4))
    seen = np.hstack([appearance, np.eye(3)[action][:, :2] * 4, np.zeros((ROWS, 6))])
    features = seen + rng.normal(size=(ROWS, WIDTH)) * 0.3
    static = seen + rng.normal(size=(ROWS, WIDTH)) * 0.1

    def told(values):
        return LogisticRegression(max_iter=500).fit(values, action).score(values, action)

    spared = closed_form.static_eraser(features, static, classes=action, rank=4)(features)
    erased = closed_form.static_eraser(features, static, rank=6)(features)
    assert told(features) > 0.97
    assert told(spared) > 0.97
    assert told(erased) < 0.6
    np.testing.assert_allclose(cross(spared, class_residuals(appearance, action)), 0, atol=0.05)


def test_the_quadratic_lift_finds_appearance_that_no_straight_line_tells():
    """A clip shows the square of what a picture shows, whose covariance with the picture itself is 0."""
    rng = np.random.default_rng(5)
    seen = rng.normal(size=(20 * ROWS, 2))
    static = seen @ rng.normal(size=(2, WIDTH))
    features = rng.normal(size=(20 * ROWS, WIDTH))
    features[:, 0] += 2 * seen[:, 0] ** 2
    features[:, 1] += 2 * seen[:, 0] * seen[:, 1]
    left = {
        lift: np.abs(cross(closed_form.static_eraser(features, static, rank=2, lift=lift)(features), seen**2)).max()
        for lift in ("linear", "quadratic")
    }
    assert left["linear"] > 1.5  # of cov(2 x^2, x^2) = 4
    assert left["quadratic"] < 0.15


def test_inlp_leaves_a_line_little_better_than_the_majority():
    features, labels = correlated()
    one, many = (closed_form.inlp(features, labels, rounds=rounds) for rounds in (1, 4))
    assert (one.rank, many.rank) == (2, 8)
    np.testing.assert_allclose(many.matrix @ many.matrix, many.matrix, atol=1e-9)
    np.testing.assert_allclose(many.matrix, many.matrix.T, atol=1e-9)
    for column in labels.T:
        raw, safe = (
            LogisticRegression(max_iter=500).fit(values, column).score(values, column)
            for values in (features, many(features))
        )
        assert raw > 0.7
        assert safe < max(column.mean(), 1 - column.mean()) + 0.08  # some of it luck: these are the rows learnt from


def test_pca_is_that_of_scikit_learn():
    features, _ = correlated()
    known = PCA(4).fit(features)
    made = closed_form.pca(features, keep=4)
    np.testing.assert_allclose(made(features), known.inverse_transform(known.transform(features)), atol=1e-8)
    few = features[:3]
    np.testing.assert_allclose(closed_form.pca(few, keep=WIDTH)(few), few, atol=1e-9)


def test_random_directions_are_orthonormal_and_favour_none():
    features = np.random.default_rng(0).normal(size=(50, WIDTH))
    made = [closed_form.random_projection(features, keep=3, seed=seed) for seed in range(400)]
    np.testing.assert_allclose(made[0].encode @ made[0].encode.T, np.eye(3), atol=1e-12)
    assert not np.allclose(made[0].matrix, made[1].matrix)
    mean = np.mean([one.matrix for one in made], axis=0)
    np.testing.assert_allclose(mean, np.eye(WIDTH) * 3 / WIDTH, atol=0.06)
    np.testing.assert_allclose(np.mean([one.encode[0] for one in made], axis=0), 0, atol=0.06)


def test_factors_make_the_matrix_and_the_network_applies_it():
    features, labels = correlated()
    made = closed_form.leace(features, labels)
    np.testing.assert_allclose(made.encode @ made.encode.T, np.eye(WIDTH - 2), atol=1e-9)
    import torch

    network = AffineAnonymizer.of(made.mean, made.encode, made.decode, method="leace").eval()
    released = network(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(released, made(features), atol=1e-5 * np.abs(features).max())


def classes_in_few_dimensions(seed: int = 0):
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 4, ROWS)
    means = np.zeros((4, WIDTH))
    means[:, :3] = np.vstack([np.eye(3), np.zeros(3)]) * 4
    spread = np.array([1.0, 1, 1] + [6.0] * (WIDTH - 3))
    return means[classes] + rng.normal(size=(ROWS, WIDTH)) * spread, classes


def test_codes_live_in_the_discriminant_subspace():
    features, classes = classes_in_few_dimensions()
    made = closed_form.code_subspace(features, classes, ridge=0.0)
    known = LinearDiscriminantAnalysis(solver="eigen").fit(features, classes).scalings_[:, :3]
    ours, theirs = np.linalg.qr(made.encode.T)[0], np.linalg.qr(known)[0]
    np.testing.assert_allclose(np.linalg.svd(ours.T @ theirs)[1], 1, atol=1e-6)
    places = (features - made.mean) @ made.encode.T
    within = covariance(class_residuals(places, classes))
    np.testing.assert_allclose(within, np.eye(3), atol=1e-6)
    # What is mapped back is the linear prediction of a feature from its place.
    predicted = np.linalg.lstsq(places, features - made.mean, rcond=None)[0].T
    np.testing.assert_allclose(made.decode, predicted, rtol=1e-6, atol=1e-6)  # both in float32


def test_few_codes_tell_the_classes_and_a_second_codebook_comes_nearer():
    import torch

    features, classes = classes_in_few_dimensions()
    error = []
    for codes in ([8], [8, 8]):
        made = closed_form.code_subspace(features, classes, ridge=0.01)
        books = closed_form.kmeans_codebooks(made.places(features), codes, np.arange(ROWS), 1)
        network = Quantizer.of(made.mean, made.encode, made.decode, books).eval()
        with torch.no_grad():
            released = network(torch.from_numpy(features)).numpy()
        error.append(np.square((released - features) @ made.encode.T).sum())
        assert LogisticRegression(max_iter=500).fit(released, classes).score(released, classes) > 0.85
    assert error[1] < 0.7 * error[0]


def test_without_classes_codes_live_in_the_principal_components():
    features, _ = classes_in_few_dimensions()
    made = closed_form.code_subspace(features, None, dims=2)
    np.testing.assert_allclose(np.abs(made.encode @ PCA(2).fit(features).components_.T), np.eye(2), atol=1e-6)


def test_bad_options_are_named():
    features, labels = correlated()
    with refused("rank"):
        closed_form.static_eraser(features, features)
    with refused("lift"):
        closed_form.static_eraser(features, features, rank=2, lift="cubic")
    with refused("rank"):
        closed_form.static_eraser(features, features, rank=WIDTH)
    with refused("concept"):
        closed_form.leace(features, np.zeros(ROWS))
    with refused("features"):
        closed_form.leace(np.zeros((ROWS, 3)), labels)
    with refused("keep"):
        closed_form.pca(features, keep=0)
    with pytest.raises(ValueError, match=r"\b900\b.*\b899\b"):
        closed_form.leace(features, labels[1:])

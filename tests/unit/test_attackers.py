"""Attackers find what is there, under any invertible map, and nothing where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from refusals import refused
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from splavu.attackers import (
    ATTACKERS,
    AUDIT_FAMILIES,
    DEFAULT_ATTACKERS,
    KernelAttacker,
    LogisticAttacker,
    MLPAttacker,
    SVMAttacker,
    TreesAttacker,
    attacker_names,
    standardise,
    trees,
    whiten,
)
from splavu.attackers.networks import Dropout
from splavu.attackers.scaling import whiten_standardised
from splavu.audit.run import AuditOptions
from splavu.metrics import average_precisions, prevalences

WIDTH = 24


def persons(num_persons: int, seed: int, clips: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Features [N, 24] of clips of persons with two attributes, each written along one axis of a hidden basis."""
    generator = np.random.default_rng(seed)
    labels = (generator.random((num_persons, 2)) < 0.4).astype(np.float32).repeat(clips, axis=0)
    features = generator.normal(size=(num_persons, WIDTH)).repeat(clips, axis=0)
    features += generator.normal(size=features.shape)
    features[:, :2] += 4 * labels
    return features.astype(np.float32), labels


@pytest.fixture(scope="module")
def data():
    return persons(80, 1), persons(40, 2), persons(60, 3)


def precision_of(build, data, change=lambda features: features, order=slice(None)) -> np.ndarray:
    train, validation, test = data
    attacker = build(seed=0, device="cpu")
    attacker.fit(change(train[0]), train[1][order], (change(validation[0]), validation[1]))
    return average_precisions(test[1], attacker.scores(change(test[0])))


@pytest.mark.parametrize("name", ATTACKERS)
def test_beats_chance_on_raw_features_but_not_on_erased_ones(name, data):
    chance = prevalences(data[2][1])
    assert (precision_of(ATTACKERS[name].build, data) > chance + 0.3).all()

    def erased(features):
        return features * (np.arange(WIDTH) >= 2).astype(np.float32)

    assert (precision_of(ATTACKERS[name].build, data, erased) < chance + 0.2).all()


@pytest.mark.parametrize("name", ["logistic", "svm", "kernel", "mlp", "knn"])
def test_a_rotation_hides_nothing(name, data):
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)
    raw = precision_of(ATTACKERS[name].build, data)
    turned = precision_of(ATTACKERS[name].build, data, lambda features: features @ rotation)
    np.testing.assert_allclose(turned, raw, atol=0.05)


@pytest.mark.parametrize("make", [LogisticAttacker, SVMAttacker, KernelAttacker, MLPAttacker])
def test_squeezing_the_private_direction_fools_only_attackers_who_do_not_whiten(make, data):
    """The private axes shrink to a ten-thousandth, then everything is mixed: invertible, so nothing was removed."""
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(WIDTH, WIDTH)))[0]
    squeeze = np.where(np.arange(WIDTH) < 2, 1e-4, 1.0)

    def squeezed(features):
        return ((features * squeeze) @ rotation).astype(np.float32)

    def naive(seed, device):
        if make is MLPAttacker:
            return make(recipes=(("standardise", 1e-3, 1e-1),), seed=seed, device=device)
        return make(scalings=("standardise",), seed=seed, device=device)

    raw = precision_of(make, data)
    assert (precision_of(naive, data, squeezed) < raw - 0.2).all()
    np.testing.assert_allclose(precision_of(make, data, squeezed), raw, atol=0.05)


def test_labels_shuffled_among_persons_teach_nothing(data):
    test = data[2]
    chance = prevalences(test[1])
    gains = []
    for seed in range(5):
        order = (np.random.default_rng(seed).permutation(80)[:, None] * 8 + np.arange(8)).ravel()
        gains.append(precision_of(LogisticAttacker, data, order=order) - chance)
    assert abs(np.mean(gains)) < 0.15  # on raw features the gain is above 0.3


@pytest.mark.parametrize("penalty", [1e-1, 1e-3])
def test_logistic_minimises_what_scikit_learn_minimises(data, penalty):
    (features, labels), validation, (test, _) = data
    attacker = LogisticAttacker(penalties=(penalty,), scalings=("standardise",), max_iterations=300)
    scores = attacker.fit(features, labels, validation).scores(test)
    scaling = standardise(features)
    for attribute in range(2):
        reference = LogisticRegression(C=1 / (penalty * len(features)), tol=1e-8, max_iter=2000)
        reference.fit(scaling(features).numpy(), labels[:, attribute])
        expected = reference.decision_function(scaling(test).numpy())
        np.testing.assert_allclose(scores[:, attribute], expected, atol=2e-2)


def test_whitening_gives_unit_covariance_and_loses_no_direction(data):
    features = data[0][0] * np.geomspace(1, 1e-4, WIDTH).astype(np.float32) + 3
    white = whiten(features)(features).double()
    assert white.shape[1] == WIDTH
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(WIDTH), atol=0.05)  # float32 beside an offset of 3
    repeated = np.concatenate([features, features[:, :4]], axis=1)
    assert whiten(repeated)(repeated).shape[1] == WIDTH


def test_constant_coordinates_are_harmless(data):
    features = np.concatenate([data[0][0], np.full((len(data[0][0]), 1), 7, np.float32)], axis=1)
    scaled = standardise(features)(features)
    assert (scaled[:, -1] == 0).all()
    assert scaled[:, :-1].std(dim=0, correction=0) == pytest.approx(np.ones(WIDTH), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKERS)
def test_the_seed_decides_and_the_callers_generator_is_left_alone(name, data):
    train, validation, test = data
    row = ATTACKERS[name]
    state = torch.get_rng_state()
    first, again, other = (row.build(seed=s, device="cpu").fit(*train, validation).scores(test[0]) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(first, again)
    assert np.array_equal(first, other) is not row.stochastic


@pytest.mark.parametrize("name", ATTACKERS)
def test_unknown_labels_are_no_negatives(name, data):
    train, validation, test = data
    labels = np.where(np.arange(len(train[1]))[:, None] % 3 == 0, np.nan, train[1])
    corrupted = np.where(np.isnan(labels), 0, labels)
    hidden = train[1].copy()
    hidden[::3] = np.nan
    known = ATTACKERS[name].build(seed=0, device="cpu").fit(train[0], hidden, validation).scores(test[0])
    wrong = ATTACKERS[name].build(seed=0, device="cpu").fit(train[0], corrupted, validation).scores(test[0])
    assert not np.allclose(known, wrong)
    assert (average_precisions(test[1], known) > prevalences(test[1]) + 0.3).all()


@pytest.mark.parametrize("name", ATTACKERS)
def test_an_attribute_that_cannot_be_judged_scores_zero(name, data):
    train, validation, test = data
    labels, judged = train[1].copy(), validation[1].copy()
    labels[:, 0] = judged[:, 0] = 1
    scores = ATTACKERS[name].build(seed=0, device="cpu").fit(train[0], labels, (validation[0], judged)).scores(test[0])
    assert (scores[:, 0] == 0).all()
    assert scores[:, 1].std() > 0


@pytest.mark.parametrize("penalty", [1e-1, 1e-3])
def test_the_support_vector_machine_minimises_what_scikit_learn_minimises(data, penalty):
    (features, labels), validation, (test, _) = data
    attacker = SVMAttacker(penalties=(penalty,), scalings=("standardise",), max_iterations=300)
    scores = attacker.fit(features, labels, validation).scores(test)
    scaling = standardise(features)
    for attribute in range(2):
        # LinearSVC penalises the intercept; one that is scaled up this much is all but free.
        options = {"tol": 1e-8, "max_iter": 100_000, "dual": False, "intercept_scaling": 100}
        reference = LinearSVC(C=1 / (penalty * len(features)), **options)
        reference.fit(scaling(features).numpy(), labels[:, attribute])
        np.testing.assert_allclose(scores[:, attribute], reference.decision_function(scaling(test).numpy()), atol=1e-2)


def test_random_features_come_close_to_the_kernel_they_stand_for(data):
    """Against exact kernel ridge with the same bandwidth; 2,000 features leave an error of about 1 / 45 a product."""
    (features, labels), validation, (test, _) = data
    penalty, inputs = 1e-2, standardise(features)(features)
    attacker = KernelAttacker(
        num_features=2000, bandwidths=(1.0,), penalties=(penalty,), scalings=("standardise",), seed=3
    )
    generator = torch.Generator().manual_seed(3)
    first, second = torch.randint(len(inputs), (2, 2000), generator=generator)
    distance = (inputs[first] - inputs[second]).norm(dim=1)
    gamma = 1 / (2 * float(distance[distance > 0].median()) ** 2)
    scores = attacker.fit(features, labels, validation).scores(test)
    centred = labels - labels.mean(axis=0)
    reference = KernelRidge(kernel="rbf", gamma=gamma, alpha=penalty * len(features)).fit(inputs.numpy(), centred)
    expected = reference.predict(standardise(features)(test).numpy())
    for attribute in range(2):
        assert np.corrcoef(scores[:, attribute], expected[:, attribute])[0, 1] > 0.97


@pytest.mark.slow
def test_only_an_attacker_that_bends_reads_a_crossed_attribute():
    """The label is whether two axes agree in sign: no line tells."""

    def crossed(num, seed):
        features = np.random.default_rng(seed).normal(size=(num, 4)).astype(np.float32)
        return features, (features[:, :1] * features[:, 1:2] > 0).astype(np.float32)

    crossed_data = crossed(800, 1), crossed(300, 2), crossed(500, 3)
    found = {name: precision_of(row.build, crossed_data)[0] for name, row in ATTACKERS.items()}
    assert max(found["logistic"], found["svm"]) < 0.62
    assert min(found[name] for name in ("kernel", "mlp", "mlp_large", "trees", "knn")) > 0.85


@pytest.fixture
def another_package(tmp_path, monkeypatch):
    """A registry in an environment where a package brings the attackers 'constant' and 'broken'."""
    (tmp_path / "more_attackers.py").write_text(CONSTANT)
    folder = tmp_path / "more_attackers-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: more-attackers\nVersion: 1\n")
    lines = ("[splavu.attackers]", "constant = more_attackers:SPEC", "broken = more_attackers:GONE")
    (folder / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    ATTACKERS.__dict__.pop("_entry_points", None)
    yield
    ATTACKERS.__dict__.pop("_entry_points", None)
    ATTACKERS._rows.pop("constant", None)


CONSTANT = """
import numpy as np
from splavu.attackers import AttackerSpec

class Constant:
    def __init__(self, *, seed=0, device="cpu"):
        self.seed, self.device = seed, device
    def fit(self, features, labels, validation):
        self.width_ = labels.shape[1]
        return self
    def scores(self, features):
        return np.zeros((len(features), self.width_), np.float32)

SPEC = AttackerSpec(Constant, stochastic=False)
"""


def test_another_package_adds_an_attacker_that_is_used_where_it_is_named(another_package):
    assert attacker_names(["logistic", "constant"]) == ("logistic", "constant")
    fitted = ATTACKERS["constant"].build(seed=0, device="cpu").fit(np.zeros((3, 2)), np.zeros((3, 4)), (None, None))
    assert fitted.scores(np.zeros((5, 2))).shape == (5, 4)
    assert "constant" not in DEFAULT_ATTACKERS + AUDIT_FAMILIES
    assert AuditOptions().families == AUDIT_FAMILIES
    assert AuditOptions(families=("constant",)).families == ("constant",)
    with refused("entry point 'broken' of splavu.attackers"):
        ATTACKERS["broken"]


def test_the_former_name_of_an_attacker():
    assert ATTACKERS["neighbours"] is ATTACKERS["knn"]
    assert attacker_names(["neighbours", "mlp", "knn"]) == ("knn", "mlp")
    assert "neighbours" not in list(ATTACKERS)
    with refused("attackers"):
        attacker_names(["neighbors"])


def test_default_attackers_stay_what_stored_figures_were_made_with():
    assert DEFAULT_ATTACKERS == ("logistic", "mlp", "mlp_large", "trees", "knn")
    assert (*DEFAULT_ATTACKERS, "svm", "kernel") == AUDIT_FAMILIES


def test_bins_shared_by_attributes_change_no_tree(data, monkeypatch):
    """Attributes known in the same rows share their bins; those of other rows have their own."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    train, validation, test = data
    labels = np.concatenate([train[1], train[1]], axis=1)
    labels[::3, 2] = np.nan
    held_out = validation[0], np.concatenate([validation[1], validation[1]], axis=1)

    def scores() -> np.ndarray:
        return TreesAttacker(max_trees=10).fit(train[0], labels, held_out).scores(test[0])

    shared = scores()
    monkeypatch.setattr(trees, "_boosting", lambda: HistGradientBoostingClassifier)
    np.testing.assert_array_equal(shared, scores())


def test_linear_weights_cost_on_shared_inputs_what_they_cost_on_standardised_ones(data):
    """Also where features span fewer dimensions than they have: the least weights of the same function count."""
    turn = np.random.default_rng(1).normal(size=(WIDTH, 2 * WIDTH)).astype(np.float32)
    features = data[0][0] @ turn
    scaling, cost = whiten_standardised(features)
    white, plain = scaling(features).double(), standardise(features)(features).double()
    assert white.shape[1] == WIDTH
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(WIDTH), atol=1e-3)
    weight = torch.randn(WIDTH, generator=torch.Generator().manual_seed(0)).double()
    least = torch.linalg.lstsq(plain, (white @ weight)[:, None], rcond=1e-5, driver="gelsd").solution
    assert float((cost * weight.square()).sum()) == pytest.approx(float(least.square().sum()), rel=1e-3)


def test_dropout_keeps_the_mean_and_is_off_when_evaluated():
    values, drop = torch.ones(2000, 50), Dropout(0.3)
    dropped = drop(values)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.02)
    assert torch.equal(drop.eval()(values), values)

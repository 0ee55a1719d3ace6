"""Classes and values in an audit: planted ones are found beside binary ones, where there is nothing nothing is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from splavu.attacks.campaign import Attack, Scored
from splavu.attacks.rows import AttackData, Rows
from splavu.audit.answers import Truth
from splavu.audit.evaluator import Evaluator
from splavu.audit.inputs import AuditInputs
from splavu.audit.questions import Question, Questions
from splavu.audit.run import AuditOptions, examine
from splavu.metrics import average_precisions, prevalences

WIDTH, VIDEOS, CLIPS = 12, 2, 2
ASKED = (
    Question("gender", "gender", "binary"),
    *(Question(f"hair = {hair}", "hair", "class", float(place)) for place, hair in enumerate("bdr")),
    *(Question(f"age > {level:g}", "age", "value", level) for level in (30.0, 45.0, 60.0)),
)
QUESTIONS = Questions(ASKED)


def people(count, seed):
    """Persons' gender, hair and age [P, 3], and clips [N, 12] whose first axes tell them, the others the person."""
    rng = np.random.default_rng(seed)
    values = np.stack([rng.integers(2, size=count), rng.integers(3, size=count), rng.uniform(15, 75, count)], axis=1)
    told = np.concatenate([values[:, :1], values[:, 1:2] == np.arange(3), (values[:, 2:] - 45) / 20], axis=1)  # [P, 5]
    features = 0.5 * rng.normal(size=(count, WIDTH))
    features[:, :5] += 3 * told
    per_person = VIDEOS * CLIPS
    features = features.repeat(per_person, axis=0) + 0.7 * rng.normal(size=(count * per_person, WIDTH))
    names = np.array([f"{seed}-{person:03d}" for person in range(count)])
    videos = np.array([f"{name}-{video}" for name in names for video in range(VIDEOS)]).repeat(CLIPS)
    columns = dict(zip(QUESTIONS.attributes, values.repeat(per_person, axis=0).T, strict=True))
    labels = QUESTIONS.answers(columns, len(features))
    rows = Rows(features.astype(np.float32), labels, names.repeat(per_person), videos)
    return rows, {video: value for video, value in zip(videos, values.repeat(per_person, axis=0), strict=True)}


@pytest.fixture(scope="module")
def study() -> tuple[AttackData, dict]:
    splits, values = zip(*(people(count, seed) for count, seed in ((70, 1), (40, 2), (100, 3))), strict=True)
    return AttackData(*splits), {video: value for of in values for video, value in of.items()}


def audit(study, release):
    raw, values = study
    inputs = AuditInputs(QUESTIONS.attributes, raw.mapped(release), raw, (), (), asked=ASKED, values=values)
    options = AuditOptions(
        families=("logistic", "kernel"), set_families=(), gate_families=("logistic",), curve_families=("logistic",),
        seeds=(0,), gate_seeds=(0,), num_resamples=200, num_swaps=200, attributes_only=True,
    )  # fmt: skip
    return examine(inputs, options)


def beside(found, unit="person"):
    return {(one.name, m.name): m for one in found.strongest[unit].attributes for m in one.beside}


@pytest.mark.slow
def test_an_untouched_class_and_number_leak_as_binary_ones_do(study):
    found = audit(study, lambda features: features)
    assert [one["name"] for one in found.attributes] == ["gender", "hair", "age"]
    assert all(one["personal"] for one in found.attributes)
    for unit in ("clip", "video", "person"):
        assert {one.name: one.verdict for one in found.strongest[unit].attributes} == dict.fromkeys(
            QUESTIONS.attributes, "leaks"
        )
    measured = beside(found)
    assert measured["age", "spearman"].estimate.low > 0.8
    assert measured["hair", "top1"].estimate.low > 0.8
    assert measured["hair", "balanced accuracy"].estimate.chance == pytest.approx(1 / 3, abs=0.03)
    assert abs(found.headline.reduction.value) < 0.05
    assert found.headline.num_attributes == 3


@pytest.mark.slow
def test_a_number_that_only_is_kept_is_what_is_protected_least(study):
    keeps_age = np.ones(WIDTH, np.float32)
    keeps_age[:4] = 0
    found = audit(study, lambda features: features * keeps_age)
    assert found.headline.least_protected.name == "age"
    leaks = {one.name: one.leakage.value for one in found.strongest["person"].attributes}
    assert leaks["age"] > 0.8
    assert max(leaks["gender"], leaks["hair"]) < 0.4
    assert beside(found)["age", "spearman"].p < 0.01


def attack_of_noise(seed, *, persons=60, videos=3):
    """Attackers' scores that know the person and nothing else."""
    rng = np.random.default_rng(seed)
    values = np.stack([rng.integers(2, size=persons), rng.integers(3, size=persons), rng.uniform(15, 75, persons)])
    labels = QUESTIONS.answers(dict(zip(QUESTIONS.attributes, values, strict=True)), persons).repeat(videos, axis=0)
    names = np.array([f"p{person:02d}" for person in range(persons)]).repeat(videos)
    video = np.array([f"{name}-{place % videos}" for place, name in enumerate(names)])
    scores = rng.normal(size=(persons, len(ASKED))).repeat(videos, axis=0) + rng.normal(size=labels.shape)
    scores = scores[None, None]
    tuned = Scored(labels, names, video, rng.normal(size=scores.shape))
    validation = np.array([[average_precisions(labels, tuned.scores[0, 0])]])
    attack = Attack(("a",), labels, names, video, scores, validation, tuned)
    return attack, dict(zip(video, values.T.repeat(videos, axis=0), strict=True))


def test_where_there_is_nothing_p_values_are_right_for_every_kind():
    """Of 120 studies p <= 0.05 in at most 14 for each attribute (binomial of 0.05, 0.2 %)."""
    rejected = dict.fromkeys(QUESTIONS.attributes, 0)
    for seed in range(120):
        attack, values = attack_of_noise(seed)
        people = {video: video.split("-")[0] for video in values}
        truth = Truth.of(QUESTIONS.attributes, values, people)
        evaluator = Evaluator(QUESTIONS, prevalences(attack.labels), 20, 200, 0.05, truth)
        for one in evaluator.evaluate(attack, beside=True).attributes:
            rejected[one.name] += one.p <= 0.05
    assert max(rejected.values()) <= 14


def test_an_attribute_is_the_mean_over_its_questions():
    attack, _ = attack_of_noise(0)
    evaluator = Evaluator(QUESTIONS, prevalences(attack.labels), 20, 50, 0.05)
    found = {one.name: one for one in evaluator.evaluate(attack).attributes}
    precision = average_precisions(attack.labels, attack.scores[0, 0])
    assert found["hair"].ap.value == pytest.approx(precision[1:4].mean())
    assert found["age"].ap.value == pytest.approx(precision[4:].mean())
    assert found["age"].questions == ("age > 30", "age > 45", "age > 60")
    assert found["age"].tpr[0].value is None  # nobody's rate
    whole = evaluator.evaluate(attack)
    assert whole.cmap.value == pytest.approx(np.mean([one.ap.value for one in found.values()]))


def test_a_class_that_the_test_lacks_is_left_out_and_the_others_stay():
    attack, _ = attack_of_noise(0)
    labels = attack.labels.copy()
    labels[:, 1] = 0
    attack = dataclasses.replace(attack, labels=labels)
    evaluator = Evaluator(QUESTIONS, prevalences(labels), 20, 50, 0.05)
    found = {one.name: one for one in evaluator.evaluate(attack).attributes}
    assert found["hair"].questions == ("hair = d", "hair = r")

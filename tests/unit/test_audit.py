"""An audit sees through releases that only look private, and believes those that are.

People with two attributes: `gender` is written in all of a person's clips, `glasses` in those of one video. Every cheat
below is a map that a weaker evaluation has been fooled by.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from tqdm import tqdm

from splavu.anonymizers import Anonymizer
from splavu.attackers import ATTACKERS, MLPAttacker
from splavu.attacks.campaign import Campaign, joined
from splavu.attacks.rows import AttackData, Rows
from splavu.audit.attributes.learning_curves import learning_curve, rising
from splavu.audit.attributes.set_attacks import SET_ATTACKERS
from splavu.audit.attributes.threat_models import fresh
from splavu.audit.evidence import write_evidence
from splavu.audit.inputs import AuditInputs
from splavu.audit.questions import Questions
from splavu.audit.report.terminal import summary
from splavu.audit.run import AuditOptions, examine
from splavu.metrics import average_precisions, permuted_rows, prevalences

WIDTH = 16
OPTIONS = AuditOptions(
    families=("logistic", "svm"),
    set_families=(),
    gate_families=("logistic",),
    curve_families=("logistic",),
    seeds=(0,),
    gate_seeds=(0, 1),
    num_resamples=200,
    num_swaps=200,
    attributes_only=True,
)


def people(num_people: int, seed: int, *, videos: int = 2, clips: int = 3, strength: float = 3.0) -> Rows:
    """Clips [N, 16]: axis 0 tells gender, axis 1 glasses, the rest are of the person, the video and the clip."""
    rng = np.random.default_rng(seed)
    num_videos = num_people * videos
    gender = rng.permutation(num_people) % 2
    glasses = rng.permutation(num_videos) % 3 == 0
    features = rng.normal(size=(num_people, WIDTH)).repeat(videos * clips, axis=0) * 0.5
    features += rng.normal(size=(num_videos, WIDTH)).repeat(clips, axis=0) * 0.5
    features += rng.normal(size=features.shape) * 0.7
    labels = np.stack([gender.repeat(videos * clips), glasses.repeat(clips)], axis=1).astype(np.float32)
    features[:, :2] += strength * labels
    names = np.array([f"{seed}-{person:03d}" for person in range(num_people)])
    of_video = np.array([f"{name}-{video}" for name in names for video in range(videos)])
    return Rows(features.astype(np.float32), labels, names.repeat(videos * clips), of_video.repeat(clips))


@pytest.fixture(scope="module")
def raw() -> AttackData:
    return AttackData(people(60, 1), people(40, 2), people(160, 3))


def inputs(raw: AttackData, released: AttackData) -> AuditInputs:
    return AuditInputs(("gender", "glasses"), released, raw, (), ())


def audit(raw: AttackData, release, **options):
    released = raw.mapped(release) if callable(release) else release
    return examine(inputs(raw, released), dataclasses.replace(OPTIONS, **options))


def rotation(seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)


def erased(features: np.ndarray) -> np.ndarray:
    """Everything that the labels were written into is gone, whatever else is there."""
    return features * (np.arange(WIDTH) >= 2).astype(np.float32)


@pytest.mark.slow
def test_a_rotation_protects_nothing(raw):
    found = audit(raw, lambda features: features @ rotation() + 5)
    assert found.valid
    assert abs(found.headline.reduction.value) < 0.05
    assert {one.verdict for one in found.strongest["clip"].attributes} == {"leaks"}
    ignorant = next(rung for rung in found.rungs if rung.name == "ignorant")
    assert ignorant.found.leakage.value < 0.7  # the attacker that a rotation does fool


@pytest.mark.slow
def test_a_scaling_that_stalls_a_badly_tuned_network_protects_nothing(raw):
    """The private axes shrink to a thousandth before everything is mixed: a network on raw inputs never sees them."""
    squeeze = np.where(np.arange(WIDTH) < 2, 1e-3, 1.0).astype(np.float32)

    def release(features):
        return 100 * (features * squeeze) @ rotation()

    stalled = MLPAttacker(recipes=(("standardise", 1e-3, 1e-1),), max_epochs=10)
    squeezed = raw.mapped(release)
    stalled.fit(squeezed.train.features, raw.train.labels, (squeezed.validation.features, raw.validation.labels))
    precision = average_precisions(raw.test.labels, stalled.scores(squeezed.test.features))
    assert (precision < prevalences(raw.test.labels) + 0.2).all()
    found = audit(raw, release, families=("mlp",))
    assert abs(found.headline.reduction.value) < 0.1


@pytest.mark.slow
def test_a_map_that_blanks_static_inputs_only_protects_nothing(raw):
    """Static clips have no motion, here axis 15. What is released are the others, and those are judged."""

    def release(features):
        static = np.abs(features[:, -1:]) < 1e-6
        return np.where(static, 0, features)

    still = raw.mapped(lambda features: features * (np.arange(WIDTH) < WIDTH - 1).astype(np.float32))
    assert not still.mapped(release).test.features.any()
    assert abs(audit(raw, release).headline.reduction.value) < 0.05


@pytest.mark.slow
def test_noise_that_averages_out_over_a_video_is_seen_through(raw):
    """Each clip gets noise of its own, many times the signal; the clips of a video sum to what they were."""

    def noisy(rows: Rows) -> Rows:
        noise = np.random.default_rng(9).normal(size=rows.features.shape) * 30
        _, video = np.unique(rows.videos, return_inverse=True)
        mean = np.zeros((video.max() + 1, WIDTH))
        np.add.at(mean, video, noise)
        noise -= (mean / np.bincount(video)[:, None])[video]
        return dataclasses.replace(rows, features=(rows.features + noise).astype(np.float32))

    found = audit(raw, AttackData(**{name: noisy(rows) for name, rows in raw.splits.items()}))
    assert found.headline.semi_informed.value > 0.6  # an attack on one clip finds privacy
    assert found.headline.unit in ("video", "person")
    assert abs(found.headline.reduction.value) < 0.1


class Mixer(Anonymizer):
    """In a batch a feature drowns in the others' mean; alone it is its own mean, and nothing is hidden."""

    attends_over = "batch"

    def __init__(self) -> None:
        super().__init__()
        self.architecture = {"arch": "mixer", "feature_dim": WIDTH}

    def forward(self, features, mask=None):
        return self.map_rows(features)

    def map_rows(self, rows):
        return 0.01 * rows + rows.mean(dim=0)

    def alone(self, rows):
        return 1.01 * rows


@pytest.mark.slow
def test_mixing_in_the_batch_fails_two_gates_and_what_is_served_alone_is_attacked(raw, monkeypatch):
    monkeypatch.setattr("splavu.anonymizers.apply.one_by_one", lambda anonymizer, rows: anonymizer.alone(rows))

    def in_batches(features):
        order = np.random.default_rng(0).permutation(len(features))
        mixed = torch.empty(len(features), WIDTH)
        for rows in torch.from_numpy(order).split(16):
            mixed[rows] = Mixer()(torch.from_numpy(features)[rows])
        return mixed.numpy()

    found = examine(inputs(raw, raw.mapped(in_batches)), OPTIONS, anonymizer=Mixer())
    assert not found.valid
    raw_gate, shuffled_gate, batch_gate, store_gate = found.gates
    assert raw_gate.passed
    assert shuffled_gate.passed
    assert batch_gate.passed is False
    assert store_gate.passed is False
    assert found.headline.semi_informed.value > 0.6  # an attacker that trusts the store finds privacy
    assert abs(found.headline.reduction.value) < 0.1


@pytest.mark.slow
def test_an_eraser_with_a_guarantee_is_at_chance(raw):
    found = audit(raw, erased, margin=0.1)
    assert found.valid
    assert found.headline.reduction.value > 0.9
    assert {one.verdict for one in found.strongest["clip"].attributes} == {"at chance"}
    assert {one.verdict for one in found.raw["clip"].attributes} == {"leaks"}


@pytest.mark.slow
def test_erasing_one_attribute_leaves_the_other(raw):
    found = audit(raw, lambda features: features * (np.arange(WIDTH) != 1).astype(np.float32), margin=0.1)
    verdicts = {one.name: one.verdict for one in found.strongest["clip"].attributes}
    assert verdicts == {"gender": "leaks", "glasses": "at chance"}
    leakage = {one.name: one.leakage.value for one in found.strongest["clip"].attributes}
    assert leakage["gender"] > 0.9
    assert leakage["glasses"] < 0.1


def test_shuffled_labels_are_at_chance_and_the_audit_is_not_valid(raw):
    """Nothing is there to be found in raw features, so the first gate fails: the audit could not have told."""

    def shuffled(rows: Rows) -> Rows:
        swapped = permuted_rows(rows.clusters, rows.videos, num_permutations=1, seed=5)[0]
        return dataclasses.replace(rows, labels=rows.labels[swapped])

    found = audit(AttackData(**{name: shuffled(rows) for name, rows in raw.splits.items()}), lambda features: features)
    assert "leaks" not in {one.verdict for unit in found.strongest.values() for one in unit.attributes}
    assert abs(found.strongest["clip"].mean_auc.value - 0.5) < 0.06
    assert not found.valid
    assert [gate.claim for gate in found.gates if gate.passed is False] == ["attackers succeed on raw features"]


@pytest.mark.slow
def test_a_release_of_nothing_but_zeros_breaks_no_attacker():
    few = AttackData(people(12, 1), people(8, 2), people(16, 3))
    every = {"families": tuple(ATTACKERS), "set_families": tuple(SET_ATTACKERS), "attributes_only": False}
    found = audit(few, lambda features: 0 * features, **every)
    assert found.headline.reduction.value == pytest.approx(1, abs=1e-6)
    assert {one.auc.value for one in found.strongest["clip"].attributes} == {0.5}
    assert found.inversion["mlp"]["explained"].value < 0.05


@pytest.mark.slow
def test_a_release_of_another_width_is_attacked_all_the_same(raw):
    found = audit(raw, lambda features: features @ rotation()[:, :10])
    skipped = {rung.name: rung.skipped for rung in found.rungs if rung.found is None}
    assert skipped["ignorant"] == "raw features are of another width"
    assert found.headline.reduction.value < 0.7


def test_without_raw_features_rungs_are_skipped_and_said_so(raw):
    found = examine(AuditInputs(("gender", "glasses"), raw, None, (), ()), OPTIONS)
    skipped = {rung.name: rung.skipped for rung in found.rungs if rung.found is None}
    assert set(skipped) == {"ignorant", "lazy-informed", "informed"}
    assert all("--raw" in reason for reason in skipped.values())
    assert found.gates[0].passed is None
    assert found.headline.sentence in summary(found).splitlines()[-1]
    assert np.isnan(found.headline.reduction.value)


@pytest.mark.slow
def test_the_evidence_is_json_and_repeats_itself(tmp_path):
    few = AttackData(people(20, 1), people(12, 2), people(20, 3))
    contents = []
    for name in ("first", "again"):
        found = audit(few, lambda features: features @ rotation(), families=("logistic", "mlp"), attributes_only=False)
        content = json.loads(write_evidence(tmp_path / name / "evidence.json", found).read_text())
        content.pop("seconds")
        contents.append(content)
    assert contents[0] == contents[1]
    assert contents[0]["schema"] == "splavu-audit/2"
    assert contents[0]["inversion"]["ridge"]["explained"]["value"] > 0.99
    assert contents[0]["linkage"]["raw to released"]["same_video_rank1"]["value"] > 0.9
    assert contents[0]["linkage"]["released to released"]["rank1"]["value"] > 0.2
    assert [point["people"] for point in contents[0]["learning_curve"]] == [2, 5, 10, 20]
    assert contents[0]["code_length"]["raw"]["gender"]["compression_over_prior"] > 1.3
    assert contents[0]["membership"]["logistic"]["auc"]["low"] < 0.5
    assert [path.name for path in (tmp_path / "first").iterdir()] == ["evidence.json"]


def curve_of(strength: float, families: tuple[str, ...] = ("logistic",)) -> list[dict]:
    data = AttackData(*(people(count, seed, strength=strength) for count, seed in ((16, 1), (30, 2), (150, 3))))
    with tqdm(disable=True) as progress:
        campaign = Campaign(families, (0, 1, 2), 20_000, "row", "cpu", progress)
        return learning_curve(data, Questions.binary(("gender", "glasses")), families, campaign, 300)


def test_the_right_end_of_a_curve_is_taken_from_attackers_that_are_trained_already():
    data = AttackData(*(people(count, seed, strength=1.5) for count, seed in ((16, 1), (30, 2), (50, 3))))
    questions, families = Questions.binary(("gender", "glasses")), ("logistic", "kernel")
    with tqdm(disable=True) as progress:
        campaign = Campaign(families, (0, 1, 2), 20_000, "row", "cpu", progress)
        trained = joined({"fresh": fresh(data, campaign)})
        curves = [learning_curve(data, questions, families, campaign, 50, whole=whole) for whole in (None, trained)]
    for anew, taken in zip(*curves, strict=True):
        np.testing.assert_array_equal(taken.pop("ap"), anew.pop("ap"))
        assert taken == anew


def test_a_curve_that_still_rises_is_warned_of_and_a_flat_one_is_not():
    """With a weak signal 16 subjects are better than 8; where nothing is there to be learnt, or all was, none is."""
    weak, nothing, everything = curve_of(1.5), curve_of(0.0), curve_of(12.0)
    assert [point["people"] for point in weak] == [2, 4, 8, 16]
    assert weak[0]["gain"] is None
    means = [np.mean(point["ap"]) for point in weak]
    assert weak[-1]["gain"].value == pytest.approx(means[-1] - means[-2])
    (line,) = rising(weak)
    assert "logistic" in line
    assert "from 8 to 16" in line
    assert rising(nothing) == rising(everything) == []
    assert rising([]) == []

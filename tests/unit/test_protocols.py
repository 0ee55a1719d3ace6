"""Protocols on people whose secrets are known: what is hidden, what only disguised, what luck looks like."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from refusals import refused
from sklearn.metrics import average_precision_score

from splavu import metrics
from splavu.attacks import paper_protocol, release_protocol
from splavu.attacks.rows import AttackData, Rows, hold_out, shuffled_labels
from splavu.metrics.protocols import PROTOCOLS
from splavu.training.heads import PrivacyHead

WIDTH, ATTRIBUTES = 16, ("first", "second")
FAST = {"attackers": ("logistic", "knn"), "seeds": (0, 1), "num_resamples": 200}


def people(num_people: int, seed: int, *, strength: float = 4.0, videos: int = 3, clips: int = 3) -> Rows:
    """Two attributes a person, each along one axis; the other axes tell persons and clips apart."""
    generator = np.random.default_rng(seed)
    each = videos * clips
    labels = (generator.random((num_people, 2)) < 0.4).astype(np.float32).repeat(each, axis=0)
    features = generator.normal(size=(num_people, WIDTH)).repeat(each, axis=0)
    features += generator.normal(size=features.shape)
    features[:, :2] += strength * labels
    clusters = np.array([f"s{seed}_{i}" for i in range(num_people)]).repeat(each)
    names = np.array([f"v{seed}_{i}" for i in range(num_people * videos)]).repeat(clips)
    return Rows(features.astype(np.float32), labels, clusters, names)


def world(**options) -> AttackData:
    return AttackData(people(60, 1, **options), people(30, 2, **options), people(40, 3, **options))


@pytest.fixture(scope="module")
def data() -> AttackData:
    return world()


def erase(features: np.ndarray) -> np.ndarray:
    return features * (np.arange(WIDTH) >= 2).astype(np.float32)


def rotate(features: np.ndarray) -> np.ndarray:
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(WIDTH, WIDTH)))[0]
    return (features @ rotation).astype(np.float32)


def mix(features: np.ndarray) -> np.ndarray:
    """What attention over a batch amounts to: each row becomes mostly the mean of its batch."""
    return 0.1 * features + 0.9 * features.mean(axis=0)


def evaluate(data: AttackData, anonymize, **options) -> dict:
    return release_protocol.evaluate_by_release_protocol(
        {"temporal": data}, anonymize, attributes=ATTRIBUTES, **{**FAST, **options}
    )


@pytest.fixture(scope="module")
def erased(data) -> dict:
    return evaluate(data, erase)


def test_erasing_leaves_no_leakage(erased):
    mean = erased["views"]["temporal"]["mean"]
    assert erased["valid"]
    assert mean["raw"]["ap"] > mean["chance"] + 0.3
    assert abs(mean["leakage"]) < 0.25
    assert mean["leakage_interval"][0] < 0.15
    assert mean["leakage_interval"][1] < 0.6


def test_a_change_of_coordinates_leaves_everything(data):
    mean = evaluate(data, rotate)["views"]["temporal"]["mean"]
    assert mean["leakage"] == pytest.approx(1, abs=0.1)
    assert mean["leakage_interval"][0] > 0.7


def test_raw_only_leaks_all_by_definition(data):
    result = evaluate(data, None, seeds=(0,))
    entry = result["views"]["temporal"]["mean"]
    assert result["raw_only"]
    assert entry["leakage"] == 1
    assert entry["leakage_interval"] == [1, 1]
    assert "anonymized" not in entry


def test_entries_are_what_the_metrics_say(data, erased):
    chance = [erased["views"]["temporal"]["attributes"][name]["chance"] for name in ATTRIBUTES]
    np.testing.assert_allclose(chance, data.test.labels.mean(axis=0))
    for entry in [*erased["views"]["temporal"]["attributes"].values(), erased["views"]["temporal"]["mean"]]:
        share = (entry["anonymized"]["ap"] - entry["chance"]) / (entry["raw"]["ap"] - entry["chance"])
        assert entry["leakage"] == pytest.approx(share)
        assert entry["raw"]["interval"][0] <= entry["raw"]["ap"] <= entry["raw"]["interval"][1]
    aps = [entry["raw"]["ap"] for entry in erased["views"]["temporal"]["attributes"].values()]
    assert erased["views"]["temporal"]["mean"]["raw"]["ap"] == pytest.approx(np.mean(aps))


def test_the_attacker_is_chosen_on_validation_people(erased):
    table = erased["views"]["temporal"]["attacker_table"]["raw"]
    for place, name in enumerate(ATTRIBUTES):
        best = max(table, key=lambda attacker: table[attacker]["validation"][place])
        entry = erased["views"]["temporal"]["attributes"][name]["raw"]
        assert entry["single"] == best
        assert entry["single_ap"] == pytest.approx(table[best]["test_diagnostic"][place])
        assert set(entry["members"]) <= set(table)
        assert sum(entry["members"].values()) == pytest.approx(1)


def test_features_that_tell_nothing_fail_the_first_gate():
    result = evaluate(world(strength=0.0), None)
    assert not result["valid"]
    first, second = result["gates"]
    assert not first["passed"]
    assert second["passed"]
    assert "FAILED  temporal: raw features are attacked above chance" in release_protocol.format_table(result)


def test_an_evaluation_that_peeks_fails_the_second_gate(data, monkeypatch):
    """The fault that swapped labels are to catch: labels that reach the attackers past the swap."""
    monkeypatch.setattr(release_protocol, "shuffled_labels", lambda data, seed: data)
    first, second = evaluate(data, None)["gates"]
    assert first["passed"]
    assert not second["passed"]


def test_shuffling_swaps_whole_people_and_leaves_the_test(data):
    shuffled = shuffled_labels(data, seed=0)
    assert shuffled.test is data.test
    for before, after in ((data.train, shuffled.train), (data.validation, shuffled.validation)):
        assert after.features is before.features
        for person in np.unique(after.clusters):
            assert len(np.unique(after.labels[after.clusters == person], axis=0)) == 1
        association = [np.corrcoef(before.labels[:, a], after.labels[:, a])[0, 1] for a in range(2)]
        assert np.abs(association).max() < 0.15  # random swaps of 30 people: 0.18 on average
    together = np.concatenate([shuffled.train.labels, shuffled.validation.labels])
    assert together.sum(axis=0) == pytest.approx(
        np.concatenate([data.train.labels, data.validation.labels]).sum(axis=0)
    )
    assert not np.array_equal(shuffled_labels(data, seed=1).train.labels, shuffled.train.labels)


def test_an_anonymizer_that_mixes_the_batch_is_refused(data):
    with refused("anonymizer"):
        evaluate(data, mix)


def test_an_anonymizer_that_breaks_down_is_no_privacy(data):
    with refused("anonymizer"):
        evaluate(data, lambda rows: np.where(rows[:, :1] > np.median(data.train.features[:, 0]), np.inf, rows))


def test_mixing_must_be_called_by_its_name(data):
    result = evaluate(data, mix, served="batch", seeds=(0,))
    assert result["protocol"]["served"] == "batch"
    assert result["protocol"]["warning"] in release_protocol.format_table(result)
    assert "warning" in release_protocol.format_table(result)
    assert PROTOCOLS["release"].served == "alone"


def test_people_may_not_be_in_two_splits(data):
    with refused("train and test"):
        AttackData(data.train, data.validation, data.train)


def test_hold_out_splits_by_people(data):
    rest, held = hold_out(data.train, share=0.25)
    assert len(np.unique(held.clusters)) == 15
    assert not set(rest.clusters) & set(held.clusters)
    assert len(rest) + len(held) == len(data.train)


def test_the_same_seeds_give_the_same_result(data):
    options = {"attackers": ("mlp",), "seeds": (0,), "num_resamples": 50}
    first, again = (evaluate(data, None, **options) for _ in range(2))
    assert first["views"] == again["views"]
    assert first["views"] != evaluate(data, None, **{**options, "seeds": (1,)})["views"]


def test_results_are_plain_json(erased):
    assert json.loads(json.dumps(erased, allow_nan=False)) == erased


def test_an_attribute_of_one_class_is_left_out_by_name(data):
    labels = data.test.labels.copy()
    labels[:, 1] = 0
    odd = dataclasses.replace(data, test=dataclasses.replace(data.test, labels=labels))
    result = evaluate(odd, None, seeds=(0,))
    found = result["views"]["temporal"]
    assert found["left_out"] == ["second"]
    assert found["attributes"]["second"]["raw"]["ap"] is None
    assert found["mean"]["raw"]["ap"] == pytest.approx(found["attributes"]["first"]["raw"]["ap"])
    assert re.search(r"left out.*: second$", release_protocol.format_table(result), flags=re.MULTILINE)
    json.dumps(result, allow_nan=False)


def test_videos_may_be_judged_as_a_whole(data):
    result = evaluate(data, None, level="video", seeds=(0,))
    rows = evaluate(data, None, seeds=(0,))
    assert result["views"]["temporal"]["mean"]["raw"]["ap"] > rows["views"]["temporal"]["mean"]["raw"]["ap"]
    assert result["views"]["temporal"]["mean"]["chance"] == pytest.approx(rows["views"]["temporal"]["mean"]["chance"])


def test_thinned_training_rows_are_told(data):
    result = evaluate(data, None, max_train_rows=100, seeds=(0,))
    assert result["views"]["temporal"]["train_rows_used"] == 100
    assert "100 of 540" in release_protocol.format_table(result)


def test_unknown_names_are_told(data):
    with refused("attackers"):
        evaluate(data, None, attackers=("logistc",))
    with refused("temporal"):
        release_protocol.evaluate_by_release_protocol({"temporal": data}, None, attributes=("only",))


def publish(data: AttackData, anonymize=None, **options) -> dict:
    recipe = paper_protocol.PaperHeadRecipe(num_epochs=25, batch_size=64, **options)
    return paper_protocol.evaluate_by_paper_protocol(
        data.train, data.test, anonymize, attributes=ATTRIBUTES, recipe=recipe
    )


def test_the_published_head_learns_and_finds_nothing_after_erasure(data):
    result = publish(data, lambda batch: torch.from_numpy(erase(batch.numpy())))
    assert result["raw"]["cmap"] > result["chance_cmap"] + 0.3
    assert result["anonymized"]["cmap"] < result["chance_cmap"] + 0.2
    assert result["raw"]["cmap"] >= result["raw"]["last_epoch_cmap"]
    assert "optimistic" in paper_protocol.format_table(result)
    json.dumps(result, allow_nan=False)


def test_the_published_head_is_what_a_plain_loop_trains(data):
    """AdamW, divided by 5 on a plateau of the test loss, on one row drawn of every video, number for number."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = PrivacyHead(WIDTH, 2, normalise=True)
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.03)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.2, patience=0)
    loss, generator = torch.nn.BCEWithLogitsLoss(), np.random.default_rng(0)
    train, test = ([torch.from_numpy(part.features), torch.from_numpy(part.labels)] for part in (data.train, data.test))
    videos = [np.flatnonzero(data.train.videos == name) for name in np.unique(data.train.videos)]
    curve = []
    for _ in range(25):
        drawn = generator.permutation([rows[int(u * 3)] for rows, u in zip(videos, generator.random(180), strict=True)])
        for rows in (drawn[start : start + 64] for start in range(0, 180, 64)):
            optimizer.zero_grad()
            loss(head.train()(train[0][rows]), train[1][rows]).backward()
            optimizer.step()
        with torch.no_grad():
            logits = head.eval()(test[0])
        plateau.step(loss(logits, test[1]))
        curve.append([average_precision_score(test[1][:, a], logits[:, a]) for a in range(2)])
    assert optimizer.param_groups[0]["lr"] < 0.03
    raw = publish(data, learning_rate=0.03, patience=0)["raw"]
    best = int(np.argmax(np.mean(curve, axis=1)))
    assert raw["best_epochs"] == [best + 1]
    np.testing.assert_allclose(list(raw["ap"].values()), curve[best], rtol=1e-12)
    assert raw["last_epoch_cmap"] == pytest.approx(np.mean(curve[-1]), rel=1e-12)


def test_the_published_head_passes_over_what_is_not_labelled(data):
    """Batches of a single row, a third of them without any label: they may teach nothing, and spoil nothing."""
    labels = data.train.labels.copy()
    labels[: len(labels) // 3] = np.nan
    train = dataclasses.replace(data.train, labels=labels)
    recipe = paper_protocol.PaperHeadRecipe(num_epochs=2, batch_size=1)
    result = paper_protocol.evaluate_by_paper_protocol(train, data.test, None, attributes=ATTRIBUTES, recipe=recipe)
    assert result["raw"]["cmap"] > result["chance_cmap"] + 0.3


def test_the_published_head_stops_on_features_that_are_not_finite(data):
    with refused("loss term 'total'"):
        publish(data, lambda batch: batch * torch.inf)


def test_the_published_anonymizer_sees_test_rows_in_file_order(data):
    seen = []

    def record(batch: torch.Tensor) -> torch.Tensor:
        seen.append(batch.clone())
        return batch

    publish(data, record)
    in_order = torch.cat(seen)[: len(data.test)]
    np.testing.assert_array_equal(in_order.numpy(), data.test.features)
    assert len(seen[-1]) == 180 % 64  # one of each of the 180 training videos an epoch


def test_in_batch_privacy_does_not_hold_alone(data):
    """Section 3.1 of the method's weaknesses: mixing looks private in the published protocol only."""

    def mix_batch(batch: torch.Tensor) -> torch.Tensor:
        noise = torch.roll(batch, 1, dims=0)
        return batch + 4 * noise if len(batch) > 1 else 5 * batch

    in_batch = publish(data, mix_batch)
    alone = evaluate(data, lambda rows: 5 * rows, seeds=(0,))["views"]["temporal"]["mean"]
    assert in_batch["anonymized"]["cmap"] < in_batch["raw"]["cmap"] - 0.1
    assert alone["leakage"] == pytest.approx(1, abs=0.02)


def test_chance_of_the_gates_is_prevalence(data, erased):
    for gate in erased["gates"]:
        assert gate["chance"] == pytest.approx(metrics.prevalences(data.test.labels).mean())

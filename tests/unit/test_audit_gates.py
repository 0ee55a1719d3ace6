"""What an audit asks of itself about how its features were served."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from splavu.anonymizers import build_anonymizer
from splavu.attacks.rows import AttackData, Rows
from splavu.audit.gates import attackers_gate, batch_gate, served_gate


def rows(seed: int, width: int = 8) -> Rows:
    rng = np.random.default_rng(seed)
    people = np.array([f"{seed}-{i // 4}" for i in range(40)])
    labels = rng.integers(0, 2, (40, 1)).astype(np.float32)
    return Rows(rng.normal(size=(40, width)).astype(np.float32), labels, people, people)


@pytest.fixture
def data() -> AttackData:
    return AttackData(rows(1), rows(2), rows(3))


@pytest.mark.parametrize(("over", "passed"), [("time", True), ("batch", False)])
def test_a_feature_that_depends_on_its_batch_fails(data, over, passed):
    torch.manual_seed(0)
    anonymizer = build_anonymizer("transformer", 8, num_layers=1, num_heads=2, attends_over=over, identity=False)
    gate = batch_gate(anonymizer, data.test.features, "cpu")
    assert gate.passed is passed
    assert (gate.numbers["relative_difference"] < 1e-6) is passed


def test_a_store_of_other_features_fails_in_whichever_split_they_are(data):
    assert served_gate(data, data).passed
    assert served_gate(data, data.mapped(lambda features: features * (1 + 1e-5))).passed  # of another precision
    for name in ("train", "validation", "test"):
        part = data.splits[name]
        other = dataclasses.replace(data, **{name: dataclasses.replace(part, features=part.features[::-1])})
        assert served_gate(other, data).passed is False
    assert "8 wide" in served_gate(data, data.mapped(lambda features: features[:, :4])).detail


def test_gates_without_what_they_need_are_not_run(data):
    assert batch_gate(None, data.test.features, "cpu").passed is None
    assert served_gate(data, None).passed is None
    assert attackers_gate("attackers succeed on raw features", None, True, 10).passed is None

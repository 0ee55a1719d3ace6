"""What a task says before it trains."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from splavu.data.datasets import BatchLoader, FeatureDataset
from splavu.stores import FeatureStore, StoreWriter
from splavu.training.heads import LinearHead
from splavu.training.learners import Learner
from splavu.training.tasks import ActionRecognition

CPU = torch.device("cpu")


@pytest.mark.parametrize(("held_out", "is_warned"), [({"c": 0}, False), ({"c": 0, "d": 2}, True)])
def test_a_class_only_in_the_test_split_is_named(tmp_path, caplog, held_out, is_warned):
    with StoreWriter(tmp_path / "s.h5", attributes={"encoder": "demo"}) as writer:
        for key in "abcd":
            writer.add(key, np.ones((2, 4), np.float32))
    store = FeatureStore(tmp_path / "s.h5")
    head = LinearHead(4, 3)
    learner = Learner("ft_ar", head, torch.optim.SGD(head.parameters(), lr=0.1))
    loaders = (
        BatchLoader(FeatureDataset(store, list(labels), labels=labels), batch_size=2, device=CPU)
        for labels in ({"a": 0, "b": 1}, held_out)
    )
    with caplog.at_level(logging.WARNING):
        ActionRecognition(learner, *loaders, CPU)
    found = [message for message in caplog.messages if "class 2 of 'd'" in message]
    assert bool(found) == is_warned

"""Pooling and the items of the public data sets, number for number (golden data of ../shared)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mgfn.snippets import full_length_batch, pooled, segment_edges, training_batch


def test_pooling(shared):
    golden = np.load(shared / "golden/mgfn/segpool.npz", allow_pickle=False)
    assert len(golden["cases"]) == 16
    for time, segments in golden["cases"].tolist():
        case = f"T{time}_L{segments}"
        np.testing.assert_array_equal(segment_edges(time, segments), golden[f"edges_{case}"])
        found = pooled(torch.from_numpy(golden[f"in_{case}"]), segments)
        np.testing.assert_allclose(found, golden[f"out_{case}"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["2d", "3d"])
def test_items(shared, kind):
    golden = np.load(shared / "golden/mgfn/dataset_items.npz", allow_pickle=False)
    for time in golden["Ts"]:
        features = torch.from_numpy(golden[f"feat{kind[0]}_T{time}"])
        expected = golden[f"train_{kind}_T{time}"]
        np.testing.assert_allclose(training_batch([features])[0], expected, rtol=0, atol=1e-6)
        expected = golden[f"test_{kind}_T{time}"]  # [T, N, D + 1]
        np.testing.assert_allclose(full_length_batch(features)[0].transpose(0, 1), expected, rtol=0, atol=1e-6)

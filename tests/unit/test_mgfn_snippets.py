from itertools import pairwise

import numpy as np
import pytest
import torch

from mgfn.snippets import crops_first, full_length_batch, pooled, segment_edges, training_batch, with_magnitude


@pytest.mark.parametrize(("time", "segments"), [(1, 4), (3, 4), (4, 4), (5, 4), (100, 7), (33, 32)])
def test_pooling_is_the_mean_of_each_segments_rows(time, segments):
    features = torch.randn(2, time, 3, generator=torch.Generator().manual_seed(0))
    found = pooled(features, segments)
    edges = [int(np.floor(edge)) for edge in np.linspace(0, time, segments + 1)]
    for index, (start, end) in enumerate(pairwise(edges)):
        expected = features[:, start:end].mean(dim=1) if end > start else features[:, start]
        torch.testing.assert_close(found[:, index], expected)


def test_edges_cover_every_snippet():
    for time in range(1, 200):
        edges = segment_edges(time, 32)
        assert edges[0] == 0
        assert edges[-1] == time
        assert (np.diff(edges) >= 0).all()


def test_magnitude_is_taken_after_pooling():
    opposite = torch.tensor([[3.0, 4.0], [-3.0, -4.0]])
    assert training_batch([opposite], num_segments=1)[0, 0, 0].tolist() == [0.0, 0.0, 0.0]
    assert full_length_batch(opposite)[0, 0, :, -1].tolist() == [5.0, 5.0]


def test_a_file_without_crop_axis_is_one_crop():
    features = torch.randn(9, 5)
    torch.testing.assert_close(training_batch([features]), training_batch([features.unsqueeze(1)]), rtol=0, atol=0)
    assert crops_first(torch.zeros(9, 4, 5)).shape == (4, 9, 5)
    assert training_batch([torch.zeros(9, 4, 5), torch.zeros(40, 4, 5)], num_segments=8).shape == (2, 4, 8, 6)


def test_gradient_reaches_the_features_through_pooling_and_magnitude():
    features = torch.randn(7, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: training_batch([x], num_segments=3), (features,))
    assert torch.autograd.gradcheck(lambda x: training_batch([x], num_segments=12), (features,))


def test_gradient_at_a_zero_feature_is_finite():
    features = torch.zeros(4, 3, requires_grad=True)
    with_magnitude(features).sum().backward()
    assert torch.isfinite(features.grad).all()

import numpy as np
import pytest
import torch
from refusals import refused
from sklearn.metrics import log_loss, roc_auc_score

from mgfn import build_model, scoring
from mgfn.errors import InputError
from mgfn.scoring import scores_of, video_figures
from mgfn.snippets import full_length_batch


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(5, dims=(8, 8, 8), depths=(1, 1, 1), dim_head=4).train()


@pytest.mark.parametrize("at_once", [1, 20, 16384])
def test_crops_in_parts_score_as_crops_together(model, at_once, monkeypatch):
    monkeypatch.setattr(scoring, "SNIPPETS_AT_ONCE", at_once)
    batch = full_length_batch(torch.rand(9, 5, 5))
    found = scores_of(model, batch)
    np.testing.assert_allclose(found, model.eval().score(batch)[0].detach(), atol=1e-6)
    assert not model.training


def test_video_figures_are_of_the_mean_of_the_highest_snippets(model):
    videos = [torch.rand(time, 5) * time for time in (2, 5, 9, 12, 20, 31)]
    is_abnormal = np.array([False, True, False, True, True, False])
    found = video_figures(model, map(full_length_batch, videos), is_abnormal, k=3)
    model.eval()
    scores = [
        model.score(full_length_batch(video))[0].topk(min(3, len(video))).values.mean().item() for video in videos
    ]
    assert found["auc"] == pytest.approx(roc_auc_score(is_abnormal, scores))
    assert found["bce"] == pytest.approx(log_loss(is_abnormal, scores), rel=1e-5)


def test_scores_that_are_not_finite_are_refused():
    model = torch.nn.Linear(2, 1)
    model.score = lambda part: torch.full((len(part), 3), torch.nan)
    with refused("the network", InputError):
        scores_of(model, torch.zeros(1, 1, 3, 2))

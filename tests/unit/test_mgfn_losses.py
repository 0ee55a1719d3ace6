import math

import pytest
import torch
from refusals import refused

from mgfn import build_model
from mgfn.errors import InputError
from mgfn.losses import Objective, clustering, separation, terms, training_terms
from mgfn.selection import Selected, select, selection_mask


def made(num_normal=3, num_abnormal=3, crops=2, k=3, width=5, time=8, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def half(count):
        features = torch.randn(crops, count, k, width, generator=generator)
        return Selected(scores=torch.rand(count, generator=generator), features=features)

    scores = [torch.rand(count, time, generator=generator) for count in (num_normal, num_abnormal)]
    return half(num_normal), half(num_abnormal), *scores


def test_selection_takes_the_largest_features_for_all_crops():
    features = torch.zeros(1, 2, 5, 2)
    features[0, :, :, 0] = torch.tensor([[1.0, 9.0, 2.0, 3.0, 0.0], [1.0, 0.0, 8.0, 3.0, 0.0]])  # means 1 4.5 5 3 0
    scores = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5]])
    chosen = select(features, scores, k=2)
    assert chosen.features[:, 0, :, 0].tolist() == [[2.0, 9.0], [8.0, 0.0]]
    assert chosen.scores.tolist() == pytest.approx([0.25])
    masked = select(features, scores, k=2, mask=torch.tensor([[1.0, 0.0, 1.0, 1.0, 1.0]]))
    assert masked.features[0, 0, :, 0].tolist() == [2.0, 3.0]


def test_selection_of_a_short_video_takes_all_of_it():
    assert select(torch.rand(2, 1, 2, 4), torch.rand(2, 2), k=3).features.shape == (1, 2, 2, 4)


def test_gradients_flow_through_the_chosen_snippets_alone():
    features, scores = torch.rand(2, 1, 6, 3, requires_grad=True), torch.rand(2, 6, requires_grad=True)
    chosen = select(features, scores, k=2)
    (chosen.scores.sum() + chosen.features.sum()).backward()
    assert scores.grad.count_nonzero(dim=1).tolist() == [2, 2]
    assert (features.grad[:, 0].amax(dim=-1) > 0).sum(dim=1).tolist() == [2, 2]


def test_selection_mask_leaves_out_the_stated_share():
    torch.manual_seed(0)
    mask = selection_mask(100, 100, dropout=0.7, like=torch.zeros(()))
    assert mask.unique().tolist() == pytest.approx([0.0, 1 / 0.3])
    assert abs(float((mask == 0).float().mean()) - 0.7) < 4 * math.sqrt(0.21 / 10_000)
    assert (selection_mask(2, 3, dropout=0.0, like=torch.zeros(())) == 1).all()


@pytest.mark.parametrize("variant", ["A", "B"])
def test_regularisers_as_loops(variant):
    normal, abnormal, normal_scores, abnormal_scores = made()
    found = terms(normal, abnormal, normal_scores, abnormal_scores, Objective(variant=variant))
    if variant == "A":
        rows, sparse = [*normal_scores, *abnormal_scores], normal_scores
    else:
        rows, sparse = [abnormal_scores.flatten()], abnormal_scores
    smooth = sum(float((row[t + 1] - row[t]) ** 2) for row in rows for t in range(len(row) - 1))
    assert float(found["smoothness"]) == pytest.approx(8e-4 * smooth, rel=1e-5)
    norm = math.sqrt(sum(float(score) ** 2 for score in sparse.flatten()))
    assert float(found["sparsity"]) == pytest.approx(8e-3 * norm, rel=1e-5)


def test_total_is_the_weighted_sum_of_the_terms():
    found = terms(*made(), Objective(contrast=0.5, separation=0.1))
    contrast = 0.1 * found["separation"] + found["normal_clustering"] + found["abnormal_clustering"]
    expected = found["bce"] + 0.5 * contrast + found["smoothness"] + found["sparsity"]
    torch.testing.assert_close(found["total"], expected)


@pytest.mark.parametrize(("num_normal", "num_abnormal"), [(3, 1), (1, 4), (5, 2), (1, 1)])
@pytest.mark.parametrize("crops", [1, 2])
@pytest.mark.parametrize("pairs", ["rows", "videos"])
def test_any_number_of_videos_gives_finite_terms_and_gradients(num_normal, num_abnormal, crops, pairs):
    torch.manual_seed(0)
    model = build_model(4, dims=(8, 8, 8), depths=(1, 1, 1), dim_head=4).train()
    labels = torch.arange(num_normal + num_abnormal) >= num_normal
    found = training_terms(model, torch.rand(len(labels), crops, 8, 5), labels, Objective(clustering=pairs))
    assert all(torch.isfinite(value) for value in found.values())
    found["total"].backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_separation_of_unequal_halves_goes_through_the_smaller_again():
    abnormal, normal = torch.rand(1, 3, 2), torch.rand(1, 2, 2)
    rows = [(0, 0), (1, 1), (2, 0)]
    gaps = [math.dist(abnormal[0, i].add(1e-6).tolist(), normal[0, j].tolist()) for i, j in rows]
    expected = sum((200 - gap) ** 2 for gap in gaps) / 3
    assert float(separation(abnormal, normal, margin=200.0)) == pytest.approx(expected, rel=1e-5)


def test_clustering_of_odd_rows_leaves_none_out_and_pairs_none_with_itself():
    sizes = torch.rand(1, 5, 3, requires_grad=True)
    clustering(sizes).backward()
    assert (sizes.grad.abs().sum(dim=-1) > 0).all()
    sizes = sizes.detach()
    gaps = [math.dist(sizes[0, i + 2].add(1e-6).tolist(), sizes[0, i].tolist()) ** 2 for i in range(3)]
    assert float(clustering(sizes)) == pytest.approx(sum(gaps) / 3, rel=1e-5)


def test_rows_of_mirrored_crops_meet_themselves_and_videos_do_not():
    one_crop = torch.rand(1, 4, 3)
    mirrored = one_crop.expand(2, 4, 3)
    assert float(clustering(mirrored, pairs="rows")) < 1e-9
    torch.testing.assert_close(clustering(mirrored, pairs="videos"), clustering(one_crop, pairs="rows"))


def test_an_absent_class_is_refused():
    model = build_model(4, dims=(8, 8, 8), depths=(1, 1, 1), dim_head=4)
    for label in (True, False):
        with refused("batch", InputError):
            training_terms(model, torch.rand(2, 1, 8, 5), torch.tensor([label, label]), Objective())


@pytest.mark.parametrize("values", [{"variant": "C"}, {"clustering": "all"}, {"dropout": 1.0}])
def test_unknown_objectives_are_refused(values):
    [(name, value)] = values.items()
    with refused(name, InputError, naming=str(value)):
        Objective(**values)


def test_a_network_gone_astray_gives_a_loss_that_is_not_finite_instead_of_breaking_down():
    normal, abnormal, *scores = made()
    astray = Selected(scores=normal.scores * torch.nan, features=normal.features)
    assert terms(astray, abnormal, *scores, Objective())["bce"].isnan()
    assert terms(normal, abnormal, *scores, Objective())["bce"].isfinite()


def test_under_mixed_precision_losses_are_of_full_precision():
    torch.manual_seed(0)
    model = build_model(6, dims=(8, 8, 16), depths=(1, 1, 1), dim_head=4)
    batch, is_abnormal = torch.rand(4, 2, 8, 7), torch.tensor([False, False, True, True])
    objective, found = Objective(dropout=0), {}
    for precision in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
            found[precision] = training_terms(model, batch, is_abnormal, objective)
    for name, value in found[torch.bfloat16].items():
        assert value.dtype == torch.float32
        assert float(value.detach()) == pytest.approx(float(found[torch.float32][name].detach()), rel=0.1)
    assert found[torch.bfloat16]["bce"] != found[torch.float32]["bce"]  # the network is of half precision

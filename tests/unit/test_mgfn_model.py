import re

import pytest
import torch
from refusals import refused

from mgfn import build_model, model_from_state
from mgfn.errors import InputError
from mgfn.layers import ChannelNorm, Focus, Glance
from mgfn.snippets import full_length_batch


def small(**changes):
    torch.manual_seed(0)
    return build_model(6, **{"dims": (8, 8, 16), "depths": (1, 1, 1), "dim_head": 4, **changes})


@pytest.mark.parametrize(("width", "count"), [(2048, 28_652_773), (1024, 28_456_165), (768, 28_407_013)])
def test_parameter_counts_of_the_published_network(width, count):
    with torch.device("meta"):
        model = build_model(width)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_names_and_shapes_are_the_official_ones(shared):
    rows = re.findall(r"^\| `(\S+)` \| (\(.*?\)|scalar).*? \|", (shared / "spec/mgfn.md").read_text(), flags=re.M)
    expected = {name: () if shape == "scalar" else tuple(map(int, re.findall(r"\d+", shape))) for name, shape in rows}
    assert len(expected) == 145
    with torch.device("meta"):
        state = build_model(2048).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == expected


def test_scores_of_a_video_do_not_depend_on_its_batch():
    model = small().eval()
    batch = torch.rand(5, 2, 9, 7)
    together = model.score(batch)
    assert together.shape == (5, 9)
    assert ((together > 0) & (together < 1)).all()
    for index in range(5):
        torch.testing.assert_close(model.score(batch[index : index + 1])[0], together[index])


def test_the_score_is_the_mean_over_crops():
    model = small().eval()
    batch = torch.rand(2, 3, 9, 7)
    crops = [model.score(batch[:, crop : crop + 1]) for crop in range(3)]
    torch.testing.assert_close(model.score(batch), torch.stack(crops).mean(dim=0))


@pytest.mark.parametrize("time", [1, 2, 400])
def test_any_length_is_scored(time):
    assert small().eval().score(full_length_batch(torch.rand(time, 6))).shape == (1, time)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_any_number_of_videos_passes_in_either_mode(mode):
    model = getattr(small(), mode)()
    for count in (1, 3):
        assert model(torch.rand(count, 2, 8, 7)).features.shape == (count, 2, 8, 16)


def test_magnitude_counts_by_its_ratio_alone():
    model = small().eval()
    silent = model_from_state(model.state_dict(), mag_ratio=0.0).eval()
    batch = torch.rand(1, 1, 8, 7)
    louder = torch.cat([batch[..., :-1], 3 * batch[..., -1:]], dim=-1)
    assert not torch.allclose(model.score(batch), model.score(louder))
    torch.testing.assert_close(silent.score(batch), silent.score(louder), rtol=0, atol=0)


def test_channel_norm_of_equal_channels_has_finite_gradients():
    norm, x = ChannelNorm(4), torch.full((1, 4, 3), 2.0, requires_grad=True)
    norm(x).square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert (norm(x) == 0).all()


def test_glance_sees_all_time_steps_and_focus_its_neighbours():
    x = torch.randn(1, 8, 20)
    moved = x.clone()
    moved[..., 0] += torch.randn(1, 8)
    for block, reach in ((Glance(8, heads=2, dim_head=4), 20), (Focus(8, heads=2, dim_head=4), 3)):
        block.eval()
        changed = (block(x) - block(moved)).abs().amax(dim=(0, 1)) > 0
        assert changed.nonzero().max() == reach - 1, type(block)


def test_a_state_dict_tells_its_architecture():
    model = small(types=("fb", "gb", "fb"), depths=(2, 1, 1))
    wrapped = {f"module.{name}": value for name, value in model.state_dict().items()}
    again = model_from_state(wrapped)
    assert again.architecture == model.architecture
    batch = torch.rand(1, 1, 8, 7)
    torch.testing.assert_close(again.eval().score(batch), model.eval().score(batch), rtol=0, atol=0)


@pytest.mark.parametrize("damage", ["empty", "missing", "extra", "other shape"])
def test_what_is_no_mgfn_is_refused(damage):
    state = dict(small().state_dict())
    if damage == "empty":
        state = {}
    elif damage == "missing":
        del state["fc.bias"]
    elif damage == "extra":
        state["head.weight"] = torch.zeros(1)
    else:
        state["fc.weight"] = torch.zeros(1, 5)
    with refused("state dict", InputError):
        model_from_state(state)


@pytest.mark.parametrize(
    ("changes", "culprit", "names"),
    [
        ({"types": ("gb", "xb", "fb")}, "types", "'xb'"),
        ({"depths": (1, 1)}, "dims, depths, types", "(1, 1)"),
        ({"dims": (8, 10, 16)}, "dims", "10"),
        ({"depths": (1, 0, 1)}, "architecture", "(1, 0, 1)"),
    ],
)
def test_architectures_that_do_not_fit_are_refused(changes, culprit, names):
    with refused(culprit, InputError, naming=names):
        small(**changes)


def test_features_of_another_width_are_refused():
    with refused("features", InputError):
        small().score(torch.rand(1, 1, 8, 6))

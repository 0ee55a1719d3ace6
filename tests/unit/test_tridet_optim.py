import math

import pytest
import torch
from refusals import refused
from torch import nn

from tridet.config import OptConfig
from tridet.errors import InputError
from tridet.optim import LearningRate, MovingAverage, build_optimizer, clip, learning_rate, parameter_groups


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


def network():
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "zeta": nn.Conv1d(2, 2, 3),
            "body": nn.Sequential(nn.GroupNorm(1, 2), nn.Conv1d(2, 2, 1, groups=2), nn.BatchNorm1d(2)),
            "Upper": Scale(),
        }
    )


def optimizer():
    return torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(2))]} for _ in range(2)], lr=7.0)


COSINE = OptConfig(learning_rate=0.5, epochs=3, warmup_epochs=2, eta_min=0.1)


def test_convolution_weights_decay_and_nothing_else_does():
    decayed, rest = parameter_groups(network())
    assert list(decayed) == ["body.1.weight", "zeta.weight"]
    assert list(rest) == [
        "Upper.scale",
        "body.0.bias",
        "body.0.weight",
        "body.1.bias",
        "body.2.bias",
        "body.2.weight",
        "zeta.bias",
    ]


def test_a_bare_convolution_decays():
    decayed, rest = parameter_groups(nn.Conv1d(1, 1, 1))
    assert (list(decayed), list(rest)) == (["weight"], ["bias"])


@pytest.mark.parametrize(("kind", "built"), [("AdamW", torch.optim.AdamW), ("SGD", torch.optim.SGD)])
def test_optimizers(kind, built):
    made = build_optimizer(network(), OptConfig(type=kind, weight_decay=0.25, learning_rate=0.5, momentum=0.7))
    assert type(made) is built
    assert [group["weight_decay"] for group in made.param_groups] == [0.25, 0.0]
    assert [len(group["params"]) for group in made.param_groups] == [2, 7]
    assert {group["lr"] for group in made.param_groups} == {0.5}
    if kind == "SGD":
        assert made.param_groups[0]["momentum"] == 0.7


def test_warm_up_is_a_straight_line_to_the_base():
    rates = [learning_rate(step, COSINE, iters_per_epoch=4) for step in range(9)]
    assert rates[:8] == pytest.approx([0.5 * n / 7 for n in range(8)])
    assert rates[8] == pytest.approx(0.5)


@pytest.mark.parametrize("changes", [{"warmup": False}, {"warmup_epochs": 0}])
def test_no_warm_up(changes):
    opt = OptConfig(**{"learning_rate": 0.5, "epochs": 3, "warmup_epochs": 2, "eta_min": 0.1, **changes})
    rates = [learning_rate(step, opt, iters_per_epoch=4) for step in range(13)]
    assert rates[0] == 0.5
    assert rates[6] == pytest.approx(0.3)  # half way
    assert rates[12] == pytest.approx(0.1)
    steps = OptConfig(**{"learning_rate": 0.5, "schedule_type": "multistep", "schedule_steps": (1,), **changes})
    assert [learning_rate(step, steps, iters_per_epoch=2) for step in range(4)] == pytest.approx([0.5, 0.5, 0.05, 0.05])


def test_the_rate_stays_down_after_the_end():
    last = learning_rate(20, COSINE, iters_per_epoch=4)
    assert last == pytest.approx(0.1)
    assert {learning_rate(step, COSINE, iters_per_epoch=4) for step in range(20, 50)} == {last}


def test_a_warm_up_of_one_iteration():
    opt = OptConfig(learning_rate=0.5, epochs=1, warmup_epochs=1)
    assert [learning_rate(step, opt, iters_per_epoch=1) for step in range(2)] == [0.0, 0.5]


def test_the_rate_is_set_in_every_group():
    made = optimizer()
    schedule = LearningRate(made, COSINE, iters_per_epoch=4)
    for step in range(25):
        expected = learning_rate(step, COSINE, iters_per_epoch=4)
        assert [group["lr"] for group in made.param_groups] == [expected, expected]
        assert schedule.current == expected
        schedule.step()


def test_a_resumed_schedule_goes_on():
    first = LearningRate(optimizer(), COSINE, iters_per_epoch=4)
    for _ in range(11):
        first.step()
    made = optimizer()
    second = LearningRate(made, COSINE, iters_per_epoch=4)
    second.load_state_dict(first.state_dict())
    assert made.param_groups[1]["lr"] == first.current == second.current
    first.step()
    second.step()
    assert second.current == first.current


def test_the_state_is_the_public_one():
    schedule = LearningRate(optimizer(), COSINE, iters_per_epoch=4)
    for _ in range(3):
        schedule.step()
    assert schedule.state_dict() == {
        "warmup_epochs": 8,
        "max_epochs": 20,
        "warmup_start_lr": 0.0,
        "eta_min": 0.1,
        "base_lrs": [0.5, 0.5],
        "last_epoch": 3,
        "_step_count": 4,
        "_last_lr": [0.5 * 3 / 7] * 2,
    }
    fresh = LearningRate(optimizer(), COSINE, iters_per_epoch=4)
    fresh.load_state_dict({**schedule.state_dict(), "verbose": False, "_get_lr_called_within_step": False})
    assert fresh.num_steps == 3


def test_a_schedule_of_another_length_is_refused():
    state = LearningRate(optimizer(), COSINE, iters_per_epoch=5).state_dict()
    with refused("scheduler", InputError):
        LearningRate(optimizer(), COSINE, iters_per_epoch=4).load_state_dict(state)
    with refused("scheduler", InputError):
        LearningRate(optimizer(), COSINE, iters_per_epoch=4).load_state_dict({})


def test_the_average_starts_as_a_copy_and_follows():
    trained = network()
    average = MovingAverage(trained, decay=0.9)
    start = {name: value.clone() for name, value in trained.state_dict().items()}
    for name, value in average.network.state_dict().items():
        assert torch.equal(value, start[name])
    assert not average.network.training
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1)
        trained["body"][2].running_mean.add_(1)
        trained["body"][2].num_batches_tracked.add_(5)
    for _ in range(3):
        average.update(trained)
    share = 1 - 0.9**3  # of the way, a geometric series
    for name, value in average.network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert value == 5
        elif not name.endswith("running_var"):
            torch.testing.assert_close(value, start[name] + share)
    assert trained["zeta"].weight.requires_grad


@pytest.mark.parametrize(("max_norm", "expected"), [(1.0, 1.0), (6.0, 5.0), (0.0, 5.0), (-1.0, 5.0)])
def test_clipping(max_norm, expected):
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0]), torch.tensor([-4.0])
    assert clip(parameters, max_norm).item() == pytest.approx(5.0)
    left = math.hypot(parameters[0].grad.item(), parameters[1].grad.item())
    assert left == pytest.approx(expected, rel=1e-5)

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

import tridet
from tridet import checkpoints
from tridet.config import Config, OptConfig, from_dict
from tridet.layers import DropPath
from tridet.optim import LearningRate, MovingAverage, build_optimizer, clip, learning_rate, parameter_groups

PARTS = ("feats", "segments", "labels")
NORMALISER = "loss_normalizer_after"


@pytest.mark.parametrize("case", ["project", "short", "eta", "multistep", "cosine_nowarmup", "past_end"])
def test_learning_rates_of_the_public_program(shared, case):
    golden = np.load(shared / "golden/tridet/lr_schedule.npz")
    options = json.loads(str(golden[f"{case}/opt_json"]))
    opt = OptConfig(**{**options, "schedule_steps": tuple(options["schedule_steps"])})
    iters_per_epoch, expected = int(golden[f"{case}/iters_per_epoch"]), golden[f"{case}/lr"]
    if case == "past_end":
        end = opt.num_epochs * iters_per_epoch
        past = [learning_rate(step, opt, iters_per_epoch=iters_per_epoch) for step in range(end, len(expected))]
        assert past == pytest.approx([opt.eta_min] * 7, abs=1e-15)
        assert expected[-1] > 1000 * opt.eta_min  # there it rises again
        expected = expected[: end + 1]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = LearningRate(optimizer, opt, iters_per_epoch=iters_per_epoch)
    rates = []
    for _ in expected:
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    np.testing.assert_allclose(rates, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("case", "archive", "key"),
    [("small", "trajectory_small", "config_json"), ("project", "config_defaults", "project_merged_json")],
)
def test_the_order_of_parameters_in_the_optimizer(shared, case, archive, key):
    golden = np.load(shared / "golden/tridet/param_names.npz")
    options = json.loads(str(np.load(shared / f"golden/tridet/{archive}.npz")[key]))
    model = tridet.build_model(options)
    decayed, rest = parameter_groups(model)
    names = golden[f"{case}/names"][np.argsort(golden[f"{case}/optimizer_index"])].tolist()
    assert [*decayed, *rest] == names
    assert len(decayed) == (golden[f"{case}/weight_decay_group"] == 0).sum()
    assert sum(parameter.numel() for parameter in model.parameters()) == golden[f"{case}/num_parameters"]
    optimizer = build_optimizer(model, model.config.opt)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.025, 0.0]


@dataclass
class Training:
    """A training of the small model with its stochastic parts off."""

    config: Config
    network: tridet.TriDet
    iters_per_epoch: int = 4

    def __post_init__(self):
        for module in self.network.modules():
            if isinstance(module, DropPath):
                module.probability = 0.0
        self.optimizer = build_optimizer(self.network, self.config.opt)
        self.schedule = LearningRate(self.optimizer, self.config.opt, iters_per_epoch=self.iters_per_epoch)
        self.average = MovingAverage(self.network)

    def step(self, videos):
        """Learning rate, losses, gradient norm and loss normaliser of an iteration."""
        rate = self.optimizer.param_groups[1]["lr"]
        self.optimizer.zero_grad()
        losses = self.network.train()(videos)
        losses["final_loss"].backward()
        norm = clip(self.network.parameters(), self.config.train_cfg.clip_grad_l2norm)
        self.optimizer.step()
        self.schedule.step()
        self.average.update(self.network)
        values = [losses[f"{name}_loss"].item() for name in ("cls", "reg", "final")]
        return [rate, *values, norm.item(), float(self.network.loss_normaliser)]


@pytest.fixture
def golden(shared):
    return {name: np.load(shared / f"golden/tridet/{name}_small.npz") for name in ("trajectory", "state", "train")}


def small_training(golden):
    config = from_dict(json.loads(str(golden["trajectory"]["config_json"])))
    config = replace(config, model=replace(config.model, input_noise=0.0))
    made = tridet.build_model(config)
    made.load_state_dict({name: torch.from_numpy(golden["state"][name]) for name in golden["state"].files})
    return Training(config, made)


def batch(golden, iteration):
    members = golden["trajectory"]["batch_members"]
    return [
        {"video_id": f"b{n}", **{key: torch.from_numpy(golden["train"][f"b{n}/{key}"]) for key in PARTS}}
        for n in members[iteration % len(members)]
    ]


@pytest.mark.parametrize("interrupted_after", [None, 5])
def test_eight_iterations_of_the_public_program(golden, tmp_path, interrupted_after):
    """Also when the training stops on the way and another process goes on from its checkpoint."""
    trajectory, training = golden["trajectory"], small_training(golden)
    rows = []
    for iteration in range(8):
        if iteration == interrupted_after:
            path = checkpoints.save(tmp_path / "epoch_000.pth.tar", training, 0)
            training = small_training(golden)
            checkpoints.resume(path, training)
        rows.append(training.step(batch(golden, iteration)))
    rows = np.array(rows)
    columns = {name: number for number, name in enumerate(trajectory["per_iter_columns"].tolist())}
    assert list(columns) == ["lr_used", "cls_loss", "reg_loss", "final_loss", "grad_norm_before_clip", NORMALISER]
    expected = trajectory["per_iter"]
    np.testing.assert_allclose(rows[:, 0], expected[:, 0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(rows[:, 1:4], expected[:, 1:4], rtol=0, atol=1e-5)
    np.testing.assert_allclose(rows[:, 4], expected[:, 4], rtol=1e-3)
    np.testing.assert_allclose(rows[:, 5], expected[:, 5], rtol=1e-9)
    for kind, network, atol in (("final", training.network, 2e-4), ("ema", training.average.network, 1e-6)):
        for name, value in network.state_dict().items():
            np.testing.assert_allclose(value, trajectory[f"{kind}/{name}"], rtol=0, atol=atol, err_msg=name)

    decayed, rest = parameter_groups(training.network)
    assert list(decayed) == trajectory["opt_group0_decay_names"].tolist()
    assert list(rest) == trajectory["opt_group1_nodecay_names"].tolist()
    states = training.optimizer.state_dict()["state"]
    assert [int(states[n]["step"]) for n in sorted(states)] == trajectory["opt_state_step"].tolist()
    norms = [states[n]["exp_avg"].norm().item() for n in sorted(states)]
    squares = [states[n]["exp_avg_sq"].sum().item() for n in sorted(states)]
    np.testing.assert_allclose(norms, trajectory["opt_exp_avg_norm"], rtol=1e-3)
    np.testing.assert_allclose(squares, trajectory["opt_exp_avg_sq_sum"], rtol=1e-3)

import dataclasses

import pytest
import torch
from thumos_world import write_world

from splavu.training.engine import Engine, EngineParams
from tridet import config as configuration
from tridet.detector import TriDet
from tridet.learner import detector_learner
from tridet.optim import learning_rate
from tridet.thumos14 import Batches, ThumosDataset


@pytest.fixture
def config(tmp_path):
    quiet = {"model": {"input_noise": 0.0}, "train_cfg": {"droppath": 0.0}}
    return configuration.load(write_world(tmp_path).config, quiet)


def network_of(config):
    torch.manual_seed(0)
    return TriDet(config).train()


def batches_of(config, size=2):
    return list(Batches(ThumosDataset(config.dataset, config.train_split, training=True), size).epoch())


def loss_and_gradients(network, batch):
    loss = network(batch)["final_loss"]
    loss.backward()
    return loss, {name: value.grad for name, value in network.named_parameters()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("changes", [{}, {"mask_padding": False}, {"backbone_type": "conv", "use_trident_head": False}])
def test_half_precision_is_of_products_alone(config, dtype, changes):
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, **changes))
    batch = batches_of(config)[0]
    network = network_of(config)
    with torch.autocast("cpu", dtype=dtype):
        levels = network.predict(*network.preprocess(batch))
        loss, gradients = loss_and_gradients(network, batch)
    assert {value.dtype for level in levels for value in (level.classes, level.offsets)} == {torch.float32}
    assert loss.dtype == torch.float32
    expected, exact = loss_and_gradients(network_of(config), batch)
    assert loss != expected
    torch.testing.assert_close(loss, expected, rtol=5e-3, atol=0)
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        assert (gradient - exact[name]).norm() <= 0.1 * exact[name].norm() + 1e-4, name


def test_normalisations_take_squares_that_half_precision_cannot_hold(config):
    norm = network_of(config).cls_head.norm[0]
    halves = torch.tensor([[[300.0], [-500.0]] * (norm.weight.shape[1] // 2)]).half()  # the square of 500 is infinite
    torch.testing.assert_close(norm(halves), norm(halves.double()).float(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.long(reason="a network is compiled")
def test_a_compiled_network_computes_the_same_and_keeps_its_names(config):
    compiled = network_of(config)
    compiled.compile(backend="eager")
    plain = network_of(config)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for batch in batches_of(config)[:2]:
        (loss, _), (expected, _) = (loss_and_gradients(network, batch) for network in (compiled, plain))
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-7)


def test_the_schedule_follows_updates_not_batches(config):
    class Steps:
        def __init__(self):
            self.learner = detector_learner(network_of(config), name="tridet")
            self.learner.schedule_as_configured(updates_per_epoch=2)
            self.learners = [self.learner]

        def batches(self, epoch):
            return batches_of(config)  # four

        def objective(self, batch):
            return self.learner.network(batch)["final_loss"], {}

    steps = Steps()
    Engine(EngineParams(accumulate=3)).epoch(steps, 0)
    assert steps.learner.schedule.num_steps == 2
    assert steps.learner.optimizer.param_groups[0]["lr"] == learning_rate(2, config.opt, iters_per_epoch=2)

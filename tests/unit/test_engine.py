from dataclasses import dataclass

import pytest
import torch
from refusals import refused
from torch import nn

from splavu.runtime.distributed import Processes
from splavu.runtime.run_folder import RunFolder
from splavu.training import engine, loop
from splavu.training.engine import Engine, EngineParams, NonFiniteLoss
from splavu.training.learners import Learner, MovingAverage, networks_of
from splavu.training.loop import Trainer, fit


@dataclass(frozen=True)
class Params(EngineParams):
    num_epochs: int = 4
    val_freq: int = 1
    seed: int = 0


class Regression(Trainer):
    """One weight that has to become the mean of targets; spoiled on purpose at a given (epoch, step)."""

    score = "fit"

    def __init__(self, *, spoiled=None, num_steps=5, rate=0.1, clip_norm=None, average=False):
        torch.manual_seed(0)
        network = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(network.parameters(), lr=rate)
        kept = MovingAverage(network, 0.5) if average else None
        self.learners = [Learner("net", network, optimizer, clip_norm=clip_norm, average=kept)]
        self.network, self.spoiled, self.num_steps = network, spoiled, num_steps

    def batches(self, epoch):
        self.epoch = epoch
        generator = torch.Generator().manual_seed(epoch)
        return [(step, torch.randn(8, 3, generator=generator)) for step in range(self.num_steps)]

    def objective(self, batch):
        step, rows = batch
        error = (self.network(rows) - rows.sum(dim=1, keepdim=True)).square().mean()
        if (self.epoch, step) == self.spoiled:
            error = error * float("nan")
        return error, {"fit": error, "size": self.network.weight.square().sum()}

    def validate(self):
        return {"fit": -float((self.network.weight.detach() - 1).square().sum())}

    def weights(self):
        return {key: network.state_dict() for key, network in networks_of({"net": self.learners[0]}).items()}

    def load_weights(self, content):
        for key, network in networks_of({"net": self.learners[0]}).items():
            network.load_state_dict(content[key])


def test_accumulated_batches_give_the_update_of_their_mean():
    engine, expected = Regression(num_steps=5), Regression(num_steps=5)
    Engine(EngineParams(accumulate=2)).epoch(engine, 0)
    batches = expected.batches(0)
    for together in (batches[:2], batches[2:4], batches[4:]):  # the last one is alone, and counts alone
        loss = torch.stack([expected.objective(batch)[0] for batch in together]).mean()
        parameters = [expected.network.weight, expected.network.bias]
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 0.1 * gradient
    torch.testing.assert_close(engine.network.weight, expected.network.weight)
    torch.testing.assert_close(engine.network.bias, expected.network.bias)


def test_clipping_bounds_the_update():
    trainer = Regression(num_steps=1, clip_norm=1e-3)
    before = torch.cat([parameter.detach().flatten().clone() for parameter in trainer.network.parameters()])
    Engine(EngineParams()).epoch(trainer, 0)
    after = torch.cat([parameter.detach().flatten() for parameter in trainer.network.parameters()])
    assert float((after - before).norm()) == pytest.approx(0.1 * 1e-3, rel=1e-3)


def test_the_moving_average_is_one():
    trainer = Regression(num_steps=3, average=True)
    expected = trainer.network.weight.detach().clone()
    network, learner = trainer.network, trainer.learners[0]
    for batch in trainer.batches(0):
        trainer.objective(batch)[0].backward()
        learner.step()
        expected = 0.5 * expected + 0.5 * network.weight.detach()
        torch.testing.assert_close(learner.evaluated.weight, expected)
    assert not learner.evaluated.weight.requires_grad


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precisions_train_too(precision):
    trainer = Regression(num_steps=100)  # fp16 leaves out its first steps, until the loss's scale fits
    Engine(EngineParams(precision=precision)).epoch(trainer, 0)
    assert trainer.network.weight.dtype == torch.float32
    torch.testing.assert_close(trainer.network.weight, torch.ones(1, 3), atol=0.02, rtol=0)


def test_a_loss_that_is_not_finite_names_term_step_and_epoch():
    with refused("loss term 'fit'", NonFiniteLoss):
        Engine(EngineParams()).epoch(Regression(spoiled=(0, 3)), 0)


def test_it_is_named_where_the_device_is_asked_rarely(monkeypatch):
    """As on a GPU: the sums are looked at once an epoch, and the step is still the first bad one."""
    looked, check = [], engine._Sums.check
    monkeypatch.setattr(engine._Sums, "check", lambda sums: looked.append(sums.count) or sums.count < 5 or check(sums))
    with refused("loss term 'fit'", NonFiniteLoss):
        Engine(EngineParams()).epoch(Regression(spoiled=(0, 2)), 0)
    assert looked == [1, 2, 3, 4, 5]


def test_a_stopped_run_names_its_last_good_checkpoint_and_keeps_it(tmp_path):
    run = RunFolder(tmp_path, "run")
    with refused("loss term 'fit'"):
        fit(Regression(spoiled=(2, 1)), run, Params())
    with refused("loss term 'fit'"):
        fit(Regression(spoiled=(0, 0)), RunFolder(tmp_path, "other"), Params())
    fit(Regression(), run, Params())  # goes on
    fit(Regression(), RunFolder(tmp_path, "whole"), Params())
    assert run.history() == RunFolder(tmp_path, "whole").history()


def test_spoiled_weights_are_never_written(tmp_path):
    class Spoiled(Regression):
        def batches(self, epoch):
            if epoch == 1:  # the last step of an epoch may spoil them after the last loss was looked at
                self.learners[0].optimizer.param_groups[0]["lr"] = float("inf")
                return super().batches(epoch)[:1]
            return super().batches(epoch)

    run = RunFolder(tmp_path, "run")
    with refused("weight 'weight' of net"):
        fit(Spoiled(), run, Params())
    for file in run.path.glob("*.pth"):
        assert all(value.isfinite().all() for value in torch.load(file, weights_only=True)["net"].values())


def test_checkpoints_may_be_rarer_and_resume_from_there(tmp_path):
    runs = {}
    for name, epochs in (("whole", (7,)), ("parts", (4, 5, 7))):
        runs[name] = RunFolder(tmp_path, name)
        for num_epochs in epochs:
            fit(Regression(average=True), runs[name], Params(num_epochs=num_epochs, checkpoint_freq=3))
    assert runs["whole"].history() == runs["parts"].history()
    first, second = (torch.load(run.path / "model_temp.pth", weights_only=True) for run in runs.values())
    for key in ("net", "net_ema", "average_net"):
        assert all(torch.equal(first[key][name], second[key][name]) for name in first[key])


def test_equal_ranks_keep_the_earlier_epoch(tmp_path):
    class Ranked(Regression):
        def validate(self):
            return {"fit": 0.5, "second": [0.0, 2.0, 1.0, 2.0][self.epoch]}

        def rank(self, metrics):
            return metrics["fit"], metrics["second"]

    assert fit(Ranked(), RunFolder(tmp_path, "run"), Params())["epoch"] == 2


def test_only_the_first_process_writes(tmp_path):
    class Second(Processes):
        def wait(self):
            pass

    with refused("model_4_-0.0005.pth"):  # the best one, which the first would have written
        fit(Regression(), RunFolder(tmp_path, "run"), Params(), processes=Second(rank=1))
    assert not (tmp_path / "run").exists()


def test_compiling_changes_nothing_but_the_time(tmp_path):
    trainer, plain = Regression(), Regression()
    engine = Engine(EngineParams(compile=True))
    engine.prepare(learner.network for learner in trainer.learners)
    compiled, expected = engine.epoch(trainer, 0), Engine(EngineParams()).epoch(plain, 0)
    assert compiled == pytest.approx(expected, rel=1e-5)
    assert trainer.network.state_dict().keys() == plain.network.state_dict().keys()


def test_compiling_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with refused("compile"):
        Engine(EngineParams(compile=True)).prepare([nn.Linear(1, 1)])


@pytest.mark.parametrize(
    ("name", "value"), [("accumulate", 0), ("checkpoint_freq", 0), ("ema_decay", 1.0), ("clip_norm", 0.0)]
)
def test_impossible_parameters(name, value):
    with refused(name):
        EngineParams(**{name: value})


def test_deterministic_kernels_are_asked_for(tmp_path):
    try:
        fit(Regression(), RunFolder(tmp_path, "run"), Params(deterministic=True, num_epochs=1))
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_parameter_that_may_change_is_the_callers_to_say(tmp_path):
    run = RunFolder(tmp_path, "run")
    fit(Regression(), run, Params(num_epochs=1))
    with refused("model_temp.pth"):
        fit(Regression(), run, Params(seed=1))
    fit(Regression(), run, Params(seed=1), free_to_change=loop.FREE_TO_CHANGE | {"seed"})

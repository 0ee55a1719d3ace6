import dataclasses
import os
import pickle
from collections import Counter, OrderedDict
from types import SimpleNamespace

import pytest
import torch
from refusals import refused
from torch import nn

from tridet import checkpoints
from tridet.checkpoints import find, load_weights, newest, read, resume, save, written
from tridet.config import Config, OptConfig
from tridet.errors import InputError
from tridet.optim import LearningRate, MovingAverage, build_optimizer

CONFIG = Config(opt=OptConfig(epochs=3, warmup_epochs=1, learning_rate=0.1))


def network(width=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(OrderedDict(conv=nn.Conv1d(2, width, 3), norm=nn.GroupNorm(1, width)))


def training(seed=0, config=CONFIG, iters_per_epoch=4):
    made = SimpleNamespace(config=config, network=network(seed=seed))
    made.network.loss_normaliser = 100.0
    made.average = MovingAverage(made.network, decay=0.5)
    made.optimizer = build_optimizer(made.network, config.opt)
    made.schedule = LearningRate(made.optimizer, config.opt, iters_per_epoch=iters_per_epoch)
    return made


def advance(made, steps):
    for step in range(steps):
        made.optimizer.zero_grad()
        generator = torch.Generator().manual_seed(made.schedule.num_steps)
        made.network(torch.randn(1, 2, 9, generator=generator)).square().sum().backward()
        made.optimizer.step()
        made.schedule.step()
        made.average.update(made.network)
        made.network.loss_normaliser = 0.9 * made.network.loss_normaliser + step


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items()) and first.keys() == second.keys()


@pytest.fixture
def saved(tmp_path):
    made = training()
    advance(made, 5)
    return save(tmp_path / "epoch_001.pth.tar", made, 1), made


def test_the_published_layout(saved):
    path, made = saved
    content = torch.load(path, weights_only=True)
    published = {"epoch", "state_dict", "state_dict_ema", "optimizer", "scheduler"}
    assert content.keys() == published | {"loss_normaliser", "config", "versions", "format_version"}
    assert content["epoch"] == 1
    names = ["module.conv.weight", "module.conv.bias", "module.norm.weight", "module.norm.bias"]
    assert list(content["state_dict"]) == list(content["state_dict_ema"]) == names
    assert torch.equal(content["state_dict"]["module.conv.weight"], made.network.conv.weight)
    assert torch.equal(content["state_dict_ema"]["module.conv.weight"], made.average.network.conv.weight)
    assert [group["params"] for group in content["optimizer"]["param_groups"]] == [[0], [1, 2, 3]]
    assert content["scheduler"]["last_epoch"] == 5
    assert content["config"]["opt"]["epochs"] == 3


def test_resumed_equals_uninterrupted(saved):
    path, made = saved
    again = training(seed=1)
    assert resume(path, again) == 1
    for one in (made, again):
        advance(one, 4)
    assert same(made.network.state_dict(), again.network.state_dict())
    assert same(made.average.network.state_dict(), again.average.network.state_dict())
    assert made.network.loss_normaliser == again.network.loss_normaliser
    assert made.schedule.current == again.schedule.current


def test_a_checkpoint_of_the_public_release(saved, tmp_path, caplog):
    """It lacks our entries; its step counts are numbers, its schedule holds flags of its framework."""
    path, made = saved
    content = torch.load(path, weights_only=True)
    for key in ("loss_normaliser", "config", "versions", "format_version"):
        del content[key]
    for state in content["optimizer"]["state"].values():
        state["step"] = int(state["step"])
    content["scheduler"] |= {"verbose": False, "milestones": Counter({3: 1})}
    theirs = tmp_path / "theirs.pth.tar"
    torch.save(content, theirs)
    again = training(seed=1)
    assert resume(theirs, again) == 1
    assert again.network.loss_normaliser == 100.0
    assert "theirs.pth.tar" in caplog.text
    for one in (made, again):
        advance(one, 2)
    assert same(made.network.state_dict(), again.network.state_dict())


@pytest.mark.parametrize("prefer", ["ema", "trained"])
def test_which_weights_are_loaded(saved, prefer):
    path, made = saved
    wanted = (made.average.network if prefer == "ema" else made.network).state_dict()
    for source in (path, str(path), read(path)):
        loaded = network(seed=2)
        load_weights(loaded, source, prefer=prefer)
        assert same(loaded.state_dict(), wanted)


@pytest.mark.parametrize(
    "layout",
    [
        lambda state: state,
        lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": state},
        lambda state: {"state_dict_ema": state},
        lambda state: {"ft_model_tad_state_dict": state, "fa_model_state_dict": {"w": torch.zeros(1)}, "epoch": 3},
        lambda state: {
            "ft_model_tad_state_dict": {name: value + 1 for name, value in state.items()},
            "ft_model_tad_state_dict_ema": state,
        },
    ],
)
def test_other_layouts(layout, tmp_path):
    state, loaded = network(seed=3).state_dict(), network(seed=4)
    path = tmp_path / "weights.pth"
    torch.save(layout(state), path)
    load_weights(loaded, path)
    assert same(loaded.state_dict(), state)


def test_all_that_differs_is_named_and_nothing_is_loaded():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = network(width=4, seed=1).state_dict()
    del state["norm.bias"]
    state["extra"] = torch.zeros(1)
    shapes = ("3", "conv.weight (4, 2, 3)", "(3, 2, 3)", "conv.bias (4,)")
    with refused("the weights", InputError, naming=("1", "norm.bias", "extra", *shapes)):
        load_weights(model, state)
    assert same(model.state_dict(), before)


def test_the_recorded_configuration_says_why(saved):
    path, _ = saved
    other = network(width=4)
    other.config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, head_dim=256))
    with refused("epoch_001.pth.tar", InputError):
        load_weights(other, path)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"state_dict": {}}, {"state_dict": 3}, [1, 2]])
def test_no_weights(content, tmp_path):
    path = tmp_path / "nothing.pth"
    torch.save(content, path)
    with refused("nothing.pth", InputError):
        load_weights(network(), path)


class Harmful:
    def __reduce__(self):
        return print, ("run",)


def test_files_that_cannot_be_read(tmp_path, saved, capsys):
    with refused("absent.pth", InputError):
        read(tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("no checkpoint")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "cut.pth").write_bytes(saved[0].read_bytes()[:-500])
    (tmp_path / "code.pth").write_bytes(pickle.dumps(Harmful(), protocol=2))
    torch.save({"weights": Harmful()}, tmp_path / "code2.pth")
    torch.save({"format_version": 99}, tmp_path / "newer.pth")
    for name in ("text", "empty", "cut", "code", "code2", "newer"):
        with refused(tmp_path / f"{name}.pth", InputError, naming="99" if name == "newer" else ()):
            read(tmp_path / f"{name}.pth")
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"opt": OptConfig(epochs=3, warmup_epochs=1, learning_rate=0.1, type="SGD")}, "SGD"),
        ({"opt": OptConfig(epochs=4, warmup_epochs=1, learning_rate=0.1)}, ("max_epochs", "16", "20")),
        ({"opt": OptConfig(epochs=3, warmup_epochs=1, learning_rate=0.2)}, "base_lrs"),
    ],
)
def test_resuming_as_another_training(saved, changed, names):
    with refused(saved[0], InputError, naming=names):
        resume(saved[0], training(config=dataclasses.replace(CONFIG, **changed)))


def test_resuming_from_weights_alone(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": network().state_dict(), "epoch": 3}, path)
    with refused("weights.pth", InputError):
        resume(path, training())
    with refused("absent.pth.tar", InputError):
        resume(tmp_path / "absent.pth.tar", training())


def test_the_last_epoch_is_taken_by_number(tmp_path):
    folder = tmp_path / "run"
    assert newest(folder) is None
    folder.mkdir()
    for name in ("epoch_099.pth.tar", "epoch_1000.pth.tar", "model_best.pth.tar", "epoch_2000.pth.tar.tmp"):
        (folder / name).touch()
    assert newest(folder) == find(folder) == folder / "epoch_1000.pth.tar"
    assert find(folder / "model_best.pth.tar") == folder / "model_best.pth.tar"
    checkpoints.remove_all(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["epoch_2000.pth.tar.tmp", "model_best.pth.tar"]
    with refused("run", InputError):
        find(folder)
    with refused("absent.pth.tar", InputError):
        find(tmp_path / "absent.pth.tar")


def test_files_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "results.json"
    checkpoints.write_json(path, {"a": [1]})
    assert path.read_text() == '{\n  "a": [\n    1\n  ]\n}\n'
    with pytest.raises(TypeError), written(path) as file:
        file.write("half of it, and no bytes")
    assert path.read_text().startswith('{\n  "a"')
    assert [each.name for each in path.parent.iterdir()] == ["results.json"]


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_a_pipe_or_an_input_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "video.mp4").write_bytes(b"video")
    with refused("pipe", InputError), written(tmp_path / "pipe"):
        pass
    with refused("video.mp4", InputError):
        checkpoints.check_target(tmp_path / "video.mp4", inputs=["other", tmp_path / "video.mp4"])
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pipe", "video.mp4"]


def test_a_full_disk_is_told_in_one_line_and_leaves_what_was_there(saved, monkeypatch):
    path, made = saved
    before = path.read_bytes()
    for failure in (OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed\nmore")):

        def fail(content, file, failure=failure):
            file.write(b"half")
            raise failure

        monkeypatch.setattr(torch, "save", fail)
        with refused("epoch_001.pth.tar", InputError):
            save(path, made, 1)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]

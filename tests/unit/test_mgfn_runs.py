import dataclasses
import os

import pytest
import torch
from refusals import refused

from mgfn import build_model
from mgfn.checkpoints import read_network
from mgfn.errors import InputError
from mgfn.runs import pick_device, write_whole


def small(mag_ratio=0.1):
    torch.manual_seed(0)
    return build_model(6, dims=(8, 8, 16), depths=(1, 1, 1), dim_head=4, mag_ratio=mag_ratio)


def test_a_checkpoint_builds_its_network_again_and_the_average_goes_first(tmp_path):
    model, average = small(mag_ratio=0.3), small(mag_ratio=0.3)
    for weight in average.parameters():
        torch.nn.init.normal_(weight)
    content = {"architecture": dataclasses.asdict(model.architecture), "model": model.state_dict()}
    batch = torch.rand(1, 1, 8, 7)
    for expected, more in ((model, {}), (average, {"model_ema": average.state_dict()})):
        torch.save(content | more, tmp_path / "model.pth")
        again = read_network(tmp_path / "model.pth")
        assert again.architecture == model.architecture
        torch.testing.assert_close(again.eval().score(batch), expected.eval().score(batch), rtol=0, atol=0)


@pytest.mark.parametrize("key", [None, "state_dict", "ft_model_ad_state_dict"])
def test_plain_wrapped_and_co_trained_weights_load(tmp_path, key):
    state = small().state_dict()
    torch.save(state if key is None else {key: state, "epoch": 1}, tmp_path / "mgfn.pkl")
    again = read_network(tmp_path / "mgfn.pkl", mag_ratio=0.2)
    assert again.architecture.mag_ratio == 0.2
    torch.testing.assert_close(again.state_dict(), state, rtol=0, atol=0)


class Unsafe:
    """What a pickled checkpoint could hold, and ours may not."""


@pytest.mark.parametrize("content", ["nothing", "text", "object", "tensor", "other network", "directory"])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "bad.pth"
    if content == "text":
        path.write_text("weights")
    elif content == "directory":
        path.mkdir()
    elif content != "nothing":
        values = {"object": Unsafe(), "tensor": torch.zeros(1), "other network": torch.nn.Linear(2, 2).state_dict()}
        torch.save(values[content], path)
    with refused("bad.pth", InputError):
        read_network(path)


def test_a_file_is_there_whole_or_as_it_was(tmp_path):
    def fail(file):
        file.write(b"half")
        raise OSError("no space")

    path = tmp_path / "folder/scores.npz"
    write_whole(path, lambda file: file.write(b"whole"))
    with pytest.raises(OSError, match="no space"):
        write_whole(path, fail)
    assert path.read_bytes() == b"whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with refused("pipe", InputError):
        write_whole(tmp_path / "pipe", lambda file: file.write(b"new"))
    assert [path.is_fifo() for path in tmp_path.iterdir()] == [True]


def test_unknown_devices_are_refused():
    assert pick_device("cpu").type == "cpu"
    for name in ("gpu", "cuda:99"):
        with refused("--device", InputError):
            pick_device(name)

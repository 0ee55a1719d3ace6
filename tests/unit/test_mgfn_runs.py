import json

import pytest
import torch

from mgfn import build_model
from mgfn.checkpoints import read_checkpoint, read_network, write_checkpoint
from mgfn.errors import InputError
from mgfn.option import Options
from mgfn.runs import Run, pick_device, seed_everything


def small(mag_ratio=0.1):
    torch.manual_seed(0)
    return build_model(6, dims=(8, 8, 16), depths=(1, 1, 1), dim_head=4, mag_ratio=mag_ratio)


def test_a_checkpoint_builds_its_network_again(tmp_path):
    model = small(mag_ratio=0.3)
    write_checkpoint(tmp_path / "model.pth", model, Options(), epoch=3)
    again = read_network(tmp_path / "model.pth")
    assert again.architecture == model.architecture
    batch = torch.rand(1, 1, 8, 7)
    torch.testing.assert_close(again.eval().score(batch), model.eval().score(batch), rtol=0, atol=0)
    assert read_checkpoint(tmp_path / "model.pth")["epoch"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]


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
    with pytest.raises(InputError, match="bad.pth"):
        read_network(path)


def test_records_after_a_step_are_dropped_with_a_line_that_was_cut_off(tmp_path):
    run = Run(Options(output=str(tmp_path), model_name="run"))
    run.path.mkdir()
    for step in range(4):
        run.log(step, {"loss": float(step)})
    run.close()
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    run.rewind(2)
    assert [json.loads(line)["step"] for line in (run.path / "metrics.jsonl").read_text().splitlines()] == [0, 1]


def test_seeds_are_a_function_of_seed_and_epoch():
    drawn = []
    for seed, epoch in ((0, 1), (0, 1), (0, 2), (1, 1)):
        seed_everything(seed, epoch)
        drawn.append(torch.rand(()).item())
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3


def test_unknown_devices_are_refused():
    assert pick_device("cpu").type == "cpu"
    for name in ("gpu", "cuda:99"):
        with pytest.raises(InputError, match="--device"):
            pick_device(name)

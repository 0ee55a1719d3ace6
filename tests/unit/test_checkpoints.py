import pickle

import pytest
import torch
from refusals import refused
from torch import nn

from splavu.runtime import checkpoints


def test_what_is_written_is_read_and_nothing_else_remains(tmp_path):
    path = checkpoints.write(tmp_path / "deep" / "m.pth", {"fa_model_state_dict": {"w": torch.arange(3)}, "epoch": 4})
    content = checkpoints.read(path)
    assert content["epoch"] == 4
    assert torch.equal(content["fa_model_state_dict"]["w"], torch.arange(3))
    assert [file.name for file in path.parent.iterdir()] == ["m.pth"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = checkpoints.write(tmp_path / "m.pth", {"epoch": 1})
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        checkpoints.write(path, {"epoch": 2, "code": lambda: 0})
    assert checkpoints.read(path)["epoch"] == 1
    assert len(list(tmp_path.iterdir())) == 1


class Payload:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_checkpoint_with_code_in_it_is_refused_unrun(tmp_path, capsys):
    path = tmp_path / "evil.pth"
    torch.save({"fa_model_state_dict": Payload()}, path)
    with refused("evil.pth"):
        checkpoints.read(path)
    assert "code ran" not in capsys.readouterr().out


def test_damaged_missing_and_foreign_files(tmp_path):
    path = checkpoints.write(tmp_path / "m.pth", {"fa_model_state_dict": {"w": torch.zeros(1000)}})
    path.write_bytes(path.read_bytes()[:-200])
    with refused("m.pth"):
        checkpoints.read(path)
    with refused("absent.pth"):
        checkpoints.read(tmp_path / "absent.pth")
    torch.save([1, 2], path)
    with refused("m.pth"):
        checkpoints.read(path)
    torch.save({"format_version": checkpoints.FORMAT_VERSION + 1}, path)
    with refused("m.pth"):
        checkpoints.read(path)


def test_state_by_key_bare_and_wrapped():
    bare = {"module._orig_mod.weight": torch.zeros(2)}
    assert list(checkpoints.state_of(bare, "fa_model_state_dict", "m.pth")) == ["weight"]
    assert list(checkpoints.state_of({"fa_model_state_dict": bare}, "fa_model_state_dict", "m.pth")) == ["weight"]
    with refused("m.pth"):
        checkpoints.state_of({"epoch": 1}, "fa_model_state_dict", "m.pth")


def test_weights_of_another_shape_or_name_are_refused_by_name():
    network = nn.Linear(3, 2)
    with refused("m.pth"):
        checkpoints.load_into(network, nn.Linear(4, 2).state_dict(), "m.pth")
    with refused("m.pth"):
        checkpoints.load_into(network, {"weight": torch.zeros(2, 3)}, "m.pth")
    with refused("m.pth"):
        checkpoints.load_into(network, network.state_dict() | {"extra": torch.zeros(1)}, "m.pth")

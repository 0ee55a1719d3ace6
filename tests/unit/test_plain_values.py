"""Files of strangers: harmless values beside weights and arrays are read, and nothing in a file is ever run."""

from __future__ import annotations

import _codecs
import argparse
import collections
import copy
import datetime
import os
import pickle
import types
from pathlib import Path, PurePath

import numpy as np
import pytest
import torch
from refusals import assert_blames, refused

from mgfn.checkpoints import read_checkpoint
from mgfn.errors import InputError as MgfnError
from splavu import __main__
from splavu.anonymizers import build_anonymizer
from splavu.anonymizers.loading import load_anonymizer
from splavu.data.labels import read_attribute_pickle
from splavu.errors import UserError
from splavu.extraction.encoders import official
from splavu.runtime import checkpoints
from splavu.runtime.plain_values import load_arrays, load_checkpoint
from splavu.stores import StoreWriter
from tridet.checkpoints import read as read_tridet
from tridet.errors import InputError as TridetError

READERS = {checkpoints.read: UserError, read_tridet: TridetError, read_checkpoint: MgfnError, official.read: UserError}
HARMLESS = {
    "NumPy scalar": np.float64(0.5),
    "NumPy integer": np.int64(3),
    "NumPy bool": np.bool_(True),
    "array": np.arange(3.0),
    "array of text": np.array(["a", "bc"]),
    "dtype": np.dtype("f4"),
    "options": argparse.Namespace(lr=0.1, path=Path("/data")),
    "namespace": types.SimpleNamespace(lr=0.1),
    "path": Path("a/b"),
    "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "OrderedDict": collections.OrderedDict(a=1),
    "Counter": collections.Counter("aab"),
    "set": {1, 2},
    "frozenset": frozenset({1}),
    "bytes": b"\xff\0",
    "no bytes": b"",
    "time": datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.timezone.utc),
}


class Command:
    """Runs when it is unpickled."""

    def __init__(self, function, *args) -> None:
        self.call = function, args

    def __reduce__(self):
        return self.call


def hostile(path: Path) -> dict[str, Command]:
    return {
        "a command": Command(os.system, f"touch {path}"),
        "code": Command(eval, f"open({str(path)!r}, 'w')"),
        "an attribute": Command(getattr, "text", "upper"),
        "memory": Command(bytearray, 10**12),
        "bytes": Command(bytes, 10**12),
        "a file": Command(np.fromfile, str(path)),
    }


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_values_beside_weights(tmp_path, name):
    value, path = HARMLESS[name], tmp_path / "x.pth"
    torch.save({"weights": torch.ones(2), "beside": value}, path)
    for read in (*READERS, load_checkpoint):
        found = read(path)
        assert torch.equal(found["weights"], torch.ones(2))
        beside = found["beside"]
        if isinstance(value, argparse.Namespace):
            assert (beside.lr, beside.path) == (0.1, PurePath("/data"))
        else:
            assert np.array_equal(beside, value) if isinstance(value, np.ndarray) else beside == value


@pytest.mark.parametrize("name", hostile(Path()))
def test_no_file_is_run(tmp_path, name):
    made = tmp_path / "made"
    command, path = hostile(made)[name], tmp_path / "x.pth"
    torch.save({"weights": torch.ones(2), "beside": command}, path)
    for read, error in READERS.items():
        with refused(path, error) as caught:
            read(path)
        assert "weights_only" not in str(caught.value)
    for protocol in range(6):
        path.write_bytes(pickle.dumps({"a": np.ones(7), "b": command}, protocol=protocol))
        with refused(path):
            read_attribute_pickle(path)
    assert not made.exists()


def test_a_codec_is_no_way_out(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Command(_codecs.encode, "text", "rot13")))
    with refused("x.pkl"):
        read_attribute_pickle(tmp_path / "x.pkl")


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_protocol(protocol):
    arrays = {
        "empty": np.zeros(0),
        "bytes": np.array([1, 0], dtype=np.uint8),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big-endian": np.arange(3, dtype=">f4"),
        "scalar": np.float32(2),
    }
    found = load_arrays(pickle.dumps(collections.OrderedDict(arrays), protocol=protocol))
    assert list(found) == list(arrays)
    for name, value in arrays.items():
        assert np.array_equal(found[name], value)
        assert found[name].dtype.newbyteorder("=") == value.dtype.newbyteorder("=")


@pytest.mark.parametrize("name", ["vispr_protocol2.pkl", "vispr_ordereddict.pkl"])
def test_label_pickles_of_the_cases(shared, name):
    assert len(read_attribute_pickle(shared / "cases" / name)) == 3


DAMAGED = {
    "nothing": b"",
    "text": b"hello world\n",
    "the start of an archive": b"PK\x03\x04",
    "a dictionary without a frame": b"\x80\x02}q\0.",
    "a stack that is empty": b"\x80\x04]\x94e.",
    "zeros": bytes(300),
}


@pytest.mark.parametrize("name", [*DAMAGED, "half a checkpoint"])
def test_damaged_checkpoints(tmp_path, name):
    path = tmp_path / "x.pth"
    torch.save({"weights": torch.ones(1000)}, path)
    path.write_bytes(DAMAGED.get(name, path.read_bytes()[:2000]))
    for read, error in READERS.items():
        with refused(path, error):
            read(path)


@pytest.fixture(scope="module")
def content():
    torch.manual_seed(0)
    network = build_anonymizer("transformer", 16, num_layers=1, num_heads=2)
    return {
        "format_version": 1,
        "fa_model_state_dict": network.state_dict(),
        "fa_architecture": dict(network.architecture),
        "fitted_to": None,
    }


ODD = [
    None,
    0,
    -1,
    10**9,
    float("nan"),
    "text",
    b"b",
    [],
    {},
    {"a": 1},
    True,
    torch.zeros(3),
    torch.zeros(0),
    "removed",
]

REMOVED = object()


def refusal(path):
    try:
        load_anonymizer(path)
    except UserError as error:
        return error
    return None


def test_fields_of_another_type_are_refused_by_the_name_of_the_file(tmp_path, content):
    """Whatever stands at any place: an anonymizer, or one line."""
    path = tmp_path / "x.pth"
    places = [(key,) for key in content]
    places += [(key, name) for key in ("fa_model_state_dict", "fa_architecture") for name in content[key]]
    refusals = 0
    for *outer, key in places:
        for value in (*ODD, REMOVED):
            changed = {name: copy.copy(part) for name, part in content.items()}
            inside = changed[outer[0]] if outer else changed
            if value is REMOVED:
                del inside[key]
            else:
                inside[key] = value
            torch.save(changed, path)
            error = refusal(path)
            if error is not None:
                refusals += 1
                assert_blames(error, path)
    assert refusals > 0.7 * len(places) * len(ODD)


def test_weights_of_compiled_blocks_are_those_of_the_network(tmp_path, content):
    expected = load_anonymizer_of(tmp_path, content)
    inside = ("blocks.0.", "blocks.0._orig_mod.")
    state = {name.replace(*inside): value for name, value in expected.state_dict().items()}
    assert state.keys() != expected.state_dict().keys()
    found = load_anonymizer_of(
        tmp_path, {**content, "fa_model_state_dict": {f"module.{k}": v for k, v in state.items()}}
    )
    assert all(torch.equal(found.state_dict()[name], value) for name, value in expected.state_dict().items())
    with refused("x.pth"):
        load_anonymizer_of(tmp_path, {**content, "fa_model_state_dict": {**state, **expected.state_dict()}})


def load_anonymizer_of(folder, content):
    torch.save(content, folder / "x.pth")
    return load_anonymizer(folder / "x.pth")


@pytest.mark.parametrize("name", ["ckpt_compiled_block.pth", "ckpt_numpy_scalar.pth"])
def test_checkpoints_of_the_cases(shared, name):
    network = load_anonymizer(shared / "cases" / name, num_heads=2)
    assert network.architecture["arch"] == "transformer"


def test_an_anonymizer_of_another_width_does_not_come_first(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    with StoreWriter("raw.h5", attributes={}) as store:
        for index in range(8):
            store.add(f"v{index}", np.random.default_rng(index).normal(size=(3, 8)).astype("f4"))
    torch.save(content, "first.pth")
    with refused("--after", naming=("16", "8")):
        __main__.main(["fit", "pca", "--keep", "2", "--raw", "raw.h5", "--after", "first.pth", "--out", "x.pth"])
    assert not Path("x.pth").exists()

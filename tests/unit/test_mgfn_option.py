import dataclasses
import subprocess
import sys

import pytest
from conftest import REPOSITORY
from refusals import refused

from mgfn.command_line import INERT, parse
from mgfn.errors import InputError, nearest
from mgfn.option import Options, learning_rates


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("0.001", [0.001]),
        ("1e-4", [1e-4]),
        ("[0.001]*3", [0.001] * 3),
        ("[0.01, 0.001] * 2 + [1e+0]", [0.01, 0.001, 0.01, 0.001, 1.0]),
    ],
)
def test_learning_rates_of_the_historic_form(text, rates):
    assert learning_rates(text) == rates


@pytest.mark.parametrize(
    "text", ["", "fast", "[]", "[0.1]*", "0", "-0.1", "[nan]*3", "__import__('os').abort()", "[0.1]*2*2"]
)
def test_nothing_else_is_a_learning_rate(text):
    with refused("--lr", InputError):
        learning_rates(text)


def test_plots_without_matplotlib_are_refused_before_anything_is_computed(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    Options()
    with refused("--plots", InputError):
        Options(plots=True)


def test_rates_go_by_epoch_and_a_single_one_holds_for_all():
    options = Options(lr="[0.1]*2+[0.01]*2", max_epoch=4)
    assert [options.rate(epoch) for epoch in range(4)] == [0.1, 0.1, 0.01, 0.01]
    assert Options(lr="0.1", max_epoch=9).rate(8) == 0.1
    with refused("--lr", InputError):
        Options(lr="[0.1]*2", max_epoch=9)


def test_defaults_are_the_published_ones():
    options = parse([], description="")
    assert options == Options()
    published = {
        "mag_ratio": 0.1,
        "seg_length": 32,
        "widths": (64, 128, 1024),
        "depths1": 3,
        "depths2": 3,
        "depths3": 2,
        "mgfn_type1": "gb",
        "mgfn_type2": "fb",
        "mgfn_type3": "fb",
        "dropout_rate": 0.7,
        "batch_size": 16,
        "max_epoch": 1000,
        "variant": "A",
    }
    assert {name: getattr(options, name) for name in published} == published
    assert options.rate(500) == 0.001


def test_every_option_arrives_with_the_type_of_its_default():
    values = {"datasetname": "XD", "length_mismatch": "cut", "variant": "B", "clustering": "videos", "feature_size": 5}
    for item in dataclasses.fields(Options):
        if item.default is None or isinstance(item.default, (bool, tuple)) or item.name in values:
            continue
        values[item.name] = "fb" if item.name.startswith("mgfn_type") else type(item.default)(item.default)
    flags = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    parsed = parse([*flags, "--widths", "64", "64", "128"], description="")
    assert {name: getattr(parsed, name) for name in values} == values
    assert all(type(getattr(parsed, name)) is type(value) for name, value in values.items())
    assert parsed.widths == (64, 64, 128)


def test_both_spellings_and_the_number_of_a_gpu():
    dashed = parse(["--rgb-list", "a", "--seg-length", "16", "--gpus", "1"], description="")
    assert dashed == parse(["--rgb_list", "a", "--seg_length", "16", "--device", "cuda:1"], description="")
    assert parse(["--gpus", "1", "--device", "cpu"], description="").device == "cpu"


def test_options_that_never_had_an_effect_are_accepted_and_told(caplog):
    flags = [word for name in INERT for word in (f"--{name}", "1")]
    assert parse(flags, description="") == Options()
    assert len(caplog.records) == len(INERT)


@pytest.mark.parametrize(
    "values",
    [
        {"batch_size": 0},
        {"dropout_rate": 1.0},
        {"validation_share": -0.1},
        {"seed": -1},
        {"model_name": "../x"},
        {"model_name": ""},
        {"model_name": "x" * 300},
        {"seed": 2**32},
        {"widths": (64, 0, 64)},
        {"mag_ratio": float("nan")},
        {"preprocessed": True, "aam": "a.pth"},
        {"videos": "folder"},
    ],
)
def test_values_out_of_range_are_refused(values):
    culprits = {"preprocessed": "--aam"}
    name = next(iter(values))
    with refused(culprits.get(name, f"--{name.replace('_', '-')}"), error=InputError):
        Options(**values)


def test_a_lacking_option_is_named():
    with refused("--test-rgb-list", InputError):
        dataclasses.replace(Options(), rgb_list="a").required("rgb_list", "test_rgb_list")


def test_nearest_offers_a_close_name_or_lists_some():
    assert nearest("UFC", ("UCF", "XD")) == "did you mean 'UCF'?"
    assert nearest("zzz", map(str, range(9))) == "known: 0, 1, 2, 3, 4, 5, 6, 7, ..."


def test_the_core_stands_alone_and_importing_it_does_nothing():
    """All but `task` and the training scripts, in a fresh process without the other packages of this study."""
    study = ("__init__", "task", "train", "main", "runs", "plots", "test", "command_line", "anonymize", "label_list")
    files = [path for path in (REPOSITORY / "mgfn").rglob("*.py") if path.stem not in study]
    modules = [".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in files]
    assert len(modules) > 12
    program = f"""
import sys
for name in ("splavu", "tridet", "config", "feature_extraction", "h5py", "matplotlib", "cv2", "tensorboard", "sklearn"):
    sys.modules[name] = None
import logging, os, torch
sys.argv = ["program", "--no-such-flag"]
state, environment, handlers = torch.get_rng_state(), dict(os.environ), list(logging.getLogger().handlers)
for name in {modules}:
    __import__(name)
assert torch.equal(state, torch.get_rng_state())
assert (environment, handlers) == (dict(os.environ), logging.getLogger().handlers)
assert not torch.cuda.is_initialized()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""

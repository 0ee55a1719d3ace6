"""Every number of every command line is checked where it is read, before a file is: range, type, nan, huge."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Annotated, get_origin

import pytest
from refusals import refused

from mgfn.errors import InputError as MgfnError
from mgfn.option import Options
from splavu.__main__ import COMMANDS, STUDY_COMMANDS
from splavu.runtime import cli
from splavu.runtime.schema import OF_OPTIONS, Schema
from study.training.anonymizer_params import AnonymizerParams
from study.training.heads import HeadParams
from tridet import eval as tridet_eval
from tridet import train as tridet_train
from tridet.errors import InputError as TridetError
from tridet.schema import Config

OUT_OF_RANGE = {
    "fit": ["--seed=-1", f"--seed={2**63}", "--seed=x", "--out=", "--raw="],
    "tune": ["--lose=-1", "--lose=101", "--lose=nan", "--seed=-1", "--workers=0", "--out=", "--labels="],
    "anonymize": ["--num-heads=0", "--num-heads=100000", "--out="],
    "audit": [
        "--max-train-rows=0", "--max-train-rows=-1", f"--max-train-rows={10**20}", "--max-clips=0", "--seeds=0",
        "--seeds=100000", "--seed=-1", f"--seed={2**32}", "--margin=nan", "--margin=inf", "--margin=0", "--margin=0.5",
        "--workers=0", "--workers=-2", "--workers=100000", "--num-heads=0", "--out=", "--labels=", "--out= ",
    ],
    "export": ["--opset=0", "--opset=-1", "--opset=1.5", "--num-heads=0"],
    "audit-report": ["--out="],
    "rename-keys": ["--frames-per-snippet=0"],
    "synthesize": ["--seed=-1", "--scene-bias=2", "--scene-bias=nan", "--workers=0", "--out="],
    "verify": ["--feature-dim=0", "--feature-dim=-3"],
    "compare": ["--jobs=0", "--jobs=-1"],
    "sweep": ["--jobs=0"],
    "reproduce": ["--jobs=0"],
}  # fmt: skip


def parser_of(name: str) -> argparse.ArgumentParser:
    home = "splavu" if name in COMMANDS else "study"
    module = importlib.import_module(f"{home}.commands.{name.replace('-', '_')}")
    made = cli.ArgumentParser(prog=name)
    module.add_arguments(made)
    cli.add_common(made)
    return made


@pytest.mark.parametrize(("name", "option"), [(name, text) for name, texts in OUT_OF_RANGE.items() for text in texts])
def test_is_refused_by_the_parser(name, option, capsys):
    with pytest.raises(SystemExit) as left:
        parser_of(name).parse_args([option])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{name}: {option.partition('=')[0]}")


@pytest.mark.parametrize("name", [*COMMANDS, *STUDY_COMMANDS])
def test_no_command_takes_a_number_of_any_size(name):
    """The opposite cannot be tested option by option: a new one is found here."""
    for action in parser_of(name)._actions:
        assert action.type is not int, action.option_strings


def test_every_range_is_known_to_the_parsers_groups():
    made = cli.ArgumentParser()
    group = made.add_argument_group("group")
    for number, kind in enumerate(OF_OPTIONS):
        group.add_argument(f"--x{number}", type=kind)
        assert kind is float or get_origin(kind) is Annotated
        with pytest.raises(SystemExit):
            made.parse_args([f"--x{number}=nan"])
        (action,) = (one for one in made._actions if one.dest == f"x{number}")
        assert made.parse_args([f"--x{number}=1" if kind is not OF_OPTIONS[-3] else f"--x{number}=0.5"])
        assert action.type is kind


@pytest.mark.parametrize("option", ["--topk=0", "-t=-2", "--batch-size=0", "--pictures=-1"])
def test_detection(option, capsys):
    with pytest.raises(SystemExit) as left:
        tridet_eval._parser().parse_args(["config.yaml", "checkpoint", option])
    assert left.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    "name",
    ["x/../../..", "../x", "x/y", "n" * 300, "a\nb"],
    ids=["deep", "beside", "below", "long", "line"],
)
def test_a_run_of_detection_stays_in_its_folder(tmp_path, name):
    config = Config(output_folder=str(tmp_path / "runs"))
    with refused("--output", TridetError):
        tridet_train.run_folder(config, Path("thumos.yaml"), name)
    assert tridet_train.run_folder(config, Path("thumos.yaml"), "raw") == tmp_path / "runs/thumos_raw"


PARAMETERS = {
    AnonymizerParams: [
        {"num_modes": 0}, {"num_modes": 1_000_000}, {"batch_size_ar": 0}, {"num_heads": 0}, {"num_layers_fa": 10**9},
        {"seed": -1}, {"seed": 2**32}, {"num_epochs": 10**30}, {"learning_rate_fa": -1},
        {"learning_rate_fa": float("nan")},
        {"fb_loss_weight": float("inf")}, {"bits": 10**9}, {"run_id": "n" * 300}, {"run_id": ""},
        {"num_workers": 10**6},
    ],
    HeadParams: [
        {"learning_rate": -1}, {"batch_size": 0}, {"num_modes": 0}, {"run_id": "a" * 300}, {"accumulate": 10**6},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "given"), [(schema, given) for schema, some in PARAMETERS.items() for given in some]
)
def test_parameters_out_of_range(schema, given):
    assert issubclass(schema, Schema)
    (name,) = given
    with refused(name):
        others = {"dataset": "hmdb51"} if schema is HeadParams else {}
        schema(**{"run_id": "x", "ft_arch": "videoMAE", **others, **given})


@pytest.mark.parametrize(
    "given", [{"batch_size": 0}, {"depths1": 10**9}, {"model_name": "n" * 300}, {"workers": 10**6}]
)
def test_options_of_anomaly_detection_out_of_range(given):
    (name,) = given
    with refused(f"--{name.replace('_', '-')}", MgfnError):
        Options(**given)

"""Parameter files, and the one builder behind every schema: what is accepted, what is refused, and who is blamed."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import math
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Gt, Interval, Le, Lt, MaxLen, MinLen, MultipleOf, Predicate
from conftest import REPOSITORY
from refusals import refused

from bias.evaluate_bias import BiasParams
from feature_extraction.feature_extraction_action import ExtractionParams
from feature_extraction.long_videos import LongVideoParams
from gait.evaluate_gait import GaitParams
from pahmdb.eval_pahmdb import PaHmdbParams
from splavu.runtime import cli, params
from splavu.runtime.options import add_options, given_options, option
from splavu.runtime.schema import MAY_BE_INFINITE, Count, OneOf, Positive, Schema, Seeds, build, unique
from study.compare.plan import CompareParams
from study.privacy import PrivacyEvalParams
from study.sweep.measure import SweepParams
from study.training.anonymizer_params import AnonymizerParams
from study.training.heads import HeadParams
from study.training.pretraining import PretrainParams
from vp.settings import VpParams

SHIPPED = {
    "params/params_compare.py": CompareParams,
    "params/params_demo.py": AnonymizerParams,
    "params/params_demo_fb.py": PrivacyEvalParams,
    "params/params_demo_ft.py": HeadParams,
    "params/params_fa.py": AnonymizerParams,
    "params/params_fb.py": PrivacyEvalParams,
    "params/params_ft.py": HeadParams,
    "params/params_pretrain.py": PretrainParams,
    "params/params_robust.py": AnonymizerParams,
    "params/params_sweep.py": SweepParams,
    "vp/params_vp.py": VpParams,
    "vp/params_demo_vp.py": VpParams,
    "bias/params_bias.py": BiasParams,
    "bias/params_demo_bias.py": BiasParams,
    "gait/params_gait.py": GaitParams,
    "gait/params_demo_gait.py": GaitParams,
    "pahmdb/params_pahmdb.py": PaHmdbParams,
    "pahmdb/params_demo_pahmdb.py": PaHmdbParams,
    "feature_extraction/params_feature_ex.py": ExtractionParams,
    "feature_extraction/params_long_videos.py": LongVideoParams,
}


@dataclass(frozen=True)
class Example(Schema):
    run_id: str
    fa_arch: Literal["transformer", "mlp"] = "transformer"
    learning_rate: Positive = 1e-4
    num_epochs: Count = 3
    anon: bool = True
    weights: str | None = None
    views: tuple[str, ...] = ()
    out: Path | None = None


def write(tmp_path, text, name="params_test.py"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_assignments_overrides_and_conversions(tmp_path):
    path = write(tmp_path, "run_id = 'a'\nlearning_rate = 1\nviews = ['static']\n_private = 3\nnum_epochs = 10 // 2\n")
    loaded = params.load(path, Example, ["anon=False", "run_id=b c", "out=x/y"])
    assert loaded == Example("b c", "transformer", 1.0, 5, False, None, ("static",), Path("x/y"))
    assert isinstance(loaded.learning_rate, float)
    assert params.as_dict(loaded)["views"] == ["static"]
    assert params.load(path, Example, ["num_epochs=6"], {"num_epochs": 7}).num_epochs == 7


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.yaml", "run_id: a\nlearning_rate: 1e-3\nviews: [static]\nweights: null\nout: x/y\n"),
        ("p.yml", "run_id: 'a'\nlearning_rate: 0.001\nviews:\n- static\nout: x/y\n"),
        ("p.toml", "run_id = 'a'\nlearning_rate = 1e-3\nviews = ['static']\nout = 'x/y'\n"),
    ],
)
def test_files_that_run_nothing(tmp_path, name, text):
    loaded = params.load(write(tmp_path, text, name), Example, ["num_epochs=4"])
    assert loaded == Example("a", "transformer", 0.001, 4, views=("static",), out=Path("x/y"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.yaml", "run_id: a\nrun_id: b\n"),
        ("p.yaml", "- a\n"),
        ("p.yaml", "run_id: [\n"),
        ("p.yaml", "run_id: !!python/object/apply:os.getcwd []\n"),
        ("p.yaml", "[" * 5000),
        ("p.yaml", "run_id: 2020-13-45\n"),
        ("p.toml", "run_id = 'a'\nrun_id = 'b'\n"),
        ("p.toml", "run_id = undefined\n"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, text):
    with refused(name):
        params.load(write(tmp_path, text, name), Example)


@pytest.mark.parametrize(
    ("text", "overrides", "culprit", "offered"),
    [
        ("run_id = 'a'\nlearning_rat = 1", [], "params_test.py", "learning_rate"),
        ("fa_arch = 'mlp'", [], "params_test.py", "run_id"),
        ("run_id = 'a'\nfa_arch = 'transfomer'", [], "params_test.py", "transformer"),
        ("run_id = 'a'\nnum_epochs = 2.5", [], "params_test.py", "num_epochs"),
        ("run_id = 'a'\nnum_epochs = True", [], "params_test.py", "num_epochs"),
        ("run_id = 'a'\nnum_epochs = '3'", [], "params_test.py", "num_epochs"),
        ("run_id = 'a'\nlearning_rate = '1e-3'", [], "params_test.py", "learning_rate"),
        ("run_id = 'a'\nanon = 1", [], "params_test.py", "anon"),
        ("run_id = 'a'\nviews = [1]", [], "params_test.py", "views[0]"),
        ("run_id = 'a'\nviews = 'static'", [], "params_test.py", "views"),
        ("run_id = ", [], "params_test.py", "SyntaxError"),
        ("run_id = undefined", [], "params_test.py", "NameError"),
        ("run_id = 'a'", ["num_epochs"], "--set", "num_epochs"),
        ("run_id = 'a'", ["num_epoch=3"], "params_test.py", "num_epochs"),
        ("run_id = 'a'", ["num_epochs=0"], "num_epochs", "1"),
        ("run_id = 'a'\nlearning_rate = 0.0", [], "learning_rate", "0.0"),
        ("run_id = 'a'\nlearning_rate = float('nan')", [], "learning_rate", "nan"),
        ("run_id = 'a'", ["learning_rate=1e999"], "learning_rate", "inf"),
    ],
)
def test_mistakes_name_the_file_or_the_parameter(tmp_path, text, overrides, culprit, offered):
    with refused(culprit, naming=offered):
        params.load(write(tmp_path, text), Example, overrides)


def test_a_value_out_of_range_names_its_file_too(tmp_path):
    path = write(tmp_path, "run_id = 'a'\nnum_epochs = 0")
    with refused("num_epochs", naming=str(path)):
        params.load(path, Example)


def test_all_unknown_names_are_listed_at_once(tmp_path):
    with refused("params_test.py", naming=("'learning_rat'", "'learning_rate'", "'num_epoch'", "'num_epochs'")):
        params.load(write(tmp_path, "run_id = 'a'\nlearning_rat = 1\nnum_epoch = 3\n"), Example)


def test_missing_file():
    with refused("nowhere.py"):
        params.load("nowhere.py", Example)


def is_prime(number):
    """prime"""
    return number in (2, 3, 5, 7)


@dataclass(frozen=True)
class Ranges(Schema):
    interval: Annotated[float, Interval(ge=0, lt=1)] = 0.5
    above: Annotated[int, Gt(2)] = 3
    below: Annotated[int, Lt(2)] = 1
    least: Annotated[int, Ge(2)] | None = None
    most: Annotated[int, Le(2)] = 2
    multiple: Annotated[int, MultipleOf(16)] = 32
    filled: Annotated[tuple[int, ...], MinLen(1), MaxLen(2), Predicate(unique)] = (1,)
    prime: Annotated[int, Predicate(is_prime)] = 2
    name: Annotated[str, OneOf({"leace": 1, "pca": 2})] = "pca"
    seeds: Seeds = (0,)
    limit: Annotated[float, MAY_BE_INFINITE, Gt(0)] = 1.0


@pytest.mark.parametrize(
    ("name", "good", "bad", "words"),
    [
        ("interval", (0, 0.999), (-0.1, 1, math.nan), "[0, 1)"),
        ("above", (3,), (2,), "more than 2"),
        ("below", (1, -5), (2,), "less than 2"),
        ("least", (2, None), (1,), "at least 2"),
        ("most", (2,), (3,), "at most 2"),
        ("multiple", (16, 0), (17,), "multiple of 16"),
        ("filled", ([1, 2], (3,)), ((),), "()"),
        ("filled", (), ((1, 2, 3),), "at most 2"),
        ("filled", (), ((1, 1),), "(1, 1)"),
        ("prime", (7,), (8,), "prime"),
        ("name", ("leace",), ("lace",), "'leace'"),
        ("seeds", ((0, 2**32 - 1),), ((-1,), (2**32,)), "seeds[0]"),
        ("limit", (math.inf,), (-math.inf,), "more than 0"),
    ],
)
def test_constraints_hold_in_files_and_in_direct_construction_and_say_so_in_plain_words(name, good, bad, words):
    for value in good:
        assert build(Ranges, {name: value}, source="file") == Ranges(**{name: value})
    for value in bad:
        with refused(name) as built:
            build(Ranges, {name: value}, source="file")
        with refused(name) as constructed:
            Ranges(**{name: value})
        for caught in (built, constructed):
            assert words in str(caught.value) or math.isnan(value)


def test_direct_construction_converts_and_refuses_other_types():
    assert Example("a", views=["x"], learning_rate=1).views == ("x",)
    with refused("num_epochs"):
        Example("a", num_epochs="3")
    with refused("num_epochs"):
        dataclasses.replace(Example("a"), num_epochs=0)


@dataclass(frozen=True)
class Section:
    size: Count = 1
    shape: tuple[int, float] = (1, 2.0)


@dataclass(frozen=True)
class Nested:
    section: Section
    other: Section = field(default_factory=Section)


def test_sections_are_built_from_mappings_and_named_with_dots():
    assert build(Nested, {"section": {"shape": [3, 4]}}, source="f") == Nested(Section(1, (3, 4.0)))
    assert build(Nested, {"section": Section(2)}, source="f") == Nested(Section(2))
    for values, culprit, said in (
        ({"section": {"sise": 1}, "othr": 3}, "f", "'section.sise'"),
        ({"section": {"sise": 1}, "othr": 3}, "f", "'othr'"),
        ({"section": {"size": 0}}, "section.size", "1"),
        ({"section": {"size": 1.0}}, "f", "section.size"),
        ({"section": {"shape": [1]}}, "f", "section.shape"),
        ({"section": 3}, "f", "section"),
        ({}, "f", "'section'"),
    ):
        with refused(culprit, naming=said):
            build(Nested, values, source="f")


@dataclass(frozen=True)
class Flags(Schema):
    encoder: str = option(MISSING, "which", metavar="NAME")
    num_workers: Count | None = option(None, "how many", flag="--workers")
    mode: Literal["a", "b"] = option("a", "how")
    kind: Annotated[str, OneOf(("x", "y"))] | None = option(None, "what")
    shape: tuple[int, int] = option((1, 2), "of it")
    fast: bool = option(False, "or slow")
    hidden: int = 3


def test_options_come_from_the_fields():
    parser = argparse.ArgumentParser()
    add_options(parser, Flags)
    assert given_options(parser.parse_args([]), Flags) == {}
    words = ["--encoder", "e", "--workers", "2", "--mode", "b", "--kind", "y", "--shape", "3", "4", "--fast"]
    given = given_options(parser.parse_args(words), Flags)
    assert build(Flags, given, source="command line") == Flags("e", 2, "b", "y", (3, 4), True)
    for wrong in (["--mode", "c"], ["--kind", "z"], ["--workers", "two"], ["--hidden", "1"], ["--shape", "1"]):
        with pytest.raises(SystemExit):
            parser.parse_args(wrong)


def test_options_with_defaults_and_both_spellings():
    parser = argparse.ArgumentParser()
    add_options(parser, Flags, with_defaults=True, with_underscores=True)
    args = parser.parse_args(["--encoder", "e", "--num_workers", "5"])
    assert (args.num_workers, args.mode, args.fast) == (5, "a", False)


def test_a_value_that_follows_from_another_must_agree():
    assert params.derived_value("feature_dim", None, 768, because="videoMAE") == 768
    with refused("feature_dim", naming=("1024", "768", "videoMAE")):
        params.derived_value("feature_dim", 1024, 768, because="videoMAE")


@pytest.mark.parametrize("path", sorted((REPOSITORY / "params").glob("*.py")), ids=lambda p: p.stem)
def test_shipped_parameter_files_run_and_their_head_names_the_command(path):
    assert params.read_file(path)["run_id"]
    assert f"--params params/{path.name}" in path.read_text().split("\n\n")[0]


def test_every_shipped_parameter_file_is_listed_here():
    found = {path.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob("*/params_*.py")}
    assert found == set(SHIPPED)


@pytest.mark.parametrize("path", SHIPPED)
def test_shipped_parameter_files_load(path):
    assert isinstance(params.load(REPOSITORY / path, SHIPPED[path]), SHIPPED[path])


@pytest.mark.parametrize(
    "override",
    [
        "num_modes=0", "num_modes=1000000", "learning_rate_fa=-1", "learning_rate_fa=1e999",
        f"learning_rate_fa=1{'0' * 400}",
        "batch_size_ar=0", "num_heads=0",
        "seed=-1", "seed=10**30", f"seed={10**30}", "run_id=''", f"run_id={'x' * 300}", "run_id='a\\nb'",
        "weight_decay=-0.1", "temperature=0", "fb_frame_pool=0", "num_workers=-1", "critic_reset=-1", "val_freq=0",
        "left_out_actions=1", "fb_frame_sample=3", "clip_norm=0", "ema_decay=1", "checkpoint_freq=0", "feature_dim=0",
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused_by_declaration(override):
    path, name = REPOSITORY / "params/params_fa.py", override.partition("=")[0]
    culprit = path.name if override == "seed=10**30" else name
    with refused(culprit):
        params.load(path, AnonymizerParams, [override])


SCRIPTS = (
    "multitask_train_fa", "pretrain_fa", "train_ft", "privacy_eval", "vp.train_vp_fa", "vp.train_vp_fb",
    "vp.train_vp_ft", "bias.evaluate_bias", "gait.evaluate_gait", "pahmdb.eval_pahmdb",
    "feature_extraction.feature_extraction_action", "feature_extraction.long_videos",
)  # fmt: skip


class Asked(Exception):
    """Stops a script where it has said which parameter file is its default."""


@pytest.mark.parametrize("script", SCRIPTS)
def test_default_files_are_found_from_any_folder(script, tmp_path, monkeypatch):
    found = []

    def parser(*_, default_params=None, **__):
        found.append(default_params)
        raise Asked

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "parser", parser)
    with pytest.raises(Asked):
        importlib.import_module(script).main([])
    assert found[0].is_absolute()
    assert found[0].is_file()


@pytest.mark.parametrize("name", ["p.YAML", "p.TOML", "p.json", "p.txt", "p.pyc"])
def test_only_python_is_run(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("open('made', 'w')\n")
    with refused(name):
        params.read_file(name)
    assert not (tmp_path / "made").exists()
    (tmp_path / "p.py").write_text("open('made', 'w').close()\nx = 1\n")
    assert params.read_file("p.py") == {"x": 1}
    assert (tmp_path / "made").exists()


def test_a_file_that_leaves_is_refused(tmp_path):
    (tmp_path / "p.py").write_text("raise SystemExit(0)\n")
    with refused(tmp_path / "p.py"):
        params.read_file(tmp_path / "p.py")


@pytest.mark.parametrize("text", ["[" * 5000, "(" * 200_000, "1+" * 5000 + "1", "9" * 10_000])
def test_a_value_beyond_the_parser_stays_text(text):
    assert params.parse_override(f"x={text}") == ("x", text)

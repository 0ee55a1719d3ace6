from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from splavu.errors import UserError
from splavu.runtime import params


@dataclass(frozen=True)
class Schema:
    run_id: str
    fa_arch: Literal["transformer", "mlp"] = "transformer"
    learning_rate: float = 1e-4
    num_epochs: int = 3
    anon: bool = True
    weights: str | None = None
    views: tuple[str, ...] = ()
    out: Path | None = None


def write(tmp_path, text):
    path = tmp_path / "params_test.py"
    path.write_text(text)
    return path


def test_assignments_overrides_and_conversions(tmp_path):
    path = write(tmp_path, "run_id = 'a'\nlearning_rate = 1\nviews = ['static']\n_private = 3\nnum_epochs = 10 // 2\n")
    loaded = params.load(path, Schema, ["anon=False", "run_id=b c", "out=x/y"])
    assert loaded == Schema("b c", "transformer", 1.0, 5, False, None, ("static",), Path("x/y"))
    assert isinstance(loaded.learning_rate, float)
    assert params.as_dict(loaded)["views"] == ["static"]


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("run_id = 'a'\nlearning_rat = 1", [], r"unknown parameter 'learning_rat'; did you mean 'learning_rate'\?"),
        ("fa_arch = 'mlp'", [], "parameter 'run_id' is missing"),
        ("run_id = 'a'\nfa_arch = 'transfomer'", [], r"'transfomer', expected .*did you mean 'transformer'\?"),
        ("run_id = 'a'\nnum_epochs = 2.5", [], "'num_epochs' is 2.5, expected int"),
        ("run_id = 'a'\nnum_epochs = True", [], "'num_epochs' is True, expected int"),
        ("run_id = 'a'\nanon = 1", [], "'anon' is 1, expected bool"),
        ("run_id = 'a'\nviews = [1]", [], r"'views\[0\]' is 1, expected str"),
        ("run_id = 'a'\nviews = 'static'", [], "'views' is 'static', expected"),
        ("run_id = ", [], r"params_test.py:1: does not run \(SyntaxError"),
        ("run_id = undefined", [], "does not run .NameError"),
        ("run_id = 'a'", ["num_epochs"], "'num_epochs' is not NAME=VALUE"),
        ("run_id = 'a'", ["num_epoch=3"], r"did you mean 'num_epochs'\?"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, text, overrides, message):
    with pytest.raises(UserError, match=message) as caught:
        params.load(write(tmp_path, text), Schema, overrides)
    assert "\n" not in str(caught.value)


def test_missing_file():
    with pytest.raises(UserError, match="no such parameter file"):
        params.load("nowhere.py", Schema)


def test_a_value_that_follows_from_another_must_agree():
    assert params.agreed("feature_dim", None, 768, because="videoMAE") == 768
    with pytest.raises(UserError, match="feature_dim: 1024 was given, but videoMAE means 768"):
        params.agreed("feature_dim", 1024, 768, because="videoMAE")


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "params").glob("*.py")), ids=lambda p: p.stem)
def test_shipped_parameter_files_run_and_their_head_names_the_command(path):
    assert params.read_file(path)["run_id"]
    assert f"--params params/{path.name}" in path.read_text().split("\n\n")[0]

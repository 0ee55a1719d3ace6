"""The run_*.sh scripts: what they say, and what they refuse, before they install anything."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import REPOSITORY

SCRIPTS = sorted(path.name for path in REPOSITORY.glob("run_*.sh"))


def run(script: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A script alone in a folder, without a virtual environment; the interpreter for a new one is 'false'."""
    for name in (script, "setup_env.sh"):
        shutil.copy(REPOSITORY / name, folder)
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": "false"}
    return subprocess.run(
        ["bash", folder / script, *arguments], capture_output=True, text=True, env=environment, cwd=folder.parent
    )


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_the_head_of_the_script_and_installs_nothing(script, flag, tmp_path):
    done = run(script, tmp_path, flag)
    assert (done.returncode, done.stderr) == (0, "")
    head = (REPOSITORY / script).read_text().splitlines()[1:]
    comment = head[: next(number for number, line in enumerate(head) if not line.startswith("#"))]
    assert done.stdout.splitlines() == [line.removeprefix("#").removeprefix(" ") for line in comment]
    assert f"bash {script}" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {script, "setup_env.sh"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_it_the_environment_comes_first(script, tmp_path):
    """`run` would tell: the interpreter that can't make an environment ends the script."""
    done = run(script, tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""

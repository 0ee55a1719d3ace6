"""300 random cases over every command break the property in none; see `fuzz_commands` for more of them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY

CASES, SEED = 300, 20261130


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are found by a call of Linux")
def test_no_command_breaks_the_property():
    options = ["--cases", str(CASES), "--seed", str(SEED), "--workers", str(min(8, len(os.sched_getaffinity(0))))]
    done = subprocess.run(
        [sys.executable, "tests/fuzz_commands.py", *options],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert f"{CASES} cases in" in done.stdout

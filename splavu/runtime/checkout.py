"""The checkout of the repository, whose study has commands that the library offers under its own name.

The library imports nothing of it: the study runs in a process of its own, with the checkout at the head of its path.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from splavu.errors import UserError

VARIABLE = "SPLAVU_CHECKOUT"
"""Environment variable that names a checkout; by default it is the folder that holds this package."""


def find(command: str) -> Path:
    """The checkout's folder.

    Args:
        command: What needs it, for the message.

    Raises:
        UserError: There is none: the package was installed from a wheel, or the variable names another folder.
    """
    named = os.environ.get(VARIABLE)
    folder = Path(named) if named else Path(__file__).parents[2]
    if (folder / "study/__main__.py").is_file() and (folder / "config.py").is_file():
        return folder.resolve()
    remedy = f"clone the repository and run pip install -e . there, or set {VARIABLE} to its folder"
    if named:
        raise UserError(VARIABLE, f"names {named}, which is no checkout of the repository", remedy)
    raise UserError(command, "is a command of the study, which is not part of the installed package", remedy)


def run_study(command: str, arguments: Sequence[str]) -> int:
    """Run a command of the study: on POSIX it takes the place of this process, so signals and exit codes are its own.

    Raises:
        UserError: There is no checkout.
    """
    # A file is run, not a module: Python then puts no folder of the user on the path of imports.
    program = [sys.executable, str(find(command) / "study/__main__.py"), command, *arguments]
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        os.execv(program[0], program)
    return subprocess.run(program).returncode

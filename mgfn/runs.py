"""What a script starts and ends with (logging, a device, exit codes), and files that are never half written."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import torch

from mgfn.errors import InputError
from mgfn.option import Options
from splavu.errors import UserError, as_user_errors
from splavu.runtime import cli, environment
from splavu.runtime.files import replacing


def write_json(path: Path, value: Any) -> None:
    """Write a value so that it's there whole or not at all."""
    write_whole(path, lambda file: file.write((json.dumps(value, indent=1) + "\n").encode()))


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file so that it's there whole or not at all.

    Raises:
        InputError: The target is refused: a device, a link that leads out of its folder.
    """
    with _as_input_errors(), replacing(path) as temporary, temporary.open("wb") as file:
        write(file)


def pick_device(name: str) -> torch.device:
    """The device called `name`; 'auto' takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        InputError: No such device, or it is absent from this machine.
    """
    with _as_input_errors():
        return environment.pick_device(name)


@contextmanager
def _as_input_errors() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise InputError(error.culprit, error.problem, error.remedy) from error


def start(options: Options) -> None:
    """Logging as the options ask; below INFO there are no progress bars either."""
    level = logging.WARNING if options.quiet else logging.INFO
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", force=True)


def run(main: Callable[[Sequence[str] | None], int | None]) -> NoReturn:
    """Run a script's `main` on the command line and leave with its exit code."""
    cli.run(as_user_errors(InputError)(main))

"""What all commands share: the flags, the help, and the exit codes.

Exit codes: 0 done; 1 finished, but something failed on the way and is listed; 2 bad input, reported in one line, and
nothing half written; 3 an evaluation failed its own checks, so its numbers prove nothing; 4 undecided: too few subjects
for those checks; 130 interrupted (Ctrl-C); 143 terminated.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import logging
import os
import re
import signal
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NoReturn, TextIO, cast

from splavu.errors import UserError, printable
from splavu.runtime import limits, signals
from splavu.runtime.schema import OF_OPTIONS, conformed

OUTPUT_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
"""Error numbers of the system where nothing can be written."""
PATH_ERRORS = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR}
"""Where a path can't be one of a file."""
REMEDY = "free space or choose another output folder, then run the same command to go on"

_PARTS = re.compile(r"([\n\t])")
EXIT_CODES = str(__doc__).split("\n\n", 1)[1].strip()


class ArgumentParser(argparse.ArgumentParser):
    """Reports bad arguments in one line, and shows descriptions as they were written.

    The `type` of an option may be an annotation with a range, such as `splavu.runtime.schema.Count`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, **options})
        self.register("type", Path, _path)
        for kind in OF_OPTIONS:  # also within its groups
            self.register("type", kind, within(kind))

    def add_argument(self, *flags: str, **options: Any) -> argparse.Action:
        """As argparse has it; `type` may be an annotation."""
        return super().add_argument(*flags, **options)

    def error(self, message: str) -> NoReturn:
        """Exit code 2, as for any bad input, and the option at fault first in the line."""
        for argparse_says, says in (
            ("the following arguments are required", "missing"),
            ("unrecognized arguments", "unknown"),
        ):
            if message.startswith(f"{argparse_says}: "):
                message = f"{message.removeprefix(f'{argparse_says}: ')}: {says}"
        message = printable(message.removeprefix("argument "))
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def within(kind: Any) -> Callable[[str], Any]:
    """The `type` of an option: a number in the range of an annotation such as `Count`, checked as at a parameter."""
    plain = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind

    def read(text: str) -> Any:
        try:
            value = plain(text)
        except ValueError:
            wanted = "a whole number" if plain is int else "a number"
            raise argparse.ArgumentTypeError(f"is '{text}', expected {wanted}") from None
        try:
            return conformed(kind, value, "")
        except UserError as error:
            raise argparse.ArgumentTypeError(error.problem) from None

    return read


def _path(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty, expected a file or a folder")
    return Path(text)


def parser(description: str, *, default_params: str | Path | None = None, epilog: str = "") -> argparse.ArgumentParser:
    """An argument parser with the flags of every script: --params, --set, --device, --quiet."""
    made = ArgumentParser(description=description, epilog=f"{epilog}\n\n{EXIT_CODES}".strip())
    add_params(made, default_params)
    add_common(made)
    limits.add_reading(made)
    return made


def command_parser(command: ModuleType, prog: str) -> ArgumentParser:
    """The parser of a command: a module with a docstring, `add_arguments(parser)` and `run(args)`.

    Args:
        command: The module.
        prog: What the user types.
    """
    made = ArgumentParser(prog=prog, description=command.__doc__, epilog=EXIT_CODES)
    command.add_arguments(made)
    add_common(made)
    return made


def run_command(module: str, prog: str, argv: Sequence[str]) -> int:
    """Run a command and return its exit code.

    Args:
        module: Dotted name of what `command_parser` takes.
        prog: What the user types.
        argv: The arguments that follow it.
    """
    command = importlib.import_module(module)
    args = command_parser(command, prog).parse_args(argv)
    start(args)
    return command.run(args)


def add_params(made: argparse.ArgumentParser, default_params: str | Path | None = None) -> None:
    """Add --params and --set to `made`."""
    made.add_argument(
        "--params",
        metavar="FILE",
        default=default_params,
        required=default_params is None,
        help="assignments in Python (.py: it is run as a program), or in TOML or YAML (.toml, .yaml: nothing is run)"
        + (f" (default: {default_params})" if default_params else ""),
    )
    made.add_argument(
        "--set", metavar="NAME=VALUE", action="append", default=[], help="override one parameter; may be repeated"
    )


def add_common(made: argparse.ArgumentParser) -> None:
    """Add --device and --quiet to `made`."""
    made.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    made.add_argument("--quiet", action="store_true", help="no progress bars, warnings only")


def start(args: argparse.Namespace) -> None:
    """Set up logging and limits as the flags ask; below INFO there are no progress bars (`progress.progress_bar`)."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING if args.quiet else logging.INFO, handlers=[handler], force=True)
    limits.apply(args)


class _OneLine(logging.Formatter):
    """A message of the log on one line; what the terminal would obey is escaped."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


class _PrintableStream:
    """Standard output, whatever names are printed and whatever encoding it has; line ends and tabs stay."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        return self._stream.write("".join(part if part in "\n\t" else printable(part) for part in _PARTS.split(text)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def run(main: Callable[[Sequence[str] | None], int | None]) -> NoReturn:
    """Run a script's `main` on the command line and leave with its exit code."""
    sys.stdout = cast(TextIO, _PrintableStream(sys.stdout))
    try:
        with signals.raised():
            code = main(None) or 0
    except BaseException as error:
        if number := signals.received():  # whatever has become of the exception that it raised
            signals.leave(number)
        code = _failed(error)
    sys.exit(code)


def _failed(error: BaseException) -> int:
    """Print in one line what is no bug of ours, and return the exit code; anything else is raised again."""
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    if isinstance(error, UserError):
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    if (needed := limits.of_allocation(error)) is not None:
        remedy = "give fewer features, or smaller options"
        print(f"{name}: --memory: there isn't enough memory ({needed}); {remedy}", file=sys.stderr)
        return 2
    if isinstance(error, BrokenPipeError):  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, OSError) and error.errno in OUTPUT_ERRORS:
        where = error.filename or "the output folder"
        print(f"{name}: {printable(str(where))}: can't be written ({error.strerror}); {REMEDY}", file=sys.stderr)
        return 2
    if isinstance(error, OSError) and error.errno in PATH_ERRORS and error.filename is not None:
        where = printable(os.fsdecode(error.filename))[-300:]
        print(f"{name}: {where}: is no path of a file here ({error.strerror}); correct it", file=sys.stderr)
        return 2
    if isinstance(error, KeyboardInterrupt):
        print(signals.line(signal.SIGINT), end="", file=sys.stderr)
        return 130
    raise error

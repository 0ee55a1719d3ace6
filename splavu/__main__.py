"""Anonymize the features of a frozen video encoder, audit what they still reveal, and release them.

Run as `splavu COMMAND` or `python -m splavu COMMAND`. Each command has its own --help.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__" and sys.path[0] == os.getcwd() != os.path.dirname(os.path.dirname(__file__)):  # noqa: PTH109, PTH120
    del sys.path[0]  # `python -m` looks there first: a json.py in the user's folder must not shadow Python's
if __name__ == "__main__":
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import argparse
from collections.abc import Sequence
from typing import NoReturn

from splavu._version import __version__
from splavu.errors import UserError, nearest
from splavu.runtime import checkout, cli

COMMANDS = {
    "protect": "videos, or a store of features -> a protected release and a page about it: all that follows, in one",
    "extract": "folder of videos -> store of clip features, and of static clips",
    "synthesize": "render a synthetic world in the folder layouts of the real data sets",
    "fit": "fit an anonymizer in closed form (eraser, LEACE, quantizer, noise, ...) in seconds",
    "tune": "choose an operating point (method, rank, bits) for one's own store on held-out subjects",
    "anonymize": "raw features -> released features",
    "withdraw": "take subjects out of stores, and say whether the anonymizer has to be fitted again",
    "rename-keys": "label and annotation files -> the same for features released under secret keys",
    "audit": "measure what released features reveal to strong attackers",
    "probe": "measure what released features are still good for: the actions, by new linear heads",
    "audit-report": "evidence.json of an audit -> report.html",
    "verify": "check feature stores for faults, and report where their features come from",
    "export": "trained anonymizer -> ONNX, checked against PyTorch",
    "report": "run folders -> report.md with figures",
}
"""Each is a module of `splavu.commands`, imported when it is asked for: `add_arguments(parser)` and `run(args)`."""

STUDY_COMMANDS = {
    "check-data": "what is there of each data set, what is missing, and where it belongs",
    "sweep": "choose an operating point on validation subjects",
    "compare": "audit every anonymizer of a list and test it on every task",
    "reproduce": "run a table of the paper and print it beside the published numbers",
}
"""Of this paper's study: they run from a checkout, in a process of their own (`splavu.runtime.checkout`)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Raises:
        UserError: Bad input; `cli.run` prints it in one line and exits with code 2.
    """
    name, *rest = list(sys.argv[1:] if argv is None else argv) or [""]
    if name in STUDY_COMMANDS:
        return checkout.run_study(name, rest)
    if not name:
        _overview().print_help()
        return 2
    if name not in COMMANDS:
        _overview().parse_args([name])  # --help and --version end here
        raise UserError(name, "is no command", nearest(name, [*COMMANDS, *STUDY_COMMANDS]))
    return cli.run_command(f"splavu.commands.{name.replace('-', '_')}", f"splavu {name}", rest)


def entry() -> NoReturn:
    """The installed program `splavu`."""
    cli.run(main)


def _overview() -> argparse.ArgumentParser:
    """The parser of `splavu --help`: all commands, none of them imported."""
    width = max(map(len, [*COMMANDS, *STUDY_COMMANDS])) + 2
    groups = (("commands", COMMANDS), ("commands of the study, from a checkout of the repository", STUDY_COMMANDS))
    listing = [f"{title}:\n" + "".join(f"  {n:{width}}{text}\n" for n, text in rows.items()) for title, rows in groups]
    parser = cli.ArgumentParser(
        prog="splavu",
        usage="splavu COMMAND [OPTION ...]",
        description=f"{__doc__}\n" + "\n".join(listing),
        epilog=cli.EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    entry()

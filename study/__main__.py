"""Commands of this paper's study: `python -m study COMMAND`, or `splavu COMMAND`. Each has its own --help."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # First on the path is the user's folder (`python -m study`) or this one: neither may shadow anything.
    root, here = os.path.dirname(os.path.dirname(os.path.abspath(__file__))), sys.path[0]  # noqa: PTH100, PTH120
    if here in (os.getcwd(), os.path.join(root, "study")):  # noqa: PTH109, PTH118
        del sys.path[0]
    sys.path.insert(0, root)

    from splavu.runtime.signals import leave_at_once

    leave_at_once()

from collections.abc import Sequence

from splavu.__main__ import STUDY_COMMANDS
from splavu.errors import UserError, nearest
from splavu.runtime import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command of the study and return its exit code."""
    name, *rest = list(sys.argv[1:] if argv is None else argv) or [""]
    if name in ("", "-h", "--help"):
        print(f"{__doc__}\n\n" + "\n".join(f"  {name:12}{text}" for name, text in STUDY_COMMANDS.items()))
        return 0 if name else 2
    if name not in STUDY_COMMANDS:
        raise UserError(name, "is no command of the study", nearest(name, STUDY_COMMANDS))
    return cli.run_command(f"study.commands.{name.replace('-', '_')}", f"splavu {name}", rest)


if __name__ == "__main__":
    cli.run(main)

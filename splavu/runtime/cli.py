"""What all commands share: the flags, the help, and the exit codes.

Exit codes: 0 done; 1 finished, but something failed along the way and was listed; 2 bad input, told in one line;
3 an evaluation ran and failed its own gates; 130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import functools
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from splavu.errors import UserError

OUTPUT_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
"""What the system answers where nothing can be written."""
REMEDY = "free space or choose another output folder, then run the same command to go on"

EXIT_CODES = __doc__.split("\n\n", 1)[1].strip()


def parser(description: str, *, default_params: str | Path | None = None, epilog: str = "") -> argparse.ArgumentParser:
    """An argument parser with the flags of every script: --params, --set, --device, --quiet."""
    made = argparse.ArgumentParser(
        description=description,
        epilog=f"{epilog}\n\n{EXIT_CODES}".strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--params",
        metavar="FILE.py",
        default=default_params,
        required=default_params is None,
        help=f"flat Python file of assignments (default: {default_params})" if default_params else "flat Python file",
    )
    made.add_argument(
        "--set", metavar="NAME=VALUE", action="append", default=[], help="override one parameter; may be repeated"
    )
    add_common(made)
    return made


def add_common(made: argparse.ArgumentParser) -> None:
    """Add --device and --quiet to `made`."""
    made.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    made.add_argument("--quiet", action="store_true", help="no progress bars, warnings only")


def start(args: argparse.Namespace) -> None:
    """Set up logging as the flags ask; --quiet also silences progress bars."""
    logging.basicConfig(
        level=logging.WARNING if args.quiet else logging.INFO, format="%(levelname)s %(name)s: %(message)s", force=True
    )
    if args.quiet:
        # TQDM_DISABLE is read when tqdm is imported, which was before the flags were.
        tqdm.__init__ = functools.partialmethod(tqdm.__init__, disable=True)


def run(main: Callable[[Sequence[str] | None], int | None]) -> NoReturn:
    """Run a script's `main` on the command line and leave with its exit code."""
    try:
        code = main(None) or 0
    except UserError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        code = 2
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if error.errno not in OUTPUT_ERRORS:
            raise
        where = error.filename or "the output folder"
        print(f"{Path(sys.argv[0]).name}: {where}: can't be written ({error.strerror}); {REMEDY}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted; run the same command to go on", file=sys.stderr)
        code = 130
    sys.exit(code)

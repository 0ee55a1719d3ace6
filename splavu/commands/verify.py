"""Check feature stores for faults, and report where their features come from.

Exit code 1: a store has faults, which are listed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from splavu.errors import UserError
from splavu.runtime import limits
from splavu.runtime.cli import ArgumentParser
from splavu.runtime.schema import Count


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("stores", type=Path, nargs="+", metavar="STORE", help="HDF5 store, or a folder of .npy files")
    parser.add_argument(
        "--keys",
        type=Path,
        action="append",
        metavar="MAP",
        help="OUT.keys.csv of stores released with --keys secret: faults are listed by raw key, and keys must be those "
        "of the map; may be repeated",
    )
    parser.add_argument("--feature-dim", type=Count, help="width to expect (default: that of the store's encoder)")
    limits.add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Read each store whole; one that is no store does not keep the others from being checked."""
    from splavu.data.key_map import read_key_map
    from splavu.data.verification import by_raw_keys, described, verify_apart

    keys = read_key_map(*args.keys) if args.keys else None
    absent = set(keys.raw_of) if keys is not None else set()
    has_faults = False
    unreadable: list[UserError] = []
    for path in args.stores:
        try:
            verdict = verify_apart(path, feature_dim=args.feature_dim, quiet=args.quiet)
            if keys is not None:
                verdict = by_raw_keys(verdict, keys)
                absent = absent.difference(verdict.keys)
        except UserError as error:
            unreadable.append(error)
            continue
        print("\n".join(described(verdict)))
        has_faults |= bool(verdict.faults)
    if keys is not None and absent:
        example = keys.raw(min(absent))
        print(f"  fault: {keys.source}: {len(absent)} of its keys are in none of the stores, such as '{example}'")
        has_faults = True
    for error in unreadable[:-1]:
        print(f"splavu: {error}", file=sys.stderr)
    if unreadable:
        raise unreadable[-1]
    return 1 if has_faults else 0

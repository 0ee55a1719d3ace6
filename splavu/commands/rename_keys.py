"""Rewrite label and annotation files for features that were released under secret keys.

IN is a CSV with a column filename, JSON of labels or of THUMOS14's kind, a list of a video a line, or VISPR's pickle.
Videos come in the order of their released keys; folders, URLs and unknown fields are left out.

--names writes the table of what the raw names say, for sets that are labelled by their names: NTU RGB+D, Casia-B, VP.
Lists whose names hold the labels get a column of labels first: python mgfn/label_list.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from splavu.errors import UserError
from splavu.runtime import limits
from splavu.runtime.cli import ArgumentParser
from splavu.runtime.schema import Count


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command."""
    from splavu.data.name_tables import NAME_RULES

    parser.usage = "splavu rename-keys --keys MAP [--keys MAP ...] [--drop] [--names SET] [IN] OUT"
    parser.add_argument("files", metavar="[IN] OUT", type=Path, nargs="+", help="with --names there is no IN")
    parser.add_argument(
        "--keys",
        type=Path,
        action="append",
        required=True,
        metavar="MAP",
        help="OUT.keys.csv of anonymize --keys secret; may be repeated",
    )
    parser.add_argument("--drop", action="store_true", help="leave out videos without a released key")
    parser.add_argument(
        "--keep-order",
        action="store_true",
        help="keep the order of IN, for comparisons at home: the order of a public file names every key again",
    )
    parser.add_argument(
        "--names", choices=NAME_RULES, help="write what the raw names of this set say; belongs beside its label files"
    )
    parser.add_argument(
        "--list", type=Path, help="IN is the ground truth (.npy) of this list's videos, one array in its order"
    )
    parser.add_argument("--features", type=Path, help="with --list: folder of the videos' features")
    parser.add_argument(
        "--frames-per-snippet",
        type=Count,
        default=16,
        help="with --list: frames a feature stands for (default 16)",
    )
    limits.add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Rename one file and print how many names it has."""
    from splavu.runtime.files import claimed

    *sources, target = args.files
    if len(sources) != (args.names is None):
        raise UserError("OUT", "is not given" if not sources else "there are too many files", "rename-keys IN OUT")
    if (args.list is None) != (args.features is None) or (args.list is not None and args.names):
        raise UserError("--list", "and --features belong together, to IN", "give both, or none")
    inputs = [path for path in (*sources, *args.keys, args.list, args.features) if path is not None]
    with claimed(target, inputs=inputs):
        return _renamed(args, sources, target, inputs)


def _renamed(args: argparse.Namespace, sources: Sequence[Path], target: Path, inputs: Sequence[Path]) -> int:
    from splavu.data.key_map import read_key_map
    from splavu.release.renaming import Renaming
    from splavu.runtime.files import write_bytes

    renaming = Renaming(read_key_map(*args.keys), keep_order=args.keep_order, drop=args.drop)
    if args.names is not None:
        renamed = renaming.names(args.names)
    elif args.list is not None:
        renamed = renaming.truth(
            sources[0], test_list=args.list, features=args.features, frames=args.frames_per_snippet
        )
    else:
        renamed = renaming.file(sources[0])
    write_bytes(target, renamed.content, inputs=inputs)
    dropped = f", {renamed.num_dropped} without a released key left out" if renamed.num_dropped else ""
    print(f"{target}: {renamed.num_renamed} videos under their released keys{dropped}")
    return 0

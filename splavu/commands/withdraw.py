"""Take the videos of subjects out of stores, and say whether the anonymizer has to be fitted again without them.

Writes each store again, without their videos, into a folder. Release what is left again under the same secret: released
keys and features of those who stay keep every byte. Copies that others have of the former release are not reached.

Exit code 1: without them a code stands for too few subjects, so the anonymizer has to be fitted again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from splavu.errors import UserError
from splavu.runtime import limits
from splavu.runtime.cli import ArgumentParser
from splavu.runtime.schema import Few


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("withdrawn", metavar="SUBJECT", nargs="+", help="as in the table of subjects")
    parser.add_argument(
        "--raw",
        type=Path,
        nargs="+",
        action="extend",
        required=True,
        metavar="STORE",
        help="HDF5 stores of raw features; all that the anonymizer was fitted to",
    )
    parser.add_argument(
        "--static", type=Path, nargs="+", action="extend", default=[], metavar="STORE", help="of the same videos"
    )
    parser.add_argument("--subjects", type=Path, required=True, metavar="CSV", help="CSV filename,subject")
    parser.add_argument("--aam", type=Path, metavar="CKPT", help="anonymizer that the release was made with")
    parser.add_argument("--num-heads", type=Few, default=8, help="attention heads, where a checkpoint lacks them")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for the stores without them")
    limits.add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Judge, write, print."""
    from splavu.anonymizers.loading import load_anonymizer
    from splavu.data.subjects import read_subjects
    from splavu.release.withdrawal import withdrawal
    from splavu.runtime.files import check_target
    from splavu.stores import StoreWriter, open_features

    paths = [*args.raw, *args.static]
    inputs = [*paths, args.subjects, *([args.aam] if args.aam else [])]
    if len({path.name for path in paths}) < len(paths):
        raise UserError("--raw", "names two stores of one file name", "rename one of them")
    for path in paths:
        if not path.is_file():
            raise UserError(path, "is no HDF5 store", "remove their files from a folder by hand")
        check_target(args.out / path.name, inputs=inputs)
        if (args.out / path.name).exists():
            raise UserError(args.out / path.name, "is there already", "give another folder as --out")
    stores = {path: open_features(path) for path in paths}
    keys = list(dict.fromkeys(key for store in stores.values() for key in store))
    subjects = read_subjects(args.subjects, keys).subjects
    features = {
        key: store[key].reshape(-1, store.feature_dim) for path in args.raw for store in [stores[path]] for key in store
    }
    theirs = {key for key in keys if subjects.get(key) in args.withdrawn}
    if absent := sorted(set(args.withdrawn) - {subjects[key] for key in theirs}):
        raise UserError(args.subjects, f"'{absent[0]}' is in none of the videos", "check the name")
    if theirs >= set(features):
        raise UserError("SUBJECT", "names everyone: nothing would be left", "remove the release instead")
    verdict = None
    if args.aam is not None:
        verdict = withdrawal(load_anonymizer(args.aam, num_heads=args.num_heads), features, subjects, args.withdrawn)
    for path, store in stores.items():
        attributes = {name: value for name, value in store.attributes.items() if isinstance(value, str | int | float)}
        with StoreWriter(args.out / path.name, attributes=attributes) as writer:
            for key in store:
                if key not in theirs:
                    writer.add(key, store[key])
        print(f"{args.out / path.name}: {len(store) - len(theirs & set(store))} of {len(store)} keys")
    if verdict is None:
        return 0
    print(verdict)
    return 1 if verdict.must_fit_again else 0

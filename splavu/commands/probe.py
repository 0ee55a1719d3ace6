"""Measure what released features are still good for: new linear heads for the actions, raw beside released.

Heads are trained on the subjects of the splits train and val and tested on those of test; the clips of a video are
averaged. Prints top-1 with 95 % intervals over test subjects. A head is no detector: train TriDet and MGFN on the
release to know what these lose.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from splavu.errors import UserError
from splavu.runtime import limits
from splavu.runtime.cli import ArgumentParser

SCHEMA = "splavu-probe/1"
MARKS = (f'"schema": "{SCHEMA[:-1]}'.encode(),)


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--raw", type=Path, required=True, metavar="STORE", help="raw features")
    parser.add_argument("--released", type=Path, required=True, metavar="STORE", help="the release made from them")
    parser.add_argument("--keys", type=Path, metavar="MAP", help="OUT.keys.csv of a store released with --keys secret")
    parser.add_argument("--labels", type=Path, required=True, help="CSV filename,label: the actions")
    parser.add_argument(
        "--subjects",
        type=Path,
        required=True,
        metavar="CSV",
        help="CSV filename,subject,split; without subjects each video counts as one",
    )
    parser.add_argument("--out", type=Path, metavar="JSON", help="to be written")
    limits.add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Read, train, print, and write."""
    import json

    from splavu.attacks.rows import json_values
    from splavu.data.csv_table import read_rows
    from splavu.data.key_map import read_key_map
    from splavu.data.keys import match_keys
    from splavu.data.subjects import read_subjects
    from splavu.runtime.files import check_target, write_text
    from splavu.stores import open_features
    from splavu.tuning.use_of_release import use_of_release

    inputs = [path for path in (args.raw, args.released, args.keys, args.labels, args.subjects) if path is not None]
    if args.out is not None:
        check_target(args.out, inputs=inputs, marks=MARKS)
    raw = open_features(args.raw)
    released = open_features(args.released, feature_dim=raw.feature_dim)
    keys = None if args.keys is None else read_key_map(args.keys)
    raw_key = {key: key if keys is None else keys.raw(key) for key in released}
    if absent := [key for key in raw_key.values() if key not in raw]:
        raise UserError("--raw", f"has no '{absent[0]}', which is released", "give the store of the raw features")
    rows = {row["filename"]: row["label"].strip() for row in read_rows(args.labels, ("filename", "label"))}
    names = match_keys(rows, raw_key.values(), source=args.labels)
    who = read_subjects(args.subjects, raw_key.values())
    wide = raw.feature_dim
    found = use_of_release(
        {key: raw[key].reshape(-1, wide) for key in raw_key.values()},
        {key: released[name].reshape(-1, wide) for name, key in raw_key.items()},
        {key: rows[name] for key, name in names.items() if rows[name]},
        {key: who.subjects.get(key, key) for key in raw_key.values()},
        who.splits,
    )
    for name, one in (("raw", found.raw), ("released", found.released), ("lost", found.lost)):
        print(f"{name:<9} {100 * one.value:5.1f} % [{100 * one.low:.1f}, {100 * one.high:.1f}]")
    print(
        f"top-1 of {found.actions} actions on {found.test_videos} videos of {found.test_subjects} test subjects, heads "
        f"trained on {found.train_subjects} subjects; chance {100 * found.raw.chance:.1f} %"
    )
    if args.out is not None:
        content = json.dumps(json_values({"schema": SCHEMA, **found.record}), indent=1)
        write_text(args.out, content + "\n", inputs=inputs)
    return 0

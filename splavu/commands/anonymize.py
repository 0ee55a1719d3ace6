"""Turn raw features into released features, in the same format.

After an interruption, the same command continues where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from splavu.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.usage = "splavu anonymize --aam ANONYMIZER IN OUT [--unit video] [--column NAME] [--keep NAME,NAME] [...]"
    parser.add_argument(
        "store", metavar="IN", type=Path, help="HDF5 store, folder of .npy files (one per video), or Parquet file"
    )
    parser.add_argument("target", metavar="OUT", type=Path, nargs="?", help="to be written, in the same format")
    parser.add_argument(
        "--aam", metavar="ANONYMIZER", required=True, help="checkpoint, folder of save_pretrained, or hub name"
    )
    parser.add_argument("--out", type=Path, help="another way to give OUT")
    parser.add_argument(
        "--unit",
        choices=("alone", "video"),
        default="alone",
        help="alone: each feature independently of the others (default); video: each long video as one sequence, as "
        "detectors were co-trained",
    )
    parser.add_argument("--column", help="Parquet: column of the features (default: the only one of float lists)")
    parser.add_argument(
        "--keep", default="", help="Parquet: comma list of columns to copy (default: none, labels are private)"
    )
    parser.add_argument("--num-heads", type=int, default=8, help="attention heads, where a checkpoint lacks them")


def run(args: argparse.Namespace) -> int:
    """Anonymize a store, a folder or a table, and print what was written."""
    from splavu.release.anonymize import anonymize_store, anonymize_table
    from splavu.release.pretrained import load_pretrained
    from splavu.runtime.environment import pick_device
    from splavu.runtime.files import check_target, files_of
    from splavu.stores.parquet import is_parquet

    target = args.target or args.out
    if target is None or (args.target and args.out):
        raise UserError(
            "OUT", "is not given" if target is None else "is given twice", "anonymize --aam ANONYMIZER IN OUT"
        )
    check_target(target, inputs=[args.store, *files_of(args.aam)], is_folder=args.store.is_dir())
    anonymizer = load_pretrained(args.aam, num_heads=args.num_heads)
    device = pick_device(args.device)
    keep = [name.strip() for name in args.keep.split(",") if name.strip()]
    if is_parquet(args.store):
        if args.unit == "video":
            raise UserError("--unit", "'video' is for folders of long videos", "leave it out: features are alone")
        table = anonymize_table(args.store, target, anonymizer, column=args.column, keep=keep, device=device)
        print(f"{target}: {table.num_rows} rows, '{table.column}' anonymized one feature at a time")
        if table.dropped:
            print(f"left out: {', '.join(table.dropped)} (--keep copies a column; consider that labels are private)")
        return 0
    if args.column or keep:
        raise UserError(args.store, "is no Parquet file: it has no columns", "leave out --column and --keep")
    count = anonymize_store(args.store, target, anonymizer, unit=args.unit, device=device)
    how = "one feature at a time" if args.unit == "alone" else "each video as one sequence"
    print(f"{target}: {count} keys, anonymized {how}")
    return 0

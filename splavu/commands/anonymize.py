"""Turn raw features into released features, in the same format.

After an interruption, the same command continues where it stopped.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from splavu.errors import UserError
from splavu.runtime import limits
from splavu.runtime.cli import ArgumentParser
from splavu.runtime.schema import Few

if TYPE_CHECKING:
    from splavu.anonymizers import Anonymizer
    from splavu.release.anonymize import SecretKeys
    from splavu.stores import FeatureReader
    from splavu.stores.parquet import FeatureTable

logger = logging.getLogger(__name__)


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command."""
    parser.usage = "splavu anonymize --aam ANONYMIZER IN OUT [--unit video] [--keys secret] [...]"
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
    parser.add_argument(
        "--keys",
        choices=("kept", "secret"),
        default="kept",
        help="kept: keys are released as they are (default); secret: renamed by a keyed hash and put in its order; "
        "OUT.keys.csv, the way back, is the owner's",
    )
    parser.add_argument(
        "--secret", type=Path, metavar="FILE", help="of --keys secret; made if there is none (default: OUT.secret)"
    )
    parser.add_argument("--column", help="Parquet: column of the features (default: the only one of float lists)")
    parser.add_argument(
        "--keep",
        default="",
        help="Parquet: comma list of columns to copy (default: none, labels are private); with --keys secret each is "
        "NAME:plain or NAME:hashed",
    )
    parser.add_argument(
        "--allow-fitted",
        action="store_true",
        help="release clips that the anonymizer was fitted to, also where its codes have a floor of fewer than 5 "
        "subjects",
    )
    parser.add_argument("--num-heads", type=Few, default=8, help="attention heads, where a checkpoint lacks them")
    limits.add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Anonymize a store, a folder or a table, and print what was written."""
    from splavu.runtime.files import check_target, files_of
    from splavu.stores import open_features
    from splavu.stores.parquet import FeatureTable, is_parquet

    target = args.target or args.out
    if target is None or (args.target and args.out):
        raise UserError(
            "OUT", "is not given" if target is None else "is given twice", "anonymize --aam ANONYMIZER IN OUT"
        )
    inputs = [args.store, *files_of(args.aam)]
    check_target(target, inputs=inputs, is_folder=args.store.is_dir())
    if args.secret is not None and args.keys == "kept":
        raise UserError("--secret", "is for keys that are renamed", "add --keys secret")
    if not is_parquet(args.store):
        open_features(args.store)  # what is no store is refused before torch is imported

    from splavu.anonymizers.guarantees import budget_of
    from splavu.data.key_names import what_keys_reveal
    from splavu.release.anonymize import SecretKeys, anonymize_store, anonymize_table
    from splavu.release.fitted_rows import owners_of_released
    from splavu.release.pretrained import load_pretrained
    from splavu.runtime.environment import pick_device

    anonymizer = load_pretrained(args.aam, num_heads=args.num_heads)
    device = pick_device(args.device)
    keep = [name.strip() for name in args.keep.split(",") if name.strip()]
    secret_keys = SecretKeys.of(target, args.secret) if args.keys == "secret" else None
    if is_parquet(args.store):
        if args.unit == "video":
            raise UserError("--unit", "'video' is for folders of long videos", "leave it out: features are alone")
        lines = _compared(FeatureTable(args.store, column=args.column), anonymizer, args)
        table = anonymize_table(
            args.store, target, anonymizer, column=args.column, keep=keep, device=device, secret_keys=secret_keys
        )
        print(f"{target}: {table.num_rows} rows, '{table.column}' anonymized one feature at a time", *lines, sep="\n")
        if table.dropped:
            print(f"left out: {', '.join(table.dropped)} (--keep copies a column; consider that labels are private)")
        rows = "rows keep their order; --keys secret permutes them"
        print(rows if secret_keys is None else _stays("rows are permuted", secret_keys))
        return 0
    if args.column or keep:
        raise UserError(args.store, "is no Parquet file: it has no columns", "leave out --column and --keep")
    width = anonymizer.architecture["feature_dim"]
    lines = _compared(open_features(args.store, feature_dim=width), anonymizer, args)
    count = anonymize_store(args.store, target, anonymizer, unit=args.unit, device=device, secret_keys=secret_keys)
    how = "one feature at a time" if args.unit == "alone" else "each video as one sequence"
    print(f"{target}: {count} keys, anonymized {how}", *lines, sep="\n")
    if budget_of(anonymizer.architecture) is not None:
        owners = owners_of_released(open_features(target))
        shown = f"{owners.vectors} different vectors, {100 * owners.share:.1f} % of them of one video alone"
        print(f"{shown} ({100 * owners.clip_share:.1f} % of the clips)")
    if secret_keys is None:
        found = what_keys_reveal(open_features(target))
        print(f"keys are released as they are: {found}; --keys secret renames them")
    else:
        print(_stays("keys are hashed", secret_keys))
    return 0


def _compared(source: FeatureReader | FeatureTable, anonymizer: Anonymizer, args: argparse.Namespace) -> list[str]:
    """What there is to say of the clips and of what the anonymizer was fitted to; warnings are logged.

    Raises:
        UserError: It was fitted to some of them, with a floor below the common one, and that wasn't allowed.
    """
    from splavu.release.fitted_rows import compared, floor_behind, refuse_fitted

    if floor_behind(anonymizer) == 0:
        logger.warning("%s doesn't say how many people stand behind a code; fit it again to have a floor", args.aam)
    found = None if "anonymizer_sha256" in source.attributes else compared(source, anonymizer)
    if found is None:
        return []
    if not args.allow_fitted:
        refuse_fitted(found, anonymizer, args.store)
    if found.fitted:
        logger.warning(
            "%d of %d keys are among those that the anonymizer was fitted to: its bounds don't hold for their people",
            found.fitted,
            found.keys,
        )
    if found.distances and found.is_off_the_map:
        logger.warning(
            "these features lie off the map: %s. Another encoder, preprocessing or domain is likely; what was found of "
            "use, and the floor of subjects per code, do not carry over to them",
            found,
        )
    return [str(found)] if found.distances else []


def _stays(done: str, secret_keys: SecretKeys) -> str:
    files = f"{secret_keys.file} and {secret_keys.map('*')}"
    return f"{done}; {files} lead back: keep them, and don't give them away"

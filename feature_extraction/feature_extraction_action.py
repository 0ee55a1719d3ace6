"""Extract clip features: from a folder of videos, or from the splits of a data set.

    python feature_extraction/feature_extraction_action.py --videos FOLDER --out store.h5 --encoder videoMAE
    python feature_extraction/feature_extraction_action.py --dataset hmdb51 --split train,val,test --static 10

A run that was interrupted goes on where it stopped; one bad video is reported at the end and stops nothing, even if it
kills or hangs its decoder. Several processes, also on several nodes with a common file system, share the work:

    torchrun --nproc_per_node=4 feature_extraction/feature_extraction_action.py --dataset hmdb51
    python feature_extraction/feature_extraction_action.py --dataset hmdb51 --shard 0/4    (and 1/4, 2/4, 3/4)

The last to finish merges. What a killed one left out, the same command makes up for, with any number of processes.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from splavu.errors import UserError, nearest
from splavu.extraction.decoding import warm_up
from splavu.extraction.encoders import FrozenEncoder, load_encoder
from splavu.extraction.extract_source import described, extract_source, report_failures
from splavu.extraction.obfuscation import Obfuscation, default_features, obfuscation
from splavu.extraction.preprocessing import protocol_preprocessing
from splavu.extraction.settings import ExtractionSettings
from splavu.extraction.shards import device_name, find_shard, is_under_torchrun
from splavu.extraction.sources import (
    VIEWS,
    Source,
    folder_files,
    split_files,
    video_stores,
    vispr_files,
    vp_files,
)
from splavu.extraction.videos import pick_backend
from splavu.runtime import cli, params
from splavu.runtime.environment import pick_device
from splavu.runtime.options import add_options, given_options, option
from splavu.runtime.schema import Few, NonNegativeInt, Seed
from study import config
from study.datasets.catalog import FOLDER, STORED, CatalogueRow, row_of


@dataclass(frozen=True)
class ExtractionParams(ExtractionSettings):
    """The parameters of `params_feature_ex.py`, most of them options of the command line too."""

    fb_frame_pool: NonNegativeInt = option(
        0, "also N static clips of each video, in the same pass", flag="--static", metavar="N"
    )
    static_augment: Literal["train", "always", "never"] = option("train", "which splits' static clips are augmented")
    num_views: Few = 20
    protocol: Literal["released", "published"] = option("released", "preprocessing: 'published' is the paper's")
    seed: Seed = option(0, "of the augmentation")


def main(argv: Sequence[str] | None = None) -> int:
    """0: done. 1: done, but some files failed and are listed. Bad input raises UserError (exit code 2)."""
    args = _parser().parse_args(argv)
    cli.start(args)
    settings = params.load(args.params, ExtractionParams, args.set, given_options(args, ExtractionParams))
    device = pick_device(device_name(args.device))
    _check_arguments(args)
    shard = None if args.merge else find_shard(args.shard)
    if shard is not None and args.fresh:
        raise UserError("--fresh", "has no meaning for a shard", "remove the store and its .partial folder first")
    backend = pick_backend(settings.backend)
    hide = obfuscation(settings.obfuscate, person_boxes=settings.person_boxes)
    warm_up(settings.num_workers)
    encoder = load_encoder(settings.encoder, settings.weights)
    print(described(encoder, device))
    failures: dict[str, str] = {}
    is_last = False
    for source in _sources(args, settings, encoder, hide):
        extracted = extract_source(
            source,
            encoder,
            settings,
            backend=backend,
            device=device,
            known=failures,
            shard=shard,
            is_merge=args.merge,
            resume=not args.fresh,
        )
        print(extracted)
        failures, is_last = extracted.failures, extracted.is_whole
    code = report_failures(failures)
    if shard is not None and not is_last and is_under_torchrun():
        return 0  # the last rank reports all failures and exits with 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__, default_params=Path(__file__).with_name("params_feature_ex.py"))
    what = parser.add_argument_group("what to extract: --videos and --out, or --dataset")
    what.add_argument("--videos", metavar="FOLDER", type=Path, help="videos, also in folders below; key = file name")
    what.add_argument("--out", metavar="FILE.h5", type=Path, help="store to write; static clips go to FILE_fbN.h5")
    what.add_argument("--dataset", metavar="NAME", help=f"one of {', '.join(sorted(STORED))}, your own: {FOLDER}NAME")
    what.add_argument("--split", metavar="NAME[,NAME]", help="train, test, for some val; default all")
    what.add_argument("--data", metavar="ROOT", type=Path, help="holds a folder for each data set (default: config.py)")
    what.add_argument(
        "--features",
        metavar="ROOT",
        type=Path,
        help="where the stores go (default: config.py; obfuscated ones in a folder below)",
    )
    how = parser.add_argument_group("how; the defaults are in the params file")
    add_options(how, ExtractionParams, with_ranges=True)
    how.add_argument("--fresh", action="store_true", help="start again instead of continuing")
    together = parser.add_argument_group("together with other processes")
    together.add_argument("--shard", metavar="I/N", help="every N-th key from the I-th on (default: RANK/WORLD_SIZE)")
    together.add_argument("--merge", action="store_true", help="extract nothing, merge what shards have left")
    return parser


def _check_arguments(args: argparse.Namespace) -> None:
    if (args.videos is None) == (args.dataset is None):
        raise UserError("arguments", "one of --videos and --dataset expected", "see --help")
    if args.videos is not None and args.out is None:
        raise UserError("--out", "missing", "name the store to write, for example --out features.h5")
    if args.dataset is not None and args.dataset not in STORED and not args.dataset.startswith(FOLDER):
        raise UserError("--dataset", f"no stores are made for '{args.dataset}'", nearest(args.dataset, STORED))
    if args.split is not None and args.dataset is None:
        raise UserError("--split", "has no meaning for a plain folder", "remove it, or give --dataset")


def _sources(
    args: argparse.Namespace, settings: ExtractionParams, encoder: FrozenEncoder, hide: Obfuscation | None
) -> list[Source]:
    """One source per split, or the plain folder."""
    preprocessing = protocol_preprocessing(encoder.spec.preprocessing, protocol=settings.protocol, dataset=args.dataset)
    augment, num_static = settings.static_augment, settings.fb_frame_pool

    def videos(files: dict[str, Path], out: Path, *, is_train: bool) -> Source:
        is_augmented = augment == "always" or (augment == "train" and is_train)
        stores = video_stores(out, num_static)
        return Source(files, stores, preprocessing, is_augmented, num_static, seed=settings.seed, hide=hide)

    if args.dataset is None:
        return [videos(folder_files(args.videos), args.out, is_train=True)]
    data, features = args.data or Path(config.DATA), args.features or default_features(Path(config.FEATURES), hide)
    spec, sources = row_of(args.dataset, data), []
    for split in _splits(args, spec):
        is_train, out = split == "train", spec.store_path(features, split, encoder.spec.name)
        if spec.is_images:  # the format: 20 views of a training image, the central one of a test image
            num_views = settings.num_views if is_train else 1
            files = vispr_files(data / spec.folder, split)
            sources.append(
                Source(files, {VIEWS: out}, preprocessing, is_train, num_views=num_views, seed=settings.seed, hide=hide)
            )
        elif spec.videos_of is not None:
            files = vp_files(data / spec.layout.label_files[0], row_of(spec.videos_of, data), data, split)
            sources.append(videos(files, out, is_train=is_train))
        else:
            sources.append(videos(split_files(spec, data, split), out, is_train=is_train))
    return sources


def _splits(args: argparse.Namespace, spec: CatalogueRow) -> list[str]:
    known = spec.splits
    splits = list(dict.fromkeys(args.split.split(","))) if args.split else list(known)
    for split in splits:
        if split not in known:
            raise UserError("--split", f"{args.dataset} has no split '{split}'", nearest(split, known))
    return splits


if __name__ == "__main__":
    cli.run(main)

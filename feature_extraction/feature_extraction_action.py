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
import contextlib
import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tqdm import tqdm

from splavu.errors import UserError, nearest, printable
from splavu.extraction.decoding import Job, decoders, warm_up
from splavu.extraction.encoders import FrozenEncoder, load_encoder
from splavu.extraction.extract import extract
from splavu.extraction.obfuscation import Obfuscation, default_features, obfuscation
from splavu.extraction.preprocessing import protocol_preprocessing
from splavu.extraction.provenance import provenance
from splavu.extraction.settings import ExtractionSettings
from splavu.extraction.shards import Shard, device_name, find_shard, is_under_torchrun, ranks_here
from splavu.extraction.sources import (
    CLIPS,
    STATIC,
    VIEWS,
    Source,
    folder_files,
    split_files,
    video_stores,
    vispr_files,
    vp_files,
)
from splavu.extraction.videos import backend_version, image_reader_version, pick_backend
from splavu.runtime import cli, params
from splavu.runtime.environment import pick_device
from splavu.runtime.options import add_options, given_options, option
from splavu.runtime.schema import Few, NonNegativeInt, Seed
from splavu.stores import StoreWriter
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
    spec = encoder.spec
    print(f"encoder {spec.name}, {spec.feature_dim} wide, weights {encoder.weights_hash[:12]}, on {device}")
    if spec.name == "demo":
        print("note: the demo encoder is for trying things out; for real features use --encoder videoMAE")
    failures: dict[str, str] = {}
    is_last = False
    for source in _sources(args, settings, encoder, hide):
        failures, is_last = _run(
            source,
            failures,
            encoder,
            settings,
            backend=backend,
            device=device,
            shard=shard,
            is_merge=args.merge,
            resume=not args.fresh,
            quiet=args.quiet,
        )
    for key, reason in failures.items():
        print(printable(f"failed: {key}: {reason}"))
    if failures:
        print(f"{len(failures)} failed; run the same command to try these again")
    if shard is not None and not is_last and is_under_torchrun():
        return 0  # the last rank reports all failures and exits with 1
    return 1 if failures else 0


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
    add_options(how, ExtractionParams)
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


def _run(
    source: Source,
    known: dict[str, str],
    encoder: FrozenEncoder,
    settings: ExtractionParams,
    *,
    backend: str,
    device: torch.device,
    shard: Shard | None,
    is_merge: bool,
    resume: bool,
    quiet: bool,
) -> tuple[dict[str, str], bool]:
    """Extract one source, or a shard of it, into its stores.

    Args:
        known: What failed in the sources before; the last of several shards has to know.

    Returns:
        Key -> why it failed, here or before, and whether the stores are whole: of several shards, after the last.
    """
    started = time.monotonic()
    failures: dict[str, str] = {}
    num_videos = num_clips = 0
    keys = list(source.files) if shard is None else shard.keys(source.files)
    ours = None if shard is None else (shard.index, shard.count)
    with contextlib.ExitStack() as stack:
        writers: dict[str, StoreWriter] = {}
        for output, path in source.stores.items():
            attributes = _provenance(output, source, encoder, settings, backend)
            writers[output] = stack.enter_context(StoreWriter(path, attributes=attributes, resume=resume, shard=ours))
            writers[output].failures |= known
        jobs = []
        for key in keys:
            missing = [output for output, writer in writers.items() if not writer.done(key)]
            if missing:
                num_frames = encoder.spec.num_frames
                make = source.only(key).pieces
                pieces = functools.partial(make, key, missing, num_frames=num_frames, backend=backend)
                jobs.append(Job(key, pieces, source.files[key]))
        num_done = len(keys) - len(jobs)
        if is_merge:
            failures |= {job.key: "not extracted yet" for job in jobs}
            jobs = []
        num_workers, is_isolated = decoders(settings.num_workers, sharing=ranks_here())
        results = extract(
            jobs,
            encoder,
            preprocessing=source.preprocessing,
            device=device,
            batch_size=settings.batch_size,
            num_workers=num_workers,
            precision=settings.precision,
            is_isolated=is_isolated,
            timeout=settings.timeout,
        )
        title = next(iter(source.stores.values())).name
        for result in tqdm(results, total=len(jobs), desc=printable(title), unit="file", disable=quiet or None):
            try:
                if result.error is not None:
                    raise result.error
                for output, features in result.features.items():
                    is_single = output == VIEWS and not source.is_augmented  # stored as (D,)
                    writers[output].add(result.key, features[0] if is_single else features)
                    num_clips += len(features)
                num_videos += 1
            except UserError as error:
                failures[result.key] = str(error)
                for writer in writers.values():
                    writer.failures[result.key] = str(error)
    seconds = time.monotonic() - started
    is_whole = all(writer.is_merged for writer in writers.values())
    for writer in writers.values():
        if not writer.is_merged:
            print(f"{writer.path}: shard {shard} done; the last one merges")
        elif len(writer):
            print(f"{writer.path}: {len(writer)} keys")
        else:
            print(f"{writer.path}: not written, nothing could be extracted")
    print(
        f"  {num_videos} files, {num_clips} clips in {seconds:.1f} s ({num_clips / max(seconds, 1e-9):.0f} clips/s), "
        f"{num_done} were there already, {len(failures)} failed"
    )
    for writer in writers.values():
        failures |= writer.failures
    return known | failures, is_whole


def _provenance(
    output: str, source: Source, encoder: FrozenEncoder, settings: ExtractionParams, backend: str
) -> dict[str, str | int | float]:
    num_frames = encoder.spec.num_frames
    if output == CLIPS:
        rule: dict[str, str | int | bool] = {"kind": "consecutive", "frames": num_frames, "stride": 1, "overlap": 0}
    else:
        rule = {"kind": "static", "frames": num_frames, "augmented": source.is_augmented}
        rule["count"] = (
            settings.fb_frame_pool if output == STATIC else (settings.num_views if source.is_augmented else 1)
        )
        if source.is_augmented:
            rule["seed"] = settings.seed
    return provenance(
        encoder,
        preprocessing=source.preprocessing,
        decoder=image_reader_version() if output == VIEWS else backend_version(backend),
        precision=settings.precision,
        clip_rule=rule,
        hide=source.hide,
    )


if __name__ == "__main__":
    cli.run(main)

"""Extract features of long videos, one .npy each: a row per clip of 16 frames, a clip every `stride` frames.

    python feature_extraction/long_videos.py --dataset thumos14 --encoder videoMAE
    python feature_extraction/long_videos.py --videos FOLDER --out FOLDER --stride 4

Each frame is decoded and resized once, also where clips overlap, and only a few seconds of a video are in memory at any
time. A run that was interrupted goes on where it stopped; one bad video is reported at the end and stops nothing, even
if it kills or hangs its decoder. With torchrun, or --shard 0/4, 1/4 and so on, several processes share the work.
From code: `splavu.extraction.video_features`.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import argparse
import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from splavu.errors import UserError, printable
from splavu.extraction.decoding import Job, decoders, warm_up
from splavu.extraction.encoders import FrozenEncoder, load_encoder
from splavu.extraction.extract import extract
from splavu.extraction.obfuscation import Obfuscation, default_features, obfuscation
from splavu.extraction.preprocessing import CROPS
from splavu.extraction.provenance import provenance
from splavu.extraction.settings import ExtractionSettings
from splavu.extraction.shards import (
    Shard,
    device_name,
    find_shard,
    is_first_rank,
    is_under_torchrun,
    ranks_here,
    sum_over_ranks,
)
from splavu.extraction.sources import folder_files, listed_files
from splavu.extraction.video_features import NO_OVERLAP, check_clips, file_pieces, stacked, time_error
from splavu.extraction.videos import backend_version, pick_backend
from splavu.runtime import cli, params
from splavu.runtime.environment import pick_device
from splavu.runtime.options import add_options, given_options, option
from splavu.stores import FolderWriter
from study import config
from study.datasets.untrimmed import UNTRIMMED


@dataclass(frozen=True)
class LongVideoParams(ExtractionSettings):
    """The parameters of `params_long_videos.py`, which are options of the command line too."""

    stride: int = option(NO_OVERLAP, "frames from one clip to the next", metavar="FRAMES")
    crops: int = option(1, f"one of {', '.join(map(str, CROPS))}")


def main(argv: Sequence[str] | None = None) -> int:
    """0: done. 1: done, but some files failed and are listed. Bad input raises UserError (exit code 2)."""
    args = _parser().parse_args(argv)
    cli.start(args)
    settings = params.load(args.params, LongVideoParams, args.set, given_options(args, LongVideoParams))
    device = pick_device(device_name(args.device))
    shard = find_shard(args.shard)
    if (args.videos is None) == (args.dataset is None):
        raise UserError("arguments", "one of --videos and --dataset expected", "see --help")
    if args.videos is not None and args.out is None:
        raise UserError("--out", "missing", "name the folder to write, for example --out features")
    backend = pick_backend(settings.backend)
    hide = obfuscation(settings.obfuscate, person_boxes=settings.person_boxes)
    warm_up(settings.num_workers)
    encoder = load_encoder(settings.encoder, settings.weights)
    spec = encoder.spec
    check_clips(settings.stride, settings.crops, spec.num_frames)
    files, out = _files_and_folder(args, settings, encoder, hide)
    print(f"encoder {spec.name}, {spec.feature_dim} wide, weights {encoder.weights_hash[:12]}, on {device}")
    if spec.name == "demo":
        print("note: the demo encoder is for trying things out; for real features use --encoder videoMAE")
    failures = _run(
        files, out, encoder, settings, hide=hide, backend=backend, device=device, shard=shard, quiet=args.quiet
    )
    for key, error in failures:
        print(printable(f"failed: {key}: {error}"))
    if shard is not None and is_under_torchrun():
        num_failed = sum_over_ranks(len(failures))
        if not is_first_rank():  # it fails for all, when all are done
            return 0
    else:
        num_failed = len(failures)
    if num_failed:
        print(f"{num_failed} failed; run the same command to try these again")
    return 1 if num_failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__, default_params=Path(__file__).with_name("params_long_videos.py"))
    what = parser.add_argument_group("what to extract: --videos and --out, or --dataset")
    what.add_argument("--videos", metavar="FOLDER", type=Path, help="videos, also in folders below; key = file name")
    what.add_argument("--out", metavar="FOLDER", type=Path, help="folder for the .npy files")
    what.add_argument("--dataset", choices=sorted(UNTRIMMED))
    what.add_argument("--data", metavar="ROOT", type=Path, help="holds a folder a data set (default: config.py)")
    what.add_argument("--features", metavar="ROOT", type=Path, help="where the folders go (default: config.py)")
    how = parser.add_argument_group("how; the defaults are in the params file")
    add_options(how, LongVideoParams, with_ranges=True)
    how.add_argument("--shard", metavar="I/N", help="every N-th key from the I-th on (default: RANK/WORLD_SIZE)")
    return parser


def _files_and_folder(
    args: argparse.Namespace, settings: LongVideoParams, encoder: FrozenEncoder, hide: Obfuscation | None
) -> tuple[dict[str, Path], Path]:
    """Key -> video, and the folder for their features: `thumos14_mae`, or `thumos14_mae_stride4_crops10`."""
    if args.dataset is None:
        return folder_files(args.videos), args.out
    data, features = args.data or Path(config.DATA), args.features or default_features(Path(config.FEATURES), hide)
    name = f"{args.dataset}_{encoder.spec.file_tag}"
    name += f"_stride{settings.stride}" if settings.stride != NO_OVERLAP else ""
    name += f"_crops{settings.crops}" if settings.crops > 1 else ""
    row = UNTRIMMED[args.dataset]
    names = [name for of_split in row.read_names(data / row.name).values() for name in of_split]
    return listed_files(names, data / row.layout.videos), features / name


def _run(
    files: dict[str, Path],
    out: Path,
    encoder: FrozenEncoder,
    settings: LongVideoParams,
    *,
    hide: Obfuscation | None,
    backend: str,
    device: torch.device,
    shard: Shard | None,
    quiet: bool,
) -> list[tuple[str, UserError]]:
    """Extract the files that are not there yet; returns what failed."""
    started = time.monotonic()
    preprocessing = encoder.spec.preprocessing
    rule = {"kind": "consecutive", "frames": encoder.spec.num_frames, "every": settings.stride, "crops": settings.crops}
    writer = FolderWriter(
        out,
        attributes=provenance(
            encoder,
            preprocessing=preprocessing,
            decoder=backend_version(backend),
            precision=settings.precision,
            clip_rule=rule,
            hide=hide,
        ),
    )

    keys = list(files) if shard is None else shard.keys(files)
    make = functools.partial(
        file_pieces, spec=encoder.spec, stride=settings.stride, crops=settings.crops, backend=backend
    )
    jobs = [
        Job(key, functools.partial(make, files[key], key=key, hide=hide.only(key) if hide else None), files[key])
        for key in keys
        if not writer.done(key)
    ]
    num_workers, is_isolated = decoders(settings.num_workers, sharing=ranks_here())
    results = extract(
        jobs,
        encoder,
        preprocessing=preprocessing,
        device=device,
        batch_size=settings.batch_size,
        num_workers=num_workers,
        precision=settings.precision,
        is_isolated=is_isolated,
        timeout=settings.timeout,
    )
    failures: list[tuple[str, UserError]] = []
    time_errors: dict[str, float] = {}
    num_clips = 0
    for result in tqdm(results, total=len(jobs), desc=printable(out.name), unit="file", disable=quiet or None):
        try:
            if result.error is not None:
                raise result.error
            features = stacked(result)
            writer.add(result.key, features)
            num_clips += len(features) * settings.crops
            if error := time_error(files[result.key]):
                time_errors[result.key] = error
        except UserError as error:
            failures.append((result.key, error))
    seconds = time.monotonic() - started
    print(
        f"{out}: {len(jobs) - len(failures)} files, {num_clips} clips in {seconds:.1f} s "
        f"({num_clips / max(seconds, 1e-9):.0f} clips/s), {len(keys) - len(jobs)} were there already, "
        f"{len(failures)} failed"
    )
    if time_errors:
        listed = ", ".join(f"{key} ({seconds:.1f} s)" for key, seconds in sorted(time_errors.items()))
        print(
            f"note: {len(time_errors)} of them have a frame rate that varies, or begin late. Their rows are not "
            f"{settings.stride} / fps seconds apart, but off by up to: {listed}. Where annotations are in seconds, "
            "convert these first: ffmpeg -i IN -fps_mode cfr OUT"
        )
    return failures


if __name__ == "__main__":
    cli.run(main)

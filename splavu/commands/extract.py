"""Extract clip features of a folder of videos with a frozen encoder, and static clips of the same videos.

The key of a video is its file name without the media extension. After an interruption, the same command continues where
it stopped; videos that were added since are added to the stores. One bad video is reported at the end and stops
nothing. Exit code 1: some videos failed, and are listed.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from splavu.extraction.settings import ExtractionSettings
from splavu.runtime import limits
from splavu.runtime.cli import ArgumentParser
from splavu.runtime.options import add_options, given_options, option
from splavu.runtime.schema import NonNegativeInt, Seed, build

ENCODER = "videoMAE"
"""By default."""


@dataclass(frozen=True)
class FolderSettings(ExtractionSettings):
    """Of the extraction of a folder of videos."""

    static: NonNegativeInt = option(0, "also N static clips of each video, in FILE_fbN.h5", metavar="N")
    seed: Seed = option(0, "of the random crops of static clips")


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("videos", metavar="VIDEOS", type=Path, help="folder of videos, also in folders below")
    parser.add_argument("--out", metavar="FILE.h5", type=Path, required=True, help="store to write")
    add_options(parser, FolderSettings, with_ranges=True)
    parser.add_argument("--fresh", action="store_true", help="start again instead of continuing")
    limits.add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Extract what isn't there yet, and print what was written."""
    from splavu.extraction.decoding import warm_up  # here and below: --help needs no torch
    from splavu.extraction.encoders import load_encoder
    from splavu.extraction.extract_source import described, extract_source, report_failures
    from splavu.extraction.obfuscation import obfuscation
    from splavu.extraction.sources import folder_source
    from splavu.extraction.videos import pick_backend
    from splavu.runtime.environment import pick_device
    from splavu.runtime.files import check_target

    settings = build(FolderSettings, {"encoder": ENCODER, **given_options(args, FolderSettings)}, source="arguments")
    device = pick_device(args.device)
    backend = pick_backend(settings.backend)
    hide = obfuscation(settings.obfuscate, person_boxes=settings.person_boxes)
    check_target(args.out, inputs=[args.videos])
    warm_up(settings.num_workers)
    encoder = load_encoder(settings.encoder, settings.weights)
    print(described(encoder, device))
    source = folder_source(
        args.videos, args.out, encoder.spec.preprocessing, num_static=settings.static, seed=settings.seed, hide=hide
    )
    extracted = extract_source(source, encoder, settings, backend=backend, device=device, resume=not args.fresh)
    print(extracted)
    return report_failures(extracted.failures)

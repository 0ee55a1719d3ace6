"""Reads MGFN's command line; each option is accepted with '-' and with '_' (`--feature-size`, `--feature_size`)."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from typing import TypeVar

from mgfn.option import Options, flag
from splavu.runtime import limits
from splavu.runtime.cli import ArgumentParser
from splavu.runtime.options import add_options

logger = logging.getLogger(__name__)

INERT = ("feat-extractor", "modality", "hiddensize", "local-con", "head-K", "num-classes", "plot-freq")
"""Options of the public program that never had an effect; accepted, so that its command lines still work."""

Parsed = TypeVar("Parsed", bound=Options)


def parse(argv: Sequence[str] | None, *, description: str, kind: type[Parsed] = Options) -> Parsed:
    """Options of a kind from a command line; leaves with code 2 where it can't be read.

    Raises:
        InputError: An option's value is out of range.
    """
    parser = ArgumentParser(
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        fromfile_prefix_chars="@",
        epilog="@FILE stands for the words in a file, one per line.",
    )
    add_options(parser, kind, with_defaults=True, with_underscores=True)
    parser.add_argument("--gpus", help="historic: the number of a GPU, like --device cuda:NUMBER")
    for name in INERT:
        spellings = dict.fromkeys([flag(name), "--" + name.replace("-", "_")])
        parser.add_argument(*spellings, dest=name, help="historic, without effect")
    limits.add_reading(parser)
    args = vars(parser.parse_args(argv))
    reading = {name: args.pop(name) for name in ("memory", "follow_links")}
    if any(reading.values()):  # options that another script hands on leave the limits as that script set them
        limits.apply(argparse.Namespace(**reading))
    for name in INERT:
        if args.pop(name) is not None:
            logger.warning("--%s has no effect and never had", name)
    gpus = args.pop("gpus")
    if gpus is not None and args["device"] == "auto":
        args["device"] = f"cuda:{gpus}"
    return kind(**args)

"""What train.py and eval.py share: flags and the device."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from torch import Tensor

from splavu.errors import UserError, as_user_errors
from splavu.runtime import cli as scripts
from splavu.runtime import environment, limits
from splavu.runtime.cli import EXIT_CODES, ArgumentParser
from tridet.config import Config, load, parse_yaml
from tridet.errors import InputError

within = scripts.within


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser with what both scripts take: CONFIG, --set, --aam, --aam-serving, --device, --quiet."""
    made = ArgumentParser(description=description, epilog=EXIT_CODES)
    made.add_argument("config", metavar="CONFIG", type=Path, help="YAML file, such as tridet/thumos_videoMAE.yaml")
    made.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="override one key, as in dataset.feat_folder=features/anonymized; may be repeated",
    )
    made.add_argument("--aam", metavar="CHECKPOINT", type=Path, help="anonymize the features as they are read")
    made.add_argument(
        "--aam-serving",
        choices=("video", "alone"),
        default="video",
        help="the anonymizer sees a video as one sequence (default), or each of its features alone",
    )
    made.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    made.add_argument("--quiet", action="store_true", help="no progress bars, warnings only")
    limits.add_reading(made)
    return made


def start(args: argparse.Namespace) -> tuple[Config, torch.device, Callable[[Tensor], Tensor] | None]:
    """Logging as the flags ask; then the configuration, the device and the anonymizer that they name."""
    logging.basicConfig(
        level=logging.WARNING if args.quiet else logging.INFO, format="%(levelname)s %(name)s: %(message)s", force=True
    )
    limits.apply(args)
    device = pick_device(args.device)
    config = load(args.config, overrides(args.set))
    anonymizer = None
    if args.aam is not None:
        from tridet.anonymize import anonymizing  # needs splavu, which detection alone doesn't

        anonymizer = anonymizing(
            args.aam, feature_dim=config.dataset.input_dim, serving=args.aam_serving, device=device
        )
    return config, device, anonymizer


def overrides(assignments: Sequence[str]) -> dict[str, Any]:
    """`["opt.epochs=3"]` -> `{"opt": {"epochs": 3}}`; values are read as YAML.

    Raises:
        InputError: No '=' in an assignment, a value that is no YAML, or a key below one that has a value.
    """
    nested: dict[str, Any] = {}
    for assignment in assignments:
        key, sign, text = assignment.partition("=")
        if not sign:
            raise InputError(f"--set {assignment}", "has no '='", "write --set section.key=value")
        *sections, name = key.strip().split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise InputError(f"--set {assignment}", f"'{section}' was given a value before", "drop one of the two")
        try:
            place[name] = parse_yaml(text)
        except (yaml.YAMLError, ValueError):
            raise InputError(f"--set {assignment}", "has a value that can't be read", "quote it") from None
    return nested


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`; 'auto' takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        InputError: No such device, or it is absent from this machine.
    """
    try:
        return environment.pick_device(name)
    except UserError as error:
        raise InputError(error.culprit, error.problem, error.remedy) from error


def run(main: Callable[[Sequence[str] | None], int | None]) -> NoReturn:
    """Run a script's `main` on the command line and leave with its exit code."""
    scripts.run(as_user_errors(InputError)(main))

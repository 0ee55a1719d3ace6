"""What the scripts of this repository are called with, where one command calls many: a job is commands that end with a
result in a run folder.

Note: a job is identified by the exact text of its commands. `runner` takes a run folder as finished only if it was made
by the same commands, so a change here makes every job run again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """Commands that end with a result in a run folder."""

    name: str
    """Of the run folder, in the folder of all."""
    commands: tuple[tuple[str, ...], ...]
    """A script of the repository and its arguments; or Python's -m, a module and its arguments."""
    result: str
    """File in that folder."""
    after: tuple[str, ...] = ()
    """Jobs whose checkpoints it reads."""


@dataclass(frozen=True)
class Served:
    """An anonymizer that a job's features pass through."""

    checkpoint: str
    """Its path, or what stands for it in a command before it is made (`job_runs.checkpoint_of`)."""
    made_by: str
    """The job that makes it."""


def waits_for(served: Served | None) -> tuple[str, ...]:
    """What a job has to wait for."""
    return () if served is None else (served.made_by,)


def script_command(
    program: str, params: str, run: Path, run_root: Path, settings: Mapping[str, Any]
) -> tuple[str, ...]:
    """A script with a parameter file, and what is set on top of it.

    Args:
        run: Its run folder.
        run_root: Folder of all runs, that run names are relative to.
    """
    settings = {"run_id": run.relative_to(run_root).as_posix(), **settings}
    return (program, "--params", params, "--quiet", *assignments(settings))


def tridet_job(
    config: str,
    suffix: str,
    runs: Path,
    files: tuple[Path, Path],
    served: Served | None,
    overrides: Mapping[str, Any],
) -> Job:
    """TriDet's training and evaluation.

    Args:
        config: Configuration file, from the repository's folder.
        suffix: Of the run folder's name, after the configuration's.
        runs: Folder of all its runs.
        files: Annotations, folder of features.
        served: None for raw features.
        overrides: Keys of the configuration, dotted.
    """
    name = f"{Path(config).stem}_{suffix}"  # what tridet/train.py calls it
    annotations, features = files
    data = {"output_folder": runs, "dataset.json_file": annotations, "dataset.feat_folder": features}
    options = assignments({**data, **overrides})
    if served is not None:
        options += ("--aam", served.checkpoint, "--aam-serving", "alone")
    train = ("tridet/train.py", config, "--output", suffix, "--quiet", *options)
    test = ("tridet/eval.py", config, str(runs / name), "--quiet", *options)
    return Job(name, (train, test), "results.json", waits_for(served))


def mgfn_job(
    name: str,
    runs: Path,
    files: Sequence[Path],
    served: Served | None,
    *,
    preset: Sequence[str] = (),
    options: Mapping[str, Any],
) -> Job:
    """MGFN's training, which ends with its evaluation.

    Args:
        name: Of the run folder.
        runs: Folder of all its runs.
        files: List of training videos, of test videos, labels of test frames, folder of features.
        served: None for raw features.
        preset: Options before all others, as `@FILE`.
        options: Further ones, with their dashes.
    """
    named = ("--rgb-list", "--test-rgb-list", "--gt", "--features")
    given = {**dict(zip(named, files, strict=True)), "--output": runs, "--model-name": name, **options}
    if served is not None:
        given |= {"--aam": served.checkpoint, "--aam-serving": "alone"}
    command = [str(part) for pair in given.items() for part in pair]
    return Job(name, (("mgfn/main.py", *preset, *command, "--quiet"),), "results.json", waits_for(served))


def assignments(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """`--set KEY=VALUE` for each; text and paths without quotes, other values as a parameter file would say them."""

    def said(value: Any) -> str:
        return str(value) if isinstance(value, (str, Path)) else repr(value)

    return tuple(part for key, value in settings.items() for part in ("--set", f"{key}={said(value)}"))

"""The options of the scripts: names and defaults of the public program, checked before anything is read.

Each name is accepted with '-' and with '_' (`--feature-size`, `--feature_size`). Nothing is parsed at import time, and
nothing is evaluated: a learning rate is a number or the historic `[0.001]*15000`, read by a small grammar. Options
marked "ours" are not in the public program.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mgfn.errors import InputError

logger = logging.getLogger(__name__)

INERT = ("feat-extractor", "modality", "hiddensize", "local-con", "head-K", "num-classes", "plot-freq")
"""Options of the public program that never had an effect; accepted, so that its command lines still work."""


def option(default: Any, help: str, **kwargs: Any) -> Any:
    """A field with its default, its text in --help, and what else argparse is to know."""
    return field(default=default, metadata={"help": help, **kwargs})


@dataclass(frozen=True)
class Options:
    """Everything a run is decided by; recorded in its folder."""

    datasetname: str = option("UCF", "how names tell normal from abnormal", choices=("UCF", "XD", "ST"))
    rgb_list: str | None = option(None, "list of training videos")
    test_rgb_list: str | None = option(None, "list of test videos")
    gt: str | None = option(None, "ground truth: one array in list order, a folder of arrays, or an annotation .txt")
    features: str | None = option(None, "folder of the feature files (ours; a list's own paths are never used)")
    test_features: str | None = option(None, "folder of the test features, if another (ours)")
    feature_size: int | None = option(None, "width of a feature (default: what the files say)", type=int)
    seg_length: int = option(32, "segments a training video is pooled to")
    preprocessed: bool = option(False, "training files are (crops, segments, width + 1) already", action="store_true")
    frames_per_snippet: int = option(16, "frames of the video that one snippet stands for (ours)")
    length_mismatch: str = option(
        "error",
        "ground truth of another length than the predictions: refuse, cut the frames that fill no snippet, or stretch "
        "the predictions (ours)",
        choices=("error", "cut", "stretch"),
    )

    mag_ratio: float = option(0.1, "weight of the magnitude's embedding")
    widths: tuple[int, ...] = option((64, 128, 1024), "widths of the stages (ours)", type=int, nargs=3)
    depths1: int = option(3, "layers of the first stage")
    depths2: int = option(3, "layers of the second stage")
    depths3: int = option(2, "layers of the third stage")
    mgfn_type1: str = option("gb", "block of the first stage: glance or focus", choices=("gb", "fb"))
    mgfn_type2: str = option("fb", "block of the second stage", choices=("gb", "fb"))
    mgfn_type3: str = option("fb", "block of the third stage", choices=("gb", "fb"))
    dropout_rate: float = option(0.7, "share of snippets left out of the magnitude selection")
    pretrained_ckpt: str | None = option(None, "weights to start from; for test.py, weights to test")

    variant: str = option("A", "losses of the authors (A) or of TeD-SPAD (B) (ours)", choices=("A", "B"))
    clustering: str = option("rows", "what is drawn together (ours)", choices=("rows", "videos"))
    lr: str = option("0.001", "learning rate: a number, or one for each epoch as in '[0.001]*50+[0.0001]*50'")
    batch_size: int = option(16, "normal videos a step, and as many abnormal ones")
    max_epoch: int = option(1000, "epochs")
    seed: int = option(0, "of weights, batches and dropout (ours)")
    workers: int = option(0, "threads that read features")

    validation_share: float = option(0.2, "share of the training videos that selects the epoch; 0: the last (ours)")
    list_seed: int = option(0, "draws the validation part (ours)")
    val_freq: int = option(1, "epochs between validations (ours)")
    test_freq: int = option(1, "epochs between looks at the test set, reported but not used; 0: none (ours)")

    model_name: str = option("mgfn", "name of the run")
    comment: str = option("mgfn", "a note that is recorded")
    output: str = option("saved_models", "folder of the runs (ours)")
    aam: str | None = option(None, "anonymizer checkpoint; features pass through it first (ours)")
    aam_serving: str = option(
        "video", "the anonymizer sees a video as one sequence, or each snippet alone (ours)", choices=("video", "alone")
    )
    plots: bool = option(
        False, "draw score, ground truth and key frames of every test video (ours)", action="store_true"
    )
    videos: str | None = option(None, "folder of the test videos, for key frames (ours)")
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps (ours)")
    restart: bool = option(False, "begin anew although the run has a checkpoint (ours)", action="store_true")
    quiet: bool = option(False, "no progress bars, warnings only (ours)", action="store_true")

    def __post_init__(self) -> None:
        for name in ("seg_length", "frames_per_snippet", "batch_size", "max_epoch", "val_freq"):
            if getattr(self, name) < 1:
                raise InputError(_flag(name), f"{getattr(self, name)} is less than 1")
        for name in ("dropout_rate", "validation_share"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(_flag(name), f"{getattr(self, name)} is not in [0, 1)")
        for name in ("workers", "test_freq", "seed", "list_seed"):
            if getattr(self, name) < 0:
                raise InputError(_flag(name), f"{getattr(self, name)} is negative")
        if not re.fullmatch(r"\w[\w./-]*", self.model_name) or ".." in self.model_name:
            raise InputError("--model-name", f"'{self.model_name}' names no folder", "use letters, digits, '_' and '-'")
        if self.preprocessed and self.aam:
            raise InputError("--aam", "pooled features can't be anonymized any more", "leave out --preprocessed")
        if self.videos and not self.plots:
            raise InputError("--videos", "gives key frames to plots, and none are asked for", "add --plots")
        if self.plots and importlib.util.find_spec("matplotlib") is None:
            raise InputError("--plots", "needs Matplotlib, which isn't installed", "pip install matplotlib")
        if 1 < (count := len(learning_rates(self.lr))) < self.max_epoch:
            raise InputError("--lr", f"has {count} rates for {self.max_epoch} epochs", "give one for each epoch")

    def required(self, *names: str) -> None:
        """Refuse a command that lacks one of these options."""
        for name in names:
            if getattr(self, name) is None:
                raise InputError(_flag(name), "is not given, and this script needs it", "see --help")

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0."""
        rates = learning_rates(self.lr)
        return rates[min(epoch, len(rates) - 1)]


Parsed = TypeVar("Parsed", bound=Options)


def learning_rates(text: str) -> list[float]:
    """The rates that `0.001`, `[0.001]*15000` or `[0.001, 0.0005]*2 + [0.0001]` stand for.

    Raises:
        InputError: The text is none of these, or a rate isn't positive.
    """
    wrong = InputError(
        "--lr", f"'{text}' is no learning rate", "give a number, or a list as in '[0.001]*50+[0.0001]*50'"
    )
    rates: list[float] = []
    for term in re.split(r"\+\s*(?=\[)", text) if "[" in text else [f"[{text}]"]:
        match = re.fullmatch(r"\s*\[([^\[\]]+)\]\s*(?:\*\s*(\d+)\s*)?", term)
        if not match:
            raise wrong
        try:
            rates += [float(number) for number in match[1].split(",")] * int(match[2] or 1)
        except ValueError:
            raise wrong from None
    if not rates or not all(0 < rate < float("inf") for rate in rates):
        raise wrong
    return rates


def parse(argv: Sequence[str] | None, *, description: str, kind: type[Parsed] = Options) -> Parsed:
    """Options of a kind from a command line; leaves with code 2 where it can't be read.

    Raises:
        InputError: An option's value is out of range.
    """
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        fromfile_prefix_chars="@",
        epilog="@FILE stands for the words in a file, one a line.",
    )
    for item in dataclasses.fields(kind):
        kwargs = dict(item.metadata)
        if "action" not in kwargs:
            kwargs = {"default": item.default, "type": str if item.default is None else type(item.default), **kwargs}
        parser.add_argument(*_spellings(item.name), dest=item.name, **kwargs)
    parser.add_argument("--gpus", help="historic: the number of a GPU, like --device cuda:NUMBER")
    for name in INERT:
        parser.add_argument(*_spellings(name), dest=name, help="historic, without effect")
    args = vars(parser.parse_args(argv))
    for name in INERT:
        if args.pop(name) is not None:
            logger.warning("--%s has no effect and never had", name)
    gpus = args.pop("gpus")
    if gpus is not None and args["device"] == "auto":
        args["device"] = f"cuda:{gpus}"
    return kind(**{**args, "widths": tuple(args["widths"])})


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _spellings(name: str) -> list[str]:
    """Both ways to write an option, the one in --help first."""
    dashed = _flag(name)
    return list(dict.fromkeys([dashed, "--" + dashed[2:].replace("-", "_")]))

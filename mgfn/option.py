"""The options of the scripts: names and defaults of the public program, with their types and ranges.

A learning rate is a number or the historic `[0.001]*15000`, read by a small grammar; nothing is evaluated. Options
marked "ours" are not in the public program. The command line is read by `mgfn.command_line`.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Interval, Le, Predicate

from mgfn.errors import InputError


def option(default: Any, help: str) -> Any:
    """A field with its default and its text in --help."""
    return field(default=default, metadata={"help": help})


def _is_run_name(text: str) -> bool:
    """a folder name of letters, digits, '_', '-', '.' and '/', of at most 200 characters"""
    return bool(re.fullmatch(r"\w[\w./-]{,199}", text)) and ".." not in text


Count = Annotated[int, Ge(1), Le(2**31 - 1)]
NonNegativeInt = Annotated[int, Ge(0), Le(2**31 - 1)]
Few = Annotated[int, Interval(ge=1, le=1024)]
FewOrNone = Annotated[int, Interval(ge=0, le=1024)]
Share = Annotated[float, Interval(ge=0, lt=1)]
Seed = Annotated[int, Interval(ge=0, lt=2**32)]
Block = Literal["gb", "fb"]


@dataclass(frozen=True)
class Options:
    """Everything that decides a run; recorded in its folder."""

    datasetname: Literal["UCF", "XD", "ST"] = option("UCF", "how names distinguish normal from abnormal")
    rgb_list: str | None = option(None, "list of training videos")
    test_rgb_list: str | None = option(None, "list of test videos")
    gt: str | None = option(None, "ground truth: one array in list order, a folder of arrays, or an annotation .txt")
    features: str | None = option(None, "folder of the feature files (ours; a list's own paths are never used)")
    test_features: str | None = option(None, "folder of the test features, if another (ours)")
    feature_size: Count | None = option(None, "width of a feature (default: what the files say)")
    seg_length: Count = option(32, "segments a training video is pooled to")
    preprocessed: bool = option(False, "training files are (crops, segments, width + 1) already")
    frames_per_snippet: Count = option(16, "frames of the video that one snippet stands for (ours)")
    length_mismatch: Literal["error", "cut", "stretch"] = option(
        "error",
        "ground truth of another length than the predictions: refuse, cut the frames that fill no snippet, or stretch "
        "the predictions (ours)",
    )

    mag_ratio: float = option(0.1, "weight of the magnitude's embedding")
    widths: tuple[Count, Count, Count] = option((64, 128, 1024), "widths of the stages (ours)")
    depths1: Few = option(3, "layers of the first stage")
    depths2: Few = option(3, "layers of the second stage")
    depths3: Few = option(2, "layers of the third stage")
    mgfn_type1: Block = option("gb", "block of the first stage: glance or focus")
    mgfn_type2: Block = option("fb", "block of the second stage")
    mgfn_type3: Block = option("fb", "block of the third stage")
    dropout_rate: Share = option(0.7, "share of snippets left out of the magnitude selection")
    pretrained_ckpt: str | None = option(None, "weights to start from; for test.py, weights to test")

    variant: Literal["A", "B"] = option("A", "losses of the authors (A) or of TeD-SPAD (B) (ours)")
    clustering: Literal["rows", "videos"] = option("rows", "what is drawn together (ours)")
    lr: str = option("0.001", "learning rate: a number, or one for each epoch as in '[0.001]*50+[0.0001]*50'")
    batch_size: Count = option(16, "normal videos a step, and as many abnormal ones")
    max_epoch: Count = option(1000, "epochs")
    seed: Seed = option(0, "of weights, batches and dropout (ours)")
    workers: FewOrNone = option(0, "threads that read features")

    validation_share: Share = option(0.2, "share of the training videos that selects the epoch; 0: the last (ours)")
    list_seed: Seed = option(0, "draws the validation part (ours)")
    val_freq: Count = option(1, "epochs between validations (ours)")
    test_freq: NonNegativeInt = option(1, "epochs between looks at the test set, reported but not used; 0: none (ours)")

    model_name: Annotated[str, Predicate(_is_run_name)] = option("mgfn", "name of the run")
    comment: str = option("mgfn", "a note that is recorded")
    output: str = option("saved_models", "folder of the runs (ours)")
    aam: str | None = option(None, "anonymizer checkpoint; features pass through it first (ours)")
    aam_serving: Literal["video", "alone"] = option(
        "video", "the anonymizer sees a video as one sequence, or each snippet alone (ours)"
    )
    plots: bool = option(False, "draw score, ground truth and key frames of every test video (ours)")
    videos: str | None = option(None, "folder of the test videos, for key frames (ours)")
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps (ours)")
    restart: bool = option(False, "start again although the run has a checkpoint (ours)")
    quiet: bool = option(False, "no progress bars, warnings only (ours)")

    def __post_init__(self) -> None:
        _check_fields(self)
        if self.preprocessed and self.aam:
            raise InputError("--aam", "pooled features can no longer be anonymized", "leave out --preprocessed")
        if self.videos and not self.plots:
            raise InputError("--videos", "gives key frames to plots, and none are asked for", "add --plots")
        if self.plots and importlib.util.find_spec("matplotlib") is None:
            raise InputError("--plots", "needs Matplotlib, which isn't installed", "pip install matplotlib")
        if 1 < (count := len(learning_rates(self.lr))) < self.max_epoch:
            raise InputError("--lr", f"has {count} rates for {self.max_epoch} epochs", "give one for each epoch")

    def required(self, *names: str) -> None:
        """Refuse a command without one of these options."""
        for name in names:
            if getattr(self, name) is None:
                raise InputError(flag(name), "is not given, and this script needs it", "see --help")

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0."""
        rates = learning_rates(self.lr)
        return rates[min(epoch, len(rates) - 1)]


def _check_fields(options: Options) -> None:
    from splavu.errors import UserError  # the scripts need splavu; network, losses, data and scoring don't
    from splavu.runtime.schema import check

    try:
        check(options)
    except UserError as error:
        raise InputError(flag(error.culprit), error.problem, error.remedy) from error


def learning_rates(text: str) -> list[float]:
    """The rates that `0.001`, `[0.001]*15000` or `[0.001, 0.0005]*2 + [0.0001]` stand for.

    Raises:
        InputError: The text is none of these, or a rate isn't positive.
    """
    wrong = InputError(
        "--lr", f"'{text}' is not a learning rate", "give a number, or a list as in '[0.001]*50+[0.0001]*50'"
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


def flag(name: str) -> str:
    """The option of a field, as --help shows it."""
    return "--" + name.replace("_", "-")

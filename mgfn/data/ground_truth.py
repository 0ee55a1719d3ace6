"""Ground truth of test videos: a 0/1 label for each frame, in one of three forms, always separated by video.

- one array of all videos' frames in the order of the test list (`gt-ucf.npy`);
- a folder with an array a video (`NAME.npy`), as ShanghaiTech gives them; a normal video may have none;
- the text annotation of UCF-Crime (`NAME CLASS s e s e`, e included) or XD-Violence (`NAME s e s e ...`, e not).

One concatenated array can't show that it follows another order than the list. What it can show is checked: its length,
and that no frame of a normal video is abnormal.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mgfn.data.lists import Entry, video_name
from mgfn.errors import InputError
from mgfn.frame_scores import ScoredVideo, repeated, stretch_sources

logger = logging.getLogger(__name__)

Mismatch = Literal["error", "cut", "stretch"]
"""What to do when truth and predictions differ in length: refuse; drop truth at a video's end where it fills no whole
snippet; or stretch the predictions."""


class GroundTruth:
    """Frame labels of the test list's videos, and the frame scores that go with them.

    Args:
        path: An array, a folder of arrays, or a text annotation.
        entries: The test videos, in order.
        num_snippets: T of each.
        frames_per_snippet: Frames of the video that a snippet stands for.
        dataset: UCF, XD or ST; how a text annotation is read.
        mismatch: What to do when lengths differ.

    Raises:
        InputError: No such file; lengths differ; a label other than 0 and 1; an abnormal frame in a normal video; an
            abnormal video without ground truth.
    """

    def __init__(
        self,
        path: str | Path,
        entries: Sequence[Entry],
        num_snippets: Sequence[int],
        *,
        frames_per_snippet: int,
        dataset: str,
        mismatch: Mismatch = "error",
    ) -> None:
        path = Path(path)
        self.entries = list(entries)
        self.frames_per_snippet = frames_per_snippet
        lengths = [count * frames_per_snippet for count in num_snippets]
        if not path.is_file() and not path.is_dir():  # a pipe would wait for ever
            raise InputError(path, "there is no such ground truth", "set --gt")
        if path.is_file() and path.suffix != ".txt":
            self._truths, self._sources = _split(path, self.entries, lengths, mismatch)
        else:
            if path.is_dir():
                truths = _from_folder(path, self.entries, lengths)
            else:
                truths = _from_text(path, self.entries, lengths, dataset, slack=2 * frames_per_snippet)
            if mismatch == "cut":
                pairs = zip(truths, lengths, strict=True)
                truths = [t[:length] if len(t) < length + frames_per_snippet else t for t, length in pairs]
            if mismatch != "stretch":
                _require_lengths(path, self.entries, truths, lengths)
            self._truths = truths
            self._sources = [stretch_sources(length, len(t)) for t, length in zip(truths, lengths, strict=True)]
        self._check(path, is_stretched=mismatch == "stretch")

    def _check(self, path: Path, *, is_stretched: bool) -> None:
        for entry, truth in zip(self.entries, self._truths, strict=True):
            if truth.any() and not entry.is_abnormal:
                if is_stretched:
                    logger.warning("%s: %d abnormal frames moved into '%s'", path, int(truth.sum()), entry.name)
                    continue
                raise InputError(
                    path,
                    f"'{entry.name}' is normal by {entry.place} and has {int(truth.sum())} abnormal frames",
                    "is the ground truth in the order of another list?",
                )
        without = [
            entry.name
            for entry, truth in zip(self.entries, self._truths, strict=True)
            if entry.is_abnormal and not truth.any()
        ]
        if without:
            logger.warning(
                "%s: %d abnormal videos have no abnormal frame, the first is %s", path, len(without), without[0]
            )

    def scored(self, snippet_scores: Sequence[NDArray]) -> list[ScoredVideo]:  # V x [T]
        """Each video with a score and a label a frame."""
        return [
            ScoredVideo(
                entry.name, entry.classes, entry.is_abnormal, repeated(s, self.frames_per_snippet)[source], truth
            )
            for entry, s, source, truth in zip(self.entries, snippet_scores, self._sources, self._truths, strict=True)
        ]


def _split(
    path: Path, entries: Sequence[Entry], lengths: Sequence[int], mismatch: Mismatch
) -> tuple[list[NDArray], list[NDArray]]:
    """Each video's part of one array, and for each of its frames the predicted frame whose score it takes."""
    whole = _labels(path)
    ends = np.cumsum(lengths)
    if len(whole) != ends[-1]:
        if mismatch != "stretch":
            # The array alone doesn't say which video is off; where it ends is the nearest there is.
            last = int(np.searchsorted(ends, len(whole), side="right"))
            where = f"it ends within '{entries[last].name}'" if last < len(entries) else "it goes on after the last"
            raise InputError(
                path,
                f"{len(whole)} labelled frames, the snippets of {len(entries)} videos predict {ends[-1]}; {where}",
                "correct --frames-per-snippet, give a folder of arrays, or choose --length-mismatch stretch",
            )
        # All videos as one sequence, as published; labels may move from a video to its neighbour.
        logger.warning("%s: %d predicted frames stretched to %d", path, ends[-1], len(whole))
    sources = stretch_sources(int(ends[-1]), len(whole))
    cuts = np.searchsorted(sources, ends[:-1])
    starts = ends - np.asarray(lengths)
    parts = zip(np.split(sources, cuts), starts, strict=True)
    return np.split(whole, cuts), [part - start for part, start in parts]


def _from_folder(path: Path, entries: Sequence[Entry], lengths: Sequence[int]) -> list[NDArray]:
    truths = []
    for entry, length in zip(entries, lengths, strict=True):
        file = path / f"{entry.name}.npy"
        if not file.is_file() and entry.is_abnormal:
            raise InputError(file, f"there is no ground truth for '{entry.name}' of {entry.place}")
        truths.append(_labels(file) if file.is_file() else np.zeros(length, np.int8))
    return truths


def _from_text(
    path: Path, entries: Sequence[Entry], lengths: Sequence[int], dataset: str, *, slack: int
) -> list[NDArray]:
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n")
    except OSError as error:
        raise InputError(path, f"can't be read ({error.strerror})") from None
    rows: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        if words := line.split():
            if (name := video_name(words[0])) in rows:
                raise InputError(path, f"line {number} is of '{name}' again", "keep one line a video")
            rows[name] = words[1:]
    events_of: Callable[[list[str]], list[tuple[int, int]]] = _xd_events if dataset == "XD" else _ucf_events
    truths = []
    for entry, length in zip(entries, lengths, strict=True):
        truth = np.zeros(length, np.int8)
        if entry.is_abnormal:
            if entry.name not in rows:
                raise InputError(path, f"has no line for '{entry.name}' of {entry.place}")
            try:
                events = events_of(rows[entry.name])
            except ValueError:
                raise InputError(path, f"the line of '{entry.name}' holds no pairs of frame numbers") from None
            for start, end in events:
                if not 0 <= start <= end:
                    problem = f"'{entry.name}' has an event that starts at frame {start} and ends before {end}"
                    raise InputError(path, problem, "correct the line")
                # XD annotates whole films' cuts and is clipped, as published; UCF's numbers fit but for a few frames.
                if start >= length or (dataset != "XD" and end - length >= slack):
                    problem = f"'{entry.name}' has an event at frames {start}..{end - 1}, its snippets cover {length}"
                    raise InputError(path, problem, "correct --frames-per-snippet")
                truth[start:end] = 1
        truths.append(truth)
    return truths


def _ucf_events(words: list[str]) -> list[tuple[int, int]]:
    """`Abuse 165 240 -1 -1`: first and last frame, used as 0-based indices as published; -1 is no event."""
    numbers = [int(word) for word in words[1:]]
    return [(start, end + 1) for start, end in zip(numbers[::2], numbers[1::2], strict=True) if start >= 0]


def _xd_events(words: list[str]) -> list[tuple[int, int]]:
    """`s e s e ...`: the last frame is not of the event."""
    numbers = [int(word) for word in words]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _labels(path: Path) -> NDArray[np.int8]:
    try:
        # Mapped, so that a damaged header that claims terabytes is refused by the file's length.
        labels = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy parses the header as Python and archives as ZIP, and lets their errors through
        raise InputError(path, f"is no NumPy array ({type(error).__name__}: {error})") from None
    if not isinstance(labels, np.ndarray) or labels.ndim != 1 or labels.dtype.kind not in "biuf":
        raise InputError(path, f"holds {_kind(labels)}, expected one row of 0 and 1")
    if not np.isin(labels, (0, 1)).all():
        raise InputError(path, f"shape {labels.shape}, expected one row of 0 and 1")
    return labels.astype(np.int8)


def _kind(loaded: object) -> str:
    if not isinstance(loaded, np.ndarray):
        return "several arrays"
    return f"an array of {loaded.dtype}, shape {loaded.shape}"


def _require_lengths(path: Path, entries: Sequence[Entry], truths: Sequence[NDArray], lengths: Sequence[int]) -> None:
    differing = [row for row in zip(entries, truths, lengths, strict=True) if len(row[1]) != row[2]]
    for entry, truth, length in differing:
        logger.error("%s: '%s' has %d labelled frames, its snippets predict %d", path, entry.name, len(truth), length)
    if differing:
        entry, truth, length = differing[0]
        raise InputError(
            path,
            f"'{entry.name}' has {len(truth)} labelled frames, its snippets predict {length} "
            f"({len(differing)} of {len(entries)} videos differ)",
            "correct --frames-per-snippet or the files, or choose --length-mismatch cut or stretch",
        )

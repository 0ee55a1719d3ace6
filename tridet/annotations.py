"""The annotation file of THUMOS14, or of any data set in its layout: which action happens when in which video.

The file is checked as it is read, so that a fault names its video here and not a tensor's index later.
"""

from __future__ import annotations

import difflib
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tridet.errors import InputError, first_few

logger = logging.getLogger(__name__)

ENDLESS = 1e8
"""Duration, in seconds, of a video whose duration isn't given: nothing is clipped to it."""

MAX_LABEL = 2**31
"""Label ids are below; they become indices."""


@dataclass(frozen=True, eq=False)
class Video:
    """What the annotation file says about a video; N annotations in the file's order."""

    name: str
    subset: str
    """In lower case."""
    fps: float
    duration: float
    """Seconds."""
    segments: NDArray[np.float64]  # [N, 2]
    """Start and end in seconds."""
    labels: NDArray[np.int64]  # [N]

    @property
    def is_outside(self) -> NDArray[np.bool_]:  # [N]
        """Annotations that end after the stated duration, or start before the video does."""
        return (self.segments[:, 1] > self.duration) | (self.segments[:, 0] < 0)


@dataclass(frozen=True)
class Annotations:
    """An annotation file, whole and checked."""

    source: str
    videos: tuple[Video, ...]
    """In the file's order."""
    classes: dict[str, int]
    """Number of each class name, 0 to C - 1, over all videos, whatever their subset."""
    ids: tuple[int, ...]
    """[C] the file's label_id of each class, rising: official ids have gaps, the numbers of classes have none."""

    def of(self, subsets: Sequence[str]) -> tuple[Video, ...]:
        """The videos of some subsets, in the file's order.

        Raises:
            InputError: A subset has no video.
        """
        if not subsets:
            raise InputError(self.source, "no split is asked for", "name one in train_split or val_split")
        wanted, known = [name.lower() for name in subsets], sorted({video.subset for video in self.videos})
        for name in wanted:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                remedy = f"did you mean '{close[0]}'?" if close else f"it has {', '.join(known)}"
                raise InputError(self.source, f"has no video of the split '{name}'", remedy)
        return tuple(video for video in self.videos if video.subset in wanted)


def read_annotations(
    json_file: str | Path | None, *, num_classes: int | None = None, default_fps: float | None = None
) -> Annotations:
    """Read and check an annotation file in the layout of `thumos14.json`.

    Annotations that lie past the stated end of their video (30 of THUMOS14's) are kept and counted in one warning: they
    are part of the published ground truth, and can't be found.

    Args:
        num_classes: What the file must name; None takes what it names.
        default_fps: Replaces every video's own fps.

    Raises:
        InputError: No such file, no JSON, a key missing or there twice, a name that is no file's, no fps, a segment
            that doesn't end after it starts, a class with two ids, two classes with one, another number of classes.
            Names the file and the video.
    """
    if json_file is None:
        raise InputError("dataset.json_file", "is not set", "give the path of thumos14.json")
    content = read_json(json_file, remedy="set dataset.json_file")
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict) or not database:
        raise InputError(json_file, "holds no videos under the key 'database'", "see thumos14.json for the layout")
    classes: dict[str, int] = {}
    videos = tuple(
        _video(record, name, classes, source=f"{json_file}: {name}", default_fps=default_fps)
        for name, record in database.items()
    )
    for name, label in classes.items():
        if twins := [other for other in classes if classes[other] == label and other != name]:
            raise InputError(json_file, f"gives label_id {label} to '{name}' and to '{twins[0]}'", "number them apart")
    if num_classes is not None and len(classes) != num_classes:
        problem = f"names {len(classes)} classes, dataset.num_classes is {num_classes}"
        raise InputError(json_file, problem, f"set dataset.num_classes to {len(classes)}")
    _warn_of_outside(videos, json_file)
    ids = sorted(classes.values())
    return Annotations(
        str(json_file),
        tuple(replace(video, labels=np.searchsorted(ids, video.labels)) for video in videos),
        {name: ids.index(label_id) for name, label_id in classes.items()},
        tuple(ids),
    )


def read_json(path: str | Path, *, remedy: str) -> Any:
    """What a JSON file holds.

    Raises:
        InputError: It isn't there (with `remedy`), is no JSON, or has a key twice in one object, of which readers would
            keep the last.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise InputError(path, f"duplicate key '{key}'", "keep one of the two")
            found[key] = value
        return found

    if Path(path).exists() and not Path(path).is_file():
        raise InputError(path, "is no regular file", remedy)
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"), object_pairs_hook=unique)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(path, "doesn't exist", remedy) from None
    except (OSError, ValueError, RecursionError) as error:  # the latter two: also too long a number, too deep a nest
        raise InputError(path, f"can't be read as JSON ({error})") from error


def _video(
    record: Any, name: str, classes: dict[str, int], *, source: str, default_fps: float | None
) -> Video:  # also enters new class names into `classes`
    if not name or "\0" in name or name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise InputError(source, "is no name of a video", "give the name of its feature file, without '..'")
    if not isinstance(record, dict):
        raise InputError(source, "holds no mapping")
    for key, kind in (("subset", str), ("annotations", list)):
        if not isinstance(record.get(key), kind):
            raise InputError(source, f"has no '{key}', or one that is no {kind.__name__}")
    fps = record.get("fps") if default_fps is None else default_fps
    if not _is_number(fps) or fps <= 0:
        raise InputError(source, f"fps is {fps!r}", "add it, or set dataset.default_fps")
    duration = record.get("duration", ENDLESS)
    if not _is_number(duration) or duration <= 0:
        raise InputError(source, f"duration is {duration!r}", "give seconds, or leave it out")
    segments, labels = [], []
    for number, annotation in enumerate(record["annotations"]):
        place = f"{source}: annotation {number}"
        if not isinstance(annotation, dict) or not {"segment", "label", "label_id"} <= annotation.keys():
            raise InputError(place, "lacks segment, label or label_id")
        segment, label, label_id = annotation["segment"], annotation["label"], annotation["label_id"]
        if not isinstance(segment, list) or len(segment) != 2 or not all(map(_is_number, segment)):
            raise InputError(place, f"segment is {segment!r}", "give [start, end] in seconds")
        if segment[1] <= segment[0]:
            raise InputError(place, f"segment {segment} ends no later than it starts", "correct or remove it")
        if not isinstance(label, str) or type(label_id) is not int or not 0 <= label_id < MAX_LABEL:
            raise InputError(place, f"label {label!r} with label_id {label_id!r}", "give a text and a number from 0")
        if classes.setdefault(label, label_id) != label_id:
            raise InputError(place, f"gives {label!r} the label_id {label_id}, elsewhere it has {classes[label]}")
        segments.append(segment)
        labels.append(label_id)
    return Video(
        name=name,
        subset=record["subset"].lower(),
        fps=float(fps),
        duration=float(duration),
        segments=np.array(segments, dtype=np.float64).reshape(-1, 2),
        labels=np.array(labels, dtype=np.int64),
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # which no NaN is either


def _warn_of_outside(videos: Sequence[Video], source: str | Path) -> None:
    outside = {video.name: int(video.is_outside.sum()) for video in videos if video.is_outside.any()}
    if outside:
        logger.warning(
            "%s: %d annotations of %d videos reach outside their video's stated duration (%s); kept, as published",
            source,
            sum(outside.values()),
            len(outside),
            first_few(list(outside)),
        )

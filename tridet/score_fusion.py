"""Detections relabelled by a classifier of whole videos: where a segment is, the detector says; what it is, the video.

Used for data sets whose videos show one action, such as ActivityNet; off for THUMOS14.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tridet.annotations import read_json
from tridet.average_precision import Segments
from tridet.errors import InputError


def read_video_scores(path: str | Path) -> dict[str, np.ndarray]:
    """Class scores of each video, [C] float64, from JSON: `{video: [score, ...]}`, possibly under the key `results`.

    A pickle is refused, because opening one runs whatever code it holds: convert it to JSON where you trust it.

    Raises:
        InputError: The file is missing, not JSON, or not of that form.
    """
    path = Path(path)
    if path.suffix in (".pkl", ".pickle"):
        raise InputError(path, "a pickle can run code when opened", "convert it to JSON: {video: [score, ...]}")
    table = read_json(path, remedy="check `ext_score_file`")
    table = table.get("results", table) if isinstance(table, dict) else table
    if not isinstance(table, dict) or not table:
        raise InputError(path, "holds no scores", "expected {video: [score, ...]}")
    scores = {}
    for video, row in table.items():
        try:
            scores[video] = np.asarray(row, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(path, f"'{video}' is not a list of numbers", "give a score for each class") from error
    _check(scores, path)
    return scores


def fuse_video_scores(
    predictions: Segments, video_scores: Mapping[object, np.ndarray], *, num_segments: int = 200, num_classes: int = 2
) -> Segments:
    """Give each video's best segments to each of its best classes, with the geometric mean of both scores.

    Args:
        video_scores: Not negative, [C] for each video; position is class.
        num_segments: Detections kept of a video, by descending score.
        num_classes: Classes kept of a video, by descending score.

    Returns:
        Video by video in the order of their first detection; in a video, class by class.

    Raises:
        InputError: A video has no scores, or they are negative, not finite, or not as many as the others'.
    """
    if predictions.score is None:
        raise InputError("predictions", "they have no scores", "give `score`, one number a row")
    _check(video_scores, "video scores")
    rows_of: dict[object, list[int]] = {}
    for row, video in enumerate(predictions.video.tolist()):
        rows_of.setdefault(video, []).append(row)
    missing = [video for video in rows_of if video not in video_scores]
    if missing:
        raise InputError(
            "video scores", f"none for {len(missing)} videos, '{missing[0]}' first", "add them to the file"
        )
    chosen, labels, scores = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    for video, members in rows_of.items():
        rows = np.asarray(members)
        rows = rows[np.argsort(-predictions.score[rows], kind="stable")[:num_segments]]
        for label in np.argsort(-video_scores[video], kind="stable")[:num_classes]:
            chosen.append(rows)
            labels.append(np.full(len(rows), label))
            scores.append(np.sqrt(video_scores[video][label] * predictions.score[rows]))
    rows = np.concatenate(chosen)
    return Segments(predictions.video[rows], predictions.segments[rows], np.concatenate(labels), np.concatenate(scores))


def _check(video_scores: Mapping[object, np.ndarray], source: object) -> None:
    num_classes = {scores.shape for scores in video_scores.values()}
    if len(num_classes) > 1 or any(len(shape) != 1 for shape in num_classes):
        raise InputError(source, f"scores of shapes {sorted(num_classes)}", "give every video one score for each class")
    for video, scores in video_scores.items():
        if not (np.isfinite(scores).all() and (scores >= 0).all()):
            raise InputError(source, f"'{video}' has a negative or undefined score", "give probabilities, not logits")

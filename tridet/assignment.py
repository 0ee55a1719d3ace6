"""What the pyramid makes of a training set: how many points learn a boundary, and which actions teach none.

A grid that is too coarse for a data set shows here, before the training and not in its mAP: actions that lie between
two points are never trained on, a level without positive points is idle. Counts are of whole videos; training sees
windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tridet.schema import Config
from tridet.targets import assign, pyramid_points
from tridet.thumos14 import ThumosDataset


@dataclass(frozen=True)
class AssignmentReport:
    """Counts over a data set; as text, one line for a log."""

    strides: tuple[int, ...]
    """Of each level, in steps of the feature grid."""
    positives: tuple[int, ...]
    """Points of each level that some action claims, in all videos."""
    num_segments: int
    num_unclaimed: int
    """Annotated actions that claim no point: too short for the grid, or outside of their video."""

    def __str__(self) -> str:
        levels = ", ".join(
            f"{count} at stride {stride}" for stride, count in zip(self.strides, self.positives, strict=True)
        )
        return (
            f"{sum(self.positives)} positive points ({levels}); "
            f"{self.num_unclaimed} of {self.num_segments} actions have none"
        )


def assignment_report(dataset: ThumosDataset, config: Config) -> AssignmentReport:
    """Assign every annotation of a data set to the points of `config`'s pyramid; reads no features."""
    strides = config.strides
    radius = config.train_cfg.center_sample_radius if config.train_cfg.center_sample == "radius" else None
    positives, num_segments, num_unclaimed = torch.zeros(len(strides), dtype=torch.int64), 0, 0
    for video, length in zip(dataset.videos, dataset.lengths, strict=True):
        if not len(video.labels):
            continue
        segments = torch.from_numpy(dataset.on_grid(video.segments, video.fps))
        labels = torch.from_numpy(video.labels)
        level_lengths = [-(-length // stride) for stride in strides]
        points = pyramid_points(level_lengths, strides, config.model.regression_range)
        options = {"num_classes": config.dataset.num_classes, "radius": radius}
        together = assign(points, [segments], [labels], lengths=[length], **options)
        level = torch.repeat_interleave(torch.tensor(level_lengths))[together.point[together.first_rows]]
        positives += torch.bincount(level, minlength=len(strides))
        alone = assign(
            points, list(segments[:, None]), list(labels[:, None]), lengths=[length] * len(labels), **options
        )
        num_segments += len(labels)
        num_unclaimed += len(labels) - len(alone.video.unique())
    return AssignmentReport(strides, tuple(positives.tolist()), num_segments, num_unclaimed)

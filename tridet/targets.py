"""Points of the pyramid, and which of them are to find which segment.

Shapes: P points of all levels, fine to coarse; N annotated segments of a batch. All times are steps of the finest
level, also the regression ranges. Everything stays where the annotations are, usually the CPU, so that training on an
accelerator needn't wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

SAME_LENGTH = 1e-3  # segments this close in length to the shortest one at a point lend it their class, too


@dataclass(frozen=True)
class Targets:
    """The positive points of a batch: a row for each class of each, ordered by video, point and class."""

    video: Tensor  # [M] int64
    point: Tensor  # [M] int64, among the P points
    label: Tensor  # [M] int64
    distances: Tensor  # [M, 2] to start and end, in steps of the point's level; the same in all rows of a point
    first_rows: Tensor  # [P+] int64, the first row of each positive point

    @property
    def num_points(self) -> int:
        """Positive points, each counted once."""
        return len(self.first_rows)

    def to(self, device: torch.device) -> Targets:
        """The same, there."""
        return Targets(*(getattr(self, each.name).to(device, non_blocking=True) for each in fields(self)))


def pyramid_points(
    lengths: Sequence[int], strides: Sequence[int], ranges: Sequence[tuple[float, float]]
) -> Tensor:  # [P, 4]
    """A row (time, shortest reach, longest reach, stride) for each step of each level.

    Args:
        lengths, strides, ranges: One a level, fine to coarse. A range bounds the longer of the distances to start and
            end, both bounds included.
    """
    return torch.cat(
        [
            torch.stack(
                [
                    torch.arange(length, dtype=torch.float32) * stride,
                    *(torch.full((length,), float(value)) for value in (*reach, stride)),
                ],
                dim=1,
            )
            for length, stride, reach in zip(lengths, strides, ranges, strict=True)
        ]
    )


def assign(
    points: Tensor,
    segments: Sequence[Tensor],
    labels: Sequence[Tensor],
    *,
    num_classes: int,
    radius: float | None = 1.5,
    lengths: Sequence[int] | None = None,
) -> Targets:
    """Give each point the shortest segment that it lies in and that is of its level's reach.

    Args:
        points: [P, 4], see `pyramid_points`.
        segments: [N_i, 2] float32 for each video; may be empty.
        labels: [N_i] int64 for each video.
        num_classes: Labels are less than this.
        radius: A point counts as inside only this many of its level's steps around the segment's centre; None: any.
        lengths: Steps of each video; points beyond aren't positive. None: the points are all inside.

    Source: section 3.3 of the paper; ties as in the public program.
    """
    num_points, device = len(points), points.device
    segment, label = torch.cat([*segments]), torch.cat([*labels])  # [N, 2], [N]
    video = torch.repeat_interleave(torch.tensor([len(each) for each in labels], device=device))  # [N]
    start, end = segment.unbind(1)
    time, nearest, farthest, stride = (column[:, None] for column in points.unbind(1))  # [P, 1]

    left, right = time - start, end - time  # [P, N]
    if radius is None:
        inside = torch.minimum(left, right) > 0
    else:
        centre = (start + end) / 2
        first = torch.maximum(centre - stride * radius, start)
        last = torch.minimum(centre + stride * radius, end)
        inside = torch.minimum(time - first, last - time) > 0
    reach = torch.maximum(left, right)
    fits = inside & (nearest <= reach) & (reach <= farthest)
    if lengths is not None:
        fits &= time < torch.tensor(lengths, device=device)[video]

    # From here on only the few fitting pairs of a point and a segment; a slot is a point of a video.
    point, index = fits.nonzero(as_tuple=True)
    slot, length = video[index] * num_points + point, (end - start)[index]
    num_slots = len(labels) * num_points
    shortest = length.new_full((num_slots,), torch.inf).scatter_reduce(0, slot, length, "amin")[slot]
    lends = length <= shortest + SAME_LENGTH
    attains = length == shortest
    owner = index.new_full((num_slots,), len(label)).scatter_reduce(0, slot[attains], index[attains], "amin")

    row = torch.unique(slot[lends] * num_classes + label[index[lends]])  # sorted
    slot, row_label = row // num_classes, row % num_classes
    first_rows = (slot.diff(prepend=slot.new_full((1,), -1)) > 0).nonzero().flatten()
    point, owner = slot % num_points, owner[slot]
    distances = torch.stack([left[point, owner], right[point, owner]], dim=1) / stride[point]
    return Targets(slot // num_points, point, row_label, distances, first_rows)

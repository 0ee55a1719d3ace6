"""The training losses: a focal loss on classes, weighted by overlap, and a distance-IoU loss on boundaries.

The one thing to know: the overlap's weight isn't a constant. Its gradient reaches the boundary and offset heads through
the classification loss, as published.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tridet.predictions import Level, distances
from tridet.targets import Targets

ALPHA, GAMMA = 0.25, 2  # of the focal loss
EPSILON = 1e-8  # lower bound of a denominator


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:  # any shape, kept
    """Sigmoid focal loss of each element; targets may lie between 0 and 1 (label smoothing).

    Source: Lin et al., Focal loss for dense object detection, ICCV 2017.
    """
    probability = logits.sigmoid()
    of_target = probability * targets + (1 - probability) * (1 - targets)
    alpha = ALPHA * targets + (1 - ALPHA) * (1 - targets)
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return alpha * (1 - of_target) ** GAMMA * entropy


def interval_iou(predicted: Tensor, target: Tensor) -> Tensor:  # [M, 2], [M, 2] -> [M]
    """Overlap of intervals around a common centre, given as non-negative distances to start and end."""
    intersection = torch.minimum(predicted, target).sum(dim=1)
    union = predicted.sum(dim=1) + target.sum(dim=1) - intersection
    return intersection / union.clamp(min=EPSILON)


def distance_iou_loss(predicted: Tensor, target: Tensor) -> Tensor:  # [M, 2], [M, 2] -> [M]
    """1 - IoU, plus the squared distance of the centres over that of the outer ends.

    Source: Zheng et al., Distance-IoU loss, AAAI 2020, in one dimension.
    """
    hull = torch.maximum(predicted, target).sum(dim=1)
    moved = 0.5 * (predicted[:, 1] - predicted[:, 0] - target[:, 1] + target[:, 0])
    return 1 - interval_iou(predicted, target) + (moved / hull.clamp(min=EPSILON)) ** 2


def iou_weight(iou: Tensor, power: float) -> Tensor:
    """iou ** power, with gradient 0 where a power below 1 has an infinite one, at 0 (defect D8: it became NaN)."""
    if power >= 1:
        return iou**power
    overlaps = iou > 0
    return torch.where(overlaps, torch.where(overlaps, iou, 1.0) ** power, 0.0**power)


def batch_losses(
    levels: Sequence[Level],
    targets: Targets,
    *,
    normaliser: float,
    label_smoothing: float = 0.0,
    iou_power: float = 1.0,
    regression_weight: float = 1.0,
) -> dict[str, Tensor]:
    """`cls_loss`, `reg_loss` and their weighted sum `final_loss`, each [].

    Args:
        targets: Where the levels' tensors are.
        normaliser: Both sums are divided by it.
        regression_weight: 0 or less weighs the two alike.

    Without a positive point `reg_loss` is 0, and still part of the graph.
    """
    logits = torch.cat([level.classes for level in levels], dim=2)  # [B, C, P]
    valid = torch.cat([level.mask for level in levels], dim=2)
    rows = (targets.video, targets.label, targets.point)
    expected = torch.zeros_like(logits).index_put(rows, logits.new_ones(()))
    expected = expected * (1 - label_smoothing) + label_smoothing / (logits.shape[1] + 1)
    classification = focal_loss(logits, expected)

    has_trident = levels[0].starts is not None
    if has_trident:  # every class of a point has its own distances
        wanted = targets.distances
        predicted = distances(levels, targets.video, targets.point, targets.label)
        weight = iou_weight(interval_iou(predicted, wanted), iou_power)
        classification = classification * torch.ones_like(logits).index_put(rows, weight)
    else:
        once = targets.first_rows
        wanted = targets.distances[once]
        predicted = distances(levels, targets.video[once], targets.point[once], targets.label[once])
    cls_loss = (classification * valid).sum() / normaliser
    reg_loss = distance_iou_loss(predicted, wanted).sum() / normaliser
    weight = regression_weight if regression_weight > 0 else cls_loss.detach() / reg_loss.detach().clamp(min=0.01)
    return {"cls_loss": cls_loss, "reg_loss": reg_loss, "final_loss": cls_loss + weight * reg_loss}

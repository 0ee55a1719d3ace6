"""Anonymizers by recipe, 'eraser+encoder+quantizer': parts fitted in closed form before and after one that is trained.

A recipe is [eraser+][transformer|mlp|encoder][+quantizer][+noise], any part left out, always in this order: what is to
be gone goes first, and nothing but noise comes after the budget of bits. Each part is fitted to what the ones before it
release, and then stays as it is: an eraser before the training, a quantizer after it.

What a reader would get wrong: only some of these guarantee anything (`splavu.anonymizers.guarantees`).
Training adds nothing to it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from splavu._version import __version__
from splavu.anonymizers import (
    AffineAnonymizer,
    Anonymizer,
    Chain,
    EncoderAnonymizer,
    GaussianNoise,
    Quantizer,
    apply_to_array,
    closed_form,
)
from splavu.anonymizers.closed_form.codes import evenly_split_bits
from splavu.anonymizers.guarantees import guarantees
from splavu.data.datasets import FeatureDataset
from splavu.errors import UserError, nearest

logger = logging.getLogger(__name__)

ORDER = (("eraser",), ("transformer", "mlp", "encoder"), ("quantizer",), ("noise",))
"""The places of a recipe, and what may stand there."""
PLACE = {part: place for place, parts in enumerate(ORDER) for part in parts}
TRAINED = ORDER[1]
CodeSpace = Literal["actions", "features"]
MOST_CLIPS = 100_000
"""Clips that closed forms are fitted to, evenly taken of more: a hundred for each direction of the widest encoder."""


def parse(recipe: str) -> tuple[str, ...]:
    """The parts of a recipe.

    Raises:
        UserError: A part is unknown, stands twice or out of order, or there are two to be trained.
    """
    parts = tuple(recipe.split("+"))
    for part in parts:
        if part not in PLACE:
            raise UserError("fa_arch", f"'{recipe}' has the part '{part}', which is unknown", nearest(part, PLACE))
    places = [PLACE[part] for part in parts]
    if twice := [parts[i] for i in range(1, len(parts)) if places[i] in places[:i]]:
        together = " and ".join(part for part in parts if PLACE[part] == PLACE[twice[0]])
        raise UserError("fa_arch", f"'{recipe}' has {together}", f"take one {twice[0]}")
    if places != sorted(places):
        ordered = "+".join(sorted(parts, key=PLACE.__getitem__))
        raise UserError("fa_arch", f"'{recipe}' is out of order", f"write '{ordered}'")
    return parts


def trained_part(parts: Sequence[str]) -> str | None:
    """The part that is trained by gradient; None where all are fitted."""
    return next((part for part in parts if part in TRAINED), None)


def spelled(architecture: Mapping[str, Any]) -> str:
    """The recipe of a recorded architecture; fixed affine maps go by who made them."""
    if architecture["arch"] == "chain":
        return "+".join(map(spelled, architecture["stages"])) or "identity"
    return architecture["method"] if architecture["arch"] == "affine" else architecture["arch"]


def trained_stage(anonymizer: Anonymizer) -> Anonymizer:
    """The stage of an anonymizer that training changes; itself where it is no chain."""
    stages = getattr(anonymizer, "stages", [anonymizer])
    return next((stage for stage in stages if stage.architecture["arch"] in TRAINED), anonymizer)


def freeze_before_trained(anonymizer: Anonymizer) -> Anonymizer:
    """Have training leave alone what comes before the trained stage."""
    for stage in getattr(anonymizer, "stages", ()):
        if stage.architecture["arch"] in TRAINED:
            break
        stage.requires_grad_(False)
    return anonymizer


@dataclass(frozen=True)
class Examples:
    """What closed forms are fitted to: clips of training people, [N] each."""

    features: NDArray[np.float32]  # [N, D]
    static: NDArray[np.float32] | None = None  # [N, D], the mean of the video's still pictures
    classes: NDArray | None = None  # [N]
    num_videos: int = 0

    @classmethod
    def of(cls, dataset: FeatureDataset, *, limit: int = MOST_CLIPS) -> Examples:
        """The clips of a data set, at most so many."""
        owners = np.repeat(np.arange(len(dataset)), dataset.clips.num_clips)  # [clips]
        first = np.cumsum(dataset.clips.num_clips) - dataset.clips.num_clips  # [V]
        rows = dataset.clips.start[owners] + np.arange(len(owners)) - first[owners]
        if len(rows) > limit:
            taken = np.linspace(0, len(rows) - 1, limit).round().astype(np.int64)
            logger.info("closed forms are fitted to %d of %d clips", limit, len(rows))
            owners, rows = owners[taken], rows[taken]
        static = None
        if dataset.static is not None:
            videos, place = np.unique(owners, return_inverse=True)
            table = dataset.static
            means = [table.rows[at : at + num].mean(axis=0) for at, num in _spans(table, videos)]
            static = np.stack(means)[place]
        classes = None if dataset.labels is None else dataset.labels[owners]
        return cls(np.asarray(dataset.clips.rows[rows]), static, classes, len(np.unique(owners)))

    @property
    def variance(self) -> float:
        """Of the features, the mean over dimensions."""
        return float(self.features.var(axis=0, dtype=np.float64).mean())

    def after(self, stage: Anonymizer) -> Examples:
        """The same clips and pictures as a stage releases them."""
        static = None if self.static is None else apply_to_array(stage, self.static)
        return replace(self, features=apply_to_array(stage, self.features), static=static)


def cook(
    parts: Sequence[str],
    examples: Examples,
    *,
    trained: Anonymizer | None = None,
    erase_rank: int | None = None,
    bits: int | None = None,
    code_space: CodeSpace = "actions",
    code_dims: int | None = None,
    noise_sd: float | None = None,
    seed: int = 0,
) -> Anonymizer:
    """The anonymizer of a recipe, each part fitted to what the ones before it release.

    Args:
        parts: As `parse` gives them.
        examples: Of training people; with classes for a quantizer, and still pictures too for an eraser.
        trained: The part to be trained, fresh. A bottleneck of it starts at the principal components.
        erase_rank: Directions that the eraser removes.
        bits: The quantizer's budget of a clip.
        code_space: Where it measures distances: 'actions', the directions in which they differ, which keeps them at the
            fewest bits and next to nothing else; 'features', those of largest variance, whatever they tell.
        code_dims: How many; None is actions - 1, or what holds 90 % of the variance.
        noise_sd: In standard deviations of each dimension. The key is drawn at random.
        seed: Of k-means.

    Raises:
        UserError: More directions or centroids than the examples have.
    """
    stages: list[Anonymizer] = []
    for part in parts:
        if part == "eraser":
            made = closed_form.static_eraser(
                examples.features, examples.static, classes=examples.classes, rank=erase_rank
            )  # fmt: skip
            stage: Anonymizer = AffineAnonymizer.of(made.mean, made.encode, made.decode, method="eraser")
        elif part == "quantizer":
            classes = examples.classes if code_space == "actions" else None
            made = closed_form.discriminant_codes(
                examples.features, classes, evenly_split_bits(bits), dims=code_dims, seed=seed
            )
            stage = Quantizer.of(made.mean, made.encode, made.decode, made.codebooks)
        elif part == "noise":
            stage = GaussianNoise.of(closed_form.deviations(examples.features), sd=noise_sd)
        else:
            stage = trained
            if isinstance(stage, EncoderAnonymizer) and stage.narrow is not None:
                start = closed_form.pca(examples.features, keep=stage.architecture["bottleneck"])
                stage.start_bottleneck(
                    *(torch.from_numpy(part).float() for part in (start.mean, start.encode, start.decode))
                )
        stages.append(stage)
        if len(stages) < len(parts):
            examples = examples.after(stage)
    return stages[0] if len(stages) == 1 else Chain(examples.features.shape[1], stages=stages)


def fitting_record(anonymizer: Anonymizer, examples: Examples, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of an anonymizer: what it was fitted to, what it releases and guarantees."""
    record: dict[str, Any] = {
        "method": spelled(anonymizer.architecture),
        "options": {name: value for name, value in options.items() if value is not None},
        "clips": len(examples.features),
        "videos": examples.num_videos,
        "splavu_version": __version__,
        "guarantees": guarantees(anonymizer.architecture),
    }
    before = examples
    for stage in getattr(anonymizer, "stages", [anonymizer]):
        if isinstance(stage, Quantizer):
            used = stage.usage(torch.from_numpy(before.features))
            record["released"] = {
                "bits_at_most": used.budget,
                "bits_on_average": used.entropy,
                "distinct_vectors": used.distinct,
                "centroids_used": list(used.used),
            }
        before = before.after(stage)
    return record


def _spans(table: Any, videos: NDArray) -> list[tuple[int, int]]:
    return list(zip(table.start[videos].tolist(), table.num_clips[videos].tolist(), strict=True))

"""Who wants to be taken out of a release: whether the anonymizer was fitted to them, and what is left of its floor.

A quantizer's centroid that has fewer than the floor of other fitted subjects stands for too few without them: then the
anonymizer has to be fitted again. Else the floor holds for those who stay. What was fitted keeps depending on their
clips all the same (means, directions); only a new fit forgets that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from splavu.anonymizers import Anonymizer, Quantizer, apply_to_array
from splavu.anonymizers.closed_form.support import COMMON_FLOOR, Support, supporters
from splavu.errors import UserError


@dataclass(frozen=True)
class Withdrawal:
    """What it means for an anonymizer that the videos of some subjects are taken out."""

    videos: int
    """Of theirs."""
    fitted_videos: int
    """Of them, those that the anonymizer was fitted to."""
    fitted_subjects: int
    """Others that it was fitted to, who stay."""
    floor: int | None
    """Of its codes; None where it has none."""
    centroids: int
    """Of all codebooks."""
    below: int
    """Of them, those that fewer others than the floor support."""
    fewest: int | None
    """Others behind the centroid that has fewest; None without codes."""

    @property
    def must_fit_again(self) -> bool:
        """Whether the floor is broken for those who stay."""
        return self.below > 0

    def __str__(self) -> str:
        """The verdict, in plain sentences."""
        if not self.fitted_videos:
            return f"the anonymizer was fitted to none of their {self.videos} videos: it needs no new fit"
        found = f"the anonymizer was fitted to {self.fitted_videos} of their {self.videos} videos"
        keeps = "what it has learned of them goes with a new fit only"
        if self.floor is None:
            return f"{found}; it has no codes, so no floor is broken; {keeps}"
        if self.must_fit_again:
            few = f"without them {self.below} of {self.centroids} centroids stand for fewer than {self.floor} subjects"
            return f"{found}, and {few} (fewest {self.fewest}): fit it again to the {self.fitted_subjects} others"
        left = f"without them each of {self.centroids} centroids still stands for at least {self.fewest} subjects"
        return f"{found}; {left} (floor {self.floor}): the floor needs no new fit; {keeps}"


def withdrawal(
    anonymizer: Anonymizer,
    features: Mapping[str, NDArray[np.float32]],
    subjects: Mapping[str, str],
    withdrawn: Collection[str],
) -> Withdrawal:
    """What it means that `withdrawn` are taken out.

    Args:
        anonymizer: With the record of what it was fitted to.
        features: Key -> raw [K, D], of all that it was fitted to at least.
        subjects: Key -> who is in it.
        withdrawn: Subjects.

    Raises:
        UserError: The anonymizer doesn't say what it was fitted to; some of it is not among `features`, or of unknown
            subjects; a subject has no video.
    """
    fitted_to = anonymizer.fitted_to
    if fitted_to is None or not len(fitted_to.hashes):
        raise UserError(
            "anonymizer", "doesn't say which clips it was fitted to", "give the checkpoint that `fit` wrote"
        )
    if absent := sorted(set(withdrawn) - set(subjects.values())):
        raise UserError("subjects", f"'{absent[0]}' is in none of the videos", "check the name")
    rows, owners, fitted_keys = [], [], set()
    for key, of_key in features.items():
        held = fitted_to.holds(of_key)
        if held.any():
            if key not in subjects:
                raise UserError("subjects", f"nobody is known in '{key}', which was fitted to", "add its row")
            fitted_keys.add(key)
            rows.append(of_key[held])
            owners += [subjects[key]] * int(held.sum())
    theirs = {key for key in features if subjects.get(key) in withdrawn}
    fitted, there = np.concatenate(rows) if rows else np.zeros((0, 1), np.float32), np.array(owners)
    if len(np.unique(fitted_to.hashes)) > len(fitted):
        problem = f"hold {len(fitted)} of the {len(fitted_to.hashes)} clips that the anonymizer was fitted to"
        raise UserError("--raw", problem, "give all the stores that it was fitted to")
    stays = ~np.isin(there, list(withdrawn))
    _, number = np.unique(there, return_inverse=True)
    number = np.where(stays, number, -1).astype(np.int64)
    counts: list[NDArray[np.int64]] = []
    floor: int | None = None
    for stage in getattr(anonymizer, "parts", [anonymizer]):
        if isinstance(stage, Quantizer):
            chosen = stage.codes(torch.from_numpy(fitted)).numpy()
            counts += [supporters(c, number, len(book)) for c, book in zip(chosen.T, stage.codebooks, strict=True)]
            record = stage.architecture.get("support")
            floor = max(floor or 0, Support.of(record).at_least if record else COMMON_FLOOR)
        fitted = apply_to_array(stage, fitted)
    every = np.concatenate(counts) if counts else np.zeros(0, np.int64)
    return Withdrawal(
        videos=len(theirs),
        fitted_videos=len(theirs & fitted_keys),
        fitted_subjects=len(np.unique(there[stays])),
        floor=floor,
        centroids=len(every),
        below=0 if floor is None else int((every < floor).sum()),
        fewest=int(every.min()) if len(every) else None,
    )

"""What so much data allows: who is fitted to and who is tested on, how many directions are erased, how many bits kept.

The recipe is that of `params/params_robust.py`: an eraser fitted to static clips, then a quantizer. For the codes of a
few hundred clips the floor is stricter here: each *released vector* stands for at least `min_subjects` of the subjects
that it was fitted to, not only each centroid of each codebook.

Smallest sizes, with a floor of k subjects: 2 k subjects to fit to, which is one bit, and 2 who are not fitted to. More
bits, B, take 2 x 2^B x k clips of subjects who are fitted to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from splavu.anonymizers.closed_form.codes import MOST_WHOLE_BITS, most_supported
from splavu.anonymizers.closed_form.support import COMMON_FLOOR
from splavu.attacks.crossfit import deal
from splavu.attacks.rows import Rows
from splavu.errors import UserError
from splavu.protect.inventory import Inventory

FEWEST_OTHERS = 2
"""Subjects who are not fitted to."""
FOLDS, TEST_FOLDS = 5, (0, 1)
"""Subjects are dealt into so many parts, of which these are tested on: two fifths."""
SLACK = 2
"""Clips don't spread evenly over vectors: on average each has so many times the subjects that it needs. One bit can
always be split evenly (`codes.halves_of_owners`)."""
MOST_RANK = 32
MOST_BITS = 12
"""Chosen by default; more may be asked for, as far as there are subjects for them."""
RANK_SHARE = 6
"""At most one direction in six is erased."""


def fewest_subjects(at_least: int) -> int:
    """Subjects without whom nothing is begun."""
    return 2 * at_least + FEWEST_OTHERS


@dataclass(frozen=True)
class Recipe:
    """What is fitted."""

    rank: int | None
    """Directions that the eraser removes; None without static clips: nothing is erased then."""
    bits: int
    """Of the quantizer at most."""
    most_bits: int
    """That the data allows."""
    min_subjects: int
    unit: str
    """What is counted: 'subject' or 'video'."""
    with_actions: bool
    fitted_subjects: int
    fitted_videos: int
    fitted_clips: int
    other_subjects: int

    @property
    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    def __str__(self) -> str:
        """In plain sentences."""
        sizes = f"{self.fitted_clips} clips of {self.fitted_subjects} {self.unit}s ({self.fitted_videos} videos)"
        erased = f"eraser of rank {self.rank}, then codes" if self.rank else "codes alone (no static clips)"
        kept = "for the actions" if self.with_actions else "for what varies most (no actions given)"
        vectors = f"at most {2**self.bits} vectors, each released for clips of at least {self.min_subjects}"
        return (
            f"{erased} of at most {self.bits} bits a clip {kept}: {vectors} of the {self.unit}s fitted to; fitted to "
            f"{sizes}; {self.other_subjects} other {self.unit}s are not fitted to"
        )


def refuse_too_few(inventory: Inventory, source: object, at_least: int) -> None:
    """Refuse fewer subjects than any recipe takes.

    Raises:
        UserError: Which names the number that would do.
    """
    if at_least < COMMON_FLOOR:
        problem = f"is {at_least}; clips that were fitted to are released too, which takes at least {COMMON_FLOOR}"
        raise UserError("--min-subjects", problem, f"give {COMMON_FLOOR} or more")
    found, needed = len(inventory.owners()), fewest_subjects(at_least)
    if found < needed:
        who = f"{found} subjects" if inventory.subjects else "unknown subjects, each counted as one"
        sides = f"{2 * at_least} to fit to (two codes, each for {at_least} of them) and {FEWEST_OTHERS} others"
        problem = f"holds {len(inventory.num_clips)} videos of {who}; {needed} subjects are needed, {sides}"
        raise UserError(source, problem, f"add videos of {needed - found} more subjects")


def dealt(
    inventory: Inventory, at_least: int, *, private: Mapping[str, np.ndarray] | None = None, before: Mapping[str, str]
) -> dict[str, str]:
    """Key -> split: as the tables say, as it was dealt before, or dealt by subject.

    Two fifths of the subjects are tested on, or fewer where the floor needs them. All parts get alike shares of every
    action and private attribute. Subjects that come later are not fitted to, so they are tested on.

    Args:
        inventory: Its splits come first.
        at_least: The floor.
        private: Key -> [A] of 0, 1 and NaN.
        before: Key -> split of an earlier run.

    Raises:
        UserError: A subject is on two sides.
    """
    keys = list(inventory.num_clips)
    side: dict[str, str] = {}
    for key, split in inventory.splits.items():
        if side.setdefault(inventory.owner(key), split) != split:
            problem = f"'{inventory.owner(key)}' is in {side[inventory.owner(key)]} and in {split}"
            raise UserError("subjects", problem, "give each subject one split")
    for key, split in before.items():
        side.setdefault(inventory.owner(key), split)
    if not side:
        side = _dealt_by_labels(inventory, keys, private or {})
        fitted, others = ([one for one in side if side[one] == name] for name in ("train", "test"))
        needed = min(2 * at_least - len(fitted), len(others) - FEWEST_OTHERS)
        side |= dict.fromkeys(sorted(others)[: max(0, needed)], "train")
    return {key: side.get(inventory.owner(key), "test") for key in keys}


def _dealt_by_labels(inventory: Inventory, keys: list[str], private: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Owner -> 'train' or 'test'."""
    names = sorted(set(inventory.actions.values()))
    done = np.array([[float(inventory.actions.get(key) == name) for name in names] for key in keys])
    done = done.reshape(len(keys), len(names))
    width = len(next(iter(private.values()), ()))
    known = np.stack([np.asarray(private.get(key, np.full(width, np.nan)), float) for key in keys])
    owners = np.array([inventory.owner(key) for key in keys])
    rows = Rows(np.zeros((len(keys), 1), np.float32), np.hstack([done, known]), owners, np.array(keys))
    fold = deal(rows, num_folds=FOLDS)
    return {owner: "test" if part in TEST_FOLDS else "train" for owner, part in zip(owners.tolist(), fold, strict=True)}


def choose(
    inventory: Inventory,
    splits: Mapping[str, str],
    source: object,
    *,
    at_least: int,
    width: int,
    has_static: bool,
    bits: int | None = None,
    rank: int | None = None,
) -> Recipe:
    """The recipe for these videos.

    Args:
        inventory: What there is.
        splits: Key -> split, of all.
        source: Whom to blame.
        at_least: The floor.
        width: D.
        has_static: Whether there are static clips.
        bits: Asked for; None takes what the data allows, `MOST_BITS` at most.
        rank: Asked for; None takes `MOST_RANK`, less where D or the videos are few.

    Raises:
        UserError: So few subjects are trained on that no recipe is honest, or too few for the bits or the rank that
            were asked for; the number that would do is named.
    """
    train = [key for key, split in splits.items() if split == "train"]
    others = inventory.owners(set(splits) - set(train))
    fitted = [key for key in train if not inventory.actions or key in inventory.actions]
    owners, unit = inventory.owners(fitted), inventory.unit
    labelled = " and an action" if inventory.actions else ""
    if len(owners) < 2 * at_least:
        problem = (
            f"has {len(owners)} {unit}s to fit to (split 'train'{labelled}), and two codes of {at_least} take more"
        )
        raise UserError(source, problem, f"{2 * at_least} {unit}s would do, {2 * at_least - len(owners)} more")
    clips = inventory.clips_of_owner(fitted)
    allowed = max(1, int(math.log2(max(1, most_supported(clips, SLACK * at_least)))))
    if bits is not None and bits > min(allowed, MOST_WHOLE_BITS):
        if bits > MOST_WHOLE_BITS:
            raise UserError("--bits", f"is {bits}, {MOST_WHOLE_BITS} at most", "fit a quantizer yourself for more")
        problem = f"is {bits}: {2**bits} vectors would stand for fewer than {at_least} {unit}s each"
        found = f"{clips.sum()} clips of {len(owners)} {unit}s to fit to allow {allowed}"
        remedy = f"{found}; {SLACK * 2**bits * at_least} clips evenly of all would do"
        raise UserError("--bits", problem, remedy)
    kinds = {inventory.actions.get(key) for key in fitted}
    directions = len(fitted) - len(kinds)  # in which static clips of so many videos differ beside the action
    most_rank = min(MOST_RANK, width // RANK_SHARE, directions // 2)
    if has_static and rank is not None and rank > directions:
        problem = f"is {rank}, and {len(fitted)} videos to fit to differ in {directions} directions at most"
        raise UserError("--rank", problem, f"{max(1, most_rank)} would do")
    return Recipe(
        rank=None if not has_static else max(1, most_rank) if rank is None else rank,
        bits=min(allowed, MOST_BITS) if bits is None else bits,
        most_bits=allowed,
        min_subjects=at_least,
        unit=unit,
        with_actions=len(kinds) > 1,
        fitted_subjects=len(owners),
        fitted_videos=len(fitted),
        fitted_clips=int(clips.sum()),
        other_subjects=len(others),
    )

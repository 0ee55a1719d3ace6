"""What a release costs in use: the same new head on raw and on released features, on the same test subjects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splavu.attacks.rows import AttackData, Rows, hold_out
from splavu.errors import UserError
from splavu.metrics.estimates import Estimate, estimated
from splavu.tuning import linear_probes

NUM_RESAMPLES = 1000
FEWEST_SUBJECTS = 2
"""To train on, and as many to test on."""


@dataclass(frozen=True)
class UseOfRelease:
    """Top-1 of actions, shares of 1, with 95 % intervals over test subjects."""

    raw: Estimate
    released: Estimate
    lost: Estimate
    """raw less released, on the same draws of subjects; negative where the release does better."""
    actions: int
    train_subjects: int
    test_subjects: int
    test_videos: int

    @property
    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def use_of_release(
    raw: Mapping[str, NDArray[np.float32]],
    released: Mapping[str, NDArray[np.float32]],
    actions: Mapping[str, str],
    subjects: Mapping[str, str],
    splits: Mapping[str, str],
    *,
    num_resamples: int = NUM_RESAMPLES,
) -> UseOfRelease:
    """Train linear heads on the training subjects' videos, and test them on the test subjects'.

    Args:
        raw: Key -> [K, D].
        released: The same keys, as released.
        actions: Key -> action; videos without one are left out.
        subjects: Key -> who is in it.
        splits: Key -> 'train', 'val' (trained on too) or 'test'.
        num_resamples: Draws of test subjects.

    Raises:
        UserError: Too few subjects with an action to train on or to test on, or only one action.
    """
    keys = [key for key in raw if key in actions and key in splits]
    numbers = {name: number for number, name in enumerate(sorted({actions[key] for key in keys}))}
    if len(numbers) < 2:
        raise UserError("actions", f"are {len(numbers)} in the videos of known split", "label videos of two at least")

    def rows(features: Mapping[str, NDArray[np.float32]], is_test: bool) -> Rows:
        kept = [key for key in keys if (splits[key] == "test") == is_test]
        owners = [key for key in kept for _ in features[key]]
        if (count := len({subjects[key] for key in kept})) < FEWEST_SUBJECTS:
            side = "test" if is_test else "train"
            problem = f"are known of {count} subjects of the split '{side}'"
            raise UserError("actions", problem, f"label videos of {FEWEST_SUBJECTS} subjects at least")
        return Rows(
            np.concatenate([features[key] for key in kept]),
            np.zeros((len(owners), 0), np.float32),
            np.array([subjects[key] for key in owners]),
            np.array(owners),
        )

    classes = {key: numbers[actions[key]] for key in keys}
    scores = {}
    for name, features in (("raw", raw), ("released", released)):
        learn, tune = hold_out(rows(features, False))
        data = AttackData(learn, tune, rows(features, True))
        scores[name] = linear_probes.actions(data, classes, num_resamples)
    before, after = scores["raw"], scores["released"]
    tested = [key for key in keys if splits[key] == "test"]
    return UseOfRelease(
        raw=estimated(before.value, before.drawn, chance=before.chance),
        released=estimated(after.value, after.drawn, chance=after.chance),
        lost=estimated(before.value - after.value, before.drawn - after.drawn, chance=before.value - before.chance),
        actions=len(numbers),
        train_subjects=len({subjects[key] for key in keys if splits[key] != "test"}),
        test_subjects=len({subjects[key] for key in tested}),
        test_videos=len(tested),
    )

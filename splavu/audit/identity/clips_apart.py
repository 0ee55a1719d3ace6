"""Linking where each subject has one video: clip to clip, since no other video of the same subject is there.

Note: clips of one video share the place, the light and the clothes, and if they overlap in time even the frames. So
this finds more than linking videos would, and says so.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np

from splavu.attacks.gates import LUCK, Power
from splavu.attacks.rows import AttackData, Rows

CAVEAT = (
    "no group of subjects has two videos of one subject: clips are linked with other clips of the same video, and may "
    "be by what they share beside the subject, such as the background, or frames where clips overlap"
)


def one_video_each(data: AttackData) -> bool:
    """Whether some group of subjects, train, validation or test, has no subject with two videos."""
    for rows in data.splits.values():
        pairs = np.unique(np.stack([rows.clusters.astype(str), rows.videos.astype(str)]), axis=1)
        if pairs.shape[1] == len(np.unique(pairs[0])):
            return True
    return False


def linking_power(data: AttackData) -> Power:
    """What test subjects can decide on linking: subjects with two videos (or clips) are exchanged in couples.

    Of g subjects there are (g - 1)!! ways to make couples, times g where one is left over (`pair_scores`).
    """
    rows = (clips_apart(data) if one_video_each(data) else data).test
    pairs = np.unique(np.stack([rows.clusters.astype(str), rows.videos.astype(str)]), axis=1)
    linked = int(np.sum(np.unique(pairs[0], return_counts=True)[1] > 1))

    def least_p(subjects: int) -> float:
        ways = math.prod(range(1, subjects, 2)) if subjects % 2 == 0 else math.prod(range(1, subjects + 1, 2))
        return 1 / (1 + ways) if subjects > 1 else 1.0

    needed = next(subjects for subjects in itertools.count(2) if least_p(subjects) <= LUCK)
    return Power(linked, least_p(linked), 0.0, needed)


def clips_apart(data: AttackData) -> AttackData:
    """The same rows, each under a name of its own in place of its video's, so that only the very same clip doesn't
    meet itself."""
    return AttackData(**{name: _apart(rows) for name, rows in data.splits.items()})


def _apart(rows: Rows) -> Rows:
    width = len(str(len(rows)))
    names = [f"{video}#{row:0{width}d}" for row, video in enumerate(rows.videos.tolist())]
    return dataclasses.replace(rows, videos=np.array(names))

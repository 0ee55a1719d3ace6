"""Linking where each subject has one video: clip to clip, since no other video of the same subject is there.

Note: clips of one video share the place, the light and the clothes, and if they overlap in time even the frames. So
this finds more than linking videos would, and says so.
"""

from __future__ import annotations

import dataclasses

import numpy as np

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


def clips_apart(data: AttackData) -> AttackData:
    """The same rows, each under a name of its own in place of its video's, so that only the very same clip doesn't
    meet itself."""
    return AttackData(**{name: _apart(rows) for name, rows in data.splits.items()})


def _apart(rows: Rows) -> Rows:
    width = len(str(len(rows)))
    names = [f"{video}#{row:0{width}d}" for row, video in enumerate(rows.videos.tolist())]
    return dataclasses.replace(rows, videos=np.array(names))

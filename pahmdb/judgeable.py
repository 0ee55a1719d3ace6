"""What attackers are evaluated on: the annotated clips, with the attributes that enough films show.

Attackers are trained on other films or on VISPR's images.

Note: average precision is defined for an attribute that two films show, and means nothing. It would also be missing in
the draws without both films, and so change the mean over attributes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pahmdb.dl_pahmdb import PaHmdb51
from splavu.attacks.rows import Rows, hold_out
from splavu.errors import UserError
from study.datasets.loading import privacy_rows


@dataclass(frozen=True)
class Judgeable:
    """The annotated clips with the attributes that can be judged on them, and where else attackers may learn those."""

    rows: Rows
    attributes: tuple[str, ...]
    too_rare: tuple[str, ...]
    """Attributes left out."""
    elsewhere: tuple[Rows, ...] = ()
    """To learn from, and to be tuned on; empty where attackers learn from the other films."""


def judgeable(rows: Rows, names: Sequence[str], num_films: int) -> Judgeable:
    """Without the attributes that fewer than `num_films` films show, or fewer don't.

    A rarer one lacks a film to learn from, to be tuned on or to be tested on; and draws of films without any of it
    would take the mean over other attributes.

    Raises:
        UserError: No attribute is left.
    """
    shown = (rows.labels > 0, rows.labels <= 0)  # [N, A] each, neither where unknown
    counts = [[len(np.unique(rows.clusters[column])) for column in held.T] for held in shown]
    kept = np.flatnonzero(np.min(counts, axis=0) >= num_films)
    if not len(kept):
        problem = f"no attribute is shown by {num_films} films and not shown by {num_films} others"
        raise UserError("labels", problem, "annotate more films, or lower folds (--set folds=3)")
    too_rare = tuple(name for a, name in enumerate(names) if a not in kept)
    return Judgeable(replace(rows, labels=rows.labels[:, kept]), tuple(names[a] for a in kept), too_rare)


def beside_vispr(
    clips: Judgeable, *, encoder: str, data_root: str | None, val_share: float, max_rows: int, seed: int
) -> Judgeable:
    """The clips, of whose attributes attackers learn from VISPR's training images.

    Args:
        clips: Their attributes are among VISPR's.
        encoder: As `ft_arch` in params.
        data_root: Another root than config.DATA.
        val_share: Share of the images that attackers are tuned on.
        max_rows: Views of images to learn from, drawn at random if there are more; a quarter of it to be tuned on.
        seed: Of both draws.
    """
    images, names = privacy_rows("vispr", "train", "static", encoder=encoder, data_root=data_root)
    images = replace(images, labels=images.labels[:, [names.index(name) for name in clips.attributes]])
    learn, tune = hold_out(images, share=val_share, seed=seed)
    return replace(clips, elsewhere=(_thinned(learn, max_rows, seed), _thinned(tune, max(1, max_rows // 4), seed)))


def digest(data: PaHmdb51, *judged_on: Judgeable | None) -> str:
    """SHA-256 of everything the evaluation reads."""
    found = hashlib.sha256()
    for rows in (rows for known in judged_on if known for rows in (known.rows, *known.elsewhere)):
        for array in (rows.features, rows.labels):
            found.update(f"{array.shape}".encode())
            found.update(np.ascontiguousarray(array).tobytes())
        found.update("\n".join([*map(str, rows.clusters), *map(str, rows.videos)]).encode())
    for video in data.others:
        found.update(f"{video} {data.actions[video]}".encode())
        found.update(data.features[video].tobytes())
    found.update(" ".join(str(data.actions[video]) for video in data.annotated).encode())
    return found.hexdigest()


def _thinned(rows: Rows, count: int, seed: int) -> Rows:
    """At most `count` rows, drawn at random."""
    return rows.take(np.sort(np.random.default_rng(seed).permutation(len(rows))[:count]))

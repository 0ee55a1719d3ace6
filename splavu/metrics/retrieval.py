"""Who is it? Each probe ranks a gallery of known people: rank-1 and average precision, nothing is trained.

Note: by the usual rule of gait recognition a probe is not compared with the gallery's walks of its own view, which
would be the easy ones; pass the views to apply it. Means by walk and view: `fairness.group_means`.

Shapes: `P` probes, `N` gallery features, `D` feature width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from splavu.metrics import ranking
from splavu.metrics.row_labels import RowLabels

BLOCK = 256  # probes whose similarities are held at once


@dataclass(frozen=True)
class Retrieval:
    """How well each probe's person was found; NaN for a probe whose person is not in the gallery it meets."""

    rank1: np.ndarray
    """[P] 1 if the most similar gallery feature is of the same person; of several equally similar ones, their share."""
    average_precision: np.ndarray
    """[P] of the gallery ranked by similarity."""
    nearest: np.ndarray
    """[P] row of the most similar gallery feature, the first of several; -1 where a probe meets none."""


def retrieve(
    probes: np.ndarray,
    gallery: np.ndarray,
    *,
    probe_people: RowLabels,
    gallery_people: RowLabels,
    probe_views: RowLabels | None = None,
    gallery_views: RowLabels | None = None,
) -> Retrieval:  # [P, D], [N, D]
    """Rank the gallery by cosine similarity for each probe.

    Args:
        probes: One feature a video; raw or anonymized, like the gallery or unlike it.
        gallery: The same of known people.
        probe_people: Person of each probe.
        gallery_people: Person of each gallery feature.
        probe_views: View of each probe, to leave out the gallery of the same view; None meets the whole gallery.
        gallery_views: View of each gallery feature.

    A feature of zeros is as similar to one as to another. Cost: P x N x D products and P sorts of N.
    """
    probe_person, gallery_person = np.asarray(probe_people), np.asarray(gallery_people)
    views = None if probe_views is None else (np.asarray(probe_views), np.asarray(gallery_views))
    probes, gallery = _normalised(probes), _normalised(gallery)
    rank1, precision = np.full(len(probes), np.nan), np.full(len(probes), np.nan)
    nearest = np.full(len(probes), -1)
    for start in range(0, len(probes), BLOCK):
        # Rounded, so that equal features tie in whatever order a product was summed.
        similarities = np.round(probes[start : start + BLOCK] @ gallery.T, 12)
        for p, similarity in enumerate(similarities, start):
            met = np.arange(len(gallery)) if views is None else np.flatnonzero(views[1] != views[0][p])
            same, similarity = gallery_person[met] == probe_person[p], similarity[met]
            if len(met):
                nearest[p] = met[np.argmax(similarity)]
            if same.any():
                rank1[p] = same[similarity == similarity.max()].mean()
                precision[p] = 1.0 if same.all() else ranking.average_precision(same, similarity)
    return Retrieval(rank1, precision, nearest)


def _normalised(features: np.ndarray) -> np.ndarray:  # [N, D] -> [N, D]
    features = np.asarray(features, dtype=np.float64)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length > 0, length, 1.0)

"""How well walkers are recognised by their features, by walk, view and overall, beside a random ranking.

Note: intervals draw the subjects of the probes and keep the gallery, so they don't separate recognition from luck:
among few subjects some resemble each other in all videos. For that the subjects of the gallery swap names (`swapped`):
what exceeds the result of such swaps is recognition.

Shapes: `V` videos, `P` probes, `N` gallery videos, `D` feature width, `R` resamples. Shares go from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from splavu import metrics
from splavu.attacks.rows import json_values
from splavu.data.splits import CasiaName, casia_name, casia_split
from splavu.errors import UserError
from splavu.metrics import fairness
from splavu.metrics.retrieval import Retrieval, retrieve

COMPARISONS: Mapping[str, tuple[str, str]] = {
    "raw": ("raw", "raw"),
    "anonymized": ("anonymized", "anonymized"),
    "anonymized_vs_raw": ("anonymized", "raw"),
}
"""Name -> features of the probes and of the gallery; the last one is an attacker who kept old features."""


@dataclass(frozen=True)
class Walkers:
    """Videos of one side: who walks how, seen from where."""

    rows: np.ndarray
    """[V] places among all videos."""
    subjects: np.ndarray
    walks: np.ndarray
    """'nm', 'bg' or 'cl'."""
    views: np.ndarray
    """Degrees."""

    @classmethod
    def of(cls, keys: Sequence[str], chosen: Sequence[str], said: Mapping[str, CasiaName] | None = None) -> Walkers:
        place = {key: row for row, key in enumerate(keys)}
        parts: list[CasiaName] = [casia_name(key) if said is None else said[key] for key in chosen]
        return cls(
            np.array([place[key] for key in chosen], dtype=np.intp),
            np.array([part.subject for part in parts]),
            np.array([part.walk for part in parts]),
            np.array([part.view for part in parts]),
        )


def recognise(
    keys: Sequence[str],
    features: Mapping[str, np.ndarray],
    *,
    num_resamples: int = 1000,
    seed: int = 0,
    said: Mapping[str, CasiaName] | None = None,
) -> dict[str, Any]:  # name -> [V, D]
    """Rank-1 and mean average precision of every comparison that the features allow.

    Args:
        keys: Casia-B names of the videos.
        features: 'raw' and perhaps 'anonymized': one feature a video.
        num_resamples: Draws of the probes' subjects, and swaps of the gallery's names.
        seed: Of both.
        said: What the names of the videos say, where they are hashes (`splavu.data.name_tables`).

    Returns:
        Plain values: counts; `chance`, the rank-1 of a random ranking; `comparisons` name -> overall (the mean over
        probes), by_walk, by_view, each `{"rank1", "map"}` of `{"value", "interval"}`, and swapped; `change` of the
        overall figures from 'raw' to each other comparison, on the same resamples.

    Raises:
        UserError: A name is none of Casia-B's, there is no probe, or a probe's person is not in the gallery it meets.
    """
    split = casia_split(keys, said)
    probes, gallery = (Walkers.of(keys, chosen, said) for chosen in (split.probe, split.gallery))
    chance = shares_met(probes, gallery)
    if unmet := [key for key, share in zip(split.probe, chance, strict=True) if not share > 0]:
        raise UserError(
            unmet[0],
            f"meets no gallery walk of its person in another view ({len(unmet)} of {len(split.probe)} probes do)",
            "extract the normal walks 01 to 04",
        )
    if not split.probe:
        raise UserError("casia_b", f"has no probe among {len(keys)} videos", "extract all walks")
    resamples = metrics.cluster_resamples(probes.subjects, num_resamples=num_resamples, seed=seed)
    comparisons, overall = {}, {}
    for name, (of_probes, of_gallery) in COMPARISONS.items():
        if {of_probes, of_gallery} <= set(features):
            found = retrieve(
                features[of_probes][probes.rows],
                features[of_gallery][gallery.rows],
                probe_people=probes.subjects,
                gallery_people=gallery.subjects,
                probe_views=probes.views,
                gallery_views=gallery.views,
            )
            overall[name] = found
            comparisons[name] = {
                **summary(found, probes, resamples),
                "swapped": swapped_names(found, probes, gallery, num_swaps=num_resamples, seed=seed),
            }
    return json_values(
        {
            "probes": len(split.probe),
            "gallery": len(split.gallery),
            "subjects": len(np.unique(probes.subjects)),
            "chance": {
                "overall": float(chance.mean()),
                "by_walk": _text_keys(fairness.group_means(chance, probes.walks)),
                "by_view": _text_keys(fairness.group_means(chance, probes.views)),
            },
            "comparisons": comparisons,
            "change": {
                name: {
                    "rank1": _overall(found.rank1 - overall["raw"].rank1, resamples),
                    "map": _overall(found.average_precision - overall["raw"].average_precision, resamples),
                }
                for name, found in overall.items()
                if name != "raw"
            },
        }
    )


def shares_met(probes: Walkers, gallery: Walkers) -> np.ndarray:  # -> [P]
    """For each probe, the share of its person among the gallery of other views; NaN where there is no such gallery."""
    met = probes.views[:, None] != gallery.views  # [P, N]
    same = met & (probes.subjects[:, None] == gallery.subjects)
    return np.where(met.any(axis=1), same.sum(axis=1) / np.maximum(met.sum(axis=1), 1), np.nan)


def summary(found: Retrieval, probes: Walkers, resamples: metrics.Resamples) -> dict[str, Any]:
    """Means over all probes, over those of each walk, and over those of each view, with their intervals."""
    figures = {"rank1": found.rank1, "map": found.average_precision}
    result: dict[str, Any] = {"overall": {name: _overall(values, resamples) for name, values in figures.items()}}
    for side, parts in (("by_walk", probes.walks), ("by_view", probes.views)):
        of_part: dict[str, dict[str, Any]] = {str(part): {} for part in np.unique(parts)}
        for name, values in figures.items():
            ends = metrics.percentile_interval(fairness.resampled_group_means(values, parts, resamples))  # [2, parts]
            means = fairness.group_means(values, parts)
            for (part, value), interval in zip(means.items(), ends.T, strict=True):
                of_part[str(part)][name] = {"value": value, "interval": interval.tolist()}
        result[side] = of_part
    return result


def swapped_names(
    found: Retrieval, probes: Walkers, gallery: Walkers, *, num_swaps: int, seed: int = 0
) -> dict[str, Any]:
    """Overall rank-1 when the people of the gallery swap names whole: mean, 95% range, and the share of swaps with as
    much as was found (p), where equal similarities count by their first."""
    people, of_gallery = np.unique(gallery.subjects, return_inverse=True)
    of_probe = np.searchsorted(people, probes.subjects)  # [P]
    nearest = of_gallery[found.nearest]  # [P]
    names = metrics.cluster_permutations(gallery.subjects, num_permutations=num_swaps, seed=seed)  # [R, people]
    rank1 = (names[:, nearest] == of_probe).mean(axis=1)  # [R]
    reached = (nearest == of_probe).mean()
    return {
        "value": float(rank1.mean()),
        "interval": metrics.percentile_interval(rank1).tolist(),
        "p": float((1 + np.sum(rank1 >= reached)) / (1 + num_swaps)),
    }


def _overall(values: np.ndarray, resamples: metrics.Resamples) -> dict[str, Any]:  # [P]
    drawn = metrics.resampled_prevalences(values[:, None], resamples)[:, 0]
    return {"value": float(values.mean()), "interval": metrics.percentile_interval(drawn).tolist()}


def _text_keys(means: Mapping[Any, float]) -> dict[str, float]:
    return {str(name): value for name, value in means.items()}

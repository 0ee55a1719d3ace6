"""Membership: does a released feature show whether its person was among those that the anonymizer was trained on?

An anonymizer that fits its training subjects better moves their features differently from others', and anyone who holds
raw features and the anonymizer can measure by how much. A quantizer shows it most: where few clips share a centroid, it
lies where those clips are (`code_signals`).

Note: training and held-out subjects may differ for other reasons, such as the camera or the task. An attack that
succeeds as well on the signals of an anonymizer trained on neither has found the split, not membership: run that
control, or pass differences of signals. Attackers are evaluated on one half of the subjects; directions, the choice of
a signal and weights come from the other half.

Shapes: `n` rows of members, `m` of others, `N` of both, `R` resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from splavu import metrics
from splavu.anonymizers import Anonymizer
from splavu.errors import UserError
from splavu.metrics.estimates import Estimate, estimated
from splavu.metrics.inference import aucs, resampled_aucs, resampled_tprs, tpr_at_fpr

if TYPE_CHECKING:
    from splavu.anonymizers.quantizer import Quantizer

Signals = Mapping[str, np.ndarray]
"""Name -> [N], a number a row; which way it points doesn't matter."""


def change_signals(raw: np.ndarray, released: np.ndarray) -> dict[str, np.ndarray]:  # [N, D], [N, E]
    """How far the anonymizer moved each feature: name -> [N].

    'distance' |h - f(h)|, 'relative distance' by |h|, 'cosine' of the two, 'norm change' log |f(h)| / |h|. Where the
    widths differ, the norm alone can be compared.
    """
    raw, released = np.asarray(raw, dtype=np.float64), np.asarray(released, dtype=np.float64)
    tiny = np.finfo(np.float32).tiny
    before, after = (np.maximum(np.linalg.norm(rows, axis=1), tiny) for rows in (raw, released))
    signals = {"norm change": np.log(after / before)}
    if raw.shape[1] == released.shape[1]:
        distance = np.linalg.norm(raw - released, axis=1)
        cosine = (raw * released).sum(axis=1) / before / after
        signals = {"distance": distance, "relative distance": distance / before, "cosine": cosine, **signals}
    return signals


def code_signals(anonymizer: Anonymizer, raw: np.ndarray) -> dict[str, np.ndarray]:  # [N, D]
    """How far each feature lies from the centroids that stand for it: name -> [N]; empty without a quantizer.

    Of each codebook, the distance |r - c| of what the codebooks before it left over to the chosen centroid, the same by
    |r|, and how much farther the second nearest centroid is. Distances are those in which the quantizer chooses.

    Args:
        anonymizer: What stands before its quantizer is applied first.
        raw: Features as they go in.
    """
    entering = before_quantizer(anonymizer, raw)
    if entering is None:
        return {}
    quantizer, places, chosen = entering
    mean, encode = (part.detach().cpu().double().numpy() for part in (quantizer.mean, quantizer.encode))
    left = (places.astype(np.float64) - mean) @ encode.T  # [N, d]
    tiny = np.finfo(np.float32).tiny
    signals = {}
    for number, (book, code) in enumerate(zip(quantizer.codebooks, chosen.T, strict=True), start=1):
        centroids = book.detach().cpu().double().numpy()  # [K, d]
        length = np.maximum(np.linalg.norm(left, axis=1), tiny)
        squared = np.square(left).sum(axis=1)[:, None] - 2 * left @ centroids.T + np.square(centroids).sum(axis=1)
        np.put_along_axis(squared, code[:, None], np.inf, axis=1)
        left = left - centroids[code]
        distance = np.linalg.norm(left, axis=1)
        signals[f"distance to code {number}"] = distance
        signals[f"relative distance to code {number}"] = distance / length
        if len(centroids) > 1:
            signals[f"margin of code {number}"] = np.sqrt(np.maximum(squared.min(axis=1), 0)) - distance
    return signals


def before_quantizer(anonymizer: Anonymizer, raw: np.ndarray) -> tuple[Quantizer, np.ndarray, np.ndarray] | None:
    """The first quantizer of an anonymizer, what enters it [N, D], and the codes [N, number of codebooks] it is given;
    None without a quantizer."""
    import torch  # membership itself needs none

    from splavu.anonymizers.apply import apply_to_array
    from splavu.anonymizers.quantizer import Quantizer

    stages = list(getattr(anonymizer, "stages", [anonymizer]))
    quantizer = next((stage for stage in stages if isinstance(stage, Quantizer)), None)
    if quantizer is None:
        return None
    device, places = quantizer.mean.device, np.asarray(raw, dtype=np.float32)
    for stage in stages[: stages.index(quantizer)]:
        places = apply_to_array(stage, places, device=device)
    return quantizer, places, quantizer.codes(torch.from_numpy(places).to(device)).cpu().numpy()


@dataclass(frozen=True)
class MembershipAttack:
    """One attack's success; chance is 0.5 for AUC and `fpr` for TPR."""

    name: str
    auc: Estimate
    """Over rows, the mean of the two halves of the people."""
    person_auc: Estimate
    """The same with a person's mean score: is it the person, rather than the clip, that is exposed?"""
    tpr: Estimate | None
    """True positive rate at the false positive rate asked for; None where there are too few others to tell."""
    auc_draws: np.ndarray
    """[R], for `statistics.equivalence`."""


@dataclass(frozen=True)
class Membership:
    """What several attacks found."""

    thresholds: tuple[MembershipAttack, ...]
    """On each signal alone."""
    strongest: MembershipAttack
    """On the signal that is strongest among the people whose membership is known."""
    logistic: MembershipAttack
    """On all signals together."""
    num_people: tuple[int, int]
    """Members and others."""


def membership(
    members: Signals,
    others: Signals,
    member_people: Sequence,
    other_people: Sequence,
    *,
    fpr: float = 0.01,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Membership:
    """Attack membership, each half of the people by who knows the other half's.

    Args:
        members: Signals of the training subjects' rows, `change_signals` and the like.
        others: The same of subjects who were held out.
        member_people: Person of each row; intervals draw people.
        other_people: Likewise; no subject may be both.
        fpr: False positive rate at which TPR is given.
        seed: Of the halves and of the draws.

    Raises:
        UserError: Other signals on one side than on the other; a value that is not finite; a person on both sides;
            fewer than two subjects on a side.

    Source: Yeom et al. 2018 (threshold); Carlini et al. 2022 for true positives at few false ones as what counts.
    """
    from sklearn.linear_model import LogisticRegression  # sets variables of the environment when imported

    names = tuple(members)
    if names != tuple(others) or not names:
        raise UserError("signals", f"members have {list(names)}, others {list(others)}", "give both the same")
    values = np.stack([np.concatenate([members[name], others[name]]) for name in names], axis=1).astype(np.float64)
    for name, column in zip(names, values.T, strict=True):
        if not np.isfinite(column).all():
            raise UserError(name, "has values that are not finite", "leave those rows out")
    people = np.concatenate([np.asarray(member_people), np.asarray(other_people)])
    is_member = np.repeat([1.0, 0.0], [len(member_people), len(other_people)])
    half = _halves(people, is_member, seed)

    signed, chosen = np.empty((2, *values.shape)), np.empty((2, len(values)))
    combined = np.empty((2, len(values)))
    for judged in (0, 1):
        known = half != judged
        scaled = _by_others(values, known & (is_member == 0))
        strength = aucs(np.repeat(is_member[known, None], len(names), axis=1), scaled[known]) - 0.5
        signed[judged] = scaled * np.where(strength < 0, -1.0, 1.0)
        chosen[judged] = signed[judged][:, int(np.argmax(np.abs(strength)))]
        model = LogisticRegression(class_weight="balanced").fit(scaled[known], is_member[known])
        combined[judged] = model.decision_function(scaled)

    of_rows = metrics.cluster_resamples(people, num_resamples=num_resamples, seed=seed)
    _, first, person = np.unique(people, return_index=True, return_inverse=True)
    of_people = metrics.cluster_resamples(np.arange(len(first)), num_resamples=num_resamples, seed=seed)

    def judge(name: str, scores: np.ndarray) -> MembershipAttack:  # [2, N], of use in its own half only
        by_row = _halved(is_member, half), scores.T
        by_person = _halved(is_member[first], half[first]), np.stack([_means(s, person) for s in scores], axis=1)
        draws = _together(resampled_aucs(*by_row, of_rows))
        # The halves' scores come from two attackers; by known others' mean and spread they can be accused alike.
        alike = np.where(half == 0, *(_by_others(s, (half != h) & (is_member == 0)) for h, s in enumerate(scores)))
        rate = tpr_at_fpr(is_member, alike, fpr)
        return MembershipAttack(
            name,
            auc=estimated(aucs(*by_row).mean(), draws, chance=0.5),
            person_auc=estimated(aucs(*by_person).mean(), _together(resampled_aucs(*by_person, of_people)), chance=0.5),
            tpr=None
            if rate is None
            else estimated(rate, resampled_tprs(is_member, alike, of_rows, fpr=fpr), chance=fpr),
            auc_draws=draws,
        )

    return Membership(
        thresholds=tuple(judge(name, signed[:, :, s]) for s, name in enumerate(names)),
        strongest=judge("strongest signal", chosen),
        logistic=judge("logistic", combined),
        num_people=(len(np.unique(member_people)), len(np.unique(other_people))),
    )


def _together(draws: np.ndarray) -> np.ndarray:  # [R, 2] -> [R]
    """Mean of the two halves' draws, the least with the least and so on, as if the halves were one.

    Where there is nothing to find they nearly are: a signal that by luck lies higher for members in both halves makes
    both attacks succeed, one that lies higher in one and lower in the other makes both fail. Draws that know nothing of
    this gave 95 % intervals that held 0.5 in 85 % of simulated cases.
    """
    return np.sort(draws, axis=0).mean(axis=1)


def _halves(people: np.ndarray, is_member: np.ndarray, seed: int) -> np.ndarray:  # [N], [N] -> [N] of 0 and 1
    """Half of the members and half of the others in each."""
    both = np.intersect1d(people[is_member > 0], people[is_member == 0])
    if len(both):
        raise UserError(both[0], "is a member and is held out", "membership is judged on people who are one of them")
    generator, half = np.random.default_rng(seed), np.zeros(len(people), dtype=np.intp)
    for side, kind in ((1.0, "members"), (0.0, "others")):
        names = np.unique(people[is_member == side])
        if len(names) < 2:
            raise UserError(kind, f"are {len(names)} people, two halves take two", "give more people")
        half[np.isin(people, generator.permutation(names)[: len(names) // 2])] = 1
    return half


def _halved(is_member: np.ndarray, half: np.ndarray) -> np.ndarray:  # [N], [N] -> [N, 2]
    """Membership in a column for each half, unknown in the other one's."""
    return np.where(half[:, None] == np.arange(2), is_member[:, None], np.nan)


def _by_others(values: np.ndarray, others: np.ndarray) -> np.ndarray:  # [N, ...], [N] of bool -> [N, ...]
    """Deviations from the others' mean, in units of their spread."""
    spread = values[others].std(axis=0)
    return (values - values[others].mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def _means(values: np.ndarray, group: np.ndarray) -> np.ndarray:  # [N], [N] -> [G]
    return np.bincount(group, weights=values) / np.bincount(group)

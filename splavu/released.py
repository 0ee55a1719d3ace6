"""The `released` protocol: what a stranger could learn from the features that are stored and shared.

Each feature is served alone. Attackers are trained afresh on served features of some people, tuned on others, and meet
the test people once. Raw features go through exactly the same, so that leakage is a share of what there was to find.

What a reader would get wrong: chance is the prevalence of an attribute among the test rows, but on few people even a
ranking that knows nothing scores a little more. So "beats chance" also asks for more than whole test people with
swapped labels give.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from splavu import metrics
from splavu.attackers import ATTACKERS
from splavu.errors import UserError, nearest
from splavu.protocols import PROTOCOLS, AttackData, Rows, Serving, json_values, shown, shuffled_labels

Level = Literal["row", "video"]

LUCK = 0.005
"""Share of swaps of the test people's labels that may do as well before a cMAP counts as chance. Smaller than usual:
faults of an evaluation raise cMAP by tens of points, and an honest one should rarely fail."""

SWAP_GAIN = 0.04
"""How far attackers of swapped labels may exceed the mean over swaps of the test people's labels, in cMAP. Which labels
training people happen to get is luck that test people don't show: in 100 simulated evaluations (100 people to learn
from, 50 to test on, 7 attributes, 3 seeds) it was 0.004 on average, with a deviation of 0.013."""

NUM_SWAPS = 1000
"""Swaps of the test people's labels; resolves LUCK."""

MIXED = "Features were served in batches, in file order: no feature that is released alone looks like that."


def evaluate_released(
    raw: Mapping[str, AttackData],
    anonymize: Callable[[np.ndarray], np.ndarray] | None,  # [N, D] -> [N, D]
    *,
    attributes: Sequence[str],
    attackers: Sequence[str] = tuple(ATTACKERS),
    seeds: Sequence[int] = (0, 1, 2),
    num_resamples: int = 1000,
    max_train_rows: int = 20_000,
    level: Level = "row",
    served: Serving = "alone",
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Attack what is released, and what it was made from, in the same way.

    For each view, attribute and representation the strongest attacker is the one with the best validation average
    precision over the seeds; its test average precision is reported. Two gates must hold on raw features for each view:
    the strongest attackers beat chance, and no longer do once people have swapped labels.

    Args:
        raw: View ('static', 'temporal') -> raw features. Labels of all views have the same attributes.
        anonymize: Called once for each split and view; None evaluates raw features only, leakage is then 1.
        attributes: Names of the A columns of the labels.
        attackers: Names from `ATTACKERS`.
        seeds: Stochastic attackers, the swap of labels and the draw of training rows are repeated with each; results
            are means over seeds, intervals draw people and seeds.
        num_resamples: Bootstrap resamples of the test subjects.
        max_train_rows: More training rows than this are thinned at random, and the result says so.
        level: 'row' judges each served feature, 'video' the mean score of a video's features.
        served: 'alone': `anonymize` serves each row as if it came alone, which is checked. 'batch' says that it may mix
            rows: only to show how far such numbers are from those of released features; the result carries a warning.
        device: Where attackers compute.

    Returns:
        JSON values, None for what is undefined; precisions are between 0 and 1. `valid` is False when a gate failed.

    Raises:
        UserError: Unknown attacker; another number of attributes than the labels have; `anonymize` gives a feature
            another value in a batch than alone, or values that are not finite.
    """
    started = time.perf_counter()
    protocol = PROTOCOLS["released"]
    if served == "batch":
        protocol = dataclasses.replace(protocol, served="batch", warning=MIXED)
    for name in attackers:
        if name not in ATTACKERS:
            raise UserError("attackers", f"'{name}' is unknown", nearest(name, ATTACKERS))
    for view, data in raw.items():
        if data.test.labels.shape[1] != len(attributes):
            raise UserError(view, f"has {data.test.labels.shape[1]} attributes, named are {len(attributes)}")
        if anonymize is not None and served == "alone":
            _check_served_alone(anonymize, data.test.features)

    runs = (2 if anonymize is None else 3) * len(raw) * len(seeds) * len(attackers)
    views, gates = {}, []
    with tqdm(total=runs, desc="attacks", unit="fit", dynamic_ncols=True) as progress:
        for view, data in raw.items():
            campaign = _Campaign(tuple(attackers), tuple(seeds), max_train_rows, level, device, progress)
            attacks = {"raw": campaign.run([data] * len(seeds))}
            if anonymize is not None:
                attacks["anonymized"] = campaign.run([data.mapped(_finite(anonymize))] * len(seeds))
            swapped = campaign.run([shuffled_labels(data, seed=seed) for seed in seeds])
            views[view] = {
                **_judged(attacks, attributes, num_resamples),
                "rows": {name: len(rows) for name, rows in data.splits.items()},
                "subjects": {name: len(np.unique(rows.clusters)) for name, rows in data.splits.items()},
                "train_rows_used": min(len(data.train), max_train_rows),
                "attacker_table": {name: attack.table() for name, attack in attacks.items()},
            }
            gates.append(_gate(view, "raw features are attacked above chance", attacks["raw"], True, num_resamples))
            gates.append(_gate(view, "swapped labels are not", swapped, False, num_resamples))
    return json_values(
        {
            "protocol": dataclasses.asdict(protocol),
            "valid": all(gate["passed"] for gate in gates),
            "gates": gates,
            "raw_only": anonymize is None,
            "attributes": list(attributes),
            "attackers": list(attackers),
            "seeds": list(seeds),
            "num_resamples": num_resamples,
            "max_train_rows": max_train_rows,
            "level": level,
            "views": views,
            "seconds": round(time.perf_counter() - started, 1),
        }
    )


@dataclass(frozen=True)
class _Attack:
    """All attackers on one representation of one view. S seeds, M attackers, n judged rows (features or videos)."""

    attackers: tuple[str, ...]
    labels: np.ndarray
    """[n, A] of the test."""
    clusters: np.ndarray
    videos: np.ndarray
    scores: np.ndarray
    """[S, M, n, A] on the test."""
    validation: np.ndarray
    """[S, M, A] average precision, what the choice is made on."""

    @property
    def strongest(self) -> np.ndarray:  # [A]
        """Index of the attacker with the best validation average precision; the first where none could be judged."""
        return np.argmax(np.nan_to_num(metrics.mean_known(np.moveaxis(self.validation, 0, -1)), nan=-1.0), axis=0)

    @property
    def chosen_scores(self) -> np.ndarray:  # [S, n, A]
        return np.stack([self.scores[:, m, :, a] for a, m in enumerate(self.strongest)], axis=-1)

    @property
    def precision(self) -> np.ndarray:  # [A]
        """Test average precision of the strongest attackers, mean over seeds."""
        return np.mean([metrics.average_precisions(self.labels, scores) for scores in self.chosen_scores], axis=0)

    def resampled(self, resamples: metrics.Resamples, seed_weights: np.ndarray) -> np.ndarray:  # [R, S] -> [R, A]
        """Test average precision on draws of people and seeds."""
        of_seed = [metrics.resampled_average_precisions(self.labels, s, resamples) for s in self.chosen_scores]
        return np.einsum("rs,sra->ra", seed_weights, np.stack(of_seed))

    def table(self) -> dict[str, Any]:
        """Every attacker's average precision for each attribute. The test column is for diagnosis, not for choosing."""
        test = np.array([[metrics.average_precisions(self.labels, s) for s in of_seed] for of_seed in self.scores])
        means = {"validation": self.validation.mean(axis=0), "test_diagnostic": test.mean(axis=0)}
        return {
            name: {column: values[place].tolist() for column, values in means.items()}
            for place, name in enumerate(self.attackers)
        }


@dataclass(frozen=True)
class _Campaign:
    """The options that all attacks of an evaluation share."""

    attackers: tuple[str, ...]
    seeds: tuple[int, ...]
    max_train_rows: int
    level: Level
    device: torch.device | str
    progress: tqdm

    def run(self, data_of_seed: Sequence[AttackData]) -> _Attack:
        """Train every attacker for every seed, on that seed's data."""
        scores, validation, done = [], [], {}
        for seed, data in zip(self.seeds, data_of_seed, strict=True):
            thinned = len(data.train) > self.max_train_rows
            of_seed = []
            for name in self.attackers:
                repeatable = not (ATTACKERS[name].stochastic or thinned)
                key = (name, id(data)) if repeatable else (name, seed)
                if key not in done:
                    done[key] = self._fit(name, data, seed)
                of_seed.append(done[key])
                self.progress.update()
            scores.append([attack[0] for attack in of_seed])
            validation.append([attack[1] for attack in of_seed])
        labels, clusters, videos = _judged_units(data_of_seed[0].test, self.level)
        return _Attack(self.attackers, labels, clusters, videos, np.array(scores), np.array(validation))

    def _fit(self, name: str, data: AttackData, seed: int) -> tuple[np.ndarray, np.ndarray]:  # -> [n, A], [A]
        train = data.train
        if len(train) > self.max_train_rows:
            train = train.take(np.random.default_rng(seed).permutation(len(train))[: self.max_train_rows])
        validation = data.validation
        attacker = ATTACKERS[name].build(seed=seed, device=self.device)
        attacker.fit(train.features, train.labels, (validation.features, validation.labels))
        tuned = _judged_scores(attacker.scores(validation.features), validation, self.level)
        precisions = metrics.average_precisions(_judged_units(validation, self.level)[0], tuned)
        return _judged_scores(attacker.scores(data.test.features), data.test, self.level), precisions


def _judged_units(rows: Rows, level: Level) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # -> [n, A], [n], [n]
    """Labels, clusters and videos of what is judged. A video whose rows disagree gets the label of most of them."""
    if level == "row":
        return rows.labels, rows.clusters, rows.videos
    labels = np.stack(list(metrics.video_scores(rows.labels, rows.videos.tolist()).values()))
    labels = np.where(np.isnan(labels), np.nan, labels >= 0.5)
    videos, first = np.unique(rows.videos, return_index=True)
    cluster_of = dict(zip(videos.tolist(), rows.clusters[first].tolist(), strict=True))
    order = list(dict.fromkeys(rows.videos.tolist()))
    return labels, np.array([cluster_of[video] for video in order]), np.array(order)


def _judged_scores(scores: np.ndarray, rows: Rows, level: Level) -> np.ndarray:  # [N, A] -> [n, A]
    if level == "row":
        return scores
    return np.stack(list(metrics.video_scores(scores, rows.videos.tolist()).values()))


def _judged(attacks: Mapping[str, _Attack], attributes: Sequence[str], num_resamples: int) -> dict[str, Any]:
    """Average precision, chance and leakage of each attribute and of their mean, all on the same resamples."""
    raw = attacks["raw"]
    share = np.where(np.isnan(raw.precision), np.nan, metrics.prevalences(raw.labels))
    resamples, seed_weights = _draws(raw, num_resamples)
    drawn = {name: attack.resampled(resamples, seed_weights) for name, attack in attacks.items()}  # [R, A]
    drawn_share = np.where(np.isnan(drawn["raw"]), np.nan, metrics.resampled_prevalences(raw.labels, resamples))

    def entry(pick: Callable[[np.ndarray], np.ndarray], attribute: int | None) -> dict[str, Any]:
        result: dict[str, Any] = {"chance": float(pick(share))}
        for name, attack in attacks.items():
            result[name] = {
                "ap": float(pick(attack.precision)),
                "interval": metrics.percentile_interval(pick(drawn[name])).tolist(),
            }
            if attribute is not None:
                result[name]["attacker"] = attack.attackers[attack.strongest[attribute]]
        released = "anonymized" if "anonymized" in attacks else "raw"
        point = metrics.normalised_leakage(result[released]["ap"], result["raw"]["ap"], result["chance"])
        draws = metrics.normalised_leakage(pick(drawn[released]), pick(drawn["raw"]), pick(drawn_share))
        return result | {"leakage": float(point), "leakage_interval": metrics.percentile_interval(draws).tolist()}

    columns = {name: entry(lambda v, a=a: v[..., a], a) for a, name in enumerate(attributes)}
    left_out = [name for a, name in enumerate(attributes) if np.isnan(raw.precision[a])]
    return {"attributes": columns, "mean": entry(metrics.mean_known, None), "left_out": left_out}


def _gate(view: str, claim: str, attack: _Attack, expected: bool, num_resamples: int) -> dict[str, Any]:
    """Whether the strongest attackers beat chance, and whether they were meant to.

    They do when the lower end of the 95% interval of cMAP - prevalence is above 0 and at most a share LUCK of the ways
    in which test people can swap labels gives as high a cMAP; where they were not meant to, by more than SWAP_GAIN.
    """
    share = np.where(np.isnan(attack.precision), np.nan, metrics.prevalences(attack.labels))
    observed = float(metrics.mean_known(attack.precision))
    resamples, seed_weights = _draws(attack, num_resamples)
    drawn = attack.resampled(resamples, seed_weights)
    drawn_share = np.where(np.isnan(drawn), np.nan, metrics.resampled_prevalences(attack.labels, resamples))
    interval = metrics.percentile_interval(metrics.mean_known(drawn) - metrics.mean_known(drawn_share))
    swaps = metrics.permuted_rows(attack.clusters, attack.videos, num_permutations=NUM_SWAPS, seed=1)
    of_seed = [metrics.permuted_average_precisions(attack.labels, s, swaps) for s in attack.chosen_scores]
    null = metrics.mean_known(np.mean(of_seed, axis=0))  # [R]
    luck = (1 + np.sum(null >= observed)) / (1 + len(null))
    beats = bool(interval[0] > 0 and luck <= LUCK)
    if not expected:
        beats = beats and observed - float(null.mean()) > SWAP_GAIN
    return {
        "view": view,
        "claim": claim,
        "passed": beats is expected,
        "cmap": observed,
        "chance": float(metrics.mean_known(share)),
        "above_chance_interval": interval.tolist(),
        "swapped_test_labels_mean": float(null.mean()),
        "swapped_test_labels_p": float(luck),
    }


def _draws(attack: _Attack, num_resamples: int) -> tuple[metrics.Resamples, np.ndarray]:  # -> R draws, [R, S]
    """Draws of test people, and of seeds as weights that sum to 1."""
    num_seeds = len(attack.scores)
    resamples = metrics.cluster_resamples(attack.clusters, num_resamples=num_resamples, seed=0)
    counts = np.random.default_rng(1).multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=num_resamples)
    return resamples, counts / num_seeds


def _finite(anonymize: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """`anonymize`, which may not break down: an attacker that fails on NaN would pass for privacy."""

    def checked(features: np.ndarray) -> np.ndarray:
        served = anonymize(features)
        if bad := int((~np.isfinite(served)).any(axis=1).sum()):
            raise UserError("anonymizer", f"gives values that are not finite for {bad} of {len(served)} features")
        return served

    return checked


def _check_served_alone(anonymize: Callable[[np.ndarray], np.ndarray], features: np.ndarray) -> None:
    """Refuse an anonymizer whose output for a row depends on the rest of the batch."""
    batch = features[:4]
    alone = np.concatenate([anonymize(row[None]) for row in batch])
    with np.errstate(invalid="ignore"):  # infinities are told apart later, by their number
        gap = float(np.abs(anonymize(batch) - alone).max())
    if gap > 1e-4 * float(np.abs(alone).max()):
        raise UserError(
            "anonymizer",
            f"gives a feature another value in a batch than alone (they differ by {gap:.3g})",
            "serve rows one by one, or say served = 'batch'",
        )


def format_table(result: Mapping[str, Any]) -> str:
    """The result for a terminal: per cent, 95% intervals in brackets, '-' where undefined."""
    lines = []
    for view, found in result["views"].items():
        rows, people = found["rows"]["test"], found["subjects"]["test"]
        served = "served alone" if result["protocol"]["served"] == "alone" else "SERVED IN BATCHES"
        unit = "videos" if result["level"] == "video" else "features"
        lines.append(f"{view}: protocol released, {served}, {unit} judged; {rows} test features of {people} subjects")
        if found["train_rows_used"] < found["rows"]["train"]:
            lines.append(
                f"  attackers learnt from {found['train_rows_used']} of {found['rows']['train']} training rows"
            )
        lines.append(f"  {'attribute':<21}  {'raw AP':<20}  {'anonymized AP':<20}  {'chance':>6}  leakage")
        entries = {**found["attributes"], "mean (cMAP)": found["mean"]}
        for name, entry in entries.items():
            released = entry.get("anonymized")
            lines.append(
                f"  {name:<21}  {_percent(entry['raw']):<20}  {_percent(released) if released else 'none':<20}  "
                f"{shown(entry['chance'], 100, 1):>6}  "
                f"{shown(entry['leakage'], 1, 2)} {_bracket(entry['leakage_interval'], 1, 2)}"
            )
        if found["left_out"]:
            lines.append(f"  left out, one class only in the test: {', '.join(found['left_out'])}")
        lines.append("")
    lines.append("leakage: 0 no better than chance, 1 as much as raw features" + ("; raw only" * result["raw_only"]))
    for gate in result["gates"]:
        lines.append(
            f"{'passed' if gate['passed'] else 'FAILED'}  {gate['view']}: {gate['claim']} "
            f"(cMAP {shown(gate['cmap'], 100, 1)}, chance {shown(gate['chance'], 100, 1)})"
        )
    if result["protocol"]["warning"]:
        lines.append(f"warning: {result['protocol']['warning']}")
    lines.append(
        f"{len(result['seeds'])} seeds, {result['num_resamples']} resamples of subjects, {result['seconds']:.0f} s"
    )
    return "\n".join(lines)


def _percent(entry: Mapping[str, Any]) -> str:
    return f"{shown(entry['ap'], 100, 1)} {_bracket(entry['interval'], 100, 1)}"


def _bracket(interval: Sequence[float | None], factor: float, digits: int) -> str:
    return f"[{shown(interval[0], factor, digits)}, {shown(interval[1], factor, digits)}]"

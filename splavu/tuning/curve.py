"""The privacy-utility curve of one store: chains of closed forms, each measured on subjects that it was not fitted to.

Subjects are dealt into folds. In turn each fold is held out: a chain is fitted to the others, attackers and heads are
trained on what it releases of them, and everything is counted on the fold. So every subject is held out once, and no
test subject of another split is read.

    use      actions   top-1 of held-out subjects' videos by a linear head
             unseen    the same of actions that the chain was not shown: it is fitted again without them
    private  each attribute, by clip and by video: average precision of attackers
             same subject   how often a video's most similar one is of its subject
             same video     how often a clip's most similar one, among clips of its action, is of its video

Leakage is the excess over chance as a share of raw features'. Where raw features show nothing, there is nothing to
hide, and the measure is left out.

Note: the chosen point is the best of many on the same subjects, so it looks a little better than it is. Audit its
release on subjects that were not used here.

Letters: N clips, D width, V videos, A attributes, R draws of subjects.
"""

from __future__ import annotations

import functools
import pickle
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from splavu import metrics
from splavu.anonymizers import Chain
from splavu.anonymizers.apply import apply_to_array
from splavu.anonymizers.base import Anonymizer
from splavu.anonymizers.closed_form.fit_data import FitData
from splavu.anonymizers.closed_form.methods import METHODS
from splavu.anonymizers.guarantees import budget_of
from splavu.anonymizers.pipeline import names_of, parse
from splavu.attacks.campaign import Campaign
from splavu.attacks.rows import AttackData, Rows, hold_out
from splavu.audit.attributes.units import set_attack, set_rows
from splavu.audit.headline import Leakages
from splavu.audit.identity.similarity import some_people
from splavu.errors import UserError
from splavu.metrics import tradeoff
from splavu.metrics.estimates import Estimate, estimated
from splavu.runtime.progress import progress_bar
from splavu.runtime.workers import worker_processes
from splavu.tuning import linear_probes
from splavu.tuning.links import MOST_LINKED, Links, learnt_metric, linked
from splavu.tuning.operating_points import Point

NUM_FOLDS = 3
FEWEST = 3 * NUM_FOLDS
"""Subjects at least: of a fold's six others, two tune attackers."""
VALIDATION_SHARE = 0.25
"""Of the subjects that attackers are given, those that tune them."""
COMPONENTS = 256
"""Principal components of what is released in which heads and attackers work."""
ATTACKERS = ("logistic", "kernel_small", "knn")
NUM_RESAMPLES = 500
SUBJECTS, VIDEOS = "same subject", "same video"
SEEN, UNSEEN = "actions", "unseen"


@dataclass(frozen=True)
class Measured:
    """One chain on one held-out fold; rows are those of the store."""

    hits: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    """Use -> hits [V], hits of a guess [V], owners [V]."""
    links: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    """'same subject' or 'same video' -> hits, luck, owners, of each row that has a mate."""
    scores: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    """'clip' or 'video' -> labels [n, A], scores [n, A], owners [n]."""
    budget: float | None
    distinct: int
    """Different vectors among the fold's clips."""


@dataclass(frozen=True)
class Curve:
    """All that was measured."""

    raw: Point
    points: tuple[Point, ...]
    refused: Mapping[str, str]
    """Chain -> why it can't be fitted to this store."""
    data: FitData
    notes: tuple[str, ...] = field(default_factory=tuple)


def tune(data: FitData, chains: Sequence[str], *, seed: int = 0, workers: int = 1) -> Curve:
    """Measure chains on held-out subjects of a store.

    Args:
        data: Of training subjects, with classes and videos; subjects, static clips and private labels where known.
        chains: As `fa_arch` has them.
        seed: Of folds, of draws, of attackers.
        workers: Processes; figures don't depend on it.

    Raises:
        UserError: Too few subjects or actions.
    """
    folds = deal(data, seed=seed)
    unseen = left_out(data)
    tasks = [(chain, fold) for fold in range(NUM_FOLDS) for chain in ("", *chains)]  # those of a fold share parts
    with tempfile.TemporaryDirectory(prefix="splavu-tune-") as folder:
        path = Path(folder) / "store.pickle"
        path.write_bytes(pickle.dumps((data, folds, unseen, seed), protocol=5))
        measure = functools.partial(_measured, str(path))
        bar = functools.partial(progress_bar, total=len(tasks), desc="points", unit="fold", dynamic_ncols=True)
        if workers > 1:
            with worker_processes(workers, _one_thread) as pool:
                found = list(bar(pool.map(measure, tasks)))
        else:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                with threadpool_limits(1):
                    found = list(bar(map(measure, tasks)))
            finally:
                torch.set_num_threads(threads)
                _store.cache_clear()
                _begun.cache_clear()
    of = {chain: found[place :: 1 + len(chains)] for place, chain in enumerate(("", *chains))}
    refused = {
        chain: next(one for one in folds_of if isinstance(one, str))
        for chain, folds_of in of.items()
        if any(isinstance(one, str) for one in folds_of)
    }
    owners = np.unique(owners_of(data))
    pooled = {chain: _Pooled.of(one, owners) for chain, one in of.items() if chain not in refused}
    whole = pooled[""]
    points = {chain: _point(chain, one, whole) for chain, one in pooled.items()}
    notes = []
    if data.subjects is None:
        notes.append("no subjects were given: videos were held out, and who is in them was not linked")
    if not unseen:
        notes.append("fewer than 4 actions: use for actions that were not shown was not measured")
    for name in (SUBJECTS, VIDEOS):
        if name not in points[""].leakage and not (name == SUBJECTS and data.subjects is None):
            notes.append(f"raw features don't show the {name}, or nobody has two: it isn't counted")
    return Curve(points.pop(""), tuple(points.values()), refused, data, tuple(notes))


def owners_of(data: FitData) -> np.ndarray:  # -> [N] of str
    """Who is held out together: the subject, or the video where it is unknown."""
    videos = np.asarray(data.needed("videos")).astype(str)
    if data.subjects is None:
        return videos
    return np.where(data.subjects == "", np.char.add("video ", videos), np.char.add("subject ", data.subjects))


def deal(data: FitData, *, seed: int = 0) -> np.ndarray:  # -> [N]
    """The fold of each clip: owners whole, actions spread as evenly as that allows.

    Raises:
        UserError: Too few owners, or one action.
    """
    owners, classes = owners_of(data), data.needed("classes", by="tune")
    unit = "videos" if data.subjects is None else "subjects"
    if (count := len(np.unique(owners))) < FEWEST:
        problem = f"{count} {unit}, and {FEWEST} are needed: {NUM_FOLDS} folds, each to be held out"
        raise UserError("--subjects" if data.subjects is not None else "--raw", problem, f"give more {unit}")
    place, counts = np.unique(classes, return_inverse=True, return_counts=True)[1:]
    if len(counts) < 2:
        raise UserError("--labels", "names one action: there is no use to be kept", "label two actions at least")
    _, first, video = np.unique(data.needed("videos"), return_index=True, return_inverse=True)
    if (most := np.bincount(place[first]).max()) < NUM_FOLDS:
        problem = f"has {most} videos of an action at most, and {NUM_FOLDS} are needed: one a fold"
        raise UserError("--labels", problem, "give more videos of an action")
    folding = StratifiedGroupKFold(NUM_FOLDS, shuffle=True, random_state=seed)
    fold = np.empty(len(first), dtype=np.intp)
    for number, (_, held) in enumerate(folding.split(first, place[first], owners[first])):
        fold[held] = number
    return fold[video]


def left_out(data: FitData) -> frozenset[Any]:
    """Half of the actions, every other one, for the use of those that a chain is not shown; none of fewer than 4."""
    names = np.unique(data.needed("classes")).tolist()
    return frozenset(names[1::2]) if len(names) >= 4 else frozenset()


def _one_thread() -> None:
    """One thread a process: figures then depend on no number of processors, and two processes don't share cores."""
    torch.set_num_threads(1)
    threadpool_limits(1)


@functools.lru_cache(maxsize=1)
def _store(path: str) -> tuple[FitData, np.ndarray, frozenset[Any], int]:
    return pickle.loads(Path(path).read_bytes())  # written by this process or the one that started it


def _measured(path: str, task: tuple[str, int]) -> Measured | str:
    """The measurement of a chain ('' for raw features) on a fold; why, where it can't be fitted."""
    data, folds, unseen, seed = _store(path)
    chain, fold = task
    held = folds == fold
    try:
        made = _fitted(path, fold, chain, False)
        released = _released(made, data.features)
        twin = _released(_fitted(path, fold, chain, True), data.features) if chain and unseen else released
    except UserError as error:
        return f"{error.culprit}: {error.problem}"
    classes = data.needed("classes")
    seen = _attack_data(data, released, held, seed)
    numbers = np.unique(classes, return_inverse=True)[1]
    class_of = dict(zip(np.asarray(data.needed("videos")).astype(str).tolist(), numbers.tolist(), strict=True))
    hits = {SEEN: linear_probes.action_hits(seen, class_of)}
    if unseen:
        rows = np.isin(classes, list(unseen))
        if len(np.unique(owners_of(data)[rows & ~held])) > 1 and (rows & held).any():
            others = _attack_data(data.take(rows), twin[rows], held[rows], seed)
            hits[UNSEEN] = linear_probes.action_hits(others, class_of)
    budget = None if made is None else budget_of(made.architecture)
    return Measured(
        {name: (one.hits, one.guesses, one.clusters) for name, one in hits.items()},
        _links(seen, class_of, data.subjects is not None),
        _attacked(seen, seed),
        budget,
        len(np.unique(released[held], axis=0)),
    )


def _fitted(path: str, fold: int, chain: str, without: bool) -> Anonymizer | None:
    """A chain fitted to all but a fold; `without` the actions that are left out."""
    if not chain:
        return None
    *before, part = parse(chain)
    first, data = _begun(path, fold, "+".join(map(str, before)), without)
    form = METHODS[part.name]
    seed = None if form.seed == "none" else _store(path)[-1]
    last = form.fitted(data, form.read(part.options), seed=seed).eval()
    return last if first is None else Chain(data.features.shape[1], stages=[*getattr(first, "stages", [first]), last])


@functools.lru_cache(maxsize=8)
def _begun(path: str, fold: int, chain: str, without: bool) -> tuple[Anonymizer | None, FitData]:
    """The first parts of a chain and what they release of all but a fold: chains that begin alike share it."""
    data, folds, unseen, _ = _store(path)
    kept = folds != fold
    if without:
        kept &= ~np.isin(data.needed("classes"), list(unseen))
    data = data.take(kept)
    first = _fitted(path, fold, chain, without)
    return first, data if first is None else data.after(first)


def _released(made: Anonymizer | None, features: np.ndarray) -> np.ndarray:
    return features if made is None else apply_to_array(made, features, serving="batch")


def _attack_data(data: FitData, released: np.ndarray, held: np.ndarray, seed: int) -> AttackData:
    """What is released in principal components, in three groups of subjects: to train, to tune, held out."""
    places = _components(released, ~held)
    owners, videos = owners_of(data), np.asarray(data.needed("videos")).astype(str)
    labels = data.private if data.private is not None else np.zeros((len(places), 0), np.float32)
    rows = Rows(places, labels, owners, videos)
    train, tuned = hold_out(rows.take(np.flatnonzero(~held)), share=VALIDATION_SHARE, seed=seed)
    return AttackData(train, tuned, rows.take(np.flatnonzero(held)))


def _components(released: np.ndarray, fitted: np.ndarray) -> np.ndarray:  # [N, D], [N] of bool -> [N, d] float32
    """Principal components of the fitted rows, those of most variance first."""
    from scipy.linalg import eigh

    rows = released[fitted].astype(np.float64)
    mean = rows.mean(axis=0)
    scatter = (rows - mean).T @ (rows - mean) / len(rows)
    width = len(scatter)
    values, vectors = eigh(scatter, subset_by_index=(max(0, width - COMPONENTS), width - 1))
    real = values > 1e-9 * max(values[-1], np.finfo(np.float64).tiny)
    if not real.any():
        return np.zeros((len(released), 1), np.float32)
    scale = np.sqrt(values.sum())
    return ((released - mean) @ vectors[:, real][:, ::-1] / scale).astype(np.float32)


def _links(
    data: AttackData, class_of: Mapping[str, int], with_subjects: bool
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    found = {}
    both = [data.train, data.validation]
    held = np.repeat([False, True], [len(rows) for rows in both])
    features, videos = (np.concatenate([getattr(rows, name) for rows in both]) for name in ("features", "videos"))
    test = data.test.take(some_people(data.test.clusters, MOST_LINKED))
    metric = learnt_metric(features, videos, held)
    actions = np.array([class_of[video] for video in test.videos])
    if metric is not None:
        own = np.arange(len(test))
        found[VIDEOS] = _hits(linked(test.features, test.videos, metric, own, actions), test.clusters)
    if with_subjects:
        means, judged = [set_rows(rows, "video") for rows in both], set_rows(data.test, "video")
        judged = judged.take(some_people(judged.clusters, MOST_LINKED))
        features, owners, videos = (
            np.concatenate([getattr(rows, name) for rows in means]) for name in ("features", "clusters", "videos")
        )
        held = np.repeat([False, True], [len(rows) for rows in means])
        metric = learnt_metric(features, owners, held, videos)
        if metric is not None:
            any_action = np.zeros(len(judged))
            links = linked(judged.features, judged.clusters, metric, judged.videos, any_action)
            found[SUBJECTS] = _hits(links, judged.clusters)
    return found


def _hits(links: Links, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return links.hits, links.luck, owners[links.rows]


def _attacked(data: AttackData, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Scores of the strongest attackers of each attribute, chosen on the subjects that tune them."""
    if not data.test.labels.shape[1]:
        return {}
    with tqdm(disable=True) as progress:
        campaign = Campaign(ATTACKERS, (seed,), len(data.train), "row", "cpu", progress)
        clip = campaign.run([data])
        attacks = {"clip": clip, "video": set_attack(clip, "video")}
    return {unit: (one.labels, one.chosen_scores[0], one.clusters) for unit, one in attacks.items()}


@dataclass(frozen=True)
class _Pooled:
    """A chain over all folds: figures, and the same on draws of subjects; the last of R + 1 is the figure itself."""

    uses: Mapping[str, tuple[np.ndarray, np.ndarray]]
    """Use -> accuracy, of guesses: [R + 1] each."""
    links: Mapping[str, tuple[np.ndarray, np.ndarray]]
    """Rank-1, luck."""
    precision: Mapping[str, tuple[np.ndarray, np.ndarray]]
    """Unit -> average precision, prevalence: [R + 1, A]."""
    budget: float | None
    distinct: int

    @classmethod
    def of(cls, folds: Sequence[Any], owners: np.ndarray) -> _Pooled:
        counts = metrics.cluster_resamples(owners, num_resamples=NUM_RESAMPLES).counts
        counts = np.vstack([counts, np.ones(len(owners), counts.dtype)])  # the figure itself

        def rates(kind: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
            found = {}
            for name in dict.fromkeys(name for one in folds for name in getattr(one, kind)):
                parts = [getattr(one, kind)[name] for one in folds if name in getattr(one, kind)]
                hits, luck, of = (np.concatenate(columns) for columns in zip(*parts, strict=True))
                if len(hits):
                    weights = counts[:, np.searchsorted(owners, of)].astype(np.float64)
                    total = weights.sum(axis=1)
                    found[name] = (weights @ hits / total, weights @ luck / total)
            return found

        precision = {}
        for unit in folds[0].scores:
            drawn = []
            for one in folds:
                labels, scores, of = one.scores[unit]
                resamples = metrics.Resamples(counts, np.searchsorted(owners, of))
                drawn.append(
                    (
                        metrics.resampled_average_precisions(labels, scores, resamples),
                        metrics.resampled_prevalences(labels, resamples),
                    )
                )
            both = [np.stack(column, axis=-1) for column in zip(*drawn, strict=True)]  # [R + 1, A, folds]
            missing = np.isnan(both[0]) | np.isnan(both[1])
            precision[unit] = tuple(metrics.mean_known(np.where(missing, np.nan, values)) for values in both)
        budgets = [one.budget for one in folds if one.budget is not None]
        return cls(
            rates("hits"),
            rates("links"),
            precision,
            max(budgets) if len(budgets) == len(folds) else None,
            sum(one.distinct for one in folds),
        )

    def excesses(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Measure -> value, chance: [R + 1] each."""
        found = {
            f"attributes, {unit}": (metrics.mean_known(precision), metrics.mean_known(prevalence))
            for unit, (precision, prevalence) in self.precision.items()
        }
        return found | dict(self.links)


def _point(chain: str, own: _Pooled, raw: _Pooled) -> Point:
    """The point of a chain beside raw features."""
    values, draws = {}, {}
    for name, (found, chance) in own.excesses().items():
        if name not in raw.excesses():
            continue
        whole, luck = raw.excesses()[name]
        if not np.quantile(whole[:-1] - luck[:-1], 0.025) > 0:
            continue  # raw features don't show it
        share = metrics.normalised_leakage(found - chance, whole - luck, np.zeros(len(found)))
        values[name], draws[name] = float(share[-1]), share[:-1]
    leakage = Leakages(values, draws).estimates()
    uses, lost, kept = {}, {}, []
    for name, (found, guessed) in own.uses.items():
        whole, luck = raw.uses[name]
        uses[name] = estimated(found[-1], found[:-1], chance=float(guessed[-1]))
        lost[name] = estimated(whole[-1] - found[-1], whole[:-1] - found[:-1], chance=float(whole[-1] - luck[-1]))
        kept.append(tradeoff.kept(found, whole, luck))
    kept = np.min(kept, axis=0)  # [R + 1]
    linkage = leakage.get(SUBJECTS, leakage.get(VIDEOS, Estimate(np.nan, np.nan, np.nan, np.nan)))
    return Point(
        name=chain,
        family=names_of(parse(chain)) if chain else "raw",
        num_seeds=NUM_FOLDS,
        leakage=leakage,
        linkage=linkage,
        uses=uses,
        lost=lost,
        kept=float(kept[-1]),
        distinct=float(own.distinct),
        entropy=float("nan"),
        budget=own.budget,
        eligible=bool(chain),
    )

"""Attacks that the audit doesn't have, on a release, with the audit's splits, seeds and choice by validation subjects.

`python benchmarks/further_attacks.py --raw RAW.h5 --released RELEASED.h5 --labels private_labels.csv --aam CKPT`

lookup    how often each class had exactly these codes, smoothed, with back-off to pairs of codebooks or to single ones
one-hot   boosted trees on the codes, a column for each centroid
set       a set transformer on all clips of a video, or of a person

Each is compared with the audit's ensemble of strongest attackers on the same test subjects, resamples and seeds:

alone     mean AP of the attack less that of the ensemble
added     mean AP of the ensemble that may choose the attack too, less that of the ensemble without it

`--planted` shows that each attack works: on made releases whose codes or sets hold an attribute, and on the same with
the attribute's labels exchanged between people. It needs no file.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from splavu import metrics
from splavu.anonymizers.apply import array_map
from splavu.anonymizers.loading import load_anonymizer
from splavu.attackers import TreesAttacker
from splavu.attackers.selection import BestPerAttribute
from splavu.attacks.campaign import Attack, Campaign, Scored, joined
from splavu.attacks.rows import AttackData, Rows
from splavu.audit.attributes.set_attackers import AttentionPooling, ClipSets
from splavu.audit.attributes.threat_models import run_threat_models
from splavu.audit.attributes.units import AuditUnit, known_only, set_attack, set_data, set_names
from splavu.audit.evaluator import AttackScore, Evaluator
from splavu.audit.identity.membership import before_quantizer
from splavu.audit.identity.run import learn_inverters
from splavu.audit.inputs import AuditInputs, read_inputs
from splavu.audit.run import AuditOptions
from splavu.data.private_labels import read_private_table
from splavu.errors import UserError
from splavu.metrics.estimates import Estimate, estimated
from splavu.reports.markdown import markdown_table
from splavu.runtime import cli
from splavu.runtime.progress import progress_bar

SMOOTHINGS = (0.5, 2.0, 8.0, 32.0)
"""Clips that the less exact guess counts for."""


class CodeLookup:
    """The odds of each attribute by code: those of single codebooks, or of their pairs, added up (naive Bayes), then
    those of all codes together where a training clip had the same. What is added up, and the smoothing, are chosen for
    each attribute on validation subjects."""

    def fit(self, codes: np.ndarray, labels: np.ndarray, validation: tuple[np.ndarray, np.ndarray]) -> CodeLookup:
        self.best_ = BestPerAttribute(labels.shape[1])
        for smoothing in SMOOTHINGS:
            for exact, pairs in itertools.product((False, True), repeat=2):
                guess = _Guess.of(codes, labels, smoothing, exact, pairs)
                self.best_.offer(metrics.average_precisions(validation[1], guess(validation[0])), guess)
        return self

    def scores(self, codes: np.ndarray) -> np.ndarray:  # [N, number of codebooks] -> [N, A]
        return self.best_.scores(codes)


@dataclass(frozen=True)
class _Guess:
    prior: np.ndarray
    """[A] log odds."""
    of_book: tuple[Mapping[int, np.ndarray], ...]
    """Of each codebook, or pair: code -> [A] log odds less the prior's."""
    of_all: Mapping[tuple[int, ...], tuple[np.ndarray, np.ndarray]]
    """All codes of a clip -> [A] clips with the attribute, and clips of which it is known."""
    smoothing: float
    pairs: bool

    @classmethod
    def of(cls, codes: np.ndarray, labels: np.ndarray, smoothing: float, exact: bool, pairs: bool) -> _Guess:
        known = ~np.isnan(labels)
        yes = np.where(known, labels, 0.0)
        share = np.clip(yes.sum(axis=0) / np.maximum(known.sum(axis=0), 1), 1e-3, 1 - 1e-3)
        books = []
        for column in _books(codes, pairs).T:
            odds = {}
            for code in np.unique(column).tolist():
                rows = column == code
                mean = (yes[rows].sum(axis=0) + smoothing * share) / (known[rows].sum(axis=0) + smoothing)
                odds[code] = _logit(mean) - _logit(share)
            books.append(odds)
        of_all = {}
        if exact:
            for code in np.unique(codes, axis=0):
                rows = (codes == code).all(axis=1)
                of_all[tuple(code.tolist())] = yes[rows].sum(axis=0), known[rows].sum(axis=0)
        return cls(_logit(share), tuple(books), of_all, smoothing, pairs)

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        scores = np.tile(self.prior, (len(codes), 1))
        for book, column in zip(self.of_book, _books(codes, self.pairs).T, strict=True):
            scores += np.stack([book.get(code, np.zeros_like(self.prior)) for code in column.tolist()])
        for row, code in enumerate(map(tuple, codes.tolist())):
            if code in self.of_all:
                yes, known = self.of_all[code]
                guess = 1 / (1 + np.exp(-np.clip(scores[row], -30, 30)))
                scores[row] = _logit((yes + self.smoothing * guess) / (known + self.smoothing))
        return scores


def _books(codes: np.ndarray, pairs: bool) -> np.ndarray:  # [N, number of codebooks] -> [N, of books or pairs]
    if not pairs or codes.shape[1] < 2:
        return codes
    first, second = np.triu_indices(codes.shape[1], 1)
    return codes[:, first] * 2**20 + codes[:, second]


def _logit(share: np.ndarray) -> np.ndarray:
    share = np.clip(share, 1e-6, 1 - 1e-6)
    return np.log(share / (1 - share))


class OneHotTrees:
    """Boosted trees on codes, a column for each centroid that more than one training clip has."""

    def fit(self, codes: np.ndarray, labels: np.ndarray, validation: tuple[np.ndarray, np.ndarray]) -> OneHotTrees:
        pairs = [np.unique(column, return_counts=True) for column in codes.T]
        self.kept_ = [values[counts > 1] for values, counts in pairs]
        self.trees_ = TreesAttacker().fit(self._columns(codes), labels, (self._columns(validation[0]), validation[1]))
        return self

    def scores(self, codes: np.ndarray) -> np.ndarray:
        return self.trees_.scores(self._columns(codes))

    def _columns(self, codes: np.ndarray) -> np.ndarray:
        columns = [column[:, None] == kept[None] for column, kept in zip(codes.T, self.kept_, strict=True)]
        return np.concatenate(columns, axis=1).astype(np.float32)


class SetTransformer(AttentionPooling):
    """Clips of a set attend to each other, then queries to them. Source: Lee et al. 2019, "Set Transformer"."""

    def build(self, feature_dim: int, num_attributes: int) -> nn.Module:
        return _Transformer(feature_dim, num_attributes, dropout=self.dropout)


class _Transformer(nn.Module):
    """[G, K, d] and a mask [G, K] -> logits [G, A]; attends over the K clips of a set."""

    def __init__(self, num_inputs: int, num_attributes: int, *, width: int = 64, dropout: float = 0.1) -> None:
        super().__init__()
        self.embed = nn.Linear(num_inputs, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout, batch_first=True, norm_first=True)
        self.clips = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.query = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.pool = nn.MultiheadAttention(width, 4, batch_first=True)
        self.answer = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, num_attributes))

    def forward(self, clips: Tensor, mask: Tensor) -> Tensor:
        inner = self.clips(self.embed(clips), src_key_padding_mask=~mask)
        query = self.query.expand(len(clips), -1, -1)
        pooled, _ = self.pool(query, inner, inner, key_padding_mask=~mask, need_weights=False)
        return self.answer(pooled[:, 0])


def attack_codes(name: str, data: AttackData, codes: Mapping[str, np.ndarray], num_seeds: int) -> Attack:
    """'lookup' or 'one-hot' on clips; no seed changes it.

    Args:
        codes: Split -> [N, number of codebooks].
    """
    attacker = {"lookup": CodeLookup, "one-hot": OneHotTrees}[name]()
    attacker.fit(codes["train"], data.train.labels, (codes["validation"], data.validation.labels))
    scores = (attacker.scores(codes[split]) for split in ("validation", "test"))
    return _attack(name, data, *(np.tile(one, (num_seeds, 1, 1)) for one in scores))


def attack_sets(data: AttackData, unit: AuditUnit, seeds: tuple[int, ...], kept: np.ndarray, **options) -> Attack:
    """The set transformer, on sets of a unit; attributes outside `kept` [A] are unknown."""
    sets = AttackData(**{split: known_only(rows, kept) for split, rows in set_data(data, unit).splits.items()})
    clips = {split: ClipSets.of(rows.features, set_names(rows, unit)) for split, rows in data.splits.items()}
    found = []
    for seed in seeds:
        attacker = SetTransformer(seed=seed, **options)
        attacker.fit(clips["train"], sets.train.labels, (clips["validation"], sets.validation.labels))
        found.append([attacker.scores(clips[split]) for split in ("validation", "test")])
    return _attack("set", sets, *(np.stack(of_split) for of_split in zip(*found, strict=True)))


def _attack(name: str, data: AttackData, tuned: np.ndarray, test: np.ndarray) -> Attack:  # [S, v, A], [S, n, A]
    rows = data.validation
    return Attack(
        (name,),
        data.test.labels,
        data.test.clusters,
        data.test.videos,
        test[:, None],
        np.array([[metrics.average_precisions(rows.labels, scores)] for scores in tuned]),
        Scored(rows.labels, rows.clusters, rows.videos, tuned[:, None]),
    )


def gain(attack: Attack, ensemble: Attack, evaluator: Evaluator) -> Estimate:
    """Mean AP of an attack less the ensemble's, over the attributes both are judged on, on the same draws."""
    own, other = (AttackScore.of(one, evaluator) for one in (attack, ensemble))
    both = ~np.isnan(own.precision) & ~np.isnan(other.precision)
    drawn = metrics.mean_known(np.where(both, own.drawn - other.drawn, np.nan))
    return estimated(float(np.mean((own.precision - other.precision)[both])), drawn, chance=0.0)


def compare(inputs: AuditInputs, codes: Mapping[str, np.ndarray], ensembles: Mapping[AuditUnit, Attack],
            evaluator: Evaluator, seeds: tuple[int, ...], **options) -> list[dict[str, object]]:  # fmt: skip
    """Every further attack at every unit beside the audit's ensemble there; `options` are the set transformer's."""
    of_clips = {name: attack_codes(name, inputs.released, codes, len(seeds)) for name in ("lookup", "one-hot")}
    rows = []
    for unit, ensemble in ensembles.items():
        kept = inputs.personal if unit == "person" else np.ones(ensemble.labels.shape[1], dtype=bool)
        attacks = dict(of_clips)
        if unit != "clip":
            attacks = {name: set_attack(known_only(attack, kept), unit) for name, attack in of_clips.items()}
            attacks["set"] = attack_sets(inputs.released, unit, seeds, kept, **options)
        for name, attack in attacks.items():
            with_it = joined({"audit": ensemble, "further": attack})
            rows.append(
                {
                    "unit": unit,
                    "attack": name,
                    "AP": _percent(Estimate(float(np.nanmean(attack.precision)))),
                    "AP of the audit": _percent(Estimate(float(np.nanmean(ensemble.precision)))),
                    "alone": _percent(gain(attack, ensemble, evaluator)),
                    "added": _percent(gain(with_it, ensemble, evaluator)),
                }
            )
    return rows


def _percent(one: Estimate) -> str:
    if not one.has_ends:
        return f"{100 * one.value:.1f}"
    return f"{100 * one.value:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"


def planted(attack: str, *, num_people: int = 120, clips: int = 8, seed: int = 0) -> tuple[AttackData, dict]:
    """A made release that one kind of attack should see through, and its codes by split; features are the codes.

    lookup    the parity of two codes: no codebook by itself knows anything
    one-hot   either of two codes, from the middle of the others
    set       whether a person's clips agree with each other: a clip by itself knows nothing, nor does the mean of many
    """
    generator, splits, codes = np.random.default_rng(seed), {}, {}
    for split in ("train", "validation", "test"):
        people = np.repeat([f"{split}-{place}" for place in range(num_people)], clips)
        found = generator.integers(0, 4, (len(people), 6))
        if attack == "lookup":
            label = (found[:, 0] + found[:, 1]) % 2
        elif attack == "one-hot":
            label = np.isin(found[:, 0], (1, 2)) & np.isin(found[:, 1], (1, 2))
        else:
            agrees = (np.arange(num_people) % 2).repeat(clips)
            one = generator.integers(0, 2, num_people).repeat(clips)
            balanced = generator.permuted(np.tile(np.arange(clips) % 2, (num_people, 1)), axis=1).ravel()
            found[:, 0], label = np.where(agrees, 2 * one, 2 * balanced) + generator.integers(0, 2, len(people)), agrees
        features = np.concatenate([found[:, [book]] == np.arange(4) for book in range(6)], axis=1)
        codes[split] = found
        splits[split] = Rows(features.astype(np.float32), label[:, None].astype(np.float32), people, people)
    return AttackData(**splits), codes


def planted_precision(attack: str, *, shuffled: bool = False, **options) -> tuple[float, float]:
    """AP of an attack on its planted leak, and the share of positives; `shuffled` exchanges labels between rows."""
    data, codes = planted(attack)
    if shuffled:
        order = np.random.default_rng(1)
        rows = {
            split: dataclasses.replace(one, labels=np.repeat(order.permutation(one.labels[::8]), 8, axis=0))
            for split, one in data.splits.items()
        }
        data = AttackData(**rows)
    if attack == "set":
        found = attack_sets(data, "person", (0,), np.ones(1, dtype=bool), **options)
    else:
        found = attack_codes(attack, data, codes, 1)
    return float(found.precision[0]), float(metrics.prevalences(found.labels)[0])


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.ArgumentParser(description=__doc__)
    parser.add_argument("--planted", action="store_true", help="show that each attack finds a leak planted for it")
    for name in ("raw", "released"):
        parser.add_argument(f"--{name}", nargs="+", default=[], metavar="STORE")
    parser.add_argument("--labels", type=Path, help="CSV: filename, subject, split, private attributes")
    parser.add_argument("--attributes", help="comma list of columns")
    parser.add_argument("--aam", type=Path, help="checkpoint of the anonymizer, which has a quantizer")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="the audit's quick families")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    if args.planted:
        rows = []
        for attack in ("lookup", "one-hot", "set"):
            (found, prevalence), (shuffled, _) = (planted_precision(attack, shuffled=s) for s in (False, True))
            rows.append({"attack": attack, "AP": found, "labels exchanged": shuffled, "chance": prevalence})
        columns = ("AP", "labels exchanged", "chance")
        print(
            markdown_table(("attack", *columns), [(r["attack"], *(f"{100 * r[c]:.1f}" for c in columns)) for r in rows])
        )
        return 0
    if not (args.raw and args.released and args.labels and args.aam):
        raise UserError("--raw, --released, --labels, --aam", "are needed", "or give --planted")
    inputs = read_inputs(args.released, read_private_table(args.labels, attributes=args.attributes), raw=args.raw)
    anonymizer, seeds = load_anonymizer(args.aam), tuple(range(args.seeds))
    found = {split: before_quantizer(anonymizer, rows.features) for split, rows in inputs.raw.splits.items()}
    if found["test"] is None:
        raise UserError(args.aam, "has no quantizer", "give an anonymizer that releases codes")
    codes = {split: one[2] for split, one in found.items()}
    options = AuditOptions.quickly(seeds=(0,)) if args.quick else AuditOptions(seeds=seeds)
    with progress_bar(desc="the audit's attacks", unit="fit") as progress:
        campaign = Campaign(options.families, options.seeds, options.max_train_rows, "row", "cpu", progress)
        attacked = run_threat_models(
            dataclasses.replace(inputs, keys={}),  # features alone: names are another matter
            campaign,
            inverters=learn_inverters(inputs),
            serve=array_map(anonymizer),
            set_attackers=options.set_families,
        )
    evaluator = Evaluator(
        inputs.questions,
        prior=metrics.prevalences(inputs.released.train.labels),
        num_resamples=options.num_resamples,
        num_swaps=100,
        margin=options.margin,
    )
    ensembles = {unit: attacked.released(unit) for unit in attacked.units}
    rows = compare(inputs, codes, ensembles, evaluator, options.seeds)
    print(markdown_table(tuple(rows[0]), [tuple(row.values()) for row in rows]))
    return 0


if __name__ == "__main__":
    cli.run(main)

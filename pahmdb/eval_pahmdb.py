"""Measure the privacy-utility trade-off of anonymizers on PA-HMDB51, next to raw features and to chance.

Attackers are trained on other films (out of fold) or on VISPR's images; a new head for action recognition is trained
on HMDB51's videos without annotations. Each anonymizer is a point of the curve. Raw features must
be attacked above chance, and no longer once films have swapped labels, or the exit code is 3; 4 says that the films are
too few to decide. The same command with the same inputs prints the stored result again.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Interval

from pahmdb.dl_pahmdb import ATTRIBUTES, LabelSet, PaHmdb51, read_dataset
from pahmdb.judgeable import Judgeable, beside_vispr, digest, judgeable
from pahmdb.report import draw_curve, report_section
from pahmdb.utility import HeadRecipe, Utility, head_hits, trade_off
from splavu import metrics
from splavu.anonymizers import Anonymizer, IdentityAnonymizer
from splavu.anonymizers.apply import FrozenAnonymizer, Serving, array_map
from splavu.anonymizers.loading import load_anonymizer, weights_hash
from splavu.attacks.campaign import Attack, Campaign, judged
from splavu.attacks.crossfit import CrossFitted, crossfit
from splavu.attacks.ensemble import STRONGEST
from splavu.attacks.gates import exit_code, gate, objections, state_of
from splavu.attacks.release_protocol import finite
from splavu.attacks.rows import AttackData, Rows, json_values
from splavu.errors import UserError
from splavu.reports.plotting import check_drawing
from splavu.runtime import cli, environment, params, run_folder
from splavu.runtime.progress import progress_bar
from splavu.runtime.schema import Clips, Count, Draws, Few, NonNegative, Positive, RunName, Schema, Seed, Seeds
from study import config
from study.models import feature_dim
from study.privacy import Attackers


@dataclass(frozen=True)
class PaHmdbParams(Schema):
    """Parameters of the evaluation; see params_pahmdb.py."""

    run_id: RunName
    ft_arch: str
    data_root: str | None = None
    """Another root than config.DATA, named from the repository's folder; its stores lie in features/ below it."""
    feature_dim: Count | None = None
    labels: LabelSet = "values"
    saved_fa_models: tuple[str, ...] = ()
    """Checkpoints of anonymizers; none evaluates raw features only."""
    saved_fa_model: str | None = None
    """One more."""
    num_heads: Few = 8
    """Of a published checkpoint, which doesn't record it."""
    serving: Serving = "alone"
    v_batch_size: Count = 1024
    attackers: Attackers = ("logistic", "mlp")
    seeds: Seeds = (0,)
    folds: Annotated[int, Ge(3)] = 5
    """One is held out and one tuned on."""
    transfer: bool = True
    """Also attackers trained on VISPR."""
    val_share: Annotated[float, Interval(gt=0, lt=1)] = 0.2
    """Share of VISPR's training images that validate."""
    max_train_rows: Count = 20_000
    num_resamples: Draws = 1000
    num_epochs: Count = 250
    """Of the head for action recognition, as are the next five."""
    batch_size: Count = 1024
    learning_rate: Positive = 1e-3
    weight_decay: NonNegative = 0.01
    num_modes: Clips = 5
    seed: Seed = 0
    """Also of how films are dealt into folds."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, default_params=Path(__file__).with_name("params_pahmdb.py"))
    parser.add_argument("--force", action="store_true", help="evaluate again although this result is stored")
    args = parser.parse_args(argv)
    cli.start(args)
    check_drawing()
    p = params.load(args.params, PaHmdbParams, args.set)
    device = environment.pick_device(args.device)
    width = feature_dim(p)
    points = load_points(p, width)
    data = read_dataset(encoder=p.ft_arch, feature_dim=width, data_root=p.data_root)
    if not data.others:
        problem = "every video with features is annotated, so there is none for a head to learn from"
        raise UserError(data.features.path, problem, "extract HMDB51's training videos too")
    films = judgeable(data.rows(p.labels), ATTRIBUTES[p.labels], p.folds)
    vispr = None
    if p.transfer:
        clips = judgeable(data.rows("vispr"), ATTRIBUTES["vispr"], p.folds)
        options = {"val_share": p.val_share, "max_rows": p.max_train_rows, "seed": p.seed}
        vispr = beside_vispr(clips, encoder=p.ft_arch, data_root=p.data_root, **options)

    run = run_folder.RunFolder(config.RUNS, p.run_id)
    hashes = {name: weights_hash(anonymizer) for name, anonymizer in points.items()}
    inputs = {"anonymizers": hashes, "data": digest(data, films, vispr), "strongest": STRONGEST}

    def evaluate_and_draw() -> dict[str, Any]:
        found = evaluate(p, data, films, vispr, points, run, device)
        draw_curve(found, run.path / "curve.png")
        return found

    result, stored = run.cached_result(
        p, inputs, evaluate_and_draw, key="pahmdb", table=report_section, force=args.force
    )
    if stored:
        print(f"stored result of {run.path} (--force evaluates again)\n")

    print(report_section(result))
    if not result["valid"]:
        print(objections(result["gates"]))
    return exit_code(state_of(found) for found in result["gates"])


def evaluate(
    p: PaHmdbParams,
    data: PaHmdb51,
    films: Judgeable,
    vispr: Judgeable | None,
    points: Mapping[str, Anonymizer],
    run: run_folder.RunFolder,
    device: torch.device,
) -> dict[str, Any]:
    """Attack raw features and each operating point's, train heads on them, and put both together.

    Args:
        films: What attackers who learn from other films are judged on.
        vispr: What attackers trained on VISPR are evaluated on; None leaves them out.
        points: The operating points by name.
    """
    started, rows = time.perf_counter(), films.rows
    anonymizers = {"raw": IdentityAnonymizer(data.features.feature_dim), **points}
    served = {name: FrozenAnonymizer(anonymizer.to(device), p.serving) for name, anonymizer in anonymizers.items()}
    options = {"serving": p.serving, "batch_size": p.v_batch_size, "device": device}
    serve = {name: finite(array_map(anonymizer, **options)) for name, anonymizer in anonymizers.items()}

    fits = p.folds * (len(serve) + 1) + (len(serve) if vispr else 0)
    with progress_bar(
        total=fits * len(p.seeds) * len(p.attackers), desc="attacks", unit="fit", dynamic_ncols=True
    ) as progress:
        campaign = Campaign(p.attackers, p.seeds, p.max_train_rows, "row", device, progress)

        def attack(some: Rows) -> CrossFitted:
            return crossfit(some, campaign, num_folds=p.folds, seed=p.seed)

        fitted = {name: attack(replace(rows, features=f(rows.features))) for name, f in serve.items()}
        swapped = attack(replace(rows, labels=swapped_labels(rows, seed=p.seed)))
        carried = {}
        if vispr:
            images = AttackData(*vispr.elsewhere, vispr.rows)
            carried = {name: campaign.run([images.mapped(f)] * len(p.seeds)) for name, f in serve.items()}

    attacks = {name: found.attack for name, found in fitted.items()}
    gates = [
        gate("other films", "raw features are attacked above chance", attacks["raw"], True, p.num_resamples),
        gate("other films", "swapped labels are not", swapped.attack, False, p.num_resamples),
    ]
    recipe = HeadRecipe(p.seed, p.num_epochs, p.batch_size, p.learning_rate, p.weight_decay, p.num_modes)
    hits = {
        name: head_hits(data, s, recipe, run_folder.RunFolder(run.path, f"head_{name}"), device)
        for name, s in served.items()
    }
    utility = Utility.of(data, hits, attacks["raw"], p.num_resamples)
    return json_values(
        {
            "valid": all(found["passed"] for found in gates),
            "gates": gates,
            "served": p.serving,
            "labels": p.labels,
            "attributes": list(films.attributes),
            "too_rare": {"cross_fitted": films.too_rare, "transfer": vispr.too_rare if vispr else ()},
            "attackers": list(p.attackers),
            "seeds": list(p.seeds),
            "folds": p.folds,
            "num_resamples": p.num_resamples,
            "clips": len(rows),
            "videos": len(data.annotated),
            "films": len(np.unique(rows.clusters)),
            "other_videos": len(data.others),
            "checkpoints": dict(zip(points, checkpoints(p), strict=True)),
            "cross_fitted": beside_raw(attacks, films.attributes, p.num_resamples),
            "strongest": {
                name: {column: [of_fold[a] for of_fold in found.strongest] for a, column in enumerate(films.attributes)}
                for name, found in fitted.items()
            },
            "transfer": beside_raw(carried, vispr.attributes, p.num_resamples) if vispr else {},
            "transfer_rows": [len(part) for part in vispr.elsewhere] if vispr else [],
            "action": {"num_modes": p.num_modes, **utility.judged()},
            "curve": trade_off(attacks, utility, p.num_resamples),
            "seconds": round(time.perf_counter() - started, 1),
        }
    )


def beside_raw(attacks: Mapping[str, Attack], attributes: Sequence[str], num_resamples: int) -> dict[str, Any]:
    """Each representation's average precisions and leakage, next to those of raw features."""
    released = {name: {"anonymized": attack} for name, attack in attacks.items() if name != "raw"}
    every = {"raw": {}, **released} if attacks else {}
    return {name: judged({"raw": attacks["raw"], **other}, attributes, num_resamples) for name, other in every.items()}


def swapped_labels(rows: Rows, *, seed: int) -> np.ndarray:  # -> [N, A]
    """Labels that films have lent each other, whole: nothing is left to learn but who is who."""
    lenders = metrics.cluster_permutations(rows.clusters, num_permutations=1, seed=seed)
    return rows.labels[metrics.permute_cluster_labels(rows.clusters, rows.videos, lenders)[0]]


def checkpoints(p: PaHmdbParams) -> tuple[str, ...]:
    """The operating points' files, in the order of params."""
    return p.saved_fa_models + ((p.saved_fa_model,) if p.saved_fa_model is not None else ())


def load_points(p: PaHmdbParams, width: int) -> dict[str, Anonymizer]:
    """The anonymizers by the names of their run folders, with the file's name where two would be called alike.

    Raises:
        UserError: A file is no checkpoint, is of another width, or holds the same weights as another.
    """
    paths = [Path(path) for path in checkpoints(p)]
    folders = [path.parent.name for path in paths]
    points: dict[str, Anonymizer] = {}
    path_of_hash: dict[str, Path] = {}
    for path in paths:
        anonymizer = load_anonymizer(path, num_heads=p.num_heads)
        if (found := anonymizer.architecture["feature_dim"]) != width:
            problem = f"anonymizes features {found} wide, {p.ft_arch} gives {width}"
            raise UserError(path, problem, "name the encoder that the anonymizer was trained for")
        if (same := path_of_hash.setdefault(weights_hash(anonymizer), path)) is not path:
            problem = f"holds the same weights as {same}: one operating point twice"
            raise UserError(path, problem, "name each checkpoint once")
        alone = path.parent.name and folders.count(path.parent.name) == 1 and path.parent.name != "raw"
        name = path.parent.name if alone else f"{path.parent.name}_{path.stem}".lstrip("_")
        points[name if name not in points else f"{name}_{len(points) + 1}"] = anonymizer
    return points


if __name__ == "__main__":
    cli.run(main)

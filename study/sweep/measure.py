"""What a sweep measures: each candidate and seed once, on validation subjects, in processes of their own.

Note: a measurement is kept beside the checkpoint, and identified by the weights, the data and the settings behind it. A
second sweep measures only what has changed.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Interval, MinLen
from threadpoolctl import threadpool_limits

from splavu.anonymizers import array_map
from splavu.anonymizers.guarantees import budget_of
from splavu.anonymizers.loading import load_anonymizer, weights_hash
from splavu.attacks.ensemble import STRONGEST
from splavu.errors import UserError
from splavu.runtime import params, run_folder, signals
from splavu.runtime.files import write_bytes
from splavu.runtime.progress import progress_bar
from splavu.runtime.schema import Count, RunName, Schema, Seeds
from splavu.runtime.workers import worker_processes
from splavu.tuning import operating_points
from splavu.tuning.operating_points import Bench, Measurement, Point
from study import config
from study.datasets.loading import dataset_spec, open_dataset, privacy_rows
from study.datasets.untrimmed import untrimmed_spec
from study.experiments.candidates import LEFT_OUT, Candidate
from study.privacy import Attackers
from study.sweep.long_videos import with_anomalies, with_moments
from study.training.anonymizer import shown_actions
from study.training.anonymizer_params import AnonymizerParams

RAW = "raw"


@dataclass(frozen=True)
class SweepParams(Schema):
    """Parameters of a sweep; see params/params_sweep.py."""

    run_id: RunName
    """Folder below config.RUNS: a run folder for each candidate, and what comes out."""
    base: str
    """Parameter file of multitask_train_fa.py that candidates start from; it names the data, too."""
    candidates: Annotated[tuple, MinLen(1)]
    """Settings over those of `base`, an entry a family (`study/experiments/candidates.py`)."""
    baselines: tuple = ()
    """Likewise; shown, but never chosen."""
    data_root: str | None = None
    """Another one than that of `base`."""
    probes: tuple[Literal["unseen", "moments", "anomalies"], ...] = ("unseen", "moments", "anomalies")
    """Uses besides actions (`splavu.tuning.linear_probes`): 'unseen' makes each candidate once more
    from half of the actions, and asks for the others; 'moments' and 'anomalies'
    are on training videos of tad_dataset and ad_dataset."""
    tad_dataset: str = "thumos14"
    tad_config: str = "tridet/thumos_demo.yaml"
    """Says how steps lie in time."""
    ad_dataset: str = "ucf_crime"
    seeds: Seeds = (0, 1, 2)
    """Of trainings, of attackers, and of dealing training subjects to learn from and to tune on."""
    attackers: Attackers = ("logistic", "mlp", "kernel", "knn")
    """Families, fresh for each candidate and seed; an ensemble of them counts for each attribute."""
    most_lost: float = 2.0
    """Points that the chosen one may lose of top-1, and of each probe; below 0: has to gain."""
    num_resamples: Annotated[int, Interval(ge=100, le=100_000)] = 1000
    """Fewer give no interval."""
    max_train_rows: Count = 20_000
    """Attackers learn from a draw of as many clips."""


@dataclass(frozen=True)
class MeasurementJob:
    """One candidate and seed to be measured."""

    name: str
    seed: int
    checkpoint: Path | None
    """None: raw features."""
    target: Path
    """Where the measurement is kept."""
    twin: Path | None
    """Of the candidate that wasn't shown some of the actions; None: raw features."""
    left_out: frozenset[int]
    """Those actions; empty where nobody asks."""


def seeds_of(candidate: Candidate, p: SweepParams) -> tuple[int, ...]:
    """Its own, or the sweep's."""
    return candidate.seeds or p.seeds


def with_twin(candidate: Candidate, p: SweepParams) -> tuple[Candidate, ...]:
    """What has to be made of a candidate."""
    return (candidate, candidate.twin) if "unseen" in p.probes else (candidate,)


def measure(
    made: Sequence[Candidate], p: SweepParams, run: run_folder.RunFolder, settings: Mapping[str, Any], *, jobs: int
) -> dict[tuple[str, int], Measurement]:
    """Name and seed -> what was found; what was found before, of the same weights and data, is read."""
    left_out = {seed: left_out_actions(p, settings, seed) for seed in p.seeds}
    tasks = [
        MeasurementJob(RAW, seed, None, run.path / RAW / f"measured-s{seed}.npz", None, left_out[seed])
        for seed in p.seeds
    ]
    for candidate in made:
        for seed in seeds_of(candidate, p):
            checkpoint, twin = (one.checkpoint(run.path, seed) for one in (candidate, with_twin(candidate, p)[-1]))
            target = checkpoint.parent / f"measured-s{seed}.npz"
            tasks.append(MeasurementJob(candidate.name, seed, checkpoint, target, twin, left_out[seed]))
    with worker_processes(jobs, _alone) as pool:
        measured = pool.map(functools.partial(measured_once, settings), tasks)
        found = {}
        for task, one in zip(
            tasks, progress_bar(measured, total=len(tasks), desc="measured", dynamic_ncols=True), strict=True
        ):
            found[task.name, task.seed] = one
    return found


def left_out_actions(p: SweepParams, settings: Mapping[str, Any], seed: int) -> frozenset[int]:
    """What a candidate's twin of this seed is not shown."""
    if "unseen" not in p.probes:
        return frozenset()
    base = params.read_file(config.HERE / p.base)
    changes = {"seed": seed, "data_root": settings["data_root"], "left_out_actions": LEFT_OUT}
    shown = shown_actions(params.build(AnonymizerParams, {**base, **changes}, source=p.base))
    return frozenset(bench_of(settings).classes.values()) - shown


def bench_params(p: SweepParams) -> dict[str, Any]:
    """What decides a measurement besides the candidate and its seed, as JSON values.

    Raises:
        UserError: A store or a table isn't there.
    """
    base = params.build(AnonymizerParams, params.read_file(config.HERE / p.base), source=p.base)
    root = base.data_root if p.data_root is None else p.data_root
    if base.ar_dataset is None:
        raise UserError(p.base, "names no ar_dataset, whose people judge candidates", "add ar_dataset = ...")
    spec = dataset_spec(base.ar_dataset, data_root=root)
    spec.check_split(base.val_split, name="val_split", remedy="a sweep chooses on people who are not tested on")
    if base.val_split == "test":
        raise UserError("val_split", "is 'test': a sweep would choose on the test people", "name another split")
    _, features = config.roots(root)
    stores = {name: str(spec.store_path(features, name, base.ft_arch)) for name in ("train", base.val_split)}
    for path in stores.values():
        if not Path(path).is_file():
            raise UserError(path, "no such store of features", "extract it, or name another data_root")
    long_videos = {"moments": p.tad_dataset, "anomalies": p.ad_dataset}
    for row in (long_videos[probe] for probe in p.probes if probe in long_videos):
        for path in untrimmed_spec(row).paths(base.ft_arch, root):
            if not path.exists():
                raise UserError(path, "isn't there, and a probe reads it", "make it, or leave the probe out of probes")
    return {
        "dataset": base.ar_dataset,
        "probes": list(p.probes),
        "long_videos": [p.tad_dataset, p.tad_config, p.ad_dataset],
        "encoder": base.ft_arch,
        "data_root": root,
        "val_split": base.val_split,
        "attackers": list(p.attackers),
        "strongest": STRONGEST,
        "num_resamples": p.num_resamples,
        "max_train_rows": p.max_train_rows,
    }


def _alone() -> None:
    """One thread a process: several processes, each with a thread a core, are slower than one."""
    torch.set_num_threads(1)
    threadpool_limits(1)


def bench_of(settings: Mapping[str, Any]) -> Bench:
    """The people and their features, read once a process; `settings` as of `bench_params`."""
    return _bench_read_by(
        json.dumps({name: value for name, value in settings.items() if name != "data"}, sort_keys=True)
    )


@functools.cache
def _bench_read_by(settings: str) -> Bench:
    s = json.loads(settings)
    rows, classes, attributes = {}, {}, ()
    for split in ("train", s["val_split"]):
        rows[split], attributes = privacy_rows(
            s["dataset"], split, "temporal", encoder=s["encoder"], data_root=s["data_root"]
        )
        videos = open_dataset(s["dataset"], split, encoder=s["encoder"], data_root=s["data_root"])
        classes |= dict(zip(videos.keys, videos.labels.tolist(), strict=True))
    train, judged = (_labelled(rows[split], classes) for split in ("train", s["val_split"]))
    options = {"num_resamples": s["num_resamples"], "max_train_rows": s["max_train_rows"]}
    tad_dataset, tad_config, ad_dataset = s["long_videos"]
    read = {
        "moments": lambda: with_moments(tad_dataset, s["encoder"], tad_config, s["data_root"]),
        "anomalies": lambda: with_anomalies(ad_dataset, s["encoder"], s["data_root"]),
    }
    long_videos = {probe: read[probe]() for probe in s["probes"] if probe in read}
    return Bench(train, judged, classes, long_videos, tuple(s["attackers"]), attributes=attributes, **options)


def _labelled(rows: Any, classes: Mapping[str, int]) -> Any:
    """Those rows whose action is known: head and attackers are to meet the same videos."""
    return rows.take(np.flatnonzero([video in classes for video in rows.videos]))


def measured_once(settings: Mapping[str, Any], task: MeasurementJob) -> Measurement:
    """The measurement of a task, and kept; or the one that was kept."""
    both = [None if path is None else load_anonymizer(path) for path in (task.checkpoint, task.twin)]
    weights = [None if one is None else weights_hash(one) for one in both]
    stamp = {**settings, "seed": task.seed, "weights": weights[0], "twin": weights[1] if task.left_out else None}
    stamp = json.dumps(stamp, sort_keys=True)
    if task.target.is_file():
        with np.load(task.target, allow_pickle=False) as kept:
            if kept["stamp"].item().replace('"neighbours"', '"knn"') == stamp:  # the attacker's former name
                return Measurement.of({name: kept[name] for name in kept.files if name != "stamp"})
    serve, other = (np.asarray if one is None else array_map(one) for one in both)
    bench = bench_of(settings)
    found = bench.measure(serve, seed=task.seed, unseen=(other, task.left_out) if task.left_out else None)
    content = io.BytesIO()
    np.savez(content, stamp=np.asarray(stamp), **found.arrays())
    write_bytes(task.target, content.getvalue())
    signals.work_is_kept()
    return found


def point_of(
    candidate: Candidate,
    found: Mapping[tuple[str, int], Measurement],
    p: SweepParams,
    run: run_folder.RunFolder,
    settings: Mapping[str, Any],
    *,
    eligible: bool,
) -> Point:
    """A candidate over all seeds."""
    seeds = seeds_of(candidate, p)
    architecture = load_anonymizer(candidate.checkpoint(run.path, seeds[0])).architecture
    return operating_points.point(
        candidate.name,
        candidate.family,
        [found[candidate.name, seed] for seed in seeds],
        [found[RAW, seed] for seed in seeds],
        budget=budget_of(architecture),
        eligible=eligible,
        attributes=bench_of(settings).attributes,
    )

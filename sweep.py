"""Operating points of an anonymizer: which weights, ranks and budgets of bits give how much privacy for how much use.

    python -m splavu sweep                                    # params/params_sweep.py, on the demo's features
    python -m splavu sweep --params my_sweep.py --jobs 4      # killed, the same command goes on

Every candidate is made, then attacked afresh and put to a fresh head, on *validation* people, for each seed. What comes
out: table and curves (sweep.md, sweep.json), the Pareto front, the normalised hypervolume of each family, and the point
to use as a parameter file (chosen.py): the one that gives away least of those that keep the action within `most_lost`
points of raw features. Baselines are shown, and never chosen. Test people are not read; audit the chosen one on them.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import config
from candidates import LEFT_OUT, Candidate, candidates
from feature_dl import dataset_spec, open_dataset, privacy_rows
from long_videos_of_use import with_anomalies, with_moments
from multitask_train_fa import AnonymizerParams, shown_actions
from reproduction_runs import Outcome, run_all
from splavu import cli, operating_points, params, runs
from splavu.anonymize import load_anonymizer, weights_hash
from splavu.attackers import ATTACKERS
from splavu.audit.examination import served_alone
from splavu.errors import UserError, nearest
from splavu.guarantees import budget_of
from splavu.operating_points import Bench, Measured, Point
from splavu.tables import table
from untrimmed import untrimmed_spec

RAW = "raw"
PARAMS = "params/params_sweep.py"


@dataclass(frozen=True)
class SweepParams:
    """Parameters of a sweep; see params/params_sweep.py."""

    run_id: str
    """Folder below config.RUNS: a run folder for each candidate, and what comes out."""
    base: str
    """Parameter file of multitask_train_fa.py that candidates start from; it names the data, too."""
    candidates: tuple
    """Settings over those of `base`, an entry a family (`candidates.py`)."""
    baselines: tuple = ()
    """Likewise; shown, but never chosen."""
    data_root: str | None = None
    """Another one than that of `base`."""
    probes: tuple[Literal["unseen", "moments", "anomalies"], ...] = ("unseen", "moments", "anomalies")
    """Uses besides actions (`splavu.use_probes`): 'unseen' makes each candidate once more from half of the actions, and
    asks for the others; 'moments' and 'anomalies' are on training videos of tad_dataset and ad_dataset."""
    tad_dataset: str = "thumos14"
    tad_config: str = "tridet/thumos_demo.yaml"
    """Says how steps lie in time."""
    ad_dataset: str = "ucf_crime"
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of trainings, of attackers, and of dealing training people to learn from and to tune on."""
    attackers: tuple[str, ...] = ("logistic", "mlp", "kernel", "neighbours")
    """Families, fresh for each candidate and seed; the strongest of each attribute counts."""
    most_lost: float = 2.0
    """Points that the chosen one may lose of top-1, and of each probe."""
    num_resamples: int = 1000
    max_train_rows: int = 20_000
    """Attackers learn from a draw of as many clips."""

    def __post_init__(self) -> None:
        if not self.candidates:
            raise UserError("candidates", "are none", 'write {"fa_arch": ...}')
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError("seeds", f"{self.seeds} are none, or one twice", "seeds = (0, 1, 2)")
        for name in self.attackers:
            if name not in ATTACKERS:
                raise UserError("attackers", f"'{name}' is unknown", nearest(name, ATTACKERS))
        if not self.attackers:
            raise UserError("attackers", "are none", f"known: {', '.join(ATTACKERS)}")
        if self.num_resamples < 100:
            raise UserError("num_resamples", f"{self.num_resamples} give no interval", "give 100 at least")


@dataclass(frozen=True)
class Task:
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


def main(argv: Sequence[str] | None = None) -> int:
    """0: every candidate has been measured, and one was chosen. 1: none was, or some could not be made."""
    parser = cli.parser(__doc__, default_params=PARAMS)
    parser.prog = "splavu sweep"
    parser.add_argument("--jobs", type=int, default=2, help="candidates at a time, one thread each (default 2)")
    args = parser.parse_args(argv)
    cli.start(args)
    if args.jobs < 1:
        raise UserError("--jobs", f"is {args.jobs}, expected at least 1")
    p = params.load(args.params, SweepParams, args.set)
    run = runs.RunFolder(config.RUNS, p.run_id)
    families = {c.name: c for c in candidates(p.candidates, p.base)}
    baselines = {c.name: c for c in candidates(p.baselines, p.base)}
    if twice := families.keys() & baselines.keys():
        raise UserError("baselines", f"'{min(twice)}' is a candidate too", "leave it out")
    if closed := [c.name for c in families.values() if c.method]:
        problem = f"'{closed[0]}' is a closed form of splavu fit, which no parameter file makes"
        raise UserError("candidates", problem, "list it among the baselines, or write it as a recipe: fa_arch = ...")
    everyone = [*families.values(), *baselines.values()]
    for candidate in everyone:
        if candidate.seeds is not None and not (isinstance(candidate.seeds, tuple) and candidate.seeds):
            raise UserError("seeds", f"of '{candidate.name}' are {candidate.seeds!r}", "write a tuple such as (0, 1)")
        if strange := set(seeds_of(candidate, p)) - set(p.seeds):
            raise UserError("seeds", f"of '{candidate.name}' hold {min(strange)}, the sweep's don't", "add it to seeds")
    settings = bench_params(p)
    bench = bench_of(_read_by(settings))  # read here too: a fault shows before anything is trained
    settings["data"] = bench.fingerprint
    run.record(p)

    outcomes = make(everyone, p, run, jobs=args.jobs, device=args.device, quiet=args.quiet)
    made = [c for c in everyone if not faults(c, outcomes, p)]
    found = measure(made, p, run, settings, jobs=args.jobs)
    points = [point_of(c, found, p, run, eligible=c.name in families) for c in made]
    text, chosen = conclude(points, families, p, run)
    print(text)
    for candidate in everyone:
        for failed in faults(candidate, outcomes, p)[:1]:
            print(f"{candidate.name}: could not be made ({failed.detail or failed.state})")
    print(f"\nsweep: {run.path / 'sweep.md'}")
    return 0 if chosen and len(made) == len(everyone) else 1


def seeds_of(candidate: Candidate, p: SweepParams) -> tuple[int, ...]:
    """Its own, or the sweep's."""
    return candidate.seeds or p.seeds


def with_twin(candidate: Candidate, p: SweepParams) -> tuple[Candidate, ...]:
    """What has to be made of a candidate."""
    return (candidate, candidate.twin) if "unseen" in p.probes else (candidate,)


def faults(candidate: Candidate, outcomes: Mapping[str, Outcome], p: SweepParams) -> list[Outcome]:
    """Of what couldn't be made of a candidate."""
    every = (outcomes[one.folder(seed)] for seed in seeds_of(candidate, p) for one in with_twin(candidate, p))
    return [one for one in every if one.state != "done"]


def make(
    everyone: Sequence[Candidate], p: SweepParams, run: runs.RunFolder, *, jobs: int, device: str, quiet: bool
) -> dict[str, Outcome]:
    """Run what makes the candidates; run folder -> how it went."""
    changes = {} if p.data_root is None else {"data_root": p.data_root}
    wanted = {}
    for candidate in everyone:
        for seed in seeds_of(candidate, p):
            for one in with_twin(candidate, p):
                job = one.job(run.path.resolve(), Path(config.RUNS).resolve(), seed=seed, **changes)
                wanted.setdefault(job.name, job)
    environment = {"SPLAVU_DATA": str(config.DATA), "SPLAVU_FEATURES": str(config.FEATURES)}
    environment = {name: str(Path(path).resolve()) for name, path in environment.items()}
    environment["SPLAVU_RUNS"] = str(Path(config.RUNS).resolve())
    return run_all(list(wanted.values()), run.path.resolve(), environment, at_once=jobs, device=device, quiet=quiet)


def measure(
    made: Sequence[Candidate], p: SweepParams, run: runs.RunFolder, settings: Mapping[str, Any], *, jobs: int
) -> dict[tuple[str, int], Measured]:
    """Name and seed -> what was found; what was found before, of the same weights and data, is read."""
    left_out = {seed: left_out_actions(p, settings, seed) for seed in p.seeds}
    tasks = [Task(RAW, seed, None, run.path / RAW / f"measured-s{seed}.npz", None, left_out[seed]) for seed in p.seeds]
    for candidate in made:
        for seed in seeds_of(candidate, p):
            checkpoint, twin = (one.checkpoint(run.path, seed) for one in (candidate, with_twin(candidate, p)[-1]))
            target = checkpoint.parent / f"measured-s{seed}.npz"
            tasks.append(Task(candidate.name, seed, checkpoint, target, twin, left_out[seed]))
    context = get_context("spawn")  # a copy of a process whose thread pools have run may wait for ever
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_alone) as pool:
        measured = pool.map(functools.partial(measured_once, settings), tasks)
        found = {}
        for task, one in zip(tasks, tqdm(measured, total=len(tasks), desc="measured", dynamic_ncols=True), strict=True):
            found[task.name, task.seed] = one
    return found


def left_out_actions(p: SweepParams, settings: Mapping[str, Any], seed: int) -> frozenset[int]:
    """What a candidate's twin of this seed is not shown."""
    if "unseen" not in p.probes:
        return frozenset()
    base = params.read_file(config.HERE / p.base)
    changes = {"seed": seed, "data_root": settings["data_root"], "left_out_actions": LEFT_OUT}
    shown = shown_actions(params.build(AnonymizerParams, {**base, **changes}, source=p.base))
    bench = bench_of(_read_by(settings))
    return frozenset(bench.classes.values()) - shown


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
        "num_resamples": p.num_resamples,
        "max_train_rows": p.max_train_rows,
    }


def _alone() -> None:
    """One thread a process: several processes, each with a thread a core, are slower than one."""
    torch.set_num_threads(1)
    threadpool_limits(1)


def _read_by(settings: Mapping[str, Any]) -> str:
    """The settings that say what is read, as a key."""
    return json.dumps({name: value for name, value in settings.items() if name != "data"}, sort_keys=True)


@functools.cache
def bench_of(settings: str) -> Bench:
    """The people and their features, read once a process."""
    s = json.loads(settings)
    rows, classes = {}, {}
    for split in ("train", s["val_split"]):
        rows[split], _ = privacy_rows(s["dataset"], split, "temporal", encoder=s["encoder"], data_root=s["data_root"])
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
    return Bench(train, judged, classes, long_videos, tuple(s["attackers"]), **options)


def _labelled(rows: Any, classes: Mapping[str, int]) -> Any:
    """Those rows whose action is known: head and attackers are to meet the same videos."""
    return rows.take(np.flatnonzero([video in classes for video in rows.videos]))


def measured_once(settings: Mapping[str, Any], task: Task) -> Measured:
    """The measurement of a task, and kept; or the one that was kept."""
    both = [None if path is None else load_anonymizer(path) for path in (task.checkpoint, task.twin)]
    weights = [None if one is None else weights_hash(one) for one in both]
    stamp = {**settings, "seed": task.seed, "weights": weights[0], "twin": weights[1] if task.left_out else None}
    stamp = json.dumps(stamp, sort_keys=True)
    if task.target.is_file():
        with np.load(task.target, allow_pickle=False) as kept:
            if kept["stamp"].item() == stamp:
                return Measured.of({name: kept[name] for name in kept.files if name != "stamp"})
    serve, other = (np.asarray if one is None else served_alone(one, "cpu") for one in both)
    bench = bench_of(_read_by(settings))
    found = bench.measure(serve, seed=task.seed, unseen=(other, task.left_out) if task.left_out else None)
    content = io.BytesIO()
    np.savez(content, stamp=np.asarray(stamp), **found.arrays())
    runs.write_bytes(task.target, content.getvalue())
    return found


def point_of(
    candidate: Candidate,
    found: Mapping[tuple[str, int], Measured],
    p: SweepParams,
    run: runs.RunFolder,
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
    )


def conclude(
    points: Sequence[Point], families: Mapping[str, Candidate], p: SweepParams, run: runs.RunFolder
) -> tuple[str, Point | None]:
    """Write sweep.json, sweep.md, the figure and chosen.py; the text of sweep.md, and what was chosen."""
    from splavu.sweep_figures import trade_offs  # needs Matplotlib

    chosen = operating_points.choose(points, most_lost=p.most_lost / 100)
    if chosen:
        runs.write_text(run.path / "chosen.py", chosen_file(families[chosen.name], chosen, p))
    else:
        (run.path / "chosen.py").unlink(missing_ok=True)  # of an earlier sweep
    on_front = {one.name for one in operating_points.front([one for one in points if one.eligible])}
    areas = {"all candidates": operating_points.area([one for one in points if one.eligible])}
    for family in dict.fromkeys(one.family for one in points):
        areas[family] = operating_points.area([one for one in points if one.family == family])
    name = chosen.name if chosen else None
    trade_offs(points, run.path / "sweep.png", chosen=name, most_lost=p.most_lost / 100)
    run.write_json(
        "sweep.json",
        {
            "points": [
                {name: value for name, value in vars(one).items() if name != "draws"}
                | {"linkage": vars(one.linkage)}
                | {
                    name: {key: vars(found) for key, found in getattr(one, name).items()}
                    for name in ("leakage", "uses", "lost")
                }
                for one in points
            ],
            "front": sorted(on_front),
            "chosen": name,
            "hypervolume": {family: vars(found) for family, found in areas.items()},
            "definition": operating_points.tradeoff.DEFINITION,
        },
    )
    text = markdown(points, on_front, chosen, areas, p)
    runs.write_text(run.path / "sweep.md", text + "\n")
    return text, chosen


def markdown(
    points: Sequence[Point], on_front: Iterable[str], chosen: Point | None, areas: Mapping[str, Any], p: SweepParams
) -> str:
    """Tables for people."""
    probes = ["actions", *p.probes]
    header = ["candidate", "leakage, clips", "leakage, videos", "people linked", *probes, "bits", ""]
    rows = []
    for one in sorted(points, key=lambda q: q.worst.value):
        marks = ["chosen"] if one is chosen else ["front"] if one.name in on_front else []
        marks += [] if one.eligible else ["baseline"]
        bits = "no bound" if one.budget is None else f"{one.budget:.1f}"
        bits += "" if math.isnan(one.entropy) else f" (used {one.entropy:.1f}, {one.distinct:.0f} vectors)"
        shares = [_percent(e) for e in (*one.leakage.values(), one.linkage)]
        uses = [f"{100 * one.uses[p].value:.1f} ({_change(one.lost[p])})" for p in probes]
        rows.append([one.name, *shares, *uses, bits, ", ".join(marks)])
    volumes = [[family, f"{v.value:.3f} [{v.low:.3f}, {v.high:.3f}]"] for family, v in areas.items()]
    parts = [
        "# Operating points\n",
        f"Chosen: **{chosen.name}**, in chosen.py: gives away least of those that lose {p.most_lost:g} points at most, "
        "of each use.\n"
        if chosen
        else f"Chosen: none, for every candidate loses more than {p.most_lost:g} points of some use.\n",
        table(header, rows),
        "Leakage is the excess of the strongest attackers' average precision over chance, linkage that of rank-1, each "
        "as a share of raw features'. Uses, in per cent, and in brackets what is gained or lost against raw features: "
        "top-1 of actions, and of those that the anonymizer, made once more, was not shown (unseen), mean average "
        "precision of moments, ROC-AUC of anomalies, all by linear heads "
        "(`splavu/use_probes.py`). On validation people (long videos: on training videos held out), "
        f"mean over seeds {', '.join(map(str, p.seeds))}; brackets hold 95 %, from draws of people and seeds.\n",
        "![Use against leakage, and both against the budget of bits](sweep.png)\n",
        "## Normalised hypervolume\n",
        table(["family", "hypervolume"], volumes),
        operating_points.tradeoff.DEFINITION + ". The metric is that of the use that keeps least.",
    ]
    return "\n".join(parts)


def chosen_file(candidate: Candidate, chosen: Point, p: SweepParams) -> str:
    """The candidate's parameters as a file for multitask_train_fa.py."""
    defaults = {f.name: f.default for f in dataclasses.fields(AnonymizerParams)}
    changes = {} if p.data_root is None else {"data_root": p.data_root}
    seed = seeds_of(candidate, p)[0] if candidate.needs_seed else 0  # as it was made to be measured
    resolved = candidate.parameters(seed=seed, run_id=f"{p.run_id}/chosen", **changes)
    times = f"{chosen.num_seeds} seed{'s' * (chosen.num_seeds > 1)}"
    lines = [
        f"# Chosen by `python -m splavu sweep` on validation people, {times}: gives away least of",
        f"# those that lose {p.most_lost:g} points at most, of each use. In shares of what raw features give away:",
        f"#   leakage of clips {_percent(chosen.leakage['clip'])} %, of videos {_percent(chosen.leakage['video'])} %,",
        f"#   linked people {_percent(chosen.linkage)} %; against raw features, in points:",
        "#   " + ", ".join(f"{name} {_change(lost)}" for name, lost in chosen.lost.items()),
        "",
    ]
    for name, default in defaults.items():
        value = getattr(resolved, name)
        if value != default:
            lines.append(f"{name} = {value!r}")
    return "\n".join(lines) + "\n"


def _percent(found: Any) -> str:
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _change(lost: Any) -> str:
    value, low, high = (100 * (0 - part) for part in (lost.value, lost.high, lost.low))  # no -0.0
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


if __name__ == "__main__":
    cli.run(main)

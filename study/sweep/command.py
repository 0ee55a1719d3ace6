"""Makes and measures every candidate, and chooses an operating point (`study.commands.sweep`)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from splavu.errors import UserError
from splavu.reports.plotting import check_drawing
from splavu.runtime import params, run_folder
from study import config
from study.experiments.candidates import Candidate, candidates
from study.experiments.runner import Outcome, run_all, surroundings
from study.sweep.measure import SweepParams, bench_of, bench_params, measure, point_of, seeds_of, with_twin
from study.sweep.results import conclude


def run(args: argparse.Namespace) -> int:
    """0: every candidate has been measured, and one was chosen. 1: none was, or some could not be made."""
    check_drawing()
    p = params.load(args.params, SweepParams, args.set)
    run = run_folder.RunFolder(config.RUNS, p.run_id)
    families = {c.name: c.as_parameters for c in candidates(p.candidates, p.base)}
    baselines = {c.name: c for c in candidates(p.baselines, p.base)}
    if twice := families.keys() & baselines.keys():
        raise UserError("baselines", f"'{min(twice)}' is a candidate too", "leave it out")
    everyone = [*families.values(), *baselines.values()]
    for candidate in everyone:
        if strange := set(seeds_of(candidate, p)) - set(p.seeds):
            raise UserError("seeds", f"of '{candidate.name}' hold {min(strange)}, the sweep's don't", "add it to seeds")
    settings = bench_params(p)
    settings["data"] = bench_of(settings).fingerprint  # read here too: a fault shows before anything is trained
    with run.held():
        run.record(p)
        outcomes = make(everyone, p, run, jobs=args.jobs, device=args.device, quiet=args.quiet)
        made = [c for c in everyone if not faults(c, outcomes, p)]
        found = measure(made, p, run, settings, jobs=args.jobs)
        points = [point_of(c, found, p, run, settings, eligible=c.name in families) for c in made]
        text, chosen = conclude(points, families, p, run)
    print(text)
    for candidate in everyone:
        for failed in faults(candidate, outcomes, p)[:1]:
            print(f"{candidate.name}: could not be made ({failed.detail or failed.state})")
    print(f"\nsweep: {run.path / 'sweep.md'}")
    return 0 if chosen and len(made) == len(everyone) else 1


def faults(candidate: Candidate, outcomes: Mapping[str, Outcome], p: SweepParams) -> list[Outcome]:
    """Of what couldn't be made of a candidate."""
    every = (outcomes[one.folder(seed)] for seed in seeds_of(candidate, p) for one in with_twin(candidate, p))
    return [one for one in every if one.state != "done"]


def make(
    everyone: Sequence[Candidate], p: SweepParams, run: run_folder.RunFolder, *, jobs: int, device: str, quiet: bool
) -> dict[str, Outcome]:
    """Run what makes the candidates; run folder -> how it went."""
    changes = {} if p.data_root is None else {"data_root": p.data_root}
    wanted = {}
    for candidate in everyone:
        for seed in seeds_of(candidate, p):
            for one in with_twin(candidate, p):
                job = one.job(run.path.resolve(), Path(config.RUNS).resolve(), seed=seed, **changes)
                wanted.setdefault(job.name, job)
    folder = run.path.resolve()
    return run_all(list(wanted.values()), folder, surroundings(), at_once=jobs, device=device, quiet=quiet)

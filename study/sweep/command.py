"""Operating points of an anonymizer: which weights, ranks and budgets of bits give how much privacy for how much use.

    python -m splavu sweep                                    # params/params_sweep.py, on the demo's features
    python -m splavu sweep --params my_sweep.py --jobs 4      # killed, the same command goes on

Every candidate is made, then attacked afresh and put to a fresh head, on *validation* people, for each seed. What comes
out: table and curves (sweep.md, sweep.json), the Pareto front, the normalised hypervolume of each family, and the point
to use as a parameter file (chosen.py): the one that gives away least of those that keep the action within `most_lost`
points of raw features. Baselines are shown, and never chosen. Test people are not read; audit the chosen one on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from splavu.errors import UserError
from splavu.reports.plotting import check_drawing
from splavu.runtime import cli, params, run_folder
from study import config
from study.experiments.candidates import Candidate, candidates
from study.experiments.runner import Outcome, run_all, surroundings
from study.sweep.measure import SweepParams, bench_of, bench_params, measure, point_of, seeds_of, with_twin
from study.sweep.results import conclude

PARAMS = "params/params_sweep.py"


def main(argv: Sequence[str] | None = None) -> int:
    """0: every candidate has been measured, and one was chosen. 1: none was, or some could not be made."""
    parser = cli.parser(__doc__, default_params=config.HERE / PARAMS)
    parser.prog = "splavu sweep"
    parser.add_argument("--jobs", type=int, default=2, help="candidates at a time, one thread each (default 2)")
    args = parser.parse_args(argv)
    cli.start(args)
    if args.jobs < 1:
        raise UserError("--jobs", f"is {args.jobs}, expected at least 1")
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


if __name__ == "__main__":
    cli.run(main)

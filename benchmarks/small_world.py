"""A folder as a new user has it: short videos of some subjects, and three tables.

python benchmarks/small_world.py --out small
python -m splavu protect small/videos --out small/protected --actions small/actions.csv --private small/private.csv \
    --encoder demo
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

from collections.abc import Sequence
from pathlib import Path

from splavu.runtime import cli
from splavu.runtime.schema import Count, Seed
from splavu.synthetic.drawing.recording import chunks, write_mp4
from splavu.synthetic.drawing.render import ATTRIBUTES
from splavu.synthetic.layouts import write_csv
from splavu.synthetic.people.motions import ACTIONS
from splavu.synthetic.plans import generator, sample_plans, sample_subjects, stage

NAME = "small"


def main(argv: Sequence[str] | None = None) -> None:
    """Render what isn't there yet."""
    parser = cli.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--subjects", type=Count, default=40)
    parser.add_argument("--videos", type=Count, default=6, help="of each subject (default 6)")
    parser.add_argument("--seed", type=Seed, default=0)
    args = parser.parse_args(argv)
    people = sample_subjects(args.seed, NAME, args.subjects)
    plans = sample_plans(
        args.seed, NAME, people, per_subject=args.videos, actions=ACTIONS[: args.videos], lengths=(34, 50)
    )
    names = {plan.index: f"{plan.subject.name}_{plan.action}_{plan.index}.mp4" for plan in plans}
    for plan in plans:
        path = args.out / "videos" / names[plan.index]
        if not path.exists():
            shot = stage(plan, generator(args.seed, NAME, plan.index))
            write_mp4(path, chunks(shot, plan.num_frames))
    write_csv(args.out / "actions.csv", ("filename", "label"), ((names[p.index], p.action) for p in plans))
    write_csv(args.out / "subjects.csv", ("filename", "subject"), ((names[p.index], p.subject.name) for p in plans))
    header = ("filename", "subject", *ATTRIBUTES)
    write_csv(args.out / "private.csv", header, ((names[p.index], p.subject.name, *p.attributes) for p in plans))
    print(f"{args.out}: {len(plans)} videos of {len(people)} subjects")


if __name__ == "__main__":
    cli.run(main)

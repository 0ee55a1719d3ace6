"""Measure how much private information anonymized features still give away, next to raw ones and to chance.

protocol = 'release' trains new attackers on features as they are released; its gates must hold or the exit code is 3.
Where the test subjects are so few that no gate can hold or fail, it stops before it trains, with exit code 4 and the
number that is needed. protocol = 'paper' repeats the paper's evaluation. The same command with the same inputs prints
the stored result again.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

from collections.abc import Sequence
from pathlib import Path

import config
from splavu.anonymizers.loading import weights_hash
from splavu.attacks import paper_protocol, release_protocol
from splavu.attacks.ensemble import STRONGEST
from splavu.attacks.gates import UNDECIDED, exit_code, objections, state_of
from splavu.runtime import cli, environment, params, run_folder
from study.models import load_adapter
from study.privacy import PrivacyEvalParams, digest, evaluate_by_paper_protocol, evaluate_by_release_protocol, read_view


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, default_params=Path(__file__).parent / "params/params_fb.py")
    parser.add_argument("--force", action="store_true", help="evaluate again although this result is stored")
    parser.add_argument(
        "--anyway", action="store_true", help="evaluate although there are too few test subjects to decide"
    )
    args = parser.parse_args(argv)
    cli.start(args)
    p = params.load(args.params, PrivacyEvalParams, args.set)
    device = environment.pick_device(args.device)
    anonymizer = load_adapter(p)
    read = {view: read_view(p, view) for view in (p.views if p.protocol == "release" else p.views[:1])}
    data, attributes = {view: found for view, (found, _) in read.items()}, read[p.views[0]][1]

    if p.protocol == "release" and not args.anyway:
        few = [f"{v}: {power}" for v, power in release_protocol.powers(data, p.level).items() if not power.decides]
        if few:
            print(f"undecided: {'; '.join(few)}; --anyway evaluates all the same")
            return UNDECIDED

    run = run_folder.RunFolder(config.RUNS, p.run_id)
    inputs = {"anonymizer": anonymizer and weights_hash(anonymizer), "data": digest(data)}
    if p.protocol == "release":
        inputs["strongest"] = STRONGEST
    evaluate = evaluate_by_release_protocol if p.protocol == "release" else evaluate_by_paper_protocol
    result, stored = run.cached_result(
        p,
        inputs,
        lambda: evaluate(p, data, anonymizer, attributes, device),
        file="metrics.json",
        force=args.force,
    )
    if stored:
        print(f"stored result of {run.path} (--force evaluates again)\n")

    print((release_protocol if p.protocol == "release" else paper_protocol).format_table(result))
    if not result["valid"]:
        print(f"\n{objections(result['gates'])}")
        return exit_code(state_of(gate) for gate in result["gates"])
    return 0


if __name__ == "__main__":
    cli.run(main)

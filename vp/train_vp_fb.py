"""Train a new privacy head for the five attributes of VP-HMDB51 or VP-UCF101 on raw or anonymized features.

The head is the paper's without the normalisation that bounds its logits. One attacker gives a lower bound of the
leakage: privacy_eval.py with dataset = 'vp_hmdb' or 'vp_ucf' attacks the same videos with several and gives intervals.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

from collections.abc import Sequence
from pathlib import Path

from splavu.runtime import cli, environment, params
from study.training import heads
from vp.settings import VpParams


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, default_params=Path(__file__).with_name("params_vp.py"))
    parser.add_argument("--restart", action="store_true", help="train from scratch although there is a checkpoint")
    args = parser.parse_args(argv)
    cli.start(args)
    p = params.load(args.params, VpParams, args.set).privacy_head()
    result, _, _ = heads.train(p, device=environment.pick_device(args.device), restart=args.restart)
    print(heads.summary(p, result))
    return 0


if __name__ == "__main__":
    cli.run(main)

"""Train a new linear head for the actions of VP-HMDB51 or VP-UCF101: the utility of raw or anonymized features."""

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
    p = params.load(args.params, VpParams, args.set).utility_head()
    result, _, _ = heads.train(p, device=environment.pick_device(args.device), restart=args.restart)
    print(heads.summary(p, result))
    return 0


if __name__ == "__main__":
    cli.run(main)

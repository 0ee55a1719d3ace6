"""Train a fresh linear head for the actions of VP-HMDB51 or VP-UCF101: how much use raw or anonymized features have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from splavu.runtime import cli, environment, params
from study.training import heads
from vp.settings import VpParams


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, default_params=Path(__file__).with_name("params_vp.py"))
    parser.add_argument("--restart", action="store_true", help="train anew although the run folder has a checkpoint")
    args = parser.parse_args(argv)
    cli.start(args)
    p = params.load(args.params, VpParams, args.set).utility_head()
    result, _, _ = heads.train(p, device=environment.pick_device(args.device), restart=args.restart)
    print(heads.sentence(p, result))
    return 0


if __name__ == "__main__":
    cli.run(main)

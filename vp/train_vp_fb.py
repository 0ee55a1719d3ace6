"""Train a fresh privacy head for the five attributes of VP-HMDB51 or VP-UCF101: what raw or anonymized features tell.

The head is the paper's without the normalisation that bounds its logits. One attacker is a lower bound of what can be
learnt: privacy_eval.py with dataset = 'vp_hmdb' or 'vp_ucf' attacks the same videos with several and gives intervals.
"""

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
    p = params.load(args.params, VpParams, args.set).privacy_head()
    result, _, _ = heads.train(p, device=environment.pick_device(args.device), restart=args.restart)
    print(heads.sentence(p, result))
    return 0


if __name__ == "__main__":
    cli.run(main)

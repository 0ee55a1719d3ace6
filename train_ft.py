"""Train a new head on raw or anonymized features and report its metric on the test split, once.

The metric is top-1 accuracy, or cMAP where labels are attributes (VISPR, VP). The epoch is chosen on the validation
split, and the test split is read after that; val_split = None trains a fixed number of epochs.

L = cross-entropy(head(f_A(h)), action), or the logistic loss for attributes; f_A is fixed (anon = False: the identity).
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

from collections.abc import Sequence
from pathlib import Path

from splavu.runtime import cli, environment, params
from splavu.runtime.distributed import refuse_several_processes
from study.training.heads import HeadParams, summary, train


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, default_params=Path(__file__).parent / "params/params_ft.py")
    parser.add_argument("--restart", action="store_true", help="train from scratch although there is a checkpoint")
    args = parser.parse_args(argv)
    cli.start(args)
    refuse_several_processes("train_ft.py")
    p = params.load(args.params, HeadParams, args.set)
    result, _, _ = train(p, device=environment.pick_device(args.device), restart=args.restart)
    print(summary(p, result))
    return 0


if __name__ == "__main__":
    cli.run(main)

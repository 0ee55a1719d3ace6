"""Pre-train the anonymizer to reproduce its input, the start that the paper gives it.

A transformer of ours starts at the exact identity and doesn't need this; an `mlp` without residual does, and so does
whoever wants the paper's own start (a network that was trained to be the identity, with live queries and keys).
"""

from __future__ import annotations

from collections.abc import Sequence

import config
from splavu.runtime import cli, params, run_folder
from splavu.runtime.distributed import connect
from splavu.training import loop
from study.training.pretraining import PretrainParams, build


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, default_params="params/params_pretrain.py")
    parser.add_argument("--restart", action="store_true", help="train anew although the run folder has a checkpoint")
    args = parser.parse_args(argv)
    cli.start(args)
    p = params.load(args.params, PretrainParams, args.set)
    run = run_folder.RunFolder(config.RUNS, p.run_id)
    processes = connect(args.device)
    trainer = build(p, processes)
    best = loop.fit(trainer, run, p, inputs=trainer.provenance, restart=args.restart, processes=processes)
    if processes.is_first:
        run.write_json("results.json", best)
        print(f"best epoch {best['epoch']}, reconstruction error {-best['score']:.3g}: {best['checkpoint']}")
    return 0


if __name__ == "__main__":
    cli.run(main)

"""Train an anonymizer on VP-HMDB51 or VP-UCF101 features, whose videos have an action and five private attributes.

ssl = False: a head learns to tell the attributes from anonymized clips, and the anonymizer learns to prevent it.
ssl = True: SPLAVU's own privacy term on pairs of static clips; no private label is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from splavu.runtime import cli, params
from splavu.runtime.distributed import connect
from study.training import anonymizer
from vp.settings import VpParams


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, default_params=Path(__file__).with_name("params_vp.py"))
    parser.add_argument("--restart", action="store_true", help="train anew although the run folder has a checkpoint")
    args = parser.parse_args(argv)
    cli.start(args)
    p = params.load(args.params, VpParams, args.set)
    processes = connect(args.device)
    trained = anonymizer.train(p.anonymizer(), processes, restart=args.restart)
    if processes.is_first:
        print(f"{p.anonymizer_run}: best epoch {trained['epoch']}; heads read the last one, model_temp.pth")
    return 0


if __name__ == "__main__":
    cli.run(main)

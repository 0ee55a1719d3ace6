"""Train the anonymizer (AAM) with its tasks and the privacy term on precomputed features.

L = w_LC MSE(h, f_A(h)) + w_AR L_AR(f_A(h)) + w_TAD L_TAD(f_A(video)) + w_AD L_AD(f_A(video))
    - w_B NT-Xent(f_A(static clip 1), f_A(static clip 2))

privacy_objective = 'conditional' or 'critic' puts in place of the last term what f_A(h) tells of the raw still pictures
of its video beyond the action (docs/method.md). fa_arch may be a recipe such as 'eraser+encoder+quantizer': what is
fitted in closed form is fitted before and after the training, and where there is none to do, the run takes no epoch.

With ssl = False the privacy term is supervised: a head learns to tell the private attributes of pa_dataset from
anonymized clips, and the adapter learns to prevent it, - w_B BCE(f_B(f_A(h)), attributes).

An epoch is one pass over the clips; the other tasks go on where they stopped, each through all of its videos.
torchrun --nproc_per_node=N starts N processes, which share each batch and end with the weights of one.

A term of weight 0 is never built, and nothing of it is read. Without AR and privacy the data set of clips isn't read
either; consistency is then asked of what the other tasks anonymize.
"""

from __future__ import annotations

from collections.abc import Sequence

from splavu.runtime import cli, params
from splavu.runtime.distributed import connect
from study.training.anonymizer import train
from study.training.anonymizer_params import AnonymizerParams


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, default_params="params/params_fa.py")
    parser.add_argument("--restart", action="store_true", help="train anew although the run folder has a checkpoint")
    args = parser.parse_args(argv)
    cli.start(args)
    p = params.load(args.params, AnonymizerParams, args.set)
    processes = connect(args.device)
    best = train(p, processes, restart=args.restart)
    if processes.is_first and best["epoch"]:
        print(f"best epoch {best['epoch']} ({best['score']:.4f}): {best.get('trained', best['checkpoint'])}")
    if processes.is_first and "fitted" in best:
        print(f"fitted to {best['fitted']['clips']} clips: {best['checkpoint']}")
        print("\n".join(best["fitted"]["guarantees"]))
    return 0


if __name__ == "__main__":
    cli.run(main)

"""Train an anonymizer on VP-HMDB51 or VP-UCF101 features, whose videos have an action and five private attributes.

L = w_LC MSE(h, f_A(h)) + w_AR L_AR(f_A(h)) + w_B (privacy term)

ssl = False: a head learns to predict the attributes from anonymized clips, and the anonymizer learns to prevent it.
ssl = True: SPLAVU's own privacy term on pairs of static clips; no private label is read.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

from collections.abc import Sequence
from pathlib import Path

from splavu.runtime import cli, environment, params
from splavu.runtime.distributed import NOT_DISTRIBUTED, Processes, connect
from splavu.runtime.run_folder import RunFolder
from splavu.training import loop
from splavu.training.multitask import MultitaskTrainer
from splavu.training.objectives import OBJECTIVES, Term
from study import config
from study.training import anonymizer as parts
from study.training.anonymizer_params import AnonymizerParams
from vp.settings import VpParams


def build(p: AnonymizerParams, processes: Processes = NOT_DISTRIBUTED) -> MultitaskTrainer:
    """The experiment: data, networks, and the loss as a list of terms with their weights."""
    environment.seed_everything(p.seed)
    data = parts.open_data(p, processes)
    anonymizer = parts.starting_anonymizer(p, data.fit_data).to(processes.device)  # f_A
    tasks = [
        (p.ft_ar_loss_weight, parts.action_recognition),
        (0 if p.ssl else p.fb_loss_weight, parts.attribute_adversary),
    ]
    terms = [
        *(Term.of_task(task(p, data), weight) for weight, task in tasks if weight),
        Term("latent", p.fa_loss_weight, parts.consistency(p, data)),
        Term.of_objective("privacy", p.fb_loss_weight if p.ssl else 0, OBJECTIVES["nt_xent"]),
    ]
    return parts.build_trainer(p, data, anonymizer, terms)


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, default_params=Path(__file__).with_name("params_vp.py"))
    parser.add_argument("--restart", action="store_true", help="train from scratch although there is a checkpoint")
    args = parser.parse_args(argv)
    cli.start(args)
    p = params.load(args.params, VpParams, args.set).anonymizer()
    processes, run = connect(args.device), RunFolder(config.RUNS, p.run_id)
    trainer = build(p, processes)
    best = loop.fit(trainer, run, p, inputs=trainer.provenance, restart=args.restart, processes=processes)
    if processes.is_first:
        run.write_json("results.json", best)
        print(f"{p.run_id}: best epoch {best['epoch']}; heads read the last one, model_temp.pth")
    return 0


if __name__ == "__main__":
    cli.run(main)

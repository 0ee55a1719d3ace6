"""Train the anonymizer (AAM) with its tasks and the privacy term on precomputed features.

L = w_LC MSE(h, f_A(h)) + w_AR L_AR(f_A(h)) + w_TAD L_TAD(f_A(video)) + w_AD L_AD(f_A(video))
    - w_B NT-Xent(f_A(static clip 1), f_A(static clip 2))

privacy_objective = 'conditional' or 'critic' replaces the last term by the information that f_A(h) has about the raw
still frames of its video beyond the action (docs/method.md); extra_terms = {"name": weight} adds terms. fa_arch may
be a chain such as 'eraser+encoder+quantizer': closed-form parts are fitted before and after the training, and a chain
without a trained part takes no epoch.

With ssl = False the privacy term is supervised: a head learns to predict the private attributes of pa_dataset from
anonymized clips, and the adapter learns to prevent it, - w_B BCE(f_B(f_A(h)), attributes).

An epoch is one pass over the clips; the other tasks go on where they stopped, each through all of its videos.
torchrun --nproc_per_node=N starts N processes, which share each batch and end with the weights of one.

A term of weight 0 is never built, and nothing of it is read. Without AR and privacy the data set of clips isn't read
either; consistency is then computed on what the other tasks anonymize.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

from collections.abc import Mapping, Sequence
from typing import Any

import config
from splavu.anonymizers import pipeline
from splavu.anonymizers.guarantees import as_paragraphs
from splavu.runtime import cli, environment, params
from splavu.runtime.distributed import NOT_DISTRIBUTED, Processes, connect
from splavu.runtime.run_folder import RunFolder
from splavu.training import loop
from splavu.training.multitask import MultitaskTrainer
from splavu.training.objectives import OBJECTIVES, Term
from study.training import anonymizer as parts
from study.training.anonymizer_params import AnonymizerParams


def build(p: AnonymizerParams, processes: Processes = NOT_DISTRIBUTED) -> MultitaskTrainer:
    """The experiment: data, networks, and the loss as a list of terms with their weights."""
    environment.seed_everything(p.seed)
    data = parts.open_data(p, processes)
    anonymizer = parts.starting_anonymizer(p, data.fit_data).to(processes.device)  # f_A
    tasks = [
        (p.ft_ar_loss_weight, parts.action_recognition),
        (p.ft_tad_loss_weight, parts.temporal_action_detection),
        (p.ft_ad_loss_weight, parts.anomaly_detection),
        (0 if p.ssl else p.fb_loss_weight, parts.attribute_adversary),
    ]
    terms = [
        *(Term.of_task(task(p, data), weight) for weight, task in tasks if weight),
        Term("latent", p.fa_loss_weight, parts.consistency(p, data)),
        Term.of_objective("privacy", p.fb_loss_weight if p.ssl else 0, OBJECTIVES[p.privacy_objective]),
        *(Term.of_objective(name, weight, OBJECTIVES[name]) for name, weight in p.extra.items()),
    ]
    return parts.build_trainer(p, data, anonymizer, terms)


def train(p: AnonymizerParams, processes: Processes = NOT_DISTRIBUTED, *, restart: bool = False) -> dict[str, Any]:
    """Train (or resume) the anonymizer in its run folder; the result, which is written there too."""
    parts.check_processes(p, processes)
    if p.batch_as_sequence:
        print("batch_as_sequence: every feature is mixed with its batch, as in the reference. Not for release.")
    run = RunFolder(config.RUNS, p.run_id)
    if pipeline.trained_part(p.chain) is None:
        best = parts.fit_closed_form(p, run, restart=restart)
    else:
        trainer = build(p, processes)
        best = loop.fit(trainer, run, p, inputs=trainer.provenance, restart=restart, processes=processes)
        if p.behind and processes.is_first:
            best = parts.fit_behind(p, run, trainer, best)
    if processes.is_first:
        run.write_json("results.json", best)
    return best


def report(best: Mapping[str, Any]) -> None:
    """Print which checkpoint to use, and what is guaranteed of closed forms."""
    if best["epoch"]:
        print(f"best epoch {best['epoch']} ({best['score']:.4f}): {best.get('trained', best['checkpoint'])}")
    if "fitted" in best:
        print(f"fitted to {best['fitted']['clips']} clips: {best['checkpoint']}")
        print(as_paragraphs(best["fitted"]["guarantees"]))


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, default_params=config.HERE / "params/params_fa.py")
    parser.add_argument("--restart", action="store_true", help="train from scratch although there is a checkpoint")
    args = parser.parse_args(argv)
    cli.start(args)
    p = params.load(args.params, AnonymizerParams, args.set)
    processes = connect(args.device)
    best = train(p, processes, restart=args.restart)
    if processes.is_first:
        report(best)
    return 0


if __name__ == "__main__":
    cli.run(main)

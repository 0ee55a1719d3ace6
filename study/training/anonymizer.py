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

import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import config
from splavu.anonymizers import Anonymizer, Chain, recipe
from splavu.anonymizers.loading import weights_hash
from splavu.data.datasets import BatchLoader, EvenClips, FeatureDataset
from splavu.errors import UserError
from splavu.runtime import checkpoints, environment, params, run_folder
from splavu.runtime.distributed import SINGLE, Processes
from splavu.training import loop
from splavu.training.critics import Critic
from splavu.training.learners import Learner, moving_average
from splavu.training.multitask import MultitaskTrainer, steps_per_epoch
from splavu.training.objectives import RelativeConsistency
from splavu.training.optimizers import adamw
from splavu.training.tasks import ActionRecognition, AdversarialAttributes, Task
from study.datasets.loading import dataset_spec, open_dataset
from study.datasets.untrimmed import untrimmed_spec
from study.models import feature_dim, load_fa, load_fb, load_ft
from study.training.anonymizer_params import AnonymizerParams

FITTED = ("erase_rank", "bits", "code_space", "code_dims", "noise_sd", "bottleneck")
"""Parameters that checkpoints repeat beside what was fitted."""
RELEASED = "model_released.pth"
"""Where a recipe has parts behind the trained one: the chosen checkpoint's anonymizer with them."""


def build(p: AnonymizerParams, processes: Processes = SINGLE) -> MultitaskTrainer:
    """The experiment: networks, data, terms and their weights."""
    environment.seed_everything(p.seed)
    device = processes.device
    source, validation = _clips(p, processes) if p.needs_clips else (None, None)
    examples = recipe.Examples.of(source.dataset) if p.reads_examples else None
    anonymizer = anonymizer_of(p, examples).to(device)
    tasks: list[tuple[Task, float]] = []
    if p.ft_ar_loss_weight:
        head = load_ft(p, p.saved_ft_model).to(device)
        action = ActionRecognition(_learner(p, "ft_ar", head, p.learning_rate_ft), source, validation, device)
        tasks.append((action, p.ft_ar_loss_weight))
    if p.ft_tad_loss_weight:
        tasks.append((_temporal_action_detection(p, device), p.ft_tad_loss_weight))
    if p.ft_ad_loss_weight:
        tasks.append((_anomaly_detection(p, device), p.ft_ad_loss_weight))
    if p.supervises_privacy:
        tasks.append((_attribute_adversary(p, processes), p.fb_loss_weight))
    trainer = MultitaskTrainer(
        _learner(p, "fa", recipe.freeze_before_trained(anonymizer), p.learning_rate_fa),
        tasks,
        source,
        validation=validation,
        consistency_weight=p.fa_loss_weight,
        privacy_weight=p.fb_loss_weight if p.ssl else 0,
        temperature=p.temperature,
        epoch_length=p.epoch_length,
        processes=processes,
        consistency=F.mse_loss if p.consistency == "absolute" else RelativeConsistency(examples.variance),
        privacy_objective=p.privacy_objective,
        critic=_critic(p, device) if p.compares_within_classes and p.privacy_objective == "critic" else None,
        notes=notes_of(p, anonymizer, examples),
    )
    updates = -(-steps_per_epoch(trainer.sources, p.epoch_length) // p.accumulate)
    for task in trainer.tasks:
        task.learner.plan(num_epochs=p.num_epochs, steps_per_epoch=updates)
    return trainer


def anonymizer_of(p: AnonymizerParams, examples: recipe.Examples | None) -> Anonymizer:
    """The anonymizer as training begins: of a checkpoint, or new, its closed forms fitted to the examples."""
    if not p.fits:
        return load_fa(p, p.saved_fa_model, arch="+".join(p.leading))
    trained = recipe.trained_part(p.leading)
    return _cook(p, p.leading, examples, trained=None if trained is None else load_fa(p, arch=trained))


def _cook(
    p: AnonymizerParams, parts: Sequence[str], examples: recipe.Examples, *, trained: Anonymizer | None = None
) -> Anonymizer:
    options = {"erase_rank": p.erase_rank, "bits": p.bits, "noise_sd": p.noise_sd, "code_dims": p.code_dims}
    options |= {} if p.code_space is None else {"code_space": p.code_space}
    return recipe.cook(parts, examples, trained=trained, seed=p.seed, **options)


def notes_of(p: AnonymizerParams, anonymizer: Anonymizer, examples: recipe.Examples | None) -> dict[str, Any]:
    """What checkpoints say of closed forms and constants that were taken from the training features."""
    notes: dict[str, Any] = {}
    if any(part not in recipe.TRAINED for part in recipe.parse(recipe.spelled(anonymizer.architecture))):
        options = {name: getattr(p, name) for name in FITTED}
        notes["fitted"] = recipe.fitting_record(anonymizer, examples, options)
    if p.consistency == "relative":
        notes["feature_variance"] = examples.variance
    return notes


def _critic(p: AnonymizerParams, device: torch.device) -> Critic:
    return Critic.of(
        feature_dim(p),
        num_critics=p.num_critics,
        num_steps=p.critic_steps,
        reset_every=p.critic_reset,
        learning_rate=p.learning_rate_critic,
        seed=p.seed,
        device=device,
    )


def _learner(p: AnonymizerParams, name: str, network: nn.Module, learning_rate: float) -> Learner:
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = adamw(trained, lr=learning_rate, weight_decay=p.weight_decay)
    return Learner(name, network, optimizer, clip_norm=p.clip_norm, average=moving_average(network, p.ema_decay))


def _clips(p: AnonymizerParams, processes: Processes) -> tuple[BatchLoader, BatchLoader]:
    """Clips of the training and the validation split, with what the terms that have a weight need of them."""
    reads_classes = bool(p.ft_ar_loss_weight or p.compares_within_classes)
    needs_classes = p.compares_within_classes or any(part not in recipe.TRAINED for part in p.parts)
    if needs_classes and dataset_spec(p.ar_dataset, data_root=p.data_root).multi_label:
        raise UserError("ar_dataset", f"labels of '{p.ar_dataset}' are no actions", "name a data set of actions")
    shown = shown_actions(p)
    source = BatchLoader(
        open_dataset(
            p.ar_dataset,
            "train",
            encoder=p.ft_arch,
            data_root=p.data_root,
            classes=shown,
            with_labels=reads_classes or needs_classes or shown is not None,
            static_frames=p.static_frames or (p.fb_frame_pool if p.fits and "eraser" in p.parts else 0),
            seed=p.seed,
        ),
        batch_size=p.batch_size_ar,
        seed=p.seed,
        device=processes.device,
        share=processes.share,
    )
    validation = BatchLoader(
        open_dataset(
            p.ar_dataset,
            p.val_split,
            encoder=p.ft_arch,
            data_root=p.data_root,
            with_labels=reads_classes or shown is not None,
            classes=shown,
            draw=EvenClips(p.num_modes if p.ft_ar_loss_weight else 1),
            static_frames=0 if p.ft_ar_loss_weight else p.static_frames,
        ),
        batch_size=p.v_batch_size,
        shuffle=False,
        device=processes.device,
    )
    return source, validation


def shown_actions(p: AnonymizerParams) -> frozenset[int] | None:
    """The actions whose videos the anonymizer learns from; None: all."""
    if not p.left_out_actions:
        return None
    labels = open_dataset(p.ar_dataset, "train", encoder=p.ft_arch, data_root=p.data_root).labels
    actions = np.unique(np.asarray(labels))
    count = round(p.left_out_actions * len(actions))
    if not 0 < count < len(actions) - 1:
        problem = f"{p.left_out_actions:g} of {len(actions)} actions leaves out {count}"
        raise UserError("left_out_actions", problem, "leave out one at least, and two to learn from")
    return frozenset(np.random.default_rng(p.seed).permutation(actions)[count:].tolist())


def _temporal_action_detection(p: AnonymizerParams, device: torch.device) -> Task:
    from tridet.task import temporal_action_detection

    json_file, feat_folder = untrimmed_spec(p.tad_dataset).paths(p.ft_arch, p.data_root)
    return temporal_action_detection(
        config.HERE / p.tad_config,
        json_file=json_file,
        feat_folder=feat_folder,
        feature_dim=feature_dim(p),
        seed=p.seed,
        device=device,
        saved_model=p.saved_ft_tad_model,
    )


def _anomaly_detection(p: AnonymizerParams, device: torch.device) -> Task:
    from mgfn.task import anomaly_detection

    train_list, feat_folder = untrimmed_spec(p.ad_dataset).paths(p.ft_arch, p.data_root)
    return anomaly_detection(
        [f"@{config.HERE / word[1:]}" if word.startswith("@") else word for word in shlex.split(p.ad_options)],
        train_list=train_list,
        feat_folder=feat_folder,
        feature_dim=feature_dim(p),
        batch_size=p.batch_size_ad,
        learning_rate=p.learning_rate_ft_ad,
        seed=p.seed,
        device=device,
        saved_model=p.saved_ft_ad_model,
    )


def _attribute_adversary(p: AnonymizerParams, processes: Processes) -> Task:
    spec = dataset_spec(p.pa_dataset, data_root=p.data_root)
    if not spec.multi_label:
        raise UserError("pa_dataset", f"labels of '{p.pa_dataset}' are no attributes", "take vispr, vp_hmdb or vp_ucf")
    device = processes.device
    head = load_fb(p.saved_fb_model, "mlp", feature_dim(p), spec.num_classes, normalise=False).to(device)

    def clips(split: str, **draw: Any) -> FeatureDataset:
        return open_dataset(spec.name, split, encoder=p.ft_arch, data_root=p.data_root, seed=p.seed, **draw)

    source = BatchLoader(
        clips("train"), batch_size=p.batch_size_ar, seed=p.seed, device=device, share=processes.share
    )  # fmt: skip
    held_out = clips(p.val_split, draw=EvenClips(p.num_modes))
    validation = BatchLoader(held_out, batch_size=p.v_batch_size, shuffle=False, device=device)
    return AdversarialAttributes(_learner(p, "fb", head, p.learning_rate_fb), source, validation, device)


def train(p: AnonymizerParams, processes: Processes, *, restart: bool = False) -> dict[str, Any]:
    """Train (or go on training) the anonymizer in its run folder; the result, which is written there too."""
    if processes.count > 1:
        _refuse_several(p)
    if p.batch_as_sequence:
        print("batch_as_sequence: every feature is mixed with its batch, as in the reference. Not for release.")
    run = run_folder.RunFolder(config.RUNS, p.run_id)
    if recipe.trained_part(p.parts) is None:
        best = fit(p, run, restart=restart)
    else:
        trainer = build(p, processes)
        best = loop.fit(trainer, run, p, inputs=trainer.provenance, restart=restart, processes=processes)
        if p.behind and processes.is_first:
            best = finish(p, run, trainer, best)
    if processes.is_first:
        run.write_json("results.json", best)
    return best


def fit(p: AnonymizerParams, run: run_folder.RunFolder, *, restart: bool = False) -> dict[str, Any]:
    """An anonymizer in closed form, written as training would have written it; what is there already stays."""
    path = run.path / checkpoints.RESUMABLE
    environment.seed_everything(p.seed)
    source, _ = _clips(p, SINGLE)
    described = {"params": params.as_dict(p), "inputs": dict(source.provenance)}
    content = checkpoints.read(path) if path.is_file() and not restart else None
    if content is None:
        examples = recipe.Examples.of(source.dataset)
        anonymizer = anonymizer_of(p, examples).eval()
        content = {
            "fa_model_state_dict": anonymizer.state_dict(),
            "fa_architecture": anonymizer.architecture,
            **notes_of(p, anonymizer, examples),
            **described,
            "epoch": 0,
            "versions": environment.versions(),
        }
        run.record(p)
        checkpoints.write(path, content)
    for part, now in described.items():
        loop.refuse_other(path, content.get(part, {}), now, loop.FREE_TO_CHANGE)
    return {"epoch": 0, "score": None, "checkpoint": str(path), "fitted": content["fitted"]}


def finish(
    p: AnonymizerParams, run: run_folder.RunFolder, trainer: MultitaskTrainer, best: dict[str, Any]
) -> dict[str, Any]:
    """Fit what stands behind the trained part to what the chosen checkpoint releases, and write the whole."""
    path = run.path / RELEASED
    trained = trainer.anonymizer.evaluated.cpu().eval()
    origin = {"params": params.as_dict(p), "trained_sha256": weights_hash(trained)}
    content = checkpoints.read(path) if path.is_file() else {}
    if any(content.get(name) != value for name, value in origin.items()):  # else it would get another key for its noise
        examples = recipe.Examples.of(trainer.clips.dataset)
        behind = _cook(p, p.behind, examples.after(trained))
        whole = Chain(feature_dim(p), stages=[trained, behind]).eval()
        content = {
            "fa_model_state_dict": whole.state_dict(),
            "fa_architecture": whole.architecture,
            **notes_of(p, whole, examples),
            **origin,
            "inputs": trainer.provenance,
            "epoch": best["epoch"],
            "versions": environment.versions(),
        }
        checkpoints.write(path, content)
    return {**best, "trained": best["checkpoint"], "checkpoint": str(path), "fitted": content["fitted"]}


def _refuse_several(p: AnonymizerParams) -> None:
    remedy = "start one process"
    if p.batch_as_sequence:
        problem = "mixes all rows of a batch, which several processes don't hold together"
        raise UserError("batch_as_sequence", problem, remedy)
    if recipe.trained_part(p.parts) is None:
        raise UserError("fa_arch", f"'{p.fa_arch}' is fitted in closed form: no work for several processes", remedy)

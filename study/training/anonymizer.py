"""The parts of an anonymizer's training: its data, networks, tasks, and what is fitted in closed form.

`multitask_train_fa.py` and `vp/train_vp_fa.py` compose them: which terms, with which weights.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splavu.anonymizers import Anonymizer, Chain, pipeline
from splavu.anonymizers.closed_form.fit_data import FitData
from splavu.anonymizers.closed_form.methods import PARAMETERS
from splavu.anonymizers.loading import weights_hash
from splavu.data.datasets import BatchLoader, EvenClips, FeatureDataset
from splavu.errors import UserError
from splavu.runtime import checkpoints, environment, params, run_folder
from splavu.runtime.distributed import NOT_DISTRIBUTED, Processes
from splavu.training import loop
from splavu.training.critics import Critic
from splavu.training.learners import Learner, adamw, moving_average
from splavu.training.multitask import MultitaskTrainer, steps_per_epoch
from splavu.training.objectives import RelativeConsistency, Term, TermInputs, latent_consistency
from splavu.training.tasks import ActionRecognition, AdversarialAttributes, Task
from study import config
from study.datasets.loading import dataset_spec, known_subjects, open_dataset, private_labels
from study.datasets.untrimmed import untrimmed_spec
from study.models import feature_dim, load_fa, load_fb, load_ft
from study.training.anonymizer_params import AnonymizerParams

FITTED = (*PARAMETERS, "bottleneck")
"""Parameters that checkpoints repeat beside what was fitted."""
RELEASE_CHECKPOINT = "model_released.pth"
"""Written where a chain has parts behind the trained one: the chosen checkpoint's anonymizer with them."""


@dataclass(frozen=True)
class Data:
    """What the terms of one training read. Clips are None where no term reads them."""

    clips: BatchLoader | None
    """Of the training split, a random clip a video."""
    validation: BatchLoader | None
    """Of the validation split, evenly spaced clips."""
    fit_data: FitData | None
    """All clips of the training split, where something is fitted to them."""
    processes: Processes

    @property
    def device(self) -> torch.device:
        return self.processes.device


def open_data(p: AnonymizerParams, processes: Processes = NOT_DISTRIBUTED) -> Data:
    """The clips that the weights ask for; nothing else is opened."""
    clips, validation = _clips(p, processes) if p.needs_clips else (None, None)
    return Data(clips, validation, _fit_data(p, clips.dataset) if p.reads_fit_data else None, processes)


def build_trainer(p: AnonymizerParams, data: Data, anonymizer: Anonymizer, terms: Sequence[Term]) -> MultitaskTrainer:
    """Optimizers, critics and schedules for an anonymizer and the terms of its loss."""
    trainer = MultitaskTrainer(
        learner_of(p, "fa", pipeline.freeze_before_trained(anonymizer), p.learning_rate_fa),
        terms,
        data.clips,
        validation=data.validation,
        temperature=p.temperature,
        epoch_length=p.epoch_length,
        processes=data.processes,
        critic=_critic(p, data.device) if p.needs_critic else None,
        notes=notes_of(p, anonymizer, data.fit_data, None if data.clips is None else data.clips.dataset),
    )
    updates = -(-steps_per_epoch(trainer.sources, p.epoch_length) // p.accumulate)
    for task in trainer.tasks:
        task.learner.plan(num_epochs=p.num_epochs, steps_per_epoch=updates)
    return trainer


def consistency(p: AnonymizerParams, data: Data) -> Callable[[TermInputs], Tensor]:
    """Latent consistency in the units that the parameters choose."""
    distance = F.mse_loss if p.consistency == "absolute" else RelativeConsistency(data.fit_data.variance)
    return partial(latent_consistency, distance=distance)


def starting_anonymizer(p: AnonymizerParams, data: FitData | None) -> Anonymizer:
    """The anonymizer as training begins: from a checkpoint, or new, its closed forms fitted to the data."""
    if not p.fits:
        return load_fa(p, p.saved_fa_model, arch="+".join(p.leading))
    parts = _parts(p, p.leading)
    name = pipeline.trained_part(parts)
    trained = None if name is None else load_fa(p, arch=name)
    return pipeline.build_pipeline(parts, data, trained=trained, seed=p.seed)


def _parts(p: AnonymizerParams, names: Sequence[str]) -> tuple[pipeline.Part, ...]:
    return tuple(part for part in p.chain if part.name in names)


def _fit_data(p: AnonymizerParams, dataset: FeatureDataset) -> FitData:
    """The training split, with subjects and private labels if a closed form that is yet to be fitted reads them."""
    subjects = None
    if "subjects" in p.fit_needs:
        subjects = known_subjects(p.ar_dataset, dataset.keys, data_root=p.data_root)
    if "private" not in p.fit_needs:
        return FitData.of(dataset, subjects=subjects)
    labels = private_labels(p.ar_dataset, "train", dataset.keys, data_root=p.data_root)
    return FitData.of(dataset, private=labels.values, attributes=labels.attributes, subjects=subjects)


def notes_of(
    p: AnonymizerParams, anonymizer: Anonymizer, data: FitData | None, dataset: FeatureDataset | None = None
) -> dict[str, Any]:
    """Entries of checkpoints about the training clips, closed forms and constants that were computed from them.

    Args:
        p: Of the training.
        anonymizer: As it was fitted, or is about to be trained.
        data: All clips, where something is fitted to them.
        dataset: The same, where nothing is; None where no clips are read.
    """
    notes: dict[str, Any] = {}
    if data is not None or dataset is not None:
        clips = data if data is not None else FitData.of(dataset)
        notes["fitted_to"] = clips.fitted_to.and_before(anonymizer.fitted_to).record
    if pipeline.holds_closed_form(anonymizer):
        options = {name: getattr(p, name) for name in FITTED}
        notes["fitted"] = pipeline.fitting_record(anonymizer, data, parts=p.chain, options=options)
    if p.consistency == "relative":
        notes["feature_variance"] = data.variance
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


def learner_of(p: AnonymizerParams, name: str, network: nn.Module, learning_rate: float) -> Learner:
    """A network with AdamW, clipping and averaging as the parameters say."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = adamw(trained, lr=learning_rate, weight_decay=p.weight_decay)
    return Learner(name, network, optimizer, clip_norm=p.clip_norm, average=moving_average(network, p.ema_decay))


def _clips(p: AnonymizerParams, processes: Processes) -> tuple[BatchLoader, BatchLoader]:
    """Clips of the training and the validation split, with the labels and static clips that the terms need."""
    reads_classes = bool(p.ft_ar_loss_weight or p.reads_classes)
    needs_classes = p.reads_classes or "classes" in p.fit_needs
    if needs_classes and dataset_spec(p.ar_dataset, data_root=p.data_root).multi_label:
        raise UserError("ar_dataset", f"the labels of '{p.ar_dataset}' aren't actions", "name a data set of actions")
    shown = shown_actions(p)
    source = BatchLoader(
        open_dataset(
            p.ar_dataset,
            "train",
            encoder=p.ft_arch,
            data_root=p.data_root,
            classes=shown,
            with_labels=reads_classes or p.fits_closed_forms or shown is not None,
            static_frames=p.static_frames or (p.fb_frame_pool if "static" in p.fit_needs else 0),
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
    """The actions whose videos the anonymizer is trained on; None: all."""
    if not p.left_out_actions:
        return None
    labels = open_dataset(p.ar_dataset, "train", encoder=p.ft_arch, data_root=p.data_root).labels
    actions = np.unique(np.asarray(labels))
    count = round(p.left_out_actions * len(actions))
    if not 0 < count < len(actions) - 1:
        problem = f"{p.left_out_actions:g} of {len(actions)} actions leaves out {count}"
        raise UserError("left_out_actions", problem, "leave out at least one, and keep at least two")
    return frozenset(np.random.default_rng(p.seed).permutation(actions)[count:].tolist())


def action_recognition(p: AnonymizerParams, data: Data) -> Task:
    """A linear head for the actions of ar_dataset."""
    head = load_ft(p, p.saved_ft_model).to(data.device)
    return ActionRecognition(learner_of(p, "ft_ar", head, p.learning_rate_ft), data.clips, data.validation, data.device)


def temporal_action_detection(p: AnonymizerParams, data: Data) -> Task:
    """TriDet on tad_dataset."""
    from tridet import task

    json_file, feat_folder = untrimmed_spec(p.tad_dataset).paths(p.ft_arch, p.data_root)
    return task.temporal_action_detection(
        config.HERE / p.tad_config,
        json_file=json_file,
        feat_folder=feat_folder,
        feature_dim=feature_dim(p),
        seed=p.seed,
        device=data.device,
        saved_model=p.saved_ft_tad_model,
    )


def anomaly_detection(p: AnonymizerParams, data: Data) -> Task:
    """MGFN on ad_dataset."""
    from mgfn import task

    train_list, feat_folder = untrimmed_spec(p.ad_dataset).paths(p.ft_arch, p.data_root)
    return task.anomaly_detection(
        [f"@{config.HERE / word[1:]}" if word.startswith("@") else word for word in shlex.split(p.ad_options)],
        train_list=train_list,
        feat_folder=feat_folder,
        feature_dim=feature_dim(p),
        batch_size=p.batch_size_ad,
        learning_rate=p.learning_rate_ft_ad,
        seed=p.seed,
        device=data.device,
        saved_model=p.saved_ft_ad_model,
    )


def attribute_adversary(p: AnonymizerParams, data: Data) -> Task:
    """A head for the private attributes of pa_dataset, whose gradient the anonymizer gets reversed."""
    spec = dataset_spec(p.pa_dataset, data_root=p.data_root)
    if not spec.multi_label:
        problem = f"the labels of '{p.pa_dataset}' aren't attributes"
        raise UserError("pa_dataset", problem, "take vispr, vp_hmdb or vp_ucf")
    device = data.device
    head = load_fb(p.saved_fb_model, "mlp", feature_dim(p), spec.num_classes, normalise=False).to(device)

    def clips(split: str, **draw: Any) -> FeatureDataset:
        return open_dataset(spec.name, split, encoder=p.ft_arch, data_root=p.data_root, seed=p.seed, **draw)

    source = BatchLoader(
        clips("train"), batch_size=p.batch_size_ar, seed=p.seed, device=device, share=data.processes.share
    )  # fmt: skip
    held_out = clips(p.val_split, draw=EvenClips(p.num_modes))
    validation = BatchLoader(held_out, batch_size=p.v_batch_size, shuffle=False, device=device)
    return AdversarialAttributes(learner_of(p, "fb", head, p.learning_rate_fb), source, validation, device)


def fit_closed_form(p: AnonymizerParams, run: run_folder.RunFolder, *, restart: bool = False) -> dict[str, Any]:
    """Fit a chain without a trained part and write what training would write; an existing checkpoint stays."""
    with run.held():
        return _fit_closed_form(p, run, restart)


def _fit_closed_form(p: AnonymizerParams, run: run_folder.RunFolder, restart: bool) -> dict[str, Any]:
    path = run.path / checkpoints.RESUMABLE
    environment.seed_everything(p.seed)
    source, _ = _clips(p, NOT_DISTRIBUTED)
    described = {"params": params.as_dict(p), "inputs": dict(source.provenance)}
    content = checkpoints.read(path) if path.is_file() and not restart else None
    if content is None:
        data = _fit_data(p, source.dataset)
        anonymizer = starting_anonymizer(p, data).eval()
        content = {
            "fa_model_state_dict": anonymizer.state_dict(),
            "fa_architecture": anonymizer.architecture,
            **notes_of(p, anonymizer, data),
            **described,
            "epoch": 0,
            "versions": environment.versions(),
        }
        run.record(p)
        checkpoints.write(path, content)
    for part, now in described.items():
        loop.refuse_other(path, content.get(part, {}), now, loop.FREE_TO_CHANGE)
    return {"epoch": 0, "score": None, "checkpoint": str(path), "fitted": content["fitted"]}


def fit_behind(
    p: AnonymizerParams, run: run_folder.RunFolder, trainer: MultitaskTrainer, best: dict[str, Any]
) -> dict[str, Any]:
    """Fit the parts behind the trained one to the output of the chosen checkpoint, and write the whole."""
    path = run.path / RELEASE_CHECKPOINT
    trained = trainer.anonymizer.evaluated.cpu().eval()
    origin = {"params": params.as_dict(p), "trained_sha256": weights_hash(trained)}
    content = checkpoints.read(path) if path.is_file() else {}
    if not _agree(content, origin):  # a second fit would give its noise another key
        data = _fit_data(p, trainer.clips.dataset)
        behind = pipeline.build_pipeline(_parts(p, p.behind), data.after(trained), seed=p.seed)
        whole = Chain(feature_dim(p), stages=[trained, behind]).eval()
        content = {
            "fa_model_state_dict": whole.state_dict(),
            "fa_architecture": whole.architecture,
            **notes_of(p, whole, data),
            **origin,
            "inputs": trainer.provenance,
            "epoch": best["epoch"],
            "versions": environment.versions(),
        }
        checkpoints.write(path, content)
    return {**best, "trained": best["checkpoint"], "checkpoint": str(path), "fitted": content["fitted"]}


def _agree(content: Mapping[str, Any], origin: Mapping[str, Any]) -> bool:
    """Whether a checkpoint has this origin; parameters that it doesn't name yet are None."""
    before, now = ({k: v for k, v in one.get("params", {}).items() if v is not None} for one in (content, origin))
    return before == now and content.get("trained_sha256") == origin["trained_sha256"]


def check_processes(p: AnonymizerParams, processes: Processes) -> None:
    """Refuse several processes where they can't share the work.

    Raises:
        UserError: A batch is one sequence, or nothing is trained.
    """
    if processes.count == 1:
        return
    remedy = "start one process"
    if p.batch_as_sequence:
        problem = "mixes all rows of a batch, which several processes don't hold together"
        raise UserError("batch_as_sequence", problem, remedy)
    if pipeline.trained_part(p.chain) is None:
        raise UserError("fa_arch", f"'{p.fa_arch}' is fitted in closed form: no work for several processes", remedy)

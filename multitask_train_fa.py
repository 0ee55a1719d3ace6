"""Train the anonymizer (AAM) with its tasks and the privacy term on precomputed features.

L = w_LC MSE(h, f_A(h)) + w_AR L_AR(f_A(h)) + w_TAD L_TAD(f_A(video)) + w_AD L_AD(f_A(video))
    - w_B NT-Xent(f_A(static clip 1), f_A(static clip 2))

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
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

import config
from feature_dl import dataset_spec, open_dataset, untrimmed_spec
from model_loaders import feature_dim, load_fa, load_fb, load_ft
from splavu import cli, loop, params, runs, runtime
from splavu.datasets import EvenClips, FeatureDataset, Stream
from splavu.engine import EngineParams
from splavu.errors import UserError
from splavu.learners import Learner, moving_average
from splavu.multitask import EpochLength, MultitaskTrainer, steps_per_epoch
from splavu.optimizers import adamw
from splavu.processes import SINGLE, Processes, connect
from splavu.tasks import ActionRecognition, AdversarialAttributes, Task


@dataclass(frozen=True)
class AnonymizerParams(EngineParams):
    """Parameters of anonymizer training; see params/params_fa.py for a commented example."""

    run_id: str
    """Name of the run folder below config.RUNS."""
    ft_arch: str
    """Frozen encoder whose features are read; a row of splavu.encoders.ENCODERS."""
    ar_dataset: str | None = None
    """Data set of clips, labels and static clips; a row of feature_dl.CATALOGUE. Only AR and privacy need one."""
    tad_dataset: str = "thumos14"
    """Untrimmed videos with segments; a row of feature_dl.UNTRIMMED."""
    tad_config: str = "tridet/thumos_videoMAE.yaml"
    """TriDet's network, loss and optimizer, named from the repository's folder; where the data lies, config.py says."""
    seed: int = 0
    data_root: str | None = None
    """Another root than config.DATA, named from the repository's folder; its stores lie in features/ below it."""
    feature_dim: int | None = None
    """Looked up from ft_arch; may be stated, must agree."""
    num_classes: int | None = None
    """Looked up from ar_dataset; may be stated, must agree."""

    ad_dataset: str = "ucf_crime"
    """Long videos, labelled normal or abnormal as a whole; a row of feature_dl.UNTRIMMED."""
    ad_options: str = ""
    """MGFN's options as on its command line: network, loss, share kept for validation. @FILE is named from the
    repository's folder."""

    fa_arch: Literal["transformer", "mlp"] = "transformer"
    num_layers_fa: int = 3
    num_heads: int = 8
    batch_as_sequence: bool = False
    """The reference's mode: a batch is one sequence. Its numbers don't hold for a feature served alone."""
    saved_fa_model: str | None = None
    """Checkpoint to start from; None starts at the identity."""
    saved_ft_model: str | None = None
    """Checkpoint of the action head to start from."""
    saved_ft_tad_model: str | None = None
    """Checkpoint of TriDet to start from; the paper starts from the one trained on raw features."""
    saved_ft_ad_model: str | None = None
    """Checkpoint of MGFN to start from, likewise."""

    num_epochs: int = 100
    batch_size_ar: int = 512
    batch_size_ad: int = 8
    """Normal videos, and as many abnormal ones. (TAD's batch is in tad_config.)"""
    v_batch_size: int = 512
    val_split: str = "val"
    val_freq: int = 2
    """Epochs between validations."""
    num_modes: int = 5
    """Evenly spaced clips a video in validation."""
    num_workers: int = 0
    """Accepted for old files; features are gathered from memory, which takes no workers."""
    epoch_length: EpochLength = "clips"
    """'clips': a pass over ar_dataset; 'longest', 'shortest': over the longest, the shortest source."""

    learning_rate_fa: float = 1e-4
    learning_rate_ft: float = 1e-4
    learning_rate_ft_ad: float = 1e-3
    weight_decay: float = 0.01

    fa_loss_weight: float = 100.0
    """w_LC, latent consistency."""
    ft_ar_loss_weight: float = 1.0
    ft_tad_loss_weight: float = 0.0
    ft_ad_loss_weight: float = 0.0
    fb_loss_weight: float = 1.0
    """w_B, privacy budget; 0 opens no static-clip store."""
    ssl: bool = True
    """The privacy term: self-supervised on pairs of static clips (SPLAVU), or False: against a head that is trained on
    the private attributes of pa_dataset."""
    pa_dataset: str | None = None
    """Only for ssl = False: a row of feature_dl.CATALOGUE whose labels are attributes (vispr, vp_hmdb, vp_ucf)."""
    saved_fb_model: str | None = None
    """Checkpoint of that head to start from."""
    learning_rate_fb: float = 1e-3
    """Of that head."""
    fb_frame_pool: int = 10
    """Static clips a video in the store."""
    fb_frame_sample: int = 2
    """Of which so many are drawn; NT-Xent compares two."""
    temperature: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (
            "fa_loss_weight",
            "ft_ar_loss_weight",
            "ft_tad_loss_weight",
            "ft_ad_loss_weight",
            "fb_loss_weight",
        ):
            if getattr(self, name) < 0:
                raise UserError(name, f"{getattr(self, name)} is negative", "weights are 0 or more")
        tasks = self.ft_ar_loss_weight or self.ft_tad_loss_weight or self.ft_ad_loss_weight
        if not (self.fa_loss_weight or self.fb_loss_weight or tasks):
            raise UserError("fa_loss_weight", "every loss weight is 0", "give at least one term a weight")
        if self.needs_clips and self.ar_dataset is None:
            raise UserError("ar_dataset", "is missing, and AR, privacy or consistency alone need it", "name a data set")
        if self.supervises_privacy and self.pa_dataset is None:
            raise UserError(
                "pa_dataset", "is missing, and ssl = False learns from private attributes", "name a data set"
            )
        if self.fb_frame_sample != 2:
            raise UserError("fb_frame_sample", f"{self.fb_frame_sample}, but NT-Xent compares two", "set 2")
        for name in ("num_epochs", "batch_size_ar", "batch_size_ad", "v_batch_size", "val_freq", "num_modes"):
            if getattr(self, name) < 1:
                raise UserError(name, f"{getattr(self, name)} is less than 1", "give at least 1")

    @property
    def supervises_privacy(self) -> bool:
        """Whether the privacy term learns from labels."""
        return bool(self.fb_loss_weight and not self.ssl)

    @property
    def static_frames(self) -> int:
        """Static clips a video that the privacy term needs in the store."""
        return self.fb_frame_pool if self.fb_loss_weight and self.ssl else 0

    @property
    def needs_clips(self) -> bool:
        """Whether any term reads the data set of clips."""
        without = self.ft_tad_loss_weight or self.ft_ad_loss_weight or self.supervises_privacy
        return bool(self.ft_ar_loss_weight or self.static_frames or not without)


def build(p: AnonymizerParams, processes: Processes = SINGLE) -> MultitaskTrainer:
    """The experiment: networks, data, terms and their weights."""
    runtime.seed_everything(p.seed)
    device = processes.device
    anonymizer = load_fa(p, p.saved_fa_model).to(device)
    source, validation = _clips(p, processes) if p.needs_clips else (None, None)
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
        _learner(p, "fa", anonymizer, p.learning_rate_fa),
        tasks,
        source,
        validation=validation,
        consistency_weight=p.fa_loss_weight,
        privacy_weight=p.fb_loss_weight if p.ssl else 0,
        temperature=p.temperature,
        epoch_length=p.epoch_length,
        processes=processes,
    )
    updates = -(-steps_per_epoch(trainer.sources, p.epoch_length) // p.accumulate)
    for task in trainer.tasks:
        task.learner.plan(num_epochs=p.num_epochs, steps_per_epoch=updates)
    return trainer


def _learner(p: AnonymizerParams, name: str, network: nn.Module, learning_rate: float) -> Learner:
    optimizer = adamw(network.parameters(), lr=learning_rate, weight_decay=p.weight_decay)
    return Learner(name, network, optimizer, clip_norm=p.clip_norm, average=moving_average(network, p.ema_decay))


def _clips(p: AnonymizerParams, processes: Processes) -> tuple[Stream, Stream]:
    """Clips of the training and the validation split, with what the terms that have a weight need of them."""
    source = Stream(
        open_dataset(
            p.ar_dataset,
            "train",
            encoder=p.ft_arch,
            data_root=p.data_root,
            with_labels=bool(p.ft_ar_loss_weight),
            static_frames=p.static_frames,
            seed=p.seed,
        ),
        batch_size=p.batch_size_ar,
        seed=p.seed,
        device=processes.device,
        share=processes.share,
    )
    validation = Stream(
        open_dataset(
            p.ar_dataset,
            p.val_split,
            encoder=p.ft_arch,
            data_root=p.data_root,
            with_labels=bool(p.ft_ar_loss_weight),
            draw=EvenClips(p.num_modes if p.ft_ar_loss_weight else 1),
            static_frames=0 if p.ft_ar_loss_weight else p.static_frames,
        ),
        batch_size=p.v_batch_size,
        shuffle=False,
        device=processes.device,
    )
    return source, validation


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

    source = Stream(
        clips("train"), batch_size=p.batch_size_ar, seed=p.seed, device=device, share=processes.share
    )  # fmt: skip
    held_out = clips(p.val_split, draw=EvenClips(p.num_modes))
    validation = Stream(held_out, batch_size=p.v_batch_size, shuffle=False, device=device)
    return AdversarialAttributes(_learner(p, "fb", head, p.learning_rate_fb), source, validation, device)


def train(p: AnonymizerParams, processes: Processes, *, restart: bool = False) -> dict[str, Any]:
    """Train (or go on training) the anonymizer in its run folder; the result, which is written there too."""
    if p.batch_as_sequence:
        if processes.count > 1:
            problem = "mixes all rows of a batch, which several processes don't hold together"
            raise UserError("batch_as_sequence", problem, "start one process")
        print("batch_as_sequence: every feature is mixed with its batch, as in the reference. Not for release.")
    run = runs.RunFolder(config.RUNS, p.run_id)
    trainer = build(p, processes)
    best = loop.fit(trainer, run, p, inputs=trainer.provenance, restart=restart, processes=processes)
    if processes.is_first:
        run.write_json("results.json", best)
    return best


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, default_params="params/params_fa.py")
    parser.add_argument("--restart", action="store_true", help="train anew although the run folder has a checkpoint")
    args = parser.parse_args(argv)
    cli.start(args)
    p = params.load(args.params, AnonymizerParams, args.set)
    processes = connect(args.device)
    best = train(p, processes, restart=args.restart)
    if processes.is_first:
        print(f"best epoch {best['epoch']} ({best['score']:.4f}): {best['checkpoint']}")
    return 0


if __name__ == "__main__":
    cli.run(main)

"""Parameters of multitask_train_fa.py, and which of them go together.

Note: which parameters are needed follows from the weights and from the parts of `fa_arch`. A term of weight 0 reads no
store and no label file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from splavu.anonymizers import pipeline
from splavu.anonymizers.closed_form.codes import CodeSpace
from splavu.anonymizers.closed_form.methods import PARAMETERS
from splavu.errors import UserError
from splavu.runtime.schema import (
    Clips,
    Count,
    Few,
    FewOrNone,
    NonNegative,
    NonNegativeInt,
    OneOf,
    Positive,
    RunName,
    Seed,
    Share,
)
from splavu.training.engine import EngineParams
from splavu.training.multitask import EpochLength
from splavu.training.objectives import OBJECTIVES, Objective

ObjectiveName = Annotated[str, OneOf(OBJECTIVES)]
OF_ENCODER = ("window", "bottleneck")
"""Parameters that mean nothing without the part encoder."""
PART_OF = {parameter: part for parameter, (part, _) in PARAMETERS.items()} | dict.fromkeys(OF_ENCODER, "encoder")
"""Parameter -> the part of `fa_arch` that it belongs to."""


@dataclass(frozen=True)
class AnonymizerParams(EngineParams):
    """Parameters of anonymizer training; see params/params_fa.py for a commented example."""

    run_id: RunName
    """Name of the run folder below config.RUNS."""
    ft_arch: str
    """Frozen encoder whose features are read; a row of splavu.data.encoders.ENCODERS."""
    ar_dataset: str | None = None
    """Data set of clips, labels and static clips; a row of feature_dl.CATALOGUE. Only AR and privacy need one."""
    tad_dataset: str = "thumos14"
    """Untrimmed videos with segments; a row of feature_dl.UNTRIMMED."""
    tad_config: str = "tridet/thumos_videoMAE.yaml"
    """TriDet's network, loss and optimizer, named from the repository's folder; where the data lies, config.py says."""
    seed: Seed = 0
    data_root: str | None = None
    """Another root than config.DATA, named from the repository's folder; its stores lie in features/ below it."""
    feature_dim: Count | None = None
    """Looked up from ft_arch; may be stated, must agree."""
    num_classes: Count | None = None
    """Looked up from ar_dataset; may be stated, must agree."""

    ad_dataset: str = "ucf_crime"
    """Long videos, labelled normal or abnormal as a whole; a row of feature_dl.UNTRIMMED."""
    ad_options: str = ""
    """MGFN's options as on its command line: network, loss, share kept for validation. @FILE is named from the
    repository's folder."""

    fa_arch: str = "transformer"
    """A chain (`splavu.anonymizers.pipeline`): [closed forms that erase+][transformer|mlp|encoder][+quantizer][+noise],
    with options of closed forms (`splavu fit --help`) in parentheses: 'leace+random(keep=64)+quantizer(bits=8)'."""
    num_layers_fa: Few = 3
    num_heads: Few = 8
    window: NonNegativeInt | None = None
    """Of the encoder: steps back in time that a block sees; None is 0, each step on its own."""
    bottleneck: Count | None = None
    """Of the encoder: numbers through which all of a clip passes; None has none."""
    erase_rank: Count | None = None
    """Of the eraser: directions removed."""
    bits: Annotated[int, Interval(ge=1, le=4096)] | None = None
    """Of the quantizer: budget of a clip at most."""
    min_subjects: Count | None = None
    """Of the quantizer: training subjects (videos, where nobody knows them) that support each centroid; None is 5."""
    code_space: CodeSpace | None = None
    """Of the quantizer: where distances are measured. 'actions' (None): where they differ, the fewest bits for them and
    little for anything else; 'features': in the directions of largest variance, which leaves unseen tasks alive."""
    code_dims: Count | None = None
    """Of the quantizer: how many directions; None is actions - 1, or what holds 90 % of the variance."""
    noise_sd: Positive | None = None
    """Of the noise: in standard deviations of each dimension."""
    left_out_actions: Share = 0.0
    """Share of the actions, drawn by seed, that the anonymizer isn't trained on: to measure what is left of them."""
    batch_as_sequence: bool = False
    """The reference's mode: a batch is one sequence. Its numbers don't hold for features released one at a time."""
    saved_fa_model: str | None = None
    """Checkpoint to start from; None starts at the identity."""
    saved_ft_model: str | None = None
    """Checkpoint of the action head to start from."""
    saved_ft_tad_model: str | None = None
    """Checkpoint of TriDet to start from; the paper starts from the one trained on raw features."""
    saved_ft_ad_model: str | None = None
    """Checkpoint of MGFN to start from, likewise."""

    num_epochs: Count = 100
    batch_size_ar: Count = 512
    batch_size_ad: Count = 8
    """Normal videos, and as many abnormal ones. (TAD's batch is in tad_config.)"""
    v_batch_size: Count = 512
    val_split: str = "val"
    val_freq: Count = 2
    """Epochs between validations."""
    num_modes: Clips = 5
    """Evenly spaced clips a video in validation."""
    num_workers: FewOrNone = 0
    """Accepted for old files; features are gathered from memory, which takes no workers."""
    epoch_length: EpochLength = "clips"
    """'clips': a pass over ar_dataset; 'longest', 'shortest': over the longest, the shortest source."""

    learning_rate_fa: NonNegative = 1e-4
    learning_rate_ft: NonNegative = 1e-4
    learning_rate_ft_ad: NonNegative = 1e-3
    weight_decay: NonNegative = 0.01

    fa_loss_weight: NonNegative = 100.0
    """w_LC, latent consistency."""
    ft_ar_loss_weight: NonNegative = 1.0
    ft_tad_loss_weight: NonNegative = 0.0
    ft_ad_loss_weight: NonNegative = 0.0
    fb_loss_weight: NonNegative = 1.0
    """w_B, privacy budget; 0 opens no static-clip store."""
    privacy_objective: ObjectiveName = "published"
    """A row of splavu.training.objectives.OBJECTIVES. 'published' ('nt_xent'): NT-Xent of two static clips;
    'conditional': whether a clip identifies its video's still frame among those of its class, by cosine; 'critic': the
    same, by networks trained for it."""
    extra_terms: dict[ObjectiveName, NonNegative] | None = None
    """Further rows of OBJECTIVES with their weights, such as {"conditional": 0.1}."""
    critic_steps: Few = 5
    """Updates of the critics for each batch, on other batches."""
    critic_reset: NonNegativeInt = 10
    """Epochs after which one of the critics, in turn, is re-initialised; 0: never."""
    num_critics: Few = 2
    learning_rate_critic: NonNegative = 1e-3
    consistency: Literal["absolute", "relative"] = "absolute"
    """'relative': divided by the variance of the training features, so that one weight serves every encoder."""
    ssl: bool = True
    """The privacy term: self-supervised on pairs of static clips (SPLAVU), or False: against a head that is trained on
    the private attributes of pa_dataset."""
    pa_dataset: str | None = None
    """Only for ssl = False: a row of feature_dl.CATALOGUE whose labels are attributes (vispr, vp_hmdb, vp_ucf)."""
    saved_fb_model: str | None = None
    """Checkpoint of that head to start from."""
    learning_rate_fb: NonNegative = 1e-3
    """Of that head."""
    fb_frame_pool: Count = 10
    """Static clips a video in the store."""
    fb_frame_sample: Annotated[int, Interval(ge=2, le=2)] = 2
    """Of which so many are drawn; NT-Xent compares two."""
    temperature: Positive = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        tasks = self.ft_ar_loss_weight or self.ft_tad_loss_weight or self.ft_ad_loss_weight
        self._check_objectives()
        if not (self.fa_loss_weight or self.fb_loss_weight or tasks or self.objectives):
            raise UserError("fa_loss_weight", "every loss weight is 0", "give at least one term a weight")
        if self.needs_clips and self.ar_dataset is None:
            raise UserError("ar_dataset", "is missing, and AR, privacy or consistency alone need it", "name a data set")
        if self.supervises_privacy and self.pa_dataset is None:
            raise UserError("pa_dataset", "is missing, and ssl = False needs private attributes", "name a data set")
        self._check_chain()
        if self.consistency == "relative" and not self.needs_clips:
            problem = "'relative' takes the variance of ar_dataset, which no term reads"
            raise UserError("consistency", problem, "give AR or privacy a weight, or take 'absolute'")
        if self.left_out_actions and not self.needs_clips:
            raise UserError(
                "left_out_actions", "are those of ar_dataset, which no term reads", "give AR a weight, or 0"
            )

    def _check_objectives(self) -> None:
        if not self.ssl and OBJECTIVES[self.privacy_objective] != OBJECTIVES["published"]:
            problem = f"'{self.privacy_objective}' is self-supervised, ssl = False uses private labels"
            raise UserError("privacy_objective", problem, "set ssl = True")

    def _check_chain(self) -> None:
        parts, chain = self.chain, f"fa_arch = '{self.fa_arch}'"
        starts_new = self.saved_fa_model is None
        fitted = [part.name for part in parts if starts_new or part.name in self.behind]
        pipeline.check(parts, fitted=fitted)
        for name in OF_ENCODER:
            if getattr(self, name) is not None and "encoder" not in self.parts:
                raise UserError(name, f"is given, but {chain} has no part encoder", "remove it, or add encoder")
        if not starts_new and pipeline.trained_part(parts) is None:
            raise UserError("saved_fa_model", f"leaves nothing to do: {chain} has no part to train", "remove it")

    @property
    def chain(self) -> tuple[pipeline.Part, ...]:
        """The parts of `fa_arch` with all options that are given, there or as parameters."""
        given = {name: getattr(self, name) for name in PARAMETERS}
        return pipeline.with_parameters(pipeline.parse(self.fa_arch), given)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts."""
        return tuple(part.name for part in self.chain)

    @property
    def behind(self) -> tuple[str, ...]:
        """Parts behind the trained one, which are fitted when it is trained; none where none is."""
        trained = pipeline.trained_part(self.chain)
        return () if trained is None else self.parts[self.parts.index(trained) + 1 :]

    @property
    def leading(self) -> tuple[str, ...]:
        """The other parts: what training begins with, or all."""
        return self.parts[: len(self.parts) - len(self.behind)]

    @property
    def fits(self) -> bool:
        """Whether training begins with a closed form fitted to the features; those of a checkpoint already are."""
        return self.saved_fa_model is None and (self.bottleneck is not None or self.leading[0] not in pipeline.TRAINED)

    @property
    def fits_closed_forms(self) -> bool:
        """Whether a part is a closed form."""
        return pipeline.has_closed_form(self.chain)

    @property
    def fit_needs(self) -> frozenset[str]:
        """Fields of `FitData` that closed forms still to be fitted read."""
        fitted = self.parts if self.saved_fa_model is None else self.behind
        return pipeline.needs_of([part for part in self.chain if part.name in fitted])

    @property
    def reads_fit_data(self) -> bool:
        """Whether something is computed from the training split as a whole."""
        return self.fits or self.consistency == "relative" or self.fits_closed_forms

    @property
    def extra(self) -> dict[str, float]:
        """`extra_terms`, none of them by default."""
        return self.extra_terms or {}

    @property
    def objectives(self) -> list[Objective]:
        """Rows of OBJECTIVES that have a weight: the self-supervised privacy term and the extra terms."""
        weights = [(self.privacy_objective, self.fb_loss_weight if self.ssl else 0), *self.extra.items()]
        return [OBJECTIVES[name] for name, weight in weights if weight]

    @property
    def reads_classes(self) -> bool:
        """Whether one of `objectives` reads classes."""
        return any(objective.classes for objective in self.objectives)

    @property
    def needs_critic(self) -> bool:
        """Whether one of `objectives` needs a critic."""
        return any(objective.critic for objective in self.objectives)

    @property
    def supervises_privacy(self) -> bool:
        """Whether the privacy term is a head's loss on private labels."""
        return bool(self.fb_loss_weight and not self.ssl)

    @property
    def static_frames(self) -> int:
        """Static clips per video that `objectives` need in the store."""
        return self.fb_frame_pool if any(objective.static for objective in self.objectives) else 0

    @property
    def needs_clips(self) -> bool:
        """Whether any term reads the data set of clips."""
        if self.fits or self.fits_closed_forms:
            return True
        without = self.ft_tad_loss_weight or self.ft_ad_loss_weight or self.supervises_privacy
        return bool(self.ft_ar_loss_weight or self.objectives or not without)

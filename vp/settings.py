"""The parameters that the three scripts of this folder share, and what each takes from them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from splavu.anonymizers.apply import Serving
from splavu.runtime.schema import Clips, Count, Few, FewOrNone, NonNegative, RunName, Seed
from splavu.training.engine import EngineParams
from study import config
from study.training.anonymizer_params import AnonymizerParams
from study.training.heads import HeadParams


@dataclass(frozen=True)
class VpParams(EngineParams):
    """Parameters of the VP protocol; see vp/params_vp.py for a commented example."""

    run_id: RunName
    """Run folders are called `{run_id}_fa_labels` or `_fa_ssl`, and `_ft_raw`, `_fb_raw`, `_ft_fa_ssl` and so on."""
    dataset: Literal["vp_hmdb", "vp_ucf"]
    ft_arch: str
    """The encoder of the feature stores."""
    seed: Seed = 0
    data_root: str | None = None
    """Another root than config.DATA, named from the repository's folder; its stores lie in features/ below it."""
    feature_dim: Count | None = None
    num_pa: Annotated[int, Interval(ge=5, le=5)] = 5
    """Attributes of the VP label files; may be stated."""
    val_split: str | None = None
    """Chooses the heads' epoch; None takes the last one. (The anonymizer's last checkpoint is used in any case.)"""
    test_split: str = "test"

    anon: bool = True
    """Heads read anonymized features; False reads raw ones."""
    saved_fa_model: str | None = None
    """The anonymizer's checkpoint; None is what train_vp_fa.py wrote with these parameters."""
    serving: Serving = "alone"
    fa_arch: Literal["transformer", "mlp"] = "transformer"
    num_layers_fa: Few = 3
    num_heads: Few = 8
    ssl: bool = False
    """The privacy term: self-supervised on static clips, or False: on the five attributes."""

    num_epochs: Count = 100
    """Of the anonymizer."""
    num_epochs_ft: Count = 250
    num_epochs_fb: Count = 100
    batch_size: Count = 512
    v_batch_size: Count = 512
    val_freq: Count = 10
    num_modes: Clips = 5
    num_workers: FewOrNone = 0
    learning_rate_fa: NonNegative = 1e-4
    learning_rate_ft: NonNegative = 1e-3
    learning_rate_fb: NonNegative = 1e-3
    weight_decay: NonNegative = 0.01

    fa_loss_weight: NonNegative = 100.0
    """w_LC, latent consistency."""
    ft_ar_loss_weight: NonNegative = 1.0
    fb_loss_weight: NonNegative = 1.0
    """w_B, privacy budget."""
    fb_frame_pool: Count = 10
    """Static clips a video in the store; only ssl = True reads them."""

    @property
    def anonymizer_run(self) -> str:
        """Run folder of train_vp_fa.py."""
        return f"{self.run_id}_fa_{'ssl' if self.ssl else 'labels'}"

    def anonymizer(self) -> AnonymizerParams:
        """What train_vp_fa.py trains."""
        return AnonymizerParams(
            run_id=self.anonymizer_run,
            ar_dataset=f"{self.dataset}_actions",
            pa_dataset=None if self.ssl else self.dataset,
            val_split=self.val_split or self.test_split,
            batch_size_ar=self.batch_size,
            saved_fa_model=None,
            **self._shared(
                "ft_arch", "seed", "data_root", "feature_dim", "fa_arch", "num_layers_fa", "num_heads", "ssl",
                "num_epochs", "v_batch_size", "val_freq", "num_modes", "num_workers", "learning_rate_fa",
                "learning_rate_ft", "learning_rate_fb", "weight_decay", "fa_loss_weight", "ft_ar_loss_weight",
                "fb_loss_weight", "fb_frame_pool",
            ),
        )  # fmt: skip

    def utility_head(self) -> HeadParams:
        """What train_vp_ft.py trains: a linear head for the actions."""
        return self._head("ft", f"{self.dataset}_actions", "linear", self.num_epochs_ft, self.learning_rate_ft)

    def privacy_head(self) -> HeadParams:
        """What train_vp_fb.py trains: the paper's privacy head for the five attributes, its logits unbounded."""
        return self._head("fb", self.dataset, "mlp", self.num_epochs_fb, self.learning_rate_fb)

    def _head(
        self, kind: str, dataset: str, head: Literal["linear", "mlp"], num_epochs: int, learning_rate: float
    ) -> HeadParams:
        checkpoint = self.saved_fa_model or str(config.RUNS / self.anonymizer_run / "model_temp.pth")
        features = self.anonymizer_run.removeprefix(f"{self.run_id}_") if self.saved_fa_model is None else "anonymized"
        return HeadParams(
            run_id=f"{self.run_id}_{kind}_{features if self.anon else 'raw'}",
            dataset=dataset,
            head=head,
            num_epochs=num_epochs,
            learning_rate=learning_rate,
            saved_fa_model=checkpoint if self.anon else None,
            **self._shared(
                "ft_arch", "seed", "data_root", "feature_dim", "anon", "num_heads", "serving", "batch_size",
                "v_batch_size", "val_split", "test_split", "val_freq", "num_modes", "num_workers", "weight_decay",
            ),
        )  # fmt: skip

    def _shared(self, *names: str) -> dict[str, object]:
        engine = (field.name for field in dataclasses.fields(EngineParams))
        return {name: getattr(self, name) for name in (*names, *engine)}

"""Several anonymizers, one after the other: an eraser, then a quantizer of what it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from splavu.anonymizers.base import Anonymizer
from splavu.errors import UserError


class Chain(Anonymizer):
    """`stages[-1](...(stages[0](x)))`; none at all is the identity.

    Args:
        feature_dim: D, of every stage.
        stages: In the order they are applied. Chains among them are taken apart.

    Raises:
        UserError: A stage has another width, or attends over the batch.
    """

    def __init__(self, feature_dim: int, *, stages: Sequence[Anonymizer] = ()) -> None:
        super().__init__()
        flat = [part for stage in stages for part in (stage.parts if isinstance(stage, Chain) else [stage])]
        for stage in flat:
            if stage.architecture["feature_dim"] != feature_dim:
                width = stage.architecture["feature_dim"]
                raise UserError("stages", f"'{stage.architecture['arch']}' takes {width} numbers, not {feature_dim}")
            if stage.attends_over == "batch":
                raise UserError("stages", "one attends over the batch", "chain what maps each feature on its own")
        self.stages = nn.ModuleList(flat)
        self.architecture = {
            "arch": "chain",
            "feature_dim": feature_dim,
            "stages": [stage.architecture for stage in flat],
        }

    @property
    def parts(self) -> list[Anonymizer]:
        """The stages, in order."""
        return cast("list[Anonymizer]", list(self.stages))

    def map_rows(self, rows: Tensor) -> Tensor:
        for stage in self.parts:
            rows = stage.map_rows(rows)
        return rows

    def map_sequences(self, sequences: Tensor, valid: Tensor | None) -> Tensor:
        for stage in self.parts:
            sequences = stage.map_sequences(sequences, valid)
        return sequences

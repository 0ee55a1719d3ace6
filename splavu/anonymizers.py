"""Anonymizers: networks `[..., D] -> [..., D]` that a feature passes before it is stored, shared or used.

What attention attends over is the one thing to get right. `[B, D]` means B independent features, `[B, T, D]` means B
sequences of T steps, and a row's output never depends on the rest of its batch. The reference feeds `[B, D]` as ONE
sequence of length B, so that every anonymized feature is a mixture of strangers' clips; that is kept as the mode
`attends_over='batch'` to reproduce its numbers, and it is refused where features are released.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splavu.errors import UserError, nearest

AttendsOver = Literal["time", "batch"]

SERVING_TILE = 64
"""Rows a matrix product sees at once in evaluation. BLAS picks its kernel, and with it the order of summation, by the
number of rows; with always this many, a feature served alone and one served in a batch agree bit for bit."""


class Anonymizer(nn.Module):
    """The contract: `forward` keeps the shape of `[B, D]` (independent rows) or `[..., T, D]` (sequences).

    Subclasses give `map_rows` for independent features and may give `map_sequences`; constructor arguments are kept in
    `architecture`, which goes into checkpoints.
    """

    architecture: dict[str, Any]
    attends_over: AttendsOver = "time"

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:  # [..., D], [..., T] -> [..., D]
        """Anonymize.

        Args:
            features: `[D]`, `[B, D]`, or `[..., T, D]`; floating point.
            mask: `[..., T]`, true where a step is real. Padding comes back as it went in, and nothing attends to it.

        Raises:
            ValueError: The width isn't D, or a mask comes with independent features.
        """
        width = self.architecture["feature_dim"]
        if features.shape[-1] != width:
            raise ValueError(f"features are {features.shape[-1]} wide, this anonymizer takes {width}")
        if features.ndim <= 2:
            if mask is not None:
                raise ValueError("a mask belongs to sequences [B, T, D], not to independent features [B, D]")
            return self._forward_rows(features.reshape(-1, width)).reshape(features.shape)
        sequences = features.reshape(-1, *features.shape[-2:])  # [B, T, D]
        valid = None if mask is None else mask.reshape(sequences.shape[:2])  # [B, T]
        return self._forward_sequences(sequences, valid).reshape(features.shape)

    def map_rows(self, rows: Tensor) -> Tensor:  # [B, D] -> [B, D]
        """Each row on its own."""
        raise NotImplementedError

    def map_sequences(self, sequences: Tensor, valid: Tensor | None) -> Tensor:  # [B, T, D], [B, T] -> [B, T, D]
        """Each sequence on its own; by default each of its steps."""
        return self.map_rows(sequences.flatten(0, 1)).view_as(sequences)

    def _forward_rows(self, rows: Tensor) -> Tensor:  # [B, D] -> [B, D]
        if self.training:
            return self.map_rows(rows)
        return in_tiles(self.map_rows, rows)

    def _forward_sequences(self, sequences: Tensor, valid: Tensor | None) -> Tensor:
        if self.training:
            mapped = self.map_sequences(sequences, valid)
            return mapped if valid is None else torch.where(valid[..., None], mapped, sequences)
        # One by one, and without its padding, a sequence can't depend on what it was batched with.
        served = sequences.clone()
        for i, sequence in enumerate(sequences):
            real = slice(None) if valid is None else valid[i]
            if len(sequence[real]):
                served[i, real] = self.map_sequences(sequence[real][None], None)[0].to(served.dtype)
        return served


class IdentityAnonymizer(Anonymizer):
    """Raw features: what stands in place of `if anon` branches."""

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.architecture = {"arch": "identity", "feature_dim": feature_dim}

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        return features

    def map_rows(self, rows: Tensor) -> Tensor:
        return rows


class SelfAttentionBlock(nn.Module):
    """`x + MultiHeadAttention(x)`: no norm, no feed-forward (the AAM block of the paper)."""

    def __init__(self, feature_dim: int, num_heads: int) -> None:
        super().__init__()
        # nn.MultiheadAttention gives the published parameter names (in_proj_weight, out_proj.weight, ...).
        self.self_attn = nn.MultiheadAttention(feature_dim, num_heads, batch_first=True)

    def forward(self, sequences: Tensor, valid: Tensor | None) -> Tensor:  # [B, S, D], [B, S] -> [B, S, D]
        padding = None if valid is None else ~valid
        attended, _ = self.self_attn(sequences, sequences, sequences, key_padding_mask=padding, need_weights=False)
        return sequences + attended

    def attend_alone(self, rows: Tensor) -> Tensor:  # [B, D] -> [B, D]
        """The block on sequences of length one: softmax over one key is 1, so queries and keys drop out.

        What remains is affine. An attacker who may learn on its output undoes it unless it is singular: a single
        feature is not protected by attention (see docs/honesty.md).
        """
        attention, width = self.self_attn, rows.shape[-1]
        values = F.linear(rows, attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :])
        return rows + attention.out_proj(values)


class TransformerAnonymizer(Anonymizer):
    """The paper's AAM: blocks of plain self-attention with a residual.

    Args:
        feature_dim: D.
        num_layers: Blocks; 3 in the paper.
        num_heads: Heads a block; 8 in the paper. Must divide D.
        attends_over: 'time': the steps of one sequence; a lone feature attends to itself. 'batch': the rows of `[B, D]`
            are one sequence (the reference's behaviour; results don't hold for a feature served alone).
        identity: Start as the exact identity (output projections at zero).

    Source: Fioresi et al. 2026, section 3; parameter names of the reference, `self_attn_blocks.{i}.self_attn.*`.
    """

    def __init__(
        self,
        feature_dim: int,
        *,
        num_layers: int = 3,
        num_heads: int = 8,
        attends_over: AttendsOver = "time",
        identity: bool = True,
    ) -> None:
        super().__init__()
        if feature_dim % num_heads:
            raise UserError("num_heads", f"{num_heads} doesn't divide the feature width {feature_dim}", "use a divisor")
        if attends_over not in ("time", "batch"):
            raise UserError("attends_over", f"'{attends_over}' is unknown", "use 'time' or 'batch'")
        self.architecture = {
            "arch": "transformer",
            "feature_dim": feature_dim,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "attends_over": attends_over,
        }
        self.attends_over = attends_over
        self.self_attn_blocks = nn.ModuleList(SelfAttentionBlock(feature_dim, num_heads) for _ in range(num_layers))
        if identity:
            for block in self.self_attn_blocks:
                nn.init.zeros_(block.self_attn.out_proj.weight)
                nn.init.zeros_(block.self_attn.out_proj.bias)

    def map_rows(self, rows: Tensor) -> Tensor:
        for block in self.self_attn_blocks:
            rows = block.attend_alone(rows)
        return rows

    def map_sequences(self, sequences: Tensor, valid: Tensor | None) -> Tensor:
        for block in self.self_attn_blocks:
            sequences = block(sequences, valid)
        return sequences

    def _forward_rows(self, rows: Tensor) -> Tensor:
        if self.attends_over == "batch":
            return self.map_sequences(rows[None], None)[0]  # S = B: the rows see one another
        return super()._forward_rows(rows)


class MLPAnonymizer(Anonymizer):
    """Two layers: `fc2(relu(fc1(x)))`, the second without bias (the reference's `mlp`).

    Args:
        feature_dim: D, also the hidden width.
        residual: Add the input, which makes the exact identity possible as a start. The reference has none, and
            checkpoints without a recorded architecture are read without.
        identity: Start as the exact identity (only with `residual`).
    """

    def __init__(self, feature_dim: int, *, residual: bool = True, identity: bool = True) -> None:
        super().__init__()
        self.architecture = {"arch": "mlp", "feature_dim": feature_dim, "residual": residual}
        self.residual = residual
        self.fc1 = nn.Linear(feature_dim, feature_dim)
        self.fc2 = nn.Linear(feature_dim, feature_dim, bias=False)
        if identity and residual:
            nn.init.zeros_(self.fc2.weight)

    def map_rows(self, rows: Tensor) -> Tensor:
        mapped = self.fc2(F.relu(self.fc1(rows)))
        return rows + mapped if self.residual else mapped


ANONYMIZERS: Mapping[str, type[Anonymizer]] = {
    "transformer": TransformerAnonymizer,
    "mlp": MLPAnonymizer,
    "identity": IdentityAnonymizer,
}
"""Name in params (`fa_arch`) -> class."""


def build_anonymizer(arch: str, feature_dim: int, **options: Any) -> Anonymizer:
    """The anonymizer called `arch`; `options` are its constructor's.

    Raises:
        UserError: Unknown architecture or option.
    """
    if arch not in ANONYMIZERS:
        raise UserError("fa_arch", f"'{arch}' is no anonymizer", nearest(arch, ANONYMIZERS))
    try:
        return ANONYMIZERS[arch](feature_dim, **options)
    except TypeError as error:
        raise UserError("fa_arch", f"'{arch}' can't be built with {options} ({error})") from error


def infer_architecture(state: Mapping[str, Tensor], *, source: object = "fa_model_state_dict") -> dict[str, Any]:
    """The architecture behind bare published weights, which don't record it.

    The number of heads leaves no trace in the weights and is left out; `source` is named in errors.

    Raises:
        UserError: The parameter names are those of no published anonymizer.
    """
    if not state:
        raise UserError(source, "the anonymizer's weights are empty", "give fa_arch = 'identity' for raw features")
    blocks = {name.split(".")[1] for name in state if name.startswith("self_attn_blocks.")}
    if blocks:
        width = state["self_attn_blocks.0.self_attn.out_proj.bias"].shape[0]
        return {"arch": "transformer", "feature_dim": width, "num_layers": len(blocks)}
    if "fc1.weight" in state and "fc2.weight" in state:
        return {"arch": "mlp", "feature_dim": state["fc1.weight"].shape[1], "residual": False}
    raise UserError(source, f"'{next(iter(state))}' is a parameter of no anonymizer", "check the file")


def one_by_one(anonymizer: Anonymizer, features: Tensor) -> Tensor:  # [..., D] -> [..., D]
    """Every feature anonymized as if it came alone, whatever the leading dimensions mean and whatever it attends over.

    This is how a feature is served; an anonymizer that attends over the batch gets batches of one, in effect.
    """
    rows = features.reshape(-1, features.shape[-1])
    return in_tiles(anonymizer.map_rows, rows).reshape(features.shape)


def in_tiles(function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:  # [B, D] -> [B, D]
    """Apply `function` to tiles of exactly SERVING_TILE rows, the last one filled up with zeros."""
    missing = -len(rows) % SERVING_TILE
    padded = F.pad(rows, (0, 0, 0, missing)) if missing else rows
    tiles = [function(tile) for tile in padded.split(SERVING_TILE)]
    return torch.cat(tiles)[: len(rows)] if tiles else rows

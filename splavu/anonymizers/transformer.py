"""The AAM of the paper. On a lone feature its attention has one key, and what remains of a block is affine.

That is where its speed comes from: two products a block instead of four, and one in all for a large batch in training.
Published parameters keep their names; those of queries and keys get gradients of exactly 0 from lone features.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from splavu.anonymizers.base import Anonymizer, AttendsOver
from splavu.errors import UserError


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

    def affine(self) -> tuple[Tensor, Tensor]:  # -> [D, D], [D]
        """The same as one product: `attend_alone(x)` is `x + weight x + bias`."""
        attention, output = self.self_attn, self.self_attn.out_proj
        width = attention.embed_dim
        bias = F.linear(attention.in_proj_bias[2 * width :], output.weight, output.bias)
        return output.weight @ attention.in_proj_weight[2 * width :], bias


class TransformerAnonymizer(Anonymizer):
    """The paper's AAM: blocks of plain self-attention with a residual.

    Args:
        feature_dim: D.
        num_layers: Blocks; 3 in the paper.
        num_heads: Heads a block; 8 in the paper. Must divide D.
        attends_over: 'time': the steps of one sequence; a lone feature attends to itself. 'batch': the rows of `[B, D]`
            are one sequence (the reference's behaviour; results don't hold for one feature at a time).
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
        if num_layers < 1:
            raise UserError("num_layers", f"{num_layers} leaves no block", "use fa_arch = 'identity' for raw features")
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
        blocks = [SelfAttentionBlock(feature_dim, num_heads) for _ in range(num_layers)]
        self.self_attn_blocks = nn.ModuleList(blocks)
        if identity:
            for block in blocks:
                nn.init.zeros_(block.self_attn.out_proj.weight)
                nn.init.zeros_(block.self_attn.out_proj.bias)

    def map_rows(self, rows: Tensor) -> Tensor:
        for block in cast("list[SelfAttentionBlock]", self.self_attn_blocks):
            rows = block.attend_alone(rows)
        return rows

    def map_many_rows(self, rows: Tensor) -> Tensor:  # [B, D] -> [B, D]
        """`map_rows` by one product with the blocks multiplied together, equal to rounding.

        With L blocks, forward takes 2 (2L - 1) D^3 + 2 B D^2 operations instead of 4 L B D^2, and backward keeps the
        proportion: the break-even is B = D, whatever L.
        """
        (weight, bias), *others = (block.affine() for block in cast("list[SelfAttentionBlock]", self.self_attn_blocks))
        for later, shift in others:
            # Apart from the identity, which a product of low precision would round.
            weight, bias = weight + later + later @ weight, bias + shift + later @ bias
        return rows + F.linear(rows, weight, bias)

    def map_sequences(self, sequences: Tensor, valid: Tensor | None) -> Tensor:
        if sequences.shape[1] == 1:
            return super().map_sequences(sequences, valid)
        for block in self.self_attn_blocks:
            sequences = block(sequences, valid)
        return sequences

    def _forward_rows(self, rows: Tensor) -> Tensor:
        if self.attends_over == "batch":
            return self.map_sequences(rows[None], None)[0]  # S = B: the rows see one another
        if self.training and len(rows) > rows.shape[-1]:
            return self.map_many_rows(rows)
        return super()._forward_rows(rows)

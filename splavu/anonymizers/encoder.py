"""A transformer encoder that looks some steps back: norms, feed-forward, and, if wanted, a bottleneck.

Note: more layers do not protect. Without a bottleneck the map can be undone by an attacker
who trains on its output, like any that starts as the identity and may stay one; the bottleneck makes that impossible,
for all of a step passes through d numbers. What it keeps of them is a matter of the objective, and of an audit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splavu.anonymizers.base import Anonymizer, in_tiles
from splavu.errors import UserError

Rowwise = Callable[[Tensor], Tensor]
Applied = Callable[[Rowwise, Tensor], Tensor]
"""(function of rows, [B, T, D]) -> [B, T, ...]: as it is in training, in tiles of one size in evaluation."""


class WindowedBlock(nn.Module):
    """`x + attention(norm(x))`, then `x + feed-forward(norm(x))`; a step attends to itself and `window` before it."""

    def __init__(self, feature_dim: int, num_heads: int, window: int, hidden: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm, self.forward_norm = nn.LayerNorm(feature_dim), nn.LayerNorm(feature_dim)
        # Apart rather than as one product, so that a lone feature takes the values alone and gets the same bits.
        self.query, self.key, self.value, self.out = (nn.Linear(feature_dim, feature_dim) for _ in range(4))
        self.recency = nn.Parameter(torch.zeros(num_heads, window + 1))
        """Added to the score of a step so many back."""
        self.fc1, self.fc2 = nn.Linear(feature_dim, hidden), nn.Linear(hidden, feature_dim)

    def forward(self, sequences: Tensor, applied: Applied) -> Tensor:  # [B, T, D] -> [B, T, D]
        queries, keys, values = (
            applied(lambda rows, part=part: part(self.attention_norm(rows)), sequences).unflatten(
                -1, (self.num_heads, -1)
            )  # [B, T, heads, D / heads]
            for part in (self.query, self.key, self.value)
        )
        attended = attend_back(queries, keys, values, self.recency).flatten(-2)
        sequences = sequences + applied(self.out, attended)
        return sequences + applied(self._feed_forward, sequences)

    def alone(self, rows: Tensor) -> Tensor:  # [B, D] -> [B, D]
        """The block on sequences of one step, whose attention has one key."""
        rows = rows + self.out(self.value(self.attention_norm(rows)))
        return rows + self._feed_forward(rows)

    def _feed_forward(self, rows: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.forward_norm(rows))))


class EncoderAnonymizer(Anonymizer):
    """Blocks of windowed attention and feed-forward, then a bottleneck. A lone feature is a sequence of one step.

    Args:
        feature_dim: D.
        num_layers: Blocks.
        num_heads: Heads a block; must divide D.
        window: Steps back that a block sees; 0 maps each step on its own. With L blocks a released step depends on
            itself and L x window steps before it (`context`), on none after it.
        hidden: Width of the feed-forward layer; None is 2 D.
        bottleneck: d, the numbers through which all of a step passes before it is D wide again; None has none.
        identity: Start as the exact identity, with a bottleneck as the identity before it.

    Source: pre-norm blocks as in Xiong et al. 2020, "On layer normalization in the transformer architecture".
    """

    def __init__(
        self,
        feature_dim: int,
        *,
        num_layers: int = 2,
        num_heads: int = 8,
        window: int = 0,
        hidden: int | None = None,
        bottleneck: int | None = None,
        identity: bool = True,
    ) -> None:
        super().__init__()
        if num_heads < 1 or feature_dim % num_heads:
            raise UserError("num_heads", f"{num_heads} doesn't divide the feature width {feature_dim}", "use a divisor")
        if num_layers < 1:
            raise UserError("num_layers", f"{num_layers} leaves no block", "use fa_arch = 'identity' for raw features")
        if window < 0:
            raise UserError("window", f"{window} steps back", "give 0 (each step on its own) or more")
        if bottleneck is not None and not 1 <= bottleneck < feature_dim:
            raise UserError(
                "bottleneck", f"{bottleneck} of {feature_dim} numbers", "give 1 or more, fewer than there are"
            )
        hidden = hidden or 2 * feature_dim
        self.architecture = {
            "arch": "encoder",
            "feature_dim": feature_dim,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "window": window,
            "hidden": hidden,
            "bottleneck": bottleneck,
        }
        blocks = [WindowedBlock(feature_dim, num_heads, window, hidden) for _ in range(num_layers)]
        self.blocks = nn.ModuleList(blocks)
        if identity:
            for block in blocks:
                for last in (block.out, block.fc2):
                    nn.init.zeros_(last.weight)
                    nn.init.zeros_(last.bias)
        self.narrow: nn.Linear | None = None
        self.widen: nn.Linear | None = None
        if bottleneck is not None:
            self.narrow, self.widen = nn.Linear(feature_dim, bottleneck), nn.Linear(bottleneck, feature_dim)
            nn.init.orthogonal_(self.narrow.weight)
            self.start_bottleneck(torch.zeros(feature_dim), self.narrow.weight, self.narrow.weight.T)

    @property
    def context(self) -> int:
        """Steps before it that a released step depends on."""
        return len(self.blocks) * self.architecture["window"]

    @torch.no_grad()
    def start_bottleneck(self, mean: Tensor, encode: Tensor, decode: Tensor) -> None:  # [D], [d, D], [D, d]
        """Start the bottleneck at a projection, such as the principal components of the features."""
        if self.narrow is None or self.widen is None:
            raise ValueError("there is no bottleneck")
        self.narrow.weight.copy_(encode)
        self.narrow.bias.copy_(-encode @ mean)
        self.widen.weight.copy_(decode)
        self.widen.bias.copy_(mean)

    def map_rows(self, rows: Tensor) -> Tensor:
        for block in cast("list[WindowedBlock]", self.blocks):
            rows = block.alone(rows)
        return self._squeeze(rows)

    def map_sequences(self, sequences: Tensor, valid: Tensor | None) -> Tensor:
        if valid is None:
            return self._through(sequences)
        # Real steps to the front: then a window counts them alone, and none of them sees padding, which is later.
        order = (~valid).to(torch.uint8).argsort(dim=1, stable=True)[..., None].expand_as(sequences)
        real = sequences.masked_fill(~valid[..., None], 0).gather(1, order)
        mapped = self._through(real)
        return torch.zeros_like(mapped).scatter(1, order, mapped)

    def _through(self, sequences: Tensor) -> Tensor:  # [B, T, D] -> [B, T, D]
        applied = _directly if self.training else _in_tiles
        for block in self.blocks:
            sequences = block(sequences, applied)
        return applied(self._squeeze, sequences)

    def _squeeze(self, rows: Tensor) -> Tensor:
        return rows if self.narrow is None or self.widen is None else self.widen(self.narrow(rows))


class Continuation:
    """Streams a video through an anonymizer chunk by chunk; the output is bitwise equal to the whole video's.

    Args:
        anonymizer: In evaluation mode. Of a chain each stage.

    Raises:
        UserError: It looks at later steps, or without end at earlier ones.
    """

    def __init__(self, anonymizer: Anonymizer) -> None:
        self.anonymizer, self.context = anonymizer, context_of(anonymizer)
        self._past: Tensor | None = None

    def __call__(self, chunk: Tensor) -> Tensor:  # [T, D] -> [T, D]
        """The next steps, anonymized."""
        if not len(chunk):
            return chunk
        seen = chunk if self._past is None else torch.cat([self._past, chunk])
        self._past = seen[max(0, len(seen) - self.context) :].clone()
        return self.anonymizer(seen[None])[0, len(seen) - len(chunk) :]


def context_of(anonymizer: Anonymizer) -> int:
    """Steps before it that a released step depends on.

    Raises:
        UserError: No number of steps would do.
    """
    stages = getattr(anonymizer, "stages", [anonymizer])
    for stage in stages:
        if not hasattr(stage, "context") and type(stage).map_sequences is not Anonymizer.map_sequences:
            raise UserError(
                f"'{stage.architecture['arch']}'", "attends to the whole video, so it can't be anonymized as it goes on"
            )
    return sum(getattr(stage, "context", 0) for stage in stages)


def attend_back(  # three of [B, T, heads, d], [heads, window + 1] -> [B, T, heads, d]
    queries: Tensor, keys: Tensor, values: Tensor, recency: Tensor
) -> Tensor:
    """Attention of each step over itself and the window before it.

    Step by step back rather than with a mask over all pairs: it takes T x window instead of T x T, and what a step gets
    is the same bit for bit wherever a sequence begins and ends.
    """
    window, num_steps = recency.shape[1] - 1, queries.shape[1]
    keys, values = (F.pad(part, (0, 0, 0, 0, window, 0)) for part in (keys, values))
    places = [slice(window - back, window - back + num_steps) for back in range(window + 1)]
    scale = 1 / math.sqrt(queries.shape[-1])
    scores = torch.stack([(queries * keys[:, place]).sum(-1) * scale for place in places], dim=-1) + recency
    step = torch.arange(num_steps, device=queries.device)
    missing = step[:, None] < torch.arange(window + 1, device=queries.device)  # [T, window + 1]
    shares = scores.masked_fill(missing[:, None], -torch.inf).softmax(-1)  # [B, T, heads, window + 1]
    parts = (share[..., None] * values[:, place] for share, place in zip(shares.unbind(-1), places, strict=True))
    return cast("Tensor", sum(parts))


def _directly(function: Rowwise, sequences: Tensor) -> Tensor:
    return function(sequences)


def _in_tiles(function: Rowwise, sequences: Tensor) -> Tensor:
    return in_tiles(function, sequences.flatten(0, 1)).unflatten(0, sequences.shape[:2])

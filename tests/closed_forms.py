"""The built-in closed forms as tests fit them, a row each: by command and by parameter file the same anonymizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Fitting(NamedTuple):
    """One closed form, fitted to conftest's made-up study (192 dimensions, seven private attributes)."""

    options: str
    """Of `splavu fit`; {static}, {labels} and {private} are files."""
    chain: str
    """`fa_arch` that says the same."""
    parameters: Mapping[str, Any] = {}
    """What is said beside the chain."""
    rank: int | None = None
    """Directions removed, of those that remove some."""


FITTINGS = {
    "eraser": Fitting("--static {static} --labels {labels} --rank 9", "eraser(rank=9)", rank=9),
    "leace": Fitting("--private {private}", "leace", rank=7),
    "orthogonal": Fitting("--private {private}", "orthogonal", rank=7),
    "inlp": Fitting("--private {private} --rounds 1", "inlp(rounds=1)", rank=7),
    "pca": Fitting("--keep 20", "pca(keep=20)", rank=172),
    "random": Fitting("--keep 20 --seed 4", "random(keep=20)", rank=172),
    "quantizer": Fitting("--labels {labels} --subjects {private} --codes 12,3 --seed 4", "quantizer(codes=(12, 3))"),
    "noise": Fitting("--sd 0.5 --units whitened", "noise(units=whitened)", {"noise_sd": 0.5}),
}

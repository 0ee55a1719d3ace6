"""The anonymizer of a checkpoint, and which weights it has."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from splavu.anonymizers import Anonymizer, build_anonymizer, infer_architecture
from splavu.anonymizers.fitted_to import FittedTo
from splavu.errors import UserError
from splavu.runtime import checkpoints


def load_anonymizer(path: str | Path, *, num_heads: int = 8) -> Anonymizer:
    """The anonymizer of a checkpoint as it was trained: its architecture is recorded, or inferred from its weights.

    Args:
        path: Checkpoint with `fa_model_state_dict`, or bare weights.
        num_heads: For published weights, which leave no trace of it.

    Raises:
        UserError: The file is no checkpoint of an anonymizer.
    """
    content = checkpoints.read(path)
    state = checkpoints.state_of(content, "fa_model_state_dict", path, prefer_average=True)
    with checkpoints.understood(path):
        found = dict(content.get("fa_architecture") or infer_architecture(state, source=path))
        if found["arch"] == "transformer":
            found.setdefault("num_heads", num_heads)
        if max(_layers(found)) > len(state):
            raise UserError(
                path, f"has {len(state)} weights for {max(_layers(found))} layers", "use another checkpoint"
            )
        # Sizes that don't fit the weights are found before they take memory.
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            checkpoints.check_fits(_built(found, path), state, path)
        anonymizer = _built(found, path)
        checkpoints.load_into(anonymizer, state, path)
        anonymizer.fitted_to = FittedTo.from_record(content.get("fitted_to"))
    return anonymizer


def _layers(architecture: Mapping[str, Any]) -> Iterator[int]:
    """Of the network and of the stages of a chain."""
    yield architecture.get("num_layers") or 0
    for stage in architecture.get("stages") or ():
        yield from _layers(stage)


def _built(architecture: Mapping[str, Any], path: str | Path) -> Anonymizer:
    try:
        return build_anonymizer(**architecture)
    except UserError as error:
        raise UserError(path, f"its architecture: {error.problem}", error.remedy) from error


def weights_hash(network: torch.nn.Module) -> str:
    """SHA-256 of all parameters and buffers, by name: which weights, whatever file they came in."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

"""The anonymizer of a checkpoint, and which weights it has."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from splavu.anonymizers import Anonymizer, build_anonymizer, infer_architecture
from splavu.anonymizers.fitted_to import FittedTo
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
    found = dict(content.get("fa_architecture") or infer_architecture(state, source=path))
    if found["arch"] == "transformer":
        found.setdefault("num_heads", num_heads)
    anonymizer = build_anonymizer(found.pop("arch"), found.pop("feature_dim"), **found)
    checkpoints.load_into(anonymizer, state, path)
    anonymizer.fitted_to = FittedTo.from_record(content.get("fitted_to"))
    return anonymizer


def weights_hash(network: torch.nn.Module) -> str:
    """SHA-256 of all parameters and buffers, by name: which weights, whatever file they came in."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

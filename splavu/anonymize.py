"""A raw feature store goes in, a released one comes out: each feature anonymized on its own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from tqdm import tqdm

from splavu import __version__, checkpoints
from splavu.anonymizers import Anonymizer, build_anonymizer, infer_architecture, one_by_one
from splavu.errors import UserError
from splavu.stores import FeatureStore, StoreWriter


def load_anonymizer(path: str | Path, *, num_heads: int = 8) -> Anonymizer:
    """The anonymizer of a checkpoint as it was trained: its architecture is recorded, or told by its weights.

    Args:
        path: Checkpoint with `fa_model_state_dict`, or bare weights.
        num_heads: For published weights, which leave no trace of it.

    Raises:
        UserError: The file is no checkpoint of an anonymizer.
    """
    content = checkpoints.read(path)
    state = checkpoints.state_of(content, "fa_model_state_dict", path)
    found = dict(content.get("fa_architecture") or infer_architecture(state, source=path))
    if found["arch"] == "transformer":
        found.setdefault("num_heads", num_heads)
    anonymizer = build_anonymizer(found.pop("arch"), found.pop("feature_dim"), **found)
    checkpoints.load_into(anonymizer, state, path)
    return anonymizer


@torch.no_grad()
def anonymize_store(
    source: str | Path, target: str | Path, anonymizer: Anonymizer, *, device: torch.device | str = "cpu"
) -> int:
    """Write `target` with every feature of `source` anonymized; returns the number of keys.

    Interrupted, it goes on where it stopped. The new store says which weights made it, in its attributes.

    Raises:
        UserError: The anonymizer attends over the batch, so that a feature has no anonymized value of its own; the
            widths differ; the source is damaged or holds values that are not finite; source and target are one file.
    """
    source, target = Path(source), Path(target)
    if anonymizer.attends_over == "batch":
        raise UserError(
            "anonymizer",
            "was trained with batch_as_sequence: its output for a feature depends on the rest of the batch",
            "train with batch_as_sequence = False to release features",
        )
    if source.resolve() == target.resolve():
        raise UserError(target, "is the store to read", "give another name; raw features are not overwritten")
    store = FeatureStore(source, feature_dim=anonymizer.architecture["feature_dim"])
    store.verify()
    anonymizer = anonymizer.to(device).eval()
    provenance = {
        **store.attributes,
        "anonymizer": json.dumps(anonymizer.architecture, sort_keys=True),
        "anonymizer_sha256": weights_hash(anonymizer),
        "splavu_version": __version__,
    }
    with StoreWriter(target, attributes=provenance) as writer:
        for key in tqdm(store.keys(), desc=target.name, unit="video"):
            if not writer.done(key):
                safe = one_by_one(anonymizer, torch.from_numpy(store[key]).to(device))  # [K, D] or [D]
                writer.add(key, safe.cpu().numpy())
    return len(store)


def weights_hash(network: torch.nn.Module) -> str:
    """SHA-256 of all parameters and buffers, by name: which weights, whatever file they came in."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

"""Raw features go in, released ones come out: each feature anonymized on its own, or each video as one sequence.

A store of clips is always released feature by feature. A folder of long videos may be released video by video, which is
what detectors were co-trained with; a feature then depends on its own video, never on another.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from splavu import __version__, checkpoints
from splavu.anonymizers import Anonymizer, build_anonymizer, infer_architecture, one_by_one
from splavu.errors import UserError
from splavu.stores import FolderWriter, StoreWriter, open_features


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


Unit = Literal["alone", "video"]


@torch.no_grad()
def anonymize_store(
    source: str | Path,
    target: str | Path,
    anonymizer: Anonymizer,
    *,
    unit: Unit = "alone",
    device: torch.device | str = "cpu",
) -> int:
    """Write `target` with every feature of `source` anonymized; returns the number of keys.

    Interrupted, it goes on where it stopped. What is written says which weights made it, in its attributes.

    Args:
        source: An HDF5 store, or a folder of .npy files, one a video.
        target: The same kind, to be written.
        anonymizer: The trained anonymizer.
        unit: 'alone': each feature as if it came alone; 'video' (folders only): each crop of a video is one sequence.
        device: Where it computes.

    Raises:
        UserError: The anonymizer attends over the batch, so that a feature has no anonymized value of its own; the
            widths differ; the source is damaged or holds values that are not finite; source and target are one file;
            clips of a store are to be taken for a sequence.
    """
    source, target = Path(source), Path(target)
    if unit == "video" and not source.is_dir():
        raise UserError("unit", f"'video', but {source} is no folder of long videos", "leave it out: clips are alone")
    if anonymizer.attends_over == "batch":
        raise UserError(
            "anonymizer",
            "was trained with batch_as_sequence: its output for a feature depends on the rest of the batch",
            "train with batch_as_sequence = False to release features",
        )
    if source.resolve() == target.resolve():
        raise UserError(target, "is the store to read", "give another name; raw features are not overwritten")
    store = open_features(source, feature_dim=anonymizer.architecture["feature_dim"])
    store.verify(checksums=True)
    anonymizer = anonymizer.to(device).eval()
    provenance = {
        **store.attributes,
        "anonymizer": json.dumps(anonymizer.architecture, sort_keys=True),
        "anonymizer_sha256": weights_hash(anonymizer),
        **({"anonymized": "each video as one sequence"} if unit == "video" else {}),
        "splavu_version": __version__,
    }
    with _writer(source, target, provenance) as writer:
        for key in tqdm(store.keys(), desc=target.name, unit="video"):
            if not writer.done(key):
                raw = torch.from_numpy(store[key]).to(device)  # [K, D] or [D]; of a video [T, D] or [T, N, D]
                safe = one_by_one(anonymizer, raw) if unit == "alone" else _as_sequence(anonymizer, raw)
                writer.add(key, safe.cpu().numpy())
    return len(store)


def _writer(
    source: Path, target: Path, attributes: dict[str, Any]
) -> AbstractContextManager[StoreWriter | FolderWriter]:
    if source.is_dir():
        return nullcontext(FolderWriter(target, attributes=attributes))
    return StoreWriter(target, attributes=attributes)


def _as_sequence(anonymizer: Anonymizer, video: Tensor) -> Tensor:  # [T, D] or [T, N, D] -> the same
    crops = video[None] if video.ndim == 2 else video.transpose(0, 1)  # [N, T, D]
    safe = anonymizer(crops)
    return safe[0] if video.ndim == 2 else safe.transpose(0, 1)


def weights_hash(network: torch.nn.Module) -> str:
    """SHA-256 of all parameters and buffers, by name: which weights, whatever file they came in."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

"""What an audit asks of itself before anyone may believe it.

What a reader would get wrong: a gate that fails doesn't say that features leak. It says that this audit could not have
told: its attackers fail on raw features, succeed on shuffled labels, or were shown other features than the anonymizer
gives to whoever asks it for one.
"""

from __future__ import annotations

import numpy as np
import torch

from splavu.anonymizers import Anonymizer
from splavu.attacks.campaign import Attack
from splavu.attacks.release_protocol import gate
from splavu.attacks.rows import AttackData
from splavu.audit.evidence import Gate

CLOSE = 1e-3
"""Largest difference, in units of the largest feature, by which a stored feature may differ from the one served now:
stores may have been made on another device, in lower precision."""
BATCH = 64
"""Rows that are served at once, to compare with each alone."""


def attackers_gate(claim: str, attack: Attack | None, expected: bool, num_resamples: int) -> Gate:
    """Whether attackers beat chance where they should, and don't where they shouldn't (`released.gate`)."""
    if attack is None:
        return Gate(claim, None, "no raw features were given (--raw)", {})
    found = gate("clip", claim, attack, expected, num_resamples)
    detail = f"cMAP {100 * found['cmap']:.1f}, chance {100 * found['chance']:.1f}"
    return Gate(
        claim, found["passed"], detail, {k: v for k, v in found.items() if k not in ("view", "claim", "passed")}
    )


def batch_gate(anonymizer: Anonymizer | None, rows: np.ndarray | None, device: torch.device | str) -> Gate:
    """Whether a feature comes out the same alone and in a batch of others."""
    claim = "a released feature does not depend on its batch"
    if anonymizer is None or rows is None:
        return Gate(claim, None, "takes the anonymizer and raw features (--aam, --raw)", {})
    batch = torch.from_numpy(np.ascontiguousarray(rows[:: max(1, len(rows) // BATCH)][:BATCH])).to(device)
    with torch.no_grad():
        anonymizer = anonymizer.to(device).eval()
        together = anonymizer(batch)
        alone = torch.cat([anonymizer(row[None]) for row in batch])
        turned = anonymizer(batch.flip(0)).flip(0)
    scale = float(alone.abs().max())
    gap = max(float((together - alone).abs().max()), float((together - turned).abs().max())) / max(scale, 1e-30)
    return Gate(claim, gap < 1e-4, f"largest relative difference {gap:.2g}", {"relative_difference": gap})


def served_gate(released: AttackData, served: AttackData | None) -> Gate:
    """Whether the released rows are those that the anonymizer gives for each raw row alone."""
    claim = "the store holds what the anonymizer gives each feature alone"
    if served is None:
        return Gate(claim, None, "takes the anonymizer and raw features (--aam, --raw)", {})
    gaps = []
    for name, rows in released.splits.items():
        alone = served.splits[name].features
        if rows.features.shape != alone.shape:
            detail = f"the store is {rows.features.shape[1]} wide, the anonymizer gives {alone.shape[1]}"
            return Gate(claim, False, detail, {})
        gaps.append(float(np.abs(rows.features - alone).max()) / max(float(np.abs(alone).max()), 1e-30))
    gap = max(gaps)
    return Gate(claim, gap < CLOSE, f"largest relative difference {gap:.2g}", {"relative_difference": gap})

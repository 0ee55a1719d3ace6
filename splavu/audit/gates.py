"""Gates: the checks that an audit must pass before its numbers can be trusted.

Note: a failed gate means that the audit had no power, not that features leak: its attackers fail on raw features,
succeed on permuted labels, or were given other features than the anonymizer's output for one feature alone. With too
few test subjects the first two are undecided: no attacker could have passed or failed.
"""

from __future__ import annotations

import numpy as np
import torch

from splavu.anonymizers import Anonymizer
from splavu.attacks.campaign import Attack
from splavu.attacks.gates import Power, gate, numbers_in_words, power_of
from splavu.attacks.rows import AttackData
from splavu.audit.evidence import Gate
from splavu.audit.identity.clips_apart import linking_power
from splavu.audit.inputs import AuditInputs

CLOSE = 1e-3
"""Largest difference, in units of the largest feature, by which a stored feature may differ from one that is anonymized
now: stores may have been written on another device, in lower precision."""
BATCH = 64
"""Rows that are anonymized at once, to compare with each alone."""


def attackers_gate(claim: str, attack: Attack | None, expected: bool, num_resamples: int) -> Gate:
    """Whether attackers beat chance where they should, and don't where they shouldn't (`splavu.attacks.gates`)."""
    if attack is None:
        return Gate(claim, None, "no raw features were given (--raw)", {})
    found = gate("clip", claim, attack, expected, num_resamples)
    numbers = {k: v for k, v in found.items() if k not in ("view", "claim", "state", "passed")}
    return Gate(claim, found["passed"], numbers_in_words(found), numbers, state=found["state"])


def power_of_test(inputs: AuditInputs) -> Power:
    """What the test subjects can decide, by their labels alone: known before anything is trained. Without attributes,
    by how many can be linked."""
    test = inputs.released.test
    if not inputs.attributes:
        return linking_power(inputs.released)
    return power_of(test.labels, test.clusters, test.videos)


def batch_gate(anonymizer: Anonymizer | None, rows: np.ndarray | None, device: torch.device | str) -> Gate:
    """Whether the output for a feature is the same alone and in a batch."""
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
    """Whether the released rows are the anonymizer's outputs for each raw row alone."""
    claim = "the store holds the anonymizer's output for each feature alone"
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

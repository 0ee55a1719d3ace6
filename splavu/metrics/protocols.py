"""The protocols by which privacy is measured: the choices that a number depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """The choices that make a privacy number what it is."""

    name: str
    served: str
    """'batch': the anonymizer gets features in batches, and may mix them; 'alone': one feature at a time."""
    attackers: str
    selection: str
    """What decides which model, epoch and setting is reported."""
    warning: str = ""
    """Printed with every result."""


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "paper",
            served="batch",
            attackers="one two-layer head with L2-normalised outputs",
            selection="best epoch on the test set",
            warning="The paper protocol is optimistic about privacy: its attacker's logits are bounded by 1, an "
            "anonymizer that attends over the batch is evaluated on mixtures that are never released, and the "
            "epoch is picked on the test set. Judge privacy by protocol = 'release'.",
        ),
        Protocol(
            "release",
            served="alone",
            attackers="newly trained, strongest of several for each attribute",
            selection="validation subjects",
        ),
    )
}

FORMER_PROTOCOLS = {"published": "paper", "released": "release"}
"""Former name -> name; results on disk and parameter files may have either."""


def protocol_name(name: str) -> str:
    """The name of today."""
    return FORMER_PROTOCOLS.get(name, name)

"""What an anonymizer guarantees against every attacker, and what only seems to be a guarantee.

Note: none of this was measured. It follows from the architecture alone, whatever the training was; what attackers
read in fact is for an audit to find.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def guarantees(architecture: Mapping[str, Any]) -> list[str]:
    """A sentence for each part of an `architecture`, as an anonymizer records it, that limits what is released."""
    found = []
    for stage in stages_of(architecture):
        if stage["arch"] == "quantizer":
            bits = budget_of(stage)
            found.append(
                f"At most {bits:.2f} bits of a clip are released, so no attacker learns more from it about anything; "
                "each further clip has as many again."
            )
        elif stage["arch"] == "affine" and stage["rank"]:
            found.append(
                f"{stage['rank']} of {stage['feature_dim']} directions are removed, to float32's rounding. The others "
                "may tell the same: no bound on attackers that aren't linear, nor on people unlike those in training."
            )
        elif stage["arch"] == "encoder" and stage["bottleneck"]:
            found.append(
                f"All of a clip passes through {stage['bottleneck']} numbers, so it can't be restored exactly; what "
                "they tell is not bounded."
            )
        elif stage["arch"] == "noise" and stage["sd"]:
            found.append(
                f"Noise of sd {stage['sd']:g} ({stage['units']}) is a clip's own: it averages out over clips of one "
                "person. No differential privacy."
            )
    return found or ["None: a map of single features that can be inverted hides nothing from who trains on its output."]


def budget_of(architecture: Mapping[str, Any]) -> float | None:
    """Bits a clip at most, whatever comes after: what has passed one quantizer never holds more. None: no bound."""
    quantizers = [stage for stage in stages_of(architecture) if stage["arch"] == "quantizer"]
    return min((sum(math.log2(count) for count in stage["codes"]) for stage in quantizers), default=None)


def stages_of(architecture: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The links of a chain; itself where it is none."""
    return architecture["stages"] if architecture["arch"] == "chain" else [architecture]

"""What an anonymizer guarantees against every attacker, for whom, and what only seems to be a guarantee.

The one text for checkpoints (`fitted`), model cards, `fit`, the audit's page and the docs.

Note: none of this was measured. It follows from the architecture alone, whatever the training was; what attackers
read in fact is for an audit to find.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from splavu.anonymizers.closed_form.support import Support


def guarantees(architecture: Mapping[str, Any]) -> list[str]:
    """Statements on each part of an `architecture`, as an anonymizer records it, that limits what is released.

    Source: data processing inequality (Cover and Thomas, "Elements of information theory", 2.8) for the mean; maximal
    leakage for the worst case: Issa, Wagner, Kamath 2020, "An operational approach to information leakage", by which it
    is log2 of the number of vectors for any fixed map, and adds up at most over releases.
    """
    found = []
    for stage in stages_of(architecture):
        if stage["arch"] == "quantizer":
            found += _of_quantizer(stage)
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


def as_paragraphs(statements: Sequence[str]) -> str:
    """The statements as a terminal shows them."""
    return "\n".join(textwrap.fill(f"- {one}", 100, subsequent_indent="  ") for one in statements)


def _of_quantizer(stage: Mapping[str, Any]) -> list[str]:
    vectors = math.prod(stage["codes"])
    bits = f"{math.log2(vectors):.2f} bits"
    return [
        f"Each clip is released as one of {vectors:,} vectors, B = log2 of that = {bits}. The bounds hold for every "
        "attacker and for people whom the anonymizer was not fitted to.",
        f"On average: one release of a clip has at most {bits} of mutual information with anything.",
        f"At worst: one release makes any guess, of anything, at most 2^B = {vectors:,} times as likely to be right as "
        f"without it (maximal leakage of at most {bits}).",
        f"Not bounded: an attribute of up to {bits} may be known fully, yes or no takes 1; one of fewer than "
        f"{vectors:,} people may be named.",
        f"It adds up: n clips of a person have n times {bits}; releases of one clip by different anonymizers, the sum "
        "of theirs.",
        f"People whom it was fitted to have no such bound, because the vectors depend on them. {floor_of(stage)}",
    ]


def floor_of(stage: Mapping[str, Any]) -> str:
    """What is known of the fitted people behind the centroids of a quantizer, in plain sentences."""
    if "support" not in stage:
        return "How many of them stand behind a centroid was not recorded: one may be a single clip of one person."
    support = Support.of(stage["support"])
    if support.at_least == 1:
        floor = "There is no floor: a centroid may be a single clip of one person."
    else:
        floor = f"Each centroid is nearest to clips of at least {support.fewest} fitted {support.unit}s."
    if support.unit != "subject":
        floor += f" No subjects were given, so {support.unit}s were counted: those of one person count several times."
    if support.placed == "k-means":
        floor += " Centroids lie at the fitted clips (k-means), so the distance to its code reveals who was fitted."
    return floor


def budget_of(architecture: Mapping[str, Any]) -> float | None:
    """Bits a clip at most, whatever comes after: what has passed one quantizer never holds more. None: no bound."""
    quantizers = [stage for stage in stages_of(architecture) if stage["arch"] == "quantizer"]
    return min((sum(math.log2(count) for count in stage["codes"]) for stage in quantizers), default=None)


def stages_of(architecture: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The links of a chain; itself where it is none."""
    return architecture["stages"] if architecture["arch"] == "chain" else [architecture]

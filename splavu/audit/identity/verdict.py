"""An audit without attributes: is one subject's video linked with another, and would the audit have found it?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from splavu.attacks.gates import LUCK, Power
from splavu.audit.evaluator import decision
from splavu.audit.evidence import Gate, Headline
from splavu.audit.headline import UNDEFINED
from splavu.metrics.estimates import NAN, Estimate

CLAIM = "subjects are linked on raw features"
WITHIN = "released to released"


def linking_headline(linkage: Mapping[str, Any], margin: float) -> Headline:
    """Of the pairing within the release that links best, by equal error rate: its rank-1 and EER, and those of raw
    features.

    Verdict: `leaks` where p, adjusted for the number of pairings (Bonferroni), is at most 0.05; `at chance` where the
    95 % interval of every EER lies within the margin of 0.5.

    Args:
        linkage: Of `identity.run.linked_people`.
        margin: Of the EER, for 'at chance'.
    """
    within = {name: one for name, one in linkage.items() if name.startswith(WITHIN) and "skipped" not in one}
    if not within:
        skipped = linkage.get(WITHIN, {}).get("skipped", "linking was left out")
        sentence, verdict = f"nothing was attacked: the table has no attributes, and {skipped}", "undecided"
        return _headline(sentence, verdict)
    name = min(within, key=lambda pairing: within[pairing]["eer"].value)
    one, whole = within[name], linkage.get(name.replace("released", "raw"), linkage.get("raw to raw", {}))
    p = min(1.0, len(within) * min(found["p"] for found in within.values()))
    ends = [end for found in within.values() for end in (found["eer"].low, found["eer"].high)]
    verdict = decision(p, all(abs(end - 0.5) <= margin for end in ends))
    rank1, eer = (_change(one[key], whole.get(key)) for key in ("rank1", "eer"))
    sentence = (
        f"linking subjects, {name}, where it succeeds best: rank-1 {rank1} (chance {100 * one['rank1'].chance:.1f} %), "
        f"equal error rate {eer} (chance 50 %) ({verdict}); the table has no attributes, and none was attacked"
    )
    return _headline(sentence, verdict)


def linking_gate(raw: Mapping[str, Any] | None, power: Power) -> Gate:
    """Whether raw features link subjects, so that failing on released ones means something.

    They do where at most a share LUCK of the exchanges of subjects links as well.

    Args:
        raw: Raw features linked with raw features; None without any.
        power: What the test subjects can decide (`clips_apart.linking_power`).
    """
    if raw is None:
        return Gate(CLAIM, None, "no raw features were given (--raw)", {})
    if "skipped" in raw or not power.decides:
        return Gate(CLAIM, None, raw.get("skipped") or str(power), dataclasses.asdict(power), state="undecided")
    detail = f"rank-1 {_percent(raw['rank1'])}, chance {100 * raw['rank1'].chance:.1f} %, p {raw['p']:.2g}"
    numbers = {"p": raw["p"], "rank1": raw["rank1"], "eer": raw["eer"], **dataclasses.asdict(power)}
    return Gate(CLAIM, bool(raw["p"] <= LUCK), f"{detail}; {power.subjects} test subjects, {power}", numbers)


def _headline(sentence: str, verdict: str) -> Headline:
    return Headline(
        sentence=sentence, unit=None, attributes=(), num_attributes=0, reduction=UNDEFINED, raw_excess=NAN,
        released_excess=NAN, semi_informed=UNDEFINED, by_unit={}, own_attributes={}, least_protected=None, draws={},
        verdict=verdict,
    )  # fmt: skip


def _change(released: Estimate, raw: Estimate | None) -> str:
    return _percent(released) if raw is None else f"{_percent(raw)} on raw features, {_percent(released)} on released"


def _percent(one: Estimate) -> str:
    return f"{100 * one.value:.1f} % [{100 * one.low:.1f}, {100 * one.high:.1f}]"

"""evidence.json -> report.html: one page that stands alone, for who decides about a release and for who checks it.

What a reader would get wrong: nothing is computed here beyond differences to chance. Every number is one of the
evidence file, which the page carries whole at its end; what an audit left out is named, never silently missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from splavu.audit.evidence import SCHEMA
from splavu.audit.report.attribute_sections import attributes, effort, families, ladder
from splavu.audit.report.cells import UNITS, bounds, number, sentence, share
from splavu.audit.report.identity_sections import identity
from splavu.audit.report.markup import Content, cell, element, page, table
from splavu.audit.report.provenance_sections import everything, glossary, not_tested, provenance
from splavu.errors import UserError
from splavu.runtime.files import write_text

TITLE = "Privacy audit of released features"
VERDICTS = {
    "leaks": "Attackers do better than chance, and not by luck: the release still gives private attributes away.",
    "at chance": "Attackers are no better than chance, up to the margin that was asked for.",
    "faint": "Attackers do better than chance, and not by luck, but by less than the margin that was asked for.",
    "undecided": "The test people are too few to tell: success beyond chance is neither shown nor excluded.",
}


def read_evidence(path: str | Path) -> dict[str, Any]:
    """The evidence as JSON holds it.

    Raises:
        UserError: No such file, no JSON, or not of an audit.
    """
    path = Path(path)
    try:
        evidence = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(path, "is not there", "python -m splavu audit ... --out FOLDER writes it") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(path, f"can't be read as JSON ({error})", "run the audit again") from error
    schema = evidence.get("schema") if isinstance(evidence, dict) else None
    if schema != SCHEMA:
        raise UserError(path, f"is no evidence of an audit: schema {schema!r}, expected '{SCHEMA}'", "audit again")
    return evidence


def write_report(path: str | Path, evidence: Mapping[str, Any]) -> Path:
    """Write the page in one move."""
    return write_text(path, report(evidence))


def report(evidence: Mapping[str, Any]) -> str:
    """The page.

    Args:
        evidence: As `evidence.plain` or `read_evidence` gives it; parts may be missing.
    """
    gates = evidence.get("gates") or ()
    failed = [gate for gate in gates if gate["passed"] is False]
    sections = (ladder, attributes, families, effort, identity, not_tested, provenance)
    return page(
        TITLE,
        element("header", _alarm(failed), _headline(evidence), class_="invalid" if failed else None),
        element("main", _gates(gates), [section(evidence) for section in sections], glossary(), everything(evidence)),
    )


def _alarm(failed: Sequence[Mapping[str, Any]]) -> Content:
    if not failed:
        return None
    return element(
        "section",
        element("h2", "✕ Not valid: do not rely on these numbers"),
        element("p", "This audit failed its own checks. It could not have told whether the release is safe:"),
        element("ul", [element("li", f"{gate['claim']}: no ({gate['detail']})") for gate in failed]),
        class_="alarm",
        role="alert",
    )


def _headline(evidence: Mapping[str, Any]) -> Content:
    """The one number, in words that need no training."""
    headline = evidence.get("headline") or {}
    reduction = headline.get("reduction") or {}
    test = (evidence.get("people") or {}).get("test") or {}
    parts: list[Content] = [element("h1", TITLE)]
    if counts := [f"{test[name]} {name}" for name in ("clips", "videos", "persons") if name in test]:
        parts.append(element("p", f"Judged on {', '.join(counts)} that no attacker had met.", class_="soft"))
    is_known = reduction.get("value") is not None
    if is_known:
        low, high = reduction.get("low"), reduction.get("high")
        said = (
            "of what the strongest attackers could read about people in the raw features, beyond guessing, is gone "
            f"from the release. With 95 % confidence it is between {share(low)} and {share(high)}"
        )
        left = f": {share(_left(high))} to {share(_left(low))} can still be read." if None not in (low, high) else "."
        above = (
            " More than 100 % means that attackers did worse than chance."
            if max(reduction["value"], high or 0) > 1
            else ""
        )
        parts += [
            element("p", share(reduction["value"]), class_="number"),
            element("p", said, left, above, class_="lead"),
        ]
    else:
        parts += [
            element("p", "no number", class_="number"),
            element("p", sentence(headline.get("sentence") or "nothing was judged"), class_="lead"),
        ]
    if verdict := VERDICTS.get(str(headline.get("verdict"))):
        parts.append(element("p", element("strong", verdict)))
    parts.append(_leaking(evidence.get("strongest") or {}))
    return [parts, _beside(headline) if is_known else None]


def _leaking(strongest: Mapping[str, Any]) -> Content:
    """Every attribute that leaks, where it takes least: the headline's unit may not be the one where it does."""
    told, named = [], set()
    for unit, found in strongest.items():
        leaks = [one["name"] for one in found["attributes"] if one["verdict"] == "leaks"]
        if names := [name for name in leaks if name not in named]:
            every = len(names) == len(found["attributes"]) > 3
            told.append(f"{f'all {len(names)} attributes' if every else ', '.join(names)} from {UNITS.get(unit, unit)}")
        named.update(leaks)
    return element("p", element("strong", "Better than chance: "), f"{'; '.join(told)}.") if told else None


def _beside(headline: Mapping[str, Any]) -> Content:
    """The same number for other attackers."""
    unit, semi = headline.get("unit"), headline.get("semi_informed") or {}
    others = [
        f"for {UNITS.get(name, name)} {share(one['value'])} {bounds(one, 100, 0)}"
        for name, one in (headline.get("by_unit") or {}).items()
        if name != unit
    ]
    return element(
        "p",
        f"The attacker sees {UNITS.get(unit, unit)}, where validation people lose most. ",
        f"{sentence('the same ' + ', '.join(others))} " if others else None,
        f"The usual test, fresh attackers of single clips, would have said {share(semi.get('value'))} ",
        f"{bounds(semi, 100, 0)}. Average precision lies ",
        f"{number(headline.get('raw_excess'), 100, 1)} points above chance on raw features and ",
        f"{number(headline.get('released_excess'), 100, 1)} on released ones.",
        class_="soft",
    )


def _left(reduction: float) -> float:
    """What can still be read: never less than nothing."""
    return max(0.0, 1 - reduction)


def _gates(gates: Sequence[Mapping[str, Any]]) -> Content:
    """What the audit asked of itself, failures first."""
    states = {True: "passed", False: "✕ FAILED", None: "not run"}
    order = sorted(gates, key=lambda gate: (gate["passed"] is not False, gate["passed"] is None))
    said = (
        f"{sum(gate['passed'] is True for gate in gates)} of {len(gates)} checks that the audit makes of itself passed."
    )
    rows = []
    for gate in order:
        style = "word failed" if gate["passed"] is False else "word"
        rows.append((gate["claim"], cell(states[gate["passed"]], class_=style), gate["detail"]))
    return element(
        "section",
        element("h2", "Can this audit be believed?"),
        element("p", said),
        table("Could it have noticed?", ("check", "result", "found"), rows, words=("result", "found")),
    )

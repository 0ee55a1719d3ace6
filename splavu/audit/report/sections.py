"""What the page's sections need beside the evidence: charts, means over attributes, and what is missing.

Note: chance differs from line to line, since the attributes that can be evaluated do. Charts of average precision show
points above each line's own chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from splavu.audit.report.charts import Band, Dot, LineSeries, curve_chart, dot_chart
from splavu.audit.report.formats import number, unit_name
from splavu.data.private_labels import NOT_READ
from splavu.data.private_labels import summary as columns_summary

Evidence = Mapping[str, Any]

THREAT_MODEL_CAPTION = (
    "Points of average precision above chance, mean over attributes; 0 is an attacker who knows nothing. Lines: 95 % "
    "intervals over test subjects. Hollow: raw features. Filled: released. Knowing more does not always help; the last "
    "line of each part takes for every attribute the mean of the attackers that are best on validation subjects."
)
THREAT_MODEL_NAMES = {"served alone": "one feature at a time"}
"""Name in the evidence -> on the page, where they differ."""
LEAST_SPREAD = 5e-4
"""Over seeds, in average precision: less isn't shown."""
FULL_HEAT = 60.0
"""Points above chance that are drawn in the strongest tone, attacker by attacker."""
PAIRINGS = {
    "raw to raw": "in raw features",
    "released to released": "in the release",
    "raw to released": "in the release, by someone who kept raw features",
}
PARTS = {
    "learning_curve": "learning curves",
    "code_length": "description length",
    "linkage": "linking",
    "inversion": "inversion of the release",
    "membership": "membership",
    "singling_out": "singling out",
}
QUICK = "Quick: a few fast families of attackers, one seed. A full audit finds more; don't release on this one."


def threat_models(evidence: Evidence) -> dict[str, Any]:
    """Groups of lines by unit, each line an attack on raw or on released features, and their chart."""
    results, raw, strongest = (evidence.get(name) or {} for name in ("rungs", "raw", "strongest"))
    groups, bands = [], []
    for unit in dict.fromkeys([*raw, *(one["unit"] for one in results), *strongest]):
        lines = []
        if unit in raw:
            knows = "raw features of other subjects, applied to raw features"
            lines.append({"name": "raw features", "knows": knows, "found": raw[unit], "kind": "raw"})
        for one in results:
            if one["unit"] == unit:
                name = THREAT_MODEL_NAMES.get(one["name"], one["name"])
                lines.append({**one, "name": name, "kind": "released"})
        if unit in strongest:
            found = strongest[unit]
            lines.append({"name": "strongest of all", "knows": "any of the above", "found": found, "kind": "released"})
        groups.append({"unit": unit, "lines": lines})
        bands.append(Band(f"The attacker sees {unit_name(unit)}"))
        bands += [Band(x["name"], (_excess(x["found"]["cmap"], x["kind"], x["name"]),)) for x in lines if x["found"]]
    chart = dot_chart(
        bands,
        title="Success above chance by threat model",
        description=_description(bands),
        axis="average precision above chance, points",
        caption=THREAT_MODEL_CAPTION,
    )
    return {"groups": groups, "chart": chart}


def attributes(evidence: Evidence) -> dict[str, Any] | None:
    """(unit, result, raw result by attribute) of each unit, that of the headline first; a chart of that one."""
    strongest, raw = evidence.get("strongest") or {}, evidence.get("raw") or {}
    if not strongest:
        return None
    first = (evidence.get("headline") or {}).get("unit")
    units = [
        (unit, strongest[unit], {one["name"]: one for one in (raw.get(unit) or {}).get("attributes", ())})
        for unit in sorted(strongest, key=lambda unit: unit != first)
    ]
    margin = units[0][1]["equivalence"]["margin"]
    return {"units": units, "margin": margin, "chart": _attribute_chart(*units[0][1:], margin)}


def worst_protected(evidence: Evidence) -> list[dict[str, Any]]:
    """Risk of single subjects: a line for raw and for released features, by unit, and for linking."""
    lines = []
    strongest, raw = evidence.get("strongest") or {}, evidence.get("raw") or {}
    for unit in strongest:
        for kind, found in (("raw", raw.get(unit)), ("released", strongest[unit])):
            if found and (record := found.get("worst_protected") or {}).get("subjects"):
                lines.append({"name": f"attributes from {unit_name(unit)}", "kind": kind, **record})
    for pairing, one in (evidence.get("linkage") or {}).items():
        if (record := one.get("worst_protected") or {}).get("subjects"):
            lines.append({"name": "linking", "kind": pairing, **record})
    return lines


def without_names(evidence: Evidence) -> dict[str, Any]:
    """The evidence without the names of subjects, which belong to the owner: the page may be handed on."""

    def shown(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: shown(item) for key, item in value.items() if key != "who"}
        return [shown(item) for item in value] if isinstance(value, list | tuple) else value

    return shown(evidence)


def families(evidence: Evidence) -> dict[str, Any] | None:
    """Every kind of attacker under every threat model, means first and then each by itself."""
    names = attribute_names(evidence)
    results = [one for one in evidence.get("rungs") or () if one["found"] and one["attackers"]]
    if not results or not names:
        return None
    columns = {f"{one['name']}, {one['unit']}": _by_family(one, names) for one in results}
    largest = max((value for means in columns.values() for value in means.values()), default=0.0)
    rows = [
        (family, [_heat(means.get(family), largest, best=_is_best(family, means)) for means in columns.values()])
        for family in dict.fromkeys(family for means in columns.values() for family in means)
    ]
    return {"columns": list(columns), "rows": rows, "details": [_every_attacker(one, names) for one in results]}


def learning_curve(evidence: Evidence) -> dict[str, Any]:
    """The chart, and the families whose curve still rises at its end."""
    points = evidence.get("learning_curve") or ()
    curves = []
    for family in dict.fromkeys(point["family"] for point in points):
        of = [(p["people"], _mean(p["ap"])) for p in points if p["family"] == family]
        if known := tuple((people, 100 * mean) for people, mean in of if mean):
            curves.append(LineSeries(family, known))
    fresh = [one["found"] for one in evidence.get("rungs") or () if one["name"] == "semi-informed" and one["found"]]
    chance = fresh[0]["cmap"].get("chance") if fresh else None
    chart = curve_chart(
        curves,
        title="Success by number of training subjects",
        description="; ".join(f"{c.name}: " + ", ".join(f"{x} subjects {y:.1f}" for x, y in c.points) for c in curves),
        axes=("training subjects", "mean average precision, %"),
        level=None if chance is None else 100 * chance,
        caption="Newly trained attackers of single released clips, mean over attributes, on test subjects.",
    )
    last = {point["family"]: point.get("gain") or {} for point in points}
    rising = [name for name, gain in last.items() if (gain.get("low") or 0) > 0]
    return {"chart": chart, "rising": rising}


def leaking(evidence: Evidence) -> list[str]:
    """Every attribute that leaks, under the unit with the fewest clips where it does."""
    parts, named = [], set()
    for unit, found in (evidence.get("strongest") or {}).items():
        leaks = [one["name"] for one in found["attributes"] if one["verdict"] == "leaks"]
        if names := [name for name in leaks if name not in named]:
            every = len(names) == len(found["attributes"]) > 3
            parts.append(f"{f'all {len(names)} attributes' if every else ', '.join(names)} from {unit_name(unit)}")
        named.update(leaks)
    return parts


def links(evidence: Evidence) -> list[str]:
    """How often a person is found, for the pairings that a sentence can say."""
    parts = []
    for name, one in (evidence.get("linkage") or {}).items():
        rank1 = one.get("rank1") or {}
        if name in PAIRINGS and rank1.get("value") is not None:
            found, chance = (number(rank1.get(key), 100, 1) for key in ("value", "chance"))
            parts.append(f"{PAIRINGS[name]} for {found} % of videos (chance {chance} %)")
    return parts


def missing(evidence: Evidence) -> list[str]:
    """What this audit left out."""
    lines = [f"{gate['claim']}: {gate['detail']}" for gate in evidence.get("gates") or () if gate["passed"] is None]
    for one in evidence.get("rungs") or ():
        if one["skipped"]:
            lines.append(f"attackers “{one['name']}” on {unit_name(one['unit'])}: {one['skipped']}")
    for unit, found in (evidence.get("strongest") or {}).items():
        if found.get("left_out"):
            lines.append(f"from {unit_name(unit)}: {', '.join(found['left_out'])}, which can't be evaluated there")
    if absent := [words for name, words in PARTS.items() if not evidence.get(name)]:
        lines.append(f"left out: {', '.join(absent)}")
    if (evidence.get("command") or {}).get("quick"):
        lines.append(QUICK)
    if unread := [column for column in evidence.get("columns") or () if column["kind"] == NOT_READ]:
        lines.append(f"columns of the table: {columns_summary(unread, 'attacked')}")
    return lines + [f"warning: {warning}" for warning in evidence.get("warnings") or ()]


def attribute_names(evidence: Evidence) -> list[str]:
    return [attribute["name"] for attribute in evidence.get("attributes") or ()]


def _excess(estimate: Mapping[str, Any], kind: str, name: str) -> Dot:
    """Points above the line's own chance."""
    chance = estimate.get("chance")
    ends = [
        None if end is None or chance is None else 100 * (end - chance)
        for end in (estimate.get("value"), estimate.get("low"), estimate.get("high"))
    ]
    shown = [number(end, 1, 1) for end in ends]
    return Dot(kind, *ends, label=f"{name}, {kind}: {shown[0]} [{shown[1]}, {shown[2]}] points above chance")


def _description(bands: Iterable[Band]) -> str:
    return "; ".join(dot.label for band in bands for dot in band.dots)


def _attribute_chart(found: Mapping[str, Any], raw: Mapping[str, Any], margin: float) -> Markup:
    def dot(one: Mapping[str, Any], kind: str) -> Dot:
        auc = one["auc"]
        shown = f"{number(auc['value'])} [{number(auc['low'])}, {number(auc['high'])}]"
        return Dot(kind, auc["value"], auc["low"], auc["high"], f"{one['name']}, {kind}: AUC {shown}")

    bands = []
    for one in found["attributes"]:
        dots = [dot(raw[one["name"]], "raw")] if one["name"] in raw else []
        bands.append(Band(one["name"], (*dots, dot(one, "released"))))
    return dot_chart(
        bands,
        title="AUC by attribute",
        description=_description(bands),
        axis="AUC of the strongest attacker",
        caption=f"Hollow: raw features. Filled: released. 0.5 is chance; the strip, ± {margin:g}, counts as chance.",
        chance=0.5,
        margin=margin,
    )


def _by_family(result: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    """Family -> mean over attributes of test AP above chance, in points, in the way with the best validation AP."""
    chance = {one["name"]: one["ap"]["chance"] for one in result["found"]["attributes"]}
    best: dict[str, tuple[float, float]] = {}
    for attacker, of in result["attackers"].items():
        known = [
            (validation, 100 * (test - chance[name]))
            for name, validation, test in zip(names, of["validation"], of["test"], strict=True)
            if None not in (validation, test, chance.get(name))
        ]
        if known:
            family = attacker.rsplit("/", 1)[-1]
            means = sum(v for v, _ in known) / len(known), sum(e for _, e in known) / len(known)
            best[family] = max(best.get(family, means), means)
    return {family: excess for family, (_, excess) in best.items()}


def _is_best(family: str, means: Mapping[str, float]) -> bool:
    return family in means and means[family] == max(means.values())


def _every_attacker(result: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    evaluated = {one["name"]: one for one in result["found"]["attributes"]}
    kept = [(place, name) for place, name in enumerate(names) if name in evaluated]
    rows = []
    for attacker, of in result["attackers"].items():
        cells = []
        for place, name in kept:
            value, spread, chance = of["test"][place], of["test_spread"][place], evaluated[name]["ap"]["chance"]
            note = f"± {number(spread, 100, 1)}, " if spread and spread >= LEAST_SPREAD else ""
            note += f"val. {number(of['validation'][place], 100, 1)}"
            above = None if value is None or chance is None else 100 * (value - chance)
            best = attacker in evaluated[name]["members"]
            cells.append(_heat(above, FULL_HEAT, best=best, text=number(value, 100, 1), note=note))
        rows.append((attacker, cells))
    return {"name": f"{result['name']}, {result['unit']}", "columns": [name for _, name in kept], "rows": rows}


def _heat(value: float | None, full: float, *, best: bool, text: str | None = None, note: str = "") -> dict[str, Any]:
    tone = 0.0 if value is None else min(1.0, max(0.0, value / (full or 1.0)))
    return {"tone": tone, "text": number(value, 1, 1) if text is None else text, "note": note, "best": best}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None

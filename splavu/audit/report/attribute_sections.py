"""A report's sections on attributes: the ladder of attackers, what each reads, every family, how much they need.

What a reader would get wrong: chance differs from line to line, since the attributes that can be judged do. Charts of
average precision show points above each line's own chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from splavu.audit.report.cells import UNITS, bounds, estimate_cell, number, small, verdict_cell
from splavu.audit.report.charts import Band, Dot, LineSeries, curve_chart, dot_chart
from splavu.audit.report.markup import Content, Markup, cell, element, table

LADDER = (
    "Every attacker has examples of other people with their attributes. The rungs differ in what else is known of how "
    "the release was made."
)
LADDER_CAPTION = (
    "Points of average precision above chance, mean over attributes; 0 is an attacker who knows nothing. Lines: 95 % "
    "intervals over test people. Hollow: raw features. Filled: released. Knowing more does not always help; the last "
    "line of each part takes for every attribute the attacker that validation people show to be best."
)
CODE = (
    "The same by description length: how many bits an attribute takes for someone who learns along the way from the "
    "features, against someone who only counts. A compression of 1 is no help at all."
)
FAMILIES = (
    "That one kind of attacker fails says little, so several kinds try. Framed: the best of a column, for diagnosis; "
    "the ladder takes for each attribute the one that validation people show to be best, which may be another."
)
LEAST_SPREAD = 5e-4
"""Over seeds, in average precision: less isn't shown."""
FULL_HEAT = 60.0
"""Points above chance that are drawn in the strongest tone, attacker by attacker."""


def ladder(evidence: Mapping[str, Any]) -> Content:
    """How far each rung gets, on raw and on released features."""
    rungs, raw, strongest = (evidence.get(name) or {} for name in ("rungs", "raw", "strongest"))
    bands: list[Band] = []
    rows: list[Sequence[Content]] = []

    def add(name: str, knows: str, found: Mapping[str, Any], kind: str) -> None:
        bands.append(Band(name, (_excess(found["cmap"], kind, name),)))
        chance = number(found["cmap"].get("chance"), 100, 1)
        success = estimate_cell(found["cmap"], 100, 1), chance, estimate_cell(found["mean_auc"], 1, 3)
        verdict = verdict_cell(found["verdict"])
        rows.append((name, UNITS.get(unit, unit), *success, estimate_cell(found["leakage"]), verdict, knows))

    for unit in dict.fromkeys([*raw, *(rung["unit"] for rung in rungs), *strongest]):
        bands.append(Band(f"The attacker sees {UNITS.get(unit, unit)}"))
        if unit in raw:
            add("raw features", "raw features of other people, and meets raw ones", raw[unit], "raw")
        for rung in rungs:
            if rung["unit"] == unit and rung["found"]:
                add(rung["name"], rung["knows"], rung["found"], "released")
            elif rung["unit"] == unit:
                reason = cell(f"not run: {rung['skipped']}", class_="word", colspan=5)
                rows.append((rung["name"], UNITS.get(unit, unit), reason, rung["knows"]))
        if unit in strongest:
            add("strongest of all", "any of the above", strongest[unit], "released")
    return element(
        "section",
        element("h2", "The ladder of attackers"),
        element("p", LADDER),
        dot_chart(
            bands,
            title="Success above chance by rung",
            told=_told(bands),
            axis="average precision above chance, points",
            caption=LADDER_CAPTION,
        ),
        table(
            "Every rung: what it knows and how far it gets, 95 % intervals below the figures",
            ("attacker", "sees", "cMAP", "chance", "AUC", "leakage", "verdict", "knows"),
            rows,
            words=("sees", "knows", "verdict"),
        ),
    )


def attributes(evidence: Mapping[str, Any]) -> Content:
    """What the strongest attackers read of each attribute, the unit of the headline first."""
    strongest, raw = evidence.get("strongest") or {}, evidence.get("raw") or {}
    if not strongest:
        return None
    first = (evidence.get("headline") or {}).get("unit")
    units = sorted(strongest, key=lambda unit: unit != first)
    margin = strongest[units[0]]["equivalence"]["margin"]
    parts: list[Content] = []
    for unit in units:
        of_raw = {one["name"]: one for one in (raw.get(unit) or {}).get("attributes", ())}
        listing = _attribute_table(unit, strongest[unit], of_raw)
        if unit == units[0]:
            parts += [_attribute_chart(strongest[unit], of_raw, margin), listing]
        else:
            shown = element("summary", f"The same where the attacker sees {UNITS.get(unit, unit)}")
            parts.append(element("details", shown, listing, class_="print"))
    meaning = (
        "“Leaks”: better than chance, p ≤ 0.05 after adjustment. “At chance”: the 90 % interval of the AUC lies within "
        f"0.5 ± {margin:g} (two one-sided tests). “Faint”: both. “Undecided”: neither. Below each decision stands the "
        "smallest margin that would have passed as chance."
    )
    return element("section", element("h2", "What can be read, attribute by attribute"), element("p", meaning), parts)


def families(evidence: Mapping[str, Any]) -> Content:
    """Every kind of attacker on every rung, means first and then each by itself."""
    names = [attribute["name"] for attribute in evidence.get("attributes") or ()]
    rungs = [rung for rung in evidence.get("rungs") or () if rung["found"] and rung["attackers"]]
    if not rungs or not names:
        return None
    columns = {f"{rung['name']}, {rung['unit']}": _by_family(rung, names) for rung in rungs}
    largest = max((value for means in columns.values() for value in means.values()), default=0.0)
    rows = [
        (family, *(_heat(means.get(family), largest, is_framed=_is_best(family, means)) for means in columns.values()))
        for family in dict.fromkeys(family for means in columns.values() for family in means)
    ]
    details = []
    for rung in rungs:
        shown = element("summary", f"All {len(rung['attackers'])} attackers: {rung['name']}, {rung['unit']}")
        details.append(element("details", shown, _every_attacker(rung, names), class_="print"))
    return element(
        "section",
        element("h2", "Every family of attackers"),
        element("p", FAMILIES),
        table(
            "Points of average precision above chance on test people, mean over attributes; of a family's several "
            "ways, the one that validation people show to be best",
            ("family", *columns),
            rows,
            class_="heat",
        ),
        details,
    )


def effort(evidence: Mapping[str, Any]) -> Content:
    """Success over the number of people learnt from, and description lengths."""
    curve, lengths = evidence.get("learning_curve") or (), evidence.get("code_length") or {}
    names = [attribute["name"] for attribute in evidence.get("attributes") or ()]
    if not names or not (curve or lengths):
        return None
    parts: list[Content] = [element("h2", "How much an attacker needs")]
    if curve:
        parts += _learning_curve(evidence, curve, names)
    if lengths:
        keys = ("bits", "prior_bits", "uniform_bits")
        rows = [
            (name, kind, *(number(one[key], 1 / one["rows"], 3) for key in keys),
             number(one["compression_over_prior"]), str(one["rows"]))
            for name in names
            for kind, of in lengths.items()
            if (one := of.get(name))
        ]  # fmt: skip
        header = ("attribute", "features", "with features", "by counting", "by a coin", "compression", "labels")
        parts += [element("p", CODE), table("Bits a label", header, rows, words=("features",))]
    return element("section", parts)


def _excess(estimate: Mapping[str, Any], kind: str, name: str) -> Dot:
    """Points above the line's own chance."""
    chance = estimate.get("chance")
    ends = [
        None if end is None or chance is None else 100 * (end - chance)
        for end in (estimate.get("value"), estimate.get("low"), estimate.get("high"))
    ]
    shown = [number(end, 1, 1) for end in ends]
    return Dot(kind, *ends, said=f"{name}, {kind}: {shown[0]} [{shown[1]}, {shown[2]}] points above chance")


def _told(bands: Iterable[Band]) -> str:
    return "; ".join(dot.said for band in bands for dot in band.dots)


def _attribute_chart(found: Mapping[str, Any], of_raw: Mapping[str, Any], margin: float) -> Content:
    def dot(one: Mapping[str, Any], kind: str) -> Dot:
        auc = one["auc"]
        shown = f"{number(auc['value'])} [{number(auc['low'])}, {number(auc['high'])}]"
        return Dot(kind, auc["value"], auc["low"], auc["high"], f"{one['name']}, {kind}: AUC {shown}")

    bands = []
    for one in found["attributes"]:
        dots = [dot(of_raw[one["name"]], "raw")] if one["name"] in of_raw else []
        bands.append(Band(one["name"], (*dots, dot(one, "released"))))
    return dot_chart(
        bands,
        title="AUC by attribute",
        told=_told(bands),
        axis="AUC of the strongest attacker",
        caption=f"Hollow: raw features. Filled: released. 0.5 is chance; the strip, ± {margin:g}, counts as chance.",
        chance=0.5,
        margin=margin,
    )


def _attribute_table(unit: str, found: Mapping[str, Any], of_raw: Mapping[str, Any]) -> Content:
    header = (
        *("attribute", "decision", "AP", "AP raw", "AUC", "balanced accuracy", "TPR at FPR", "bits", "leakage"),
        *("p (Holm)", "read by"),
    )
    rows = []
    for one in found["attributes"]:
        raw = of_raw.get(one["name"]) or {}
        bits = number(one["bits"]["value"]), small(f"of {number(one['bits_available'])}")
        interval = small(f"[{number(one['bits']['low'])}, {number(one['bits']['high'])}]")
        rows.append(
            (
                one["name"],
                verdict_cell(one["verdict"], small(f"± {number(one['equivalence'].get('reach'), 1, 3)}")),
                estimate_cell(one["ap"], 100, 1, with_chance=True),
                estimate_cell(raw.get("ap"), 100, 1),
                estimate_cell(one["auc"], 1, 3),
                estimate_cell(one["balanced_accuracy"], 100, 1),
                _rates(one["tpr"]),
                cell(bits[0], interval, bits[1]),
                estimate_cell(one["leakage"]),
                cell(number(one["p_holm"], 1, 3), small(f"p {number(one['p'], 1, 4)}")),
                one["attacker"].replace("/", " / "),
            )
        )
    left_out = f" Not judged: {', '.join(found['left_out'])}." if found.get("left_out") else ""
    caption = (
        f"Strongest attackers who see {UNITS.get(unit, unit)}: {found['num_units']} to judge, of {found['num_people']} "
        f"test people. Per cent, but for AUC, bits, leakage and p.{left_out}"
    )
    return table(caption, header, rows, words=("decision", "read by"))


def _rates(rates: Sequence[Mapping[str, Any]]) -> Markup:
    """True positives at each rate of false ones, a line each; why not, where it takes more negatives."""
    lines = []
    for rate in rates:
        shown = "not estimable" if rate["value"] is None else f"{number(rate['value'], 100, 1)} {bounds(rate, 100, 1)}"
        lines.append(small(f"{100 * rate['fpr']:g} %: {shown}"))
    if any(rate["value"] is None for rate in rates):
        lines.append(small(f"{rates[0]['negatives']} negatives"))
    return cell(lines)


def _by_family(rung: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    """Family -> mean over attributes of test AP above chance, in points, in the way with the best validation AP."""
    chance = {one["name"]: one["ap"]["chance"] for one in rung["found"]["attributes"]}
    best: dict[str, tuple[float, float]] = {}
    for attacker, of in rung["attackers"].items():
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


def _every_attacker(rung: Mapping[str, Any], names: Sequence[str]) -> Content:
    judged = {one["name"]: one for one in rung["found"]["attributes"]}
    kept = [(place, name) for place, name in enumerate(names) if name in judged]
    rows = []
    for attacker, of in rung["attackers"].items():
        cells = []
        for place, name in kept:
            value, spread, chance = of["test"][place], of["test_spread"][place], judged[name]["ap"]["chance"]
            note = f"± {number(spread, 100, 1)}, " if spread and spread >= LEAST_SPREAD else ""
            note += f"val. {number(of['validation'][place], 100, 1)}"
            above = None if value is None or chance is None else 100 * (value - chance)
            framed = judged[name]["attacker"] == attacker
            cells.append(_heat(above, FULL_HEAT, is_framed=framed, shown=number(value, 100, 1), note=note))
        rows.append((attacker.replace("/", " / "), *cells))
    caption = (
        f"{rung['name']}, {rung['unit']}: average precision on test people, ± its spread over seeds, and on validation "
        "people, per cent. Framed: chosen by validation people"
    )
    return table(caption, ("attacker", *(name for _, name in kept)), rows, class_="heat")


def _heat(value: float | None, full: float, *, is_framed: bool, shown: str | None = None, note: str = "") -> Markup:
    tone = 0.0 if value is None else min(1.0, max(0.0, value / (full or 1.0)))
    text = number(value, 1, 1) if shown is None else shown
    return cell(text, small(note) if note else None, style=f"--share: {tone:.2f}", class_="best" if is_framed else None)


def _learning_curve(
    evidence: Mapping[str, Any], curve: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> list[Content]:
    curves = [
        LineSeries(
            family, tuple((p["people"], 100 * mean) for p in curve if p["family"] == family if (mean := _mean(p["ap"])))
        )
        for family in dict.fromkeys(point["family"] for point in curve)
    ]
    curves = [one for one in curves if one.points]
    fresh = [rung["found"] for rung in evidence.get("rungs") or () if rung["name"] == "semi-informed" and rung["found"]]
    chance = fresh[0]["cmap"].get("chance") if fresh else None
    rising = [one.name for one in curves if len(one.points) > 1 and one.points[-1][1] > one.points[-2][1] + 1]
    said = (
        f"Still rising ({', '.join(rising)}): the last people that were added to learn from brought more than a point. "
        "An attacker with more people gets further than any number on this page says."
        if rising
        else "The last people that were added to learn from brought no attacker more than a point."
    )
    header = ("family", "people", "clips", *names)
    rows = [
        (point["family"], str(point["people"]), str(point["rows"]), *(number(ap, 100, 1) for ap in point["ap"]))
        for point in curve
    ]
    return [
        element("p", said),
        curve_chart(
            curves,
            title="Success by number of people learnt from",
            told="; ".join(f"{c.name}: " + ", ".join(f"{x} people {y:.1f}" for x, y in c.points) for c in curves),
            axes=("people learnt from", "mean average precision, %"),
            level=None if chance is None else 100 * chance,
            caption="Fresh attackers of single released clips, mean over attributes, on test people.",
        ),
        table("Average precision by number of people learnt from, per cent", header, rows),
    ]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None

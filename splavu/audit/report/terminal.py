"""An audit on a terminal: compact, per cent, ending with the headline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from splavu.attacks.rows import rounded
from splavu.audit.evidence import Evidence, Rate, UnitResult
from splavu.audit.headline import percent
from splavu.data.private_labels import KINDS
from splavu.data.private_labels import summary as columns_summary
from splavu.metrics.estimates import Estimate

THREE_RISKS = ("singling out by a clip", "singling out by a video", "linkability", "inference")


def summary(evidence: Evidence) -> str:
    """Threat models, attributes of the headline's unit, gates, reductions by unit, headline."""
    unit = evidence.headline.unit or "clip"
    lines = _attributes(evidence, unit) if evidence.strongest else []
    lines += _worst_protected(evidence, unit)
    lines += [*_names(evidence.names), *_beyond_attributes(evidence)]
    lines.append("")
    for gate in evidence.gates:
        state = gate.state if gate.state in ("passed", "not run") else gate.state.upper()
        lines.append(f"{state:<9} {gate.claim} ({gate.detail})")
    if evidence.columns:
        lines.append(f"columns of the table: {columns_summary(evidence.columns, 'attacked', taken=KINDS)}")
    lines += [f"warning: {warning}" for warning in evidence.warnings]
    states = {gate.state for gate in evidence.gates}
    if "failed" in states:
        lines.append("NOT VALID: a gate failed, do not rely on these numbers")
    elif "undecided" in states:
        lines.append("UNDECIDED: too few test subjects to show that attackers work, do not rely on these numbers")
    lines += _reductions(evidence)
    lines.append(f"HEADLINE: {evidence.headline.sentence} ({evidence.seconds:.0f} s)")
    return "\n".join(lines)


def _attributes(evidence: Evidence, unit: str) -> list[str]:
    """Threat models, and the attributes of one unit."""
    lines = ["attacker               unit    cMAP [95 %]           chance  leakage [95 %]        verdict"]
    for shown, found in evidence.raw.items():
        lines.append(_line(f"(raw features, {shown})", shown, found))
    for one in evidence.rungs:
        if one.found is None:
            lines.append(f"{one.name:<22} {one.unit:<7} not run: {one.skipped}")
        else:
            lines.append(_line(one.name, one.unit, one.found))
    for shown, found in evidence.strongest.items():
        lines.append(_line("strongest of all", shown, found))
        single = _with_interval(found.single_cmap, 100, 1)
        gain = _with_interval(found.gain, 100, 1)
        lines.append(f"{'  best single one':<22} {shown:<7} {single:<21} {'':>6}  the ensemble gains {gain}")

    found = evidence.strongest[unit]
    lines += ["", f"strongest attackers by {unit}: {found.num_units} test units of {found.num_people} test subjects"]
    header = ("AP [95 %]", "chance", "single", "AUC", "bal.acc", "TPR@1%", "TPR@.1%", "bits", "leakage", "p(Holm)")
    lines.append(
        f"{'attribute':<22} {header[0]:<19} " + " ".join(f"{name:>7}" for name in header[1:]) + "  verdict, by"
    )
    for one in found.attributes:
        cells = [
            rounded(_known(one.ap.chance), 100, 1),
            rounded(_known(one.single_ap.value), 100, 1),
            rounded(_known(one.auc.value), 1, 3),
            rounded(_known(one.balanced_accuracy.value), 100, 1),
            *(_rate(rate) for rate in one.tpr),
            rounded(_known(one.bits.value), 1, 2),
            rounded(_known(one.leakage.value), 1, 2),
            rounded(_known(one.p_holm), 1, 3),
        ]
        lines.append(
            f"{one.name:<22} {_with_interval(one.ap, 100, 1):<19} "
            + " ".join(f"{cell:>7}" for cell in cells)
            + f"  {one.verdict}, {one.attacker}"
        )
    lines.append("single: AP of the one attacker that is best on validation subjects; all else is of ensembles")
    lines.append(
        f"'at chance': AUC within 0.5 +- {found.equivalence.margin:g} by two one-sided tests; n.e.: not estimable"
    )
    return lines + _classes_and_values(found, evidence.raw.get(unit))


def _reductions(evidence: Evidence) -> list[str]:
    """What is removed by unit, over shared attributes and over all that a unit has."""
    found = evidence.headline
    if not found.by_unit:
        return []
    shared = ", ".join(f"{unit} {percent(one)}" for unit, one in found.by_unit.items())
    own = ", ".join(
        f"{unit} {percent(one)} of {len(evidence.strongest[unit].attributes)}"
        for unit, one in found.own_attributes.items()
    )
    return [
        f"removed, over {', '.join(found.attributes)} (intervals hold for all units at once): {shared}",
        f"removed, over all attributes of a unit (units have different ones): {own}",
    ]


def _classes_and_values(found: UnitResult, raw: UnitResult | None) -> list[str]:
    """What the answers say of the class or the value itself, a line each."""
    before = {} if raw is None else {(one.name, m.name): m for one in raw.attributes for m in one.beside}
    lines = []
    for one in found.attributes:
        for measured in one.beside:
            shown = f"{measured.name} {_with_interval(measured.estimate, 1, 2)}"
            if whole := before.get((one.name, measured.name)):
                shown += f", raw {_with_interval(whole.estimate, 1, 2)}"
            chance = rounded(_known(measured.estimate.chance), 1, 2)
            lines.append(f"{one.name}, {one.kind}: {shown} (chance {chance}, p {measured.p:.3f})")
    return lines


def _worst_protected(evidence: Evidence, unit: str) -> list[str]:
    """How single subjects fare: quantiles beside luck, and how many are beyond it."""
    records = {}
    for kind, units in (("raw", evidence.raw), ("released", evidence.strongest)):
        if unit in units:
            records[f"attributes by {unit}, {kind}"] = units[unit].worst_protected
    for pairing in ("raw to raw", "released to released"):
        records[f"linking, {pairing}"] = evidence.linkage.get(pairing, {}).get("worst_protected", {})
    known = {name: record for name, record in records.items() if record.get("subjects")}
    lines = []
    if known:
        lines += ["", "risk of single subjects, 0.5 is chance and 1 no doubt (in brackets: by luck)"]
    for name, record in known.items():
        quantiles = (record[quantile] for quantile in ("median", "p90", "max"))
        median, high, largest = (f"{rounded(q['value'], 1, 2)} ({rounded(q['luck'], 1, 2)})" for q in quantiles)
        shown = f"{name}: median {median}, 90 % {high}, largest {largest}"
        lines.append(f"{shown}; beyond luck {record['beyond_luck']} of {record['subjects']} subjects")
    return lines


def _beyond_attributes(evidence: Evidence) -> list[str]:
    """Linking, inversion and membership, one line each."""
    lines = [""] if evidence.linkage else []
    for pairing, one in evidence.linkage.items():
        if "skipped" not in one:
            lines.append(
                f"subjects linked, {pairing}: rank-1 {_with_interval(one['rank1'], 100, 1)} (chance "
                f"{rounded(_known(one['rank1'].chance), 100, 1)}), EER {rounded(_known(one['eer'].value), 100, 1)}, "
                f"TPR@1% {_share(one['tpr_at_1_percent'])}, "
                f"D_sys {rounded(_known(one['d_sys_corrected'].value), 1, 2)}"
            )
    for inverter, one in evidence.inversion.items():
        lines.append(
            f"inversion by {inverter}: {_with_interval(one['explained'], 100, 1)} % of the raw variance, own raw "
            f"feature ranked first for {rounded(_known(one['top1'].value), 100, 1)} %"
        )
    if "logistic" in evidence.membership:
        one = evidence.membership["logistic"]["auc"]
        lines.append(f"membership (training or test subject): AUC {_with_interval(one, 1, 3)}")
    return lines + _singling_out(evidence.singling_out)


def _singling_out(found: Mapping[str, Any]) -> list[str]:
    """The three risks of the release, and what adds up over a subject's clips."""
    if not found:
        return []
    lines = [
        f"{name}: {_with_interval(one['risk'], 100, 1)} % above the control group ({100 * one['attack']:.1f} against "
        f"{100 * one['control']:.1f} %)"
        for name, one in found["released"].items()
        if name in THREE_RISKS
    ]
    vectors, clips = found["vectors"], found["clips_per_subject"]
    line = (
        f"{100 * vectors['of_vectors']:.1f} % of {vectors['num_vectors']} released vectors belong to one test subject"
    )
    if "bits_per_clip" in found:
        line += f"; {clips:g} clips of a subject are up to {found['bits_per_subject']:.0f} bits"
    return [*lines, line]


def _names(found: Mapping[str, Any]) -> list[str]:
    """What names reveal of who is who."""
    if not found:
        return []
    if found["grouping"] is None:
        return ["names: no part of them groups videos by subject"]
    precision, recall = (f"{100 * found[name]:.0f} %" for name in ("precision", "recall"))
    return [
        f"names: test videos of a subject share {found['grouping']} (precision {precision}, recall {recall} of pairs); "
        "anonymize --keys secret hides it"
    ]


def _line(name: str, unit: str, found: UnitResult) -> str:
    cmap, chance = _with_interval(found.cmap, 100, 1), rounded(_known(found.cmap.chance), 100, 1)
    return f"{name:<22} {unit:<7} {cmap:<21} {chance:>6}  {_with_interval(found.leakage, 1, 2):<21} {found.verdict}"


def _with_interval(estimate: Estimate, factor: float, digits: int) -> str:
    ends = ", ".join(rounded(_known(end), factor, digits) for end in (estimate.low, estimate.high))
    return f"{rounded(_known(estimate.value), factor, digits)} [{ends}]"


def _rate(rate: Rate) -> str:
    return "n.e." if rate.value is None else f"{100 * rate.value:.1f}"


def _share(estimate: Estimate | None) -> str:
    return "n.e." if estimate is None else rounded(_known(estimate.value), 100, 1)


def _known(value: float) -> float | None:
    return None if value != value else value

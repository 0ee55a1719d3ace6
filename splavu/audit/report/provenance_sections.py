"""A report's last sections: what was not tested, where everything comes from, words, and the evidence whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from splavu.audit.report.cells import UNITS, number, sentence
from splavu.audit.report.markup import Content, cell, element, table

WORDS = {
    "Chance": "what an attacker scores who knows nothing of the person. For average precision it is the mean over "
    "exchanges of the test people's labels, a little above the share of people who have the attribute.",
    "AP, cMAP": "average precision, from chance to 100: how well an attacker ranks those who have an attribute before "
    "those who don't. cMAP is its mean over attributes.",
    "AUC": "the probability that someone with the attribute is ranked before someone without; 0.5 is chance.",
    "Balanced accuracy": "right answers, mean over those with and those without the attribute; 50 is chance.",
    "TPR at 1 % FPR": "of those with the attribute, the share who are named while at most 1 % of the others are "
    "accused wrongly. Not estimable where there are too few others.",
    "Bits": "information about the attribute that an attacker can use, out of what there is to know. 0 is nothing.",
    "Leakage": "success above chance as a share of that on raw features: 0 protects, 1 protects nothing. Reduction is "
    "1 less leakage.",
    "p (Holm)": "how often as much success comes about by luck alone, adjusted for the number of attributes.",
    "Rank-k": "how often, of all videos in a gallery, one of the same person is among the k most similar.",
    "EER": "the error where as many strangers are accepted as same persons are refused; 0.5 is chance, 0 recognition.",
    "D_sys": "linkability (Gomez-Barrero et al. 2018) from 0, none, to 1; corrected: less what exchanged people score.",
}
LIMITS = (
    "Only the attributes in the table were attacked. What it doesn't name was not looked for.",
    "Numbers hold for people like the test people, and for features made as these were. Another encoder, anonymizer, "
    "preprocessing or kind of video needs an audit of its own.",
    "Attackers are the ones listed. One with a better idea, more data, or knowledge of a person from elsewhere may get "
    "further. A leak that is found is proven; safety is not.",
    "Intervals tell how much the draw of test people and seeds matters, not whether these are the right people.",
    "If the anonymizer met the test people when it learnt, these numbers are too kind.",
)
PARTS = {
    "learning_curve": "learning curves",
    "code_length": "description length",
    "linkage": "linking people",
    "inversion": "undoing the release",
    "membership": "membership",
}
QUICK = "Quick: a few fast families of attackers, one seed. A full audit finds more; don't release on this one."


def not_tested(evidence: Mapping[str, Any]) -> Content:
    """What this audit left out, and what no audit can tell."""
    missing = [f"{gate['claim']}: {gate['detail']}" for gate in evidence.get("gates") or () if gate["passed"] is None]
    for rung in evidence.get("rungs") or ():
        if rung["skipped"]:
            missing.append(f"attackers “{rung['name']}” on {UNITS.get(rung['unit'], rung['unit'])}: {rung['skipped']}")
    for unit, found in (evidence.get("strongest") or {}).items():
        if found.get("left_out"):
            missing.append(f"from {UNITS.get(unit, unit)}: {', '.join(found['left_out'])}, which can't be judged there")
    if absent := [said for name, said in PARTS.items() if not evidence.get(name)]:
        missing.append(f"left out: {', '.join(absent)}")
    if (evidence.get("command") or {}).get("quick"):
        missing.append(QUICK)
    missing += [f"warning: {warning}" for warning in evidence.get("warnings") or ()]
    return element(
        "section",
        element("h2", "What was not tested, and limits"),
        element("ul", [element("li", sentence(line)) for line in [*missing, *LIMITS]]),
    )


def provenance(evidence: Mapping[str, Any]) -> Content:
    """People, attributes, files, options, attackers, versions."""
    return element(
        "section",
        element("h2", "Where it comes from"),
        _people(evidence.get("people") or {}),
        _prevalences(evidence.get("attributes") or ()),
        table(
            "Files",
            ("name", "role", "SHA-256", "made by"),
            [
                (file["name"], file["role"], element("code", file["sha256"]), _described(file.get("attributes")))
                for file in evidence.get("files") or ()
            ],
            words=("role", "SHA-256", "made by"),
        ),
        _two_columns("Options", "option", {k: json.dumps(v) for k, v in (evidence.get("command") or {}).items()}),
        table(
            "Attackers",
            ("family", "program", "seeds matter", "options"),
            [
                (name, of["class"], "yes" if of["stochastic"] else "no", element("code", json.dumps(of["options"])))
                for name, of in (evidence.get("families") or {}).items()
            ],
            words=("program", "seeds matter", "options"),
        ),
        _two_columns("Versions", "program", evidence.get("versions") or {}),
        element("p", f"{evidence.get('schema', '')}, {number(evidence.get('seconds'), 1, 0)} seconds.", class_="soft"),
    )


def glossary() -> Content:
    """What the columns mean, in plain words."""
    entries = [[element("dt", word), element("dd", meaning)] for word, meaning in WORDS.items()]
    return element("section", element("h2", "Words"), element("dl", entries))


def everything(evidence: Mapping[str, Any]) -> Content:
    """The evidence as it is, to be copied."""
    content = json.dumps(evidence, indent=1, ensure_ascii=False)
    return element(
        "details", element("summary", "The evidence file, whole"), element("pre", content, tabindex="0"), class_="all"
    )


def _people(splits: Mapping[str, Mapping[str, int]]) -> Content:
    columns = ("clips", "videos", "persons")
    return table(
        "People: attackers learn from the first group, are tuned and chosen on the second, judged once on the third",
        ("group", *columns),
        [(name, *(str(counts.get(column, "–")) for column in columns)) for name, counts in splits.items()],
    )


def _prevalences(attributes: tuple[Mapping[str, Any], ...]) -> Content:
    splits = list(dict.fromkeys(split for one in attributes for split in one["prevalence"]))
    return table(
        "Share of clips with each attribute, per cent; personal: no person has it both ways",
        ("attribute", "personal", *splits),
        [
            (
                one["name"],
                "yes" if one["personal"] else "no",
                *(number(one["prevalence"].get(split), 100, 1) for split in splits),
            )
            for one in attributes
        ],
        words=("personal",),
    )


def _two_columns(caption: str, what: str, values: Mapping[str, Any]) -> Content:
    rows = [(name, cell(element("code", str(value)), class_="word")) for name, value in values.items()]
    return table(caption, (what, "value"), rows, words=("value",))


def _described(attributes: Mapping[str, Any] | None) -> Content:
    if not attributes:
        return "not said"
    lines = [f"{name}: {value}" for name, value in attributes.items()]
    return element("details", element("summary", lines[0]), [element("code", line + "; ") for line in lines[1:]])

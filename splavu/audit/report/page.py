"""evidence.json -> report.html: one page that needs no other file, to decide about a release and to check the decision.

Nothing is computed here but differences to chance and means over attributes. Every number is one of the evidence file,
which the page holds at its end, whole but for the names of subjects; what an audit left out is named. The templates lie
in `templates/`; every text is escaped, and nothing is fetched. The charts are SVG by `charts`: their colours follow the
page's dark mode, and the page needs no Matplotlib.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, ChoiceLoader, Environment, PackageLoader

from splavu.audit.report import formats, sections
from splavu.runtime.files import write_text

TITLE = "Privacy audit of released features"
VERDICTS = {
    "leaks": "Attackers do better than chance, and not by luck: the release still gives private attributes away.",
    "at chance": "Attackers are no better than chance, up to the margin that was asked for.",
    "faint": "Attackers do better than chance, and not by luck, but by less than the margin that was asked for.",
    "undecided": "The test subjects are too few to decide: success above chance is neither shown nor excluded.",
}
LINKED = {
    "rank1": ("rank-1", 100, 1),
    "rank5": ("rank-5", 100, 1),
    "mean_ap": ("mean AP", 100, 1),
    "eer": ("EER", 1, 3),
    "tpr_at_1_percent": ("TPR at 1 % FPR", 100, 1),
    "tpr_at_1_permille": ("TPR at 0.1 % FPR", 100, 1),
    "d_sys": ("D_sys", 1, 3),
    "d_sys_corrected": ("D_sys corrected", 1, 3),
    "same_video_rank1": ("same video", 100, 1),
}
"""Key of the evidence -> column, factor and digits."""
INVERTED = {
    "explained": ("variance explained", 100, 1),
    "explained_between_people": ("between people", 100, 1),
    "median_rank": ("median rank", 1, 0),
    "top1": ("found first", 100, 1),
}
MEMBERS = {
    "auc": ("AUC of clips", 1, 3),
    "person_auc": ("AUC of persons", 1, 3),
    "tpr_at_1_percent": ("TPR at 1 % FPR", 100, 1),
}


MARKS = (b"default-src 'none'; style-src 'unsafe-inline'",)
"""Every page that this program has written begins with this policy (`splavu.runtime.files.check_target`)."""


def write_report(path: str | Path, evidence: Mapping[str, Any]) -> Path:
    """Write the page in one move."""
    return write_text(path, report(evidence))


def report(evidence: Mapping[str, Any]) -> str:
    """The page; the same evidence gives the same bytes.

    Args:
        evidence: As `evidence.plain` or `evidence.read_evidence` gives it; parts may be missing.
    """
    return environment().get_template("page.html").render(title=TITLE, **context(evidence))


def context(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """What the templates of the sections need of an audit's evidence."""
    shares = [one["prevalence"] for one in evidence.get("attributes") or ()]
    return dict(
        evidence={name: part for name, part in sections.without_names(evidence).items() if part is not None},
        verdicts=VERDICTS,
        leaking=sections.leaking(evidence),
        threat_models=sections.threat_models(evidence),
        attributes=sections.attributes(evidence),
        worst_protected=sections.worst_protected(evidence),
        families=sections.families(evidence),
        curve=sections.learning_curve(evidence),
        names=sections.attribute_names(evidence),
        links=sections.links(evidence),
        linked_columns=LINKED,
        inverted_columns=INVERTED,
        member_columns=MEMBERS,
        missing=sections.missing(evidence),
        splits=list(dict.fromkeys(split for share in shares for split in share)),
        options={name: json.dumps(value) for name, value in (evidence.get("command") or {}).items()},
    )


@functools.cache
def environment(package: str = "splavu.audit.report") -> Environment:
    """Jinja's environment: the templates of a package, then those of this one."""
    made = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("splavu.audit.report")]),
        autoescape=True,
        undefined=ChainableUndefined,  # parts of the evidence may be missing
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "number": formats.number,
        "share": formats.share,
        "bounds": formats.bounds,
        "sentence": formats.sentence,
        "unit": formats.unit_name,
        "left": lambda reduction: max(0.0, 1 - reduction),  # what can still be read: never less than nothing
        "as_json": lambda value, indent=None: json.dumps(value, indent=indent, ensure_ascii=indent is None),
    }
    return made

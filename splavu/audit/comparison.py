"""Two audits side by side: what more or less leaks, with intervals of the difference where both met the same subjects.

Draws of a leakage are kept in the evidence, and audits of the same test subjects draw them in the same way. So the
difference is taken draw by draw, and its interval is narrower than those of the two would suggest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from splavu import metrics
from splavu.audit.headline import Leakages
from splavu.metrics.estimates import Interval, estimated
from splavu.runtime.records import as_written

SAME = ("families", "seeds", "num_resamples", "max_train_rows", "set_families", "quick")
"""Options of an audit without which figures don't compare."""
SHARED_FILES = ("raw", "labels")
"""What both must have read for their test subjects, and the draws of them, to be the same."""


@dataclass(frozen=True)
class Difference:
    """One leakage in both audits: 0 is chance, 1 no protection."""

    name: str
    """Unit, or unit/attribute."""
    before: Interval
    after: Interval
    change: Interval
    """After less before: below 0 less leaks; intervals of all units, and of all attributes, hold at once. Without ends
    where the audits drew other subjects."""

    @property
    def verdict(self) -> str:
        """Whether the change is beyond chance."""
        if not self.change.has_ends:
            return "unpaired"
        return "less" if self.change.high < 0 else "more" if self.change.low > 0 else "unclear"


@dataclass(frozen=True)
class AuditComparison:
    """Of an audit with an earlier one."""

    differences: Sequence[Difference]
    notes: Sequence[str]
    """Why figures may not compare; empty where they do."""
    is_paired: bool

    def __str__(self) -> str:
        """A table of at most 100 columns, with what must be known to read it."""
        lines = [
            f"{'leakage: 0 chance, 1 raw':<28} {'before':<20} {'after':<20} change",
        ]
        for one in self.differences:
            shown = [f"{_shown(part):<20}" for part in (one.before, one.after, one.change)]
            lines.append(f"{one.name[:28]:<28} {' '.join(shown)} {one.verdict}".rstrip())
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each leakage, for a table."""
        parts = ("before", "after", "change")
        return [
            {"name": one.name, "verdict": one.verdict}
            | {f"{part}_{end}": getattr(getattr(one, part), end) for part in parts for end in ("value", "low", "high")}
            for one in self.differences
        ]


def compared(path: Path, before: Mapping[str, Any], after: Mapping[str, Any]) -> AuditComparison:
    """`compare_audits` with evidence that was read from a file.

    Raises:
        UserError: The file isn't as an audit wrote it.
    """
    with as_written(path, "run that audit again"):
        return compare_audits(before, after)


def compare_audits(before: Mapping[str, Any], after: Mapping[str, Any]) -> AuditComparison:
    """The leakages that both audits have, by unit and by attribute.

    Args:
        before: Evidence as `evidence.read_evidence` gives it.
        after: The same, of the audit that is compared with it.
    """
    notes = [
        f"the audits differ in {name}: {before['command'].get(name)} and {after['command'].get(name)}"
        for name in SAME
        if before["command"].get(name) != after["command"].get(name)
    ]
    files = [_files(evidence) for evidence in (before, after)]
    apart = [role for role in SHARED_FILES if files[0].get(role) != files[1].get(role)]
    if before["people"] != after["people"]:
        notes.append(
            f"the audits are of other subjects: {before['people'].get('test')} and {after['people'].get('test')}"
        )
    is_paired = not apart and not notes
    if apart:
        notes.append(f"the audits read different files of {' and '.join(apart)}: intervals of changes are left out")
    if files[0].get("released") == files[1].get("released"):
        notes.append("both audits are of the same released store")
    notes += [f"the {name} audit is not valid" for name, e in (("former", before), ("new", after)) if not e["valid"]]
    if is_paired and len(after["command"].get("seeds") or ()) == 1:
        notes.append("attackers were trained once in each audit: their own luck is not in the intervals")
    differences = []
    for former, new in zip(Leakages.of_evidence(before), Leakages.of_evidence(after), strict=True):
        names = [name for name in former.draws if name in new.draws]
        differences += _differences(former, new, names, is_paired)
    return AuditComparison(differences, notes, is_paired)


def _differences(former: Leakages, new: Leakages, names: Sequence[str], is_paired: bool) -> list[Difference]:
    """Of all units, or of all attributes: intervals of changes hold for all of them at once."""
    values = [new.values[name] - former.values[name] for name in names]
    ends = np.full((len(names), 2), np.nan)
    if is_paired and names:
        drawn = np.stack([new.draws[name] - former.draws[name] for name in names], axis=1)  # [R, names]
        ends = metrics.simultaneous_intervals(drawn).T
    return [
        Difference(
            name,
            estimated(former.values[name], former.draws[name]),
            estimated(new.values[name], new.draws[name]),
            Interval(value, float(low), float(high)),
        )
        for name, value, (low, high) in zip(names, values, ends, strict=True)
    ]


def _files(evidence: Mapping[str, Any]) -> dict[str, list[str]]:
    """Role -> hashes, sorted."""
    found: dict[str, list[str]] = {}
    for one in evidence["files"]:
        found.setdefault(one["role"], []).append(one["sha256"])
    return {role: sorted(hashes) for role, hashes in found.items()}


def _shown(part: Interval) -> str:
    if np.isnan(part.value):
        return "-"
    return f"{part.value:.2f} [{part.low:.2f}, {part.high:.2f}]" if part.has_ends else f"{part.value:.2f}"

"""The model card of an anonymizer, with what an audit found: numbers of a file, never a promise.

Note: a card without an audit says 'not audited', at the top and in its machine-readable head.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splavu._version import __version__
from splavu.anonymizers.guarantees import guarantees
from splavu.errors import UserError, as_markdown

AUDIT_SCHEMA = "splavu-audit/2"
"""Of `evidence.json`; audits of the first version chose one winner among attackers and another headline."""


@dataclass(frozen=True)
class Audit:
    """What a card tells of an audit's `evidence.json`."""

    sentence: str
    """The headline."""
    unit: str | None
    """What it is about: clip, video or person."""
    is_valid: bool
    """Whether the audit passed its own gates."""
    attributes: tuple[Mapping[str, Any], ...]
    """Of the strongest attackers on that unit: name, ap, auc, leakage (value, low, high, chance), verdict."""
    schema: str


def read_audit(path: str | os.PathLike[str], *, weights: str | None = None) -> Audit:
    """The headline and its attributes out of an `evidence.json`.

    Args:
        path: The file.
        weights: SHA-256 of the anonymizer's weights; evidence on a store that others released is refused.

    Raises:
        UserError: It can't be read, is no evidence, of another version, or is about another anonymizer.
    """
    try:
        evidence = json.loads(Path(path).read_text(encoding="utf-8"))
        if evidence["schema"] != AUDIT_SCHEMA:
            found = f"is evidence of another version ({evidence['schema']}, expected {AUDIT_SCHEMA})"
            raise UserError(path, found, "audit again")
        headline = evidence["headline"]
        unit = headline.get("unit")
        found = evidence["strongest"].get(unit or "clip") or {"attributes": ()}
        audit = Audit(
            sentence=str(headline["sentence"]),
            unit=unit,
            is_valid=bool(evidence["valid"]),
            attributes=tuple(found["attributes"]),
            schema=str(evidence["schema"]),
        )
        released = {file["attributes"]["anonymizer_sha256"] for file in evidence["files"] if _names_weights(file)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            path, f"is no evidence of an audit ({error!r})", "give evidence.json of splavu audit"
        ) from error
    if weights is not None and released and weights not in released:
        raise UserError(path, "is about features that another anonymizer released", "audit this one")
    return audit


def model_card(name: str, architecture: Mapping[str, Any], weights: str, audit: Audit | None) -> str:
    """README.md with YAML front matter.

    Args:
        name: Title.
        architecture: The anonymizer's.
        weights: SHA-256 of its weights.
        audit: What was found, or None.
    """
    width = architecture["feature_dim"]
    options = ", ".join(
        f"{key} {value}" for key, value in architecture.items() if key not in ("arch", "feature_dim", "support")
    )
    return f"""---
library_name: splavu
pipeline_tag: feature-extraction
tags:
- splavu
- privacy
- video-features
splavu:
  architecture: {json.dumps(dict(architecture))}
  weights_sha256: "{weights}"
  version: {json.dumps(__version__)}
  audit: {json.dumps(_status(audit))}
---

# {name}

An anonymizer of video features: it maps each {width}-dimensional feature of the frozen encoder it was trained for to a
feature of the same width that keeps its use and is to tell less of what is private.

{_findings(audit)}
## Use

```python
import splavu

anonymizer = splavu.Anonymizer.from_pretrained("{name}")  # this folder, or its name on the hub
released = anonymizer.transform(features)  # [N, {width}] -> [N, {width}] float32
```

A whole store: `python -m splavu anonymize --aam THIS_FOLDER IN OUT` (HDF5, folder of .npy, Parquet).

## What it is

Architecture `{architecture["arch"]}`{f" ({options})" if options else ""}. Each row is mapped on its own: its output
doesn't depend on the batch. Features of another encoder, even of the same width, are not what it was trained for.

## Guarantees

{chr(10).join(f"- {sentence}" for sentence in guarantees(architecture))}

## Limits

It lowers what trained attackers read from features; beyond its guarantees it proves nothing about attackers nobody
tried. A map of single features that can be inverted hides nothing from an attacker who trains on its output, whatever
loss it was trained with. Audit it on features, people and attributes of your own before you release anything.
"""


def _names_weights(file: Mapping[str, Any]) -> bool:
    return "anonymizer_sha256" in (file.get("attributes") or {})


def _status(audit: Audit | None) -> str:
    if audit is None:
        return "not audited"
    return audit.sentence if audit.is_valid else "not valid: the audit failed its own gates"


def _findings(audit: Audit | None) -> str:
    if audit is None:
        return "## Audit\n\n**Not audited.** Nobody has measured what attackers read from features it released.\n"
    lines = ["## Audit", ""]
    if not audit.is_valid:
        lines += ["**Not valid**: the audit failed its own gates, do not rely on these numbers.", ""]
    lines += [f"**{as_markdown(audit.sentence)}**", ""]
    if audit.attributes:
        lines += [
            f"The strongest attackers, by {audit.unit or 'clip'}; 95 % intervals over test people:",
            "",
            "| attribute | AP, % | chance, % | AUC | leakage (1: as raw) | verdict |",
            "|---|---|---|---|---|---|",
        ]
        for row in audit.attributes:
            ap, auc, leakage = (row.get(key) or {} for key in ("ap", "auc", "leakage"))
            cells = (_shown(ap, 100, 1), _number(ap.get("chance"), 100, 1), _shown(auc, 1, 3), _shown(leakage, 1, 2))
            lines.append(
                f"| {as_markdown(str(row.get('name')))} | {' | '.join(cells)} | {as_markdown(row.get('verdict', ''))} |"
            )
        lines.append("")
    return "\n".join([*lines, f"From `evidence.json` ({audit.schema}).", ""])


def _shown(estimate: Mapping[str, Any], factor: float, digits: int) -> str:
    value, low, high = (_number(estimate.get(key), factor, digits) for key in ("value", "low", "high"))
    return value if "-" in (low, high) else f"{value} [{low}, {high}]"


def _number(value: float | None, factor: float, digits: int) -> str:
    return "-" if value is None else f"{value * factor:.{digits}f}"

"""Looks for everything of each data set (`study.commands.check_data`)."""

from __future__ import annotations

import argparse
import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from splavu.data.datasets import Layout
from splavu.data.encoders import EncoderSpec, encoder_spec
from splavu.data.keys import file_key
from splavu.data.verification import differences
from splavu.errors import UserError, nearest, printable
from splavu.extraction.preprocessing import protocol_preprocessing
from splavu.stores import Attributes, open_features
from study import config
from study.check_data.inventory import Part, Places, annotated_parts, split_parts, untrimmed_parts
from study.datasets.catalog import CATALOGUE, FOLDER, STORED, folder_of, row_of
from study.datasets.untrimmed import ANNOTATED, UNTRIMMED

DEFAULT = (*(name for name in CATALOGUE if name in STORED), *UNTRIMMED, *ANNOTATED)
"""One name for each set of videos."""
NAMES = (*DEFAULT, *(name for name in CATALOGUE if name not in STORED))


@dataclass
class Findings:
    """What was found of one data set, as lines, and what is missing or wrong."""

    name: str
    title: str
    found: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """What keeps it from being used."""
    absent: list[str] = field(default_factory=list)
    """What isn't there and needn't be, because stores do instead of videos, or videos instead of stores."""

    @property
    def is_usable(self) -> bool:
        return not self.missing

    def lines(self) -> list[str]:
        """For printing."""
        state = "usable" if self.is_usable else "not usable"
        return [
            f"{self.name} ({self.title}): {state}",
            *(f"  {line}" for line in self.found),
            *(f"  not there: {line}" for line in self.absent),
            *(f"  missing: {line}" for line in dict.fromkeys(self.missing)),
        ]


def run(args: argparse.Namespace) -> int:
    """0: all usable. 1: something is missing and listed. Bad input raises UserError (exit code 2)."""
    encoder = None if args.encoder is None else encoder_spec(args.encoder)
    places = Places(args.data or Path(config.DATA), args.features or Path(config.FEATURES), encoder)
    for name in args.names:
        if name.startswith(FOLDER):
            folder_of(name)
        elif name not in NAMES:
            raise UserError("data set", f"'{name}' is unknown", f"{nearest(name, NAMES)} Your own videos: {FOLDER}NAME")
    findings = [check(name, places) for name in args.names or DEFAULT]
    for finding in findings:
        print("\n".join(map(printable, finding.lines())))
    unusable = [finding.name for finding in findings if not finding.is_usable]
    print(
        f"{len(findings) - len(unusable)} of {len(findings)} usable"
        + (f"; not: {', '.join(unusable)}" if unusable else "")
    )
    return 1 if unusable else 0


def check(name: str, places: Places) -> Findings:
    """Look for everything of the data set called `name`."""
    if name in UNTRIMMED:
        row = UNTRIMMED[name]
        findings, parts = Findings(name, f"{row.num_classes} classes"), untrimmed_parts(row, places)
    elif name in ANNOTATED:
        row = ANNOTATED[name]
        findings, parts = Findings(name, f"annotations of {row.origin}"), annotated_parts(row, places)
    else:
        try:
            row = row_of(name, places.data)
        except UserError as error:
            return Findings(name, "one's own videos", missing=[str(error)])
        findings = Findings(name, f"{row.num_classes} {'attributes' if row.multi_label else 'classes'}")
        parts = split_parts(row, places)
    _compare(findings, row.layout, parts, places)
    return findings


def _compare(findings: Findings, layout: Layout, parts: Sequence[Part], places: Places) -> None:
    """Labels against what is official, then files and stores against the labels."""
    findings.found.append(f"key: {layout.key}" + (f"; {layout.note}" if layout.note else ""))
    findings.found.append(_preprocessing(findings.name))
    if "all" in layout.num_videos and len(parts) > 1:
        findings.found.append(f"official: {layout.num_videos['all']} videos in all")
    if layout.num_subjects:
        findings.found.append(f"official: {layout.num_subjects} subjects")
    missing = dict.fromkeys(file for part in parts for file in part.label_files if not (places.data / file).exists())
    findings.missing += [f"labels: {places.data / file}" for file in missing]
    files = {folder: part.files() for folder, part in {part.folder: part for part in parts}.items()}
    has_all_files = all([_check_files(findings, part, layout, files[part.folder], places) for part in parts])
    encoders = [e for e in places.encoders if any(path.exists() for part in parts for path in part.stores(e))]
    has_stores = [e.name for e in encoders if all([_check_stores(findings, part, e, places) for part in parts])]
    for encoder in encoders:
        _check_origin(findings, parts, encoder)
    if places.encoder is not None and not encoders:
        findings.missing += dict.fromkeys(f"features: {p}" for part in parts for p in part.stores(places.encoder))
    elif not has_stores and not has_all_files:
        findings.missing += findings.absent
        findings.absent = []
        if not encoders:
            example = parts[0].stores(encoder_spec("videoMAE"))[0]
            findings.missing.append(f"or features: {example}, for instance")


def _preprocessing(name: str) -> str:
    """What happens to its frames before an encoder sees them."""
    own = encoder_spec("videoMAE").preprocessing
    published = protocol_preprocessing(own, protocol="published", dataset=name)
    changed = [field.name for field in fields(own) if getattr(own, field.name) != getattr(published, field.name)]
    exceptions = ", ".join(f"{name} {getattr(published, name)}" for name in changed)
    line = f"preprocessing: the encoder's, for videoMAE short side {own.short_side} and centre {own.crop}"
    return line + (f"; as published: {exceptions}" if exceptions else "")


def _check_files(findings: Findings, part: Part, layout: Layout, files: Mapping[str, Path], places: Places) -> bool:
    """Whether all labelled videos of a part are there; a line on labels and one on files."""
    official = f", official {layout.num_videos[part.split]}" if part.split in layout.num_videos else ""
    names: Sequence[str] = ()
    labels = "no labels"
    if part.is_told(places):
        try:
            names = part.labelled(list(files))
            labels = f"{len(names)} labelled"
        except UserError as error:
            findings.missing.append(str(error))
    findings.found.append(f"{part.split}: {labels}{official}")
    if not files:
        if f"videos: {part.folder}" not in findings.absent:
            findings.absent.append(f"videos: {part.folder}")
        return False
    if not names:
        findings.found.append(f"{part.split}: {len(files)} files below {part.folder}")
        return False
    absent = [name for name in names if name not in files and file_key(name) not in files]
    findings.found.append(f"{part.split}: {len(names) - len(absent)} of {len(names)} files below {part.folder}")
    if absent:
        findings.absent.append(f"{len(absent)} files of {part.split} below {part.folder}: {_some(absent)}")
    return not absent


def _check_stores(findings: Findings, part: Part, encoder: EncoderSpec, places: Places) -> bool:
    """Whether an encoder's stores hold the labelled videos of a part, and no others."""
    paths = part.stores(encoder)
    if absent := [path for path in paths if not path.exists()]:
        findings.missing += [f"features: {path}" for path in absent]
        return False
    try:
        keys = [key for path in paths for key in open_features(path).keys()]  # noqa: SIM118
        names = part.labelled(keys) if part.is_told(places) else ()
    except UserError as error:
        findings.missing.append(str(error))
        return False
    where = ", ".join(map(str, paths))
    held = set(keys)
    absent = [name for name in names if name not in held]
    surplus = [] if part.holds_others or not names else sorted(held.difference(names))
    findings.found.append(
        f"{part.split}: {where}: {len(keys)} keys, {len(names) - len(absent)} of {len(names)} labelled"
    )
    if absent:
        findings.missing.append(f"{where}: no features of {len(absent)} videos of {part.split}: {_some(absent)}")
    if surplus:
        findings.missing.append(f"{where}: {len(surplus)} keys have no label: {_some(surplus)}")
    for path in paths:
        for static in sorted(path.parent.glob(f"{glob.escape(path.stem)}_fb*.h5")):
            findings.found.append(f"{part.split}: {static}: {_static(static, names, findings)}")
    return bool(names) and not absent and not surplus


def _static(path: Path, names: Sequence[str], findings: Findings) -> str:
    """How many keys a store of static clips has; adds what it lacks."""
    try:
        held = set(open_features(path))
    except UserError as error:
        findings.missing.append(str(error))
        return "unreadable"
    if absent := [name for name in names if name not in held]:
        findings.missing.append(f"{path}: no static clips of {len(absent)} videos: {_some(absent)}")
    return f"{len(held)} keys"


def _check_origin(findings: Findings, parts: Sequence[Part], encoder: EncoderSpec) -> None:
    """All stores of one encoder's tag must be of the same weights and preprocessing."""
    first: tuple[Path, Attributes] | None = None
    for path in dict.fromkeys(path for part in parts for path in part.stores(encoder) if path.exists()):
        for each in (path, *sorted(path.parent.glob(f"{glob.escape(path.stem)}_fb*.h5"))):
            try:
                attributes = open_features(each).attributes
            except UserError:  # told already
                continue
            if (said := attributes.get("encoder")) not in (None, encoder.name):
                findings.missing.append(f"{each}: its name says {encoder.name}, its attributes say {said}")
            if first is None:
                first = each, attributes
            elif differing := differences(first[1], attributes):
                names = ", ".join(differing)
                findings.missing.append(f"{each}: made with another {names} than {first[0]}; extract one of them again")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")

"""Fit an anonymizer in closed form to the features of training subjects, in seconds.

The checkpoint is one like any other: `splavu anonymize`, `audit` and `export`, `tridet` and `mgfn` take it as --aam,
and parameter files as saved_fa_model. Parameter files make the same: fa_arch = 'METHOD(option=value)'.

--after CKPT fits to what that anonymizer releases and writes the chain of both: first erase, then quantize.

Note: fit to training subjects only. Subjects who are tested on, or whose features are to be released, belong in no
--raw; a column `split` in --labels, --private or --subjects is obeyed, its train rows alone are used. No method is
private by its name: audit it.
"""

from __future__ import annotations

import argparse
import ast
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splavu._version import __version__
from splavu.anonymizers.closed_form.fit_data import FitData
from splavu.anonymizers.closed_form.form import ClosedForm, Option
from splavu.anonymizers.closed_form.methods import METHODS
from splavu.anonymizers.guarantees import as_paragraphs, guarantees
from splavu.data.csv_table import read_rows, split_of
from splavu.data.keys import match_keys
from splavu.data.private_labels import read_private_table
from splavu.data.subjects import read_subjects
from splavu.errors import UserError, nearest
from splavu.runtime import limits
from splavu.runtime.cli import ArgumentParser
from splavu.runtime.files import check_target, claimed, file_hash
from splavu.runtime.schema import Key, Seed, conformed

logger = logging.getLogger(__name__)

MEMORY_FACTOR = 10
"""Memory that fitting takes at most, by that of the features: measured, from 4 (orthogonal) to 10 (inlp)."""
FLAG_OF = {"static": "static", "classes": "labels", "private": "private", "subjects": "subjects"}
"""Field of `FitData` -> the flag that names its file."""


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command: its files, and every option of every closed form."""
    stores = {"nargs": "+", "action": "extend", "metavar": "STORE", "type": Path}
    forms = list(_working_forms())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    listed = (f"    {form.name:<11} {_data_of(form)}\n{'':16}{form.help}" for form in forms)
    parser.epilog = "\n".join(["methods:", *listed, "", parser.epilog or ""]).rstrip()
    parser.add_argument("method", metavar="METHOD", help=", ".join(form.name for form in forms))
    parser.add_argument("--raw", **stores, required=True, help="raw features of training subjects; may be repeated")
    parser.add_argument("--out", type=Path, required=True, metavar="CKPT", help="checkpoint to be written")
    parser.add_argument("--static", **stores, default=[], help="static features of the same videos (..._fb10.h5)")
    parser.add_argument("--labels", type=Path, help="CSV filename,label: the actions")
    parser.add_argument("--private", type=Path, help="CSV: filename, private attributes, optionally split")
    parser.add_argument(
        "--attributes", help="comma list of its columns, NAME or NAME:binary, NAME:class, NAME:value (default: all)"
    )
    parser.add_argument(
        "--subjects",
        type=Path,
        metavar="CSV",
        help="CSV filename,subject,split, one of the two may be missing: who is in each video, so that codes stand for "
        "enough people "
        "(default: the column of --private; without one, videos count)",
    )
    parser.add_argument("--after", type=Path, metavar="CKPT", help="anonymizer to come first")
    parser.add_argument("--seed", type=Key, help="of draws (default 0); of noise, a secret (default: at random)")
    options = parser.add_argument_group("options of methods")
    for name, declared in _options(forms).items():
        first = next(iter(declared.values()))
        kind: dict[str, Any] = (
            {"action": argparse.BooleanOptionalAction} if first.is_flag else {"metavar": name.upper()}
        )
        default = "" if first.default is None or first.is_flag else f" (default {first.default})"
        described = f"{', '.join(declared)}: {first.about.help}{default}".replace("%", "%%")
        options.add_argument(f"--{name.replace('_', '-')}", dest=f"option_{name}", default=None, help=described, **kind)
    limits.add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Fit as the arguments say, write, and say what was made."""
    from splavu.runtime.checkpoints import MARKS  # --help needs no torch

    with claimed(args.out, inputs=_inputs(args), marks=MARKS):
        print(fit(args))
    print(f"next: python -m splavu anonymize --aam {args.out} RAW RELEASED, then python -m splavu audit")
    return 0


def _inputs(args: argparse.Namespace) -> list[Path]:
    paths = (*args.raw, *args.static, args.labels, args.private, args.subjects, args.after)
    return [path for path in paths if path is not None]


def fit(args: argparse.Namespace) -> str:
    """Read, fit and write; what was made, in two lines, and what it guarantees.

    Raises:
        UserError: An option is missing or out of range, a file is damaged, or two don't match; nothing is written then.
    """
    from splavu.anonymizers import Chain, apply_to_array  # here and below: --help needs no torch
    from splavu.anonymizers.loading import load_anonymizer, weights_hash
    from splavu.runtime import checkpoints

    if args.method not in METHODS:
        raise UserError("METHOD", f"'{args.method}' is not a closed form", nearest(args.method, METHODS))
    form = METHODS[args.method]
    given = {
        name.removeprefix("option_"): _plain(value)
        for name, value in vars(args).items()
        if name.startswith("option_") and value is not None
    }
    if form.seed != "secret" and args.seed is not None:
        conformed(Seed, args.seed, "--seed")
    options = form.read(given, culprit=lambda name: f"--{name.replace('_', '-')}")
    for need in form.needs:
        if not getattr(args, FLAG_OF[need]):
            raise UserError(f"--{FLAG_OF[need]}", f"is missing, and {form.name} is fitted to it", "name the file")
    inputs = _inputs(args)
    check_target(args.out, inputs=inputs)
    first = None if args.after is None else load_anonymizer(args.after).eval()
    data, files = read_training(args)
    if data.private is not None:
        data = data.with_known_private()
    if first is not None and first.architecture["feature_dim"] != data.features.shape[1]:
        problem = f"anonymizes features {first.architecture['feature_dim']} wide, --raw is {data.features.shape[1]}"
        raise UserError("--after", problem, "give an anonymizer of the same encoder")
    raw, fitted_to = data.features, data.fitted_to.and_before(None if first is None else first.fitted_to)
    if first is not None and args.after is not None:
        files.append({"role": "after", "name": args.after.name, "sha256": weights_hash(first)})
        data = data.after(first)
    made = form.fitted(data, options, seed=args.seed).eval()
    whole = made if first is None else Chain(raw.shape[1], stages=[first, made])
    recorded = {**given, "attributes": args.attributes, "seed": None if form.seed == "secret" else args.seed}
    fitted = {
        "method": form.name,
        "options": {name: value for name, value in recorded.items() if value is not None},
        "files": files,
        "clips": len(raw),
        "videos": data.num_videos,
        "splavu_version": __version__,
        "guarantees": guarantees(whole.architecture),
    }
    checkpoints.write(
        args.out,
        {
            "fa_model_state_dict": whole.state_dict(),
            "fa_architecture": whole.architecture,
            "fitted": fitted,
            "fitted_to": fitted_to.record,
        },
        inputs=inputs,
    )
    changed = np.square(apply_to_array(whole, raw) - raw).sum() / np.square(raw - raw.mean(axis=0)).sum()
    described = f"{form.described(made, data)}; fitted to {len(raw)} clips of {data.num_videos} videos"
    lines = [f"{args.out}: {described}", f"it changes features by {100 * changed:.1f} % of their variance"]
    return "\n".join([*lines, as_paragraphs(fitted["guarantees"])])


def read_training(args: argparse.Namespace) -> tuple[FitData, list[dict[str, Any]]]:
    """The rows that the arguments name, and the files they are from.

    Raises:
        UserError: No row is left; a store is released already, of another width, or lacks a video; a table is damaged.
    """
    files: list[dict[str, Any]] = []
    features = _stores(args.raw, "raw", files)
    static = _stores(args.static, "static", files) if args.static else None
    classes = _classes(args.labels, features, files) if args.labels else None
    private, subjects, attributes = _private(args, features, files) if args.private else (None, None, ())
    left_out: set[str] = set()
    if args.subjects:
        files.append({"role": "subjects", "name": args.subjects.name, "sha256": file_hash(args.subjects)})
        found = read_subjects(args.subjects, features)
        _require_training(args.subjects, found.splits.values() or ("train",))
        subjects, left_out = (
            found.subjects or subjects,
            {key for key, split in found.splits.items() if split != "train"},
        )
    keys = [
        key
        for key in features
        if key not in left_out and all(table is None or key in table for table in (classes, private))
    ]
    if not keys:
        raise UserError(
            args.subjects or args.labels or args.private, "names no training video of --raw", "check names and split"
        )
    if left := len(features) - len(keys):
        logger.warning(
            "%d of %d videos have no label, or aren't to be trained on, and were left out", left, len(features)
        )
    if static is not None:
        name_of = match_keys(static, keys, source="--static")
        if missing := [key for key in keys if key not in name_of]:
            remedy = "give the store of the same videos"
            raise UserError("--static", f"has no '{missing[0]}', which is in --raw", remedy)
        static = {key: static[name] for key, name in name_of.items()}
    owners = [key for key in keys for _ in features[key]]
    data = FitData(
        np.concatenate([features[key] for key in keys]),
        None if static is None else np.stack([static[key].mean(axis=0) for key in owners]),
        None if classes is None else np.array([classes[key] for key in owners]),
        None if private is None else np.stack([private[key] for key in owners]),
        np.array(owners),
        attributes=attributes,
        subjects=_subject_of_rows(subjects, keys, owners),
    )
    if data.static is not None and data.static.shape[1] != data.features.shape[1]:
        raise UserError("--static", f"is {data.static.shape[1]} wide, --raw {data.features.shape[1]}", "one encoder")
    return data, files


def _stores(paths: Sequence[Path], role: str, files: list[dict[str, Any]]) -> dict[str, NDArray[np.float32]]:
    from splavu.stores import open_features

    found: dict[str, NDArray[np.float32]] = {}
    width, num_bytes = None, 0
    for path in paths:
        store = open_features(path, feature_dim=width)
        width = store.feature_dim
        if "anonymizer_sha256" in store.attributes:
            raise UserError(path, "is a released store: its features are anonymized already", "give the raw features")
        attributes = {name: value for name, value in store.attributes.items() if isinstance(value, str | int | float)}
        files.append({"role": role, "name": path.name, "sha256": file_hash(path), "attributes": attributes})
        num_bytes += store.num_bytes()
        limits.require(MEMORY_FACTOR * num_bytes, path, "fitting to its features")
        for key in store:
            if key in found:
                raise UserError(path, f"duplicate key '{key}', also in another store of --{role}", "give it once")
            found[key] = store.verified(key).reshape(-1, width)
    return found


def _classes(path: Path, keys: Iterable[str], files: list[dict[str, Any]]) -> dict[str, str]:
    """The action of those of the keys that are trained on."""
    files.append({"role": "labels", "name": path.name, "sha256": file_hash(path)})
    rows = {row["filename"]: row for row in read_rows(path, ("filename", "label"))}
    splits = {name: split_of(row.get("split", "train"), name, path) for name, row in rows.items()}
    _require_training(path, splits.values())
    found = {}
    name_of = match_keys(rows, keys, source=path)
    place = {name: number for number, name in enumerate(rows)}
    _warn_of_absent(path, tuple(rows), tuple(splits.values()), map(place.__getitem__, name_of.values()))
    for key, name in name_of.items():
        if splits[name] == "train":
            found[key] = rows[name]["label"].strip()
            if not found[key]:
                raise UserError(path, f"'{name}' has no label", "label it, or take it out")
    return found


def _subject_of_rows(
    subjects: Mapping[str, str] | None, keys: Sequence[str], owners: Sequence[str]
) -> NDArray | None:  # -> [N]
    """Who is in each row's video, "" for unknown; None where nothing says."""
    if subjects is None:
        return None
    if unknown := [key for key in keys if key not in subjects]:
        logger.warning("%d of %d videos have no subject, and support no centroid", len(unknown), len(keys))
    return np.array([subjects.get(key, "") for key in owners])


def _private(
    args: argparse.Namespace, keys: Iterable[str], files: list[dict[str, Any]]
) -> tuple[dict[str, NDArray[np.float32]], Mapping[str, str] | None, tuple[str, ...]]:
    """Private attributes [A] (NaN for unknown) of those of the keys that are trained on; their subjects, if it says;
    the names of the attributes."""
    table = read_private_table(args.private, attributes=args.attributes)
    table.require_binary(f"fit {args.method}")
    hashed = file_hash(args.private)
    files.append({"role": "private", "name": args.private.name, "sha256": hashed, "columns": table.records})
    table.report("erased")
    _require_training(args.private, table.splits or ("train",))
    labels = table.of(keys)
    _warn_of_absent(args.private, table.names, table.splits, table.rows_of(keys).values())
    trained = {key: row for key, row in labels.values.items() if labels.splits.get(key, "train") == "train"}
    return trained, labels.subjects or None, labels.attributes


def _warn_of_absent(
    path: Path, names: Sequence[str], splits: Sequence[str] | None, with_features: Iterable[int]
) -> None:
    """Say how many of a table's training videos aren't in --raw; by the numbers of the rows that are."""
    found = set(with_features)
    trained = [row for row in range(len(names)) if splits is None or splits[row] == "train"]
    if absent := [names[row] for row in trained if row not in found]:
        logger.warning(
            "%s: %d of %d training videos, such as '%s', are in no store of --raw and were left out",
            path.name,
            len(absent),
            len(trained),
            absent[0],
        )


def _require_training(path: Path, splits: Iterable[str]) -> None:
    if "train" not in splits:
        raise UserError(path, "has no row of split 'train'", "fit to training subjects")


def _working_forms() -> Iterator[ClosedForm]:
    """The closed forms; of other packages those that can be imported. The others are refused when they are named."""
    for name in METHODS:
        try:
            yield METHODS[name]
        except UserError as error:
            logger.debug("%s", error)


def _options(forms: Sequence[ClosedForm]) -> dict[str, dict[str, Option]]:
    """Option -> closed form -> as that form declares it."""
    found: dict[str, dict[str, Option]] = {}
    for form in forms:
        for name, declared in form.declared.items():
            found.setdefault(name, {})[form.name] = declared
    return found


def _data_of(form: ClosedForm) -> str:
    """The flags of a closed form's data and options, in one line."""
    data = [f"--{FLAG_OF[need]}" for need in form.needs] + [f"[--{FLAG_OF[need]}]" for need in form.uses]
    one_of = " | ".join(f"--{name}" for name in form.one_of)
    options = [f"--{name}" if declared.about.required else f"[--{name}]" for name, declared in form.declared.items()]
    others = [text for text in options if text.strip("[]-") not in form.one_of]
    return " ".join([*data, *([one_of] if one_of else []), *others]).replace("_", "-")


def _plain(value: Any) -> Any:
    """A Python value of the text of an option: '64,64' is a tuple, 'linear' is text."""
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError):
        return value

"""`python -m splavu fit METHOD`: anonymizers in closed form, fitted to the features of training people in seconds.

The checkpoint is one like any other: `splavu anonymize`, `audit` and `export`, `tridet` and `mgfn` take it as --aam,
and parameter files as saved_fa_model.

    eraser      --static [--labels] --rank R | --share S [--lift quadratic]
                removes what pictures of a video tell of its clips: appearance. No private label is used; with
                --labels, what pictures tell of the action is spared.
    leace       --private
                removes all that a straight line could tell of labelled attributes, at the least change.
    orthogonal  --private
                removes the differences of their means by an orthogonal projection; labels may be weak.
    inlp        --private [--rounds]
                removes, round after round, the line that tells each attribute best.
    pca         --keep
                keeps the directions of largest variance.
    random      --keep [--seed]
                keeps directions drawn at random.
    quantizer   --bits | --codes [--labels]
                releases the nearest of few vectors: no attacker gets more bits from a clip.
    noise       --sd [--units]
                adds Gaussian noise that is a feature's own: the same each time it is served.

--after CKPT fits to what that anonymizer leaves and writes the chain of both: first erase, then quantize.

What a reader would get wrong: fit to training people only. People who are tested on belong in no --raw; a column
`split` in --labels or --private is obeyed, its train rows alone are used. No method is private by its name: audit it.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from splavu._version import __version__
from splavu.anonymizers import (
    AffineAnonymizer,
    Anonymizer,
    Chain,
    GaussianNoise,
    Quantizer,
    apply_to_array,
    closed_form,
)
from splavu.anonymizers.closed_form.codes import evenly_split_bits
from splavu.anonymizers.guarantees import guarantees
from splavu.anonymizers.loading import load_anonymizer, weights_hash
from splavu.data.labels import by_key, read_rows, without_extension
from splavu.errors import UserError
from splavu.runtime import checkpoints
from splavu.runtime.files import check_target, file_hash
from splavu.stores import open_features

logger = logging.getLogger(__name__)

HELP = "closed-form anonymizers (eraser, LEACE, quantizer, noise, ...) from raw features, in seconds"


@dataclass(frozen=True)
class Training:
    """Rows of training people's clips, [N] each."""

    features: NDArray[np.float32]  # [N, D]
    keys: NDArray[np.str_]
    static: NDArray[np.float32] | None = None  # [N, D]
    classes: NDArray[np.str_] | None = None
    private: NDArray[np.float32] | None = None  # [N, A]


def eraser(data: Training, args: argparse.Namespace) -> Anonymizer:
    made = closed_form.static_eraser(
        data.features,
        _given(data, "static"),
        classes=data.classes,
        rank=args.rank,
        share=args.share,
        lift=args.lift,
        ridge=args.ridge,
    )
    return _affine(made, "eraser")


def leace(data: Training, args: argparse.Namespace) -> Anonymizer:
    return _affine(closed_form.leace(data.features, _given(data, "private"), ridge=args.ridge), "leace")


def orthogonal(data: Training, args: argparse.Namespace) -> Anonymizer:
    return _affine(closed_form.orthogonal(data.features, _given(data, "private")), "orthogonal")


def inlp(data: Training, args: argparse.Namespace) -> Anonymizer:
    return _affine(closed_form.inlp(data.features, _given(data, "private"), rounds=args.rounds), "inlp")


def pca(data: Training, args: argparse.Namespace) -> Anonymizer:
    return _affine(closed_form.pca(data.features, keep=_number(args, "keep")), "pca")


def random(data: Training, args: argparse.Namespace) -> Anonymizer:
    keep = _number(args, "keep")
    return _affine(closed_form.random_projection(data.features, keep=keep, seed=args.seed or 0), "random")


def quantizer(data: Training, args: argparse.Namespace) -> Anonymizer:
    if (args.bits is None) == (args.codes is None):
        raise UserError("quantizer", "takes either --bits or --codes", "--bits 7, or --codes 84, or --codes 64,64")
    codes = evenly_split_bits(args.bits) if args.codes is None else _codes(args.codes)
    made = closed_form.discriminant_codes(data.features, data.classes, codes, dims=args.dims, seed=args.seed or 0)
    return Quantizer.of(made.mean, made.encode, made.decode, made.codebooks)


def noise(data: Training, args: argparse.Namespace) -> Anonymizer:
    root = (closed_form.deviations if args.units == "dimension" else closed_form.covariance_root)(data.features)
    return GaussianNoise.of(root, sd=_number(args, "sd"), seed=args.seed)


METHODS: Mapping[str, Callable[[Training, argparse.Namespace], Anonymizer]] = {
    "eraser": eraser,
    "leace": leace,
    "orthogonal": orthogonal,
    "inlp": inlp,
    "pca": pca,
    "random": random,
    "quantizer": quantizer,
    "noise": noise,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    stores = {"nargs": "+", "action": "extend", "metavar": "STORE", "type": Path}
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("method", metavar="METHOD", choices=METHODS, help=", ".join(METHODS))
    parser.add_argument("--raw", **stores, required=True, help="raw features of training people; may be repeated")
    parser.add_argument("--out", type=Path, required=True, metavar="CKPT", help="checkpoint to be written")
    parser.add_argument("--static", **stores, default=[], help="static features of the same videos (..._fb10.h5)")
    parser.add_argument("--labels", type=Path, help="CSV filename,label: the actions")
    parser.add_argument("--private", type=Path, help="CSV filename, attributes of 0 and 1")
    parser.add_argument("--attributes", help="comma list of its columns (default: every column of 0 and 1)")
    parser.add_argument("--after", type=Path, metavar="CKPT", help="anonymizer to come first")
    parser.add_argument("--rank", type=int, help="eraser: directions to remove")
    parser.add_argument("--share", type=float, help="eraser: or the share of squared covariance to remove, 0-1")
    parser.add_argument(
        "--lift",
        choices=("linear", "quadratic"),
        default="linear",
        help="eraser: or products of what pictures show too",
    )
    parser.add_argument("--ridge", type=float, default=0.0, help="added to variances, as a share of their mean")
    parser.add_argument("--rounds", type=int, default=8, help="inlp: how often (default 8)")
    parser.add_argument("--keep", type=int, help="pca, random: directions to keep")
    parser.add_argument("--bits", type=int, help="quantizer: budget of a clip")
    parser.add_argument("--codes", help="quantizer: or centroids, a comma list for several codebooks")
    parser.add_argument("--dims", type=int, help="quantizer: of the subspace (default: classes - 1)")
    parser.add_argument("--sd", type=float, help="noise: standard deviation, in units of the features' own")
    parser.add_argument(
        "--units", choices=("dimension", "whitened"), default="dimension", help="noise: of each dimension (default)"
    )
    parser.add_argument("--seed", type=int, help="of draws (default 0); of noise, a secret (default: at random)")


def run(args: argparse.Namespace) -> int:
    """Fit as the arguments say, write, and say what was made."""
    print(fit(args))
    print(f"to judge it: python -m splavu anonymize --aam {args.out} RAW RELEASED, then python -m splavu audit")
    return 0


def fit(args: argparse.Namespace) -> str:
    """Read, fit and write; what was made, in two lines.

    Raises:
        UserError: An option is missing or out of range, a file is damaged, or two don't match; nothing is written then.
    """
    inputs = [path for path in (*args.raw, *args.static, args.labels, args.private, args.after) if path is not None]
    check_target(args.out, inputs=inputs)
    first = None if args.after is None else load_anonymizer(args.after).eval()
    data, files = read_training(args)
    raw = data.features
    if first is not None:
        files.append({"role": "after", "name": args.after.name, "sha256": weights_hash(first)})
        data = _anonymized(data, first)
    made = METHODS[args.method](data, args).eval()
    whole = made if first is None else Chain(raw.shape[1], stages=[first, made])
    fitted = {
        "method": args.method,
        "options": _options(args),
        "files": files,
        "clips": len(raw),
        "videos": len(np.unique(data.keys)),
        "splavu_version": __version__,
        "guarantees": guarantees(whole.architecture),
    }
    checkpoints.write(
        args.out,
        {"fa_model_state_dict": whole.state_dict(), "fa_architecture": whole.architecture, "fitted": fitted},
        inputs=inputs,
    )
    changed = np.square(apply_to_array(whole, raw) - raw).sum() / np.square(raw - raw.mean(axis=0)).sum()
    return f"{args.out}: {described(made, data)}\nit changes features by {100 * changed:.1f} % of their variance"


def described(made: Anonymizer, data: Training) -> str:
    """One line on what was fitted to what."""
    architecture = made.architecture
    if isinstance(made, Quantizer):
        used = made.usage(torch.from_numpy(data.features))
        what = f"{' x '.join(map(str, architecture['codes']))} codes, at most {used.budget:.2f} bits a clip"
        what += f" (used {used.entropy:.2f}, {used.distinct} vectors)"
    elif isinstance(made, AffineAnonymizer):
        what = f"{architecture['method']}, {architecture['rank']} of {architecture['feature_dim']} directions removed"
    else:
        what = f"noise, sd {architecture['sd']:g} ({architecture['units']})"
    return f"{what}; fitted to {len(data.features)} clips of {len(np.unique(data.keys))} videos"


def read_training(args: argparse.Namespace) -> tuple[Training, list[dict[str, Any]]]:
    """The rows that the arguments name, and the files they are from.

    Raises:
        UserError: No row is left; a store is released already, of another width, or lacks a video; a table is damaged.
    """
    files: list[dict[str, Any]] = []
    features = _stores(args.raw, "raw", files)
    static = _stores(args.static, "static", files) if args.static else None
    classes = _classes(args.labels, files) if args.labels else None
    private = _attributes(args.private, args.attributes, files) if args.private else None
    keys = [key for key in features if all(table is None or key in table for table in (classes, private))]
    if not keys:
        raise UserError(args.labels or args.private, "names no training video of --raw", "check names and split")
    if left := len(features) - len(keys):
        logger.warning(
            "%d of %d videos have no label, or aren't to be trained on, and were left out", left, len(features)
        )
    if static is not None and (missing := [key for key in keys if key not in static]):
        raise UserError("--static", f"has no '{missing[0]}', which is in --raw", "give the store of the same videos")
    owners = [key for key in keys for _ in features[key]]
    data = Training(
        np.concatenate([features[key] for key in keys]),
        np.array(owners),
        None if static is None else np.stack([static[key].mean(axis=0) for key in owners]),
        None if classes is None else np.array([classes[key] for key in owners]),
        None if private is None else np.stack([private[key] for key in owners]),
    )
    if data.static is not None and data.static.shape[1] != data.features.shape[1]:
        raise UserError("--static", f"is {data.static.shape[1]} wide, --raw {data.features.shape[1]}", "one encoder")
    return data, files


def _stores(paths: Sequence[Path], role: str, files: list[dict[str, Any]]) -> dict[str, NDArray[np.float32]]:
    found: dict[str, NDArray[np.float32]] = {}
    width = None
    for path in paths:
        store = open_features(path, feature_dim=width)
        width = store.feature_dim
        if "anonymizer_sha256" in store.attributes:
            raise UserError(path, "is a released store: its features are anonymized already", "give the raw features")
        attributes = {name: value for name, value in store.attributes.items() if isinstance(value, str | int | float)}
        files.append({"role": role, "name": path.name, "sha256": file_hash(path), "attributes": attributes})
        for stored in store:
            if (key := without_extension(stored)) in found:
                raise UserError(path, f"'{key}' is in another store of --{role} too", "give each video once")
            found[key] = store.verified(stored).reshape(-1, width)
    return found


def _classes(path: Path, files: list[dict[str, Any]]) -> dict[str, str]:
    return {
        key: row["label"].strip() for key, row in _training_rows(path, ("filename", "label"), "labels", files).items()
    }


def _attributes(path: Path, names: str | None, files: list[dict[str, Any]]) -> dict[str, NDArray[np.float32]]:
    wanted = tuple(name.strip() for name in names.split(",")) if names else ()
    rows = _training_rows(path, ("filename", *wanted), "private", files)
    chosen = wanted or tuple(
        name
        for name in next(iter(rows.values()))
        if name not in ("filename", "label", "subject", "split", "group")
        and {row[name].strip() for row in rows.values()} <= {"0", "1"}
    )
    if not chosen:
        raise UserError(path, "has no column of 0 and 1 besides names", "add a column for each private attribute")
    for key, row in rows.items():
        if bad := [name for name in chosen if row[name].strip() not in ("0", "1")]:
            raise UserError(
                path, f"'{key}' has {bad[0]} = '{row[bad[0]]}', expected 0 or 1", "label it or leave it out"
            )
    return {key: np.array([float(row[name]) for name in chosen], np.float32) for key, row in rows.items()}


def _training_rows(
    path: Path, columns: tuple[str, ...], role: str, files: list[dict[str, Any]]
) -> dict[str, dict[str, str]]:
    rows = by_key(read_rows(path, columns), path)
    files.append({"role": role, "name": path.name, "sha256": file_hash(path)})
    trained = {
        key: row for key, row in rows.items() if row.get("split", "train").strip().lower() in ("train", "training")
    }
    if not trained:
        raise UserError(path, "has no row of split 'train'", "fit to training people")
    return trained


def _anonymized(data: Training, first: Anonymizer) -> Training:
    static = None if data.static is None else apply_to_array(first, data.static)
    return Training(apply_to_array(first, data.features), data.keys, static, data.classes, data.private)


def _affine(made: closed_form.Projection, method: str) -> AffineAnonymizer:
    return AffineAnonymizer.of(made.mean, made.encode, made.decode, method=method)


def _given(data: Training, name: str) -> NDArray:
    value = getattr(data, name)
    if value is None:
        raise UserError(f"--{name}", "is missing, and this method needs it", "python -m splavu fit --help says which")
    return value


def _number(args: argparse.Namespace, name: str) -> Any:
    value = getattr(args, name)
    if value is None:
        raise UserError(
            f"--{name}", f"is missing, and {args.method} needs it", "python -m splavu fit --help says which"
        )
    return value


def _codes(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError("--codes", f"'{text}' is no list of numbers", "--codes 84, or --codes 64,64") from None


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """What was asked for; the seed of noise is its key, and a secret."""
    names = (
        "rank",
        "share",
        "lift",
        "ridge",
        "rounds",
        "keep",
        "bits",
        "codes",
        "dims",
        "sd",
        "units",
        "attributes",
        "seed",
    )
    secret = {"seed"} if args.method == "noise" else set()
    return {name: getattr(args, name) for name in names if name not in secret and getattr(args, name) is not None}

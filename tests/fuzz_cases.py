"""The commands that are fuzzed, each with valid inputs of many forms, odd values, and the right result where cheap.

A case begins as a valid command line in a folder of its own. Then, by its seed, nothing is changed, or an input is
damaged (`fuzz_inputs`), an option gets an odd value, the output aims at something else, or an argument is lost.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import importlib
import importlib.util
import io
import json
import logging
import os
import random
import shutil
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fuzz_inputs as inputs
import h5py
import numpy as np
import yaml
from fuzz_inputs import BAD, EITHER, GOOD, KEYS, OPAQUE_KEYS, WIDTH, Features

REPOSITORY = Path(__file__).resolve().parents[1]
WORK = "a/b/work/"
COMPANIONS = (".partial", ".partial.lock", ".lock", ".keys.csv", ".rows.csv", ".secret")
"""Beside an output: what an interrupted run goes on from, and the owner's files of secret keys."""


@dataclass
class Case:
    """A command line in a folder, and what must follow."""

    argv: list[str]
    outputs: list[str]
    """Where the command may write, relative to the folder of work."""
    expect: str = GOOD
    about: str = "valid"
    oracle: Callable[[Any], None] | None = None
    """Raises where the result is wrong; gets the `fuzz_commands.Result`."""

    def _within(self, path: str) -> Iterable[str]:
        """What follows an output's name in a path relative to the case's root."""
        for output in self.outputs:
            start = os.path.normpath(WORK + output) if output else None
            if start is not None and path.startswith(start):
                yield path[len(start) :]

    def may_write(self, path: str) -> bool:
        """Whether a path relative to the case's root is an output."""
        if path.startswith("home/") or path == "tmp/.ses":
            return True  # caches of libraries; the latter is a note of the ONNX runtime's
        return any(
            rest == "" or rest.startswith("/") or any(rest == c or rest.startswith(f"{c}/") for c in COMPANIONS)
            for rest in self._within(path)
        )

    def is_output(self, path: str) -> bool:
        """Whether it is an output file, which a refusal must not leave."""
        return any(Path(output).suffix and path == os.path.normpath(WORK + output) for output in self.outputs)


@dataclass
class Made:
    """A valid command line, and what may be changed about it."""

    positional: list[str]
    options: list[tuple[str, ...]]
    """(flag, value ...)."""
    out: str
    """The output, which stands in `positional` or `options`."""
    sources: list[str]
    """Files and folders that are read."""
    oracle: Callable[[Any], None] | None = None
    odd: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)
    """Flag -> (values that have to be refused, values of which nothing is known)."""
    reads_all: bool = True
    """Whether damage to any of `sources` has to be noticed."""
    may_write: list[str] = field(default_factory=list)
    """Besides `out`."""
    keep_out: bool = False
    """The output isn't a path of the command line: it can't be aimed elsewhere."""
    about: str = ""
    expect: str = GOOD

    @property
    def argv(self) -> list[str]:
        return [*(part for option in self.options for part in option), *self.positional]


@dataclass(frozen=True)
class Command:
    """One command."""

    name: str
    script: str
    """Path of the script, or 'splavu'."""
    build: Callable[[random.Random, Path], Made]
    command: str | None = None
    codes: tuple[int, ...] = ()
    """Exit codes besides 0 and 2."""
    share_valid: float = 0.3
    """Of the cases, those that stay valid: fewer where a run takes long."""

    @property
    def program(self) -> list[str]:
        """As a process."""
        if self.script == "splavu":
            return [sys.executable, "-m", "splavu", str(self.command)]
        return [sys.executable, self.script] + ([self.command] if self.command else [])

    def case(self, seed: str, work: Path) -> Case:
        """The case of a seed, its inputs in `work`."""
        rng = random.Random(seed)
        inputs.write_outside(work)
        made = self.build(rng, work)
        outputs, about, expect = [made.out, *made.may_write], [made.about], made.expect
        draw = rng.random()
        if draw < self.share_valid:
            changes = ["nothing"]
        else:
            changes = rng.choices(["input", "option", "output", "line"], [50, 27, 17, 6], k=rng.choice((1, 1, 1, 1, 2)))
        for number, change in enumerate(changes):
            if change == "output" and "output" in changes[:number]:
                continue  # the first one's target is no longer written to
            if change == "input" and made.sources:
                place = rng.choice(made.sources)
                if not os.path.lexists(work / place):
                    continue
                what, verdict = inputs.damage_file(work / place, rng)
                about.append(f"{place}: {what}")
                expect = _worse(expect, verdict if made.reads_all else EITHER)
            elif change == "option" and made.odd:
                verdict, text = _odd_option(made, rng)
                about.append(text)
                outputs += _named_folder(made)
                expect = _worse(expect, verdict)
            elif change == "output" and not made.keep_out:
                what, target, verdict, may_change = inputs.odd_output(made.out, work, made.sources, rng)
                made.positional = [target if part == made.out else part for part in made.positional]
                made.options = [tuple(target if part == made.out else part for part in o) for o in made.options]
                if what != "nothing":
                    outputs = [*may_change, *made.may_write]
                    about.append(f"output: {what}")
                    expect = _worse(expect, verdict)
            elif change == "line":
                about.append(_odd_line(made, rng))
                outputs += made.may_write
                expect = EITHER
        changed = changes != ["nothing"]
        oracle = made.oracle if not changed or expect == GOOD else None
        return Case(made.argv, outputs, expect, "; ".join(filter(None, about)) or "valid", oracle)


def _worse(first: str, second: str) -> str:
    """Bad input is bad beside anything; what isn't known isn't known beside what is good."""
    return BAD if BAD in (first, second) else EITHER if EITHER in (first, second) else GOOD


def _named_folder(made: Made) -> list[str]:
    """The folder that an odd `--set output_folder=` names: what it says within the case's folder is written there."""
    flag, *value = made.options[-1]
    if flag != "--set" or not value[0].startswith("output_folder="):
        return []
    try:
        folder = yaml.safe_load(value[0].removeprefix("output_folder="))
    except yaml.YAMLError:
        return []
    is_within = isinstance(folder, str) and not Path(folder).is_absolute() and ".." not in Path(folder).parts
    return [folder] if is_within and folder.strip("./") else []


def _odd_option(made: Made, rng: random.Random) -> tuple[str, str]:
    flag = rng.choice([flag for flag, values in made.odd.items() if any(values)])
    bad, unknown = made.odd[flag]
    value = rng.choice([*bad, *unknown])
    if "=" in flag:  # of --set
        made.options.append(("--set", flag + value))
    else:
        made.options = [option for option in made.options if option[0] != flag] + [(flag, value)]
    return BAD if value in bad else EITHER, f"{flag} {value[:60]!r}"


def _odd_line(made: Made, rng: random.Random) -> str:
    change = rng.choice(("lost", "twice", "unknown", "empty", "swapped", "device"))
    if change == "lost":
        short = [o for o in made.options if o == ("--quiet",) or any("epoch" in part for part in o)]
        if rng.random() < 0.5 and made.options:  # what bounds the time stays
            lost = rng.choice(made.options)
            made.options = [option for option in made.options if option is not lost or option in short]
        elif made.positional:
            made.positional.pop(rng.randrange(len(made.positional)))
    elif change == "twice" and made.options:
        made.options.append(rng.choice(made.options))
    elif change == "unknown":
        made.options.append(
            rng.choice((("--no-such-option",), ("--quit",), ("--device", "tpu"), ("--device", "cuda:99")))
        )
    elif change == "empty" and made.positional:
        odd = rng.choice(("", " ", os.fsdecode(b"\xff\xfe")))
        made.positional[rng.randrange(len(made.positional))] = odd
        made.may_write.append(odd)
    elif change == "swapped" and len(made.positional) > 1:
        made.positional.reverse()
        return "arguments swapped"
    return f"command line: {change}"


# Values for options of a kind.

NO_COUNT = ("0", "-1", "x", "1.5", "", "nan")
HUGE = ("1000000000000", "9" * 30)
NO_SEED = ("x", "", "1.5", "nan")
ODD_SEED = ("-1", str(2**31), str(2**64), "9" * 40)
NO_SIZE = ("x", "-1", "nan", "1X", "")
NO_NUMBER = ("nan", "inf", "-inf", "x", "", "-1")


def _public(features: Features) -> list[str]:
    return sorted(features)


def draw_store(rng: random.Random, work: Path, name: str = "raw", **options: Any) -> tuple[str, Features, str]:
    """A valid store with letters for tables: (path, content, what it is)."""
    style = rng.choice(list(KEYS))
    features = inputs.make_features(rng, KEYS[style], **options)
    form = rng.choice(inputs.H5_FORMS)
    inputs.write_h5(work / f"{name}.h5", features, form)
    return f"{name}.h5", features, f"{style}, {form}"


def named(key: str, style: int) -> str:
    """What a label table may call a key: itself, or a file of that name."""
    return key if style == 0 or key.endswith((".mp4", ".avi")) else f"{key}.{'avi' if style == 1 else 'mp4'}"


def write_tables(rng: random.Random, work: Path, keys: Sequence[str]) -> np.ndarray:  # -> [videos, 2]
    """private.csv and labels.csv of the keys; the attributes, NaN for unknown."""
    style, spelling = rng.choice((0, 0, 1, 2)), [rng.choice(inputs.SPELLINGS) for _ in range(2)]
    values = np.array([[(i >> 1) & 1, (i >> 2) & 1] for i in range(len(keys))], float)
    values += 0.0
    for column in range(2):
        draw = list(range(len(keys)))
        rng.shuffle(draw)
        values[:, column] = values[draw, column]
    if rng.random() < 0.4:
        values[rng.randrange(len(keys)), rng.randrange(2)] = np.nan
    unknown = rng.choice(inputs.UNKNOWN)
    rows = [["filename", "subject", "tall", "left handed"]]
    for i, key in enumerate(keys):
        cells = [unknown if np.isnan(v) else spelling[a][int(v)] for a, v in enumerate(values[i])]
        rows.append([named(key, style), f"p{i // 2}", *cells])
    order = list(range(1, len(rows)))
    rng.shuffle(order)
    (work / "private.csv").write_bytes(inputs.csv_text([rows[0], *(rows[i] for i in order)], rng))
    actions = [("run", "jump", "wave")[i % 3] for i in range(len(keys))]
    listed = [["filename", "label"], *([named(key, style), action] for key, action in zip(keys, actions, strict=True))]
    (work / "labels.csv").write_bytes(inputs.csv_text(listed, rng))
    return values


# splavu.


def covariance_is_gone(path: Path, features: Features, keys: Sequence[str], values: np.ndarray) -> None:
    """What LEACE promises: no attribute is correlated with any dimension, over the clips it was fitted to."""
    from splavu.anonymizers import apply_to_array
    from splavu.anonymizers.loading import load_anonymizer

    rows = np.concatenate([features[key] for key in keys])
    labels = np.concatenate([np.repeat(values[i : i + 1], len(features[key]), 0) for i, key in enumerate(keys)])
    released = apply_to_array(load_anonymizer(path).eval(), rows)
    known = ~np.isnan(labels).any(axis=1)
    centred = labels[known] - labels[known].mean(axis=0)
    before, after = (np.abs(centred.T @ (x[known] - x[known].mean(axis=0))).max() for x in (rows, released))
    assert after < 2e-3 * max(before, 1), f"still correlated: {after:.3g} of {before:.3g}"


def project(rows: np.ndarray, of: np.ndarray, keep: int) -> np.ndarray:
    """PCA by NumPy: the rows in the `keep` directions of largest variance of `of`."""
    mean = of.mean(axis=0)
    _, _, directions = np.linalg.svd(of - mean, full_matrices=False)
    return (rows - mean) @ directions[:keep].T @ directions[:keep] + mean


def fit(rng: random.Random, work: Path) -> Made:
    method = rng.choice(("eraser", "leace", "leace", "orthogonal", "inlp", "pca", "random", "quantizer", "noise"))
    raw, features, about = draw_store(rng, work)
    keys = _public(features)
    values = write_tables(rng, work, keys)
    static = {key: value + 1 for key, value in features.items()}
    inputs.write_h5(work / "static.h5", static)
    options: list[tuple[str, ...]] = [("--raw", raw), ("--out", "out.pth"), ("--quiet",)]
    sources = [raw]
    if method in ("leace", "orthogonal", "inlp"):
        options.append(("--private", "private.csv"))
        sources.append("private.csv")
    if method == "eraser":
        options += [("--static", "static.h5"), ("--labels", "labels.csv"), ("--rank", "2")]
        sources += ["static.h5", "labels.csv"]
    if method == "quantizer":
        options += [("--labels", "labels.csv"), rng.choice((("--bits", "3"), ("--codes", "4"), ("--codes", "3,2")))]
        sources.append("labels.csv")
        if rng.random() < 0.5:
            options.append(("--min-subjects", "1"))
    if method in ("pca", "random"):
        options.append(("--keep", "3"))
    if method == "noise":
        options.append(("--sd", "0.5"))

    def oracle(result: Any) -> None:
        from splavu.anonymizers import apply_to_array
        from splavu.anonymizers.loading import load_anonymizer

        rows = np.concatenate([features[key] for key in keys])
        released = apply_to_array(load_anonymizer(work / "out.pth").eval(), rows)
        assert released.shape == rows.shape
        assert np.isfinite(released).all()
        if method == "pca":
            np.testing.assert_allclose(released, project(rows, rows, 3), atol=2e-3)
        if method in ("leace", "orthogonal"):
            covariance_is_gone(work / "out.pth", features, keys, values)
        if method == "quantizer":
            assert len(np.unique(released.round(4), axis=0)) <= 8

    used = {
        "eraser": {
            "--rank": (("-1", "x", "1.5", "nan"), ("0", "99", *HUGE)),
            "--share": (("-1", "2", "nan", "x"), ("0",)),
            "--ridge": (("-1", "nan", "x"), ("1e30",)),
            "--lift": (("cubic", ""), ()),
        },
        "leace": {"--ridge": (("-1", "nan", "x"), ("1e30", "inf"))},
        "inlp": {"--rounds": (("0", "-1", "x", "1.5"), HUGE)},
        "pca": {"--keep": (("0", "-1", "x", "1.5", "nan"), ("99", *HUGE))},
        "random": {"--keep": (("0", "-1", "x", "1.5"), ("99", *HUGE))},
        "quantizer": {
            "--bits": (("0", "-1", "x"), ("1000000000", *HUGE)),
            "--codes": (("0", "-3", "x", "3,0", ","), ("1", "1000000000", "9" * 30, "2,2,2,2,2,2,2,2")),
            "--dims": (("0", "-1", "x"), ("99", *HUGE)),
            "--min-subjects": (("0", "-1", "x"), ("99", *HUGE)),
            "--space": (("nowhere",), ("features",)),
        },
        "noise": {"--sd": (("-1", "nan", "x", "inf"), ("0", "1e30")), "--units": (("miles",), ("whitened",))},
    }.get(method, {})
    odd = {
        **used,
        "--seed": (NO_SEED, ODD_SEED),
        "--memory": (NO_SIZE, ("1K", "1T")),
        "--attributes": (("nothing", "tall:number"), (",", "", "tall,tall")),
        "--after": (("nowhere.pth", raw, "labels.csv"), ()),
        "--private": (("nowhere.csv", raw), ("labels.csv",)),
        "--subjects": (("nowhere.csv",), ("private.csv", "labels.csv")),
    }
    if "private.csv" not in sources:
        del odd["--attributes"]  # unused
    return Made([method], options, "out.pth", sources, oracle, odd, about=f"{method}, {about}")


WORLDS = Path()
"""What `prepare` made for all cases."""


def anonymize(rng: random.Random, work: Path) -> Made:
    kind = rng.choice(("h5", "h5", "h5", "npy", "parquet"))
    if kind == "h5" and rng.random() < 0.15:
        return _released_before(rng, work)
    style = rng.choice([*KEYS, *(OPAQUE_KEYS if kind == "h5" else ())])
    key = {**KEYS, **OPAQUE_KEYS}[style]
    features = inputs.make_features(rng, key, videos=rng.choice((1, 6, 24)))
    about, aam = style, rng.choice(("pca.pth", "pca.pth", "transformer.pth", "quantizer.pth"))
    if kind == "h5":
        form = rng.choice(inputs.H5_FORMS)
        inputs.write_h5(work / "in.h5", features, form)
        source, target, about = "in.h5", "out.h5", f"{style}, {form}"
    elif kind == "npy":
        inputs.write_folder(work / "in", features)
        source, target = "in", "out"
    else:
        form = rng.choice(("fixed", "list", "videos"))
        inputs.write_parquet(work / "in.parquet", features, form)
        source, target, about = "in.parquet", "out.parquet", f"{style}, {form}"
    shutil.copy(WORLDS / "core" / aam, work / aam)
    options: list[tuple[str, ...]] = [("--aam", aam), ("--quiet",), ("--allow-fitted",)]
    if secret := rng.random() < 0.3:
        options.append(("--keys", "secret"))

    def oracle(result: Any) -> None:
        found = read_blocks(work / target)
        if aam != "pca.pth":
            wanted_shapes = sorted(v.shape for v in features.values())
            assert kind == "parquet" or sorted(v.shape for v in found.values()) == wanted_shapes
            return
        reference = np.load(WORLDS / "core/fitted_to.npy")
        wanted = {key: project(value, reference, 3) for key, value in features.items()}
        if kind == "parquet":
            rows = np.concatenate(list(found.values()))
            expected = np.concatenate(list(wanted.values()))
            if secret:
                rows, expected = (x[np.lexsort(x.round(1).T)] for x in (rows, expected))
                assert abs(rows.sum() - expected.sum()) < 0.1 + 1e-3 * abs(expected).sum()
            else:
                np.testing.assert_allclose(rows, expected, atol=5e-3)
            return
        assert len(found) == len(wanted), f"{len(found)} keys, not {len(wanted)}"
        if not secret:
            assert set(found) == set(wanted), set(found) ^ set(wanted)
            for name, value in wanted.items():
                np.testing.assert_allclose(found[name], value, atol=5e-3, err_msg=repr(name))
        else:
            sums = [sorted(float(value.sum()) for value in x.values()) for x in (found, wanted)]
            np.testing.assert_allclose(*sums, atol=0.05)
            assert not set(found) & set(wanted)

    odd = {
        "--unit": (("both", ""), ("video",)),
        "--keys": (("public", ""), ("secret",)),
        "--secret": (("",), (aam, source, "new/secret")),
        "--column": (("nothing",), ("features", "id")),
        "--keep": (("nothing",), ("id", "", "id:plain", "id:hashed")),
        "--aam": (("nowhere.pth", "", source, "../../../outside/precious.txt"), ()),
        "--num-heads": (("x", "1.5"), ("0", "-1", "3", *HUGE)),
        "--out": ((), (source, "other.h5")),
        "--memory": (NO_SIZE, ("1K", "1T")),
    }
    return Made(
        [source, target], options, target, [source, aam], oracle, odd, about=f"{aam}, {about}",
        may_write=["other.h5", "new"],
    )  # fmt: skip


def _released_before(rng: random.Random, work: Path) -> Made:
    """OUT is there already, made from a store of the same keys and shapes; the new one has an older time."""
    features = {key: value + 1 for key, value in _former().items()}
    inputs.write_h5(work / "in.h5", features)
    os.utime(work / "in.h5", (10**9, 10**9))
    for name in ("pca.pth", "out.h5"):
        shutil.copy(WORLDS / "core" / name, work / name)

    def oracle(result: Any) -> None:
        reference, found = np.load(WORLDS / "core/fitted_to.npy"), read_blocks(work / "out.h5")
        for key, value in features.items():
            np.testing.assert_allclose(found[key], project(value, reference, 3), atol=5e-3, err_msg=key)

    options = [("--aam", "pca.pth"), ("--quiet",), ("--allow-fitted",)]
    return Made(
        ["in.h5", "out.h5"], options, "out.h5", ["in.h5", "pca.pth"], oracle, about="released before", keep_out=True
    )


def _former() -> Features:
    return inputs.make_features(random.Random("former"), KEYS["plain"], videos=6)


def read_blocks(path: Path) -> Features:
    """What lies in a store, read without the project's readers."""
    if path.is_dir():
        return {os.fsdecode(os.path.relpath(file, path))[:-4]: np.load(file) for file in path.rglob("*.npy")}
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        rows = pq.read_table(path)["features"].to_pylist()
        return {str(i): np.array(row, np.float32).reshape(-1, WIDTH) for i, row in enumerate(rows)}
    found: Features = {}
    with h5py.File(path, "r") as file:

        def collect(name: bytes, info: Any) -> None:
            if info.type == h5py.h5o.TYPE_DATASET:
                found[os.fsdecode(name)] = file[name][()]

        h5py.h5o.visit(file.id, collect, info=True)
    return found


def verify(rng: random.Random, work: Path) -> Made:
    names, about = [], []
    for number in range(rng.choice((1, 1, 2))):
        style = rng.choice([*KEYS, *OPAQUE_KEYS])
        features = inputs.make_features(rng, {**KEYS, **OPAQUE_KEYS}[style], videos=rng.choice((1, 6, 24)))
        if rng.random() < 0.7:
            form = rng.choice([form for form in inputs.H5_FORMS if form not in inputs.CONVERTED])
            inputs.write_h5(work / f"s{number}.h5", features, form)
            names.append(f"s{number}.h5")
            about.append(f"{style}, {form}")
        else:
            if style in OPAQUE_KEYS:
                features = inputs.make_features(rng, KEYS["plain"])
            inputs.write_folder(work / f"s{number}", features)
            names.append(f"s{number}")
            about.append(f"{style}, .npy")

    def oracle(result: Any) -> None:
        assert result.code == 0, f"a valid store has faults: {result.stdout.decode(errors='replace')[-500:]}"

    odd = {
        "--feature-dim": (("x", "1.5"), ("0", "-1", "7", "8", *HUGE)),
        "--keys": (("nowhere.csv", names[0]), ()),
        "--memory": (NO_SIZE, ("1K", "1T")),
    }
    return Made(names, [("--quiet",)], "nothing", names, oracle, odd, keep_out=True, about="; ".join(about))


def export(rng: random.Random, work: Path) -> Made:
    aam = rng.choice((*["pca.pth"] * 5, *["mlp.pth"] * 4, "transformer.pth"))
    shutil.copy(WORLDS / "core" / aam, work / aam)

    def oracle(result: Any) -> None:
        if aam == "pca.pth":
            import onnxruntime

            rows = np.random.default_rng(1).normal(size=(5, WIDTH)).astype(np.float32)
            session = onnxruntime.InferenceSession(str(work / "out.onnx"))
            released = session.run(None, {session.get_inputs()[0].name: rows})[0]
            wanted = project(rows, np.load(WORLDS / "core/fitted_to.npy"), 3)
            np.testing.assert_allclose(released, wanted, atol=5e-3)

    odd = {
        "--opset": (("x", "0", "-1", "99", "1.5", *HUGE), ("1", "17", "20")),
        "--num-heads": (("x",), ("0", "-1", *HUGE)),
        "--aam": (("nowhere.pth", ""), ()),
    }
    options: list[tuple[str, ...]] = [("--aam", aam), ("--quiet",)]
    return Made(["out.onnx"], options, "out.onnx", [aam], oracle, odd, about=aam)


def rename_keys(rng: random.Random, work: Path) -> Made:
    from splavu.data.key_map import hashed_keys

    style = rng.choice([s for s in KEYS if s not in ("nested",)])
    keys = [KEYS[style](i) for i in range(12)]
    released = hashed_keys(keys, b"s" * 32).released_of
    (work / "map.csv").write_bytes(inputs.csv_text([["raw", "released"], *([a, b] for a, b in released.items())]))
    kind = rng.choice(("csv", "csv", "json", "list"))
    table_style = rng.choice((0, 1))
    if kind == "csv":
        rows = [["filename", "label"], *([named(key, table_style), str(i % 3)] for i, key in enumerate(keys))]
        (work / "in.csv").write_bytes(inputs.csv_text(rows, rng))
    elif kind == "json":
        (work / "in.json").write_text(json.dumps({key: i % 3 for i, key in enumerate(keys)}))
    else:
        keys = [f"v{i:03d}" for i in range(12)]
        released = hashed_keys(keys, b"s" * 32).released_of
        (work / "map.csv").write_bytes(inputs.csv_text([["raw", "released"], *([a, b] for a, b in released.items())]))
        (work / "in.list").write_text("".join(f"x/{key}.npy {i % 2}\n" for i, key in enumerate(keys)))

    def oracle(result: Any) -> None:
        if kind == "csv":
            found = {row["filename"]: row["label"] for row in csv.DictReader((work / "out.csv").open(encoding="utf-8"))}
            assert found == {released[key]: str(i % 3) for i, key in enumerate(keys)}
        elif kind == "json":
            found = json.loads((work / "out.json").read_text())
            assert found == {released[key]: i % 3 for i, key in enumerate(keys)}
        else:
            lines = sorted((work / "out.list").read_text().split("\n"))[1:]
            assert [line.split()[0].removesuffix(".npy") for line in lines] == sorted(released.values())

    odd = {
        "--frames-per-snippet": (("x",), ("0", "-1", *HUGE)),
        "--names": (("nothing",), ()),
        "--keys": (("nowhere.csv",), ("map.csv",)),
        "--list": (("nowhere.list",), ()),
    }
    options: list[tuple[str, ...]] = [("--keys", "map.csv"), ("--quiet",)]
    if rng.random() < 0.2:
        options.append(("--drop",))
    sources = [f"in.{kind}", "map.csv"]
    return Made([f"in.{kind}", f"out.{kind}"], options, f"out.{kind}", sources, oracle, odd, about=f"{kind}, {style}")


def audit(rng: random.Random, work: Path) -> Made:
    raw, features, about = draw_store(rng, work, "released", videos=40)
    keys = _public(features)
    write_tables(rng, work, keys)
    options: list[tuple[str, ...]] = [
        ("--released", raw), ("--labels", "private.csv"), ("--out", "report"), ("--quick",), ("--attributes-only",),
        ("--families", "logistic"), ("--workers", "1"), ("--quiet",), ("--device", "cpu"),
    ]  # fmt: skip
    sources = [raw, "private.csv"]
    if anyway := rng.random() < 0.35:
        options.append(("--anyway",))

    def oracle(result: Any) -> None:
        if result.code == 4 and not anyway:
            return
        evidence = json.loads((work / "report/evidence.json").read_text())
        judged = [attribute["name"] for attribute in evidence["attributes"]]
        assert judged == ["tall", "left handed"], judged
        subjects = sum(side["persons"] for side in evidence["people"].values())
        assert subjects == 20, f"{subjects} subjects, not 20"
        assert "<script>alert" not in (work / "report/report.html").read_text()

    odd = {
        "--margin": (NO_NUMBER, ("0", "2")),
        "--max-train-rows": (("0", "-1", "x"), HUGE),
        "--max-clips": (("0", "-1", "x"), HUGE),
        "--seed": (NO_SEED, ODD_SEED),
        "--workers": (("-1", "x", "1.5"), ("0",)),
        "--families": (("nothing", "logistic,nothing"), (",", "", "logistic,logistic")),
        "--attributes": (("nothing", "tall:number"), (",", "", "tall", "tall:value", "tall,tall")),
        "--groups": (("nowhere.csv", raw), ("labels.csv", "private.csv")),
        "--raw": (("nowhere.h5", "private.csv"), (raw,)),
        "--aam": (("nowhere.pth", raw), ()),
        "--keys": (("nowhere.csv", raw), ()),
        "--against": (("nowhere.json", "private.csv"), ()),
        "--labels": (("nowhere.csv", raw), ()),
        "--released": (("nowhere*.h5", "private.csv"), ("*.h5",)),
    }
    return Made([], options, "report", sources, oracle, odd, about=about)


def protect(rng: random.Random, work: Path) -> Made:
    raw, features, about = draw_store(rng, work, videos=40)
    keys = _public(features)
    write_tables(rng, work, keys)
    options: list[tuple[str, ...]] = [("--features", raw), ("--out", "protected"), ("--quiet",), ("--device", "cpu")]
    sources = [raw]
    if rng.random() < 0.7:
        options += [("--actions", "labels.csv"), ("--subjects", "private.csv")]
        sources += ["labels.csv", "private.csv"]

    def oracle(result: Any) -> None:
        (released,) = (p for p in (work / "protected").iterdir() if p.stem == "released" and p.suffix != ".csv")
        from splavu.stores import open_features

        store = open_features(released)
        assert len(store) == len(keys)
        rows = np.concatenate([store[key].reshape(-1, WIDTH) for key in store])
        assert len(np.unique(rows, axis=0)) <= 16, "40 videos don't give 5 subjects to more vectors"

    odd = {
        "--min-subjects": (("0", "-1", "x", "4", "30", *HUGE), ("5",)),
        "--bits": (("0", "-1", "x", "13", *HUGE), ("1",)),
        "--rank": (("0", "-1", "x"), ("1", "99", *HUGE)),
        "--static": (("nowhere.h5",), (raw,)),
        "--private": (("nowhere.csv", raw), ()),
        "--encoder": ((), ("demo", "nothing")),
        "--memory": (NO_SIZE, ("1K", "1T")),
    }
    return Made([], options, "protected", sources, oracle, odd, about=about)


def probe(rng: random.Random, work: Path) -> Made:
    raw, features, about = draw_store(rng, work, videos=24)
    keys = _public(features)
    write_tables(rng, work, keys)
    inputs.write_h5(work / "released.h5", {key: features[key] for key in features})
    rows = [
        ["filename", "subject", "split"],
        *([k, f"p{i // 2}", ("train", "test")[i // 12]] for i, k in enumerate(keys)),
    ]
    (work / "subjects.csv").write_bytes(inputs.csv_text(rows, rng))
    options: list[tuple[str, ...]] = [
        ("--raw", raw), ("--released", "released.h5"), ("--labels", "labels.csv"), ("--subjects", "subjects.csv"),
        ("--out", "use.json"), ("--quiet",),
    ]  # fmt: skip

    def oracle(result: Any) -> None:
        found = json.loads((work / "use.json").read_text())
        assert found["lost"]["value"] == 0, "the release is the raw store"
        assert found["test_videos"] == 12

    odd = {"--keys": (("nowhere.csv", raw), ()), "--memory": (NO_SIZE, ("1K", "1T"))}
    sources = [raw, "labels.csv", "subjects.csv"]
    return Made([], options, "use.json", sources, oracle, odd, reads_all=False, about=about)


def withdraw(rng: random.Random, work: Path) -> Made:
    raw, features, about = draw_store(rng, work, videos=24)
    write_tables(rng, work, _public(features))
    options: list[tuple[str, ...]] = [
        ("--raw", raw), ("--subjects", "private.csv"), ("--out", "left"), ("--quiet",)
    ]  # fmt: skip

    def oracle(result: Any) -> None:
        from splavu.stores import open_features

        assert len(open_features(work / "left" / raw)) == len(features) - 2, "each subject has two videos"

    odd = {
        "--aam": (("nowhere.pth", raw), ()),
        "--static": (("nowhere.h5",), (raw,)),
        "--memory": (NO_SIZE, ("1K", "1T")),
    }
    return Made(["p1"], options, "left", [raw, "private.csv"], oracle, odd, reads_all=False, about=about)


def audit_report(rng: random.Random, work: Path) -> Made:
    shutil.copy(WORLDS / "audit/evidence.json", work / "evidence.json")
    options: list[tuple[str, ...]] = [("--out", "out.html"), ("--quiet",)]

    def oracle(result: Any) -> None:
        page = (work / "out.html").read_text()
        assert "tall" in page
        assert "left handed" in page

    return Made(["evidence.json"], options, "out.html", ["evidence.json"], oracle)


def report(rng: random.Random, work: Path) -> Made:
    inputs.copy(WORLDS / "runs", work / "runs")
    files = [str(path.relative_to(work)) for path in (work / "runs").rglob("*.json*")]

    def oracle(result: Any) -> None:
        assert "| raw features" in (work / "runs/report.md").read_text()

    made = [f"runs/{name}" for name in ("report.md", "metrics.json", "figures")]
    odd = {"--data": ((), ("nowhere", "", "/dev/null", "runs"))}
    return Made(
        ["runs"], [("--quiet",)], made[0], [rng.choice(files)], oracle, odd, reads_all=False, keep_out=True,
        may_write=made[1:],
    )  # fmt: skip


def synthesize(rng: random.Random, work: Path) -> Made:
    sets = rng.choice(("hmdb51", "vispr", "ucf101", "tsh", "ntu", "casia_b"))
    options: list[tuple[str, ...]] = [("--out", "world"), ("--size", "tiny"), ("--sets", sets), ("--quiet",)]
    options.append(("--workers", "1"))

    def oracle(result: Any) -> None:
        assert sum(path.is_file() for path in (work / "world").rglob("*")) > 2

    odd = {
        "--seed": (NO_SEED, ODD_SEED),
        "--size": (("huge", ""), ()),
        "--scene-bias": (NO_NUMBER, ("2", "1")),
        "--sets": (("nothing", "hmdb51,nothing"), ("", ",", "tsh,tsh")),
        "--workers": (("-1", "0", "x"), ()),
    }
    return Made([], options, "world", [], oracle, odd, about=sets)


# The study and its scripts: a made-up study, copied; the values of parameters are what is odd.

LONG = ("epoch", "resamples", "freq", "steps", "folds", "permutations", "iterations")
ODD_VALUES = (
    "-1", "0", "nan", "inf", "-inf", "''", "None", "[]", "()", "{}", "'x'", "'" + "n" * 300 + "'", "True", "1.5",
    "1e308", "('a',)", "(0, 0)", "{'a': nan}", "'../../escape'", "'\\x1b[2J'", "b'x'", "__import__('os')", "(",
    "'/dev/null'", "[[]]",
)  # fmt: skip


def odd_settings(kind: type) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """`NAME=` of every parameter of a dataclass with odd values; huge ones only where they don't mean a long run."""
    odd = {}
    for parameter in dataclasses.fields(kind):
        huge = () if any(word in parameter.name for word in LONG) else ("10**12", "10**40", "1000000")
        odd[f"{parameter.name}="] = ((), (*ODD_VALUES, *huge))
    odd["no_such_parameter="] = (("1",), ())
    odd["="] = (("1", ""), ())
    return odd


def settings(*texts: str) -> list[tuple[str, ...]]:
    return [("--set", text) for text in texts]


COMMON: list[tuple[str, ...]] = [("--device", "cpu"), ("--quiet",)]


def study_files(work: Path, rng: random.Random, pattern: str = "") -> list[str]:
    """One of the study's files, to be damaged."""
    files = sorted(
        str(path.relative_to(work))
        for top in ("data", "features")
        for path in (work / top).rglob("*")
        if path.is_file() and pattern in str(path)
    )
    return [rng.choice(files)]


def trained(world: str, params: Callable[[], type], *, arguments: Sequence[str], extra: Sequence[str] = ()) -> Callable:
    """A builder for a script that reads a made-up study and writes a run folder."""

    def build(rng: random.Random, work: Path) -> Made:
        inputs.copy(WORLDS / world, work)
        options = [*COMMON, *settings(*arguments), *((flag,) for flag in extra)]

        def oracle(result: Any) -> None:
            import torch

            for path in (work / "runs").rglob("*.pth"):
                torch.load(path, weights_only=True)
            assert any((work / "runs").rglob("*.json"))

        return Made(
            [], options, "runs", study_files(work, rng), oracle, odd_settings(params()), reads_all=False, keep_out=True
        )

    return build


def _params(module: str, name: str) -> Callable[[], type]:
    return lambda: getattr(importlib.import_module(module), name)


def with_params_file(build: Callable[[random.Random, Path], Made], name: str) -> Callable[[random.Random, Path], Made]:
    """Now and then the parameters come from a file of the case's own, in one of the three forms."""

    def made(rng: random.Random, work: Path) -> Made:
        of = build(rng, work)
        form = rng.choice(("py", "py", "toml", "yaml"))
        text = (REPOSITORY / name).read_text()
        if form != "py":
            assignments: dict[str, Any] = {}
            exec(text, assignments)
            values = {k: list(v) if isinstance(v, tuple) else v for k, v in assignments.items() if k[0] != "_"}
            plain = {k: v for k, v in values.items() if v is not None}
            if form == "yaml":
                import yaml

                text = yaml.safe_dump(plain)
            else:
                text = "".join(f"{k} = {json.dumps(v)}\n" for k, v in plain.items())
        (work / f"params.{form}").write_text(text)
        if rng.random() < 0.15:
            inputs.any_bytes(work / f"params.{form}", rng)
            of.expect = EITHER
            of.about += "params file: bytes"
        of.options.insert(0, ("--params", f"params.{form}"))
        return of

    return made


def check_data(rng: random.Random, work: Path) -> Made:
    inputs.copy(WORLDS / "study", work)
    options: list[tuple[str, ...]] = [
        ("--data", "data"),
        ("--features", "features"),
        ("--encoder", "demo"),
        ("--quiet",),
    ]
    odd = {
        "--data": ((), ("nowhere", "", "/dev/null", "features")),
        "--features": ((), ("nowhere", "", "data")),
        "--encoder": (("nothing",), ("", "videoMAE")),
    }
    name = rng.choice(("hmdb51", "hmdb51", "thumos14", "ucf_crime", "folder:x"))
    return Made(
        [name], options, "nothing", study_files(work, rng), None, odd, reads_all=False, keep_out=True, about=name
    )


def compare(rng: random.Random, work: Path) -> Made:
    inputs.copy(WORLDS / "study", work)
    (work / "base.py").write_text(BASE)
    text = "candidates = ({'name': 'one', 'fit': 'quantizer', 'bits': 3},)\nseeds = (0,)\n"
    (work / "compare.py").write_text(text + placed(work, base="base.py"))
    sources = [rng.choice(["compare.py", "base.py", *study_files(work, rng)])]
    odd = {"--jobs": (("x",), ("0", "-1", *HUGE)), **odd_settings(_params("study.compare.plan", "CompareParams")())}
    options = [("--params", "compare.py"), ("--dry-run",), ("--quiet",)]
    return Made([], options, "runs", sources, None, odd, reads_all=False, keep_out=True, expect=EITHER)


BASE = (
    'run_id = "base"\nar_dataset = "hmdb51"\nft_arch = "demo"\nval_split = "val"\nfa_arch = "eraser"\nerase_rank = 9\n'
)
SWEEP = """
run_id = "swept"
candidates = ({"fa_arch": "quantizer", "bits": 4, "min_subjects": 1},)
seeds = (0,)
attackers = ("logistic",)
most_lost = 5.0
num_resamples = 100
"""


def placed(work: Path, **places: str) -> str:
    """Assignments of paths: those in a parameter file are of the repository, not of the working folder."""
    return "".join(f"{name} = {str(work / place)!r}\n" for name, place in places.items())


def tune(rng: random.Random, work: Path) -> Made:
    raw, features, about = draw_store(rng, work)
    write_tables(rng, work, _public(features))
    options: list[tuple[str, ...]] = [
        ("--raw", raw),
        ("--labels", "labels.csv"),
        ("--methods", rng.choice(("quantizer", "noise,quantizer"))),
        ("--out", "tuned"),
        ("--workers", "1"),
        ("--quiet",),
    ]
    odd = {
        "--lose": (("-1", "101", "nan", "x"), ("0", "100")),
        "--methods": (("pac", "", "pca,"), ("pca", "leace")),
        "--seed": (NO_SEED, ()),
        "--workers": (("0", "-1", "x"), ()),
        "--memory": (NO_SIZE, ("1K", "1T")),
        "--subjects": (("nowhere.csv",), ("private.csv", "labels.csv")),
        "--private": (("nowhere.csv", raw), ("labels.csv", "private.csv")),
    }
    return Made([], options, "tuned", [raw, "labels.csv"], None, odd, expect=EITHER, about=about)


def sweep(rng: random.Random, work: Path) -> Made:
    inputs.copy(WORLDS / "study", work)
    (work / "data/features").symlink_to("../features")
    (work / "base.py").write_text(BASE)
    (work / "sweep.py").write_text(SWEEP + placed(work, base="base.py", data_root="data"))
    sources = [rng.choice(["sweep.py", "base.py", *study_files(work, rng, "hmdb")])]
    odd = {"--jobs": (("x",), ("0", "-1")), **odd_settings(_params("study.sweep.measure", "SweepParams")())}
    options = [("--params", "sweep.py"), ("--jobs", "1"), ("--quiet",), ("--device", "cpu")]
    return Made([], options, "runs", sources, None, odd, reads_all=False, keep_out=True, expect=EITHER)


def reproduce(rng: random.Random, work: Path) -> Made:
    inputs.copy(WORLDS / "study", work)
    options: list[tuple[str, ...]] = [("--dry-run",), ("--quiet",)]
    table = rng.choice(("table1", "table2", "table9", "figure3", "table10"))
    odd = {
        "--jobs": (("x",), ("0", "-1", *HUGE)),
        "--columns": (("nothing",), ("", ",", "thumos14")),
        "--data": ((), ("nowhere", "data", "", "/dev/null")),
    }
    return Made(
        [table], options, "runs", study_files(work, rng), None, odd, reads_all=False, keep_out=True, expect=EITHER,
        about=table,
    )  # fmt: skip


def tridet_options(work: Path, rng: random.Random) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    odd = {
        f"{name}=": ((), ODD_VALUES)
        for name in (
            "dataset.num_classes", "dataset.max_seq_len", "dataset.feat_stride", "dataset.input_dim",
            "dataset.trunc_thresh", "dataset.crop_ratio", "dataset.default_fps", "dataset.feat_folder",
            "dataset.json_file", "model.embd_dim", "model.num_bins", "model.backbone_arch", "model.regression_range",
            "opt.learning_rate", "loader.batch_size", "loader.num_workers", "train_cfg.dropout",
            "test_cfg.max_seg_num", "test_cfg.nms_sigma", "test_cfg.nms_method", "model_name", "train_split",
            "val_split", "init_rand_seed", "output_folder", "no.such.key",
        )
    }  # fmt: skip
    return odd | {"--aam": (("nowhere.pth", "thumos14.json"), ())}


def tridet_train(rng: random.Random, work: Path) -> Made:
    inputs.copy(WORLDS / "thumos", work)
    options = [*COMMON, ("--output", "x"), ("-c", "1"), *settings("opt.epochs=1", "opt.warmup_epochs=0")]
    sources = [rng.choice(["thumos14.json", "small.yaml", "features"])]
    odd = tridet_options(work, rng) | {
        "--output": ((), ("", "../../escape", "../../../outside", "n" * 300, "a/b", "/dev/null", "\x1b[2J")),
        "-c": (("0", "-1", "x"), HUGE),
        "--eval-freq": (("-1", "x"), HUGE),
        "--resume": (("nowhere", "thumos14.json", ""), ()),
    }

    def oracle(result: Any) -> None:
        import torch

        torch.load(next((work / "runs").rglob("epoch_000.pth.tar")), weights_only=True)

    return Made(["small.yaml"], options, "runs", sources, oracle, odd, reads_all=False, keep_out=True)


def tridet_eval(rng: random.Random, work: Path) -> Made:
    inputs.copy(WORLDS / "thumos", work)
    (work / "runs").mkdir(exist_ok=True)
    shutil.copy(WORLDS / "thumos_run.pth.tar", work / "runs/epoch_000.pth.tar")
    options = [*COMMON]
    sources = [rng.choice(["thumos14.json", "small.yaml", "features", "runs/epoch_000.pth.tar"])]
    odd = tridet_options(work, rng) | {
        "-t": (("0", "-2", "x"), ("-1", *HUGE)),
        "--batch-size": (("0", "-1", "x"), ()),
        "--pictures": (("-1", "x"), ("0", "1")),
        "--video": (("nowhere.mp4", "thumos14.json"), ()),
    }

    def oracle(result: Any) -> None:
        assert b"mAP" in result.stdout

    return Made(
        ["small.yaml", "runs/epoch_000.pth.tar"], options, "runs", sources, oracle, odd, reads_all=False, keep_out=True
    )


MGFN = (
    ("--rgb-list", "train.list"), ("--test-rgb-list", "test.list"), ("--gt", "gt.npy"), ("--features", "features"),
    ("--output", "runs"), ("--max-epoch", "1"), ("--batch-size", "2"), ("--seg-length", "4"), ("--depths1", "1"),
    ("--depths2", "1"), ("--depths3", "1"), ("--widths", "64", "64", "64"), ("--device", "cpu"), ("--quiet",),
)  # fmt: skip
MGFN_ODD = {
    "--seg-length": (("0", "-1", "x"), HUGE),
    "--batch-size": (("0", "-1", "x"), ()),
    "--feature-size": (("0", "-1", "x"), ("7", *HUGE)),
    "--frames-per-snippet": (("0", "-1", "x"), HUGE),
    "--mag-ratio": (("nan", "x", "inf"), ("-1", "1e30")),
    "--dropout-rate": (("nan", "x", "-1", "2"), ("1",)),
    "--lr": (("x", "-1", "nan", "[]", "[0.1]*0", "__import__('os')"), ("0", "1e30", "[0.1]*10**9")),
    "--validation-share": (("nan", "x", "-1", "2"), ("0", "0.99")),
    "--seed": (NO_SEED, ODD_SEED),
    "--list-seed": (NO_SEED, ODD_SEED),
    "--model-name": ((), ("", "../../escape", "n" * 300, "/dev/null", "a/b")),
    "--workers": (("-1", "x"), ()),
    "--clip-norm": (("-1", "x", "nan"), ("0", "none")),
    "--ema-decay": (("-1", "x", "nan", "1", "2"), ()),
    "--accumulate": (("0", "-1", "x"), ()),
    "--depths1": (("-1", "x"), ("0",)),
    "--gt": (("nowhere.npy", "train.list"), ("features",)),
    "--features": (("nowhere",), ("gt.npy",)),
    "--aam": (("nowhere.pth", "gt.npy"), ()),
    "--length-mismatch": (("maybe",), ("cut", "stretch")),
    "--datasetname": (("nothing",), ("XD", "ST")),
}


def mgfn(script: str) -> Callable[[random.Random, Path], Made]:
    def build(rng: random.Random, work: Path) -> Made:
        inputs.copy(WORLDS / "anomalies", work)
        options = [*MGFN]
        sources = [rng.choice(["train.list", "test.list", "gt.npy", "features"])]
        if script == "test":
            shutil.copy(WORLDS / "mgfn.pth", work / "network.pth")
            options.append(("--pretrained-ckpt", "network.pth"))
            sources = [rng.choice(["test.list", "gt.npy", "features", "network.pth"])]
        kept = [flag for flag in MGFN_ODD if script != "test" or flag in ("--gt", "--features", "--frames-per-snippet")]
        odd = {flag: (MGFN_ODD[flag][0] if flag != "--aam" else (), MGFN_ODD[flag][1]) for flag in kept}

        def oracle(result: Any) -> None:
            assert b"%" in result.stdout or script == "train"

        return Made([], options, "runs", sources, oracle, odd, reads_all=False, keep_out=True)

    return build


def label_list(rng: random.Random, work: Path) -> Made:
    names = [f"x/{kind}{i:03d}_x264.npy" for i in range(5) for kind in ("Abuse", "Normal_Videos_")]
    (work / "in.list").write_text("\n".join(names) + "\n")

    def oracle(result: Any) -> None:
        lines = (work / "out.list").read_text().splitlines()
        assert len(lines) == 10
        assert sum(line.split()[1][0] == "0" for line in lines) == 5, lines

    odd = {"--datasetname": (("nothing", ""), ("XD", "ST"))}
    return Made(["in.list", "out.list"], [], "out.list", ["in.list"], oracle, odd, reads_all=False)


def videos(rng: random.Random, work: Path) -> list[str]:
    """Three small videos and a picture; their keys."""
    folder = work / "videos"
    inputs.copy(WORLDS / "videos", folder)
    if rng.random() < 0.3:
        (folder / "._a.mp4").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(60))
    if rng.random() < 0.3:
        (folder / "b.avi").rename(folder / f"{inputs.odd_file_name(rng)}.avi")
    return [str(path.relative_to(work)) for path in sorted(folder.iterdir()) if not path.name.startswith(".")]


EXTRACTION_ODD = {
    "--batch-size": (("0", "-1", "x"), ()),
    "--workers": (("-1", "x"), ()),
    "--timeout": (("0", "-1", "nan", "x"), ()),
    "--encoder": (("nothing", ""), ()),
    "--weights": (("nowhere/at/all",), ()),
    "--precision": (("fp8",), ()),
    "--backend": (("nothing",), ()),
    "--shard": (("3/2", "x", "-1/2", "0/0"), ("1/2",)),
    "--obfuscate": (("nothing",), ("downsample-2x",)),
    "--person-boxes": ((), ("nowhere.csv",)),
    "--device": (("tpu",), ()),
    "--dataset": (("nothing",), ("hmdb51",)),
}


def extraction(rng: random.Random, work: Path) -> Made:
    made = videos(rng, work)
    options: list[tuple[str, ...]] = [("--videos", "videos"), ("--out", "out.h5"), ("--workers", "0"), *COMMON]

    def oracle(result: Any) -> None:
        if result.code == 0:
            assert len(read_blocks(work / "out.h5")) == 3

    odd = EXTRACTION_ODD | {"--static": (("-1", "x"), ("0", "3")), "--seed": (NO_SEED, ODD_SEED)}
    return Made([], options, "out.h5", [rng.choice(made)], oracle, odd, reads_all=False, may_write=["out_fb3.h5"])


def extract(rng: random.Random, work: Path) -> Made:
    made = extraction(rng, work)
    options = [("--encoder", "demo"), *(one for one in made.options if one[0] != "--videos")]
    return dataclasses.replace(made, positional=["videos"], options=options)


def long_videos(rng: random.Random, work: Path) -> Made:
    made = videos(rng, work)
    options: list[tuple[str, ...]] = [("--videos", "videos"), ("--out", "out"), ("--workers", "0"), *COMMON]

    def oracle(result: Any) -> None:
        if result.code == 0:
            assert len(read_blocks(work / "out")) == 3

    odd = EXTRACTION_ODD | {
        "--stride": (("0", "-1", "x"), ("1", *HUGE)),
        "--crops": (("0", "-1", "x", "7"), ("5", "10")),
    }
    return Made([], options, "out", [rng.choice(made)], oracle, odd, reads_all=False)


# The table, and what is made once.

VP = (
    "ft_arch=demo",
    "num_epochs=1",
    "num_epochs_ft=1",
    "num_epochs_fb=1",
    "batch_size=64",
    "num_layers_fa=1",
    "anon=False",
    "val_split=test",
)
CLIPS = (
    "data_root=None", "ft_tad_loss_weight=0", "ft_ad_loss_weight=0", "num_epochs=1", "val_freq=1", "num_layers_fa=1",
    "fa_arch=mlp",
)  # fmt: skip


def _script(name: str, path: str, build: Callable, **options: Any) -> Command:
    return Command(name, str(REPOSITORY / path), build, **options)


def _commands() -> dict[str, Command]:
    listed = [
        Command("fit", "splavu", fit, "fit"),
        Command("tune", "splavu", tune, "tune", codes=(1,), share_valid=0.05),
        Command("anonymize", "splavu", anonymize, "anonymize"),
        Command("audit", "splavu", audit, "audit", codes=(3, 4)),
        Command("audit-report", "splavu", audit_report, "audit-report", share_valid=0.05),
        Command("export", "splavu", export, "export"),
        Command("rename-keys", "splavu", rename_keys, "rename-keys"),
        Command("report", "splavu", report, "report", share_valid=0.05),
        Command("synthesize", "splavu", synthesize, "synthesize", share_valid=0.1),
        Command("verify", "splavu", verify, "verify", codes=(1,)),
        Command("extract", "splavu", extract, "extract", codes=(1,)),
        Command("probe", "splavu", probe, "probe"),
        Command("withdraw", "splavu", withdraw, "withdraw", codes=(1,)),
        Command("protect", "splavu", protect, "protect", codes=(4,)),
        _script("check-data", "study/__main__.py", check_data, command="check-data", codes=(1,)),
        _script("compare", "study/__main__.py", compare, command="compare", codes=(1,)),
        _script("sweep", "study/__main__.py", sweep, command="sweep", codes=(1,), share_valid=0.02),
        _script("reproduce", "study/__main__.py", reproduce, command="reproduce", codes=(1,)),
        _script(
            "multitask_train_fa", "multitask_train_fa.py",
            with_params_file(
                trained("study", _params("study.training.anonymizer_params", "AnonymizerParams"), arguments=CLIPS),
                "params/params_demo.py",
            ),
            share_valid=0.1,
        ),
        _script(
            "pretrain_fa", "pretrain_fa.py",
            trained(
                "study", _params("study.training.pretraining", "PretrainParams"),
                arguments=(
                    "run_id=pre", "ar_dataset=hmdb51", "ft_arch=demo", "val_split=val", "num_epochs=1", "val_freq=1",
                    "num_layers_fa=1",
                ),
            ),
            share_valid=0.1,
        ),
        _script(
            "train_ft", "train_ft.py",
            with_params_file(
                trained(
                    "study", _params("study.training.heads", "HeadParams"),
                    arguments=("data_root=None", "anon=False", "num_epochs=1", "val_freq=1"),
                ),
                "params/params_demo_ft.py",
            ),
            share_valid=0.1,
        ),
        _script(
            "privacy_eval", "privacy_eval.py",
            with_params_file(
                trained(
                    "study", _params("study.privacy", "PrivacyEvalParams"),
                    arguments=(
                        "data_root=None", "views=('temporal',)", "attackers=('logistic',)", "seeds=(0,)",
                        "num_resamples=100", "anon=False",
                    ),
                ),
                "params/params_demo_fb.py",
            ),
            codes=(3, 4), share_valid=0.1,
        ),
        _script("tridet/train", "tridet/train.py", tridet_train, share_valid=0.1),
        _script("tridet/eval", "tridet/eval.py", tridet_eval, share_valid=0.1),
        _script("mgfn/train", "mgfn/train.py", mgfn("train"), share_valid=0.1),
        _script("mgfn/test", "mgfn/test.py", mgfn("test"), share_valid=0.1),
        _script("mgfn/main", "mgfn/main.py", mgfn("main"), share_valid=0.1),
        _script("mgfn/label_list", "mgfn/label_list.py", label_list),
        *(
            _script(
                f"vp/{name}", f"vp/{name}.py", trained("vp", _params("vp.settings", "VpParams"), arguments=VP),
                share_valid=0.1,
            )
            for name in ("train_vp_fa", "train_vp_fb", "train_vp_ft")
        ),
        _script(
            "bias", "bias/evaluate_bias.py",
            trained(
                "tsh", _params("bias.evaluate_bias", "BiasParams"),
                arguments=(
                    "ft_arch=demo", "data_root=None", "seeds=(0,)", "num_epochs=1", "num_resamples=100",
                    "datasets=('tsh',)", "anon=False",
                ),
            ),
            codes=(3, 4), share_valid=0.1,
        ),
        _script(
            "gait", "gait/evaluate_gait.py",
            trained(
                "casia", _params("gait.evaluate_gait", "GaitParams"),
                arguments=("ft_arch=demo", "data_root=None", "anon=False", "num_resamples=100"),
            ),
            codes=(3, 4), share_valid=0.1,
        ),
        _script(
            "pahmdb", "pahmdb/eval_pahmdb.py",
            trained(
                "films", _params("pahmdb.eval_pahmdb", "PaHmdbParams"),
                arguments=(
                    "ft_arch=demo", "saved_fa_models=()", "transfer=False", "attackers=('logistic',)", "folds=3",
                    "num_resamples=100", "num_epochs=1", "data_root=None",
                ),
            ),
            codes=(3, 4), share_valid=0.05,
        ),
        _script("extraction", "feature_extraction/feature_extraction_action.py", extraction, codes=(1,)),
        _script("long_videos", "feature_extraction/long_videos.py", long_videos, codes=(1,)),
    ]  # fmt: skip
    return {command.name: command for command in listed}


COMMANDS = _commands()


def prepare(folder: Path, names: Sequence[str]) -> None:
    """Import what the commands import, and make what their cases share, below `folder`."""
    global WORLDS
    import torch

    torch.set_num_threads(1)
    WORLDS = folder
    wanted = set(names)
    makers: list[tuple[set[str], Callable[[Path], None]]] = [
        ({"anonymize", "export", "fit", "audit"}, _core),
        ({"audit-report", "audit"}, _audited),
        ({"report"}, _runs),
        ({"check-data", "compare", "sweep", "reproduce"}, _study),
        ({"multitask_train_fa", "pretrain_fa", "train_ft", "privacy_eval"}, _study),
        ({"tridet/train", "tridet/eval"}, _thumos),
        ({"mgfn/train", "mgfn/test", "mgfn/main"}, _anomalies),
        ({"vp/train_vp_fa", "vp/train_vp_fb", "vp/train_vp_ft"}, _vp),
        ({"bias"}, _tsh),
        ({"gait"}, _casia),
        ({"pahmdb"}, _films),
        ({"extraction", "extract", "long_videos"}, _videos),
        ({"synthesize"}, _smaller_world),
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for users, make in makers:
            if users & wanted:
                make(folder)
    for name in names:
        _import(COMMANDS[name])
    logging.getLogger().handlers.clear()


def _import(command: Command) -> None:
    """Without running it: what its module and its `run` import."""
    import matplotlib.pyplot  # noqa: F401
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import sklearn.ensemble  # noqa: F401
    import yaml  # noqa: F401

    if command.script == "splavu":
        importlib.import_module(f"splavu.commands.{command.name.replace('-', '_')}")
        for module in (
            "splavu.audit.run",
            "splavu.audit.report.page",
            "splavu.release.onnx",
            "splavu.reports.run_report",
        ):
            with contextlib.suppress(ImportError):
                importlib.import_module(module)
    elif command.command:
        importlib.import_module(f"study.{command.command.replace('-', '_')}.command")
    else:
        path = Path(command.script).relative_to(REPOSITORY).with_suffix("")
        importlib.import_module(".".join(path.parts))


def loaded(path: str) -> types.ModuleType:
    """A module of the tests that lies in a folder of its own."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, REPOSITORY / "tests" / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _core(folder: Path) -> None:
    """Anonymizers of width 8, and the rows that PCA was fitted to."""
    import torch

    from splavu.__main__ import main
    from splavu.anonymizers import build_anonymizer
    from splavu.runtime import checkpoints

    made = folder / "core"
    made.mkdir()
    features = inputs.make_features(random.Random("fitted to"), KEYS["plain"])
    inputs.write_h5(made / "fitted_to.h5", features)
    np.save(made / "fitted_to.npy", np.concatenate([features[key] for key in sorted(features)]))
    (made / "labels.csv").write_bytes(
        inputs.csv_text([["filename", "label"], *([k, "ab"[i % 2]] for i, k in enumerate(features))])
    )
    raw = ["--raw", str(made / "fitted_to.h5"), "--quiet"]
    main(["fit", "pca", *raw, "--keep", "3", "--out", str(made / "pca.pth")])
    main(
        [
            "fit",
            "quantizer",
            *raw,
            "--bits",
            "2",
            "--labels",
            str(made / "labels.csv"),
            "--out",
            str(made / "quantizer.pth"),
        ]
    )
    inputs.write_h5(made / "former.h5", _former())
    main(
        ["anonymize", "--aam", str(made / "pca.pth"), str(made / "former.h5"), str(made / "out.h5"), "--quiet",
         "--allow-fitted"]
    )  # fmt: skip
    torch.manual_seed(0)
    for name, options in (("transformer", {"num_layers": 1, "num_heads": 2}), ("mlp", {})):
        network = build_anonymizer(name, WIDTH, identity=False, **options)
        content = {"fa_model_state_dict": network.state_dict(), "fa_architecture": network.architecture}
        checkpoints.write(made / f"{name}.pth", content)


def _audited(folder: Path) -> None:
    from splavu.__main__ import main

    made = folder / "audit"
    made.mkdir()
    rng = random.Random("audited")
    features = inputs.make_features(rng, KEYS["plain"], videos=40)
    inputs.write_h5(made / "released.h5", features)
    write_tables(rng, made, sorted(features))
    main(
        ["audit", "--released", str(made / "released.h5"), "--labels", str(made / "private.csv"), "--out", str(made),
         "--quick", "--attributes-only", "--families", "logistic", "--workers", "1", "--quiet", "--anyway"]
    )  # fmt: skip


def _runs(folder: Path) -> None:
    """Run folders with the files that `report` reads."""

    def write(name: str, **files: object) -> None:
        run = folder / "runs" / name
        run.mkdir(parents=True)
        (run / "versions.json").write_text(json.dumps({"torch": "2"}))
        for file, value in files.items():
            (run / f"{file}.json").write_text(json.dumps(value))

    interval = {"ap": 0.8, "interval": [0.7, 0.9], "attacker": "logistic"}
    entry = {"chance": 0.5, "raw": interval, "anonymized": interval, "leakage": 1.0, "leakage_interval": [0.9, 1.1]}
    write("aam", params={"seed": 0}, results={"epoch": 2, "score": 0.9, "checkpoint": "x"})
    lines = [{"step": step, "loss/latent": 0.1 * step, "val/ar/top1": 0.5} for step in range(3)]
    (folder / "runs/aam/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write("ft_raw", params={"anon": False}, results={"features": "raw", "test": {"top1": 0.875}})
    saved = {"anon": True, "saved_fa_model": "saved_models/runs/aam/model_temp.pth", "serving": "alone"}
    write("ft_safe", params=saved, results={"features": "anonymized", "test": {"top1": 0.75}})
    judged = {
        "attributes": {"gender": entry}, "mean": entry, "rows": {"train": 100, "validation": 10, "test": 50},
        "subjects": {"train": 10, "validation": 2, "test": 5}, "train_rows_used": 100,
    }  # fmt: skip
    gate = {"passed": True, "view": "static", "claim": "raw features are attacked", "cmap": 0.8, "chance": 0.4}
    result = {
        "protocol": {"name": "release"},
        "valid": True,
        "gates": [gate],
        "views": {"static": judged},
        "seconds": 3.0,
    }
    write("privacy", params=saved, metrics=result)


def _study(folder: Path) -> None:
    from conftest import write_study
    from untrimmed_world import add_untrimmed

    if not (folder / "study").exists():
        add_untrimmed(write_study(folder / "study", videos_per_subject=2), num_train=2)


def _thumos(folder: Path) -> None:
    import torch
    import yaml
    from thumos_world import write_world

    from tridet import config as configuration
    from tridet.detector import TriDet

    (folder / "thumos").mkdir()
    world = write_world(folder / "thumos", num_train=2, num_test=1)
    content = yaml.safe_load(world.config.read_text())
    content["dataset"] |= {"json_file": "thumos14.json", "feat_folder": "features"}
    content["output_folder"] = "runs"
    world.config.write_text(yaml.safe_dump(content))
    weights = {f"module.{name}": value for name, value in TriDet(configuration.load(world.config)).state_dict().items()}
    torch.save({"epoch": 0, "state_dict": weights, "state_dict_ema": weights}, folder / "thumos_run.pth.tar")


def _anomalies(folder: Path) -> None:
    from mgfn_world import write_world

    from mgfn.train import main

    write_world(folder / "anomalies", num_train=2, num_test=1)
    here = Path.cwd()
    os.chdir(folder / "anomalies")
    try:
        options = [option for option in MGFN if option[0] != "--output"]
        main([part for option in (*options, ("--output", str(folder / "trained"))) for part in option])
    finally:
        os.chdir(here)
    shutil.copy(next((folder / "trained").rglob("model_temp.pth")), folder / "mgfn.pth")


def _vp(folder: Path) -> None:
    from vp_world import write_world

    write_world(folder / "vp")


def _tsh(folder: Path) -> None:
    """Smarthome's layout: 18 subjects, 3 actions."""
    from conftest import WIDTH as DEMO_WIDTH

    rng = np.random.default_rng(0)
    (folder / "tsh/data/tsh").mkdir(parents=True)
    (folder / "tsh/features").mkdir()
    lines = ["filename,subject,gender,split,label"]
    for split, people in (("train", range(10)), ("test", range(10, 18))):
        features = {}
        for subject in people:
            for action in range(3):
                name = f"Act{action}_p{subject:02d}"
                features[name] = rng.normal(size=(2, DEMO_WIDTH)).astype(np.float32)
                lines.append(f"{name}.mp4,p{subject:02d},{'FM'[subject % 2]},{split},{action + 1}")
        inputs.write_h5(folder / f"tsh/features/features_tsh_{split}_demo.h5", features)
    (folder / "tsh/data/tsh/tsh_labels.csv").write_text("\n".join(lines) + "\n")


def _casia(folder: Path) -> None:
    from conftest import Study

    made = Study(folder / "casia")
    made.data.mkdir(parents=True)
    made.features.mkdir()
    (made.data / "note.txt").write_text("no label file is needed\n")
    loaded("scripts/test_gait.py").write(made)


def _films(folder: Path) -> None:
    made = loaded("scripts/test_pahmdb.py")
    made.FILMS, made.OTHERS = 10, 4  # type: ignore[attr-defined]
    made.write_films(folder / "films")


def _videos(folder: Path) -> None:
    made = loaded("scripts/test_feature_extraction.py")
    for seed, (name, length) in enumerate({"a.mp4": 18, "b.avi": 16, "c.avi": 5}.items()):
        made.write_video(folder / "videos" / name, length, seed=seed)


def _smaller_world(folder: Path) -> None:
    """`tiny`, made smaller: rendering is what takes the time."""
    from splavu.synthetic import world
    from splavu.synthetic.plans import Split

    one = {"train": Split(1, 1), "test": Split(1, 1)}
    world.SIZES["tiny"] = dataclasses.replace(
        world.SIZES["tiny"], hmdb51={**one, "val": Split(1, 1)}, vispr=one, ntu=one, tsh=one, ucf101=one,
        casia_b_subjects={"train": 1, "test": 1}, casia_b_views=(0,), lengths=(16, 18), short_lengths=(16, 18),
        casia_b_lengths=(16, 18),
    )  # fmt: skip

"""Small valid inputs in many forms, and their damages, for the fuzzer of commands (`fuzz_commands`).

A damage says what must follow: `BAD` input has to be refused, `GOOD` input has to give the same result as without, and
with `EITHER` no more is known than that nothing may happen but these two.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
from mutations import ODD_TEXT, damaged_bytes, damaged_json

GOOD, EITHER, BAD = "success", "either", "refusal"

WIDTH = 8
OUTSIDE = "../../../outside"
"""From the folder of work: what no command is given."""
PROVENANCE = {"encoder": "made up", "weights_sha256": "0" * 64, "preprocessing": "none"}

Features = dict[str, np.ndarray]
Damage = Callable[[Path, random.Random], str | None]
"""Changes the file in place; the verdict, or None where it doesn't apply."""

KEYS: dict[str, Callable[[int], str]] = {
    "plain": lambda i: f"v{i:03d}",
    "number after a dot": lambda i: f"walk_1.{i:02d}",
    "episode": lambda i: f"show.S{i // 4:02d}.E{i % 4:02d}",
    "media ending": lambda i: f"clip{i}.mp4",
    "nested": lambda i: f"run{i % 3}/x/clip{i}.avi",
    "spaces": lambda i: f"my video {i} (copy)",
    "commas and quotes": lambda i: f'a "{i}", b',
    "other scripts": lambda i: f"видео-{i}-日本",
    "leading zeros": lambda i: f"{i:07d}",
    "markup": lambda i: f"<b>{i}</b>|x&y",
    "longer": lambda i: f"{'k' * 120}{i}",
}
"""Key styles of which every letter can stand in a label table."""
OPAQUE_KEYS: dict[str, Callable[[int], str]] = {
    "line breaks": lambda i: f"a\nb{i}",
    "terminal escapes": lambda i: f"\x1b[31m{i}\x1b[0m\x07",
    "not UTF-8": lambda i: os.fsdecode(b"caf\xe9-%d" % i),
    "backslashes": lambda i: f"a\\x{i:02d}\\n",
    "percent": lambda i: f"%s%d{{{i}}}",
    "right to left": lambda i: f"\u202e{i}gpj.exe",
}
"""Key styles that are allowed, and appear in no table."""


def make_features(rng: random.Random, key: Callable[[int], str], *, videos: int = 24, width: int = WIDTH) -> Features:
    """One to four clips a video, different in every number."""
    draw = np.random.default_rng(rng.randrange(2**32))
    mixed = draw.normal(size=(width, width))
    shape = [(rng.randint(2, 4), width) for _ in range(videos)]
    return {key(i): (draw.normal(size=shape[i]) @ mixed + 1).astype(np.float32) for i in range(videos)}


def _h5_options(form: str) -> dict:
    return {
        "gzip": {"chunks": True, "compression": "gzip"},
        "lzf and shuffle": {"chunks": True, "compression": "lzf", "shuffle": True},
        "fletcher32": {"chunks": True, "fletcher32": True},
        "growing": {"chunks": True, "maxshape": (None, None)},
        "float64": {"dtype": "f8"},
        "float16": {"dtype": "f2"},
        "big-endian": {"dtype": ">f4"},
        "fill value": {"fillvalue": 7.0},
    }.get(form, {})


H5_FORMS = (
    "plain", "plain", "plain", "gzip", "lzf and shuffle", "fletcher32", "growing", "float64", "float16", "big-endian",
    "fill value", "latest", "user block", "track order", "more attributes",
)  # fmt: skip
CONVERTED = ("float64", "float16", "big-endian")


def write_h5(path: Path, features: Features, form: str = "plain", *, width: int | None = None) -> None:
    """A store in one of `H5_FORMS`; of float16, the values are those that `features` then holds."""
    options: dict = {"libver": "latest"} if form == "latest" else {}
    options |= {"userblock_size": 512} if form == "user block" else {}
    options |= {"track_order": True} if form == "track order" else {}
    with h5py.File(path, "w", **options) as file:
        file.attrs.update(PROVENANCE)
        for key, value in features.items():
            if form == "float16":
                features[key] = value.astype(np.float16).astype(np.float32)
            made = file.create_dataset(key.encode(errors="surrogateescape"), data=value, **_h5_options(form))
            if form == "more attributes":
                made.attrs["note"] = "of this video"
                made.attrs["fps"] = 25.0
        if form == "more attributes":
            file.attrs["license"] = "CC-BY"
            file.attrs["stride"] = np.float32(4)


def write_folder(path: Path, features: Features) -> None:
    """A folder of .npy."""
    path.mkdir()
    (path / "attributes.json").write_text(json.dumps(PROVENANCE))
    for key, value in features.items():
        file = path / f"{key}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, value)


def write_parquet(path: Path, features: Features, form: str = "fixed") -> None:
    """A video a row ('videos'), or a clip a row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = np.concatenate(list(features.values()))
    if form == "videos":
        column = pa.array([value.tolist() for value in features.values()], pa.list_(pa.list_(pa.float32())))
        names = list(features)
    else:
        kind = pa.list_(pa.float32(), rows.shape[1]) if form == "fixed" else pa.list_(pa.float32())
        column = pa.array(rows.tolist(), kind)
        names = [key for key, value in features.items() for _ in value]
    pq.write_table(pa.table({"id": pa.array(names), "features": column}), path)


# Damages of HDF5 stores.


def h5_damage(verdict: str) -> Callable[[Callable[[h5py.File, str, random.Random], str | None]], Damage]:
    """A damage that is made through h5py: (file, one of its keys, rng) -> another verdict, or None for `verdict`."""

    def wrap(change: Callable[[h5py.File, str, random.Random], str | None]) -> Damage:
        def damage(path: Path, rng: random.Random) -> str | None:
            try:
                with h5py.File(path, "r+") as file:
                    names: list[str] = []
                    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
                    if not names:
                        return None
                    return change(file, rng.choice(names), rng) or verdict
            except (OSError, ValueError, KeyError, RuntimeError, UnicodeError):
                return EITHER  # damaged already

        damage.__name__ = change.__name__
        return damage

    return wrap


def _replace(file: h5py.File, key: str, value: object, **options: object) -> None:
    del file[key]
    file.create_dataset(key, data=value, **options)


@h5_damage(BAD)
def soft_link(file, key, rng):
    file[f"link{rng.randrange(9)}"] = h5py.SoftLink(f"/{key}")


@h5_damage(BAD)
def dangling_link(file, key, rng):
    file["dangling"] = h5py.SoftLink("/nowhere")


@h5_damage(BAD)
def external_link(file, key, rng):
    file["elsewhere"] = h5py.ExternalLink(f"{OUTSIDE}/other.h5", "/secret")


@h5_damage(BAD)
def external_storage(file, key, rng):
    value = file[key][()]
    del file[key]
    file.create_dataset(key, value.shape, "f4", external=[(f"{OUTSIDE}/secret.bin", 0, value.nbytes)])


@h5_damage(BAD)
def virtual_dataset(file, key, rng):
    value = file[key][()]
    layout = h5py.VirtualLayout(value.shape, "f4")
    layout[:] = h5py.VirtualSource(f"{OUTSIDE}/other.h5", "secret", shape=(64, WIDTH))[: len(value)]
    del file[key]
    file.create_virtual_dataset(key, layout)


@h5_damage(EITHER)
def hard_link(file, key, rng):
    file["again"] = file[key]


@h5_damage(EITHER)
def cycle_of_groups(file, key, rng):
    file.require_group("loop")["self"] = file["/"]


@h5_damage(BAD)
def declared_bomb(file, key, rng):
    del file[key]
    rows = rng.choice((10**9, 10**12, 2**62))
    file.create_dataset(key, (rows, WIDTH), "f4", chunks=(1024, WIDTH), maxshape=(None, WIDTH))


@h5_damage(BAD)
def wide_bomb(file, key, rng):
    del file[key]
    file.create_dataset(key, (1, 10**10), "f4", chunks=(1, 10**6))


@h5_damage(EITHER)
def compressed_bomb(file, key, rng):
    del file[key]
    file.create_dataset(key, (rng.choice((10**6, 2 * 10**7)), WIDTH), "f4", chunks=(10**5, WIDTH), compression="gzip")


@h5_damage(EITHER)
def other_kind_of_number(file, key, rng):
    value = file[key][()]
    kind = rng.choice(("i4", "u1", "?", "c8", "f2", "f8", ">f4", "<f8"))
    _replace(file, key, np.abs(value).astype(kind) if kind != "c8" else value + 1j)


@h5_damage(BAD)
def no_numbers(file, key, rng):
    odd = rng.choice(("text", "compound", "reference", "object", "null", "array"))
    del file[key]
    if odd == "text":
        file.create_dataset(key, data=np.array([b"a", b"bc"]))
    elif odd == "compound":
        file.create_dataset(key, data=np.zeros((2, WIDTH), [("x", "f4"), ("y", "i4")]))
    elif odd == "reference":
        file.create_dataset(key, data=np.array([file.ref] * 2, dtype=h5py.ref_dtype))
    elif odd == "object":
        file.create_dataset(key, (2,), dtype=h5py.vlen_dtype(np.float32))
    elif odd == "null":
        file.create_dataset(key, data=h5py.Empty("f4"))
    else:
        file.create_dataset(key, (2,), dtype=np.dtype(("f4", (WIDTH,))))


@h5_damage(BAD)
def rank(file, key, rng):
    shape = rng.choice(((), (0,), (0, WIDTH), (2, 0), (2, 3, 4, WIDTH), (1,) * 20))
    _replace(file, key, np.zeros(shape, "f4"))


@h5_damage(EITHER)
def rank_three(file, key, rng):
    _replace(file, key, np.ones((3, 2, WIDTH), "f4"))


@h5_damage(BAD)
def other_width(file, key, rng):
    _replace(file, key, np.ones((3, rng.choice((1, WIDTH - 1, WIDTH + 1, 5 * WIDTH))), "f4"))


@h5_damage(BAD)
def not_finite(file, key, rng):
    value = file[key][()]
    value[rng.randrange(len(value)), rng.randrange(value.shape[1])] = rng.choice((np.nan, np.inf, -np.inf))
    _replace(file, key, value)


@h5_damage(EITHER)
def huge_or_constant(file, key, rng):
    scale = rng.choice((0.0, 1e-45, 1e30, 3e38))
    for name in list(file):
        if isinstance(file[name], h5py.Dataset):
            _replace(file, name, np.full(file[name].shape, scale, "f4"))


@h5_damage(EITHER)
def odd_attribute(file, key, rng):
    place = rng.choice((file, file[key]))
    name = rng.choice((*PROVENANCE, "sha256", "checksum", "anonymizer_sha256", "keys", "splavu_version", "x", ""))
    odd = rng.choice(ODD_ATTRIBUTES)
    if name:
        with suppress(TypeError, ValueError, OSError):
            place.attrs[name] = odd(file)


ODD_ATTRIBUTES = (
    lambda file: np.arange(3.0),
    lambda file: np.zeros((2, 2), "i8"),
    lambda file: np.array([b"a", b"b"]),
    lambda file: np.bytes_(b"caf\xe9"),
    lambda file: h5py.Empty("f4"),
    lambda file: file.ref,
    lambda file: float("nan"),
    lambda file: True,
    lambda file: 2**40,
    lambda file: "",
    lambda file: "\x1b[31mred\n",
    lambda file: "x" * 60_000,
    lambda file: "0" * 64,
    lambda file: np.zeros(2, [("a", "f4")]),
    lambda file: "{{splavu checksum placeholder}}" + "\0" * 10,
)


@h5_damage(EITHER)
def odd_key(file, key, rng):
    names = [*OPAQUE_KEYS.values(), *KEYS.values()]
    odd = rng.choice([names[rng.randrange(len(names))](99), "../../escape", "a/../b", " ", "x" * 5000, "a" + "/b" * 60])
    file.create_dataset(odd.encode(errors="surrogateescape"), data=file[key][()])


@h5_damage(EITHER)
def deep(file, key, rng):
    file.create_dataset("/".join("d" * rng.choice((40, 300))), data=file[key][()])


@h5_damage(EITHER)
def twice_the_same(file, key, rng):
    file.create_dataset(f"{key}_copy", data=file[key][()])


@h5_damage(BAD)
def emptied(file, key, rng):
    for name in list(file):
        del file[name]


@h5_damage(EITHER)
def named_type(file, key, rng):
    file["a_type"] = np.dtype("f8")
    file.require_group("empty/group")


def any_bytes(path: Path, rng: random.Random) -> str:
    path.write_bytes(damaged_bytes(path.read_bytes(), rng))
    return EITHER


def flipped_bytes(path: Path, rng: random.Random) -> str:
    data = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 30)):
        data[rng.randrange(min(len(data), rng.choice((100, 3000, 10**9))))] = rng.randrange(256)
    path.write_bytes(bytes(data))
    return EITHER


def cut(path: Path, rng: random.Random) -> str:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data) // 2)])
    return BAD if b"\0" in data else EITHER  # half a text may be a shorter one


def empty_file(path: Path, rng: random.Random) -> str:
    path.write_bytes(b"")
    return BAD


def other_content(path: Path, rng: random.Random) -> str:
    path.write_bytes(
        rng.choice((b"filename,label\na,1\n", b"{}", b"\x89PNG\r\n\x1a\n" + bytes(99), b"PK\3\4", rng.randbytes(999)))
    )
    return BAD


def folder_instead(path: Path, rng: random.Random) -> str:
    path.unlink()
    path.mkdir()
    return BAD


def pipe_instead(path: Path, rng: random.Random) -> str:
    path.unlink()
    os.mkfifo(path)
    return BAD


def socket_instead(path: Path, rng: random.Random) -> str | None:
    path.unlink()
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)
    return BAD


def missing(path: Path, rng: random.Random) -> str:
    path.unlink()
    return BAD


def link_to_it(path: Path, rng: random.Random) -> str:
    """A link that the user names is followed."""
    if path.is_symlink():
        return GOOD  # to what it was, or to nothing
    moved = path.with_name(f"{path.stem}_moved{path.suffix}")
    path.rename(moved)
    path.symlink_to(moved.name)
    return GOOD


def dangling(path: Path, rng: random.Random) -> str:
    path.unlink()
    path.symlink_to("nowhere")
    return BAD


def link_to_itself(path: Path, rng: random.Random) -> str:
    path.unlink()
    path.symlink_to(path.name)
    return BAD


FILE_DAMAGES: tuple[Damage, ...] = (
    any_bytes, flipped_bytes, cut, empty_file, other_content, folder_instead, pipe_instead, socket_instead, missing,
    link_to_it, dangling, link_to_itself,
)  # fmt: skip
H5_DAMAGES: tuple[Damage, ...] = (
    soft_link, soft_link, dangling_link, external_link, external_storage, virtual_dataset, hard_link, cycle_of_groups,
    declared_bomb, wide_bomb, compressed_bomb, other_kind_of_number, no_numbers, rank, rank_three, other_width,
    not_finite, huge_or_constant, odd_attribute, odd_attribute, odd_attribute, odd_key, odd_key, deep, twice_the_same,
    emptied, named_type, flipped_bytes, flipped_bytes, *FILE_DAMAGES,
)  # fmt: skip


# Damages of folders of .npy files.


def odd_file_name(rng: random.Random) -> str:
    """One that a file system allows."""
    return rng.choice(list(OPAQUE_KEYS.values()))(7).replace("/", "_")


def damage_folder(path: Path, rng: random.Random) -> tuple[str, str]:
    """(what was done, verdict)."""
    files = sorted(file for file in path.rglob("*.npy") if file.is_file() and not file.name.startswith("._"))
    file = rng.choice(files)
    value = np.load(file)
    change = rng.choice(
        ("companion", "companion", "link out", "link within", "broken link", "loop", "pickle", "Fortran", "record",
         "rank", "kind", "nan", "bomb", "cut", "extra", "width", "attributes", "sums", "pipe", "name", "empty", "flip")
    )  # fmt: skip
    verdict = BAD
    if change == "companion":
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(60))
        (path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
        verdict = GOOD
    elif change == "link out":
        file.unlink()
        file.symlink_to((path.parent / OUTSIDE / "secret.npy").resolve())
    elif change == "link within":
        (path / "linked.npy").symlink_to(file.name if file.parent == path else file.relative_to(path))
        verdict = EITHER
    elif change == "broken link":
        (path / "broken.npy").symlink_to("nowhere.npy")
    elif change == "loop":
        (path / "loop").symlink_to(".")
        verdict = EITHER
    elif change == "pickle":
        file.write_bytes(b"")
        np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif change == "Fortran":
        np.save(file, np.asfortranarray(value))
        verdict = GOOD
    elif change == "record":
        np.save(file, np.zeros(3, [("a", "f4")]))
    elif change == "rank":
        np.save(file, np.zeros(rng.choice(((), (0,), (0, WIDTH), (2, 2, 2, WIDTH))), np.float32))
    elif change == "kind":
        np.save(file, np.abs(value).astype(rng.choice(("f8", "f2", ">f4", "i4", "?", "U3", "c8", "M8[s]"))))
        verdict = EITHER
    elif change == "nan":
        value[0, 0] = np.nan
        np.save(file, value)
    elif change == "bomb":
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10 ** rng.choice((9, 15))}, {WIDTH}), }}"
        text = header.ljust(117) + "\n"
        file.write_bytes(b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode() + bytes(99))
    elif change in ("cut", "flip"):
        verdict = (cut if change == "cut" else flipped_bytes)(file, rng)
    elif change == "extra":
        file.write_bytes(file.read_bytes() + b"more")
        verdict = EITHER
    elif change == "width":
        np.save(file, np.ones((3, WIDTH + 1), np.float32))
    elif change == "attributes":
        place = path / "attributes.json"
        place.write_bytes(damaged_json(PROVENANCE, rng) if rng.random() < 0.5 else rng.choice(ODD_JSON))
        verdict = EITHER
    elif change == "sums":
        (path / "SHA256SUMS").write_bytes(damaged_bytes(f"{'0' * 64}  {file.relative_to(path)}\n".encode(), rng))
        verdict = EITHER
    elif change == "pipe":
        file.unlink()
        os.mkfifo(file)
    elif change == "name":
        np.save(path / f"{odd_file_name(rng)}.npy", value + 1)
        verdict = GOOD
    elif change == "empty":
        file.write_bytes(b"")
    return change, verdict


ODD_JSON = (
    b"",
    b"[]",
    b"3",
    b"null",
    b'"x"',
    b"[" * 50_000,
    b'{"a": NaN}',
    b'{"encoder": ["x"]}',
    b"\xff\xfe{}",
    b'{"a"',
)


def damage_parquet(path: Path, rng: random.Random) -> tuple[str, str]:
    """(what was done, verdict)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    change = rng.choice(("bytes", "bytes", "metadata", "null", "nan", "width", "empty", "column", "file"))
    if change == "bytes":
        return change, flipped_bytes(path, rng)
    if change == "file":
        damage = rng.choice(FILE_DAMAGES)
        return damage.__name__, damage(path, rng) or EITHER
    table = pq.read_table(path)
    rows = table["features"].to_pylist()
    verdict = BAD
    if change == "metadata":
        table = table.replace_schema_metadata({b"splavu": rng.choice((*ODD_JSON, json.dumps(PROVENANCE).encode()))})
        verdict = EITHER
    else:
        place = rng.randrange(len(rows))
        if change == "null":
            rows[place] = None
        elif change == "nan":
            rows[place] = [float("nan")] * WIDTH if not isinstance(rows[place][0], list) else [[float("inf")] * WIDTH]
        elif change == "width":
            rows[place] = [1.0] * (WIDTH - 1) if not isinstance(rows[place][0], list) else [[1.0]]
        elif change == "empty":
            rows, verdict = [], EITHER
        kind = table["features"].type
        if change == "width":
            kind = pa.list_(pa.list_(pa.float32())) if pa.types.is_list(kind.value_type) else pa.list_(pa.float32())
        names = table["id"].to_pylist()[: len(rows)]
        table = pa.table({"id": names, "features": pa.array(rows, kind)})
        if change == "column":
            table = table.rename_columns(["id", rng.choice(("id2", "", "日本"))])
            verdict = GOOD
    pq.write_table(table, path)
    return change, verdict


# Tables.

SPELLINGS = (("0", "1"), ("0.0", "1.0"), ("no", "yes"), ("No", "Yes"), ("False", "True"), ("FALSE", "TRUE"), ("f", "t"))
UNKNOWN = ("", "nan", "NaN", "NA", "None", "unknown", "?")


def csv_cell(text: str) -> str:
    """As the csv module writes it."""
    return '"' + text.replace('"', '""') + '"' if any(letter in text for letter in ',"\n\r') else text


def csv_text(rows: list[list[str]], rng: random.Random | None = None) -> bytes:
    """With the marks of several programs: Excel's byte order mark, Windows' line ends, a last line without one."""
    end = "\n" if rng is None or rng.random() < 0.7 else "\r\n"
    text = end.join(",".join(map(csv_cell, row)) for row in rows) + (end if rng is None or rng.random() < 0.8 else "")
    mark = b"\xef\xbb\xbf" if rng is not None and rng.random() < 0.1 else b""
    return mark + text.encode("utf-8", "surrogateescape")


def damage_table(path: Path, rng: random.Random) -> tuple[str, str]:
    """(what was done, verdict)."""
    import csv

    if rng.random() < 0.25:
        damage = rng.choice(FILE_DAMAGES)
        return damage.__name__, damage(path, rng) or EITHER
    rows = list(csv.reader(path.read_text("utf-8-sig").splitlines()))
    change = rng.choice(
        ("bytes", "bytes", "header only", "duplicate row", "duplicate column", "no filename", "blank name", "short row",
         "long row", "odd cell", "odd cell", "blank subject", "unnamed column", "odd header")
    )  # fmt: skip
    verdict = BAD
    place = rng.randrange(1, len(rows))
    column = rng.randrange(1, len(rows[0])) if len(rows[0]) > 1 else 0
    if change == "bytes":
        return change, any_bytes(path, rng)
    if change == "header only":
        rows = rows[:1]
    elif change == "duplicate row":
        rows.append([rows[place][0], *rows[place][1:]])
        verdict = EITHER if rows[0] == ["raw", "released"] else BAD  # a map may say the same twice
    elif change == "duplicate column":
        rows = [[*row, row[column]] for row in rows]
    elif change == "no filename":
        rows = [row[1:] for row in rows]
    elif change == "blank name":
        rows[place][0], verdict = " ", EITHER  # a name, if an odd one
    elif change == "short row":
        rows[place], verdict = rows[place][:-1], EITHER
    elif change == "long row":
        rows[place] = [*rows[place], "more"]
    elif change == "odd cell":
        rows[place][column], verdict = rng.choice(ODD_TEXT), EITHER
    elif change == "blank subject":
        if "subject" not in rows[0]:
            return "nothing", EITHER
        column = rows[0].index("subject")
        for row in rows[1:]:
            row[column] = rng.choice(("", " "))
        verdict = EITHER
    elif change == "unnamed column":
        rows = [["" if number == 0 else "1", *row] if row else row for number, row in enumerate(rows)]
        verdict = EITHER
    elif change == "odd header":
        rows[0][column], verdict = rng.choice(ODD_TEXT), EITHER
    path.write_bytes("\n".join(",".join(map(csv_cell, row)) for row in rows).encode("utf-8", "surrogatepass"))
    return change, verdict


# Checkpoints.


class Evil:
    """Unpickled, it writes a file outside."""

    def __reduce__(self):
        return os.system, (f"touch {OUTSIDE}/was_run",)


def damage_checkpoint(path: Path, rng: random.Random) -> tuple[str, str]:
    """(what was done, verdict)."""
    import argparse
    import collections

    import torch

    if rng.random() < 0.4:
        damage = rng.choice(FILE_DAMAGES)
        return damage.__name__, damage(path, rng) or EITHER
    content = torch.load(path, weights_only=True)
    weights = content["fa_model_state_dict"]
    name = rng.choice(list(weights))
    change = rng.choice(
        ("missing weight", "more weights", "kind of weight", "shape", "nan", "harmless", "harmless", "evil",
         "no weights", "odd field", "odd field", "odd architecture", "odd architecture", "bare", "pickle",
         "not a dictionary")
    )  # fmt: skip
    verdict = BAD
    if change == "missing weight":
        del weights[name]
    elif change == "more weights":
        weights["strange.weight"] = torch.zeros(3)
        verdict = EITHER
    elif change == "kind of weight":
        odd = rng.choice((torch.float64, torch.float16, torch.int64, torch.bool, torch.complex64))
        weights[name], verdict = weights[name].to(odd), EITHER
    elif change == "shape":
        weights[name] = torch.zeros(*weights[name].shape, 2)
    elif change == "nan":
        weights[name] = torch.full_like(weights[name].float(), float("nan"))
        verdict = EITHER
    elif change == "harmless":
        content["extra"] = rng.choice(
            (np.float64(0.5), argparse.Namespace(lr=0.1), Path("a/b"), collections.defaultdict(int), {"x": (1, None)},
             np.zeros(3), collections.OrderedDict(a=1), {1, 2}, b"bytes", torch.float32, torch.Size([3]))
        )  # fmt: skip
        verdict = GOOD
    elif change == "evil":
        content[rng.choice(("extra", "fa_architecture", "fitted"))] = Evil()
    elif change == "no weights":
        del content["fa_model_state_dict"]
    elif change == "odd field":
        fields = [field for field in content if field != "fa_model_state_dict"]
        content[rng.choice([*fields, "fa_model_state_dict"])] = rng.choice(ODD_FIELDS)
        verdict = EITHER
    elif change == "odd architecture":
        architecture = dict(content.get("fa_architecture") or {})
        if architecture:
            architecture[rng.choice(list(architecture))] = rng.choice(ODD_FIELDS)
        content["fa_architecture"], verdict = architecture, EITHER
    elif change == "bare":
        content, verdict = weights, EITHER
    elif change == "pickle":
        path.write_bytes(pickle.dumps({key: 1 for key in content}))
        return change, verdict
    elif change == "not a dictionary":
        content = rng.choice(([weights], 3, None, "x", torch.zeros(3), {}))
    torch.save(content, path)
    return change, verdict


ODD_FIELDS = (
    None,
    0,
    -1,
    10**9,
    10**30,
    0.5,
    float("nan"),
    "",
    "x",
    "pca",
    [],
    {},
    [None],
    {"a": 1},
    True,
    (1, 2),
    "\x1b[2J",
)


def damage_json_file(path: Path, rng: random.Random) -> tuple[str, str]:
    """(what was done, verdict)."""
    if rng.random() < 0.25:
        damage = rng.choice(FILE_DAMAGES)
        return damage.__name__, damage(path, rng) or EITHER
    path.write_bytes(damaged_json(json.loads(path.read_text()), rng))
    return "JSON", EITHER


def damage_file(path: Path, rng: random.Random) -> tuple[str, str]:
    """Whatever the file is, by its ending; what is damaged already may defy a second damage."""
    if not path.is_file() and not path.is_dir():
        return "nothing more", EITHER  # a pipe would wait for ever
    try:
        return _damage_file(path, rng)
    except Exception as error:
        return f"nothing more ({type(error).__name__})", EITHER


def _damage_file(path: Path, rng: random.Random) -> tuple[str, str]:
    if path.is_dir():
        if any(file.is_file() for file in path.rglob("*.npy")):
            return damage_folder(path, rng)
        return "nothing", EITHER
    kinds: Mapping[str, Callable[[Path, random.Random], tuple[str, str]]] = {
        ".csv": damage_table,
        ".json": damage_json_file,
        ".pth": damage_checkpoint,
        ".parquet": damage_parquet,
    }
    if path.suffix in kinds:
        return kinds[path.suffix](path, rng)
    damage = rng.choice(H5_DAMAGES if path.suffix == ".h5" else FILE_DAMAGES)
    return damage.__name__, damage(path, rng) or EITHER


# Outputs.


def odd_output(name: str, work: Path, inputs: list[str], rng: random.Random) -> tuple[str, str, str, list[str]]:
    """Another target than `name`: (what is odd, the argument, verdict, what may change)."""
    suffix = Path(name).suffix
    change = rng.choice(
        ("an input", "an input", "another name of an input", "link to an input", "link out", "folder", "pipe", "device",
         "full device", "empty", "in no folder", "below a file", "read-only folder", "long", "not UTF-8", "slash",
         "foreign partial", "linked partial", "in an input", "exists", "escapes", "dot", "null byte")
    )  # fmt: skip
    target, verdict, may_change = name, EITHER, [name]
    place = work / name
    files = [entry for entry in inputs if (work / entry).is_file()]
    if change in ("an input", "another name of an input", "link to an input"):
        if not files:
            return "nothing", name, EITHER, [name]
        source = rng.choice(files)
        verdict, may_change = BAD, []
        if change == "an input":
            target = rng.choice((source, f"./{source}", str((work / source).resolve())))
        elif change == "another name of an input":
            os.link(work / source, place)
        else:
            place.symlink_to(os.path.relpath(work / source, place.parent))
    elif change == "link out":
        place.symlink_to(f"{OUTSIDE}/precious.txt")
        verdict, may_change = BAD, []
    elif change == "folder":
        place.mkdir()
        (place / "mine.txt").write_text("mine")
        may_change = [] if suffix else [name]
        verdict = BAD if suffix else EITHER
    elif change == "pipe":
        os.mkfifo(place)
        verdict, may_change = BAD, []
    elif change in ("device", "full device"):
        target, verdict, may_change = "/dev/null" if change == "device" else "/dev/full", BAD, []
    elif change == "empty":
        target, verdict, may_change = "", BAD, []
    elif change == "in no folder":
        target = f"new/folder/{name}"
        may_change = ["new"]
    elif change == "below a file":
        (work / "a_file").write_text("x")
        target, verdict, may_change = f"a_file/{name}", BAD, []
    elif change == "read-only folder":
        (work / "locked").mkdir(mode=0o500)
        target, verdict, may_change = f"locked/{name}", BAD, []
    elif change == "long":
        target, may_change = "n" * 300 + suffix, []
        verdict = BAD
    elif change == "not UTF-8":
        target = os.fsdecode(b"caf\xe9" + suffix.encode())
        may_change = [target]
    elif change == "slash":
        target = f"{name}/"
    elif change in ("foreign partial", "linked partial"):
        mine = work / "foreign"
        mine.mkdir()
        (mine / "mine.txt").write_text("mine")
        partial = work / f"{name}.partial"
        if change == "foreign partial":
            mine.rename(partial)
        else:
            partial.symlink_to("foreign")
    elif change == "in an input":
        folders = [entry for entry in inputs if (work / entry).is_dir()]
        if not folders:
            return "nothing", name, EITHER, [name]
        target, verdict, may_change = f"{rng.choice(folders)}/{name}", BAD, []
    elif change == "exists":
        if suffix:
            place.write_text("something else")
    elif change == "escapes":
        target, may_change = f"sub/../../{name}", ["sub", f"../{name}"]
    elif change == "dot":
        target, verdict, may_change = ".", EITHER, [] if suffix else ["."]
    elif change == "null byte":
        return "nothing", name, EITHER, [name]  # no command line can hold one
    return change, target, verdict, may_change


def write_outside(work: Path) -> None:
    """What lies outside and must neither be read nor changed."""
    outside = work / OUTSIDE
    secret = np.full((64, WIDTH), 4242.0, np.float32)
    secret.tofile(outside / "secret.bin")
    np.save(outside / "secret.npy", secret[:3])
    with h5py.File(outside / "other.h5", "w") as file:
        file["secret"] = secret


def copy(source: Path, target: Path) -> None:
    """A file or a tree."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy(source, target)

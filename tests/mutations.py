"""Damaged copies of small valid text, JSON and binary files, for the parsers' tests. All randomness is the caller's.

The damage is of two kinds: of bytes, as discs and editors do it, and of values within valid JSON, as people do it.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

ODD_TEXT = (
    *("", " ", "0", "-1", "1.5", "1e309", "nan", "NaN", "-inf", "9" * 30, "9" * 5000, "true", "null", "None"),
    *(",", '"', "'", "[", "]]", "{", "\t", "\\", "/", "\x00", "\x0b", "\u2028", "é", "日本", "\u0663", "\ud7ff", "😀"),
)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, "", "0", "nan", "x" * 300, "日本", "\x00", [], {}, [[]], [None], {"": 0}),
    *(0, 1, -1, 2, 3.0, 0.5, 1e308, 10**9, 10**30, 10**400, float("nan"), float("inf"), -float("inf")),
)


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """`data` after one to three of the damages below."""
    for _ in range(rng.randint(1, 3)):
        data = rng.choice(BYTE_DAMAGES)(data, rng)
    return data


def damaged_json(value: Any, rng: random.Random) -> bytes:
    """The JSON text of `value` with one to three of its inner values changed, its text damaged, or both."""
    if rng.random() < 0.7:
        holder = [copy.deepcopy(value)]
        for _ in range(rng.randint(1, 3)):
            _change_within(holder, rng)
        value = holder[0]
        if rng.random() < 0.8:
            return json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    return damaged_bytes(json.dumps(value).encode(), rng)


def _change_within(holder: list, rng: random.Random) -> None:
    """Walk down from `holder` to a random depth and change what lies there."""
    place: list | dict = holder
    while True:
        key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
        if isinstance(place[key], (dict, list)) and place[key] and rng.random() < 0.85:
            place = place[key]
            continue
        break
    change = rng.randrange(6)
    if change == 0 and place is not holder:
        del place[key]
    elif change == 1 and isinstance(place, list) and place is not holder:
        place.insert(key, copy.deepcopy(place[key]))
    elif change == 2 and isinstance(place, dict):
        place[rng.choice(ODD_TEXT)] = place.pop(key)
    elif change == 3 and isinstance(place[key], (int, float)) and abs(place[key]) < 10**9:
        place[key] = place[key] * rng.choice((-1, 2, 10, 0.5))
    else:
        place[key] = copy.deepcopy(rng.choice(ODD_VALUES))


def _flip(data: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        if damaged:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _delete(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.randint(1, 20) :]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    stop = start + rng.randint(1, 40)
    return data[:stop] + data[start:stop] + data[stop:]


def _insert(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.choice(ODD_TEXT).encode("utf-8", "surrogatepass") + data[start:]


def _replace_word(data: bytes, rng: random.Random) -> bytes:
    words = data.replace(b",", b" , ").split(b" ")
    words[rng.randrange(len(words))] = rng.choice(ODD_TEXT).encode("utf-8", "surrogatepass")
    return b" ".join(words).replace(b" , ", b",")


def _swap_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]
    return b"\n".join(lines)


BYTE_DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip,
    _delete,
    _repeat,
    _insert,
    _replace_word,
    _swap_lines,
    lambda data, rng: data[: rng.randrange(len(data) + 1)],
    lambda data, rng: b"\xef\xbb\xbf" + data,
    lambda data, rng: data.decode("utf-8", "replace").encode("utf-16"),
    lambda data, rng: data.replace(b"\n", b"\r\n"),
    lambda data, rng: data.replace(b"\n", b"\r"),
    lambda data, rng: b"",
    lambda data, rng: b"[" * 50_000,
    lambda data, rng: data + rng.randbytes(30),
    lambda data, rng: data.replace(b",", b";"),
    lambda data, rng: data + b'"' + b"x" * 140_000,
)

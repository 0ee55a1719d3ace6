"""Which name in a table means which key of a store."""

from __future__ import annotations

import time

import pytest
from refusals import refused

from splavu.data.keys import file_key, match_keys, require_below, without_extension


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("brush_hair/a.b.avi", "a.b"),
        ("show.S01.E05", "show.S01.E05"),
        ("show.S01.E05.mp4", "show.S01.E05"),
        ("walk_1.25", "walk_1.25"),
        ("walk_1.25.MKV", "walk_1.25"),
        ("2017_10000001.jpg", "2017_10000001"),
        ("x264.h5", "x264.h5"),
        ("clip", "clip"),
        (".avi", ""),
    ],
)
def test_only_a_media_extension_is_taken_off(name, key):
    assert file_key(name) == key
    assert file_key(f"folder.avi/{name}") == key
    assert without_extension(f"folder.avi/{name}").endswith(f"/{key}")


def test_the_full_name_comes_first_then_the_name_without_extension_then_the_end_of_the_path():
    keys = ["a.mp4", "a", "mon/b", "tue/b", "c.S01", "c.S02", "videos/d.avi", "e"]
    names = ["a", "a.mp4", "tue/b.mov", "mon/b.mov", "c.S02.mp4", "c.S01.mp4", "d", "tue/e.mkv", "f.avi"]
    assert match_keys(names, keys, source="t") == {
        "a.mp4": "a.mp4",
        "a": "a",
        "mon/b": "mon/b.mov",
        "tue/b": "tue/b.mov",
        "c.S01": "c.S01.mp4",
        "c.S02": "c.S02.mp4",
        "videos/d.avi": "d",
        "e": "tue/e.mkv",
    }


def test_a_row_is_never_lent_to_another_key():
    assert match_keys(["clip"], ["clip", "clip.ts"], source="t") == {"clip": "clip"}
    assert match_keys(["tue/walk.mp4"], ["mon/walk"], source="t") == {}
    assert match_keys(["show.S01.E05"], ["show.S01.E06", "show.S01"], source="t") == {}


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["a.avi", "a.mp4"], ["a"]),
        (["a.avi"], ["a.mp4", "a.mkv"]),
        (["mon/a.avi", "tue/a.avi"], ["a"]),
        (["a"], ["mon/a", "tue/a"]),
        (["a", "mon/a"], ["x/mon/a"]),
    ],
)
def test_what_could_mean_two_is_refused(names, keys):
    with refused("table.csv"):
        match_keys(names, keys, source="table.csv")


def test_a_hundred_thousand_keys_of_one_file_name_take_seconds():
    started = time.perf_counter()
    names = [f"table/{number}/clip.avi" for number in range(100_000)]
    assert not match_keys(names, [f"store/{number}/clip" for number in range(100_000)], source="t")
    assert time.perf_counter() - started < 30


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../a", "a/../../b", "a\0b"])
def test_a_name_that_leads_out_of_its_folder(name):
    with refused("list.txt"):
        require_below(name, source="list.txt")
    assert require_below("a..b/...c", source="list.txt") == "a..b/...c"

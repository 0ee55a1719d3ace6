"""Keyed hashes of keys, the map that leads back, and releases under them."""

from __future__ import annotations

import hashlib
import hmac
import json
import stat

import numpy as np
import pytest
import torch
from conftest import WIDTH
from refusals import refused
from test_anonymize_streaming import FORMATS, Killed, contents, killed_after

from splavu.anonymizers import build_anonymizer
from splavu.data.key_map import (
    HEADER,
    KeyMap,
    hashed_keys,
    hashed_order,
    keep_secret,
    read_key_map,
    read_secret,
    secret_of,
    write_key_map,
)
from splavu.data.key_names import what_keys_reveal
from splavu.release.anonymize import SecretKeys, anonymize_store, anonymize_table
from splavu.stores import FolderWriter, StoreWriter, open_features

SECRET = bytes(range(32))
HOSTILE = [
    'a,"b"',
    "line\nend",
    "two\r\nends",
    "r\rend",
    "ünï/cödé 😀",
    " spaces ",
    '"',
    "''",
    "\udcff\udc80",
    "a;b\tc",
]
ATTRIBUTES = {"encoder": "demo", "weights_sha256": "made up"}


@pytest.fixture
def anonymizer():
    torch.manual_seed(0)
    return build_anonymizer("mlp", WIDTH, identity=False)


@pytest.fixture
def raw(tmp_path):
    """The same features as an HDF5 store and as a folder; an attribute names a subject."""
    rng = np.random.default_rng(0)
    attributes = {**ATTRIBUTES, "source": "videos/jane_walks.mp4"}
    with StoreWriter(tmp_path / "raw.h5", attributes=attributes) as store:
        folder = FolderWriter(tmp_path / "raw", attributes=attributes)
        for index in range(40):
            rows = rng.normal(size=(1 + index % 7, WIDTH)).astype(np.float32)
            store.add(f"{'ab'[index % 2]}/jane{index:02d}", rows)
            folder.add(f"{'ab'[index % 2]}/jane{index:02d}", rows)
    return tmp_path


def secret_keys(folder, target, secret=SECRET):
    return SecretKeys(secret, folder / "owner.secret", beside=target)


def test_a_released_key_is_the_hmac_of_the_raw_one():
    keys = hashed_keys(["a/b", "ü"], SECRET)
    for raw in ("a/b", "ü"):
        assert keys.released_of[raw] == hmac.new(SECRET, raw.encode(), hashlib.sha256).hexdigest()[:32]
    other = hashed_keys(["a/b"], bytes(32))
    assert not set(other.raw_of) & set(keys.raw_of)


def test_the_crops_of_a_video_stay_together_in_a_folder_alone():
    keys = ["walk__0", "walk__1", "solo__3", "run", "run__0"]
    found = hashed_keys(keys, SECRET, crops=True)
    video = hashed_keys(["walk"], SECRET).released_of["walk"]
    assert [found.released_of[f"walk__{n}"] for n in (0, 1)] == [f"{video}__0", f"{video}__1"]
    assert all("__" not in found.released_of[key] for key in keys[2:])
    assert found.videos["walk"] == video
    assert set(found.videos) == {"walk", *keys[2:]}
    assert all("__" not in released for released in hashed_keys(keys, SECRET).raw_of)


def test_any_key_comes_back_from_the_map(tmp_path):
    keys = hashed_keys(HOSTILE, SECRET)
    write_key_map(tmp_path / "keys.csv", keys)
    assert read_key_map(tmp_path / "keys.csv").released_of == keys.released_of
    assert stat.S_IMODE((tmp_path / "keys.csv").stat().st_mode) == 0o600
    some, others = (hashed_keys(part, SECRET) for part in (HOSTILE[:3], HOSTILE[3:]))
    for name, part in (("one.csv", some), ("two.csv", others)):
        write_key_map(tmp_path / name, part)
    assert read_key_map(tmp_path / "one.csv", tmp_path / "two.csv").released_of == keys.released_of
    with refused("keys.csv", naming="'unknown'"):
        read_key_map(tmp_path / "keys.csv").raw("unknown")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "raw,released\n",
        "filename,label\na,1\n",
        "raw,released\na,b\n",
        'raw,released\n"a\n',
        f"raw,released\na,{'0' * 32},c\n",
        f"raw,released\na,{'0' * 32}\na,{'1' * 32}\n",
        f"raw,released\na,{'0' * 32}\nb,{'0' * 32}\n",
    ],
)
def test_what_is_no_map_is_refused_and_never_replaced(tmp_path, text):
    path = tmp_path / "keys.csv"
    path.write_text(text)
    with refused("keys.csv"):
        read_key_map(path)
    with refused("keys.csv"):
        write_key_map(path, hashed_keys(["a"], SECRET))
    assert path.read_text() == text


def test_a_secret_is_made_once_for_its_owner_alone(tmp_path):
    path = tmp_path / "secret"
    made = secret_of(path)
    assert not path.exists()
    assert len(made) == 32
    assert secret_of(path) != made
    keep_secret(path, made)
    keep_secret(path, bytes(32))
    assert secret_of(path) == read_secret(path) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for text in (b"", b"00", b"0" * 63, b"\xff" * 64, b"g" * 64):
        path.write_bytes(text)
        with refused(path):
            secret_of(path)


def test_rows_are_permuted_by_the_secret():
    order = hashed_order(1000, SECRET)
    assert sorted(order) == list(range(1000))
    assert list(order) != list(range(1000))
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.1
    np.testing.assert_array_equal(order, hashed_order(1000, SECRET))
    assert (order != hashed_order(1000, bytes(32))).any()


@pytest.mark.parametrize("name", FORMATS)
def test_a_store_under_secret_keys_has_the_same_features_and_no_name(raw, anonymizer, name):
    anonymize_store(raw / name, raw / "kept", anonymizer)
    anonymize_store(raw / name, raw / "secret", anonymizer, secret_keys=secret_keys(raw, raw / "secret"))
    kept, secret = open_features(raw / "kept"), open_features(raw / "secret")
    keys = read_key_map(raw / "secret.keys.csv")
    assert set(keys.released_of) == set(kept)
    assert set(keys.raw_of) == set(secret)
    for key in kept:
        np.testing.assert_array_equal(secret[keys.released_of[key]], kept[key])
    assert secret.attributes["encoder"] == "demo"
    assert "source" in kept.attributes
    for path, content in contents(raw / "secret").items():
        assert b"jane" not in content
        assert "jane" not in str(path)
    assert read_secret(raw / "owner.secret") == SECRET
    assert not list(raw.glob("*.partial*"))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("moments", [(0,), (1, 17), (39,)])
def test_killed_and_resumed_equals_uninterrupted(raw, anonymizer, monkeypatch, name, moments):
    whole, target = raw / f"whole_{name}", raw / f"killed_{name}"
    anonymize_store(raw / name, whole, anonymizer, secret_keys=secret_keys(raw, whole))
    for moment in moments:
        revive = killed_after(monkeypatch, moment)
        with pytest.raises(Killed):
            anonymize_store(raw / name, target, anonymizer, secret_keys=secret_keys(raw, target))
        revive()
        left = raw / f"{target.name}.partial"
        assert not any(b"jane" in content or "jane" in str(path) for path, content in contents(left).items())
    anonymize_store(raw / name, target, anonymizer, secret_keys=secret_keys(raw, target))
    assert contents(target) == contents(whole)
    maps = [path.with_name(f"{path.name}.keys.csv").read_bytes() for path in (whole, target)]
    assert maps[0] == maps[1]


def test_another_secret_and_kept_keys_do_not_replace_a_release(raw, anonymizer):
    target = raw / "out.h5"
    anonymize_store(raw / "raw.h5", target, anonymizer, secret_keys=secret_keys(raw, target))
    before = target.read_bytes(), (raw / "out.h5.keys.csv").read_bytes()
    with refused(target):
        anonymize_store(raw / "raw.h5", target, anonymizer, secret_keys=secret_keys(raw, target, bytes(32)))
    with refused(target):
        anonymize_store(raw / "raw.h5", target, anonymizer)
    assert (target.read_bytes(), (raw / "out.h5.keys.csv").read_bytes()) == before


def test_what_is_refused_leaves_no_secret_behind(raw, anonymizer):
    kept = raw / "kept.h5"
    anonymize_store(raw / "raw.h5", kept, anonymizer)
    with refused(kept):
        anonymize_store(raw / "raw.h5", kept, anonymizer, secret_keys=secret_keys(raw, kept))
    foreign = raw / "foreign.h5.keys.csv"
    foreign.write_text("my notes")
    target = raw / "foreign.h5"
    with refused(foreign):
        anonymize_store(raw / "raw.h5", target, anonymizer, secret_keys=secret_keys(raw, target))
    assert foreign.read_text() == "my notes"
    assert not (raw / "kept.h5.keys.csv").exists()
    assert not target.exists()


def test_a_release_has_a_secret_beside_it_that_is_never_in_it(raw, anonymizer):
    target = raw / "out"
    keys = SecretKeys.of(target)
    assert (keys.file, keys.map()) == (raw / "out.secret", raw / "out.keys.csv")
    anonymize_store(raw / "raw", target, anonymizer, secret_keys=keys)
    assert SecretKeys.of(target) == keys
    with refused(target / "secret"):
        SecretKeys.of(target, target / "secret")


def parquet(path, rows):
    pa = pytest.importorskip("pyarrow", reason="needs the extra 'parquet'")
    pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra 'parquet'")
    table = pa.table(
        {
            "id": [f"jane{index}" for index in range(len(rows))],
            "features": pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), WIDTH),
            "split": [("train", "test", None)[index % 3] for index in range(len(rows))],
            "count": np.arange(len(rows)),
        }
    )
    pq.write_table(table, path, row_group_size=37)
    return pq


@pytest.mark.parametrize("moments", [(), (0,), (1, 2)])
def test_a_table_has_its_rows_permuted_and_kept_columns_hashed_or_not_as_asked(
    tmp_path, anonymizer, monkeypatch, moments
):
    from splavu.stores import parquet as tables

    monkeypatch.setattr(tables, "PART_BYTES", 20 * 4 * WIDTH)
    rows = np.random.default_rng(0).normal(size=(150, WIDTH)).astype(np.float32)
    pq = parquet(tmp_path / "raw.parquet", rows)
    target, source = tmp_path / "out.parquet", tmp_path / "raw.parquet"
    options = {"keep": ["id:hashed", "split:plain", "count:hashed"], "secret_keys": secret_keys(tmp_path, target)}
    for moment in moments:
        revive = killed_after(monkeypatch, moment)
        with pytest.raises(Killed):
            anonymize_table(source, target, anonymizer, **options)
        revive()
    anonymize_table(source, target, anonymizer, **options)
    anonymize_table(source, tmp_path / "kept.parquet", anonymizer, keep=["id", "split"])
    kept, found = (pq.read_table(path).to_pydict() for path in (tmp_path / "kept.parquet", target))
    order = hashed_order(150, SECRET)
    np.testing.assert_array_equal(found["features"], np.array(kept["features"])[order])
    assert found["split"] == [kept["split"][row] for row in order]
    ids = read_key_map(tmp_path / "out.parquet.id.keys.csv")
    assert [ids.raw(value) for value in found["id"]] == [kept["id"][row] for row in order]
    assert set(read_key_map(tmp_path / "out.parquet.count.keys.csv").released_of) == set(map(str, range(150)))
    lines = (tmp_path / "out.parquet.rows.csv").read_text().splitlines()
    assert lines[0].split(",") == list(HEADER)
    assert [int(line.split(",")[0]) for line in lines[1:]] == order.tolist()
    assert b"jane" not in target.read_bytes()
    assert "keys_secret_sha256" in json.loads(pq.read_metadata(target).metadata[b"splavu"])


def test_a_kept_column_says_how_it_is_kept(tmp_path, anonymizer):
    parquet(tmp_path / "raw.parquet", np.zeros((3, WIDTH), np.float32))
    target = tmp_path / "out.parquet"
    for keep in ("id", "id:other", ":plain"):
        with refused("--keep"):
            anonymize_table(
                tmp_path / "raw.parquet", target, anonymizer, keep=[keep], secret_keys=secret_keys(tmp_path, target)
            )
    assert {path.name for path in tmp_path.iterdir()} == {"raw.parquet"}


@pytest.mark.parametrize(
    ("names", "holds"),
    [
        ([f"S001C001P{n:03d}R001A001_rgb" for n in range(1, 5)], "NTU RGB+D"),
        (["001-nm-01-090.avi", "002-bg-01-000.avi"], "Casia-B"),
        (["brush/Film_brush_hair_f_cm_np1_ba_goo_0.avi"] * 3, "HMDB51"),
        ([f"Fighting{n:03d}_x264" for n in range(5)], "UCF-Crime"),
        ([f"person{n // 4}_walk{n}" for n in range(40)], "'person0' is in 4"),
        ([f"clip{n}" for n in range(40)], "40 names"),
    ],
)
def test_kept_keys_are_told_what_they_reveal(names, holds):
    said = what_keys_reveal(names)
    assert holds in said
    assert "\n" not in said


def test_the_videos_of_a_map_are_found_by_names_of_label_files():
    keys = hashed_keys(["act/a.avi", "b", "c__0", "c__1"], SECRET, crops=True)
    found = keys.renamed(["a", "x/b.mp4", "c.npy", "x/c__1.npy", "stranger"], source="labels")
    assert found == {
        "a": keys.released_of["act/a.avi"],
        "x/b.mp4": keys.released_of["b"],
        "c.npy": keys.videos["c"],
        "x/c__1.npy": keys.released_of["c__1"],
    }
    with refused("labels"):
        KeyMap(keys.released_of).renamed(["x/b.mp4", "y/b.mp4"], source="labels")

"""Parquet in, Parquet out."""

import hashlib
import json
import re
import sys

import numpy as np
import pytest
import torch
from conftest import WIDTH
from refusals import refused
from test_anonymize_streaming import Killed, killed_after

from splavu.anonymizers import build_anonymizer, one_by_one
from splavu.anonymizers.loading import weights_hash
from splavu.release.anonymize import anonymize_table
from splavu.runtime import extras
from splavu.stores import parquet as tables
from splavu.stores.parquet import CONTENT_KEY, METADATA_KEY, is_parquet

pa = pytest.importorskip("pyarrow", reason="needs the extra 'parquet'")
pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra 'parquet'")

ROWS = 300


@pytest.fixture
def anonymizer():
    torch.manual_seed(0)
    return build_anonymizer("mlp", WIDTH, identity=False).eval()


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(tables, "PART_BYTES", 40 * 4 * WIDTH)


def raw_rows():
    return np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)


def expected(anonymizer):
    with torch.no_grad():
        return one_by_one(anonymizer, torch.from_numpy(raw_rows())).numpy()


def as_column(rows, kind):
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), WIDTH)
    if kind == "videos":  # of 1, 2, 3, ... features
        ends = np.cumsum(np.arange(1, 25))
        return pa.array([part.tolist() for part in np.split(rows, ends[ends < ROWS])], pa.list_(pa.list_(pa.float32())))
    inner = {"list": pa.float32(), "large": pa.float32(), "double": pa.float64()}[kind]
    return pa.array(list(rows.astype(np.float64)), (pa.large_list if kind == "large" else pa.list_)(inner))


def write(path, kind="fixed", **more):
    column = as_column(raw_rows(), kind)
    names = pa.array([f"clip{i}" for i in range(len(column))])
    table = pa.table({"id": names, "features": column, "gender": pa.array(np.arange(len(column)) % 2), **more})
    pq.write_table(table.replace_schema_metadata({"owner": "Ada"}), path, row_group_size=110)
    return path


@pytest.mark.parametrize("kind", ["fixed", "list", "large", "double", "videos"])
def test_each_row_is_anonymized_alone_and_keeps_its_place_and_kind(tmp_path, anonymizer, kind):
    source = write(tmp_path / "raw.parquet", kind)
    anonymize_table(source, tmp_path / "out.parquet", anonymizer, keep=["id"])
    raw, released = pq.read_table(source), pq.read_table(tmp_path / "out.parquet", page_checksum_verification=True)
    assert released["id"] == raw["id"]
    lengths = [len(video) for video in raw["features"].to_pylist()]
    assert [len(video) for video in released["features"].to_pylist()] == lengths
    got = released["features"].to_pylist()
    got = np.array([row for video in got for row in video] if kind == "videos" else got)
    np.testing.assert_array_equal(got.astype(np.float32), expected(anonymizer))
    kinds = {"fixed": "fixed_size_list<float>[192]", "large": "large_list<float>", "videos": "list<list<float>>"}
    found = re.sub(r"\w+: ", "", str(released.schema.field("features").type))
    assert found == kinds.get(kind, "list<float>")


def test_labels_stay_behind_and_so_does_all_else(tmp_path, anonymizer):
    source = write(tmp_path / "raw.parquet")
    table = anonymize_table(source, tmp_path / "out.parquet", anonymizer)
    assert table.dropped == ["id", "gender"]
    released = pq.ParquetFile(tmp_path / "out.parquet")
    assert released.schema_arrow.names == ["features"]
    content = (tmp_path / "out.parquet").read_bytes()
    assert b"gender" not in content
    assert b"Ada" not in content
    assert not any(row.tobytes()[:24] in content for row in raw_rows())
    found = released.metadata.metadata
    assert json.loads(found[METADATA_KEY])["anonymizer_sha256"] == weights_hash(anonymizer)
    assert found[CONTENT_KEY].decode() == hashlib.sha256(expected(anonymizer).tobytes()).hexdigest()


@pytest.mark.parametrize("moment", [0, 3, 8])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, anonymizer, monkeypatch, moment):
    source = write(tmp_path / "raw.parquet")
    table = anonymize_table(source, tmp_path / "whole.parquet", anonymizer, keep=["id"])
    assert table.num_parts > 8
    revive = killed_after(monkeypatch, moment)
    with pytest.raises(Killed):
        anonymize_table(source, tmp_path / "out.parquet", anonymizer, keep=["id"])
    revive()
    assert not (tmp_path / "out.parquet").exists()
    anonymize_table(source, tmp_path / "out.parquet", anonymizer, keep=["id"])
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not list(tmp_path.glob("*.partial*"))


def test_the_column_is_found_or_has_to_be_named(tmp_path, anonymizer):
    two = write(tmp_path / "two.parquet", other=as_column(raw_rows(), "list"))
    with refused("two.parquet"):
        anonymize_table(two, tmp_path / "out.parquet", anonymizer)
    assert anonymize_table(two, tmp_path / "out.parquet", anonymizer, column="other").column == "other"
    with refused("two.parquet"):
        anonymize_table(two, tmp_path / "b.parquet", anonymizer, column="feature")
    with refused("two.parquet"):
        anonymize_table(two, tmp_path / "b.parquet", anonymizer, column="id")


def test_refused(tmp_path, anonymizer, monkeypatch):
    source, target = write(tmp_path / "raw.parquet", other=as_column(raw_rows(), "list")), tmp_path / "out.parquet"
    with refused("raw.parquet"):
        anonymize_table(source, target, anonymizer, column="features", keep=["other"])
    with refused("raw.parquet"):
        anonymize_table(source, target, build_anonymizer("mlp", 24, identity=False), column="features")
    rows = raw_rows()
    rows[250, 3] = np.nan
    pq.write_table(pa.table({"features": as_column(rows, "fixed")}), tmp_path / "bad.parquet", row_group_size=110)
    with refused("bad.parquet"):
        anonymize_table(tmp_path / "bad.parquet", target, anonymizer)
    ragged = [row.tolist() for row in raw_rows()[:60]]
    for row, value, problem in ((55, None, "bad.parquet"), (7, [1.0], "bad.parquet")):
        changed = [value if i == row else features for i, features in enumerate(ragged)]
        pq.write_table(pa.table({"features": pa.array(changed, pa.list_(pa.float32()))}), tmp_path / "bad.parquet")
        with refused(problem):
            anonymize_table(tmp_path / "bad.parquet", tmp_path / f"out{row}.parquet", anonymizer)
    (tmp_path / "torn.parquet").write_bytes(source.read_bytes()[:5000])
    assert is_parquet(tmp_path / "torn.parquet")
    with refused("torn.parquet"):
        anonymize_table(tmp_path / "torn.parquet", target, anonymizer)
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    with refused(source) as caught:
        anonymize_table(source, target, anonymizer, column="features")
    assert caught.value.remedy == extras.remedy("parquet")
    assert not target.exists()


@pytest.mark.parametrize("metadata", [b"{", b"[1]", b"\xff\xfe"])
def test_damaged_provenance_is_one_line(tmp_path, anonymizer, metadata):
    path = tmp_path / "raw.parquet"
    lists = pa.array([[0.5] * WIDTH] * 3, pa.list_(pa.float32()))
    pq.write_table(pa.table({"features": lists}).replace_schema_metadata({b"splavu": metadata}), path)
    with refused(path):
        anonymize_table(path, tmp_path / "out.parquet", anonymizer)

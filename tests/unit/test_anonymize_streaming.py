"""A release: its bits, its bytes after interruptions, and what it refuses."""

import os

import numpy as np
import pytest
import torch
from conftest import WIDTH
from refusals import refused

from splavu.anonymizers import SERVING_TILE, build_anonymizer
from splavu.data.verification import verify_store
from splavu.errors import UserError
from splavu.release import anonymize as release
from splavu.release import serving
from splavu.release.anonymize import anonymize_store
from splavu.stores import FeatureFolder, FeatureStore, FolderWriter, StoreWriter, ordered
from splavu.stores.ordered_hdf5 import StoreInOrder

ATTRIBUTES = {"encoder": "demo", "weights_sha256": "made up"}


class Killed(BaseException):
    """In place of SIGKILL: nobody catches it. tests/scripts sends the real one."""


@pytest.fixture
def anonymizer():
    torch.manual_seed(0)
    return build_anonymizer("mlp", WIDTH, identity=False)


@pytest.fixture
def raw(tmp_path):
    """The same features as an HDF5 store and as a folder."""
    rng = np.random.default_rng(0)
    features = {f"{'ab'[i % 2]}/video{i:02d}": rng.normal(size=(1 + i % 7, WIDTH)) for i in range(40)}
    with StoreWriter(tmp_path / "raw.h5", attributes=ATTRIBUTES) as store:
        folder = FolderWriter(tmp_path / "raw", attributes=ATTRIBUTES)
        for key, rows in features.items():
            store.add(key, rows)
            folder.add(key, rows)
    return tmp_path


FORMATS = ("raw.h5", "raw")


def contents(path):
    """File -> bytes, of a file or a folder."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {file.relative_to(path): file.read_bytes() for file in files if file.is_file()}


def killed_after(monkeypatch, count):
    """Writers die at their `count`th item, and what they wrote before is logged item by item."""
    monkeypatch.setattr(ordered, "BYTES_AT_RISK", 1)
    write, written = ordered.OrderedWriter.write, []

    def dying(self, item):
        written.append(item)
        if len(written) > count:
            raise Killed
        write(self, item)

    monkeypatch.setattr(ordered.OrderedWriter, "write", dying)
    return lambda: monkeypatch.setattr(ordered.OrderedWriter, "write", write)


@pytest.mark.parametrize("arch", ["mlp", "transformer"])
@pytest.mark.parametrize("width", [24, 192, 768])
def test_no_bit_depends_on_the_other_rows_nor_on_the_place_among_them(arch, width):
    torch.manual_seed(0)
    anonymizer = build_anonymizer(arch, width, identity=False, **({"num_heads": 4} if arch == "transformer" else {}))
    anonymizer.eval()
    rng = np.random.default_rng(0)
    items = [rng.normal(size=(n, width)).astype(np.float32) for n in (1, 7, 2500, 3, 64)]  # some span blocks
    served = list(serving.serve_rows(items, anonymizer))
    with torch.no_grad():
        for item, got in zip(items, served, strict=True):
            some = rng.permutation(len(item))[:40]
            alone = np.stack([anonymizer(torch.from_numpy(row)).numpy() for row in item[some]])
            np.testing.assert_array_equal(got[some], alone)


def test_threads_change_no_bit_and_are_given_back(anonymizer):
    anonymizer.eval()
    items = [np.random.default_rng(i).normal(size=(300, WIDTH)).astype(np.float32) for i in range(20)]
    one = np.concatenate(list(serving.serve_rows(items, anonymizer)))
    torch.set_num_threads(3)
    three = np.concatenate(list(serving.serve_rows(items, anonymizer)))
    assert torch.get_num_threads() == 3
    np.testing.assert_array_equal(one, three)


def test_wider_tiles_are_taken_only_where_they_have_the_same_bits(anonymizer, monkeypatch):
    anonymizer.eval()
    exact = anonymizer.map_rows

    def by_size(rows):  # as a library that sums in another order from 256 rows on
        return exact(rows) if len(rows) < 256 else exact(rows) * (1 + 1e-6)

    monkeypatch.setattr(anonymizer, "map_rows", by_size)
    assert serving.widest_tile(anonymizer) in (SERVING_TILE, 128)


def test_what_reading_raises_is_raised_and_no_thread_stays(anonymizer):
    import threading

    def items():
        yield np.zeros((5, WIDTH), np.float32)
        raise UserError("here", "is damaged")

    before = threading.active_count()
    with refused("here"):
        list(serving.serve_rows(items(), anonymizer.eval()))
    assert threading.active_count() == before


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("moments", [(0,), (1, 17), (39,)])
def test_killed_and_resumed_equals_uninterrupted(raw, anonymizer, monkeypatch, name, moments):
    anonymize_store(raw / name, raw / f"whole_{name}", anonymizer)
    target = raw / f"killed_{name}"
    for moment in moments:
        revive = killed_after(monkeypatch, moment)
        with pytest.raises(Killed):
            anonymize_store(raw / name, target, anonymizer)
        revive()
        assert not target.exists()
    anonymize_store(raw / name, target, anonymizer)
    assert contents(target) == contents(raw / f"whole_{name}")
    assert not list(raw.glob("*.partial*"))


@pytest.mark.parametrize("name", FORMATS)
def test_what_was_done_before_a_kill_is_not_computed_again(raw, anonymizer, monkeypatch, name):
    revive = killed_after(monkeypatch, 30)
    with pytest.raises(Killed):
        anonymize_store(raw / name, raw / "out", anonymizer)
    revive()
    served, serve_rows = [], serving.serve_rows
    counted = lambda items, *args, **kw: serve_rows((served.append(1) or item for item in items), *args, **kw)  # noqa: E731
    monkeypatch.setattr(release, "serve_rows", counted)
    anonymize_store(raw / name, raw / "out", anonymizer)
    assert len(served) == 10
    anonymize_store(raw / name, raw / "out", anonymizer)  # a finished one is left as it is
    assert len(served) == 10


@pytest.mark.parametrize("name", FORMATS)
def test_a_journal_is_not_trusted(raw, anonymizer, monkeypatch, name):
    anonymize_store(raw / name, raw / "whole", anonymizer)
    revive = killed_after(monkeypatch, 30)
    with pytest.raises(Killed):
        anonymize_store(raw / name, raw / "out", anonymizer)
    revive()
    torn = next((raw / "out.partial").rglob("video12.npy" if name == "raw" else "store.h5"))
    size = torn.stat().st_size
    with torn.open("rb+") as file:
        file.seek(size // 3)
        file.write(b"\xff" * 400)
    anonymize_store(raw / name, raw / "out", anonymizer)
    if name == "raw":
        assert contents(raw / "out") == contents(raw / "whole")
    else:  # the damage may lie between features, in what HDF5 laid out: the content is right whenever it can be read
        released, whole = FeatureStore(raw / "out"), FeatureStore(raw / "whole")
        assert all(np.array_equal(released[key], whole[key]) for key in whole)


def test_an_hdf5_store_made_in_order_is_one_that_store_writer_makes(tmp_path):
    rng = np.random.default_rng(0)
    features = {key: rng.normal(size=shape).astype(np.float32) for key, shape in (("a/b/c", (3, 8)), ("d", (8,)))}
    with StoreWriter(tmp_path / "one.h5", attributes=ATTRIBUTES) as writer:
        for key, rows in features.items():
            writer.add(key, rows)
    headers = [(key, rows.shape) for key, rows in features.items()]
    with StoreInOrder(tmp_path / "two.h5", headers=headers, attributes=ATTRIBUTES, origin="") as writer:
        for rows in features.values():
            writer.write(rows)
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


@pytest.mark.parametrize("name", FORMATS)
def test_a_released_store_has_no_fault_and_a_checksum_for_each_key(raw, anonymizer, name):
    anonymize_store(raw / name, raw / "out", anonymizer)
    verdict = verify_store(raw / "out", quiet=True)
    assert (verdict.num_keys, verdict.faults, verdict.num_unrecorded) == (40, (), 0)
    assert verdict.attributes["anonymizer_sha256"] == release.weights_hash(anonymizer)


@pytest.mark.parametrize("name", FORMATS)
def test_no_raw_feature_is_anywhere_in_what_is_written_even_when_killed(raw, anonymizer, monkeypatch, name):
    store = FeatureFolder(raw / name) if name == "raw" else FeatureStore(raw / name)
    needles = [row.tobytes()[:24] for key in store for row in store[key]]
    assert any(
        needle in content for content in contents(raw / name).values() for needle in needles
    )  # they can be found
    revive = killed_after(monkeypatch, 25)
    with pytest.raises(Killed):
        anonymize_store(raw / name, raw / "out", anonymizer)
    revive()
    left = contents(raw / "out.partial")
    anonymize_store(raw / name, raw / "out", anonymizer)
    for content in (*left.values(), *contents(raw / "out").values()):
        assert not any(needle in content for needle in needles)


@pytest.mark.parametrize("name", FORMATS)
def test_a_release_follows_its_origin(raw, anonymizer, name):
    """A video that is gone from the raw features is gone from those released from them, too."""
    anonymize_store(raw / name, raw / "out", anonymizer)
    if name == "raw":
        (raw / "raw/a/video00.npy").unlink()
    else:
        old = dict(FeatureStore(raw / name))
        (raw / name).unlink()
        with StoreWriter(raw / name, attributes=ATTRIBUTES) as writer:
            for key in old.keys() - {"a/video00"}:
                writer.add(key, old[key])
    anonymize_store(raw / name, raw / "out", anonymizer)
    released = FeatureFolder(raw / "out") if name == "raw" else FeatureStore(raw / "out")
    assert len(released) == 39
    assert "a/video00" not in released


@pytest.mark.parametrize("name", FORMATS)
def test_a_release_of_other_content_is_made_again_whatever_its_time(raw, anonymizer, name):
    """The same keys and shapes, and a time before that of the release."""

    def opened():
        return (FeatureFolder if name == "raw" else FeatureStore)(raw / "out")

    anonymize_store(raw / name, raw / "out", anonymizer)
    before, state = dict(opened()), (raw / "out").stat()
    anonymize_store(raw / name, raw / "out", anonymizer)
    assert (raw / "out").stat().st_ino == state.st_ino, "what is current is left as it is"
    if name == "raw":
        for path in (raw / "raw").rglob("*.npy"):
            np.save(path, 2 * np.load(path))
            os.utime(path, (0, 0))
        (raw / "raw" / "SHA256SUMS").unlink()
    else:
        old = dict(FeatureStore(raw / name))
        (raw / name).unlink()
        with StoreWriter(raw / name, attributes=ATTRIBUTES) as writer:
            for key, rows in old.items():
                writer.add(key, 2 * rows)
        os.utime(raw / name, (0, 0))
    anonymize_store(raw / name, raw / "out", anonymizer)
    assert not np.array_equal(opened()["a/video00"], before["a/video00"])
    opened().verify(checksums=True)


def test_no_attribute_is_taken_for_the_place_of_a_checksum(tmp_path, anonymizer):
    """Also where it holds the text of an older version's placeholder."""
    import h5py

    rows = np.random.default_rng(0).normal(size=(6, WIDTH)).astype(np.float32)
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["vid_000"], file["vid_001"] = rows, rows + 1
        file.attrs["note"] = f"splavu-checksum-of-item-{0:040d}"
    anonymize_store(tmp_path / "raw.h5", tmp_path / "out.h5", anonymizer)
    FeatureStore(tmp_path / "out.h5").verify(checksums=True)
    assert FeatureStore(tmp_path / "out.h5").attributes["note"] == f"splavu-checksum-of-item-{0:040d}"
    assert not verify_store(tmp_path / "out.h5", quiet=True).num_unrecorded


def test_damage_found_on_the_way_ends_it_and_nothing_has_the_releases_name(raw, anonymizer):
    path = raw / "raw.h5"
    needle = FeatureStore(path)["b/video39"].tobytes()
    content = path.read_bytes()
    path.write_bytes(content.replace(needle, needle[:-4] + b"\0\0\0\0"))
    with refused(path):
        anonymize_store(path, raw / "out.h5", anonymizer)
    assert not (raw / "out.h5").exists()


def test_stores_of_other_programs_are_read_too(tmp_path, anonymizer):
    """Compressed, in chunks, without checksums or provenance."""
    import h5py

    rows = np.random.default_rng(0).normal(size=(6, WIDTH)).astype(np.float32)
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file.create_dataset("packed", data=rows, compression="gzip", chunks=(2, WIDTH))
        file.create_dataset("plain", data=rows)
    anonymize_store(tmp_path / "raw.h5", tmp_path / "out.h5", anonymizer)
    released = FeatureStore(tmp_path / "out.h5")
    np.testing.assert_array_equal(released["packed"], released["plain"])
    assert not np.allclose(released["plain"], rows, atol=0.01)


def test_refused(raw, anonymizer, tmp_path):
    with refused("anonymizer"):
        anonymize_store(raw / "raw.h5", raw / "out.h5", build_anonymizer("mlp", WIDTH))
    with refused("anonymizer"):
        anonymize_store(raw / "raw.h5", raw / "out.h5", build_anonymizer("identity", WIDTH))
    anonymize_store(raw / "raw.h5", raw / "out.h5", anonymizer)
    with refused("out.h5"):
        anonymize_store(raw / "out.h5", raw / "twice.h5", anonymizer)
    with refused("out.h5"):
        anonymize_store(raw / "raw.h5", raw / "out.h5", build_anonymizer("mlp", WIDTH, identity=False))
    (raw / "notes").mkdir()
    (raw / "notes/diary.txt").write_text("mine")
    with refused("notes"):
        anonymize_store(raw / "raw", raw / "notes", anonymizer)
    anonymize_store(raw / "raw", raw / "folder", anonymizer)
    (raw / "folder/diary.txt").write_text("mine")
    with refused("diary.txt"):
        anonymize_store(raw / "raw", raw / "folder", anonymizer)
    assert not list(raw.glob("*.partial*"))
    assert not (raw / "twice.h5").exists()

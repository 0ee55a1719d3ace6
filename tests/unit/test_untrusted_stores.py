"""Feature stores are untrusted files: nothing outside them is read, and nothing is allocated that they only declare."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from conftest import REPOSITORY
from refusals import refused

from mgfn.data.features import FeatureVideos
from mgfn.errors import InputError as MgfnInputError
from splavu.__main__ import main
from splavu.data.verification import verify_store
from splavu.errors import UserError
from splavu.runtime import cli, limits
from splavu.stores import FeatureFolder, FeatureStore, open_features

SECRET = np.full((2, 8), 7, np.float32)
ROWS = np.arange(16, dtype=np.float32).reshape(2, 8)


@pytest.fixture(autouse=True)
def _limits():
    yield
    limits.set_limits()


@pytest.fixture
def outside(tmp_path):
    """A file of another folder, as HDF5 and as plain floats."""
    folder = tmp_path / "outside"
    folder.mkdir()
    with h5py.File(folder / "other.h5", "w") as file:
        file["secret"] = SECRET
    SECRET.tofile(folder / "raw.bin")
    np.save(folder / "other.npy", SECRET)
    return folder


@pytest.fixture
def inside(tmp_path):
    """A store with one key, beside another one."""
    folder = tmp_path / "inside"
    folder.mkdir()
    with h5py.File(folder / "beside.h5", "w") as file:
        file["group/b"] = ROWS + 1
    with h5py.File(folder / "s.h5", "w") as file:
        file["a"] = ROWS
    return folder / "s.h5"


def faults(path):
    return {fault.key: fault.problem for fault in verify_store(path, quiet=True).faults}


def _soft(file, outside):
    file["x"] = h5py.SoftLink("/a")


def _soft_through_external(file, outside):
    file["e"] = h5py.ExternalLink(str(outside / "other.h5"), "/")
    file["x"] = h5py.SoftLink("/e/secret")


def _dangling(file, outside):
    file["x"] = h5py.SoftLink("/nothing")


def _circle(file, outside):
    file["x"], file["y"] = h5py.SoftLink("/y"), h5py.SoftLink("/x")


def _group_in_itself(file, outside):
    file["x/b"] = ROWS + 2
    file["x/x"] = file["x"]


def _second_name(file, outside):
    file["g/b"] = ROWS + 2
    file["x"] = file["g"]


def _external(file, outside):
    file["x"] = h5py.ExternalLink(str(outside / "other.h5"), "/secret")


def _external_upwards(file, outside):
    file["x"] = h5py.ExternalLink("../outside/other.h5", "/secret")


def _external_beside(file, outside):
    file["x"] = h5py.ExternalLink("beside.h5", "/group/b")


def _raw_storage(file, outside):
    file.create_dataset("x", (2, 8), "f4", external=[(str(outside / "raw.bin"), 0, 64)])


def _virtual(file, outside):
    layout = h5py.VirtualLayout((2, 8), "f4")
    layout[:] = h5py.VirtualSource(str(outside / "other.h5"), "secret", (2, 8))
    file.create_virtual_dataset("x", layout)


def _upwards(file, outside):
    file.create_group("..")["x"] = ROWS + 3


HOSTILE = [
    _soft,
    _soft_through_external,
    _dangling,
    _circle,
    _group_in_itself,
    _second_name,
    _external,
    _external_upwards,
    _external_beside,
    _raw_storage,
    _virtual,
    _upwards,
]
FOLLOWED = {_soft: ROWS, _external_beside: ROWS + 1}


@pytest.mark.parametrize("add", HOSTILE)
def test_what_leads_elsewhere_is_refused_by_name_and_found_by_verify(inside, outside, add):
    with h5py.File(inside, "a") as file:
        add(file, outside)
    store = FeatureStore(inside, check_first=False)
    (name,) = [key for key in store if key.split("/")[-1] in ("x", "..") and key != "x/b"]
    with refused(inside, naming=name):
        store[name]
    assert name in faults(inside)
    np.testing.assert_array_equal(store["a"], ROWS)


@pytest.mark.parametrize("add", HOSTILE)
def test_links_are_followed_when_asked_and_never_out_of_the_folder(inside, outside, add):
    with h5py.File(inside, "a") as file:
        add(file, outside)
    limits.set_limits(follow_links=True)
    store = FeatureStore(inside, check_first=False)
    if add in FOLLOWED:
        np.testing.assert_array_equal(store["x"], FOLLOWED[add])
    elif add is _second_name:
        np.testing.assert_array_equal(store["x/b"], ROWS + 2)
    else:
        (name,) = [key for key in store if key.split("/")[-1] in ("x", "..") and key != "x/b"]
        with refused(inside, naming=name):
            store[name]
    assert not any(np.array_equal(value, SECRET) for value in _readable(store))


def _readable(store):
    for key in store:
        try:
            yield store[key]
        except UserError:
            continue


def test_a_group_of_another_file_is_read_when_asked_and_belongs_to_the_stores_files(inside):
    with h5py.File(inside, "a") as file:
        file["z"] = h5py.ExternalLink("beside.h5", "/")
    limits.set_limits(follow_links=True)
    store = FeatureStore(inside)
    assert list(store) == ["a", "z/group/b"]
    np.testing.assert_array_equal(store["z/group/b"], ROWS + 1)
    assert [path.name for path in store.files()] == ["s.h5", "beside.h5"]


def test_two_names_of_one_dataset_are_two_keys(inside):
    with h5py.File(inside, "a") as file:
        file["b"] = file["a"]
    assert list(FeatureStore(inside)) == ["a", "b"]
    assert list(faults(inside)) == ["b"], "the same features twice"


@pytest.mark.parametrize("kind", ["file", "folder", "pipe"])
def test_what_a_folder_links_to_is_refused_by_name(tmp_path, outside, kind):
    folder = tmp_path / "folder"
    folder.mkdir()
    np.save(folder / "a.npy", ROWS)
    if kind == "pipe":
        os.mkfifo(folder / "x.npy")
    else:
        (folder / ("x.npy" if kind == "file" else "x")).symlink_to(outside / "other.npy" if kind == "file" else outside)
    for follow in (False, True):
        limits.set_limits(follow_links=follow)
        with refused(folder, naming="x"):
            FeatureFolder(folder)["x"]
        assert list(faults(folder)) == ["x"]


def test_links_within_a_folder_are_followed_when_asked(tmp_path):
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    np.save(folder / "deep" / "a.npy", ROWS)
    (folder / "b.npy").symlink_to(folder / "deep" / "a.npy")
    (folder / "deep" / "up").symlink_to(folder)
    limits.set_limits(follow_links=True)
    store = FeatureFolder(folder)
    assert list(store) == ["b", "deep/a", "deep/up"]
    np.testing.assert_array_equal(store["b"], ROWS)
    with refused(folder, naming="deep/up"):
        store["deep/up"]


def test_companions_of_macos_are_no_features(tmp_path):
    np.save(tmp_path / "a.npy", ROWS)
    (tmp_path / "._a.npy").write_bytes(b"\0\5\x16\7")
    assert list(FeatureFolder(tmp_path)) == ["a"]
    assert not faults(tmp_path)


def _dataset(**options):
    def write(path):
        with h5py.File(path, "w") as file:
            file.create_dataset("x", **options)

    return write


def _header(shape, kind="<f4"):
    def write(path):
        path = path.with_suffix("")
        path.mkdir()
        with (path / "x.npy").open("wb") as file:
            header = {"descr": kind, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.write(bytes(64))
        return path

    return write


BOMBS = {
    "unwritten rows": _dataset(shape=(10**12, 32), dtype="f4", chunks=(1024, 32)),
    "empty gzip rows": _dataset(shape=(20_000_000, 32), dtype="f4", chunks=(1024, 32), compression="gzip"),
    "never allocated": _dataset(shape=(10**9, 32), dtype="f4"),
    "npy": _header((10**12, 32)),
    "npy overflow": _header((2**62, 2**62)),
    "npy negative": _header((-(2**40), 32)),
    "npy objects": _header((2, 8), "|O"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_declared_sizes_are_compared_with_the_files(tmp_path, name):
    path = BOMBS[name](tmp_path / "bomb.h5") or tmp_path / "bomb.h5"
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(UserError, match="x"):
        open_features(path)["x"]
    assert list(faults(path)) == ["x"]
    assert time.monotonic() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_what_is_compressed_is_compared_with_the_memory(tmp_path):
    path = tmp_path / "zeros.h5"
    with h5py.File(path, "w") as file:
        zeros = file.create_dataset("x", (2**22, 32), "f4", chunks=(2**18, 32), compression="gzip")
        for start in range(0, 2**22, 2**18):
            zeros[start : start + 2**18] = 0
    assert path.stat().st_size < 2**20
    limits.set_limits(memory=limits.LEAST)
    with refused(path, naming="--memory"):
        FeatureStore(path)["x"]
    assert "--memory" in faults(path)["x"] or "memory" in faults(path)["x"]


def test_groups_nested_without_end_are_named(tmp_path):
    path = tmp_path / "deep.h5"
    with h5py.File(path, "w") as file:
        group = file
        for _ in range(3000):
            group = group.create_group("g")
        group["x"] = ROWS
        file["a"] = ROWS + 1
    store = FeatureStore(path)
    assert len(store) == 2
    np.testing.assert_array_equal(store["a"], ROWS + 1)
    assert len(faults(path)) == 1


@pytest.mark.parametrize("kind", ["<f2", ">f2", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("as_folder", [False, True])
def test_floats_of_every_kind_are_read_as_float32(tmp_path, kind, as_folder):
    values = (ROWS / 3).astype(kind)
    path = tmp_path / ("folder" if as_folder else "s.h5")
    if as_folder:
        path.mkdir()
        np.save(path / "a.npy", values)
        np.save(path / "f.npy", np.asfortranarray(values + 1))
    else:
        with h5py.File(path, "w") as file:
            file["a"] = values
            file.create_dataset("f", data=values + 1, chunks=(1, 8), compression="gzip")
    store = open_features(path)
    for key, added in (("a", 0), ("f", 1)):
        assert store[key].dtype == np.float32
        np.testing.assert_array_equal(store[key], (values + added).astype(np.float32))
        np.testing.assert_array_equal(store.verified(key, checksums=True), store[key])
    assert not faults(path)


@pytest.mark.parametrize("shape", [(1, 1, 1, 8), (2, 3, 4, 8), (1,) * 20])
@pytest.mark.parametrize("as_folder", [False, True])
def test_features_of_more_dimensions_than_crops_have_are_refused_by_name(tmp_path, shape, as_folder):
    value = np.ones(shape, np.float32)
    path = tmp_path / "f" if as_folder else tmp_path / "f.h5"
    if as_folder:
        path.mkdir()
        np.save(path / "a.npy", value)
    else:
        with h5py.File(path, "w") as file:
            file["a"] = value
            file["b"] = np.ones((1, shape[-1]), np.float32)
    with refused(path, naming=("a", str(len(shape)))):
        open_features(path)["a"]


@pytest.mark.parametrize("value", [np.ones((2, 8), np.int32), np.ones((2, 8), complex), np.full((2, 8), b"text")])
@pytest.mark.parametrize("as_folder", [False, True])
def test_what_is_no_float_is_refused_by_name(tmp_path, value, as_folder):
    path = tmp_path / ("folder" if as_folder else "s.h5")
    if as_folder:
        path.mkdir()
        np.save(path / "x.npy", value)
    else:
        with h5py.File(path, "w") as file:
            file["x"] = value
    with refused(path, naming="x"):
        open_features(path)["x"]
    assert list(faults(path)) == ["x"]


def test_attributes_of_every_kind_are_read_or_named(tmp_path, caplog):
    path = tmp_path / "s.h5"
    with h5py.File(path, "w") as file:
        file["a"] = ROWS
        file.attrs["encoder"] = "demo"
        file.attrs["array"] = np.arange(5)
        file.attrs["empty"] = h5py.Empty("f4")
        file.attrs["one"] = np.array([3])
        file.attrs["bytes"] = np.bytes_(b"\xff\xfe")
        file.attrs["flag"] = True
    store = FeatureStore(path)
    assert store.attributes == {"encoder": "demo", "one": 3, "bytes": "\udcff\udcfe", "flag": True}
    assert "array, empty" in caplog.text


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_damaged_attributes_of_a_folder_are_one_line(tmp_path, content):
    np.save(tmp_path / "a.npy", ROWS)
    (tmp_path / "attributes.json").write_bytes(content)
    with refused("attributes.json"):
        FeatureFolder(tmp_path)


@pytest.mark.parametrize("libver", [None, "latest"])
def test_a_store_that_is_open_for_writing_elsewhere_is_said_to_be(inside, libver):
    script = f"""
        import h5py, sys
        file = h5py.File({str(inside)!r}, "a", libver={libver!r})
        file["b"] = [[1.0]]
        print("open", flush=True)
        sys.stdin.read()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout.readline() == b"open\n"
        with refused(inside, naming="writing"):
            FeatureStore(inside)
    finally:
        process.communicate()
    assert list(FeatureStore(inside)) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "size"), [("4G", 2**32), ("1.5GiB", 3 * 2**29), ("512m", 2**29), ("300000000", 300_000_000)]
)
def test_sizes_are_read(text, size):
    assert limits.size_of(text, "--memory") == size


@pytest.mark.parametrize("text", ["", "0", "-1G", "4X", "nan", "1e9", "G"])
def test_what_is_no_size_is_refused(text):
    with refused("--memory"):
        limits.size_of(text, "--memory")


def test_the_ceiling_is_checked_before_anything_is_allocated():
    limits.set_limits(memory=limits.LEAST)
    with refused("a.h5", naming="4 TiB"):
        limits.require(2**42, Path("a.h5"))
    with refused("--memory"):
        limits.set_limits(memory=2**20)


SHARED = REPOSITORY.parent / "shared" / "cases"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the collected inputs aren't beside this checkout")
def test_the_collected_inputs():
    assert len(faults(SHARED / "links_all.h5")) == 40
    assert len(faults(SHARED / "bomb_rows.h5")) == 1
    limits.set_limits(follow_links=True)
    np.testing.assert_array_equal(
        FeatureStore(SHARED / "links_all.h5")["v00"], FeatureStore(SHARED / "store_40x3x8.h5")["v00"]
    )


@pytest.mark.parametrize("command", ["fit", "audit", "anonymize"])
def test_every_command_says_what_would_have_been_needed(tmp_path, command, monkeypatch):
    """Before it allocates anything: here all that is left is a megabyte."""
    path = tmp_path / "raw.h5"
    with h5py.File(path, "w") as file:
        for number in range(4):
            file[f"v{number}"] = np.random.default_rng(number).normal(size=(40_000, 64)).astype(np.float32)
    table = tmp_path / "labels.csv"
    table.write_text("filename,subject,a\n" + "".join(f"v{n},s{n},{n % 2}\n" for n in range(4)))
    made = tmp_path / "made.pth"
    words = {
        "fit": ["fit", "random", "--keep", "4", "--raw", path, "--out", made],
        "audit": ["audit", "--released", path, "--labels", table],
        "anonymize": ["anonymize", "--aam", made, path, tmp_path / "out.h5"],
    }
    if command == "anonymize":
        assert main([*map(str, words["fit"]), "--quiet"]) == 0
    monkeypatch.setattr(limits, "left", lambda: 2**20)
    with refused("raw.h5", naming="--memory"):
        main([*map(str, words[command]), "--quiet"])


def test_an_allocation_that_fails_is_one_line(monkeypatch, capsys):
    def main(argv):
        np.empty(2**50)

    with pytest.raises(SystemExit) as left:
        cli.run(main)
    assert left.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", ["../outside/other", "link"])
def test_detectors_read_nothing_outside_their_folder(tmp_path, outside, name):
    folder = tmp_path / "features"
    folder.mkdir()
    (folder / "link.npy").symlink_to(outside / "other.npy")
    videos = SimpleNamespace(name=name, place="list.txt:1")
    with refused(f"{Path(name).name}.npy", MgfnInputError):
        FeatureVideos([videos], folder)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("count", [1, 15, 16, 17, 32])
def test_a_group_may_hold_any_number_of_keys(tmp_path, count, libver):
    with h5py.File(tmp_path / "a.h5", "w", libver=libver) as file:
        for i in range(count):
            file[f"v{i:03d}"] = file[f"below/v{i:03d}"] = np.full((2, 4), i, np.float32)
    assert len(FeatureStore(tmp_path / "a.h5").keys()) == 2 * count

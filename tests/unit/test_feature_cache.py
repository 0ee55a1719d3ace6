"""The feature cache: the rows of the store, built once, never read half, and built again when the store is another."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import textwrap
import time

import h5py
import numpy as np
import pytest
from conftest import REPOSITORY
from refusals import refused

from splavu.data import feature_cache
from splavu.data.feature_cache import cached_table, open_table, read_cache
from splavu.stores import FeatureStore

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def written(path, *, seed=0, num_videos=6, **attributes):
    """A store of random features, 1 to 6 clips a video and one that is a single feature; {key: [K, D]}."""
    rng = np.random.default_rng(seed)
    features = {f"walk/v{video}": rng.normal(size=(video % 6 + 1, 8)).astype(np.float32) for video in range(num_videos)}
    features["ünïcode image"] = rng.normal(size=8).astype(np.float32)
    aside = path.with_name("aside.h5")
    with h5py.File(aside, "w") as file:
        file.attrs.update({"encoder": "demo", **attributes})
        for key, value in features.items():
            file[key] = value
    aside.replace(path)
    return {key: np.atleast_2d(value) for key, value in features.items()}


def assert_holds(table, features, keys):
    for video, key in enumerate(keys):
        rows = table.rows[table.start[video] : table.start[video] + table.num_clips[video]]
        np.testing.assert_array_equal(rows, features[key])
    assert len(table.num_clips) == len(keys)


def cache_files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix not in (".h5", ".lock"))


def both(table):
    """The names of a cache's two files."""
    return [table.path.name, table.path.with_suffix(".npz").name]


def run(script, *args, **options):
    """A process that has this library."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, args)], env=environment, text=True, **options
    )


def test_holds_the_rows_of_the_store_in_any_order(tmp_path):
    features = written(tmp_path / "s.h5")
    store = FeatureStore(tmp_path / "s.h5")
    assert_holds(cached_table(store), features, sorted(features))
    some = ["walk/v3", "ünïcode image", "walk/v0"]
    table = cached_table(store, some)
    assert_holds(table, features, some)
    assert (table.feature_dim, table.num_bytes) == (8, sum(value.nbytes for value in features.values()))
    whole = np.load(table.path, mmap_mode="r")
    np.testing.assert_array_equal(whole, np.concatenate([features[key] for key in sorted(features)]))
    with refused("s.h5"):
        cached_table(store, ["walk/v1", "nobody"])


def test_is_made_once(tmp_path, monkeypatch):
    features = written(tmp_path / "s.h5")
    first = cached_table(FeatureStore(tmp_path / "s.h5"))
    monkeypatch.setattr(FeatureStore, "verified", None)  # reading the store again fails
    second = cached_table(FeatureStore(tmp_path / "s.h5"))
    assert first.path == second.path
    assert_holds(second, features, sorted(features))


@pytest.mark.parametrize("change", [{"seed": 1}, {"weights": "others"}, {"num_videos": 7}])
def test_another_store_of_the_same_name_is_cached_again(tmp_path, change):
    path = tmp_path / "s.h5"
    before = written(path)
    old = cached_table(FeatureStore(path))
    after = written(path, **change)
    new = cached_table(FeatureStore(path))
    assert_holds(new, after, sorted(after))
    assert_holds(old, before, sorted(before)), "existing memory maps remain valid"
    assert cache_files(tmp_path) == both(new)


def test_a_store_replaced_while_it_is_open_is_not_taken_for_the_new_one(tmp_path):
    path = tmp_path / "s.h5"
    before = written(path)
    old = FeatureStore(path)
    after = written(path, seed=1)
    assert_holds(cached_table(old), before, sorted(before))
    assert_holds(cached_table(FeatureStore(path)), after, sorted(after))


@pytest.mark.parametrize("damage", ["cut", "empty", "longer", "header", "index", "index cut"])
def test_a_damaged_file_is_made_again(tmp_path, damage):
    features = written(tmp_path / "s.h5")
    path = cached_table(FeatureStore(tmp_path / "s.h5")).path
    damaged = path.with_suffix(".npz") if damage.startswith("index") else path
    content = bytearray(damaged.read_bytes())
    if damage == "header":
        content[12:30] = bytes(18)
    if damage == "index":
        content[-120:-20] = bytes(100)
    cut = content[:-100]
    changed = {"cut": cut, "index cut": cut, "empty": b"", "longer": content + b"more"}
    damaged.write_bytes(changed.get(damage, content))
    assert read_cache(path) is None
    assert_holds(cached_table(FeatureStore(tmp_path / "s.h5")), features, sorted(features))


SLOW = """
    import logging, sys, time
    from splavu.data.feature_cache import cached_table
    from splavu.stores import FeatureStore
    logging.basicConfig(level=logging.INFO)
    at_once, wait = FeatureStore.verified, float(sys.argv[2])
    def verified(store, key):
        time.sleep(wait)
        return at_once(store, key)
    FeatureStore.verified = verified
    store = FeatureStore(sys.argv[1])
    print("ready", flush=True)
    print(float(cached_table(store).rows.sum()), flush=True)
"""


def test_killed_builds_leave_nothing_that_could_be_read(tmp_path):
    features = written(tmp_path / "s.h5", num_videos=20)
    for delay in (0.0, 0.1, 0.25):
        process = run(SLOW, tmp_path / "s.h5", 0.05, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert not [name for name in cache_files(tmp_path) if name.endswith((".npy", ".npz"))]
    torn = cache_files(tmp_path)
    assert torn, "at least one was killed while it wrote"
    table = cached_table(FeatureStore(tmp_path / "s.h5"))
    assert_holds(table, features, sorted(features))
    assert cache_files(tmp_path) == both(table)


def test_of_processes_that_want_it_at_once_one_makes_it(tmp_path):
    features = written(tmp_path / "s.h5")
    some = [run(SLOW, tmp_path / "s.h5", 0.1, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    outputs = [process.communicate(timeout=60) for process in some]
    expected = float(np.concatenate([features[key] for key in sorted(features)]).sum())
    assert [float(out.split()[1]) for out, _ in outputs] == [pytest.approx(expected, rel=1e-5)] * 3
    assert sum(err.count("cached once") for _, err in outputs) == 1
    assert len(cache_files(tmp_path)) == 2


def test_where_the_folder_cannot_be_written_it_lies_elsewhere(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    for name in ("one", "two"):  # two stores of one name
        (tmp_path / name).mkdir()
        features = written(tmp_path / name / "s.h5", seed=len(name + name))
        (tmp_path / name / feature_cache.FOLDER).write_text("a file in the way, which stops root too")
        with caplog.at_level(logging.WARNING):
            table = cached_table(FeatureStore(tmp_path / name / "s.h5"))
        assert_holds(table, features, sorted(features))
        assert tmp_path / "tmp" in table.path.parents
        assert cached_table(FeatureStore(tmp_path / name / "s.h5")).path == table.path
    assert len(cache_files(tmp_path / "tmp")) == 4
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    chosen = cached_table(FeatureStore(tmp_path / "one/s.h5"), cache=tmp_path / "cache").path
    assert tmp_path / "cache" in chosen.parents


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_is_not_open_to_more_users_than_the_store(tmp_path):
    written(tmp_path / "s.h5")
    (tmp_path / "s.h5").chmod(0o440)
    assert cached_table(FeatureStore(tmp_path / "s.h5")).path.stat().st_mode & 0o777 == 0o640


@LINUX
def test_on_a_full_disk_it_is_read_into_memory(tmp_path):
    features = written(tmp_path / "s.h5", num_videos=40)
    script = """
        import logging, resource, sys
        from splavu.data.feature_cache import cached_table
        from splavu.stores import FeatureStore
        logging.basicConfig()
        store = FeatureStore(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # as a disk that is full after 2,000 bytes
        table = cached_table(store)
        print(table.path, len(table.rows))
    """
    process = run(script, tmp_path / "s.h5", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert out.split() == ["None", str(sum(map(len, features.values())))]
    assert err.count("no space to cache it") == 1
    assert cache_files(tmp_path) == []


def test_without_disk_and_memory_it_says_what_it_needs(tmp_path, monkeypatch):
    written(tmp_path / "s.h5")
    usage = feature_cache.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda folder: usage._replace(free=10))
    monkeypatch.setattr(feature_cache.limits, "left", lambda: 100)
    with refused("s.h5"):
        cached_table(FeatureStore(tmp_path / "s.h5"))
    assert cache_files(tmp_path) == []


@pytest.mark.parametrize(
    "value", [np.full((2, 8), np.inf, np.float32), np.ones((2, 8), int)], ids=["not finite", "int64"]
)
def test_a_faulty_feature_is_named_and_nothing_is_kept(tmp_path, value):
    written(tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5", "a") as file:
        file["the bad one"] = value
    with refused("s.h5", naming="the bad one"):
        cached_table(FeatureStore(tmp_path / "s.h5"))
    assert cache_files(tmp_path) == []


def test_a_store_that_changes_meanwhile_is_refused(tmp_path, monkeypatch):
    written(tmp_path / "s.h5")
    at_once = FeatureStore.verified

    def touching(store, key):
        os.utime(store.path, ns=(1, time.time_ns()))
        return at_once(store, key)

    monkeypatch.setattr(FeatureStore, "verified", touching)
    with refused("s.h5"):
        cached_table(FeatureStore(tmp_path / "s.h5"))
    assert cache_files(tmp_path) == []


def test_what_is_small_is_read_into_memory_however_it_is_compressed(tmp_path, monkeypatch):
    features = written(tmp_path / "s.h5")
    store = FeatureStore(tmp_path / "s.h5")
    table = open_table(store, sorted(features))
    assert table.path is None
    assert_holds(table, features, sorted(features))
    with h5py.File(tmp_path / "zeros.h5", "w") as file:
        file.create_dataset("a", data=np.zeros((5000, 8), np.float32), compression="gzip")
    zeros = FeatureStore(tmp_path / "zeros.h5")
    monkeypatch.setattr(feature_cache, "IN_MEMORY_BYTES", 20_000)
    assert zeros.path.stat().st_size < 20_000
    assert open_table(zeros, ["a"]).path is not None


def test_a_mapped_table_travels_by_its_path(tmp_path):
    features = written(tmp_path / "s.h5", num_videos=300)
    table = cached_table(FeatureStore(tmp_path / "s.h5"))
    sent = pickle.dumps(table)
    assert len(sent) < table.num_bytes / 4
    assert_holds(pickle.loads(sent), features, sorted(features))
    table.path.unlink()
    with refused(table.path):
        pickle.loads(sent)


@pytest.mark.slow
@LINUX
def test_memory_stays_bounded_however_large_the_store(tmp_path):
    """49 MB are cached, mapped and drawn in a process that holds a few of them."""
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.attrs["encoder"] = "demo"
        for video in range(60):
            file[f"v{video:03d}"] = np.full((200, 1024), video, np.float32)
    script = """
        import sys
        from pathlib import Path
        from splavu.data import feature_cache
        from splavu.data.datasets import FeatureDataset, BatchLoader
        from splavu.stores import FeatureStore
        def held():
            status = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024
        feature_cache.IN_MEMORY_BYTES = 2**20
        store = FeatureStore(sys.argv[1])
        before = held()
        dataset = FeatureDataset(store, store.keys(), static=store)
        for batch in BatchLoader(dataset, batch_size=10).steps(0, 300):
            assert batch.clips[0, 0] == int(batch.names[0][1:])
        print(held() - before)
    """
    process = run(script, tmp_path / "s.h5", stdout=subprocess.PIPE)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert float(out) < 15  # MB

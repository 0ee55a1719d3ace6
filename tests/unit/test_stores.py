"""Stores: what is read is what was written, faults are named, and a kill loses nothing."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest
from refusals import refused

from splavu.stores import FeatureFolder, FeatureStore, FolderWriter, StoreWriter, open_features, write_npy
from splavu.stores import writer as writing
from splavu.stores.journal import MARK
from splavu.stores.ordered_folder import FolderInOrder
from splavu.stores.ordered_hdf5 import StoreInOrder

ATTRIBUTES = {"encoder": "demo", "weights_sha256": "abc", "splavu_version": "0.1.0"}


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    keys = ["plain", "with space #2", "folder/nested/video", "folder/other", "ünïcode"]
    return {key: rng.normal(size=(rows + 1, 8)).astype(np.float32) for rows, key in enumerate(keys)}


@pytest.fixture
def store(tmp_path, features):
    """Written with h5py alone, as the published stores were."""
    path = tmp_path / "store.h5"
    with h5py.File(path, "w") as file:
        for key, value in features.items():
            file[key] = value
        file.attrs["encoder"] = "demo"
    return path


def test_reads_every_key_as_stored(store, features):
    opened = FeatureStore(store, feature_dim=8)
    assert opened.keys() == sorted(features)
    assert len(opened) == len(features)
    assert "folder/other" in opened
    assert "folder" not in opened
    for key, value in dict(opened).items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, features[key])
        assert opened.num_rows(key) == len(features[key])
    opened.verify()


def test_single_feature_and_width_of_the_store(tmp_path):
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["image.jpg"] = np.ones(5, np.float32)
    opened = FeatureStore(tmp_path / "s.h5")
    assert opened.feature_dim == 5
    assert opened.num_rows("image.jpg") == 1
    assert opened["image.jpg"].shape == (5,)


def test_pickled_and_forked_readers_open_their_own_file(store, features):
    opened = FeatureStore(store)
    opened["plain"]  # the handle is open now
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(opened))["folder/other"], features["folder/other"])
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this platform")
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(opened["plain"], features["plain"]) else 1)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(opened["plain"], features["plain"])


def test_a_store_without_attributes_warns_once(tmp_path, caplog):
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["a"] = np.ones((1, 4), np.float32)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert FeatureStore(tmp_path / "foreign.h5").attributes == {}
    assert len(caplog.records) == 1
    assert "foreign.h5" in caplog.text


def _missing(path):
    return path


def _text(path):
    path.write_text("not a store")


def _truncated(path):
    with h5py.File(path, "w") as file:
        file["a"] = np.ones((500, 4), np.float32)
    path.write_bytes(path.read_bytes()[:3000])


def _empty(path):
    h5py.File(path, "w").close()


@pytest.mark.parametrize("damage", [_missing, _text, _truncated, _empty])
def test_a_file_that_is_no_store_is_one_clear_line(tmp_path, damage):
    damage(tmp_path / "bad.h5")
    with refused("bad.h5"):
        FeatureStore(tmp_path / "bad.h5")


def test_width_is_checked_at_opening(store):
    with refused(store):
        FeatureStore(store, feature_dim=768)


@pytest.mark.parametrize(
    "value",
    [
        np.ones((2, 7), np.float32),
        np.ones((2, 8), np.int64),
        np.full((2, 8), np.nan, np.float32),
        np.ones((0, 8), np.float32),
        np.array("text", dtype=object),
    ],
    ids=["width", "int64", "not finite", "empty", "object"],
)
def test_verify_names_the_faulty_key(store, value):
    with h5py.File(store, "a") as file:
        file["the bad one"] = value
    with refused(store, naming="the bad one"):
        FeatureStore(store, feature_dim=8).verify()
    FeatureStore(store, feature_dim=8).verify(["plain", "folder/other"])


def test_unknown_key_is_named(store):
    with refused(store, naming="nobody"):
        FeatureStore(store)["nobody"]


def test_writer_gives_the_published_format(tmp_path, features):
    path = tmp_path / "deep" / "out.h5"
    with StoreWriter(path, attributes=ATTRIBUTES) as writer:
        for key, value in features.items():
            writer.add(key, value.astype(np.float64))
        assert not path.exists()
    with h5py.File(path) as file:
        assert dict(file.attrs) == ATTRIBUTES
        for key, value in features.items():
            assert file[key].dtype == np.float32
            np.testing.assert_array_equal(file[key][()], value)
    assert [file.name for file in path.parent.iterdir()] == ["out.h5"]


def interrupted_after(path, items):
    """A run that adds `items` and is then interrupted."""
    with contextlib.suppress(KeyboardInterrupt), StoreWriter(path, attributes=ATTRIBUTES) as writer:
        for key, value in items.items():
            writer.add(key, value)
        raise KeyboardInterrupt


def test_interrupted_run_resumes_to_the_same_bytes(tmp_path, features):
    keys = list(features)
    whole, resumed = tmp_path / "whole.h5", tmp_path / "resumed.h5"
    with StoreWriter(whole, attributes=ATTRIBUTES) as writer:
        for key in keys:
            writer.add(key, features[key])
    interrupted_after(resumed, {keys[3]: features[keys[3]]})
    assert not resumed.exists()
    with StoreWriter(resumed, attributes=ATTRIBUTES) as writer:
        assert [key for key in keys if writer.done(key)] == [keys[3]]
        for key in keys:
            if not writer.done(key):
                writer.add(key, features[key])
    assert resumed.read_bytes() == whole.read_bytes()


def test_kill_leaves_whole_parts_only(tmp_path):
    script = textwrap.dedent(
        """
        import sys
        import numpy as np
        from splavu.stores import StoreWriter
        with StoreWriter(sys.argv[1], attributes={"encoder": "demo"}) as writer:
            for i in range(100000):
                writer.add(f"video{i}", np.full((50, 64), i))
                print(i, flush=True)
        """
    )
    path = tmp_path / "killed.h5"
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    last = max(int(process.stdout.readline()) for _ in range(20))
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not path.exists()
    with StoreWriter(path, attributes={"encoder": "demo"}) as writer:
        assert len(writer) >= last + 1
    store = FeatureStore(path)
    store.verify()
    for key in store:
        assert (store[key] == int(key.removeprefix("video"))).all()


def test_a_torn_part_is_made_again(tmp_path):
    path = tmp_path / "torn.h5"
    interrupted_after(path, {"a": np.ones((3, 4)), "b": np.ones((3, 4))})
    part = sorted((tmp_path / "torn.h5.partial").glob("*.npz"))[0]
    part.write_bytes(part.read_bytes()[:-40])
    with StoreWriter(path, attributes=ATTRIBUTES) as writer:
        assert len(writer) == 1
        for key in "ab":
            if not writer.done(key):
                writer.add(key, np.ones((3, 4)))
    assert FeatureStore(path).keys() == ["a", "b"]


def test_a_finished_store_is_extended_or_replaced(tmp_path):
    path = tmp_path / "s.h5"
    for key in ("a", "b"):
        with StoreWriter(path, attributes=ATTRIBUTES | {"splavu_version": f"of {key}"}) as writer:
            assert not writer.done(key)
            writer.add(key, np.ones((1, 4)))
    assert FeatureStore(path).keys() == ["a", "b"]
    with StoreWriter(path, attributes={"encoder": "other"}, resume=False) as writer:
        writer.add("c", np.ones((1, 9)))
    assert FeatureStore(path).keys() == ["c"]
    assert FeatureStore(path).attributes == {"encoder": "other"}


def test_conflicting_attributes_are_refused_and_nothing_changes(tmp_path):
    path = tmp_path / "s.h5"
    with StoreWriter(path, attributes=ATTRIBUTES) as writer:
        writer.add("a", np.ones((1, 4)))
    before = path.read_bytes()
    with (
        refused(path),
        StoreWriter(path, attributes=ATTRIBUTES | {"weights_sha256": "xyz"}),
    ):
        pass
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["s.h5"]


def test_two_writers_of_one_store_are_refused(tmp_path):
    with StoreWriter(tmp_path / "s.h5", attributes=ATTRIBUTES) as writer:
        writer.add("a", np.ones((1, 4)))
        with refused("s.h5"), StoreWriter(tmp_path / "s.h5", attributes=ATTRIBUTES):
            pass
    assert FeatureStore(tmp_path / "s.h5").keys() == ["a"]


@pytest.mark.parametrize(
    ("key", "value", "names"),
    [
        ("a", np.ones((1, 4)), "'a'"),
        ("a/b", np.ones((1, 4)), "'a"),
        ("new", np.ones((1, 5)), ("'new'", "5", "4")),
        ("new", np.ones((0, 4)), ("'new'", "(0, 4)")),
        ("new", np.full((1, 4), np.inf), "'new'"),
        ("x//y", np.ones((1, 4)), "'x//y'"),
    ],
)
def test_writer_refuses_what_no_store_should_hold(tmp_path, key, value, names):
    with StoreWriter(tmp_path / "s.h5", attributes=ATTRIBUTES) as writer:
        writer.add("a", np.ones((1, 4)))
        with refused("s.h5", naming=names):
            writer.add(key, value)
    assert FeatureStore(tmp_path / "s.h5").keys() == ["a"]


@pytest.mark.parametrize("moved_at_once", [1, 2**26])
@pytest.mark.parametrize("num_steps", range(1, 7))
def test_a_merge_killed_at_any_step_is_ended_by_the_next_run(tmp_path, monkeypatch, features, moved_at_once, num_steps):
    """Killed at the n-th time that something reaches the disk; what was deleted by then is in the file already."""
    whole, killed = tmp_path / "whole.h5", tmp_path / "killed.h5"
    with StoreWriter(whole, attributes=ATTRIBUTES) as writer:
        for key, value in features.items():
            writer.add(key, value)
    monkeypatch.setattr(writing, "BYTES_MOVED_AT_ONCE", moved_at_once)
    fsync, count = os.fsync, iter(range(1, 1000))

    def fsync_or_die(descriptor):
        if next(count) == num_steps:
            raise KeyboardInterrupt
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync_or_die)
    with contextlib.suppress(KeyboardInterrupt), StoreWriter(killed, attributes=ATTRIBUTES) as writer:
        for key, value in features.items():
            writer.add(key, value)
    monkeypatch.setattr(os, "fsync", fsync)
    with StoreWriter(killed, attributes=ATTRIBUTES) as writer:
        assert len(writer) == len(features)
    assert killed.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.h5", "whole.h5"]


def test_merging_holds_each_feature_once(tmp_path, monkeypatch):
    """What parts and the new file take on the disk together hardly grows while they are merged."""
    monkeypatch.setattr(writing, "BYTES_MOVED_AT_ONCE", 2**20)
    fsync, used = os.fsync, []

    def measured(descriptor):
        fsync(descriptor)
        used.append(sum(path.stat().st_blocks * 512 for path in tmp_path.rglob("*") if path.is_file()))

    with StoreWriter(tmp_path / "s.h5", attributes=ATTRIBUTES) as writer:
        for i in range(40):
            writer.add(f"v{i}", np.full((256, 1024), i, np.float32))  # 1 MiB each
        monkeypatch.setattr(os, "fsync", measured)
    assert len(used) >= 40
    assert max(used) < 40 * 2**20 + 4 * 2**20


def test_shards_write_one_journal_and_the_last_merges(tmp_path, features):
    whole, path = tmp_path / "whole.h5", tmp_path / "s.h5"
    with StoreWriter(whole, attributes=ATTRIBUTES) as writer:
        for key, value in features.items():
            writer.add(key, value)
    keys = list(features)
    with StoreWriter(path, attributes=ATTRIBUTES, shard=(0, 2)) as first:
        with StoreWriter(path, attributes=ATTRIBUTES, shard=(1, 2)) as second:
            for index, key in enumerate(keys):
                (first, second)[index % 2].add(key, features[key])
            with refused(path), StoreWriter(path, attributes=ATTRIBUTES):
                pass
            second.failures["lost"] = "of the second shard"
        assert not second.is_merged
        assert not path.exists()
    assert first.is_merged
    assert first.failures == {"lost": "of the second shard"}
    assert path.read_bytes() == whole.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["s.h5", "whole.h5"]


def test_a_shard_that_was_killed_is_waited_for_and_made_up_for(tmp_path, features):
    path, keys = tmp_path / "s.h5", list(features)
    with contextlib.suppress(KeyboardInterrupt), StoreWriter(path, attributes=ATTRIBUTES, shard=(0, 2)) as writer:
        writer.add(keys[0], features[keys[0]])
        raise KeyboardInterrupt
    with StoreWriter(path, attributes=ATTRIBUTES, shard=(1, 2)) as writer:
        for key in keys[1:3]:
            writer.add(key, features[key])
    assert not path.exists(), "shard 0 never said that it is done"
    with StoreWriter(path, attributes=ATTRIBUTES, shard=(0, 2)) as writer:
        assert [writer.done(key) for key in keys] == [True, True, True, False, False]
        for key in keys[3:]:
            writer.add(key, features[key])
    assert FeatureStore(path).keys() == sorted(features)
    with refused(path), StoreWriter(path, attributes={}, shard=(0, 2)):
        pass


def test_nothing_added_writes_nothing(tmp_path):
    with StoreWriter(tmp_path / "s.h5", attributes=ATTRIBUTES):
        pass
    assert list(tmp_path.iterdir()) == []


def test_folder_of_long_videos(tmp_path):
    rng = np.random.default_rng(0)
    long, crops = rng.normal(size=(30, 8)).astype(np.float32), rng.normal(size=(12, 10, 8)).astype(np.float32)
    write_npy(tmp_path / "long.npy", long)
    write_npy(tmp_path / "Abuse" / "crops.npy", crops)
    folder = open_features(tmp_path, feature_dim=8)
    assert isinstance(folder, FeatureFolder)
    assert folder.keys() == ["Abuse/crops", "long"]
    assert folder.num_rows("Abuse/crops") == 12
    np.testing.assert_array_equal(folder["long"], long)
    np.testing.assert_array_equal(folder["Abuse/crops"], crops)
    folder.verify()
    with refused(tmp_path):
        FeatureFolder(tmp_path, feature_dim=4)["long"]
    (tmp_path / "long.npy").write_bytes(b"nothing")
    with refused("long.npy"):
        folder.verify()


def test_a_folder_of_long_videos_is_filled_and_extended_under_the_same_attributes(tmp_path):
    folder, rows = tmp_path / "thumos14_demo", np.arange(12, dtype=np.float64).reshape(3, 4)
    writer = FolderWriter(folder, attributes={"encoder": "demo"})
    assert not folder.exists(), "nothing added, nothing written"
    writer.add("a", rows)
    again = FolderWriter(folder, attributes={"encoder": "demo"})
    assert again.done("a")
    assert not again.done("b")
    again.add("b", rows[:, None])
    reader = FeatureFolder(folder, feature_dim=4)
    assert reader.attributes == {"encoder": "demo"}
    assert {key: reader[key].shape for key in reader} == {"a": (3, 4), "b": (3, 1, 4)}
    np.testing.assert_array_equal(reader["a"], rows.astype(np.float32))
    with refused(folder):
        FolderWriter(folder, attributes={"encoder": "i3d"})


@pytest.mark.parametrize(
    "features", [np.zeros((0, 4)), np.zeros(4), np.full((2, 4), np.nan)], ids=["empty", "no rows", "not finite"]
)
def test_a_folder_takes_no_broken_features(tmp_path, features):
    with refused("out", naming="'a'"):
        FolderWriter(tmp_path / "out", attributes={}).add("a", features)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_unknown_origin_is_not_extended(tmp_path):
    write_npy(tmp_path / "a.npy", np.zeros((2, 4)))
    with refused("test_a_folder_of_unknown_origi0"):
        FolderWriter(tmp_path, attributes={"encoder": "demo"})


def tree(folder):
    """Every file below a folder with its bytes; links by where they lead."""
    return {
        str(path.relative_to(folder)): path.readlink() if path.is_symlink() else path.is_file() and path.read_bytes()
        for path in folder.rglob("*")
    }


def ordered(path):
    return StoreInOrder(path, headers=[("a", (1, 4))], attributes=ATTRIBUTES, origin="")


WRITERS = [lambda path: StoreWriter(path, attributes=ATTRIBUTES), ordered]


@pytest.mark.skipif(os.name != "posix", reason="links")
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
    "kind", ["folder", "file", "link", "link to a journal", "linked lock", "lock of others", "store"]
)
def test_what_has_the_journals_name_and_is_no_journal_is_refused_and_stays(tmp_path, writer, kind):
    path, journal, elsewhere = tmp_path / "s.h5", tmp_path / "s.h5.partial", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "diary.npz").write_bytes(b"mine")
    if kind == "folder":
        elsewhere.rename(journal)
    elif kind == "file":
        journal.write_bytes(b"mine")
    elif kind == "link":
        journal.symlink_to(elsewhere)
    elif kind == "link to a journal":
        interrupted_after(path, {"a": np.ones((1, 4))})
        journal.rename(tmp_path / "moved")
        journal.symlink_to("moved")
    elif kind == "store":
        write_npy(journal / "video.npy", np.ones((3, 4)))
        (journal / "attributes.json").write_text("{}")
    else:
        journal.mkdir()
        (journal / "attributes.json").write_text("{}")
        if kind == "linked lock":
            (tmp_path / "empty").touch()
            (journal / "lock").symlink_to(tmp_path / "empty")
        else:
            (journal / "lock").write_text("of another program")
    before = tree(tmp_path)
    with refused("s.h5.partial"), writer(path):
        pass
    assert tree(tmp_path) == before


@pytest.mark.parametrize("kind", ["file", "folder", "link", "link in its files"])
def test_what_no_writer_puts_into_a_journal_is_refused_and_stays(tmp_path, kind):
    journal = tmp_path / "out.partial"
    (journal / "files").mkdir(parents=True)
    (journal / "lock").write_bytes(MARK)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.txt").write_text("mine")
    name = {"file": "notes.txt", "folder": "mine", "link": "digests", "link in its files": "files/a"}[kind]
    if kind == "file":
        (journal / name).write_text("mine")
    elif kind == "folder":
        (journal / name).mkdir()
    else:
        (journal / name).symlink_to(elsewhere)
    with (
        refused(journal / name),
        FolderInOrder(tmp_path / "out", headers=[("a/b", (1, 4))], attributes=ATTRIBUTES, origin="") as writer,
    ):
        writer.write(np.ones((1, 4), np.float32))
    assert (journal / name).exists()
    assert [path.name for path in elsewhere.iterdir()] == ["mine.txt"]


def test_a_journal_of_version_0_1_is_taken_up(tmp_path, features):
    path = tmp_path / "s.h5"
    interrupted_after(path, features)
    (tmp_path / "s.h5.partial/lock").write_bytes(b"")
    with StoreWriter(path, attributes=ATTRIBUTES) as writer:
        assert len(writer) == len(features)
    assert FeatureStore(path).keys() == sorted(features)


def test_only_remains_of_journals_are_cleared(tmp_path):
    path = tmp_path / "s.h5"
    interrupted_after(path, {"a": np.ones((1, 4))})
    (tmp_path / "s.h5.partial").rename(tmp_path / "s.h5.partial.old-123")  # a removal that was killed
    (tmp_path / "s.h5.partial.old-mine").mkdir()
    (tmp_path / "s.h5.partial.old-mine/diary").write_bytes(b"mine")
    with StoreWriter(path, attributes=ATTRIBUTES) as writer:
        assert len(writer) == 0
        writer.add("b", np.ones((1, 4)))
    assert sorted(tree(tmp_path)) == ["s.h5", "s.h5.partial.old-mine", "s.h5.partial.old-mine/diary"]


@pytest.mark.skipif(os.name != "posix", reason="links and pipes")
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("kind", ["pipe", "folder", "link out"])
def test_a_store_is_no_pipe_folder_or_link(tmp_path, writer, kind):
    folder = tmp_path / "folder"
    folder.mkdir()
    if kind == "pipe":
        os.mkfifo(folder / "s.h5")
    elif kind == "folder":
        (folder / "s.h5").mkdir()
    else:
        with StoreWriter(tmp_path / "other.h5", attributes=ATTRIBUTES) as made:
            made.add("a", np.ones((1, 4)))
        (folder / "s.h5").symlink_to(tmp_path / "other.h5")
    before = tree(tmp_path)
    with refused("s.h5"), writer(folder / "s.h5"):
        pass
    assert tree(tmp_path) == before

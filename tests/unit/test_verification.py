"""verify: every way in which a store can be broken is found, under its key, and nothing else is."""

import hashlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import time

import h5py
import numpy as np
import pytest
from refusals import assert_names, refused

from splavu.__main__ import main
from splavu.data import verification
from splavu.data.key_map import KEYS_ATTRIBUTE, hashed_keys, write_key_map
from splavu.data.verification import WHOLE, differences, verify_store
from splavu.stores import FeatureFolder, FeatureStore, FolderWriter, StoreWriter

ATTRIBUTES = {"encoder": "someone's", "weights_sha256": "abc", "preprocessing": "{}"}


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    return {f"folder/video{i}": rng.normal(size=(3, 8)).astype(np.float32) for i in range(6)}


@pytest.fixture
def store(tmp_path, features):
    path = tmp_path / "store.h5"
    with StoreWriter(path, attributes=ATTRIBUTES) as writer:
        for key, value in features.items():
            writer.add(key, value)
    return path


@pytest.fixture
def folder(tmp_path, features):
    path = tmp_path / "long"
    writer = FolderWriter(path, attributes=ATTRIBUTES)
    for key, value in features.items():
        writer.add(key, value)
    return path


def faults(path, **options):
    return {fault.key: fault.problem for fault in verify_store(path, quiet=True, **options).faults}


def test_a_whole_store_has_no_fault(store, folder):
    for path in (store, folder):
        found = verify_store(path, quiet=True)
        assert (found.num_keys, found.num_rows, found.feature_dim, found.num_unrecorded) == (6, 18, 8, 0)
        assert (found.attributes, found.faults) == (ATTRIBUTES, ())


def test_the_recorded_checksums_are_those_of_other_programs(store, folder, features):
    with h5py.File(store) as file:
        for key, value in features.items():
            assert file[key].attrs["sha256"].decode() == hashlib.sha256(value.astype("<f4").tobytes()).hexdigest()
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum on this machine")
    done = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def _replaced(value):
    def damage(file):
        del file["folder/video2"]
        file["folder/video2"] = value

    return damage


def _changed(file):
    file["folder/video2"][1, 4] += np.float32(1e-3)


def _copied(file):
    del file["folder/video2"]
    file["folder/video2"] = file["folder/video1"][()]


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (_replaced(np.full((2, 8), np.nan, np.float32)), "16 values that are not finite"),
        (_replaced(np.full((2, 8), -np.inf, np.float32)), "not finite"),
        (_replaced(np.ones((2, 7), np.float32)), "7 wide"),
        (_replaced(np.ones((2, 8), int)), "int64"),
        (_replaced(np.ones((0, 8), np.float32)), "empty"),
        (_replaced(np.float32(1)), "empty"),
        (_changed, "checksum"),
        (_copied, "'folder/video1'"),
    ],
)
def test_one_damaged_key_is_the_one_fault(store, damage, problem):
    with h5py.File(store, "a") as file:
        damage(file)
    found = faults(store)
    assert list(found) == ["folder/video2"]
    assert problem in found["folder/video2"]


def test_every_fault_is_listed_also_that_of_the_first_key(store):
    with h5py.File(store, "a") as file:
        for number, value in (
            (0, np.ones((2, 5), np.float32)),
            (3, np.ones((1, 8), int)),
            (5, np.ones((0, 8), np.float32)),
        ):
            del file[f"folder/video{number}"]
            file[f"folder/video{number}"] = value
    assert list(faults(store)) == [f"folder/video{number}" for number in (0, 3, 5)]


def test_the_width_is_the_encoders_not_the_majoritys(tmp_path):
    path = tmp_path / "narrow.h5"
    with StoreWriter(path, attributes={"encoder": "demo"}) as writer:
        writer.add("a", np.ones((1, 8)))
    assert_names(faults(path)["a"], ("8 wide", "192"))
    assert faults(path, feature_dim=8) == {}


def test_data_flipped_on_the_disk_is_found(store, features):
    content = bytearray(store.read_bytes())
    place = bytes(content).index(features["folder/video4"].tobytes())
    content[place + 9] ^= 1
    store.write_bytes(content)
    assert "checksum" in faults(store)["folder/video4"]
    FeatureStore(store).verify()
    with refused("store.h5"):
        FeatureStore(store).verify(checksums=True)


def test_a_cut_file_is_a_damaged_store_and_a_text_is_none(store, tmp_path):
    store.write_bytes(store.read_bytes()[:-200])
    assert list(faults(store)) == [WHOLE]
    text = tmp_path / "notes.h5"
    text.write_text("no store")
    for path in (text, tmp_path / "nowhere.h5"):
        with refused(path):
            verify_store(path, quiet=True)


def test_a_folder_with_broken_files(folder):
    cut, changed, gone = (folder / f"folder/video{number}.npy" for number in (0, 1, 2))
    cut.write_bytes(cut.read_bytes()[:-10])
    content = bytearray(changed.read_bytes())
    content[-1] ^= 1
    changed.write_bytes(content)
    np.save(gone, np.ones((2, 8), int))
    found = faults(folder)
    assert list(found) == ["folder/video0", "folder/video1", "folder/video2"]
    assert "checksum" not in found["folder/video0"]  # it can't be read at all
    assert "checksum" in found["folder/video1"]
    assert "int64" in found["folder/video2"]


def test_a_file_made_again_has_its_last_checksum(folder):
    path = folder / "folder/video0.npy"
    path.write_bytes(path.read_bytes()[:40])
    FolderWriter(folder, attributes=ATTRIBUTES).add("folder/video0", np.ones((2, 8)))
    FeatureFolder(folder).verify(checksums=True)
    assert faults(folder) == {}


def test_a_store_of_another_program_is_read_and_said_to_have_no_checksums(tmp_path):
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["a"], file["b"] = np.zeros((1, 4), np.float32), np.ones((1, 4), np.float32)
    found = verify_store(tmp_path / "foreign.h5", quiet=True)
    assert (found.num_unrecorded, found.attributes, found.faults) == (2, {}, ())
    FeatureStore(tmp_path / "foreign.h5").verify(checksums=True)


def test_an_extended_store_keeps_the_checksums_of_before(store):
    with StoreWriter(store, attributes=ATTRIBUTES) as writer:
        writer.add("new", np.ones((2, 8)))
    found = verify_store(store, quiet=True)
    assert (found.num_keys, found.num_unrecorded, found.faults) == (7, 0, ())


def test_features_of_other_weights_or_preprocessing_are_told_apart():
    assert differences(ATTRIBUTES, ATTRIBUTES | {"decoder": "another"}) == []
    assert differences(ATTRIBUTES, ATTRIBUTES | {"weights_sha256": "xyz"}) == ["weights_sha256"]
    assert differences(ATTRIBUTES, {}) == [], "a store that doesn't say is not accused"


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="the child inherits a stand-in")
@pytest.mark.parametrize(
    ("happens", "problem"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "exit code -9"),
        (lambda: time.sleep(60), "1 s"),
    ],
)
def test_a_file_that_crashes_or_hangs_hdf5_is_a_damaged_store(store, monkeypatch, happens, problem):
    monkeypatch.setattr(verification, "verify_store", lambda *args, **options: happens())
    found = verification.verify_apart(store, quiet=True, patience=1)
    assert [fault.key for fault in found.faults] == [WHOLE]
    assert problem in found.faults[0].problem


@pytest.mark.parametrize(
    "change", [{"encoder": "another"}, {"weights_sha256": "xyz"}, {"preprocessing": '{"short_side": 224}'}]
)
def test_a_store_takes_no_features_of_another_origin(store, folder, change):
    before = store.read_bytes()
    with (
        refused("store.h5"),
        StoreWriter(store, attributes=ATTRIBUTES | change),
    ):
        pass
    assert store.read_bytes() == before
    with refused("long"):
        FolderWriter(folder, attributes=ATTRIBUTES | change)


def test_the_command_lists_faults_and_says_what_made_the_features(store, folder, tmp_path, capsys):
    assert main(["verify", str(store), str(folder), "--quiet"]) == 0
    told = capsys.readouterr().out
    assert told.count("no fault") == 2
    assert told.count("weights_sha256: abc") == 2
    with h5py.File(store, "a") as file:
        _changed(file)
        _copied(file)
        file["folder/video3"][0, 0] = np.nan
    assert main(["verify", str(store), str(folder), "--quiet"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1] for line in told if line.startswith("  fault")] == ["folder/video2", "folder/video3"]
    (tmp_path / "text").write_text("no store")
    with refused("text"):
        main(["verify", str(tmp_path / "text"), str(folder), "--quiet"])
    assert "no fault" in capsys.readouterr().out, "the others are looked at all the same"


def test_the_owners_map_names_faults_by_raw_keys_and_finds_keys_that_are_not_its_own(tmp_path, features, capsys):
    keys = hashed_keys([*features, "lost"], bytes(32))
    path, attributes = tmp_path / "released.h5", {**ATTRIBUTES, KEYS_ATTRIBUTE: "hashed"}
    with StoreWriter(path, attributes=attributes) as writer:
        for key, value in features.items():
            writer.add(keys.released_of[key], value)
    write_key_map(tmp_path / "all.csv", keys)
    write_key_map(tmp_path / "own.csv", hashed_keys(list(features), bytes(32)))
    command = ["verify", str(path), "--quiet", "--keys"]
    assert main([*command, str(tmp_path / "own.csv")]) == 0
    assert main([*command, str(tmp_path / "all.csv")]) == 1
    assert "'lost'" in capsys.readouterr().out
    first = next(iter(features))
    spoil(path, keys.released_of[first])
    write_key_map(tmp_path / "one.csv", hashed_keys([first], bytes(32)))
    assert main([*command, str(tmp_path / "one.csv")]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "fault: " in line]
    assert len(lines) == len(features)  # one is spoiled, the others are in no row of that map
    assert sum(f"{first} ({keys.released_of[first]})" in line for line in lines) == 1
    assert main(["verify", str(path), "--quiet"]) == 1


def spoil(path, key):
    """Change a number of a key."""
    with h5py.File(path, "r+") as file:
        file[key][0, 0] += 1

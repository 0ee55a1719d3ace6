"""`python -m splavu anonymize` and `export`, as a user calls and a machine kills them."""

import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, WIDTH
from refusals import refused

from splavu import __main__
from splavu.anonymizers import build_anonymizer
from splavu.runtime import checkpoints
from splavu.stores import FeatureStore, FolderWriter, StoreWriter

ATTRIBUTES = {"encoder": "demo"}
KILLED_AT = """
import os, signal, sys
from splavu import __main__
from splavu.stores import ordered
ordered.BYTES_AT_RISK = 1
write, written = ordered.OrderedWriter.write, []
def dying(self, item):
    written.append(item)
    if len(written) > 3:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, item)
ordered.OrderedWriter.write = dying
__main__.main(sys.argv[1:])
"""


@pytest.fixture
def world(tmp_path):
    """Adapter, and raw features in each format."""
    torch.manual_seed(0)
    anonymizer = build_anonymizer("mlp", WIDTH, identity=False)
    content = {"fa_model_state_dict": anonymizer.state_dict(), "fa_architecture": anonymizer.architecture}
    checkpoints.write(tmp_path / "aam.pth", content)
    rng, folder = np.random.default_rng(0), FolderWriter(tmp_path / "raw", attributes=ATTRIBUTES)
    with StoreWriter(tmp_path / "raw.h5", attributes=ATTRIBUTES) as store:
        for index in range(8):
            rows = rng.normal(size=(5, WIDTH))
            store.add(f"video{index}", rows)
            folder.add(f"video{index}", rows)
    return tmp_path


def write_parquet(path):
    pa = pytest.importorskip("pyarrow", reason="needs the extra 'parquet'")
    import pyarrow.parquet

    rows = np.random.default_rng(0).normal(size=(40, WIDTH)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), WIDTH)
    table = pa.table({"id": [str(i) for i in range(40)], "features": column, "skin": np.arange(40) % 3})
    pyarrow.parquet.write_table(table, path, row_group_size=5)  # eight parts


def anonymize(*arguments):
    return __main__.main(["anonymize", *map(str, arguments), "--quiet", "--device", "cpu"])


def contents(path):
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {file.relative_to(path): file.read_bytes() for file in files if file.is_file()}


@pytest.mark.parametrize("name", ["raw.h5", "raw", "raw.parquet"])
def test_killed_and_called_again_it_gives_the_same_bytes(world, name):
    if name == "raw.parquet":
        write_parquet(world / name)
    aam = ("--aam", world / "aam.pth")
    assert anonymize(*aam, world / name, world / f"whole_{name}") == 0
    target = world / f"killed_{name}"
    arguments = [str(part) for part in ("anonymize", *aam, world / name, target, "--quiet", "--device", "cpu")]
    killed = subprocess.run([sys.executable, "-c", KILLED_AT, *arguments], cwd=REPOSITORY, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not target.exists()
    assert (world / f"killed_{name}.partial/digests").stat().st_size == 3 * 32
    assert __main__.main(arguments) == 0
    assert contents(target) == contents(world / f"whole_{name}")
    assert not list(world.glob("*.partial*"))


def test_both_ways_to_name_the_output(world):
    aam = ("--aam", world / "aam.pth")
    assert anonymize(*aam, world / "raw.h5", world / "new.h5") == 0
    assert anonymize(world / "raw.h5", *aam, "--out", world / "old.h5") == 0
    assert (world / "new.h5").read_bytes() == (world / "old.h5").read_bytes()
    with refused("OUT"):
        anonymize(*aam, world / "raw.h5")
    with refused("OUT"):
        anonymize(*aam, world / "raw.h5", world / "a.h5", "--out", world / "b.h5")
    assert not [path for path in ("a.h5", "b.h5") if (world / path).exists()]


def test_a_table_loses_its_labels_unless_they_are_named(world, capsys):
    write_parquet(world / "raw.parquet")
    import pyarrow.parquet as pq

    aam = ("--aam", world / "aam.pth")
    assert anonymize(*aam, world / "raw.parquet", world / "out.parquet", "--keep", "id") == 0
    assert "skin" in capsys.readouterr().out
    assert pq.read_schema(world / "out.parquet").names == ["id", "features"]
    with refused("raw.h5", naming="Parquet"):
        anonymize(*aam, world / "raw.h5", world / "out.h5", "--keep", "id")


def test_a_saved_folder_serves_as_a_checkpoint_does(world):
    pytest.importorskip("safetensors", reason="needs the extra 'hub'")
    import splavu

    splavu.Anonymizer.from_pretrained(world / "aam.pth").save_pretrained(world / "mine")
    assert anonymize("--aam", world / "mine", world / "raw.h5", world / "one.h5") == 0
    assert anonymize("--aam", world / "aam.pth", world / "raw.h5", world / "two.h5") == 0
    assert FeatureStore(world / "one.h5").attributes == FeatureStore(world / "two.h5").attributes
    assert (world / "one.h5").read_bytes() == (world / "two.h5").read_bytes()


def test_export_says_what_it_checked(world, capsys):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="needs the extra 'onnx'")
    command = ["export", "--aam", str(world / "aam.pth"), str(world / "aam.onnx"), "--quiet"]
    assert __main__.main(command) == 0
    assert (world / "aam.onnx").stat().st_size > 2 * WIDTH * WIDTH * 4
    assert "opset 18" in capsys.readouterr().out


# What the anonymizer was fitted to, and where its features lie.


def people(seed, *, names="video", count=12):
    """Key -> [6, WIDTH], of one world."""
    directions = np.random.default_rng(0).normal(size=(6, WIDTH))
    rng = np.random.default_rng(seed)
    rows = [rng.normal(size=(6, 6)) @ directions + 0.3 * rng.normal(size=(6, WIDTH)) for _ in range(count)]
    return {f"{names}{number}": row.astype(np.float32) for number, row in enumerate(rows)}


def warnings(capsys):
    """Lines that were logged since the last call."""
    return [line for line in capsys.readouterr().err.splitlines() if "WARNING" in line]


def write_store(path, content):
    if path.suffix == ".h5":
        with StoreWriter(path, attributes=ATTRIBUTES) as store:
            for key, rows in content.items():
                store.add(key, rows)
    elif path.suffix == ".parquet":
        pa = pytest.importorskip("pyarrow", reason="needs the extra 'parquet'")
        import pyarrow.parquet

        videos = [[row.tolist() for row in rows] for rows in content.values()]
        features = pa.array(videos, pa.list_(pa.list_(pa.float32())))
        pyarrow.parquet.write_table(pa.table({"features": features}), path)
    else:
        folder = FolderWriter(path, attributes=ATTRIBUTES)
        for key, rows in content.items():
            folder.add(key, rows)


@pytest.fixture
def fitted(tmp_path):
    """Quantizers with the common floor and with none, fitted to `raw.h5`."""
    write_store(tmp_path / "raw.h5", people(1))
    for name, options in {"floor": (), "none": ("--min-subjects", "1")}.items():
        words = [
            "--raw",
            tmp_path / "raw.h5",
            "--bits",
            "4",
            "--dims",
            "4",
            "--out",
            tmp_path / f"{name}.pth",
            *options,
        ]
        assert __main__.main(["fit", "quantizer", *map(str, words), "--quiet"]) == 0
    return tmp_path


@pytest.mark.parametrize("name", ["in.h5", "in", "in.parquet"])
def test_clips_that_were_fitted_to_are_refused_below_the_floor_and_counted_above(fitted, name, capsys):
    """Three of fifteen, under other names."""
    old = {f"renamed{number}": rows for number, rows in enumerate(list(people(1).values())[:3])}
    write_store(fitted / name, people(2) | old)
    with refused(name, naming="3 of 15"):
        anonymize("--aam", fitted / "none.pth", fitted / name, fitted / f"out_{name}")
    assert not (fitted / f"out_{name}").exists()
    for words in (("--aam", fitted / "floor.pth"), ("--aam", fitted / "none.pth", "--allow-fitted")):
        warnings(capsys)
        assert anonymize(*words, fitted / name, fitted / f"{words[1].stem}_{name}") == 0
        (warning,) = warnings(capsys)
        assert "3 of 15" in warning


def test_of_strangers_nothing_is_said_but_the_distance(fitted, capsys):
    write_store(fitted / "in.h5", people(2, count=40))
    capsys.readouterr()
    assert anonymize("--aam", fitted / "none.pth", fitted / "in.h5", fitted / "out.h5") == 0
    printed = capsys.readouterr()
    assert "WARNING" not in printed.err
    assert "distance" in printed.out


@pytest.mark.parametrize("as_folder", [False, True])
def test_features_of_another_encoder_are_warned_of(fitted, capsys, as_folder):
    aam = fitted / "floor.pth"
    if as_folder:
        pytest.importorskip("safetensors", reason="needs the extra 'hub'")
        import splavu

        aam = splavu.Anonymizer.from_pretrained(aam).save_pretrained(fitted / "saved")
    order = np.random.default_rng(0).permutation(WIDTH)
    write_store(fitted / "in.h5", {key: rows[:, order] for key, rows in people(2).items()})
    assert anonymize("--aam", aam, fitted / "in.h5", fitted / "out.h5") == 0
    (warning,) = warnings(capsys)
    assert "map" in warning


def test_a_folder_to_hand_on_does_not_say_which_clips_were_fitted_to(fitted, capsys):
    pytest.importorskip("safetensors", reason="needs the extra 'hub'")
    import splavu

    saved = splavu.Anonymizer.from_pretrained(fitted / "none.pth").save_pretrained(fitted / "saved")
    from splavu.anonymizers.loading import load_anonymizer
    from splavu.release.pretrained import load_pretrained

    assert len(load_anonymizer(fitted / "none.pth").fitted_to.hashes)
    assert not len(load_pretrained(saved).fitted_to.hashes)
    assert anonymize("--aam", saved, fitted / "raw.h5", fitted / "out.h5") == 0
    assert not warnings(capsys)


def test_codes_whose_floor_nobody_recorded_are_released_with_a_warning(fitted, capsys):
    content = checkpoints.read(fitted / "floor.pth")
    del content["fa_architecture"]["support"], content["fitted_to"]
    checkpoints.write(fitted / "old.pth", content)
    assert anonymize("--aam", fitted / "old.pth", fitted / "raw.h5", fitted / "out.h5") == 0
    assert len(warnings(capsys)) == 1


def test_vectors_that_one_video_has_alone_are_counted(fitted, capsys):
    write_store(fitted / "in.h5", people(2))
    capsys.readouterr()
    assert anonymize("--aam", fitted / "floor.pth", fitted / "in.h5", fitted / "out.h5") == 0
    released = FeatureStore(fitted / "out.h5")
    owners = {}
    for key in released:
        for row in released[key]:
            owners.setdefault(row.tobytes(), set()).add(key)
    alone = sum(len(keys) == 1 for keys in owners.values())
    assert f"{len(owners)} different vectors, {100 * alone / len(owners):.1f} %" in capsys.readouterr().out

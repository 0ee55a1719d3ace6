"""No command writes over what it reads, nor over what is no regular file: refused before anything is written."""

from __future__ import annotations

import csv
import json
import os

import numpy as np
import pytest
import torch
from refusals import refused

from splavu import __main__
from splavu.anonymizers import build_anonymizer
from splavu.audit.evidence import SCHEMA
from splavu.runtime import checkpoints
from splavu.stores import FolderWriter, StoreWriter

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and pipes")
WIDTH, NUM_VIDEOS = 8, 24

INPUTS = {
    "fit": ["raw.h5", "static.h5", "labels.csv", "private.csv", "first.pth"],
    "anonymize": ["raw.h5", "first.pth"],
    "export": ["first.pth"],
    "audit-report": ["evidence.json"],
}
HOSTILE = ["a pipe", "a link to a pipe", "a link out", "an input", "a link to an input", "another name of an input"]


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Inputs of every command, small and valid; the working folder."""
    folder = tmp_path / "world"
    folder.mkdir()
    monkeypatch.chdir(folder)
    rng = np.random.default_rng(0)
    names = [f"v{video:02d}" for video in range(NUM_VIDEOS)]
    for store in ("raw.h5", "static.h5"):
        with StoreWriter(store, attributes={"encoder": "demo"}) as writer:
            for name in names:
                writer.add(name, rng.normal(size=(3, WIDTH)).astype(np.float32))
    videos = FolderWriter("long", attributes={"encoder": "demo"})
    for name in names[:3]:
        videos.add(name, rng.normal(size=(5, WIDTH)).astype(np.float32))
    for table, columns in (("labels.csv", {"label": "ab"}), ("private.csv", {"subject": names, "x": "01"})):
        with (folder / table).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["filename", *columns])
            for place, name in enumerate(names):
                writer.writerow([name, *(values[place % len(values)] for values in columns.values())])
    torch.manual_seed(0)
    network = build_anonymizer("mlp", WIDTH, identity=False)
    content = {"fa_model_state_dict": network.state_dict(), "fa_architecture": network.architecture}
    checkpoints.write("first.pth", content)
    (folder / "evidence.json").write_text(json.dumps({"schema": SCHEMA}))
    return folder


def arguments(command, target):
    """The command line that reads all of `INPUTS` and writes `target`."""
    return {
        "fit": ["fit", "eraser", "--rank", "1", "--raw", "raw.h5", "--static", "static.h5", "--labels", "labels.csv",
                "--private", "private.csv", "--after", "first.pth", "--out", target],
        "anonymize": ["anonymize", "--aam", "first.pth", "raw.h5", target],
        "anonymize a folder": ["anonymize", "--aam", "first.pth", "long", target],
        "export": ["export", target, "--aam", "first.pth"],
        "audit-report": ["audit-report", "evidence.json", "--out", target],
        "audit": ["audit", "--released", "raw.h5", "lo*", "--labels", "private.csv", "--aam", "first.pth",
                  "--out", target],
    }[command] + (["--quiet"])  # fmt: skip


def content(folder):
    def of(path):
        if path.is_symlink():
            return str(path.readlink())
        state = path.lstat()
        return path.read_bytes() if path.is_file() else (state.st_mode, state.st_ino)

    return {str(path.relative_to(folder)): of(path) for path in folder.rglob("*")}


def prepare(kind, target, source):
    """Put the hostile thing at `target`."""
    if kind == "a pipe":
        os.mkfifo(target)
    elif kind == "a link to a pipe":
        os.mkfifo(target.with_name("pipe"))
        target.symlink_to("pipe")
    elif kind == "a link out":
        outside = target.parent.parent / "outside"
        outside.write_bytes(b"someone else's")
        target.symlink_to(outside)
    elif kind == "a link to an input":
        target.symlink_to(source)
    elif kind == "another name of an input":
        target.hardlink_to(source)


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize(("command", "source"), [(name, source) for name, some in INPUTS.items() for source in some])
def test_is_refused_and_nothing_changes(world, command, source, kind):
    target = world / (source if kind == "an input" else "target")
    prepare(kind, target, source)
    before = content(world.parent)
    with refused(target.name):
        __main__.main(arguments(command, target.name))
    assert content(world.parent) == before


@pytest.mark.parametrize("target", ["long", "long/inside", ".", "raw.h5", "pipe", "link out"])
def test_a_folder_is_refused_as_well(world, target):
    os.mkfifo("pipe")
    (world.parent / "outside").mkdir()
    (world / "link out").symlink_to(world.parent / "outside")
    before = content(world.parent)
    with refused(target):
        __main__.main(arguments("anonymize a folder", target))
    assert content(world.parent) == before


@pytest.mark.parametrize("name", ["evidence.json", "report.html"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_an_audit_is_refused_before_it_begins(world, name, kind):
    (world / "out").mkdir()
    target = world / "out" / name
    if kind == "an input":
        (world / "private.csv").rename(target)
        (world / "private.csv").symlink_to(target)
    else:
        prepare(kind, target, world / "private.csv")
    before = content(world.parent)
    with refused(name):
        __main__.main(arguments("audit", "out"))
    assert content(world.parent) == before


@pytest.mark.parametrize("target", ["long", "private.csv"])
def test_an_audit_writes_into_no_store_and_below_no_file(world, target):
    before = content(world.parent)
    with refused("evidence.json"):
        __main__.main(arguments("audit", target))
    assert content(world.parent) == before


@pytest.mark.parametrize("command", ["fit", "export", "audit-report", "anonymize"])
@pytest.mark.parametrize(
    "theirs", [b"filename,label\n", b"PK\x03\x04 weights of another program", b"<!DOCTYPE html>\n"]
)
def test_a_file_of_another_program_is_refused(world, command, theirs):
    (world / "target").write_bytes(theirs)
    before = content(world.parent)
    with refused("target"):
        __main__.main(arguments(command, "target"))
    assert content(world.parent) == before


@pytest.mark.parametrize("name", ["evidence.json", "report.html"])
def test_an_audit_replaces_no_file_of_another_program(world, name):
    (world / "out").mkdir()
    (world / "out" / name).write_text('{"schema": "another"}\n')
    before = content(world.parent)
    with refused(name):
        __main__.main(arguments("audit", "out"))
    assert content(world.parent) == before


@pytest.mark.parametrize("command", ["fit", "anonymize", "anonymize a folder", "audit-report"])
def test_the_same_command_writes_an_ordinary_target(world, command):
    """The opposite: what was refused above is refused for its target alone."""
    before = content(world)
    assert __main__.main(arguments(command, "target")) == 0
    after = content(world)
    assert {name: after[name] for name in before} == before
    assert "target" in after
    if command != "anonymize a folder":  # an existing file is replaced
        assert __main__.main(arguments(command, "target")) == 0

"""Damaged videos and images through every reader that works here, a few of them: see `fuzzing` for all."""

from __future__ import annotations

import os
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

av = pytest.importorskip("av")
pytest.importorskip("cv2")

import fuzzing  # noqa: E402  needs av and cv2


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[fuzzing.Damaged]:
    folder = tmp_path_factory.mktemp("fuzz")
    return fuzzing.damaged_files(fuzzing.write_good_files(folder), folder, count=60, seed=20260101)


@pytest.mark.parametrize("reader", fuzzing.usable_readers())
def test_damaged_files_are_decoded_or_reported(files, reader):
    found = fuzzing.verdicts(files, reader, limit=20)
    assert len(found) > 10
    faults = [f"{file.source}, {file.damage}: {verdict}" for file, verdict in found if verdict.is_fault]
    assert not faults, "\n".join(faults)
    assert {verdict.outcome for _, verdict in found} == {"decoded", "reported"}
    for file, verdict in found:
        if file.damage in ("empty", "noise"):
            assert verdict.outcome == "reported", (file, verdict)


def test_files_repeat_with_the_seed_and_every_damage_meets_every_file(tmp_path):
    good = fuzzing.write_good_files(tmp_path)
    pairs = len(good) * len(fuzzing.DAMAGES)
    drawn = []
    for seed, name in ((0, "a"), (0, "b"), (1, "c")):
        (tmp_path / name).mkdir()
        files = fuzzing.damaged_files(good, tmp_path / name, count=pairs, seed=seed)
        assert len({(file.source, file.damage) for file in files}) == pairs
        drawn.append([file.path.read_bytes() for file in files])
    assert drawn[0] == drawn[1] != drawn[2]


def test_another_exception_is_a_fault(monkeypatch):
    """One that is no UserError, and one that is but does not name the file in its one line."""
    for error in (KeyError("width"), fuzzing.UserError("another.png", "damaged")):
        monkeypatch.setattr(fuzzing, "read_image", mock.Mock(side_effect=error))
        assert fuzzing._verdict(Path("a.png"), fuzzing.IMAGES).outcome == "failed"
    monkeypatch.setattr(fuzzing, "read_image", lambda path: np.zeros((2, 2, 3)))
    assert "float64" in fuzzing._verdict(Path("a.png"), fuzzing.IMAGES).detail


def test_a_reader_that_dies_or_sleeps_is_replaced(monkeypatch):
    monkeypatch.setattr(fuzzing, "_serve", misbehaving)
    watched = fuzzing.Watched(fuzzing.IMAGES, limit=0.5)
    try:
        outcomes = [watched.verdict(Path(name)).outcome for name in ("fine", "die", "sleep", "fine")]
    finally:
        watched.close()
    assert outcomes == ["decoded", "crashed", "hung", "decoded"]


def misbehaving(connection, reader) -> None:
    connection.send(None)
    while (path := connection.recv()) is not None:
        if path.name == "die":
            os.abort()
        if path.name == "sleep":
            time.sleep(60)
        connection.send(fuzzing.Verdict("decoded", ""))

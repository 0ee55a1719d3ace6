"""docs/audit.md, command by command, on a small store whose features give two attributes away."""

from __future__ import annotations

import csv
import json
import re
import shlex
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY

from splavu.__main__ import main
from splavu.audit.attributes.threat_models import KNOWS
from splavu.audit.report.page import VERDICTS
from splavu.stores import StoreWriter

TUTORIAL = (REPOSITORY / "docs/audit.md").read_text()
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", TUTORIAL, re.S) for line in block.splitlines() if line]
WIDTH = 24
SPLITS = ("train",) * 8 + ("val",) * 4 + ("test",) * 6


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    """Three videos each of 36 people; gender is the person's, glasses the video's, both lie on axes of their own. The
    secret of the keys is given, so that each run releases the same."""
    rng = np.random.default_rng(0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "released.h5.secret").write_text("07" * 32 + "\n")
    with (
        StoreWriter(tmp_path / "features.h5", attributes={"encoder": "hf"}) as features,
        (tmp_path / "labels.csv").open("w", newline="") as file,
    ):
        rows = csv.writer(file)
        rows.writerow(["filename", "subject", "split", "gender", "glasses"])
        for person in range(36):
            gender, identity = person % 2, rng.normal(size=WIDTH) * 0.3
            for video in range(3):
                glasses = int(rng.integers(0, 2))
                clips = identity + rng.normal(size=(2, WIDTH))
                clips[:, 0] += 4 * gender
                clips[:, 1] += 4 * glasses
                features.add(f"p{person:02d}_{video}", clips.astype(np.float32))
                rows.writerow([f"p{person:02d}_{video}.mp4", f"p{person:02d}", SPLITS[person // 2], gender, glasses])
    return tmp_path


def test_the_tutorial(store, capsys):
    assert len(COMMANDS) == 5
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        assert (program, arguments[:2]) == ("python", ["-m", "splavu"])
        more = ["--workers", "1"] if arguments[2] == "audit" else []
        code = main([*arguments[2:], *more, "--device", "cpu", "--quiet"])
        assert code == 0, f"{command}\n{capsys.readouterr().out}"
    evidence = json.loads((store / "audit/evidence.json").read_text())
    assert evidence["valid"]
    assert [one["name"] for one in evidence["attributes"]] == ["gender", "glasses"]
    assert evidence["people"]["test"] == {"clips": 72, "videos": 36, "persons": 12}
    # What lies on a line is erased by it. Of 12 persons the audit can't say as much: its interval reaches further down.
    assert evidence["headline"]["by_unit"]["clip"]["value"] > 0.5
    assert evidence["headline"]["reduction"]["high"] > 0.5
    assert (store / "report.html").read_bytes() == (store / "audit/report.html").read_bytes()
    ET.fromstring((store / "report.html").read_text().partition("\n")[2])


def test_the_tutorial_knows_what_the_audit_says():
    for name in (*VERDICTS, *(name for name in KNOWS if name != "served alone")):
        assert f"\n| {name} |" in TUTORIAL
    for link in re.findall(r"\]\((\S+?)\)", TUTORIAL):
        assert (REPOSITORY / "docs" / link).is_file(), link

"""The README's recipe for one's own features, command by command; the demo encoder stands for VideoMAE.

Features that the demo encoder makes of tiny videos are too few to fit to, so a made-up store takes their place after
the first command.
"""

from __future__ import annotations

import csv
import importlib
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from test_your_data import write_video

import splavu
from splavu.__main__ import main
from splavu.data.key_map import read_key_map
from splavu.stores import StoreWriter, open_features

README = (REPOSITORY / "README.md").read_text()
RECIPE = README[README.index("## Protect your own features") : README.index("## Read on")]
COMMANDS = [line.strip() for block in re.findall(r"```bash\n(.*?)```", RECIPE, re.S) for line in block.splitlines()]
COMMANDS = [line for line in COMMANDS if line]
WIDTH, SUBJECTS, ACTIONS = 96, 64, 4


def write_stores(folder: Path) -> None:
    """Clips show the action and, like the stills of their video, the subject, whose gender is an axis of its own."""
    rng = np.random.default_rng(0)
    actions = 3 * rng.normal(size=(ACTIONS, WIDTH))
    for name in ("features.h5", "features_fb10.h5"):
        (folder / name).unlink()
    with (
        StoreWriter(folder / "features.h5", attributes={"encoder": "hf"}) as clips,
        StoreWriter(folder / "features_fb10.h5", attributes={"encoder": "hf"}) as static,
        (folder / "actions.csv").open("w", newline="") as labels,
        (folder / "subjects.csv").open("w", newline="") as subjects,
        (folder / "private_labels.csv").open("w", newline="") as private,
    ):
        labels, subjects, private = csv.writer(labels), csv.writer(subjects), csv.writer(private)
        labels.writerow(["filename", "label"])
        subjects.writerow(["filename", "subject", "split"])
        private.writerow(["filename", "subject", "split", "gender"])
        for subject in range(SUBJECTS):
            split = ("train", "test", "train", "val")[subject // 2 % 4]
            looks = 0.3 * rng.normal(size=WIDTH)
            looks[0] += 4 * (subject % 2)
            for video in range(ACTIONS):
                key = f"s{subject:02d}_{video}"
                shown = looks + actions[video]
                clips.add(key, (shown + rng.normal(size=(8, WIDTH))).astype(np.float32))
                static.add(key, (looks + rng.normal(size=(10, WIDTH))).astype(np.float32))
                labels.writerow([f"{key}.mp4", f"action{video}"])
                subjects.writerow([f"{key}.mp4", f"s{subject:02d}", split])
                private.writerow([f"{key}.mp4", f"s{subject:02d}", split, subject % 2])


@pytest.mark.slow
def test_the_recipe_of_the_readme(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        write_video(tmp_path / f"VIDEOS/video{number}.mp4", seed=number)
    assert len(COMMANDS) == 6
    protect, extract, *others = COMMANDS
    program, script, *arguments = shlex.split(extract.replace("videoMAE", "demo"))
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    assert (program, module.main([*arguments, "--workers", "0", "--device", "cpu", "--quiet"])) == ("python", 0)
    assert len(open_features("features.h5")) == 3
    assert open_features("features_fb10.h5")["video0"].shape == (10, 192)

    write_stores(tmp_path)
    # Videos of so many subjects would take minutes to extract; test_protect_command.py has the way from videos.
    protect = protect.replace("VIDEOS", "--features features.h5 --static features_fb10.h5")
    for command in (*others, protect):
        program, *arguments = shlex.split(command)
        assert (program, arguments[:2]) == ("python", ["-m", "splavu"])
        more = ["--workers", "1"] if arguments[2] == "audit" else []
        code = main([*arguments[2:], *more, "--device", "cpu", "--quiet"])
        assert code == 0, f"{command}\n{capsys.readouterr().out}"
    assert (tmp_path / "audit/report.html").is_file()
    assert json.loads((tmp_path / "audit/evidence.json").read_text())["valid"]
    assert json.loads((tmp_path / "protected/audit/evidence.json").read_text())["valid"]
    assert (tmp_path / "protected/report.html").is_file()

    (python,) = re.findall(r"`(splavu\.Anonymizer[^`]+)`", RECIPE)
    raw = open_features("features.h5")["s00_0"]
    released = eval(python, {"splavu": splavu, "X": raw})
    name = read_key_map("released.h5.keys.csv").released_of["s00_0"]
    np.testing.assert_array_equal(released, open_features("released.h5")[name])

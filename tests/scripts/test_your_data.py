"""The recipe of docs/your-data.md, command by command, on tiny videos; the demo encoder stands for VideoMAE."""

from __future__ import annotations

import csv
import importlib
import re
import shlex
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import REPOSITORY

from splavu.__main__ import STUDY_COMMANDS
from splavu.data.labels import VISPR_ATTRIBUTES

RECIPE = (REPOSITORY / "docs/your-data.md").read_text()
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", RECIPE, re.S) for line in block.splitlines() if line]
BRIEF = {
    "feature_extraction_action": ["--workers", "0"],
    "long_videos": ["--workers", "0"],
    "train_ft": ["--set", "num_epochs=2"],
    "multitask_train_fa": ["--set", "num_epochs=1", "--set", "batch_size_ar=4", "--set", "num_heads=4"],
    "privacy_eval": ["--set", "attackers=('logistic',)", "--set", "seeds=(0,)", "--set", "num_resamples=20"],
}
"""What a tiny run adds to a command of the recipe."""
PEOPLE = {f"p{n}": ("train", "val", "test", "train")[n % 4] for n in range(12)}


def write_video(path: Path, *, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    still = np.random.default_rng(seed).integers(0, 255, (6, 8, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shift in range(16):
            frame = np.ascontiguousarray(np.roll(still, shift, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def gym(tmp_path, monkeypatch) -> Path:
    """Step 1 of the recipe, and a working folder that has the repository's params."""
    import config

    folder = tmp_path / "data/gym"
    folder.mkdir(parents=True)
    (tmp_path / "params").symlink_to(REPOSITORY / "params")
    with (
        (folder / "labels.csv").open("w", newline="") as labels,
        (folder / "private_labels.csv").open("w", newline="") as private,
    ):
        labels, private = csv.writer(labels), csv.writer(private)
        labels.writerow(["filename", "label", "subject", "split"])
        private.writerow(["filename", "subject", *VISPR_ATTRIBUTES])
        for number, (person, split) in enumerate(PEOPLE.items()):
            for label in ("lunge", "squat"):
                name = f"{person}_{label}.mp4"
                write_video(folder / "videos" / person / name, seed=2 * number + (label == "squat"))
                labels.writerow([f"{person}/{name}", label, person, split])
                private.writerow([name, person, *np.random.default_rng(number // 2).integers(0, 2, 2), 0, 0, 0, 0, 0])
    for name, place in {"DATA": "data", "FEATURES": "data/features", "RUNS": "saved_models"}.items():
        monkeypatch.setattr(config, name, tmp_path / place)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str) -> int:
    """`python SCRIPT ...` or `python -m splavu ...`, in this process."""
    program, *args = shlex.split(command.replace("videoMAE", "demo").replace("_mae", "_demo"))
    assert program == "python"
    if args[:2] == ["-m", "splavu"]:
        package = "study" if args[2] in STUDY_COMMANDS else "splavu"
        return importlib.import_module(f"{package}.__main__").main([*args[2:], "--quiet"])
    module = args[0].removesuffix(".py").replace("/", ".")
    brief = BRIEF[module.rpartition(".")[2]]
    architecture = [] if "feature_extraction" in module else ["--set", "ft_arch=demo"]
    anyway = ["--anyway"] if module == "privacy_eval" else []  # three test subjects can decide nothing
    return importlib.import_module(module).main(
        [*args[1:], *architecture, *brief, *anyway, "--quiet", "--device", "cpu"]
    )


def test_the_recipe(gym, capsys):
    assert len(COMMANDS) == 12
    for command in COMMANDS:
        code = run(command)
        told = capsys.readouterr().out
        assert code in ((4,) if "privacy_eval" in command else (0,)), f"{command}\n{told}"
    assert "24 keys" in told, "the last one verifies both ways to extract a plain folder"
    assert (gym / "gym_released.h5").is_file()
    assert (gym / "saved_models/gym_raw/results.json").is_file()
    assert (gym / "saved_models/gym_audit/metrics.json").is_file()


def test_files_named_in_the_recipe_are_those_the_code_reads():
    for name in ("labels.csv", "private_labels.csv", "SHA256SUMS", *VISPR_ATTRIBUTES):
        assert name in RECIPE
    for link in re.findall(r"\]\((\S+?)\)", RECIPE):
        assert (REPOSITORY / "docs" / link.partition("#")[0]).is_file(), link

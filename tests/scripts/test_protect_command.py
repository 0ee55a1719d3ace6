"""`splavu protect`: from videos or a store to a release and a page, resumed, repeated by its commands, or refused."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from refusals import refused
from test_your_data import write_video

from splavu.__main__ import main
from splavu.data.key_map import read_key_map
from splavu.stores import StoreWriter, open_features

WIDTH = 32
ACTIONS = ("box", "jump", "wave")


def write_world(folder: Path, num_subjects: int, *, first: int = 0) -> None:
    """raw.h5, static.h5, actions.csv and private.csv of subjects p0, p1, ..., three videos each; more may be added."""
    rng = np.random.default_rng(first)
    basis = np.random.default_rng(99).normal(size=(6, WIDTH))
    rows = []
    with (
        StoreWriter(folder / "raw.h5", attributes={"encoder": "made up"}) as raw,
        StoreWriter(folder / "static.h5", attributes={"encoder": "made up"}) as static,
    ):
        for number in range(first, first + num_subjects):
            looks = rng.normal(size=WIDTH) + 2 * (number % 2) * basis[5]
            for place, action in enumerate(ACTIONS):
                key = f"p{number}_{action}"
                clips = 4 * basis[place] + looks + rng.normal(size=(2, WIDTH))
                raw.add(key, clips.astype(np.float32))
                static.add(key, (looks + 0.3 * rng.normal(size=(4, WIDTH))).astype(np.float32))
                rows.append((f"{key}.mp4", action, f"p{number}", number % 2))
    kept = []
    if (folder / "rows.json").exists():
        kept = json.loads((folder / "rows.json").read_text())
    rows = [*kept, *map(list, rows)]
    (folder / "rows.json").write_text(json.dumps(rows))
    for name, columns in (("actions", (0, 1)), ("private", (0, 2, 3))):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow([("filename", "label", "subject", "tall")[column] for column in columns])
            table.writerows([row[column] for column in columns] for row in rows)


@pytest.fixture
def world(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_world(tmp_path, 25)
    return tmp_path


@pytest.fixture(scope="module")
def audited(tmp_path_factory) -> tuple[Path, str]:
    """A folder in which all was done once, audit and all, and what was told; tests copy it."""
    folder = tmp_path_factory.mktemp("audited")
    write_world(folder, 25)
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(told):
        patched.chdir(folder)
        assert protect(*STORE, *BOTH) == 0
    return folder, told.getvalue()


STORE = ["--features", "raw.h5", "--static", "static.h5"]
BOTH = ["--actions", "actions.csv", "--private", "private.csv"]
ACTIONS_ONLY = ["--actions", "actions.csv", "--subjects", "private.csv"]
CHECKPOINTS = ("eraser.pth", "codes.pth")


def protect(*words: str, out: str = "out") -> int:
    return main(["protect", *words, "--out", out, "--quiet", "--device", "cpu"])


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes; of the evidence all but the seconds that the audit took, and not its page, which says them too."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found.pop("audit/report.html", None)
    for name in found:
        if name.endswith(("evidence.json", "protect.json")):
            found[name] = re.sub(rb'"seconds": [\d.]+', b"", found[name])
    return found


def test_a_store_is_protected_audited_and_described(audited):
    world, told = audited
    assert "75 videos, 150 clips, 25 subjects, 3 actions" in told
    out = world / "out"
    raw, released = open_features(world / "raw.h5"), open_features(out / "released.h5")
    keys = read_key_map(out / "released.h5.keys.csv")
    assert {keys.raw(key) for key in released} == set(raw)
    with (out / "subjects.csv").open() as file:
        split = {row["subject"]: row["split"] for row in csv.DictReader(file)}
    assert sorted(split.values()).count("train") == 15

    supporters: dict[bytes, set[str]] = {}
    for key in released:
        if split[subject := keys.raw(key).split("_")[0]] == "train":
            for row in released[key]:
                supporters.setdefault(row.tobytes(), set()).add(subject)
    assert len(supporters) > 2
    assert min(map(len, supporters.values())) >= 5, "each released vector stands for five subjects that were fitted to"

    evidence = json.loads((out / "audit/evidence.json").read_text())
    assert evidence["valid"]
    tested = {name for name, side in split.items() if side == "test"}
    assert evidence["people"]["test"]["persons"] == len(tested) == 10
    assert not [warning for warning in evidence["warnings"] if "was fitted to" in warning]
    use = json.loads((out / "use.json").read_text())
    assert use["raw"]["value"] > 0.9 > use["raw"]["chance"]
    assert use["lost"]["low"] <= use["lost"]["value"] <= use["lost"]["high"]

    page = (out / "report.html").read_text()
    for command in re.findall(r"^\$ (.*)$", told, re.M):
        assert command.replace("&", "&amp;") in page
    for part in ("What it leaks", "What it costs in use", "What could not be judged", "released.h5.secret", "tall"):
        assert part in page
    assert "p24" not in page, "no subject is named"


def test_its_commands_one_by_one_give_the_same_bytes(audited, tmp_path, monkeypatch):
    world = Path(shutil.copytree(audited[0], tmp_path / "world"))
    monkeypatch.chdir(world)
    commands = re.findall(r"^\$ python -m splavu (.*)$", audited[1], re.M)
    assert [shlex.split(one)[0] for one in commands] == ["fit", "fit", "anonymize", "audit", "probe"]
    before = contents(world / "out")
    made = ("eraser.pth", "codes.pth", "released.h5", "released.h5.keys.csv", "use.json", "audit/evidence.json")
    for name in made:
        (world / "out" / name).unlink()
    for command in commands:
        assert main([*shlex.split(command), "--quiet"]) == 0
    after = contents(world / "out")
    assert {name for name in before if before[name] != after.get(name)} == set()


def test_the_same_command_again_does_nothing(audited, tmp_path, monkeypatch, capsys):
    shutil.copytree(audited[0], tmp_path / "world")
    monkeypatch.chdir(tmp_path / "world")
    before = contents(Path("out"))
    assert protect(*STORE, *BOTH) == 0
    assert capsys.readouterr().out.count("done before") == 5
    assert contents(Path("out")) == before


def test_after_a_stop_the_rest_is_done_and_gives_the_same_bytes(world, monkeypatch):
    from splavu.commands import anonymize, fit

    assert protect(*STORE, *ACTIONS_ONLY) == 0
    whole = contents(world / "out")
    for name in ("released.h5", "released.h5.keys.csv", "use.json", "protect.json", "report.html", *CHECKPOINTS):
        (world / "out" / name).unlink()  # the secret stays
    with monkeypatch.context() as patched:
        patched.setattr(anonymize, "run", lambda args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            protect(*STORE, *ACTIONS_ONLY)
    assert not (world / "out/released.h5").exists()
    with monkeypatch.context() as patched:
        patched.setattr(fit, "run", lambda args: pytest.fail("fitted again"))
        assert protect(*STORE, *ACTIONS_ONLY) == 0
    assert contents(world / "out") == whole


def test_videos_that_come_later_get_the_same_codes_and_old_ones_keep_theirs(world):
    assert protect(*STORE, *ACTIONS_ONLY) == 0
    before, codes = open_features("out/released.h5"), (world / "out/codes.pth").read_bytes()
    old = {key: before[key].tobytes() for key in before}
    split = (world / "out/subjects.csv").read_text().splitlines()
    write_world(world, 2, first=25)
    assert protect(*STORE, *ACTIONS_ONLY) == 0
    after = open_features("out/released.h5")
    assert len(after) == len(old) + 6
    assert {key: after[key].tobytes() for key in old} == old
    assert (world / "out/codes.pth").read_bytes() == codes
    now = (world / "out/subjects.csv").read_text().splitlines()
    assert set(split) <= set(now)
    assert {line.rpartition(",")[2] for line in set(now) - set(split)} == {"test"}


def test_without_tables_videos_count_and_what_is_unknown_is_said(world, capsys):
    assert protect(*STORE) == 0
    assert "not judged" in capsys.readouterr().out
    page = (world / "out/report.html").read_text()
    assert "every video counts as a subject of its own" in page
    assert "was not measured" in page
    assert not (world / "out/audit").exists()
    assert "subject" not in (world / "out/subjects.csv").read_text()


def test_without_static_clips_nothing_is_erased(world):
    assert protect("--features", "raw.h5", *ACTIONS_ONLY) == 0
    assert not (world / "out/eraser.pth").exists()
    assert "Nothing was erased" in (world / "out/report.html").read_text()


def test_too_few_test_subjects_are_undecided_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_world(tmp_path, 14)
    assert protect(*STORE, *BOTH) == 4
    told = capsys.readouterr().out
    assert told.index("undecided") < told.index("$ python")
    assert not (tmp_path / "out/audit").exists()
    assert "undecided" in (tmp_path / "out/report.html").read_text()


def test_too_little_is_refused_in_one_line_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        write_video(tmp_path / "videos" / f"v{number}.mp4", seed=number)
    with refused("videos", naming=("3 videos", "12 subjects", "9 more")):
        protect("videos", "--encoder", "demo")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_done_is_refused_before_any_work(world):
    (world / "few.csv").write_text("filename,subject\np0_box,anna\n")
    (world / "none.csv").write_text("filename,subject\nsomeone else,anna\n")
    for culprit, words in (
        ("--bits", [*STORE, *BOTH, "--bits", "9"]),
        ("--min-subjects", [*STORE, *BOTH, "--min-subjects", "3"]),
        ("raw.h5", [*STORE, *BOTH, "--min-subjects", "20"]),
        ("few.csv", [*STORE, "--subjects", "few.csv"]),
        ("none.csv", [*STORE, "--subjects", "none.csv"]),
        ("VIDEOS", ["videos", *STORE]),
        ("--static", ["videos", "--static", "static.h5"]),
        ("private.csv", [*STORE, *BOTH, "--attributes", "nothing"]),
    ):
        with refused(culprit):
            protect(*words)
        assert not (world / "out").exists(), words


def test_a_folder_holds_one_release(world):
    assert protect(*STORE, *ACTIONS_ONLY) == 0
    for words in (["--bits", "1"], ["--min-subjects", "6"]):
        with refused("out"):
            protect(*STORE, *ACTIONS_ONLY, *words)
    with refused("released.h5"):
        protect("--features", "out/released.h5", out="again")


def test_videos_are_extracted_with_static_clips(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number in range(34):
        write_video(tmp_path / "videos" / f"v{number}.mp4", seed=number)
    (tmp_path / "videos/broken.mp4").write_bytes(b"no video")
    assert protect("videos", "--encoder", "demo") == 1, "one video can't be read"
    told = capsys.readouterr().out
    assert "about 1 minute" in told
    assert "broken" in (tmp_path / "out/report.html").read_text()
    assert len(open_features("out/features.h5")) == 34
    assert open_features("out/features_fb10.h5")["v0"].shape == (10, 192)
    command = next(line for line in told.splitlines() if "splavu extract" in line).removeprefix("$ python -m splavu ")
    first = (tmp_path / "out/features.h5").read_bytes()
    (tmp_path / "out/features.h5").unlink()
    assert main([*shlex.split(command), "--quiet"]) == 1
    assert (tmp_path / "out/features.h5").read_bytes() == first

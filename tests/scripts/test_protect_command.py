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
from conftest import REPOSITORY
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
    """A folder in which all was done once, audit and all, and what was shown; tests copy it."""
    folder = tmp_path_factory.mktemp("audited")
    write_world(folder, 25)
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(shown):
        patched.chdir(folder)
        assert protect(*STORE, *BOTH) == 0
    return folder, shown.getvalue()


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
    world, shown = audited
    assert "75 videos, 150 clips, 25 subjects, 3 actions" in shown
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
    for command in re.findall(r"^\$ (.*)$", shown, re.M):
        assert command.replace("&", "&amp;") in page
    for part in (
        "What it leaks",
        "What it costs in use",
        "What could not be judged",
        "released.h5.secret",
        "tall",
        "was fitted to",
    ):
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
    shown = capsys.readouterr().out
    assert shown.index("undecided") < shown.index("$ python")
    assert not (tmp_path / "out/audit").exists()
    assert "undecided" in (tmp_path / "out/report.html").read_text()


def test_too_little_is_refused_in_one_line_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        write_video(tmp_path / "videos" / f"v{number}.mp4", seed=number)
    with refused("videos", naming=("3 videos", "12 subjects", "9 more subjects")):
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


def test_the_commands_of_the_docs(audited, tmp_path, monkeypatch, capsys):
    """docs/protect.md as typed, on tiny videos; the demo encoder stands for VideoMAE."""
    monkeypatch.chdir(tmp_path)
    names = ["anna", *(f"p{number}" for number in range(11))]
    videos = [f"{name}_{action}" for name in names for action in ("jump", "run")]
    for number, video in enumerate(videos):
        write_video(tmp_path / "VIDEOS" / f"{video}.mp4", seed=number)
    (tmp_path / "VIDEOS/broken.mp4").write_bytes(b"no video")
    (tmp_path / "actions.csv").write_text("filename,label\n" + "".join(f"{v},{v.split('_')[1]}\n" for v in videos))
    rows = (f"{v},{v.split('_')[0]},{v.startswith('p1'):d}\n" for v in videos)
    (tmp_path / "private.csv").write_text("filename,subject,tall\n" + "".join(rows))
    blocks = re.findall(r"```bash\n(.*?)```", (REPOSITORY / "docs/protect.md").read_text(), re.S)
    first, *others = [line.removeprefix("python -m splavu ") for block in blocks for line in block.splitlines()]
    assert len(others) == 4
    assert main([*shlex.split(first), "--encoder", "demo", "--quiet"]) == 4, "two test subjects decide nothing"
    shown = capsys.readouterr().out
    assert "about 1 min" in shown
    assert "broken" in (tmp_path / "protected/report.html").read_text()
    assert len(open_features("protected/features.h5")) == 24
    assert open_features("protected/features_fb10.h5")["anna_run"].shape == (10, 192)
    command = next(line for line in shown.splitlines() if "splavu extract" in line).removeprefix("$ python -m splavu ")
    features = (tmp_path / "protected/features.h5").read_bytes()
    (tmp_path / "protected/features.h5").unlink()
    assert main([*shlex.split(command), "--quiet"]) == 1, "one video can't be read"
    assert (tmp_path / "protected/features.h5").read_bytes() == features
    shutil.copytree(audited[0] / "out/audit", tmp_path / "protected/audit")
    shutil.copytree(audited[0] / "out/audit", tmp_path / "before")
    for line in others:
        assert main([*shlex.split(line), "--quiet"]) in (0, 1)
    assert "unclear" in capsys.readouterr().out
    assert len(open_features("without_anna/released.h5")) == 22
    assert len(open_features("renewed.h5")) == 24
    (tmp_path / "VIDEOS/anna_run.mp4").unlink()
    with refused("features.h5", naming="anna_run"):
        main([*shlex.split(first), "--encoder", "demo", "--quiet"])


def released_rows(path: str, keys: str) -> dict[str, bytes]:
    """Raw key -> released features."""
    found, store = read_key_map(keys), open_features(path)
    return {found.raw(key): store[key].tobytes() for key in store}


def test_a_subject_is_taken_out_and_others_keep_their_keys(world, capsys):
    assert protect(*STORE, *ACTIONS_ONLY) == 0
    with (world / "out/subjects.csv").open() as file:
        split = {row["subject"]: row["split"] for row in csv.DictReader(file)}
    before = open_features("out/released.h5")
    old = {key: before[key].tobytes() for key in before}
    for side in ("test", "train"):
        who = next(subject for subject in split if split[subject] == side)
        files = ["--raw", "raw.h5", "--static", "static.h5", "--subjects", "out/subjects.csv", "--aam", "out/codes.pth"]
        assert main(["withdraw", who, *files, "--out", side, "--quiet"]) == 0
        assert ("fitted to none of their 3 videos" in capsys.readouterr().out) == (side == "test")
        assert len(open_features(f"{side}/static.h5")) == 72
        anonymize = ["anonymize", "--aam", "out/codes.pth", f"{side}/raw.h5", f"{side}/released.h5", "--keys", "secret"]
        assert main([*anonymize, "--secret", "out/released.h5.secret", "--quiet"]) == 0
        after = open_features(f"{side}/released.h5")
        assert {key: after[key].tobytes() for key in after}.items() <= old.items()
        names = read_key_map(f"{side}/released.h5.keys.csv").released_of
        assert len(names) == 72
        assert not [key for key in names if key.startswith(f"{who}_")]
        again = ["--raw", f"{side}/raw.h5", "--subjects", "out/subjects.csv"]
        with refused("subjects.csv", naming=who):
            main(["withdraw", who, *again, "--out", "again", "--quiet"])
        assert not (world / "again").exists()


def test_when_too_few_are_left_behind_a_code_it_has_to_be_fitted_again(world, capsys):
    assert protect(*STORE, *ACTIONS_ONLY) == 0
    with (world / "out/subjects.csv").open() as file:
        fitted = sorted({row["subject"] for row in csv.DictReader(file) if row["split"] == "train"})
    words = ["--raw", "raw.h5", "--subjects", "out/subjects.csv", "--aam", "out/codes.pth"]
    assert main(["withdraw", *fitted[:-4], *words, "--out", "left", "--quiet"]) == 1
    assert "fit it again to the 4 others" in capsys.readouterr().out


def test_another_key_gives_the_same_features_under_other_names(world):
    assert protect(*STORE, *ACTIONS_ONLY) == 0
    words = ["anonymize", "--aam", "out/codes.pth", "raw.h5", "renewed.h5", "--keys", "secret", "--quiet"]
    assert main(words) == 0
    old = released_rows("out/released.h5", "out/released.h5.keys.csv")
    assert released_rows("renewed.h5", "renewed.h5.keys.csv") == old
    assert not set(open_features("renewed.h5")) & set(open_features("out/released.h5"))


def test_two_audits_are_compared(audited, tmp_path, capsys):
    now = audited[0] / "out/audit/evidence.json"
    path = tmp_path / "before.json"
    path.write_text(now.read_text())
    words = ["audit-report", str(now), "--out", str(tmp_path / "page.html"), "--quiet", "--against", str(path)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "unclear" in shown
    assert "0.00 [0.00, 0.00]" in shown, "an audit is no other than itself"
    assert max(map(len, shown.splitlines()[1:])) <= 100, shown
    path.write_text(json.dumps({**json.loads(now.read_text()), "headline": {}}))
    with refused(path):
        main(words)

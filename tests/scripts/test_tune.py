"""`splavu tune`: what it measures on held-out subjects, what it writes, and what it refuses."""

import csv
import shlex

import numpy as np
import pytest
from refusals import refused

from splavu.__main__ import main
from splavu.anonymizers.loading import load_anonymizer
from splavu.stores import StoreWriter

WIDTH, SUBJECTS, ACTIONS, CLIPS = 24, 18, 4, 3


def store(path, rows):
    with StoreWriter(path, attributes={"encoder": "demo"}) as writer:
        for key, features in rows.items():
            writer.add(key, features.astype(np.float32))


def table(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_world(folder, *, subjects=SUBJECTS, seed=0):
    """Clips in which actions, a subject's look, and one attribute of the look lie in directions of their own."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    actions = 3 * np.eye(ACTIONS, WIDTH)
    videos, static, of = {}, {}, {}
    for subject in range(subjects):
        look = np.zeros(WIDTH)
        look[8:14] = 2 * rng.normal(size=6)
        look[14] = 4 * (subject % 2)
        for action in range(ACTIONS):
            key = f"s{subject:02d}_a{action}"
            look_here = look + 0.2 * rng.normal(size=WIDTH)
            videos[key] = actions[action] + look_here + 0.5 * rng.normal(size=(CLIPS, WIDTH))
            static[key] = look_here[None] + 0.2 * rng.normal(size=(1, WIDTH))
            of[key] = subject, action
    store(folder / "raw.h5", videos)
    store(folder / "fb.h5", static)
    table(folder / "actions.csv", ["filename", "label"], [[key, f"action {a}"] for key, (_, a) in of.items()])
    table(folder / "subjects.csv", ["filename", "subject"], [[key, f"p{s}"] for key, (s, _) in of.items()])
    table(folder / "private.csv", ["filename", "tall"], [[key, s % 2] for key, (s, _) in of.items()])


def arguments(folder, *extra):
    files = {"--raw": "raw.h5", "--labels": "actions.csv", "--subjects": "subjects.csv"}
    words = [word for flag, name in files.items() for word in (flag, str(folder / name))]
    return ["tune", *words, "--out", str(folder / "tuned"), "--workers", "1", "--quiet", *map(str, extra)]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A world, tuned with all its files: the folder, the exit code and what was printed."""
    folder = tmp_path_factory.mktemp("tune")
    write_world(folder)
    extra = ["--static", folder / "fb.h5", "--private", folder / "private.csv", "--lose", 5]
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        code = main(arguments(folder, *extra, "--methods", "eraser,leace,pca,quantizer"))
    return folder, code, "\n".join(lines)


def rows_of(folder):
    with (folder / "tuned" / "tune.csv").open() as file:
        return {row["point"]: row for row in csv.DictReader(file)}


def test_the_chosen_point_is_the_least_leakage_within_what_may_be_lost(tuned):
    folder, code, _ = tuned
    rows = rows_of(folder)
    assert code == 0
    (best,) = (name for name, row in rows.items() if row["chosen"] == "1")

    def worst(row):
        return max(float(row[name]) for name in row if name.startswith("leakage") and name.count(" ") == 2)

    kinds = [name for name in rows["raw"] if name.startswith("leakage") and not name.endswith((" low", " high"))]
    allowed = {
        name: max(float(row[kind]) for kind in kinds)
        for name, row in rows.items()
        if name != "raw" and not row["refused"]
        and all(float(row[f"{use} lost"]) <= 0.05 for use in ("actions", "unseen"))
    }  # fmt: skip
    assert allowed[best] == min(allowed.values())
    assert all(float(rows["raw"][kind]) == 1 for kind in kinds)
    assert float(rows["raw"]["actions"]) > 0.9


def test_what_hides_the_look_leaks_less_than_what_does_not(tuned):
    """Erasing what static clips show hides the attribute and the subject; keeping large variance hides neither."""
    rows = rows_of(tuned[0])
    for kind in ("leakage, attributes, clip", "leakage, same subject"):
        assert float(rows["eraser(rank=8)"][kind]) < 0.5 < float(rows["pca(keep=16)"][kind])


def test_the_printed_commands_fit_the_chosen_point(tuned, tmp_path):
    folder, _, printed = tuned
    commands = [line for line in (folder / "tuned" / "fit.sh").read_text().splitlines() if line.startswith("splavu")]
    assert commands
    assert all(line in printed for line in commands)
    for line in commands:
        assert main([*shlex.split(line)[1:], "--quiet"]) == 0
    chain = (folder / "tuned" / "chosen.toml").read_text().split('"')[1]
    made = load_anonymizer(folder / "tuned" / "chosen.pth").architecture
    assert len(made.get("stages", [made])) == len(commands) == chain.count("+") + 1
    assert (folder / "tuned" / "tune.png").stat().st_size > 1000


def test_what_is_printed_fits_100_columns(tuned):
    lines = tuned[2].splitlines()
    assert all(len(line) <= 100 for line in lines if not line.startswith(("splavu", "/")) and "tune.csv" not in line)


def test_it_says_that_no_point_is_worth_making(tmp_path, capsys):
    write_world(tmp_path)
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "fit.sh").write_text("of an earlier run")
    assert main(arguments(tmp_path, "--methods", "pca", "--lose", 0)) == 1
    assert "None is worth making" in capsys.readouterr().out
    assert not (tmp_path / "tuned" / "fit.sh").exists()


def test_the_same_with_another_number_of_workers(tmp_path):
    write_world(tmp_path, subjects=9)
    first, second = (arguments(tmp_path, "--methods", "pca") for _ in range(2))
    second[second.index("--workers") + 1] = "2"
    tables = []
    for words in (first, second):
        main(words)
        tables.append((tmp_path / "tuned" / "tune.csv").read_bytes())
    assert tables[0] == tables[1]


def test_too_little_is_refused_before_any_work(tmp_path):
    few, enough = tmp_path / "few", tmp_path / "enough"
    write_world(few, subjects=8)
    with refused("--subjects", naming="9"):
        main(arguments(few))
    table(few / "actions.csv", ["filename", "label"], [[f"s{s:02d}_a0", "one"] for s in range(8)])
    without = arguments(few)
    del without[without.index("--subjects") : without.index("--subjects") + 2]
    with refused("--raw", naming="9"):
        main(without)
    write_world(enough, subjects=9)
    with refused("--methods", naming="pca"):
        main(arguments(enough, "--methods", "pac"))
    table(enough / "actions.csv", ["filename", "label"], [[f"s{s:02d}_a0", "one"] for s in range(9)])
    with refused("--labels"):
        main(arguments(enough))
    assert not any((folder / "tuned").exists() for folder in (few, enough))

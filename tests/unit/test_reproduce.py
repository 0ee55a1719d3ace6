"""A table becomes jobs and cells; finished jobs are kept; a cell says what it was measured on and why it is empty."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import REPOSITORY, write_study
from refusals import refused

from splavu.metrics.estimates import Interval
from study.__main__ import main as study_command
from study.check_data.inventory import Places
from study.experiments.jobs import Job
from study.experiments.runner import STAMP, Outcome, finished, run_all, stamps
from study.reproduce import command as reproduce
from study.reproduce.plan import COLUMNS, Grid
from study.reproduce.published_numbers import TABLES

NAMES = ("table1", "table2", "table3", "table4", "table5", "table8", "table9", "table10", "figure3")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("reproduced"))


def grid(study, name, **options) -> Grid:
    places = Places(study.data, study.features, None)
    return Grid(TABLES[name], places, study.runs / "reproduce" / name, study.runs, **options)


def settings(job: Job) -> dict[str, str]:
    """The assignments of a job's first command."""
    command = job.commands[0]
    given = [after for before, after in pairwise(command) if before == "--set"]
    return dict(assignment.split("=", 1) for assignment in given)


# The published numbers.


@pytest.mark.parametrize("name", NAMES)
def test_tables_have_rows_of_known_columns_and_no_row_twice(name):
    table = TABLES[name]
    assert set(table.columns) <= set(COLUMNS)
    assert len({row.name for row in table.rows}) == len(table.rows) > 1
    for row in table.rows:
        assert set(row.numbers) <= set(table.columns)


def test_every_published_number_is_in_the_specification(shared):
    text = (shared / "spec/splavu.md").read_text()
    written = {float(number) for number in re.findall(r"\d+\.\d+", text)}
    for table in TABLES.values():
        for row in table.rows:
            for column, number in row.numbers.items():
                assert number in written or number / 100 in written, (row.name, column)


# The grid.


def test_an_ablation_is_one_adapter_a_row_judged_in_every_column(made):
    jobs, cells = grid(made, "table9").built
    adapters = [job for job in jobs if job.commands[0][0] == "multitask_train_fa.py"]
    assert [settings(job)["fa_loss_weight"] for job in adapters] == ["0", "1", "10", "100", "1000"]
    assert len(cells) == 5 * 5
    by_name = {job.name: job for job in jobs}
    assert len(by_name) == len(jobs)
    for cell in cells:
        if cell.job is None:
            assert cell.column in ("thumos14", "ucf_crime")
            continue
        (adapter,) = by_name[cell.job].after
        assert settings(by_name[adapter])["fa_loss_weight"] == str(cell.row.adapter["fa_loss_weight"])
        assert settings(by_name[cell.job])["saved_fa_model"] == str(
            made.runs / f"reproduce/table9/{adapter}/model_temp.pth"
        )


@pytest.mark.parametrize("name", NAMES)
def test_jobs_come_after_what_they_need(made, name):
    jobs, cells = grid(made, name).built
    seen: set[str] = set()
    for job in jobs:
        assert set(job.after) <= seen
        seen.add(job.name)
    assert {cell.job for cell in cells} - {None} <= seen
    assert len(cells) == len(TABLES[name].rows) * len(TABLES[name].columns)


def test_ablated_terms_have_no_weight(made):
    jobs, _ = grid(made, "table5").built
    weights = [settings(job) for job in jobs if job.commands[0][0] == "multitask_train_fa.py"]
    assert [(w["ft_ar_loss_weight"], w.get("fb_loss_weight"), w.get("fa_loss_weight")) for w in weights] == [
        ("1", None, None),
        ("0", None, None),
        ("1", "0", None),
        ("1", None, "0"),
    ]


def test_a_task_that_a_row_is_about_is_never_left_out_silently(made):
    _, cells = grid(made, "table4").built
    with_detection = [cell for cell in cells if cell.row.adapter["ft_tad_loss_weight"]]
    assert with_detection
    assert all("thumos14 by demo" in cell.missing for cell in with_detection)
    alone = [cell for cell in cells if cell.row.name == "AR" and cell.column == "hmdb51"]
    assert alone[0].job


# What cells say.


def test_cells_say_what_they_ran_on_and_in_place_of_what(made):
    cells = {(cell.row.name, cell.column): cell for cell in grid(made, "table9").built[1]}
    leak, use = cells["w_LC = 1", "cmap"], cells["w_LC = 1", "hmdb51"]
    assert (leak.on, leak.origin) == ("hmdb51, demo", "synthetic")
    for expected in ("videoMAE features", "vispr", "k400 to train on (hmdb51 here)", "training with TAD too"):
        assert expected in leak.stands_in
    assert "vispr" not in use.stands_in
    missing = cells["w_LC = 1", "thumos14"]
    assert missing.job is None
    assert str(made.data / "thumos14/thumos14.json") in missing.missing["thumos14 by demo"]


def test_raw_features_are_no_point_of_the_curve(made):
    (cell,) = (c for c in grid(made, "figure3").built[1] if c.row.method == "raw" and c.column == "hypervolume")
    assert (cell.job, cell.missing) == (None, {})


def test_real_features_are_not_called_synthetic(made, tmp_path):
    real = Grid(TABLES["table9"], Places(made.data, tmp_path, None), tmp_path, tmp_path)
    assert real.origin("hmdb51", "videoMAE") == "real"
    assert real.encoder(TABLES["table9"].rows[0]) == "videoMAE"  # no demo features here to stand in
    data = tmp_path / "world"
    data.mkdir()
    (data / "MANIFEST.json").write_text(json.dumps({"sets": {"hmdb51": {}}}))
    rendered = Grid(TABLES["table9"], Places(data, tmp_path, None), tmp_path, tmp_path)
    assert rendered.origin("hmdb51", "videoMAE") == "synthetic"
    assert rendered.origin("k400", "videoMAE") == "real"


def test_nothing_at_all_is_listed_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    import config

    for name in ("DATA", "FEATURES", "RUNS"):
        monkeypatch.setattr(config, name, tmp_path / name)
    for name in TABLES:
        assert study_command(["reproduce", name, "--dry-run", "--quiet"]) == 1
    shown = capsys.readouterr().out
    assert "k400_train_labels.json" in shown
    assert re.search(r"\b0 jobs\b.*\b0\b", shown)
    assert "missing: " in shown
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "culprit", "names"),
    [
        (["tabel9"], "table", ("'tabel9'", "'table9'")),
        (["table9", "--columns", "cmapp"], "--columns", ("'cmapp'", "'cmap'")),
    ],
)
def test_bad_input_is_told_in_one_line(arguments, culprit, names):
    with refused(culprit, naming=names):
        study_command(["reproduce", *arguments, "--dry-run"])


# Running, with small programs in place of the scripts.


def program(folder: Path, name: str, body: str = "", after: tuple[str, ...] = (), code: int = 0) -> Job:
    """Counts its starts, does `body`, leaves a result."""
    here = folder / name
    script = folder.parent / f"{name}.py"
    script.write_text(
        f"import os, pathlib, signal, sys\nhere = pathlib.Path({str(here)!r})\n"
        f"with (here / 'starts').open('a') as file: file.write('x')\n{body}\n"
        f"(here / 'result.json').write_text('{{}}')\nsys.exit({code})\n"
    )
    return Job(name, ((str(script), "--set", "a=1"),), "result.json", after)


def starts(folder: Path, name: str) -> int:
    path = folder / name / "starts"
    return len(path.read_text()) if path.is_file() else 0


def run(jobs, folder, **environment) -> dict[str, Outcome]:
    return run_all(jobs, folder, environment, at_once=2, device="cpu", quiet=True)


@pytest.fixture
def folder(tmp_path) -> Path:
    made = tmp_path / "runs"
    made.mkdir()
    return made


def test_finished_jobs_are_kept_and_others_run_again(folder):
    good, bad = program(folder, "good"), program(folder, "bad", "sys.exit(5)")
    jobs = [good, bad, program(folder, "needs_bad", after=("bad",)), program(folder, "needs_good", after=("good",))]
    outcomes = run(jobs, folder)
    assert {name: outcome.state for name, outcome in outcomes.items()} == {
        "good": "done", "bad": "failed", "needs_bad": "not run", "needs_good": "done",
    }  # fmt: skip
    assert "exit code 5" in outcomes["bad"].detail
    program(folder, "bad")  # mended
    assert {outcome.state for outcome in run(jobs, folder).values()} == {"done"}
    assert [starts(folder, job.name) for job in jobs] == [1, 2, 1, 1]


def test_another_command_or_another_root_is_another_job(folder):
    job = program(folder, "job")
    later = program(folder, "later", after=("job",))
    run([job, later], folder, SPLAVU_DATA="one")

    def is_finished(*jobs: Job, root: str = "one") -> list[bool]:
        made = stamps(jobs, {"SPLAVU_DATA": root})
        return [finished(one, folder, made[one.name]) == Outcome("done") for one in jobs]

    assert is_finished(job, later) == [True, True]
    assert is_finished(job, later, root="other") == [False, False]
    changed = dataclasses.replace(job, commands=((*job.commands[0], "--more"),))
    assert is_finished(changed, later) == [False, False]
    (folder / "job" / "result.json").unlink()
    assert is_finished(job, later) == [False, True]


def test_a_failed_gate_keeps_its_result_and_its_mark(folder):
    job = program(folder, "job", code=3)
    assert run([job], folder)["job"].state == "gate failed"
    assert run([job], folder)["job"].state == "gate failed"
    assert starts(folder, "job") == 1


def test_a_killed_reproduction_goes_on_where_it_stopped(folder):
    """The second job kills the reproduction and lives on; its second start waits until the first one has ended."""
    kill = (
        "import time\nif len((here / 'starts').read_text()) == 1:\n"
        f"    os.kill(os.getppid(), {int(signal.SIGKILL)}); time.sleep(2); (here / 'ended').touch(); sys.exit(1)\n"
        "assert (here / 'ended').exists()"
    )
    jobs = [
        program(folder, "first"),
        program(folder, "second", kill, after=("first",)),
        program(folder, "third", after=("second",)),
    ]
    code = (
        "from pathlib import Path\n"
        "from study.experiments.runner import run_all\nfrom study.experiments.jobs import Job\n"
        f"run_all({jobs!r}, Path({str(folder)!r}), {{}}, at_once=1, device='cpu', quiet=True)"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert [(folder / job.name / STAMP).is_file() for job in jobs] == [True, False, False]
    assert {outcome.state for outcome in run(jobs, folder).values()} == {"done"}
    assert [starts(folder, job.name) for job in jobs] == [1, 2, 1]


@pytest.mark.slow
def test_a_row_runs_from_stores_to_a_table(study, monkeypatch, capsys):
    """One row of table 10 by the real scripts on the made-up study; a second time nothing is run."""
    table = TABLES["table10"]
    row = dataclasses.replace(table.rows[1], numbers={"hmdb51": 71.5})
    monkeypatch.setattr(reproduce, "TABLES", {"table10": dataclasses.replace(table, rows=(row,))})
    arguments = ["table10", "--quick", "--columns", "hmdb51,cmap", "--device", "cpu", "--quiet"]
    assert study_command(["reproduce", *arguments]) == 0
    shown = capsys.readouterr().out
    folder = study.runs / "reproduce/table10-quick"
    head = json.loads((folder / "head_hmdb51_adapter_num-heads-8_demo/results.json").read_text())
    leak = json.loads((folder / "privacy_published_hmdb51_adapter_num-heads-8_demo/metrics.json").read_text())
    assert f"{100 * head['test']['top1']:.2f} [a]" in shown
    assert f"{100 * leak['anonymized']['cmap']:.2f} [b]" in shown
    assert "71.50" in shown
    assert re.search(r"\bsynthetic\b.*\bvideoMAE\b", shown)
    assert (folder / "table.md").read_text().strip() in shown
    with (folder / "table.csv").open() as file:
        lines = {line["column"]: line for line in csv.DictReader(file)}
    assert float(lines["hmdb51"]["ours"]) == pytest.approx(100 * head["test"]["top1"], abs=1e-3)
    assert lines["hmdb51"]["published"] == "71.5"
    assert lines["cmap"]["published"] == "not given"

    def never(*args, **kwargs):
        raise AssertionError("a finished job was run again")

    monkeypatch.setattr(subprocess, "Popen", never)
    assert study_command(["reproduce", *arguments]) == 0
    assert capsys.readouterr().out == shown
    assert study_command(["reproduce", *arguments, "--dry-run"]) == 0
    assert re.search(r"\b3 jobs\b.*\b0\b", capsys.readouterr().out)


def test_values_are_read_where_scripts_write_them(made):
    """One result of each kind, in the scripts' own shape."""
    interval = {"value": 0.4, "interval": [0.3, 0.5]}
    readers = {cell.column: cell.read for name in ("table2", "gait") for cell in _pretended(made, name)}
    bias = {"bias": {"datasets": {"tsh": {"features": {"anonymized": {"gap": interval}}}}}}
    assert readers["gap"](bias) == Interval(0.4, 0.3, 0.5)
    gait = {"gait": {"comparisons": {"anonymized": {"overall": {"rank1": interval}}}}}
    assert readers["rank1"](gait) == Interval(0.4, 0.3, 0.5)


def _pretended(study, name):
    """Cells as if everything were there."""

    class Everything(Grid):
        def missing(self, *args, **kwargs):
            return ()

    whole = Everything(TABLES[name], Places(study.data, study.features, None), study.runs, study.runs)
    return whole.built[1]

"""A comparison becomes jobs in order of urgency, and what they left becomes a table; what isn't there yet is a dash."""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import WIDTH, Study, write_study
from refusals import refused
from scipy import stats

import config
from splavu.anonymizers import IdentityAnonymizer, Quantizer
from splavu.audit.headline import written
from splavu.metrics.estimates import Interval
from splavu.runtime import checkpoints, params
from splavu.stores import StoreWriter
from study.__main__ import main as study_command
from study.commands.compare import PARAMS
from study.compare import command as compare
from study.compare.costs import budget_of, microseconds
from study.compare.plan import CompareParams, Comparison
from study.compare.results import ComparisonRow, Linked, Privacy, TaskScore, difference, judge, rows_of, worst_linkage
from study.compare.table import as_csv, as_json, comparison_table, notes
from study.experiments.jobs import Job
from study.experiments.runner import STAMP, Outcome, checkpoint_of, finished, run_all, stamps

BASE = 'run_id = "base"\nar_dataset = "hmdb51"\nft_arch = "demo"\nfa_arch = "eraser"\nerase_rank = 9\n'
ONE = {"name": "one", "fit": "quantizer", "bits": 3}
TWO = {"name": "two", "fit": "pca", "keep": 20, "seeds": (0,)}
THREE = {"name": "a+b", "fa_arch": "encoder+quantizer", "bits": 4, "seeds": (1,)}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Study:
    """The made-up study, with files of long videos by name only."""
    study = write_study(tmp_path_factory.mktemp("compared"))
    (study.root / "base.py").write_text(BASE)
    for file in ("thumos14/thumos14.json", "ucf_crime/ucf-i3d.list", "ucf_crime/ucf-i3d-test.list",
                 "ucf_crime/gt-ucf.npy"):  # fmt: skip
        (study.data / file).parent.mkdir(exist_ok=True)
        (study.data / file).touch()
    for name in ("thumos14_demo", "ucf_crime_demo"):
        (study.features / name).mkdir()
    return study


@pytest.fixture
def here(world, tmp_path, monkeypatch) -> Path:
    """Folder of runs; config.py points at it and at the study."""
    monkeypatch.setattr(config, "DATA", world.data)
    monkeypatch.setattr(config, "FEATURES", world.features)
    monkeypatch.setattr(config, "RUNS", tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def compared(world, here):
    """Makes a comparison."""

    def made(*candidates, quick=False, **options) -> Comparison:
        settings = {"seeds": (0, 1), "base": str(world.root / "base.py"), **options}
        return Comparison(CompareParams(candidates=candidates or (ONE, TWO), **settings), here, quick=quick)

    return made


@pytest.fixture
def file(world, here, tmp_path):
    """Writes a parameter file."""

    def written(text: str) -> str:
        path = tmp_path / "compare_params.py"
        path.write_text(f"base = {str(world.root / 'base.py')!r}\n{text}\n")
        return str(path)

    return written


def option(command: tuple[str, ...], name: str) -> str:
    """What follows an option, or a `--set` assignment's value."""
    for before, after in pairwise(command):
        if before == name:
            return after
        if before == "--set" and after.startswith(f"{name}="):
            return after.split("=", 1)[1]
    raise AssertionError(f"{name} is not in {command}")


# Jobs.


def test_raw_comes_first_then_each_candidate_with_all_of_its_jobs(compared):
    jobs, entries = compared().built
    assert [entry.name for entry in entries] == ["raw", "one", "two"]
    assert [job.name for job in jobs] == [
        "head_raw-s0", "head_raw-s1", "thumos_demo_raw-s0", "thumos_demo_raw-s1", "mgfn_raw-s0", "mgfn_raw-s1",
        "one-s0", "one-s1", "head_one-s0", "head_one-s1", "released_one-s0", "audit_one-s0", "released_one-s1",
        "audit_one-s1", "thumos_demo_one-s0", "thumos_demo_one-s1", "mgfn_one-s0", "mgfn_one-s1",
        "two", "head_two-s0", "released_two", "audit_two-s0", "thumos_demo_two-s0", "mgfn_two-s0",
    ]  # fmt: skip
    seen: set[str] = set()
    for job in jobs:
        assert set(job.after) <= seen
        seen.add(job.name)


def test_what_no_seed_changes_is_made_once_and_judged_by_every_seed(compared):
    jobs, entries = compared({"fit": "pca", "keep": 20}).built
    by_kind = entries[1].jobs
    assert set(by_kind["make"].values()) == {"pca-keep20"}
    assert set(by_kind["release"].values()) == {"released_pca-keep20"}
    assert by_kind["audit"] == {0: "audit_pca-keep20-s0", 1: "audit_pca-keep20-s1"}
    assert len({job.name for job in jobs}) == len(jobs)


def test_every_job_has_its_seed_and_serves_features_alone(compared, here):
    jobs = {job.name: job for job in compared(seeds=(3,)).built[0]}
    made = str(here / "compare/one-s3/model_temp.pth")
    assert option(jobs["one-s3"].commands[0], "--seed") == "3"
    head, raw = jobs["head_one-s3"].commands[0], jobs["head_raw-s3"].commands[0]
    assert [option(head, name) for name in ("seed", "anon", "saved_fa_model")] == ["3", "True", made]
    assert [option(raw, name) for name in ("seed", "anon", "saved_fa_model")] == ["3", "False", "None"]
    audit = jobs["audit_one-s3"].commands[0]
    assert [option(audit, name) for name in ("--seed", "--aam", "--workers")] == ["30", made, "1"]
    assert "--quick" not in audit
    for command in jobs["thumos_demo_one-s3"].commands:
        assert [option(command, name) for name in ("init_rand_seed", "--aam", "--aam-serving")] == ["3", made, "alone"]
    mgfn = jobs["mgfn_one-s3"].commands[0]
    assert [option(mgfn, name) for name in ("--seed", "--aam", "--aam-serving")] == ["3", made, "alone"]
    assert "--aam" not in (*jobs["thumos_demo_raw-s3"].commands[0], *jobs["mgfn_raw-s3"].commands[0])


def test_further_trainings_of_mgfn_have_seeds_and_names_of_their_own(compared):
    jobs, entries = compared(ad_trainings=3).built
    once = compared().built[0]
    by_name = {job.name: job for job in jobs}
    assert [job for job in jobs if not job.name.startswith("mgfn_")] == [
        job for job in once if not job.name.startswith("mgfn_")
    ]
    _, one, two = entries
    assert one.jobs["ad"] == {s: f"mgfn_one-s{s}" for s in (0, 1, 100, 101, 200, 201)}
    assert two.jobs["ad"] == {s: f"mgfn_two-s{s}" for s in (0, 100, 200)}
    assert set(entries[0].jobs["ad"]) == set(one.jobs["ad"])  # raw features, to compare with
    for seed, name in one.jobs["ad"].items():
        (command,) = by_name[name].commands
        assert (option(command, "--seed"), option(command, "--model-name")) == (str(seed), name)
        assert by_name[name].after == (f"one-s{seed % 100}",)
        assert f"one-s{seed % 100}" in option(command, "--aam")  # another detector, the same anonymizer


def test_audits_have_as_many_seeds_as_asked_for_and_no_two_share_one(compared):
    jobs = {job.name: job for job in compared(audit_seeds=10, seeds=(0, 1, 2)).built[0]}
    drawn = []
    for seed in (0, 1, 2):
        (command,) = jobs[f"audit_one-s{seed}"].commands
        assert option(command, "--seeds") == "10"
        first = int(option(command, "--seed"))
        drawn += range(first, first + 10)
    assert len(set(drawn)) == len(drawn)


def test_audits_attack_the_columns_that_are_named_or_all(compared):
    commands = [
        {job.name: job for job in compared(audit_attributes=named).built[0]}["audit_one-s0"].commands[0]
        for named in (("gender", "stature"), None)
    ]
    assert option(commands[0], "--attributes") == "gender,stature"
    assert "--attributes" not in commands[1]
    assert all("--ignore-names" in command for command in commands)  # they would hide how anonymizers differ


def test_a_trained_one_is_served_by_the_checkpoint_that_its_training_chooses(compared):
    jobs = {job.name: job for job in compared(THREE).built[0]}
    assert option(jobs["head_a.b-s1"].commands[0], "saved_fa_model") == "{checkpoint of a+b-s1}"
    assert option(jobs["mgfn_a.b-s1"].commands[0], "--model-name") == "mgfn_a.b-s1"  # MGFN refuses '+'
    assert jobs["mgfn_a.b-s1"].after == ("a+b-s1",)


def test_the_audit_meets_what_was_released(compared, world):
    jobs = {job.name: job for job in compared().built[0]}
    written = [command[command.index("--aam") + 3] for command in jobs["released_two"].commands]
    assert [Path(path).name for path in written] == [
        f"features_hmdb_{split}_demo.h5" for split in ("train", "val", "test")
    ]
    audit = jobs["audit_two-s0"].commands[0]
    assert list(audit[audit.index("--released") + 1 : audit.index("--labels")]) == written
    assert option(audit, "--labels") == str(world.data / "hmdb51/private_labels.csv")


def test_quick_audits_are_kept_apart(compared):
    names = {job.name: job for job in compared(quick=True).built[0]}
    assert "--quick" in names["audit-quick_one-s0"].commands[0]
    assert "audit_one-s0" not in names
    assert "--quick" not in names["head_one-s0"].commands[0]


def test_a_task_without_data_is_left_out_and_said_to_be(compared, world, tmp_path, monkeypatch):
    (tmp_path / "hmdb51").symlink_to(world.data / "hmdb51")
    monkeypatch.setattr(config, "DATA", tmp_path)
    comparison = compared(tasks=("ar", "tad"))
    jobs, entries = comparison.built
    assert comparison.tasks == ("ar",)
    assert not [job.name for job in jobs if job.name.startswith(("thumos", "mgfn"))]
    outcomes = {job.name: Outcome("not run") for job in jobs}
    (said,) = (n for n in notes([], entries, comparison, outcomes) if "was left out" in n)
    assert said == f"TAD mAP was left out: {tmp_path / 'thumos14/thumos14.json'} isn't there."


def test_a_dry_run_lists_and_writes_nothing(file, here, capsys):
    path = file(f"seeds = (0, 1)\ncandidates = {(ONE, TWO)!r}")
    assert study_command(["compare", "--params", path, "--dry-run", "--quiet", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"\b24 jobs\b.*\b24\b", shown)
    listed = re.findall(r"^(\S+): to run", shown, flags=re.M)
    assert listed[:3] == ["head_raw-s0", "head_raw-s1", "thumos_demo_raw-s0"]
    assert listed[-1] == "mgfn_two-s0"
    (line,) = (line for line in shown.splitlines() if line.startswith("| two "))
    assert {cell.strip() for cell in line.strip("|").split("|")} == {
        "two", "-", "open: reduction, rank-1, AR, TAD, AD",
    }  # fmt: skip
    assert not here.exists()


# Numbers, from files as jobs would have left them.


def estimate(value, low=None, high=None, chance=0.0):
    return {"value": value, "low": low, "high": high, "chance": chance}


def drawn(leakage: float, seed: int, spread: float = 0.05) -> np.ndarray:
    return np.round(leakage + spread * np.random.default_rng(seed).normal(size=1000), 3)


def evidence(clip, video, released, cross, told, *, gate="passed") -> dict:
    """Leakage of clips, videos, and of nudity by video: 0.7. Raw features link 50 % of videos with chance 10 %."""
    attributes = [{"name": name, "bits": estimate(value), "leakage": estimate(0.7)} for name, value in told.items()]
    draws = {"clip": drawn(clip, 1), "video": drawn(video, 2), "video/nudity": drawn(0.7, 3)}
    return {
        "schema": "splavu-audit/2",
        "headline": {
            "attributes": ["gender"],
            "num_attributes": 3,
            "by_unit": {"clip": estimate(1 - clip), "video": estimate(1 - video)},
            "draws": {name: written(of) for name, of in draws.items()},
        },
        "linkage": {
            "raw to raw": {"rank1": estimate(0.5, chance=0.1)},
            "released to released": {"rank1": estimate(released, chance=0.1)},
            "raw to released": {"rank1": estimate(cross, chance=0.1)},
        },
        "strongest": {"clip": {"attributes": attributes}, "video": {"attributes": attributes}},
        "raw": {"clip": {"attributes": [{"name": "gender", "bits": estimate(0.75)}]}},
        "gates": [{"claim": "labels shuffled", "state": gate}, {"claim": "not run", "state": "not run"}],
    }


AUDITS = {
    0: evidence(0.38, 0.4, 0.18, 0.34, {"gender": 0.2, "nudity": -0.1, "face": 0.1}),
    1: evidence(0.5, 0.6, 0.14, 0.10, {"gender": 0.1, "nudity": 0.5, "face": 0.0}),
}


def leave(comparison: Comparison, name: str, content: dict, file: str = "results.json") -> None:
    path = comparison.runs / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def leave_results(comparison: Comparison) -> dict[str, Outcome]:
    """All of raw, and 'one' but its TAD of seed 1 and its AD; nothing of 'two'. Its codes are 2 x 4: 3 bits."""
    for seed in (0, 1):
        leave(comparison, f"head_raw-s{seed}", {"test": {"top1": (0.9, 0.94)[seed]}})
        leave(comparison, f"thumos_demo_raw-s{seed}", {"tad": {"average_map": (0.8, 0.7)[seed]}})
        leave(comparison, f"mgfn_raw-s{seed}", {"ad": {"roc_auc": 0.85}})
        leave(comparison, f"head_one-s{seed}", {"test": {"top1": (0.89, 0.92)[seed]}})
        leave(comparison, f"audit_one-s{seed}", AUDITS[seed], "evidence.json")
    leave(comparison, "thumos_demo_one-s0", {"tad": {"average_map": 0.75}})
    quantizer = Quantizer(WIDTH, codes=(2, 4), subspace_dim=5)
    for seed in (0, 1):
        checkpoints.write(
            comparison.runs / f"one-s{seed}/model_temp.pth",
            {"fa_model_state_dict": quantizer.state_dict(), "fa_architecture": quantizer.architecture},
        )
        (comparison.runs / f"released_one-s{seed}").mkdir(exist_ok=True)
    vectors = np.random.default_rng(0).normal(size=(3, WIDTH)).astype(np.float32)
    with StoreWriter(comparison.runs / "released_one-s0/features_hmdb_test_demo.h5", attributes={}) as store:
        store.add("first", vectors[[0, 1, 0]])
        store.add("second", vectors[[2, 1]])
    jobs = comparison.built[0]
    missing = {"thumos_demo_one-s1", "mgfn_one-s0", "mgfn_one-s1"}
    outcomes = {
        job.name: Outcome("done" if ("raw" in job.name or "one" in job.name) and job.name not in missing else "not run")
        for job in jobs
    }
    outcomes["one-s0"], outcomes["one-s1"] = (Outcome("done", seconds=seconds) for seconds in (3.0, 5.0))
    outcomes["thumos_demo_one-s1"] = Outcome("failed", "exit code 1: out of memory")
    return outcomes


@pytest.fixture
def partial(compared):
    comparison = compared()
    outcomes = leave_results(comparison)
    return comparison, outcomes, rows_of(comparison.built[1], comparison, outcomes, device="cpu")


def test_numbers_are_means_over_seeds_and_differences_are_paired(partial):
    raw, one, two = partial[2]
    assert one.privacy.reduction.value == pytest.approx(0.5)
    assert (one.privacy.unit, one.privacy.by_unit["clip"].value) == ("video", pytest.approx(0.56))
    assert one.privacy.reduction.low == one.privacy.by_unit["video"].low
    # Subjects have a spread of 0.05 in both audits, on the same draws. Audits differ by 0.2 (video), of which two give
    # a standard error of 0.1: half of the draws take both, a quarter each one twice.
    assert one.privacy.reduction.high - one.privacy.reduction.low > 2 * (0.2 / 2**0.5 + 1.96 * 0.05) * 0.9
    assert one.privacy.least_protected[:2] == ("nudity", "video")
    assert one.privacy.least_protected[2].value == pytest.approx(0.7)
    # 1 - 0.08 / 0.4 = 0.8 and 1 - 0.04 / 0.4 = 0.9
    assert (one.privacy.linked.rank1, one.privacy.linked.reduction) == pytest.approx((0.16, 0.85))
    # seed 0 from raw to released: 1 - 0.24 / 0.4 = 0.4; seed 1 within the release
    assert (one.privacy.worst_linked.rank1, one.privacy.worst_linked.reduction) == pytest.approx((0.24, 0.65))
    assert one.privacy.worst_linked.pairing == "raw to released; released to released"
    assert (one.privacy.most_bits, one.privacy.sum_of_bits) == pytest.approx(((0.2 + 0.5) / 2, (0.3 + 0.6) / 2))
    assert one.privacy.most_told == "gender, nudity"
    assert one.uses["ar"].mean == pytest.approx(0.905)
    assert one.uses["ar"].difference.value == pytest.approx((-0.01 - 0.02) / 2)
    assert math.isnan(one.uses["ar"].difference.low)  # of two seeds
    assert one.uses["tad"].difference.value == pytest.approx(-0.05)  # of seed 0 alone
    assert "ad" not in one.uses
    assert (two.privacy, two.uses, two.made) == (None, {}, None)
    assert raw.uses["tad"].mean == pytest.approx(0.75)
    assert (raw.privacy.linked.rank1, raw.privacy.most_bits) == (0.5, 0.75)


def test_costs_and_budget_are_the_anonymizers_own(partial):
    made = partial[2][1].made
    assert made.seconds == 4.0
    assert made.numbers == WIDTH + 2 * 5 * WIDTH + (2 + 4) * 5
    assert (made.budget, made.distinct) == (3.0, 3)
    assert made.microseconds > 0


def test_missing_cells_are_dashes_and_said_to_be(partial):
    comparison, outcomes, rows = partial
    lines = comparison_table(rows, comparison).splitlines()
    header, _, raw, one, two = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    cell = dict(zip(header, one, strict=True))
    assert re.fullmatch(r"50 \[\d+, \d+\], by video", cell["reduction"])
    assert re.fullmatch(r"clip 56 \[.*\], video 50 \[.*\]", cell["by unit"])
    assert re.fullmatch(r"nudity by video, 70 \[60, 80\] left", cell["protected least"])
    assert (cell["rank-1"], cell["worst rank-1"]) == ("16.0 (85)", "24.0 (65), of several")
    assert cell["AR top-1"] == "90.5 [89.0, 92.0] -1.5"
    assert (cell["TAD mAP"], cell["AD AUC"]) == ("75.0 -5.0", "-")
    assert [cell[name] for name in ("bits: budget", "most told", "sum", "vectors")] == ["3.00", "0.35", "0.45", "3"]
    assert cell["targets"] == "missed: TAD by 3.0; open: AD"
    assert set(two) == {"two", "-", "open: reduction, rank-1, AR, TAD, AD"}
    assert dict(zip(header, raw, strict=True))["AR top-1"] == "92.0 [90.0, 94.0]"
    said = notes(rows, comparison.built[1], comparison, outcomes)
    assert "thumos_demo_one-s1: failed: exit code 1: out of memory" in said
    assert "8 of 24 jobs" in said[-1]  # six of 'two', two of MGFN
    assert "Seeds 0, 1; of two 0." in said[0]


def test_csv_and_json_hold_the_same(partial):
    comparison, outcomes, rows = partial
    raw, one, two = csv.DictReader(as_csv(rows, comparison.tasks).splitlines())
    low = rows[1].privacy.reduction.low
    assert (float(one["reduction"]), float(one["reduction_low"])) == (0.5, pytest.approx(low, rel=1e-5))
    assert (one["unit"], one["protected_least"], one["reduction_by_person"]) == ("video", "nudity by video", "")
    assert (float(one["ar_difference"]), one["ar_low"], one["ad"]) == (-0.015, "", "")
    assert (two["reduction"], two["targets"]) == ("", "open: reduction, rank-1, AR, TAD, AD")
    assert float(raw["tad"]) == 0.75
    kept = json.loads(json.dumps(as_json(rows, comparison.built[1], comparison, outcomes), allow_nan=False))
    assert kept["rows"][1]["privacy"]["reduction"]["low"] == pytest.approx(low)
    assert kept["rows"][1]["verdict"]["missed"] == ["TAD by 3.0"]
    assert kept["outcomes"]["one-s1"]["seconds"] == 5.0


def test_everything_is_kept_with_a_figure(partial):
    comparison, outcomes, rows = partial
    path = compare.keep("text", rows, comparison.built[1], comparison, outcomes)
    assert path.read_text().startswith("text\n\n![")
    assert {p.name for p in path.parent.iterdir() if p.is_file()} == {
        "table.md", "table.csv", "compare.json", "compare.png",
    }  # fmt: skip
    assert (path.parent / "compare.png").read_bytes()[:4] == b"\x89PNG"
    nothing = compare.keep("text", rows[2:], comparison.built[1][2:], comparison, outcomes)
    assert "![" not in nothing.read_text()


# Verdicts.


def row(reduction=0.35, linked=0.5, worst=0.5, gates=(), **differences) -> ComparisonRow:
    pairings = (Linked("released to released", 0.2, 0.1, linked), Linked("raw to released", 0.2, 0.1, worst))
    told = ({"clip": Interval(reduction)}, ("gender",), 3, None)
    privacy = Privacy((0,), Interval(reduction), "clip", *told, *pairings, 0.1, "gender", 0.1, gates)
    return ComparisonRow("one", privacy, {task: TaskScore({0: 0.9}, Interval(by)) for task, by in differences.items()})


@pytest.mark.parametrize(
    ("judged", "met", "missed", "pending"),
    [
        (row(ar=-0.019), True, (), ()),
        (row(ar=0.03), True, (), ()),
        (row(ar=0.948 - 0.968), True, (), ()),
        (row(ar=-0.0254), False, ("AR by 0.5",), ()),
        (row(reduction=0.30, linked=0.1, ar=0), False, ("reduction by 5.0", "rank-1 by 40.0"), ()),
        (row(linked=math.nan, ar=0), False, (), ("rank-1",)),
        (row(), False, (), ("AR",)),
        (
            ComparisonRow("one", uses={"ar": TaskScore({0: 0.9}, Interval(-0.03))}),
            False,
            ("AR by 1.0",),
            ("reduction", "rank-1"),
        ),
        (row(gates=("labels shuffled",), ar=0), False, ("a gate of the audit",), ()),
    ],
)
def test_targets_are_met_by_the_means_or_missed_by_so_much(judged, met, missed, pending):
    found = judge(judged, ("ar",))
    assert (found.met, found.missed, found.pending) == (met, missed, pending)


def test_a_release_that_can_be_linked_from_outside_is_not_simply_met(compared):
    comparison = compared(tasks=("ar",))
    shown = [comparison_table([row(worst=worst, ar=0.0)], comparison).splitlines()[-1] for worst in (0.5, 0.3)]
    assert shown[0].rstrip("| ").endswith("| met")
    assert shown[1].rstrip("| ").endswith("met; but not by the worst rank-1")


def test_more_bits_than_can_be_there_are_flagged(partial):
    comparison, _, rows = partial
    assert not rows[1].over_budget
    assert "OVER BUDGET" not in comparison_table(rows, comparison)
    privacy = Privacy(**{**vars(rows[1].privacy), "most_bits": 3.01})
    over = ComparisonRow("one", privacy, {}, rows[1].made)
    assert over.over_budget
    assert "3.01 OVER BUDGET" in comparison_table([over], comparison)


def test_a_failed_gate_is_in_the_notes(compared):
    comparison = compared()
    outcomes = leave_results(comparison)
    failed = evidence(0.4, 0.4, 0.1, 0.1, {"gender": 0.1}, gate="failed")
    leave(comparison, "audit_one-s1", failed, "evidence.json")
    outcomes["audit_one-s1"] = Outcome("gate failed")
    rows = rows_of(comparison.built[1], comparison, outcomes, device="cpu")
    said = notes(rows, comparison.built[1], comparison, outcomes)
    assert [note for note in said if "FAILED" in note and " one" in note and "labels shuffled" in note]


def test_linking_that_was_not_judged_is_no_number():
    found = worst_linkage({"released to released": {"skipped": "nobody has two videos"}})
    assert (math.isnan(found.rank1), math.isnan(found.reduction)) == (True, True)


def test_intervals_over_seeds_are_students():
    differences = np.array([0.01, -0.02, 0.03])
    raw = {seed: 0.5 + 0.1 * seed for seed in range(4)}
    found = difference({seed: raw[seed] + by for seed, by in enumerate(differences)}, raw)
    low, high = stats.t.interval(0.95, 2, loc=differences.mean(), scale=stats.sem(differences))
    assert (found.value, found.low, found.high) == pytest.approx((differences.mean(), low, high), rel=1e-9)
    assert math.isnan(difference({7: 0.5}, raw).value)  # raw features have no such seed


def test_a_budget_is_of_all_codebooks_and_of_the_tightest_quantizer():
    two, one = ({"arch": "quantizer", "codes": codes} for codes in ([8, 4], [16]))
    assert budget_of(two) == 5.0
    assert budget_of({"arch": "chain", "stages": [{"arch": "affine"}, two, one]}) == 4.0
    assert budget_of({"arch": "affine"}) is None


def test_a_feature_is_timed_on_one_thread_and_threads_are_given_back():
    torch.set_num_threads(2)
    rows = torch.zeros(3, WIDTH)
    seconds = microseconds(IdentityAnonymizer(WIDTH), rows, device="cpu", repeats=2)
    assert 0 < seconds < 1e4
    assert torch.get_num_threads() == 2


# Running.


def test_a_job_keeps_its_seconds_and_hands_on_its_checkpoint(tmp_path):
    maker, user = tmp_path / "maker.py", tmp_path / "user.py"
    maker.write_text(
        "import json, pathlib, sys, time\ntime.sleep(0.2)\n"
        "pathlib.Path(sys.argv[1]).write_text(json.dumps({'checkpoint': '/runs/model_7_0.5.pth'}))\n"
    )
    user.write_text("import pathlib, sys\npathlib.Path(sys.argv[1]).write_text(sys.argv[2])\n")
    runs = tmp_path / "runs"
    jobs = [
        Job("a+b-s0", ((str(maker), str(runs / "a+b-s0/results.json")),), "results.json"),
        Job("head", ((str(user), str(runs / "head/out"), f"aam={checkpoint_of('a+b-s0')}"),), "out", ("a+b-s0",)),
    ]
    outcomes = run_all(jobs, runs, {}, at_once=1, device="cpu", quiet=True)
    assert (runs / "head/out").read_text() == "aam=/runs/model_7_0.5.pth"
    assert 0.2 < outcomes["a+b-s0"].seconds < 30
    kept = finished(jobs[0], runs, stamps(jobs, {})["a+b-s0"])
    assert (kept.state, kept.seconds) == ("done", outcomes["a+b-s0"].seconds)
    stamp = json.loads((runs / "a+b-s0" / STAMP).read_text())
    del stamp["seconds"]  # as it was written before
    (runs / "a+b-s0" / STAMP).write_text(json.dumps(stamp))
    assert finished(jobs[0], runs, stamps(jobs, {})["a+b-s0"]).seconds is None


# Bad input.


@pytest.mark.parametrize(
    ("line", "culprit", "names"),
    [
        ("tasks = ('ar', 'tda')", "compare_params.py", ("'tasks[1]'", "'tad'")),
        ("seeds = (0, 0)", "seeds", "(0, 0)"),
        ("seeds = ()", "seeds", "()"),
        ("candidates = ()", "candidates", "()"),
        ("candidates = ({'fit': 'leas'},)", "candidates", ("'leas'", "'leace'")),
        ("candidates = ({'fit': 'leace'}, {'fit': 'leace'})", "candidates", "'leace'"),
        ("candidates = ({'fit': 'leace', 'seeds': 0},)", "seeds of 'leace'", "0"),
        ("candidates = ({'fa_arch': 'eraser', 'bits': 3},)", "bits", "'eraser'"),
        ("candidates = ({'name': 'raw', 'fit': 'leace'},)", "candidates", ("'raw'", "head_raw-s0")),
        (
            "candidates = ({'name': 'a+b', 'fit': 'leace'}, {'name': 'a.b', 'fit': 'leace'})",
            "candidates",
            ("'a.b'", "head_a.b-s0"),
        ),
        ("data_root = 'nowhere'", "features_hmdb_train_demo.h5", ()),
        ("seed = 1", "compare_params.py", ("'seed'", "'seeds'")),
        ("ad_trainings = 0", "ad_trainings", ("0", "[1, 10]")),
        ("ad_trainings = 11", "ad_trainings", ("11", "[1, 10]")),
        ("ad_trainings = 2\nseeds = (0, 100)", "seeds", ("100", "ad_trainings = 2")),
        ("audit_seeds = 0", "audit_seeds", ("0", "[1, 10]")),
        ("audit_seeds = 11", "audit_seeds", ("11", "[1, 10]")),
    ],
)
def test_bad_parameters_are_told_in_one_line(file, line, culprit, names):
    path = file(f"candidates = ({{'fit': 'leace'}},)\n{line}")
    with refused(culprit, naming=names):
        study_command(["compare", "--params", path, "--dry-run", "--quiet"])


def test_without_matplotlib_nothing_is_begun_and_the_list_is_shown(file, here, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    path = file("candidates = ({'fit': 'leace'},)")
    with refused("matplotlib"):
        study_command(["compare", "--params", path, "--quiet"])
    assert not here.exists()
    assert study_command(["compare", "--params", path, "--dry-run", "--quiet"]) == 0
    assert "python -m splavu fit leace" in capsys.readouterr().out


def test_the_list_that_comes_with_it_is_sound(world, here, tmp_path):
    for name, origin in (("hmdb51", world.data / "hmdb51"), ("features", world.features)):
        (tmp_path / name).symlink_to(origin)
    p = params.load(config.HERE / PARAMS, CompareParams, [f"data_root={tmp_path}"])
    _, entries = Comparison(p, here).built
    assert [entry.name for entry in entries[:4]] == ["raw", "recommended", "published", "codes-20"]
    assert [entry.name for entry in entries if entry.seeds == p.seeds] == ["raw", "recommended", "quantizer-8"]
    # A candidate has what its name says, whatever it inherits from the recommended one.
    made = {e.name: e.candidate.parameters() for e in entries if e.candidate and not e.candidate.method}
    ours = made["recommended"]
    assert (made["codes-20"].bits, made["codes-20"].code_dims) == (ours.bits, ours.code_dims) == (20, 32)
    spaces = {name: p.code_space for name, p in made.items() if "quantizer" in p.parts and p.bits == 8}
    assert spaces == {"quantizer-8": "actions", "eraser+quantizer-8": "actions"}

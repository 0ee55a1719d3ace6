"""JSON that a run wrote and something damaged since: named in one line, wherever it is read."""

from __future__ import annotations

import json
import os
import random

import pytest
from mutations import damaged_json
from refusals import refused

from splavu.errors import UserError
from splavu.runtime.records import read_record, read_records
from splavu.runtime.run_folder import RunFolder


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 50_000, b"\xff\xfe", b"9" * 5000 + b"}"])
def test_a_damaged_record_is_named(tmp_path, content):
    (tmp_path / "results.json").write_bytes(content)
    with refused("results.json"):
        read_record(tmp_path / "results.json", "run again")
    with refused("results.json"):
        RunFolder(tmp_path.parent, tmp_path.name).read_json("results.json")


def test_an_incomplete_last_line_is_left_out_and_any_other_damage_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    whole = '{"step": 0}\n{"step": 1}\n'
    path.write_text(whole + '{"step": 2, "lo')
    assert read_records(path, "") == [{"step": 0}, {"step": 1}]
    RunFolder(tmp_path.parent, tmp_path.name).rewind(1)
    assert path.read_text() == '{"step": 0}\n'
    for damaged in ('{"st\n' + whole, "[1]\n" + whole):
        path.write_text(damaged)
        with refused("metrics.jsonl"):
            read_records(path, "")
    path.write_text('{"epoch": 0}\n')
    with refused("metrics.jsonl"):
        RunFolder(tmp_path.parent, tmp_path.name).rewind(1)


@pytest.mark.parametrize("file", ["params.json", "results.json", "metrics.json", "versions.json"])
def test_a_report_of_damaged_runs_names_the_run(tmp_path, file):
    """Twelve damages of each file: a report, or an error that names the run or its file."""
    from splavu.reports.run_report import write_report

    rng = random.Random(20261130)
    interval = {"ap": 0.8, "interval": [0.7, 0.9], "attacker": "logistic"}
    entry = {"chance": 0.5, "raw": interval, "anonymized": interval, "leakage": 1.0, "leakage_interval": [0.9, 1.1]}
    view = {"attributes": {"tall": entry}, "mean": entry}
    values = {
        "params.json": {"anon": True, "saved_fa_model": "saved/aam/model.pth", "serving": "alone"},
        "results.json": {"features": "anonymized", "test": {"top1": 0.75, "cmap": 0.5}},
        "metrics.json": {"protocol": {"name": "release"}, "valid": True, "gates": [], "views": {"static": view}},
        "versions.json": {"torch": "2"},
    }
    run = tmp_path / "runs/one"
    run.mkdir(parents=True)
    for name, value in values.items():
        (run / name).write_text(json.dumps(value))
    culprits = []
    for _ in range(12):
        (run / file).write_bytes(damaged_json(values[file], rng))
        try:
            write_report(tmp_path / "runs")
        except UserError as error:
            culprits.append(error.culprit)
    assert culprits
    assert all(culprit.startswith(str(tmp_path / "runs")) for culprit in culprits)


@pytest.mark.skipif(os.name != "posix", reason="pipes")
@pytest.mark.parametrize("kind", ["list", "truth", "annotations", "config", "map"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, kind):
    from mgfn.data.ground_truth import GroundTruth
    from mgfn.data.lists import read_list
    from mgfn.errors import InputError as MgfnError
    from splavu.data.key_map import read_key_map
    from tridet.annotations import read_annotations
    from tridet.config import load
    from tridet.errors import InputError as TridetError

    path = tmp_path / "pipe"
    os.mkfifo(path)
    read, error = {
        "list": (lambda: read_list(path, "UCF"), MgfnError),
        "truth": (lambda: GroundTruth(path, [], [], frames_per_snippet=16, dataset="UCF"), MgfnError),
        "annotations": (lambda: read_annotations(path), TridetError),
        "config": (lambda: load(path), TridetError),
        "map": (lambda: read_key_map(path), UserError),
    }[kind]
    with refused("pipe", error):
        read()


def test_evidence_of_another_kind_is_named(tmp_path, monkeypatch):
    from splavu.__main__ import main
    from splavu.audit.evidence import SCHEMA

    monkeypatch.chdir(tmp_path)
    for place, damage in enumerate(({"inversion": 3}, {"attributes": 0.5}, {"attributes": [{"prevalence": "x"}]})):
        path = tmp_path / f"{place}.json"
        path.write_text(json.dumps({"schema": SCHEMA, **damage}))
        with refused(f"{place}.json"):
            main(["audit-report", str(path), "--out", "out.html", "--quiet"])
    assert not (tmp_path / "out.html").exists()

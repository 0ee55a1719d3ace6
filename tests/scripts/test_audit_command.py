"""`python -m splavu audit` as a user runs it, on a made-up study whose raw features do give attributes away."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import WIDTH, write_study
from refusals import refused

from splavu.__main__ import main
from splavu.anonymizers import build_anonymizer
from splavu.attackers import ATTACKERS
from splavu.audit import run
from splavu.audit.run import AuditOptions
from splavu.data.labels import VISPR_ATTRIBUTES

RUNGS = {"ignorant", "lazy-informed", "semi-informed", "informed", "names", "set-level"}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("audited"), videos_per_subject=4)


@pytest.fixture(scope="module")
def adapter(study):
    """A checkpoint of an MLP that starts as the identity."""
    anonymizer = build_anonymizer("mlp", WIDTH)
    path = study.root / "adapter.pth"
    torch.save({"fa_model_state_dict": anonymizer.state_dict(), "fa_architecture": anonymizer.architecture}, path)
    return path


def labels(study):
    return study.data / "hmdb51" / "private_labels.csv"


def arguments(study, *more) -> list[str]:
    stores = str(study.features / "features_hmdb_*_demo.h5")
    given = ["audit", "--released", stores, "--labels", labels(study), "--quick", "--quiet", "--device", "cpu"]
    return list(map(str, [*given, "--workers", "1", *more]))


def rewritten(study, target, change):
    """The table of labels with each row changed, or left out where `change` gives None."""
    with labels(study).open() as file:
        rows = [row for row in map(change, csv.DictReader(file)) if row is not None]
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return target


def test_the_whole_ladder_is_climbed_and_kept_as_evidence(study, adapter, tmp_path, capsys):
    stores = [str(study.features / f"features_hmdb_{split}_demo.h5") for split in ("train", "val", "test")]
    done = main(arguments(study, "--raw", *stores[:2], "--raw", stores[2], "--aam", adapter, "--out", tmp_path / "out"))
    assert done == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1].startswith("HEADLINE: ")
    assert printed.count("passed") == 4
    evidence = json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert evidence["valid"]
    assert {rung["name"] for rung in evidence["rungs"]} == RUNGS
    skipped = [rung["unit"] for rung in evidence["rungs"] if rung["found"] is None]
    assert skipped == ["person"]  # in this study every video draws attributes of its own
    assert evidence["headline"]["reduction"]["value"] == pytest.approx(0, abs=0.1)  # the identity hides nothing
    assert [one["name"] for one in evidence["attributes"]] == list(VISPR_ATTRIBUTES)
    assert evidence["people"]["train"]["persons"] == 12
    assert {file["role"] for file in evidence["files"]} == {"released", "raw", "labels", "aam"}
    assert all(len(file["sha256"]) == 64 for file in evidence["files"])


def test_without_a_split_people_are_dealt_apart(study, tmp_path, capsys):
    def without_split(row):
        return {name: value for name, value in row.items() if name != "split"}

    table = rewritten(study, tmp_path / "labels.csv", without_split)
    more = ("--labels", table, "--attributes", "gender,semi_nudity", "--attributes-only", "--out", tmp_path)
    main(arguments(study, *more, "--anyway"))  # 5 test subjects can't decide
    evidence = json.loads((tmp_path / "evidence.json").read_text())
    assert sum(split["persons"] for split in evidence["people"].values()) == 26
    assert min(split["persons"] for split in evidence["people"].values()) >= 4
    assert [one["name"] for one in evidence["attributes"]] == ["gender", "semi_nudity"]
    assert evidence["headline"]["reduction"]["value"] is None
    assert evidence["headline"]["sentence"] in capsys.readouterr().out


def test_groups_stand_in_for_subjects(study, tmp_path, capsys):
    def without_subject(row):
        return {name: value for name, value in row.items() if name not in ("subject", "split")}

    table = rewritten(study, tmp_path / "labels.csv", without_subject)
    with refused("labels.csv"):
        main(arguments(study, "--labels", table))

    groups = rewritten(
        study, tmp_path / "groups.csv", lambda row: {"filename": row["filename"], "group": row["subject"]}
    )
    more = ("--labels", table, "--groups", groups, "--attributes-only", "--attributes", "gender", "--out", tmp_path)
    main(arguments(study, *more, "--anyway"))  # 5 test subjects can't decide
    evidence = json.loads((tmp_path / "evidence.json").read_text())
    assert sum(split["persons"] for split in evidence["people"].values()) == 26


def test_a_failed_gate_is_exit_code_3(study, tmp_path, capsys):
    """Labels drawn at random: nothing to be found in raw features, so nothing this audit says counts."""
    rng = np.random.default_rng(0)
    table = rewritten(study, tmp_path / "labels.csv", lambda row: row | {"gender": str(rng.integers(2))})
    raw = study.features / "features_hmdb_*_demo.h5"
    more = ("--labels", table, "--attributes", "gender", "--attributes-only", "--raw", raw)
    assert main(arguments(study, *more)) == 3
    printed = capsys.readouterr().out
    assert "FAILED" in printed
    assert "NOT VALID" in printed


def few_test_subjects(study, target):
    """A table with 8 test subjects, 4 of each gender, which a person has always the same way."""
    with labels(study).open() as file:
        rows = list(csv.DictReader(file))
    test = sorted({row["subject"] for row in rows if row["split"] == "test"})[:8]
    everyone = sorted({row["subject"] for row in rows})
    place = {subject: test.index(subject) if subject in test else everyone.index(subject) for subject in everyone}
    assert len(test) == 8

    def change(row):
        left_out = row["split"] == "test" and row["subject"] not in test
        return None if left_out else row | {"gender": str(place[row["subject"]] % 2)}

    return rewritten(study, target, change)


def test_too_few_test_subjects_are_undecided_before_the_work_and_after(study, tmp_path, capsys, monkeypatch):
    """4 of 8 can be picked in 70 ways: p is 1/70 at least, and 0.005 is asked for. 5 of 10: 252 ways."""
    table = few_test_subjects(study, tmp_path / "labels.csv")
    raw = study.features / "features_hmdb_*_demo.h5"
    more = ("--labels", table, "--attributes", "gender", "--attributes-only", "--raw", raw, "--out", tmp_path / "out")
    assert main(arguments(study, *more)) == 4
    printed = capsys.readouterr().out
    assert "10 can decide" in printed
    assert "--anyway" in printed
    assert not (tmp_path / "out").exists()
    assert main(arguments(study, *more, "--anyway")) == 4
    assert "UNDECIDED" in capsys.readouterr().out
    evidence = json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert not evidence["valid"]
    gates = [gate for gate in evidence["gates"] if gate["state"] == "undecided"]
    assert [gate["numbers"]["subjects_needed"] for gate in gates] == [10, 10]
    assert [gate["numbers"]["subjects"] for gate in gates] == [8, 8]
    assert gates[0]["numbers"]["least_p"] == pytest.approx(1 / 70)
    assert "Undecided" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("more", "culprit"),
    [
        (("--released", "nowhere_*.h5"), "--released"),
        (("--attributes", "gendre"), "private_labels.csv"),
        (("--attributes", "gender:colour"), "--attributes"),
        (("--attributes", "subject"), "private_labels.csv"),
        (("--raw", "{train}"), "--raw"),
    ],
)
def test_bad_input_is_refused_in_a_line(study, more, culprit):
    train = study.features / "features_hmdb_train_demo.h5"
    with refused(culprit):
        main(arguments(study, *(text.format(train=train) for text in more)))


def test_a_person_in_two_splits_is_refused(study, tmp_path):
    table = rewritten(study, tmp_path / "labels.csv", lambda row: row | {"subject": "somebody"})
    with refused("labels.csv"):
        main(arguments(study, "--labels", table))


@pytest.mark.long(reason="an audit starts processes, and each imports PyTorch")
def test_processes_give_the_numbers_of_one(study, tmp_path):
    """As a program of its own: attackers are trained in processes that start by importing it again."""
    for workers in ("1", "2"):
        more = ("--attributes", "gender", "--attributes-only", "--workers", workers, "--out", tmp_path / workers)
        program = [sys.executable, "-m", "splavu", *arguments(study, *more)]
        done = subprocess.run(program, capture_output=True, text=True, timeout=300, env=study.environment)
        assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / workers / "evidence.json").read_text()) for workers in ("1", "2"))
    for name in ("rungs", "strongest", "gates", "headline"):
        assert one[name] == two[name]


def test_a_full_audit_has_seven_families_and_five_seeds():
    options = AuditOptions()
    assert {"logistic", "svm", "knn", "kernel", "mlp", "mlp_large", "trees"} <= set(options.families)
    assert "attention" in options.set_families
    assert all(len(options.seeds) >= 5 for name in options.families if ATTACKERS[name].stochastic)


class Examined(Exception):
    """Ends an audit where it would begin."""


@pytest.mark.parametrize(
    ("more", "seeds"),
    [
        ((), (0, 1, 2, 3, 4)),
        (("--seeds", "2"), (0, 1)),
        (("--seeds", "3", "--seed", "20"), (20, 21, 22)),
        (("--seeds", "3", "--seed", "20", "--quick"), (20,)),
    ],
)
def test_as_many_seeds_as_asked_for_begin_at_the_first(study, monkeypatch, more, seeds):
    def examine(_, options, **__):
        raise Examined(options)

    monkeypatch.setattr(run, "examine", examine)
    given = [part for part in arguments(study, *more[: -1 if "--quick" in more else None]) if part != "--quick"]
    with pytest.raises(Examined) as ended:
        main([*given, "--quick"] if "--quick" in more else given)
    assert ended.value.args[0].seeds == seeds

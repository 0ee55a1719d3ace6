"""`audit` and `fit --private` on tables as people write them: one reader, and no column dropped in silence."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from refusals import refused

from splavu.__main__ import main
from splavu.anonymizers.loading import load_anonymizer
from splavu.runtime import checkpoints
from splavu.stores import StoreWriter

NUM_SUBJECTS, WIDTH = 20, 12


@pytest.fixture
def world(tmp_path):
    """Two videos per subject with keys `show.S01.E05`; dimension 0 is the subject's gender, 1 the video's hat."""
    rng = np.random.default_rng(0)
    rows = []
    with StoreWriter(tmp_path / "store.h5", attributes={"encoder": "demo"}) as store:
        for number in range(2 * NUM_SUBJECTS):
            subject, gender, hat = number // 2, number // 2 % 2, number % 2
            features = rng.normal(size=(3, WIDTH)).astype(np.float32)
            features[:, 0] += 3 * gender
            features[:, 1] += 3 * hat
            store.add(f"show.S01.E{number:02d}", features)
            rows.append({"filename": f"show.S01.E{number:02d}", "subject": f"s{subject}", "gender": gender, "hat": hat})
    return tmp_path, rows


def table(folder, rows, **change):
    """The rows with columns computed again, as a file."""
    rows = [row | {name: of(row) for name, of in change.items()} for row in rows]
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "labels.csv"


def audit(folder, *more):
    """The evidence of a quick audit, of fewer subjects than can decide."""
    given = [
        "audit",
        "--released",
        folder / "store.h5",
        "--labels",
        folder / "labels.csv",
        "--quick",
        "--quiet",
        "--anyway",
    ]
    main([*map(str, given), "--attributes-only", "--device", "cpu", "--workers", "1", "--out", str(folder), *more])
    return json.loads((folder / "evidence.json").read_text())


def fit(folder, *more):
    """The checkpoint of LEACE."""
    out = folder / "leace.pth"
    given = ["fit", "leace", "--raw", folder / "store.h5", "--private", folder / "labels.csv", "--out", out, "--quiet"]
    assert main([*map(str, given), *more]) == 0
    return checkpoints.read(out)


def columns(record):
    return {column["name"]: column["kind"] for column in record["columns"]}


def test_every_spelling_gives_what_0_and_1_give(world):
    folder, rows = world
    table(folder, rows)
    plain, erased = audit(folder), fit(folder)
    spellings = {
        "filename": lambda row: row["filename"] + ".mp4",
        "gender": lambda row: ("False", "TRUE")[row["gender"]],
        "hat": lambda row: ("-1", "1.0")[row["hat"]],
    }
    table(folder, rows, **spellings)
    spelled, erased_again = audit(folder), fit(folder)
    for name in ("rungs", "strongest", "headline", "attributes", "columns"):
        assert spelled[name] == plain[name]
    assert columns(plain) == {"gender": "binary", "hat": "binary"}
    assert erased["fa_architecture"]["rank"] == erased_again["fa_architecture"]["rank"] == 2
    for name, weight in erased["fa_model_state_dict"].items():
        np.testing.assert_array_equal(weight, erased_again["fa_model_state_dict"][name])


def test_an_unknown_cell_leaves_the_column_in(world):
    folder, rows = world
    table(folder, rows, gender=lambda row: "" if row["filename"].endswith("07") else row["gender"])
    evidence, content = audit(folder), fit(folder)
    assert [one["name"] for one in evidence["attributes"]] == ["gender", "hat"]
    assert evidence["columns"][0] == {"name": "gender", "kind": "binary", "unknown": 1, "no": 20, "yes": 19}
    (private,) = [file for file in content["fitted"]["files"] if file["role"] == "private"]
    assert private["columns"] == evidence["columns"]
    assert content["fitted"]["videos"] == 2 * NUM_SUBJECTS - 1
    assert content["fa_architecture"]["rank"] == 2


def test_classes_and_values_are_attacked_and_not_erased(world, capsys):
    folder, rows = world
    table(folder, rows, hat=lambda row: row["hat"] + 1, height=lambda row: 1.5 + len(row["subject"]) / 10)
    evidence, content = audit(folder), fit(folder)
    assert columns(evidence) == {"gender": "binary", "hat": "class", "height": "value"}
    asked = {one["name"]: [question["name"] for question in one["questions"]] for one in evidence["attributes"]}
    assert asked == {"gender": ["gender"], "hat": ["hat = 1", "hat = 2"], "height": ["height > 1.7"]}
    printed = capsys.readouterr().out
    assert re.search(r"\bclass: hat\b", printed)
    assert re.search(r"\bvalue: height\b", printed)
    assert "hat" in (folder / "report.html").read_text()
    assert content["fa_architecture"]["rank"] == 1
    for command in (audit, fit):
        with refused("labels.csv"):
            command(folder, "--attributes", "hat:binary")
    with refused("labels.csv"):
        fit(folder, "--attributes", "hat,height")
    assert [one["name"] for one in audit(folder, "--attributes", "hat,height")["attributes"]] == ["hat", "height"]


def test_columns_of_the_task_are_attacked_if_they_are_asked_for(world):
    folder, rows = world
    table(
        folder,
        rows,
        action=lambda row: "wave" if row["hat"] else "run",
        num_frames=lambda row: 20 + len(row["subject"]),
    )
    evidence = audit(folder)
    assert [one["name"] for one in evidence["attributes"]] == ["gender", "hat"]
    assert columns(evidence) | {"action": "not read", "num_frames": "not read"} == columns(evidence)
    evidence = audit(folder, "--attributes", "gender,action")
    assert [one["name"] for one in evidence["attributes"]] == ["gender", "action"]


def test_a_column_that_fits_no_kind_is_refused_until_others_are_asked_for(world):
    folder, rows = world
    table(folder, rows, note=lambda row: f"seen in {row['filename']}")
    for command in (audit, fit):
        with refused("labels.csv"):
            command(folder)
    assert columns(audit(folder, "--attributes", "gender,hat"))["note"] == "not read"
    assert fit(folder, "--attributes", "gender,hat")["fa_architecture"]["rank"] == 2


@pytest.mark.parametrize("blank", ["all", "some"])
def test_blank_subjects_are_refused(world, blank):
    folder, rows = world
    table(folder, rows, subject=lambda row: "" if blank == "all" or row["subject"] == "s3" else row["subject"])
    for command in (audit, fit):
        with refused("labels.csv"):
            command(folder)


def test_an_audit_of_those_the_anonymizer_was_fitted_to_is_warned_of(world):
    folder, rows = world
    given = ("--raw", str(folder / "store.h5"), "--aam", str(folder / "leace.pth"))
    table(folder, rows)
    fit(folder)
    assert any("fitted to 8 of the test subjects' 8 videos" in text for text in audit(folder, *given)["warnings"])
    table(folder, rows, split=lambda row: ("train", "val", "test")[int(row["subject"][1:]) // 7])
    fit(folder)
    assert not any("fitted to" in text for text in audit(folder, *given)["warnings"])


def test_keys_with_dots_take_their_own_labels(world):
    folder, rows = world
    table(folder, rows, filename=lambda row: row["filename"] + ".mp4")
    fit(folder)
    removed = np.eye(WIDTH) - load_anonymizer(folder / "leace.pth").weight.numpy()
    directions = np.linalg.svd(removed)[0][:, :2]
    assert np.linalg.norm(directions[:2], axis=0).min() > 0.9, "the dimensions of gender and hat, of 12"
    with (folder / "labels.csv").open("a") as file:
        file.write("show.S01.E03.avi,s1,0,0\n")
    for command in (audit, fit):
        with refused("labels.csv"):
            command(folder)


def test_the_cases_that_lost_a_column(shared, tmp_path):
    cases = shared / "cases"
    for store, labels, expected in (
        ("store_40x3x8.h5", "audit_bool_columns.csv", {"gender": 0, "face": 0, "skin": 1}),
        ("f.h5", "ec1.csv", {"gender": 1, "glasses": 0}),
    ):
        out = str(tmp_path / "leace.pth")
        given = ["fit", "leace", "--raw", str(cases / store), "--private", str(cases / labels), "--out", out]
        assert main([*given, "--quiet"]) == 0
        private = checkpoints.read(out)["fitted"]["files"][-1]
        assert {one["name"]: one["unknown"] for one in private["columns"]} == expected
        assert {one["kind"] for one in private["columns"]} == {"binary"}
    given = ["fit", "quantizer", "--codes", "4", "--raw", str(cases / "dots_collide.h5")]
    assert main([*given, "--labels", str(cases / "dots_collide.csv"), "--out", out, "--quiet"]) == 0
    assert checkpoints.read(out)["fitted"]["videos"] == 40

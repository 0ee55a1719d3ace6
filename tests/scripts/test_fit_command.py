"""`python -m splavu fit`: a checkpoint that the other commands take, and one clear line for what can't be fitted."""

import csv
import json

import numpy as np
import pytest
import torch
from closed_forms import FITTINGS
from conftest import write_study
from refusals import refused

from splavu.__main__ import main
from splavu.anonymizers.closed_form import leace
from splavu.anonymizers.closed_form.codes import evenly_split_bits
from splavu.anonymizers.closed_form.methods import METHODS
from splavu.anonymizers.loading import load_anonymizer
from splavu.runtime import checkpoints
from splavu.runtime.files import file_hash
from splavu.stores import open_features


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("fit"))


@pytest.fixture
def files(world):
    hmdb = world.data / "hmdb51"
    return {
        "raw": world.features / "features_hmdb_train_demo.h5",
        "static": world.features / "features_hmdb_train_demo_fb10.h5",
        "labels": hmdb / "hmdb51_train_labels.csv",
        "private": hmdb / "private_labels.csv",
        "test": world.features / "features_hmdb_test_demo.h5",
    }


def fit(method, files, out, options=None):
    words = (FITTINGS[method].options if options is None else options).format(**files).split()
    assert main(["fit", method, "--raw", str(files["raw"]), "--out", str(out), "--quiet", *words]) == 0
    return checkpoints.read(out)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_what_anonymize_takes(method, files, tmp_path, capsys):
    out = tmp_path / "made.pth"
    content = fit(method, files, out)
    assert "fitted to" in capsys.readouterr().out
    made = load_anonymizer(out)
    assert made.architecture.get("rank") == FITTINGS[method].rank
    released = tmp_path / "released.h5"
    assert main(["anonymize", "--aam", str(out), str(files["test"]), str(released), "--quiet"]) == 0
    raw, safe = open_features(files["test"]), open_features(released)
    assert safe.keys() == raw.keys()
    assert not any(np.array_equal(raw[key], safe[key]) for key in raw)

    fitted = content["fitted"]
    assert (fitted["method"], fitted["videos"]) == (method, 72)
    by_role = {file["role"]: file for file in fitted["files"]}
    assert by_role["raw"]["sha256"] == file_hash(files["raw"])
    assert by_role["raw"]["attributes"]["encoder"] == "demo"
    assert set(by_role) == {
        "raw",
        *(role for role in ("static", "labels", "private", "subjects") if f"--{role}" in FITTINGS[method].options),
    }


def test_what_is_fitted_is_what_the_function_gives_on_training_people(files, tmp_path):
    fit("leace", files, tmp_path / "made.pth", "--private {private} --attributes gender,semi_nudity")
    store = open_features(files["raw"])
    with files["private"].open() as file:
        rows = {row["filename"][:-4]: row for row in csv.DictReader(file)}
    owners = [key for key in store for _ in store[key]]
    labels = np.array([[int(rows[key][name]) for name in ("gender", "semi_nudity")] for key in owners])
    expected = leace(np.concatenate([store[key] for key in store]), labels)
    made = load_anonymizer(tmp_path / "made.pth")
    np.testing.assert_allclose(made.weight.numpy(), expected.matrix, atol=1e-5)
    np.testing.assert_allclose(made.center.numpy(), expected.mean, atol=1e-5)


def test_only_train_rows_of_a_column_split_are_fitted_to(world, files, tmp_path):
    """All people's features given: those the table doesn't train on are left out."""
    everyone = [world.features / f"features_hmdb_{split}_demo.h5" for split in ("val", "test")]
    fit("leace", files, tmp_path / "alone.pth")
    fit("leace", files, tmp_path / "all.pth", FITTINGS["leace"].options + " --raw " + " ".join(map(str, everyone)))
    one, other = (load_anonymizer(tmp_path / name).state_dict() for name in ("alone.pth", "all.pth"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_after_an_eraser_the_quantizer_is_fitted_to_what_it_leaves(files, tmp_path):
    fit("eraser", files, tmp_path / "eraser.pth")
    content = fit(
        "quantizer", files, tmp_path / "both.pth", FITTINGS["quantizer"].options + f" --after {tmp_path}/eraser.pth"
    )
    stages = content["fa_architecture"]["stages"]
    assert [stage["arch"] for stage in stages] == ["affine", "quantizer"]
    assert "after" in {file["role"] for file in content["fitted"]["files"]}
    released = tmp_path / "released.h5"
    main(["anonymize", "--aam", str(tmp_path / "both.pth"), str(files["raw"]), str(released), "--quiet"])
    store = open_features(released)
    vectors = np.concatenate([store[key] for key in store])
    assert 1 < len(np.unique(vectors, axis=0)) <= 36
    eraser = load_anonymizer(tmp_path / "eraser.pth")
    erased = eraser(torch.from_numpy(vectors))
    np.testing.assert_allclose(erased.numpy(), vectors, atol=1e-3)  # codes lie in what the eraser leaves


def test_the_same_command_gives_the_same_weights_but_for_the_key_of_noise(files, tmp_path):
    for method in METHODS:
        states = [fit(method, files, tmp_path / f"{n}.pth")["fa_model_state_dict"] for n in range(2)]
        differ = {name for name in states[0] if not torch.equal(states[0][name], states[1][name])}
        assert differ == ({"key"} if method == "noise" else set())
    keyed = [fit("noise", files, tmp_path / "n.pth", "--sd 1 --seed 71829") for _ in range(2)]
    assert torch.equal(*(one["fa_model_state_dict"]["key"] for one in keyed))
    assert "71829" not in str(keyed[0]["fitted"])
    assert "71829" not in json.dumps(keyed[0]["fa_architecture"])


def test_bits_are_evenly_split_bits():
    for bits in (1, 7, 10, 11, 15, 24, 31):
        codes = evenly_split_bits(bits)
        assert sum(np.log2(codes)) == bits
        assert max(codes) <= 1024
        assert max(codes) <= 2 * min(codes)


@pytest.mark.parametrize(
    ("method", "options", "culprit"),
    [
        ("eraser", "--rank 3", "--static"),
        ("eraser", "--static {static}", "--rank"),
        ("eraser", "--static {static} --rank 3 --share 0.5", "--rank"),
        ("eraser", "--static {static} --share 1.5", "--share"),
        ("eraser", "--static {static} --rank 3 --lift cubic", "--lift"),
        ("eraser", "--static {static} --rank 3 --ridge -1", "--ridge"),
        ("eraser", "--static {test} --rank 3", "--static"),
        ("leace", "", "--private"),
        ("leace", "--private {private} --attributes height", "private_labels.csv"),
        ("leace", "--private {private} --attributes subject", "private_labels.csv"),
        ("leace", "--private {labels}", "hmdb51_train_labels.csv"),
        ("inlp", "--private {private} --rounds 0", "--rounds"),
        ("pca", "", "--keep"),
        ("pca", "--keep 500", "keep"),
        ("pca", "--keep many", "--keep"),
        ("pca", "--keep 4 --rank 3", "--rank"),
        ("pca", "--keep 0", "--keep"),
        ("quantizer", "", "--bits"),
        ("quantizer", "--codes many", "--codes"),
        ("quantizer", "--bits 3 --codes 8", "--bits"),
        ("quantizer", "--bits 0", "--bits"),
        ("noise", "--sd -1", "--sd"),
        ("noise", "--sd 1 --units room", "--units"),
        ("pka", "--keep 4", "METHOD"),
        ("pca", "--keep 4 --raw {raw}", "features_hmdb_train_demo.h5"),
        ("pca", "--keep 4 --after {labels}", "hmdb51_train_labels.csv"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(method, options, culprit, files, tmp_path):
    with refused(culprit):
        fit(method, files, tmp_path / "made.pth", options)
    assert not list(tmp_path.iterdir())


def test_released_features_are_refused(files, tmp_path):
    fit("pca", files, tmp_path / "pca.pth")
    main(["anonymize", "--aam", str(tmp_path / "pca.pth"), str(files["raw"]), str(tmp_path / "safe.h5"), "--quiet"])
    with refused("safe.h5"):
        fit("pca", {**files, "raw": tmp_path / "safe.h5"}, tmp_path / "again.pth")


def test_help_describes_each_method(capsys):
    with pytest.raises(SystemExit) as left:
        main(["fit", "--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"\n    {method}" in shown for method in METHODS)


# A floor of subjects.


def support_of(content):
    return content["fa_architecture"]["support"]


def test_subjects_come_from_a_table_or_the_private_labels(files, tmp_path):
    subjects = tmp_path / "subjects.csv"
    with files["private"].open() as file:
        rows = [f"{row['filename']},{row['subject']}" for row in csv.DictReader(file)]
    subjects.write_text("\n".join(["filename,subject", *rows]) + "\n")
    told = [
        fit("quantizer", files, tmp_path / f"{number}.pth", f"--labels {{labels}} --bits 4 {options}")
        for number, options in enumerate((f"--subjects {subjects}", "--private {private}", "--subjects {private}", ""))
    ]
    assert [support_of(content)["unit"] for content in told] == ["subject"] * 3 + ["video"]
    assert support_of(told[0]) == support_of(told[1]) == support_of(told[2])
    assert support_of(told[0])["at_least"] == 5
    assert "videos" in " ".join(told[3]["fitted"]["guarantees"])
    assert "videos" not in " ".join(told[0]["fitted"]["guarantees"])
    half = tmp_path / "half.csv"
    trained = set(open_features(files["raw"]))
    few = set(sorted({who for name, who in (row.split(",") for row in rows) if name[:-4] in trained})[:7])
    half.write_text("\n".join(["filename,subject", *(row for row in rows if row.split(",")[1] in few)]) + "\n")
    some = fit("quantizer", files, tmp_path / "some.pth", f"--labels {{labels}} --bits 4 --subjects {half}")
    known, all_known = (max(units for units, _ in support_of(one)["histogram"][0]) for one in (some, told[0]))
    assert known <= 7 < all_known


def test_subjects_that_are_not_to_be_trained_on_are_left_out(files, tmp_path):
    with files["private"].open() as file:
        rows = list(csv.DictReader(file))
    subjects = sorted({row["subject"] for row in rows if row["filename"][:-4] in set(open_features(files["raw"]))})
    table = tmp_path / "subjects.csv"
    lines = [
        f"{row['filename']},{row['subject']},{'test' if row['subject'] in subjects[:3] else 'train'}" for row in rows
    ]
    table.write_text("\n".join(["filename,subject,split", *lines]) + "\n")
    made = fit("quantizer", files, tmp_path / "q.pth", f"--labels {{labels}} --subjects {table} --bits 3")
    by_subject = {row["filename"][:-4]: row["subject"] for row in rows}
    kept = [key for key in open_features(files["raw"]) if by_subject[key] not in subjects[:3]]
    assert made["fitted"]["videos"] == len(kept) < 72
    with refused("subjects.csv"):
        table.write_text("\n".join(["filename,subject,split", *(line.replace("train", "test") for line in lines)]))
        fit("quantizer", files, tmp_path / "x.pth", f"--labels {{labels}} --subjects {table} --bits 3")


def test_the_bits_reached_are_printed_and_recorded(files, tmp_path, capsys):
    content = fit("quantizer", files, tmp_path / "q.pth", "--subjects {private} --codes 60,60")
    codes = content["fa_architecture"]["codes"]
    assert max(codes) < 60
    assert " x ".join(map(str, codes)) in capsys.readouterr().out
    assert sum(count for _, count in support_of(content)["histogram"][0]) == codes[0]


@pytest.mark.parametrize(
    ("options", "culprit"), [("--min-subjects 100", "min_subjects"), ("--min-subjects 0", "--min-subjects")]
)
def test_a_floor_that_nobody_reaches_is_refused(files, tmp_path, options, culprit):
    words = ["--raw", files["raw"], "--subjects", files["private"], "--out", tmp_path / "x.pth", "--bits", "4"]
    with refused(culprit):
        main(["fit", "quantizer", *map(str, words), *options.split(), "--quiet"])
    assert not (tmp_path / "x.pth").exists()


def test_a_table_without_subjects_is_refused(files, tmp_path):
    with refused(files["labels"].name):
        fit("quantizer", files, tmp_path / "x.pth", "--subjects {labels} --bits 4")

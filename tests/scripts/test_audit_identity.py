"""An audit of a table that says who is who and no more: subjects are linked, no attribute is attacked."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from refusals import refused

from splavu.__main__ import main
from splavu.stores import StoreWriter

WIDTH = 12
GYM = Path(__file__).parents[3] / "shared" / "real" / "gym_i3d.npz"


def write(folder, name, features):
    """A store; key -> [K, D]."""
    with StoreWriter(folder / f"{name}.h5", attributes={"encoder": "demo"}) as store:
        for key, rows in features.items():
            store.add(key, rows.astype(np.float32))
    return folder / f"{name}.h5"


def table(folder, subject_of):
    path = folder / "subjects.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "subject"])
        writer.writerows((f"{key}.mp4", subject) for key, subject in subject_of.items())
    return path


def people(*, subjects=60, videos=3, clips=3, seed=0):
    """Clips that show their person, and little more; and whose they are."""
    rng = np.random.default_rng(seed)
    features, subject_of = {}, {}
    for subject in range(subjects):
        who = rng.normal(size=WIDTH) * 2
        for _ in range(videos):
            key = f"{rng.integers(10**9):09d}"
            features[key] = who + rng.normal(size=(clips, WIDTH))
            subject_of[key] = f"s{subject:02d}"
    return features, subject_of


def audit(folder, raw, released, subject_of, *more):
    stores = ["--raw", write(folder, "raw", raw), "--released", write(folder, "released", released)]
    given = ["audit", *stores, "--labels", table(folder, subject_of), "--quick", "--quiet", "--device", "cpu"]
    code = main(list(map(str, [*given, "--workers", "1", "--out", folder / "out", *more])))
    return code, json.loads((folder / "out" / "evidence.json").read_text())


def noise(features, seed=1):
    rng = np.random.default_rng(seed)
    return {key: rng.normal(size=rows.shape) for key, rows in features.items()}


def test_a_release_that_links_leaks(tmp_path, capsys):
    raw, subject_of = people()
    code, evidence = audit(tmp_path, raw, raw, subject_of)
    assert code == 0
    assert evidence["headline"]["verdict"] == "leaks"
    assert evidence["attributes"] == []
    assert evidence["linkage"]["released to released"]["worst_protected"]["beyond_luck"] > 3
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1].startswith("HEADLINE: linking subjects")
    page = (tmp_path / "out" / "report.html").read_text()
    who = [one["subject"] for one in evidence["linkage"]["released to released"]["worst_protected"]["who"]]
    assert "beyond luck" in page
    assert not any(subject in page for subject in who), "names of subjects belong to the owner"


def test_a_release_of_noise_does_not(tmp_path):
    raw, subject_of = people()
    code, evidence = audit(tmp_path, raw, noise(raw), subject_of)
    assert code == 0
    assert evidence["headline"]["verdict"] != "leaks"
    assert evidence["linkage"]["raw to raw"]["p"] < 0.005


def test_subjects_of_one_video_are_linked_clip_to_clip(tmp_path):
    """Never a clip with itself: noise of many clips would link perfectly."""
    raw, subject_of = people(videos=1, clips=5)
    code, evidence = audit(tmp_path, raw, noise(raw), subject_of)
    assert code == 0
    assert evidence["linkage"]["raw to raw"]["rank1"]["value"] > 0.5
    assert evidence["linkage"]["released to released"]["rank1"]["value"] < 0.3
    assert any("clips are linked" in warning for warning in evidence["warnings"])


def test_raw_features_that_link_nobody_prove_nothing(tmp_path):
    raw, subject_of = people()
    code, evidence = audit(tmp_path, noise(raw), noise(raw, seed=2), subject_of)
    assert code == 3
    assert not evidence["valid"]


def test_too_few_subjects_are_undecided_before_the_work(tmp_path, capsys):
    raw, subject_of = people(subjects=20)
    stores = ["--raw", write(tmp_path, "raw", raw), "--released", write(tmp_path, "released", raw)]
    given = ["audit", *stores, "--labels", table(tmp_path, subject_of), "--quick", "--quiet", "--out", tmp_path / "out"]
    assert main(list(map(str, given))) == 4
    assert "9 can decide" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_an_audit_of_attributes_only_has_nothing_to_do(tmp_path):
    raw, subject_of = people()
    with refused("--attributes-only"):
        audit(tmp_path, raw, raw, subject_of, "--attributes-only")


@pytest.mark.slow
@pytest.mark.skipif(not GYM.exists(), reason=f"takes {GYM.name} of ../shared")
def test_real_videos_of_which_only_their_clips_are_known(tmp_path):
    """505 gym videos, a subject each. Raw clips of one video are alike; a release of noise is not."""
    stored = np.load(GYM, allow_pickle=True)
    videos = stored["video"]
    raw = {key: stored["features"][videos == key][:, ::16].astype(np.float32) for key in np.unique(videos).tolist()}
    code, evidence = audit(tmp_path, raw, noise(raw), {key: key for key in raw})
    assert code == 0
    assert evidence["linkage"]["raw to raw"]["rank1"]["value"] > 0.5
    assert evidence["headline"]["verdict"] != "leaks"

"""The table of closed forms: each is the same by `splavu fit` and by `fa_arch`, and other packages add to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from closed_forms import FITTINGS
from conftest import REPOSITORY
from refusals import assert_refuses, refused

from multitask_train_fa import train
from splavu.__main__ import main
from splavu.anonymizers.closed_form.fit_data import FitData
from splavu.anonymizers.closed_form.methods import BUILT_IN, METHODS
from splavu.anonymizers.pipeline import build_pipeline, parse
from splavu.data.private_labels import PrivateLabels
from splavu.runtime import checkpoints
from study.datasets import loading
from study.datasets.loading import open_dataset
from study.training.anonymizer_params import AnonymizerParams


def params_of(chain, **changes):
    return AnonymizerParams(
        run_id="t", ar_dataset="hmdb51", ft_arch="demo", fa_arch=chain, seed=4, fb_frame_pool=10, **changes
    )


def fitted_by_command(study, method, options, out):
    hmdb = study.data / "hmdb51"
    files = {
        "static": study.features / "features_hmdb_train_demo_fb10.h5",
        "labels": hmdb / "hmdb51_train_labels.csv",
        "private": hmdb / "private_labels.csv",
    }
    raw = study.features / "features_hmdb_train_demo.h5"
    words = options.format(**files).split()
    assert main(["fit", method, "--raw", str(raw), "--out", str(out), "--quiet", *words]) == 0
    return checkpoints.read(out)


@pytest.mark.parametrize("method", [row.name for row in BUILT_IN])
def test_by_command_and_by_parameter_file_a_closed_form_is_the_same_to_the_bit(study, method, tmp_path):
    options, chain, changes, _ = FITTINGS[method]
    command = fitted_by_command(study, method, options, tmp_path / "made.pth")
    result = train(params_of(chain, **changes))
    file = checkpoints.read(result["checkpoint"])
    assert file["fa_architecture"] == command["fa_architecture"]
    one, other = (content["fa_model_state_dict"] for content in (command, file))
    assert one.keys() == other.keys()
    differ = {name for name in one if not torch.equal(one[name], other[name])}
    assert differ == ({"key"} if method == "noise" else set())  # the key of noise is drawn at random
    assert file["fitted"]["clips"] == command["fitted"]["clips"]
    assert parse(file["fitted"]["chain"]) == params_of(chain, **changes).chain


def test_closed_forms_follow_one_another_as_with_after(study, tmp_path):
    fitted_by_command(study, "leace", FITTINGS["leace"].options, tmp_path / "first.pth")
    fitted_by_command(study, "random", f"--keep 12 --seed 4 --after {tmp_path}/first.pth", tmp_path / "second.pth")
    after = f"--labels {{labels}} --bits 4 --seed 4 --after {tmp_path}/second.pth"
    command = fitted_by_command(study, "quantizer", after, tmp_path / "all.pth")
    file = checkpoints.read(train(params_of("leace+random(keep=12)+quantizer(bits=4)"))["checkpoint"])
    one, other = (content["fa_model_state_dict"] for content in (command, file))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_videos_of_unknown_private_labels_are_left_out(study, monkeypatch):
    """LEACE is fitted to the rest; the eraser before it, to all."""
    dataset = open_dataset("hmdb51", "train", encoder="demo", static_frames=10)
    labels = loading.private_labels("hmdb51", "train", dataset.keys)
    some = dict(list(labels.values.items())[::2])
    data = FitData.of(dataset, private=some, attributes=labels.attributes)
    known = data.take([dataset.keys[video] in some for video in data.videos])
    assert 0 < len(known.features) < len(data.features)
    made, expected = (build_pipeline(parse("leace"), one) for one in (data, known))
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in made.state_dict().items())
    eraser = build_pipeline(parse("eraser(rank=3)"), data)
    both = build_pipeline(parse("eraser(rank=3)+leace"), data)
    assert torch.equal(both.stages[0].decode, eraser.decode)
    monkeypatch.setattr("study.training.anonymizer.private_labels", lambda *_, **__: PrivateLabels(("a",), {}, {}))
    with refused("private labels"):
        train(params_of("leace"))
    assert not (study.runs / "t/model_temp.pth").exists()


def test_a_form_without_its_data_is_refused():
    features = torch.randn(20, 4).numpy()
    for chain, culprit in (("leace", "private"), ("eraser(rank=1)", "static")):
        with refused(culprit):
            build_pipeline(parse(chain), FitData(features))


# Other packages.

PLUGIN = """
import numpy as np
from dataclasses import dataclass
from typing import Annotated

from splavu.anonymizers import AffineAnonymizer, Anonymizer
from splavu.anonymizers.closed_form.form import About, ClosedForm
from splavu.runtime.schema import Count, Schema


@dataclass(frozen=True)
class FirstOptions(Schema):
    first: Annotated[Count | None, About("dimensions to keep, the first ones", required=True)] = None


def fit(data, options, seed):
    kept = np.eye(data.features.shape[1])[: options.first]
    return AffineAnonymizer.of(np.zeros(kept.shape[1]), kept, kept.T, method="firstdims")


ROW = ClosedForm("firstdims", "keeps the first dimensions", fit=fit, options=FirstOptions)
WRONG = "no row"


class Mirror(Anonymizer):
    def __init__(self, feature_dim):
        super().__init__()
        self.architecture = {"arch": "mirror", "feature_dim": feature_dim}

    def map_rows(self, rows):
        return rows.flip(-1)


MIRROR = ClosedForm("mirror", "flips", fit=lambda data, *_: Mirror(data.features.shape[1]), network=Mirror)
"""
ENTRY_POINTS = """
[splavu.anonymizers]
firstdims = made_up_forms:ROW
mirror = made_up_forms:MIRROR
missing = made_up_nowhere:ROW
wrong = made_up_forms:WRONG
"""


@pytest.fixture
def plugged(tmp_path) -> Path:
    """A folder with a made-up distribution that brings a closed form and two entry points that lead nowhere."""
    folder = tmp_path / "site"
    about = folder / "made_up_forms-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "made_up_forms.py").write_text(PLUGIN)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: made-up-forms\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder


@pytest.mark.slow
def test_another_package_adds_a_closed_form_to_every_way_in(study, plugged, tmp_path):
    """A row is all: the command with its options, chains of parameter files, candidates and loading know it."""
    program = """
import sys
import torch
from multitask_train_fa import train
from splavu.__main__ import main
from splavu.anonymizers.loading import load_anonymizer
from splavu.anonymizers.pipeline import build_pipeline, parse
from splavu.anonymizers.closed_form.fit_data import FitData
from study.experiments.candidates import candidates

raw, out, base = sys.argv[1:]
assert main(["fit", "firstdims", "--first", "5", "--raw", raw, "--out", out, "--quiet"]) == 0
chain = build_pipeline(parse("firstdims(first=5)+pca(keep=3)"), FitData(torch.randn(30, 192).numpy()))
assert torch.equal(load_anonymizer(out).encode, chain.stages[0].encode)
assert main(["fit", "mirror", "--after", out, "--raw", raw, "--out", out + "2", "--quiet"]) == 0
both = load_anonymizer(out + "2").eval()
rows = torch.randn(3, 192)
assert torch.equal(both(rows), load_anonymizer(out).eval()(rows).flip(-1))
one, = candidates([{"fit": "firstdims", "first": 5}], base)
assert one.as_parameters.parameters().fa_arch == "firstdims(first=5)"
"""
    base = tmp_path / "base.py"
    base.write_text('run_id = "b"\nar_dataset = "hmdb51"\nft_arch = "demo"\nfa_arch = "pca(keep=3)"\n')
    raw = study.features / "features_hmdb_train_demo.h5"
    command = [sys.executable, "-c", program, str(raw), str(tmp_path / "out.pth"), str(base)]
    done = subprocess.run(command, cwd=REPOSITORY, env=with_path(plugged), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["missing", "wrong"])
def test_a_broken_entry_point_is_named_and_breaks_nothing_else(plugged, tmp_path, name):
    for words, code in (([name, "--raw", "x.h5", "--out", str(tmp_path / "x.pth")], 2), (["--help"], 0)):
        command = [sys.executable, "-m", "splavu", "fit", *words]
        done = subprocess.run(command, cwd=REPOSITORY, env=with_path(plugged), capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        if code:
            assert_refuses(done, f"entry point '{name}' of splavu.anonymizers")
    assert "--first" in done.stdout
    assert not (tmp_path / "x.pth").exists()


def with_path(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(REPOSITORY)])}


def test_every_row_declares_what_it_is():
    for name, row in METHODS.items():
        assert row.name == name
        assert row.help
        assert all(option.about.help for option in row.declared.values())
        assert set(row.one_of) <= row.declared.keys()
        row.options(**row.without_classes)

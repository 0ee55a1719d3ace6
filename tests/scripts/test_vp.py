"""The scripts of vp/ as a user runs them, on made-up videos that have an action and five private attributes."""

from __future__ import annotations

import json
import re

import pytest
from refusals import refused
from vp_world import write_world

from vp import train_vp_fa, train_vp_fb, train_vp_ft

SMALL = (
    "ft_arch=demo", "num_epochs=6", "num_epochs_ft=30", "num_epochs_fb=30", "batch_size=32", "learning_rate_fa=1e-3",
    "learning_rate_ft=1e-2", "learning_rate_fb=3e-3", "num_layers_fa=1", "fa_loss_weight=1",
)  # fmt: skip


@pytest.fixture
def study(tmp_path, monkeypatch):
    import config

    write_world(tmp_path)
    for name in ("data", "features", "runs"):
        monkeypatch.setattr(config, name.upper(), tmp_path / name)
    return tmp_path


def arguments(*overrides: str) -> list[str]:
    return ["--device", "cpu", "--quiet", *(part for text in (*SMALL, *overrides) for part in ("--set", text))]


def figures(study, run: str) -> dict:
    return json.loads((study / f"runs/{run}/results.json").read_text())["test"]


@pytest.mark.parametrize("ssl", [False, True])
def test_heads_before_and_after_an_anonymizer(study, ssl, capsys):
    how, adapter = f"ssl={ssl}", "fa_ssl" if ssl else "fa_labels"
    if not ssl:
        (study / "features/features_vp_hmdb_train_demo_fb10.h5").unlink()  # nothing supervised needs static clips
    assert train_vp_ft.main(arguments("anon=False")) == 0
    assert train_vp_fb.main(arguments("anon=False")) == 0
    assert figures(study, "vp_hmdb_ft_raw")["top1"] > 0.9
    assert figures(study, "vp_hmdb_fb_raw")["cmap"] > 0.9
    assert train_vp_fa.main(arguments(how)) == 0
    assert (study / f"runs/vp_hmdb_{adapter}/model_temp.pth").is_file()
    assert train_vp_ft.main(arguments(how)) == 0
    assert train_vp_fb.main(arguments(how)) == 0
    assert 0 <= figures(study, f"vp_hmdb_ft_{adapter}")["top1"] <= 1
    assert 0 <= figures(study, f"vp_hmdb_fb_{adapter}")["cmap"] <= 1
    shown = capsys.readouterr().out
    assert re.search(r"^raw\b.*\btest top-1\b", shown, flags=re.M)
    assert re.search(r"^anonymized\b.*\btest cMAP\b", shown, flags=re.M)


def test_the_labelled_adversary_learns_and_moves_the_anonymizer(study):
    """Weight 0 leaves the anonymizer to the other terms; any other weight gives other weights and an adversary."""
    import torch

    assert train_vp_fa.main(arguments("fb_loss_weight=0", "run_id=without")) == 0
    assert train_vp_fa.main(arguments("run_id=with")) == 0
    without, with_ = (
        torch.load(study / f"runs/{name}_fa_labels/model_temp.pth", weights_only=True) for name in ("without", "with")
    )
    assert "fb_model_state_dict" in with_
    assert "fb_model_state_dict" not in without
    states = [content["fa_model_state_dict"] for content in (without, with_)]
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_one_row_of_attributes_too_short_is_named(study, capsys):

    path = study / "data/vp/vphmdb51_labels_num.csv"
    lines = path.read_text().splitlines()
    lines[3] = lines[3].replace("[1. ", "[").replace("[0. ", "[")
    path.write_text("\n".join(lines) + "\n")
    with refused("vphmdb51_labels_num.csv", naming=("'wave/film0_", "5")):
        train_vp_fb.main(arguments("anon=False"))


@pytest.mark.parametrize(
    ("override", "culprit", "names"),
    [
        ("dataset=vp_hmbd", "params_vp.py", ("'vp_hmbd'", "'vp_hmdb'")),
        ("num_pa=7", "num_pa", "7"),
        ("saved_fa_model=nowhere.pth", "nowhere.pth", ()),
        ("anon=False val_split=val", "features_vp_hmdb_val_demo.h5", ()),
        ("num_epochs_ftt=3", "params_vp.py", "'num_epochs_ftt'"),
    ],
)
def test_bad_input_is_named(study, override, culprit, names):

    with refused(culprit, naming=names):
        train_vp_ft.main(arguments(*override.split()))

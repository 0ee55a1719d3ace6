"""train_ft.py and privacy_eval.py serve every row of the catalogue, each in its own layout of names and label files."""

from __future__ import annotations

import json

import pytest
from dataset_layouts import LAYOUTS, write_ntu
from refusals import refused

import privacy_eval
import train_ft
from splavu.data.labels import VISPR_ATTRIBUTES
from study.datasets.catalog import CATALOGUE


@pytest.fixture
def root(tmp_path, monkeypatch):
    import config

    for name in ("data", "features", "runs"):
        monkeypatch.setattr(config, name.upper(), tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_head_and_attackers_on(name, root, capsys):
    spec = CATALOGUE[name]
    LAYOUTS[name](root, spec)
    common = ["--device", "cpu", "--quiet", "--set", f"dataset={name}", "--set", "ft_arch=demo", "--set", "run_id=x"]
    settings = ["anon=False", "val_split=None", "num_epochs=40", "batch_size=64", "learning_rate=1e-2"]
    assert train_ft.main([*common, *(part for text in settings for part in ("--set", text))]) == 0
    found = json.loads((root / "runs/x/results.json").read_text())
    assert set(found["test"]) == ({"cmap", "loss"} if spec.multi_label else {"top1", "loss"})
    assert found["test"]["cmap" if spec.multi_label else "top1"] > 0.8
    assert found["epoch"] == 40

    views = ("static",) if spec.is_images else ("temporal",)
    settings = [
        "anon=False",
        f"views={views}",
        "attackers=('logistic',)",
        "seeds=(0,)",
        "num_resamples=50",
        "num_pa=None",
    ]
    assert privacy_eval.main([*common, *(part for text in settings for part in ("--set", text))]) in (0, 3)
    judged = json.loads((root / "runs/x/metrics.json").read_text())["views"][views[0]]
    expected = {"ntu": ["gender"], "tsh": ["gender"], "vp": ["skin_color", "face", "gender", "nudity", "relationship"]}
    assert list(judged["attributes"]) == expected.get(spec.folder, list(VISPR_ATTRIBUTES))
    assert judged["mean"]["raw"]["ap"] > judged["mean"]["chance"] + 0.2


def test_a_split_that_a_data_set_has_not_is_refused_with_a_way_out(root):
    write_ntu(root, CATALOGUE["ntu"])
    with refused("val_split", naming=("'val'", "ntu", "train, test", "val_split = None")):
        train_ft.main(
            [
                "--quiet",
                "--set",
                "dataset=ntu",
                "--set",
                "ft_arch=demo",
                "--set",
                "anon=False",
                "--set",
                "val_split=val",
            ]
        )

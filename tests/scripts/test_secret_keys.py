"""Released under secret keys, with renamed labels: every consumer gives what it gives under the raw ones.

Trainings draw videos by their place in the label file. So they are compared in the raw order (--keep-order), where
nothing but the names differs, and figures agree to the digit; what is only evaluated is compared in the released order.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from pathlib import Path

import mgfn_world
import numpy as np
import pytest
import test_gait
import thumos_world
import torch
from conftest import REPOSITORY, WIDTH, Study, write_study
from dataset_layouts import LAYOUTS
from refusals import refused

import config
import train_ft
from bias import evaluate_bias
from gait import evaluate_gait
from mgfn import label_list
from mgfn import main as mgfn_main
from mgfn import test as mgfn_test
from splavu import __main__
from splavu.anonymizers import build_anonymizer
from splavu.runtime import checkpoints, cli
from splavu.stores import open_features
from study.datasets.catalog import CATALOGUE
from tridet import eval as tridet_eval
from tridet import train as tridet_train

HEAD = ["--params", str(REPOSITORY / "params/params_demo_ft.py"), "--device", "cpu", "--quiet"]


def splavu(*args: object) -> None:
    assert __main__.main([*map(str, args)]) == 0


def anonymizer(folder: Path, width: int = WIDTH) -> Path:
    torch.manual_seed(0)
    made = build_anonymizer("mlp", width, identity=False)
    content = {"fa_model_state_dict": made.state_dict(), "fa_architecture": made.architecture}
    return checkpoints.write(folder / "aam.pth", content)


class Released:
    """Every store of a folder released twice: under the raw keys, and under secret ones (one secret for all)."""

    def __init__(self, root: Path, stores: list[Path], *, width: int = WIDTH) -> None:
        self.root, self.maps = root, []
        aam = anonymizer(root, width)
        for store in stores:
            for kind in ("kept", "secret"):
                out = root / kind / "features" / store.name
                out.parent.mkdir(parents=True, exist_ok=True)
                options = ["--keys", "secret", "--secret", root / "owner.secret"] if kind == "secret" else []
                splavu("anonymize", "--aam", aam, store, out, "--quiet", *options)
            self.maps += ["--keys", out.with_name(f"{out.name}.keys.csv")]

    def rename(self, source: Path | None, target: Path, *options: object) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        splavu("rename-keys", *self.maps, *options, *([] if source is None else [source]), target)
        return target

    def use(self, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        root = self.root / kind
        for name, folder in (("DATA", "data"), ("FEATURES", "features"), ("RUNS", "runs")):
            monkeypatch.setattr(config, name, root / folder)

    def result(self, kind: str, run: str) -> dict:
        return json.loads((self.root / kind / "runs" / run / "results.json").read_text())


def stores_of(folder: Path, stem: str) -> list[Path]:
    return sorted(folder.glob(f"features_{stem}_*.h5"))


def assert_names_are_gone(released: Released, raw_keys: list[str]) -> None:
    """Neither a store nor a label file of the release holds a raw name; the owner's files and the runs do not count."""
    stems = [key.rpartition("/")[2].encode() for key in raw_keys]
    for path in (released.root / "secret").rglob("*"):
        if path.is_file() and "runs" not in path.parts and not path.name.endswith((".keys.csv", ".secret")):
            assert not any(stem in path.read_bytes() or stem in path.name.encode() for stem in stems), path


def test_a_head_learns_the_same(tmp_path, monkeypatch):
    study = write_study(tmp_path / "raw")
    released = Released(tmp_path, stores_of(study.features, "hmdb"))
    shutil.copytree(study.data, tmp_path / "kept/data")
    for table in (study.data / "hmdb51").glob("*.csv"):
        released.rename(table, tmp_path / "secret/data/hmdb51" / table.name, "--keep-order")
    found = {}
    for kind in ("kept", "secret"):
        released.use(monkeypatch, kind)
        overrides = ["data_root=None", "anon=False", "run_id=head", "num_epochs=10", "val_freq=2"]
        assert train_ft.main([*HEAD, *(part for text in overrides for part in ("--set", text))]) == 0
        found[kind] = released.result(kind, "head")
    assert found["kept"]["test"]["top1"] > 0.5  # of four actions
    assert found["secret"]["test"] == found["kept"]["test"]
    assert_names_are_gone(released, [f"subject{number:02d}" for number in range(26)])


@pytest.mark.parametrize("name", ["ntu_bias_f", "tsh"])
def test_the_gap_between_genders_is_the_same(tmp_path, monkeypatch, name):
    row = CATALOGUE[name]
    LAYOUTS[name](tmp_path / "raw", row)
    stores = stores_of(tmp_path / "raw/features", row.folder)
    released = Released(tmp_path, stores)
    shutil.copytree(tmp_path / "raw/data", tmp_path / "kept/data")
    folder = tmp_path / "secret/data" / row.folder
    if name == "tsh":
        released.rename(tmp_path / "raw/data/tsh/tsh_labels.csv", folder / "tsh_labels.csv", "--keep-order")
    else:
        released.rename(None, folder / "ntu_names.csv", "--names", "ntu", "--keep-order")
        shutil.copy(tmp_path / "raw/data/ntu/ntu_subject_gender_labels.json", folder)
    found = {}
    for kind in ("kept", "secret"):
        released.use(monkeypatch, kind)
        overrides = ["data_root=None", "anon=False", "seeds=(0,)", "num_epochs=3", "num_resamples=50"]
        settings = [part for text in (*overrides, f"datasets=('{name}',)") for part in ("--set", text)]
        params = ["--params", str(REPOSITORY / "bias/params_demo_bias.py"), "--device", "cpu", "--quiet"]
        assert evaluate_bias.main([*params, *settings]) == 0
        found[kind] = released.result(kind, "protocols/bias")["bias"]["datasets"]
    assert found["secret"] == found["kept"]
    assert_names_are_gone(released, [key for store in stores for key in open_features(store)])


@pytest.mark.parametrize("order", [[], ["--keep-order"]])
def test_walkers_are_recognised_as_well(tmp_path, monkeypatch, order):
    """Nothing is trained: the order of the keys moves a mean by rounding, 1e-12, and no more."""
    raw = Study(tmp_path / "raw")
    test_gait.write(raw, identity=0.3, noise=1.0)
    released = Released(tmp_path, stores_of(raw.features, "casia_b"))
    released.rename(None, tmp_path / "secret/data/casia_b/casia_b_names.csv", "--names", "casia_b", *order)
    found = {}
    for kind in ("kept", "secret"):
        released.use(monkeypatch, kind)
        assert evaluate_gait.main(test_gait.arguments("anon=False", "num_resamples=100")) == 0
        result = released.result(kind, "protocols/gait")["gait"]
        found[kind] = {name: result[name] for name in ("probes", "gallery", "subjects", "chance", "comparisons")}
    assert 0.1 < found["kept"]["comparisons"]["raw"]["overall"]["rank1"]["value"] < 1
    assert flat(found["secret"]) == pytest.approx(flat(found["kept"]), abs=1e-12)
    if order:
        assert found["secret"] == found["kept"]


def flat(result: object, place: str = "") -> dict[str, float]:
    """The numbers of nested results by their place."""
    if isinstance(result, dict):
        parts = [flat(value, f"{place}/{name}") for name, value in result.items()]
    elif isinstance(result, list):
        parts = [flat(value, f"{place}/{index}") for index, value in enumerate(result)]
    else:
        return {place: result}
    return dict(itertools.chain.from_iterable(part.items() for part in parts))


def test_anomalies_are_found_as_well(tmp_path, monkeypatch):
    world = mgfn_world.write_world(tmp_path / "raw")
    width = mgfn_world.WIDTH
    released = Released(tmp_path, [world.features], width=width)
    assert not list((tmp_path / "secret/features/features").glob("*_x264.npy"))
    lists = {}
    for name in ("train", "test"):
        labelled = tmp_path / f"{name}.labelled"
        label_list.main([str(world.root / f"{name}.list"), str(labelled)])
        lists["kept", name] = world.root / f"{name}.list"
        lists["secret", name] = released.rename(labelled, tmp_path / f"secret/{name}.list", "--keep-order")
        lists["hashed", name] = released.rename(labelled, tmp_path / f"secret/{name}.hashed.list")
    features = {kind: tmp_path / kind / "features/features" for kind in ("kept", "secret")}
    of_truth = ("--list", world.root / "test.list", "--features")
    truth = released.rename(world.root / "gt.npy", tmp_path / "secret/gt.npy", *of_truth, features["kept"])
    again = released.rename(world.root / "gt.npy", tmp_path / "gt_again.npy", *of_truth, features["secret"])
    assert truth.read_bytes() == again.read_bytes()
    assert not np.array_equal(np.load(truth), np.load(world.root / "gt.npy"))
    found = {}
    for kind in ("kept", "secret"):
        options = {"rgb_list": lists[kind, "train"], "test_rgb_list": lists[kind, "test"], "features": features[kind]}
        mgfn_main.main(world.options(**options, output=tmp_path / kind / "runs"))
        found[kind] = json.loads((tmp_path / kind / "runs/mgfn/results.json").read_text())
        found[kind, "test"] = json.loads((tmp_path / kind / "runs/mgfn/test.json").read_text())
    assert found["secret"] == found["kept"]
    assert {"overall", "abnormal videos", "Fighting", "Robbery"} == found["secret", "test"].keys()
    assert found["secret", "test"] == found["kept", "test"]
    # A network that is trained is tested in the order of the release, with the ground truth in that order.
    checkpoint = next((tmp_path / "kept/runs/mgfn").glob("model_*_*.pth"))
    options = {"test_rgb_list": lists["hashed", "test"], "gt": truth, "features": features["secret"], "rgb_list": None}
    mgfn_test.main(world.options(**options, output=tmp_path / "hashed", pretrained_ckpt=checkpoint))
    tested = json.loads((tmp_path / "hashed/mgfn/test.json").read_text())
    assert flat(tested) == pytest.approx(flat(found["kept", "test"]), abs=1e-6)
    assert_names_are_gone(released, [path.stem for path in features["kept"].glob("*.npy")])


def test_actions_are_detected_as_well(tmp_path, monkeypatch, capsys):
    world = thumos_world.write_world(tmp_path / "raw")
    released = Released(tmp_path, [world.features])

    def run(script, *args: object) -> str:
        monkeypatch.setattr(sys, "argv", [script.__name__, "--device", "cpu", "--quiet", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.run(script.main)
        assert left.value.code in (0, None)
        return capsys.readouterr().out

    printed = {}
    for kind, order in (("kept", ()), ("secret", ("--keep-order",)), ("hashed", ())):
        folder = tmp_path / ("kept" if kind == "kept" else "secret")
        annotations = folder / f"{kind}.json"
        if kind == "kept":
            shutil.copy(world.annotations, annotations)
        else:
            released.rename(world.annotations, annotations, *order)
        settings = tmp_path / f"{kind}.yaml"
        runs = tmp_path / kind / "runs"
        features = folder / "features/features"
        thumos_world.write_config(settings, json_file=annotations, feat_folder=features, output_folder=runs)
        if kind != "hashed":
            checkpoint = Path(run(tridet_train, settings, "--output", "small").splitlines()[-1])
        printed[kind] = run(tridet_eval, settings, checkpoint)
    assert "mAP" in printed["kept"]
    assert printed["secret"] == printed["kept"]
    assert printed["hashed"] == printed["kept"]  # the same network, the videos in the order of the release
    assert_names_are_gone(released, [path.stem for path in world.features.glob("*.npy")])


def test_a_list_without_labels_in_its_renamed_names_is_refused_by_mgfn(tmp_path):
    world = mgfn_world.write_world(tmp_path / "raw")
    released = Released(tmp_path, [world.features], width=mgfn_world.WIDTH)
    bare = released.rename(world.root / "train.list", tmp_path / "secret/train.list")
    with refused("train.list line 1"):
        mgfn_main.main(world.options(rgb_list=bare, test_rgb_list=bare, features=tmp_path / "secret/features/features"))

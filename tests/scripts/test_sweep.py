"""`python -m splavu sweep`: candidates made, measured once and told, and a file that makes the chosen one again."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import forks
import numpy as np
import pytest
from conftest import NUM_ACTIONS, REPOSITORY, Study, write_study
from refusals import assert_refusal, refused
from threadpoolctl import threadpool_limits
from untrimmed_world import add_untrimmed

import config
from multitask_train_fa import train
from splavu.anonymizers.loading import load_anonymizer, weights_hash
from splavu.runtime import cli, params
from splavu.runtime.distributed import NOT_DISTRIBUTED
from splavu.stores import FeatureStore
from splavu.tuning.operating_points import Measurement
from study.__main__ import main as study_command
from study.sweep import command as sweep
from study.sweep import measure as sweep_measuring
from study.sweep.measure import SweepParams
from study.training.anonymizer_params import AnonymizerParams

BASE = """
run_id = "base"
ar_dataset = "hmdb51"
ft_arch = "demo"
val_split = "val"
fa_arch = "eraser"
erase_rank = 9
data_root = "elsewhere"  # the sweep names another
"""
CANDIDATES = (
    {"fa_arch": "eraser", "erase_rank": 4, "seeds": (1,)},
    {"fa_arch": "eraser", "erase_rank": 20},
    {"fa_arch": "quantizer", "bits": 4, "seeds": (1,)},
)
SWEEP = f"""
run_id = "swept"
candidates = {CANDIDATES!r}
baselines = ({{"fit": "leace"}},)
seeds = (0, 1)
attackers = ("logistic",)
most_lost = 5.0
num_resamples = 100
"""


class Inline:
    """In place of a pool of processes."""

    def __init__(self, *_, **__) -> None:
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass

    map = staticmethod(map)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Study:
    """The made-up study with long videos, all below one data root."""
    study = write_study(tmp_path_factory.mktemp("swept"))
    add_untrimmed(study, num_train=30)
    (study.data / "features").symlink_to(study.features)
    (study.root / "base.py").write_text(BASE)
    write(study)
    return study


def write(study: Study, *lines: str, name: str = "sweep.py") -> str:
    """A parameter file, the last line of a name counts."""
    places = {"base": "base.py", "tad_config": "small.yaml", "data_root": "data"}
    named = [f"{key} = {str(study.root / place)!r}" for key, place in places.items()]
    (study.root / name).write_text("\n".join([SWEEP, *named, *lines]) + "\n")
    return str(study.root / name)


@pytest.fixture(scope="module")
def swept(world) -> subprocess.CompletedProcess[str]:
    """The sweep as a user runs it."""
    options = ["--params", str(world.root / "sweep.py"), "--quiet", "--device", "cpu", "--jobs", "2"]
    return forks.python("-m", "splavu", "sweep", *options, cwd=REPOSITORY, environment=world.environment, timeout=600)


@pytest.fixture
def here(world, monkeypatch) -> Path:
    """Folder of the run; config.py points at the study, and measurements take no processes of their own."""
    monkeypatch.setattr(config, "DATA", world.data)
    monkeypatch.setattr(config, "FEATURES", world.features)
    monkeypatch.setattr(config, "RUNS", world.runs)
    monkeypatch.setattr(sweep_measuring, "worker_processes", Inline)
    return world.runs / "swept"


def again(world: Study, *options: str, file: str = "sweep.py") -> int:
    return study_command(
        ["sweep", "--params", str(world.root / file), "--quiet", "--device", "cpu", "--jobs", "1", *options]
    )


def result(here: Path) -> dict:
    return json.loads((here / "sweep.json").read_text())


def kept(here: Path) -> dict[str, int]:
    """Measurement -> when it was written."""
    return {str(path.relative_to(here)): path.stat().st_mtime_ns for path in here.glob("*/measured-*.npz")}


def worst(point: dict) -> float:
    return max(found["value"] for found in point["leakage"].values())


def most_lost(point: dict) -> float:
    return max(found["value"] for found in point["lost"].values())


def test_everything_is_made_measured_and_told(swept, here):
    assert swept.returncode == 0, swept.stderr
    assert swept.stdout.startswith("# Operating points")
    assert swept.stdout.rstrip().endswith(f"sweep: {here / 'sweep.md'}")
    assert (here / "sweep.md").read_text().strip() in swept.stdout
    assert (here / "sweep.png").read_bytes()[:4] == b"\x89PNG"
    points = {point["name"]: point for point in result(here)["points"]}
    assert list(points) == ["eraser-r4", "eraser-r20", "quantizer-b4", "leace"]
    assert {name: point["num_seeds"] for name, point in points.items()} == {
        "eraser-r4": 1, "eraser-r20": 2, "quantizer-b4": 1, "leace": 2,
    }  # fmt: skip
    for name, point in points.items():
        assert set(point["uses"]) == set(point["lost"]) == {"actions", "unseen", "moments", "anomalies"}
        assert set(point["leakage"]) == {"clip", "video"}
        assert f"| {name}" in swept.stdout
    assert points["eraser-r20"]["leakage"]["clip"]["value"] < points["eraser-r4"]["leakage"]["clip"]["value"] < 1
    assert (points["quantizer-b4"]["budget"], points["eraser-r4"]["budget"]) == (4.0, None)
    assert points["quantizer-b4"]["distinct"] <= 16
    assert points["quantizer-b4"]["entropy"] <= 4
    volumes = result(here)["hypervolume"]
    assert list(volumes) == ["all candidates", "eraser", "quantizer", "leace"]
    assert all(0 <= volume["value"] <= 1 for volume in volumes.values())
    assert volumes["all candidates"]["value"] >= max(volumes["eraser"]["value"], volumes["quantizer"]["value"])


def action(video: str) -> int:
    """As the study deals them."""
    return int(video.split("_")[1]) % NUM_ACTIONS


def test_of_each_candidate_another_is_made_that_is_not_shown_half_of_the_actions(swept, world, here):
    assert {path.name for path in here.iterdir() if "unseen" in path.name} == {
        "eraser-r4-unseen-s1", "eraser-r20-unseen-s0", "eraser-r20-unseen-s1", "quantizer-b4-unseen-s1"
    }  # fmt: skip
    p = params.load(world.root / "sweep.py", SweepParams)
    store = FeatureStore(world.features / "features_hmdb_train_demo.h5")
    videos = store.keys()
    for seed in (0, 1):
        left_out = sweep_measuring.left_out_actions(p, sweep_measuring.bench_params(p), seed)
        assert left_out == set(np.random.default_rng(seed).permutation(NUM_ACTIONS)[:2].tolist())
        shown = [store[video] for video in videos if action(video) not in left_out]
        told = json.loads((here / f"eraser-r20-unseen-s{seed}/results.json").read_text())["fitted"]
        assert (told["videos"], told["clips"]) == (len(shown), len(np.concatenate(shown)))
    center = load_anonymizer(made_at(here, "quantizer-b4-unseen-s1")).center
    np.testing.assert_allclose(center, np.concatenate(shown).mean(axis=0), atol=1e-5)  # of this and no other half
    for folder, other in (("quantizer-b4-s1", "quantizer-b4-unseen-s1"), ("eraser-r4", "eraser-r4-unseen-s1")):
        assert made(here, folder) != made(here, other)


def test_use_for_actions_that_were_not_shown_is_told_beside_raw_features(swept, here):
    for seed in (0, 1):
        with np.load(here / f"raw/measured-s{seed}.npz", allow_pickle=False) as content:
            assert content["uses/unseen/value"] == 1.0  # the study's actions are far apart
            assert content["uses/unseen/chance"] < 0.7
    points = {point["name"]: point for point in result(here)["points"]}
    lost = {name: point["lost"]["unseen"]["value"] for name, point in points.items()}
    assert lost["leace"] == lost["eraser-r4"] == 0.0
    assert lost["quantizer-b4"] > 0.2  # sixteen vectors spent on other actions; told those, it lost none
    assert points["quantizer-b4"]["lost"]["actions"]["value"] == 0.0


def test_without_that_probe_no_other_is_made(world, here):
    p = params.load(write(world, "probes = ('moments',)", name="shown.py"), SweepParams)
    for candidate in sweep.candidates(p.candidates, p.base):
        assert sweep_measuring.with_twin(candidate, p) == (candidate,)
    assert sweep_measuring.left_out_actions(p, sweep_measuring.bench_params(p), 0) == frozenset()


def test_the_best_candidate_is_chosen_and_a_better_baseline_is_not(swept, here):
    points = {point["name"]: point for point in result(here)["points"]}
    usable = {name: worst(point) for name, point in points.items() if most_lost(point) <= 0.05}
    assert min(usable, key=usable.get) == "leace"  # else this test says nothing
    assert result(here)["chosen"] == min(usable.keys() - {"leace"}, key=usable.get) == "eraser-r20"
    assert "leace" not in result(here)["front"]
    assert re.search(r"^\| leace .* baseline +\|$", swept.stdout, flags=re.M)
    assert re.search(r"^\| eraser-r20 .* chosen +\|$", swept.stdout, flags=re.M)


def test_a_recipe_among_the_baselines_is_not_chosen(world, swept, here):
    file = write(world, f"candidates = ({CANDIDATES[0]!r},)", f"baselines = ({CANDIDATES[1]!r},)", name="moved.py")
    assert study_command(["sweep", "--params", file, "--quiet"]) == 0
    assert result(here)["chosen"] == "eraser-r4"
    assert result(here)["front"] == ["eraser-r4"]
    assert again(world) == 0
    assert result(here)["chosen"] == "eraser-r20"


def remade(here: Path, study: Study) -> str:
    """The weights that chosen.py leads to."""
    p = params.load(here / "chosen.py", AnonymizerParams)
    assert p.data_root == str(study.data)
    with threadpool_limits(1):  # as the sweep's jobs: more threads round otherwise
        found = train(dataclasses.replace(p, run_id=f"again-{here.name}{p.seed}"), NOT_DISTRIBUTED)
    return weights_hash(load_anonymizer(found["checkpoint"]))


def made_at(here: Path, folder: str) -> str:
    return json.loads((here / folder / "results.json").read_text())["checkpoint"]


def made(here: Path, folder: str) -> str:
    return weights_hash(load_anonymizer(made_at(here, folder)))


def test_the_chosen_file_makes_the_chosen_one_again(world, swept, here):
    assert again(world) == 0
    assert remade(here, world) == made(here, "eraser-r20")
    assert ", 2 seeds:" in (here / "chosen.py").read_text()


def test_the_chosen_file_names_the_seed_that_was_measured(world, swept, here):
    """Ensembles find a little in what the quantizer's vectors give away, 8 % against the eraser's 6 %: it is alone."""
    file = write(world, f"candidates = ({CANDIDATES[2]!r},)", "most_lost = 60.0", name="one_seed.py")
    assert study_command(["sweep", "--params", file, "--quiet", "--device", "cpu", "--jobs", "1"]) == 0
    assert result(here)["chosen"] == "quantizer-b4"
    assert params.load(here / "chosen.py", AnonymizerParams).seed == 1
    assert remade(here, world) == made(here, "quantizer-b4-s1")
    assert ", 1 seed:" in (here / "chosen.py").read_text()


def test_a_closed_form_of_fit_may_be_chosen_and_its_file_makes_it_again(world, here):
    """Also what the refusal of a candidate with a file of its own offers: leave the file out, or make it a baseline."""
    lines = ('run_id = "fitted"', "probes = ()", "seeds = (0,)", "most_lost = 100.0")
    table = str(world.data / "hmdb51" / "private_labels.csv")
    baselines = f'baselines = ({{"fit": "leace", "private": {table!r}, "name": "mine"}},)'
    file = write(world, 'candidates = ({"fit": "leace"},)', baselines, *lines, name="fitted.py")
    assert study_command(["sweep", "--params", file, "--quiet", "--device", "cpu"]) == 0
    folder = world.runs / "fitted"
    assert result(folder)["chosen"] == "leace"
    assert params.load(folder / "chosen.py", AnonymizerParams).fa_arch == "leace"
    assert remade(folder, world) == made(folder, "leace")
    one, other = (point["leakage"]["clip"]["value"] for point in result(folder)["points"])
    assert one == pytest.approx(other, abs=1e-6)  # the same closed form, by a parameter file and by the command


def test_a_second_run_measures_nothing_and_says_the_same(world, swept, here, monkeypatch):
    before = kept(here)
    assert set(before) == {
        f"{folder}/measured-s{seed}.npz"
        for folder, seeds in (
            ("raw", (0, 1)),
            ("eraser-r4", (1,)),
            ("eraser-r20", (0, 1)),
            ("quantizer-b4-s1", (1,)),
            ("leace", (0, 1)),
        )
        for seed in seeds
    }
    monkeypatch.setattr(sweep_measuring.Bench, "measure", None)  # measuring calls it
    assert again(world) == 0
    first = {name: (here / name).read_bytes() for name in ("sweep.json", "sweep.md", "chosen.py")}
    assert kept(here) == before
    (here / "sweep.json").unlink()
    assert again(world) == 0
    assert {name: (here / name).read_bytes() for name in first} == first


def test_what_is_kept_is_what_was_measured(world, swept, here):
    path = here / "leace/measured-s1.npz"
    with np.load(path, allow_pickle=False) as content:
        found = Measurement.of({name: content[name] for name in content.files if name != "stamp"})
        stamp = json.loads(content["stamp"].item())
    assert (stamp["seed"], stamp["val_split"], stamp["attackers"]) == (1, "val", ["logistic"])
    assert stamp["weights"] == stamp["twin"] == weights_hash(load_anonymizer(here / "leace/model_temp.pth"))
    assert found.uses["actions"].drawn.shape == (100,)
    (point,) = (point for point in result(here)["points"] if point["name"] == "leace")
    assert found.distinct == point["distinct"] > 50


def test_other_attackers_measure_anew(world, swept, here):
    before = kept(here)
    try:
        assert again(world, "--set", "attackers=('neighbours',)", "--set", "seeds=(1,)") == 0
        after = kept(here)
        assert {name for name in before if after[name] != before[name]} == {
            name for name in before if name.endswith("s1.npz")
        }
        assert again(world, "--set", "attackers=('neighbours',)", "--set", "seeds=(1,)") == 0
        assert kept(here) == after
    finally:
        again(world)


def test_nobody_within_the_limit_leaves_no_file_behind(world, swept, here, capsys):
    assert again(world) == 0
    assert (here / "chosen.py").is_file()
    assert again(world, "--set", "most_lost=-50") == 1
    assert not (here / "chosen.py").exists()
    assert result(here)["chosen"] is None
    assert "Chosen: none" in (here / "sweep.md").read_text()
    assert "| eraser-r20" in capsys.readouterr().out


def test_what_fails_is_named_and_the_others_are_told(world, swept, here, capsys):
    file = write(world, 'baselines = ({"fit": "pca", "keep": 5000},)', name="failing.py")
    assert study_command(["sweep", "--params", file, "--quiet", "--device", "cpu"]) == 1
    shown = capsys.readouterr().out
    assert re.search(r"^pca-keep5000: .*\bexit code 2: .*\bkeep: 5000 of 192", shown, flags=re.M)
    assert [point["name"] for point in result(here)["points"]] == ["eraser-r4", "eraser-r20", "quantizer-b4"]
    assert (here / "chosen.py").is_file()


def test_where_nothing_could_be_made_there_is_an_empty_table(world, here, capsys):
    file = write(world, 'run_id = "none"', "baselines = ()", "probes = ()", "seeds = (0,)",
                 'candidates = ({"fa_arch": "eraser", "erase_rank": 5000},)', name="none.py")  # fmt: skip
    assert study_command(["sweep", "--params", file, "--quiet", "--device", "cpu"]) == 1
    assert re.search(r"^eraser-r5000: .*\bexit code 2\b", capsys.readouterr().out, flags=re.M)
    assert result(world.runs / "none")["points"] == []


# Bad input.


@pytest.mark.parametrize(
    ("lines", "culprit", "names"),
    [
        ("candidates = ()", "candidates", "()"),
        ("seeds = ()", "seeds", "()"),
        ("seeds = (0, 0)", "seeds", "(0, 0)"),
        ("attackers = ('logistik',)", "attackers", ("'logistik'", "'logistic'")),
        ("attackers = ()", "attackers", "()"),
        ("num_resamples = 10", "num_resamples", "10"),
        ("baselines = ({'fa_arch': 'eraser', 'erase_rank': 4},)", "baselines", "'eraser-r4'"),
        ("seeds = (0,)", "seeds", ("'eraser-r4'", "1")),
        (
            "candidates = ({'fa_arch': 'eraser', 'erase_rank': 4, 'name': 'one', 'seeds': 0},)",
            "seeds of 'one'",
            "0",
        ),
        ("candidates = ({'fit': 'leace', 'name': 'one', 'private': 'mine.csv'},)", "one", "'private'"),
        ("probes = ('moment',)", "bad.py", ("'probes[0]'", "'moment'", "'moments'")),
        ("data_root = 'nowhere'", "features_hmdb_train_demo.h5", ()),
        ("ad_dataset = 'xd_violence'", "xd-i3d.list", "probes"),
        ("tad_dataset = 'thumos'", "tad_dataset, ad_dataset", ("'thumos'", "'thumos14'")),
        ("most_loss = 3", "bad.py", ("'most_loss'", "'most_lost'")),
    ],
)
def test_bad_parameters_are_told_before_anything_is_made(world, here, lines, culprit, names):
    file = write(world, 'run_id = "bad"', lines, name="bad.py")
    with refused(culprit, naming=names):
        study_command(["sweep", "--params", file, "--quiet", "--device", "cpu"])
    assert not (world.runs / "bad").exists()


def test_without_matplotlib_nothing_is_made(world, here, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with refused("matplotlib"):
        study_command(
            ["sweep", "--params", write(world, 'run_id = "undrawn"', name="undrawn.py"), "--quiet", "--device", "cpu"]
        )
    assert not (world.runs / "undrawn").exists()


@pytest.mark.parametrize(
    ("base", "culprit", "names"),
    [
        (BASE.replace('"val"', '"test"'), "val_split", "'test'"),
        (BASE.replace('"demo"', '"videoMAE"'), "features_hmdb_train_mae.h5", ()),
        (BASE.replace('"val"', '"vall"'), "val_split", "'vall'"),
        (BASE.replace('ar_dataset = "hmdb51"', "").replace('"eraser"\nerase_rank = 9', '"mlp"')
         + "ft_ar_loss_weight = 0\nfb_loss_weight = 0\nft_ad_loss_weight = 1\n", "bad_base.py", "ar_dataset"),
    ],
)  # fmt: skip
def test_a_base_that_no_sweep_can_start_from_is_told_in_one_line(
    world, here, monkeypatch, capsys, base, culprit, names
):
    (world.root / "bad_base.py").write_text(base)
    lines = f"base = {str(world.root / 'bad_base.py')!r}", "probes = ()", 'run_id = "bad"'
    own = 'candidates = ({"name": "one", "fa_arch": "mlp"},)'
    monkeypatch.setattr(sys, "argv", ["sweep"])
    file = write(world, *lines, own, "baselines = ()", name="bad.py")
    with pytest.raises(SystemExit) as left:
        cli.run(lambda _: study_command(["sweep", "--params", file, "--quiet"]))
    assert left.value.code == 2
    assert_refusal(capsys.readouterr().err, culprit, names)
    assert not (world.runs / "bad").exists()

"""Lines of settings become anonymizers with a name, a command and a run folder each; what can't be made is refused."""

from __future__ import annotations

import json
from itertools import pairwise, product
from pathlib import Path

import pytest
from refusals import refused

import config
from splavu.anonymizers.closed_form.methods import METHODS
from study.experiments.candidates import CHECKPOINT, Candidate, candidates

BASE = """
run_id = "base"
ar_dataset = "hmdb51"
ft_arch = "demo"
fa_arch = "eraser"
erase_rank = 9
fb_frame_pool = 10
learning_rate_fa = 0.002
"""


@pytest.fixture
def base(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(config, "DATA", tmp_path / "data")
    monkeypatch.setattr(config, "FEATURES", tmp_path / "features")
    path = tmp_path / "base.py"
    path.write_text(BASE)
    return path


@pytest.fixture
def one(base):
    """Makes the only candidate of an entry."""

    def made(**entry) -> Candidate:
        (candidate,) = candidates([entry], base)
        return candidate

    return made


def settings(candidate: Candidate, **options) -> dict[str, str]:
    """The `--set` assignments of the job, or the options of `splavu fit`."""
    job = candidate.job(Path("/runs/sweep"), Path("/runs"), **options)
    (command,) = job.commands
    if candidate.method is None:
        assert command[:3] == ("multitask_train_fa.py", "--params", str(candidate.base))
        return dict(after.split("=", 1) for before, after in pairwise(command) if before == "--set")
    assert command[:4] == ("-m", "splavu", "fit", candidate.method)
    return {b[2:]: a for b, a in pairwise(command) if b.startswith("--") and not a.startswith("--")}


# Tuples and names.


def test_a_tuple_stands_for_a_candidate_each(base):
    found = candidates([{"fa_arch": "eraser+quantizer", "erase_rank": (32, 64, 96), "bits": (6, 7)}], base)
    expected = list(product((32, 64, 96), (6, 7)))
    assert [(c.settings["erase_rank"], c.settings["bits"]) for c in found] == expected
    assert [c.name for c in found] == [f"eraser+quantizer-r{rank}-b{bits}" for rank, bits in expected]
    assert [(c.parameters().erase_rank, c.parameters().bits) for c in found] == expected


def test_recipes_may_vary_too(base):
    found = candidates([{"fa_arch": ("eraser+noise", "noise"), "noise_sd": 0.5}], base)
    assert [c.name for c in found] == ["eraser+noise-sd0.5", "noise-sd0.5"]
    assert [c.parameters().erase_rank for c in found] == [9, None]


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        ({"fa_arch": "eraser", "erase_rank": 4}, ["eraser-r4"]),
        ({"fa_arch": "eraser"}, ["eraser"]),
        ({"erase_rank": (3, 4)}, ["candidate-r3", "candidate-r4"]),
        ({"fa_arch": "encoder", "bottleneck": 8, "privacy_objective": "critic", "fb_loss_weight": 3},
         ["encoder-d8-critic-w3"]),
        ({"fa_arch": "encoder", "num_layers_fa": 1}, ["encoder-num_layers_fa1"]),
        ({"fa_arch": "quantizer", "bits": 5, "code_space": "features", "code_dims": 8}, ["quantizer-b5-features-d8"]),
        ({"fit": "pca", "keep": (16, 32)}, ["pca-keep16", "pca-keep32"]),
        ({"fa_arch": ("random(keep=16)+noise(sd=1)", "random(keep=32)+noise(sd=1)")},
         ["random-keep16+noise-sd1", "random-keep32+noise-sd1"]),
        ({"fit": "leace"}, ["leace"]),
        ({"name": "mine", "fa_arch": "quantizer", "bits": 5}, ["mine"]),  # what doesn't vary isn't told
        ({"name": "mine", "fa_arch": "quantizer", "bits": (5, 6)}, ["mine-b5", "mine-b6"]),
        ({"name": "mine", "fit": "random", "keep": (8, 9), "seeds": (0,)}, ["mine-keep8", "mine-keep9"]),
    ],
)  # fmt: skip
def test_names_tell_what_sets_them_apart(base, entry, names):
    assert [c.name for c in candidates([entry], base)] == names


def test_entries_keep_their_order(base):
    found = candidates([{"fit": "pca", "keep": 3}, {"fa_arch": "eraser", "erase_rank": (2, 1)}, {"fit": "leace"}], base)
    assert [c.name for c in found] == ["pca-keep3", "eraser-r2", "eraser-r1", "leace"]


# Settings.


def test_settings_stand_over_those_of_the_base(one):
    p = one(fa_arch="eraser+encoder", erase_rank=4, num_layers_fa=1).parameters(seed=7)
    assert (p.fa_arch, p.erase_rank, p.num_layers_fa, p.seed, p.learning_rate_fa) == ("eraser+encoder", 4, 1, 7, 0.002)


def test_settings_of_parts_that_a_recipe_lacks_are_dropped_from_the_base_alone(one, base):
    candidate = one(fa_arch="quantizer", bits=5)
    assert candidate.overrides == {"erase_rank": None, "fa_arch": "quantizer", "bits": 5}
    assert candidate.parameters().erase_rank is None
    assert settings(candidate)["erase_rank"] == "None"  # the command drops it, too
    for culprit, entry in (
        ("erase_rank", {"fa_arch": "quantizer", "bits": 5, "erase_rank": 3}),
        ("code_dims", {"fa_arch": "eraser", "code_dims": 3}),
        ("bottleneck", {"fa_arch": "eraser", "bottleneck": 3}),
    ):
        with refused(culprit):
            candidates([entry], base)


def test_an_option_of_the_chain_stands_over_the_parameter_of_the_base(one, base):
    candidate = one(fa_arch="eraser(rank=4)")
    assert candidate.overrides == {"erase_rank": None, "fa_arch": "eraser(rank=4)"}
    assert [part.options for part in candidate.parameters().chain] == [{"rank": 4}]
    assert one(fa_arch="eraser(share=0.5)").parameters().erase_rank is None
    with refused("erase_rank"):
        candidates([{"fa_arch": "eraser(rank=4)", "erase_rank": 3}], base)


@pytest.mark.parametrize(
    ("entry", "chain"),
    [
        ({"fit": "leace"}, "leace"),
        ({"fit": "pca", "keep": 8}, "pca(keep=8)"),
        ({"fit": "eraser", "rank": 8, "labels": None}, "eraser(rank=8, spare_actions=False)"),
        ({"fit": "eraser", "share": 0.5, "rank": None, "lift": "quadratic"}, "eraser(share=0.5, lift='quadratic')"),
        ({"fit": "quantizer", "bits": 3, "labels": None}, "quantizer(bits=3, space='features')"),
        ({"fit": "noise", "sd": 0.5, "units": "whitened"}, "noise(sd=0.5, units='whitened')"),
    ],
)
def test_a_closed_form_of_fit_can_be_said_in_a_parameter_file(one, entry, chain):
    candidate = one(name="mine", **entry)
    said = candidate.as_parameters
    assert (said.name, said.method) == ("mine", None)
    assert "+".join(map(str, said.parameters().chain)) == chain  # nothing of the base
    assert said.as_parameters is said


def test_files_of_a_closed_form_cannot_and_without_them_it_can(one):
    with refused("leace-privatemine.csv"):
        _ = one(fit="leace", private="mine.csv").as_parameters
    assert one(fit="leace").as_parameters.parameters().fa_arch == "leace"  # the remedy


def test_another_file_to_start_from(one, tmp_path):
    other = tmp_path / "other.py"
    other.write_text('run_id = "o"\nar_dataset = "hmdb51"\nft_arch = "demo"\nfa_arch = "mlp"\nnum_epochs = 3\n')
    candidate = one(name="published", params=str(other), num_epochs=4)
    assert candidate.base == other
    assert "params" not in candidate.settings
    assert (candidate.parameters().fa_arch, candidate.parameters().num_epochs) == ("mlp", 4)


@pytest.mark.parametrize(
    ("entry", "culprit", "said"),
    [
        ({"fa_arch": "eraser", "erase_rnak": 3}, "eraser-erase_rnak3", "'erase_rank'"),
        ({"fa_arch": "erasor"}, "fa_arch", "'eraser'"),
        ({"fa_arch": "quantizer"}, "bits", ""),
        ({"fa_arch": "eraser", "erase_rank": "many"}, "eraser-rmany", "erase_rank"),
        ({"fa_arch": "eraser", "erase_rank": (4, 0)}, "erase_rank", "0"),
        ({"fa_arch": "eraser", "erase_rank": [4, 0]}, "erase_rank", "0"),
        ({"fit": "lace"}, "candidates", "'leace'"),
        ({"fit": "leace", "seeds": 0}, "seeds of 'leace'", "0"),
        ({"fit": "leace", "seeds": ()}, "seeds of 'leace'", ""),
        ({}, "candidates", ""),
        ("eraser", "candidates", "'eraser'"),
        ({"fa_arch": "eraser", "params": "nowhere.py"}, "nowhere.py", ""),
    ],
)
def test_what_cannot_be_made_is_refused(base, entry, culprit, said):
    with refused(culprit, naming=said):
        candidates([entry], base)


@pytest.mark.parametrize(
    "entries",
    [
        [{"fit": "leace"}, {"fit": "leace"}],
        [{"fa_arch": "eraser", "erase_rank": (4, 4)}],
        [{"fa_arch": "eraser", "erase_rank": 4}, {"name": "eraser-r4", "fit": "leace"}],
    ],
)
def test_two_of_one_name_are_refused(base, entries):
    with refused("candidates"):
        candidates(entries, base)


# Seeds.


@pytest.mark.parametrize(
    ("entry", "needs"),
    [
        ({"fa_arch": "eraser"}, False),
        ({"fa_arch": "quantizer", "bits": 3}, True),  # k-means
        ({"fa_arch": "eraser+quantizer", "bits": 3}, True),
        ({"fa_arch": "eraser+mlp"}, True),
        ({"fa_arch": "transformer"}, True),
        *(({"fit": method}, method in ("quantizer", "random", "noise")) for method in METHODS),
    ],
)
def test_what_a_seed_changes_has_a_folder_a_seed(one, entry, needs):
    candidate = one(**entry)
    assert candidate.needs_seed is needs
    folders = [candidate.folder(seed) for seed in (0, 3)]
    assert folders == ([f"{candidate.name}-s0", f"{candidate.name}-s3"] if needs else [candidate.name] * 2)
    jobs = [candidate.job(Path("/runs/sweep"), Path("/runs"), seed=seed) for seed in (0, 3)]
    assert [job.name for job in jobs] == folders
    assert (jobs[0].commands == jobs[1].commands) is not needs


def test_the_seed_reaches_the_command(one):
    assert settings(one(fa_arch="quantizer", bits=3), seed=3)["seed"] == "3"
    assert settings(one(fit="random", keep=3), seed=3)["seed"] == "3"
    assert settings(one(fa_arch="eraser"), seed=3)["seed"] == "0"
    assert "seed" not in settings(one(fit="leace"), seed=3)


def test_own_seeds_are_kept_apart_from_settings(one):
    candidate = one(fa_arch="quantizer", bits=3, seeds=(0, 2))
    assert candidate.seeds == (0, 2)
    assert "seeds" not in candidate.settings
    assert one(fa_arch="quantizer", bits=3).seeds is None


# Twins, which are not shown some actions.


@pytest.mark.parametrize("entry", [{"fa_arch": "eraser"}, {"fa_arch": "quantizer", "bits": 3, "seeds": (0, 2)}])
def test_a_twin_is_the_same_in_a_folder_of_its_own_but_for_the_actions_it_is_shown(one, entry):
    candidate = one(**entry)
    twin = candidate.twin
    assert twin.needs_seed  # the seed draws the actions, even where it changes nothing else
    assert {twin.folder(0), twin.folder(1)}.isdisjoint({candidate.folder(0), candidate.folder(1)})
    assert (twin.base, twin.seeds) == (candidate.base, candidate.seeds)
    changed = {**vars(twin.parameters()), "left_out_actions": 0.0}
    assert twin.parameters().left_out_actions == 0.5
    assert changed == vars(candidate.parameters())
    given = settings(twin, seed=3)
    assert (given["left_out_actions"], given["seed"]) == ("0.5", "3")
    assert given["run_id"].strip("'\"") == f"sweep/{twin.folder(3)}"


@pytest.mark.parametrize("method", METHODS)
def test_a_closed_form_of_fit_has_no_twin_but_itself(one, method):
    candidate = one(fit=method)
    assert candidate.twin is candidate


# Commands.


def test_a_training_writes_into_its_own_folder(one):
    job = one(fa_arch="quantizer", bits=3).job(Path("/runs/demo/sweep"), Path("/runs"), seed=1)
    assert settings(one(fa_arch="quantizer", bits=3), seed=1)["run_id"].strip("'\"") == "sweep/quantizer-b3-s1"
    assert job.result == "results.json"
    assert "demo/sweep/quantizer-b3-s1" in " ".join(job.commands[0])


@pytest.mark.parametrize(
    ("method", "tables"),
    [
        ("eraser", {"static", "labels"}),
        ("quantizer", {"labels"}),
        ("leace", {"private"}),
        ("orthogonal", {"private"}),
        ("inlp", {"private"}),
        ("pca", set()),
        ("random", set()),
        ("noise", set()),
    ],
)
def test_a_closed_form_is_given_what_it_is_fitted_to(one, tmp_path, method, tables):
    options = settings(one(fit=method, name="mine"))
    files = {
        "static": tmp_path / "features/features_hmdb_train_demo_fb10.h5",
        "labels": tmp_path / "data/hmdb51/hmdb51_train_labels.csv",
        "private": tmp_path / "data/hmdb51/private_labels.csv",
    }
    assert options["raw"] == str(tmp_path / "features/features_hmdb_train_demo.h5")
    assert {name: options[name] for name in files if name in options} == {name: str(files[name]) for name in tables}
    assert Path(options["out"]).name == CHECKPOINT
    assert Path(options["out"]).parent == Path("/runs/sweep") / one(fit=method, name="mine").folder(0)


def test_none_takes_an_option_of_a_closed_form_away(one):
    assert {"static", "labels"} <= settings(one(fit="eraser", rank=64)).keys()
    options = settings(one(fit="eraser", rank=64, labels=None))
    assert "labels" not in options
    assert (options["rank"], "static" in options) == ("64", True)
    assert settings(one(fit="eraser", rank=64, labels="mine.csv"))["labels"] == "mine.csv"


def test_another_data_root_reaches_every_command(one, tmp_path):
    elsewhere = str(tmp_path / "elsewhere")
    assert settings(one(fa_arch="eraser"), data_root=elsewhere)["data_root"].strip("'\"") == elsewhere
    options = settings(one(fit="leace"), data_root=elsewhere)
    assert options["raw"] == f"{elsewhere}/features/features_hmdb_train_demo.h5"
    assert options["private"] == f"{elsewhere}/hmdb51/private_labels.csv"


def test_the_checkpoint_is_what_the_job_has_made(one, tmp_path):
    trained, fitted = one(fa_arch="quantizer", bits=3), one(fit="leace")
    (tmp_path / "quantizer-b3-s1").mkdir()
    chosen = tmp_path / "quantizer-b3-s1/model_12_0.9.pth"
    (tmp_path / "quantizer-b3-s1/results.json").write_text(json.dumps({"checkpoint": str(chosen)}))
    assert trained.checkpoint(tmp_path, 1) == chosen
    assert fitted.checkpoint(tmp_path, 1) == tmp_path / "leace" / CHECKPOINT

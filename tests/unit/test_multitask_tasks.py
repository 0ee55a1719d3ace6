"""Co-training of every set of tasks: each on its own data, with nothing of the others on the disk."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Study
from refusals import refused
from untrimmed_world import OPTIONS, add_untrimmed

from multitask_train_fa import build
from splavu.runtime.run_folder import RunFolder
from splavu.training.loop import fit
from study.models import load_model_tridet
from study.training.anonymizer_params import AnonymizerParams
from tridet import config as configuration
from tridet import eval as evaluation
from tridet.train import train as train_detector

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Part:
    """What one task adds to a study."""

    weight: str
    """Its parameter."""
    key: str
    """Of its head's weights in a checkpoint."""
    score: str
    data: tuple[str, ...]
    """What it reads; patterns below the study's root."""


PARTS = {
    "ar": Part("ft_ar_loss_weight", "ft_model_ar_state_dict", "top1", ("data/hmdb51", "features/features_hmdb_*")),
    "tad": Part(
        "ft_tad_loss_weight", "ft_model_tad_state_dict", "average_map", ("data/thumos14", "features/thumos14_*")
    ),
    "ad": Part("ft_ad_loss_weight", "ft_model_ad_state_dict", "auc", ("data/ucf_crime", "features/ucf_crime_*")),
}
SUBSETS = [names for count in (1, 2, 3) for names in itertools.combinations(PARTS, count)]


@pytest.fixture
def everything(study) -> Study:
    """The made-up study with the data of all tasks."""
    add_untrimmed(study)
    return study


def remove_all_but(study, *names):
    """Delete the data of every other task."""
    for name, part in PARTS.items():
        for path in itertools.chain.from_iterable(map(study.root.glob, part.data)):
            if name not in names:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def params_of(study, *names, **changes):
    """Parameters of a run of these tasks, without a privacy term unless `changes` give it a weight."""
    values = {
        "run_id": "t",
        "ft_arch": "demo",
        "ar_dataset": "hmdb51" if "ar" in names or changes.get("fb_loss_weight") else None,
        "tad_config": str(study.root / "small.yaml"),
        "ad_options": OPTIONS,
        "num_layers_fa": 1,
        "num_epochs": 2,
        "batch_size_ar": 24,
        "batch_size_ad": 4,
        "val_freq": 1,
        "learning_rate_fa": 1e-3,
        "learning_rate_ft": 1e-2,
        "fa_loss_weight": 1.0,
        "fb_loss_weight": 0.0,
        **{part.weight: float(name in names) for name, part in PARTS.items()},
    }
    return AnonymizerParams(**{**values, **changes})


def trained(study, p, **options):
    """Train as `p` says, from nothing or from where the run stands; returns trainer, run and result."""
    trainer, run = build(p), RunFolder(study.runs, p.run_id)
    return trainer, run, fit(trainer, run, p, inputs=trainer.provenance, **options)


def saved(run):
    return torch.load(run.path / "model_temp.pth", weights_only=True)


def same(first, second):
    """Whether nested containers of tensors and numbers agree in every bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "privacy"), [*((names, 0.0) for names in SUBSETS), (("tad",), 0.5), (tuple(PARTS), 0.5)]
)
def test_any_set_of_tasks_trains_on_its_own_data_alone(everything, names, privacy):
    study = everything
    remove_all_but(study, *names, *(["ar"] if privacy else []))
    p = params_of(study, *names, fb_loss_weight=privacy)
    before = {key: value.clone() for key, value in build(p).anonymizer.network.state_dict().items()}
    _, run, best = trained(study, p)
    terms = {*names, "latent", "total"} | ({"privacy"} if privacy else set())
    assert {name for name in run.history()[0] if name.startswith("loss/")} == {f"loss/{name}" for name in terms}
    for name in names:
        assert 0 <= run.history()[-1][f"val/{name}/{PARTS[name].score}"] <= 1
    assert best["score"] == max(line[f"val/{names[0]}/{PARTS[names[0]].score}"] for line in run.history())
    content = saved(run)
    heads = {key for key in content if key.startswith("ft_model_")}
    assert heads - {"ft_model_tad_state_dict_ema"} == {PARTS[name].key for name in names}
    assert {f"optimizer_ft_{name}" for name in names} | {"optimizer_fa"} <= content.keys()
    assert any((content["fa_model_state_dict"][key] != value).any() for key, value in before.items())


def test_the_objective_with_detection_is_the_equation_of_the_paper(everything):
    weights = {"fa_loss_weight": 2.0, "ft_ar_loss_weight": 0.5, "ft_tad_loss_weight": 3.0, "fb_loss_weight": 0.25}
    trainer = build(params_of(everything, "ar", "tad", **weights))
    anonymizer, head = trainer.anonymizer.network, trainer.tasks[0].learner.network
    detector = trainer.tasks[1].learner.network
    with torch.no_grad():
        for parameter in anonymizer.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    batch = next(iter(trainer.batches(0)))
    clips, videos = batch["clips"], [dict(video) for video in batch["tad"]]
    safe = torch.stack([anonymizer(clip) for clip in clips.clips])  # [B, D], one by one
    for video in videos:
        video["feats"] = anonymizer(video["feats"].T[None])[0].T
    normaliser = detector.loss_normaliser
    torch.manual_seed(5)  # of noise and dropped paths
    detection = detector(videos)["final_loss"]
    detector.loss_normaliser = normaliser
    first, second = (F.normalize(anonymizer(clips.static_pairs[:, i]), dim=1) for i in (0, 1))
    rows = torch.cat([first, second])
    similarity = (rows @ rows.T / 0.1).masked_fill(torch.eye(len(rows), dtype=torch.bool), -torch.inf)
    partner = torch.arange(len(rows)).roll(len(first))
    privacy = (similarity.logsumexp(dim=1) - similarity[torch.arange(len(rows)), partner]).mean()
    action = F.cross_entropy(safe @ head.weight.T + head.bias, clips.labels)
    expected = 2.0 * ((safe - clips.clips) ** 2).mean() + 0.5 * action + 3.0 * detection - 0.25 * privacy
    torch.manual_seed(5)
    assert float(trainer.objective(batch)[0].detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_without_clips_consistency_is_asked_of_the_videos(everything):
    trainer = build(params_of(everything, "tad"))
    anonymizer = trainer.anonymizer.network
    with torch.no_grad():
        for parameter in anonymizer.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    batch = next(iter(trainer.batches(0)))
    assert set(batch) == {"tad"}
    errors = []
    for video in batch["tad"]:
        raw = video["feats"].T
        errors.append(float(((anonymizer(raw[None])[0] - raw) ** 2).mean().detach()))
    assert float(trainer.objective(batch)[1]["latent"].detach()) == pytest.approx(np.mean(errors), rel=1e-5)
    assert min(errors) > 1e-4


class Interrupted(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("names", [("tad",), ("ar", "tad")], ids="+".join)
def test_resumed_equals_uninterrupted(everything, monkeypatch, names):
    """Stopped in the middle of an epoch, twice."""
    p = params_of(everything, *names, num_epochs=4, val_freq=2, fb_loss_weight=0.1 * (len(names) > 1))
    _, whole, best = trained(everything, p)
    (whole.path).rename(whole.path.with_name("whole"))
    whole = RunFolder(everything.runs, "whole")
    for steps in (5, 5):  # of 4 or 3 an epoch: the second part begins with epoch 1 and gets into epoch 2
        trainer, left = build(p), iter(range(steps))

        def objective(batch, objective=trainer.objective, left=left):
            if next(left, None) is None:
                raise Interrupted
            return objective(batch)

        monkeypatch.setattr(trainer, "objective", objective)
        with pytest.raises(Interrupted):
            fit(trainer, RunFolder(everything.runs, p.run_id), p, inputs=trainer.provenance)
    _, parts, again = trained(everything, p)
    assert parts.history() == whole.history()
    first, second = saved(whole), saved(parts)
    assert "loss_normaliser_ft_tad" in first
    assert "schedule_ft_tad" in first
    assert same(first, second)
    assert (again["epoch"], again["score"]) == (best["epoch"], best["score"])


@pytest.mark.slow
def test_a_co_trained_detector_learns_and_is_loaded_and_evaluated_again(everything):
    """TAD alone: the figure of its validation is that of tridet/eval.py on the same checkpoint."""
    study = everything
    remove_all_but(study, "tad")
    trainer, run, best = trained(study, params_of(study, "tad", num_epochs=12, val_freq=12, fa_loss_weight=0.1))
    assert best["score"] > 0.7
    content = torch.load(best["checkpoint"], weights_only=True)
    averaged = load_model_tridet(best["checkpoint"], str(study.root / "small.yaml"))
    assert same(dict(averaged.state_dict()), dict(content["ft_model_tad_state_dict_ema"]))
    last = load_model_tridet(best["checkpoint"], str(study.root / "small.yaml"), prefer="trained")
    assert same(dict(last.state_dict()), dict(content["ft_model_tad_state_dict"]))
    assert not same(dict(last.state_dict()), dict(averaged.state_dict()))
    data = {"json_file": study.data / "thumos14/thumos14.json", "feat_folder": study.features / "thumos14_demo"}
    flags = [part for name, path in data.items() for part in ("--set", f"dataset.{name}={path}")]
    arguments = [str(study.root / "small.yaml"), best["checkpoint"], "--aam", best["checkpoint"], *flags]
    assert evaluation.main([*arguments, "--device", "cpu"]) == 0
    judged = json.loads((run.path / "results_other_features.json").read_text())["tad"]
    assert judged["average_map"] == best["score"]
    assert trainer.validate()["tad/average_map"] == best["score"]


def test_the_best_weights_come_back_with_their_averages(everything, monkeypatch):
    p = params_of(everything, "tad", num_epochs=3)
    trainer, scores = build(p), iter((0.1, 0.9, 0.2))
    monkeypatch.setattr(trainer, "validate", lambda: {"tad/average_map": next(scores)})
    best = fit(trainer, RunFolder(everything.runs, p.run_id), p)
    assert best["epoch"] == 2
    content = torch.load(best["checkpoint"], weights_only=True)
    learner = trainer.tasks[0].learner
    assert same(dict(learner.network.state_dict()), dict(content["ft_model_tad_state_dict"]))
    assert same(dict(learner.average.network.state_dict()), dict(content["ft_model_tad_state_dict_ema"]))


def test_a_detector_trained_on_raw_features_is_where_it_starts(everything):
    study = everything
    data = {
        "json_file": str(study.data / "thumos14/thumos14.json"),
        "feat_folder": str(study.features / "thumos14_demo"),
    }
    config = configuration.load(study.root / "small.yaml", {"dataset": data, "opt": {"early_stop_epochs": 2}})
    last = train_detector(config, study.runs / "raw", device=CPU)
    expected = torch.load(last, weights_only=True)["state_dict_ema"]
    for source in (last, study.runs / "raw"):
        learner = build(params_of(study, "tad", saved_ft_tad_model=str(source))).tasks[0].learner
        for network in (learner.network, learner.average.network):
            assert same({f"module.{name}": value for name, value in network.state_dict().items()}, dict(expected))


def test_a_longer_run_is_another_schedule(everything):
    _, run, _ = trained(everything, params_of(everything, "tad"))
    before = saved(run)
    with refused("num_epochs"):
        trained(everything, params_of(everything, "tad", num_epochs=4))
    assert same(saved(run), before)


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"tad_dataset": "thumos41"}, "tad_dataset, ad_dataset"),
        ({"tad_dataset": "shanghaitech"}, "shanghai-i3d.list"),
        ({"tad_config": "tridet/thumos_demmo.yaml"}, "thumos_demmo.yaml"),
        ({"tad_config": "tridet/thumos_videoMAE.yaml"}, "thumos_videoMAE.yaml"),
        ({"saved_ft_tad_model": "none.pth.tar"}, "none.pth.tar"),
        ({"ft_tad_loss_weight": -1.0}, "ft_tad_loss_weight"),
        ({"ft_arch": "videoMAE", "feature_dim": 192}, "feature_dim"),
        ({"fb_loss_weight": 1.0, "ssl": False}, "pa_dataset"),
        ({"fb_loss_weight": 1.0, "ssl": False, "pa_dataset": "visprr"}, "dataset"),
        ({"fb_loss_weight": 1.0, "ssl": False, "pa_dataset": "hmdb51"}, "pa_dataset"),
    ],
)
def test_bad_parameters_name_themselves(everything, changes, culprit):
    with refused(culprit):
        build(params_of(everything, "tad", **changes))


def test_clips_are_needed_by_what_reads_them(everything):
    for changes in ({"fb_loss_weight": 1.0}, {"ft_ar_loss_weight": 1.0}, {"ft_tad_loss_weight": 0.0}):
        with refused("ar_dataset"):
            params_of(everything, "tad", **changes, ar_dataset=None)

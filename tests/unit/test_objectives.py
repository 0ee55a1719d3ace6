"""The loss as a list of terms: what a registered objective costs, what it makes the trainer read, how it splits."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import REPOSITORY
from refusals import refused

import multitask_train_fa
from splavu.runtime.run_folder import RunFolder
from splavu.training.loop import fit
from splavu.training.multitask import MultitaskTrainer
from splavu.training.objectives import OBJECTIVES, CachedAnonymizer, Objective, Term, TermInputs, latent_consistency
from study.training.anonymizer_params import AnonymizerParams

SMALL = {"num_epochs": 2, "batch_size_ar": 24, "val_freq": 1, "learning_rate_fa": 1e-3, "learning_rate_ft": 1e-2}


def params_of(**changes):
    return AnonymizerParams(**{"run_id": "t", "ar_dataset": "hmdb51", "ft_arch": "demo", **SMALL, **changes})


def norm_gap(inputs):
    """A loss per clip: this process's share."""
    gap = inputs.anonymized_clips.norm(dim=1) - inputs.clips.clips.norm(dim=1)  # [b]
    return gap.square().sum() / inputs.clips.num_total


def covariance_with_frames(inputs):
    """A loss of the whole batch, which reads still frames and classes."""
    safe, static, classes = inputs.with_static_frames()
    assert classes.shape == (len(safe),)
    return ((safe - safe.mean(dim=0)).T @ (static - static.mean(dim=0)) / len(safe)).square().mean()


@pytest.fixture
def registered(monkeypatch):
    """Two new objectives: each a function and a line."""
    monkeypatch.setitem(OBJECTIVES, "norm_gap", Objective(norm_gap))
    covariance = Objective(covariance_with_frames, static="raw", classes=True, whole_batch=True)
    monkeypatch.setitem(OBJECTIVES, "covariance", covariance)


def test_a_new_privacy_objective_trains_by_its_name(study, registered):
    p = params_of(privacy_objective="covariance", fb_loss_weight=50.0, fa_loss_weight=0.1, num_epochs=10)
    run = RunFolder(study.runs, p.run_id)
    fit(multitask_train_fa.build(p), run, p)
    first, *_, last = run.history()
    assert last["loss/privacy"] < 0.8 * first["loss/privacy"]


def test_an_extra_term_trains_through_the_script(study, registered):
    """`extra_terms` in a parameter file, its line read by the script as a user starts it."""
    demo = str(REPOSITORY / "params/params_demo.py")
    arguments = ["--params", demo, "--quiet", "--device", "cpu"]
    settings = {**SMALL, "data_root": None, "ft_tad_loss_weight": 0, "ft_ad_loss_weight": 0, "run_id": "extra"}
    settings["extra_terms"] = {"norm_gap": 0.5, "covariance": 0.0}
    assert multitask_train_fa.main([*arguments, *(x for k, v in settings.items() for x in ("--set", f"{k}={v}"))]) == 0
    lines = [json.loads(line) for line in (study.runs / "extra/metrics.jsonl").read_text().splitlines()]
    terms = {"ar", "latent", "privacy", "norm_gap", "total"}  # the one of weight 0 isn't computed
    assert {name for name in lines[0] if name.startswith("loss/")} == {f"loss/{name}" for name in terms}
    content = torch.load(study.runs / "extra/model_temp.pth", weights_only=True)
    assert content["params"]["extra_terms"] == settings["extra_terms"]


def test_the_loss_is_the_weighted_sum_of_the_terms(study, registered):
    trainer = multitask_train_fa.build(params_of(extra_terms={"norm_gap": 0.5, "covariance": 3.0}))
    with torch.no_grad():
        for parameter in trainer.anonymizer.network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    batch = next(iter(trainer.batches(0)))
    with torch.no_grad():
        loss, terms = trainer.objective(batch)
    weights = {"ar": 1.0, "latent": 100.0, "privacy": 1.0, "norm_gap": 0.5, "covariance": 3.0}
    assert terms.keys() == weights.keys()
    assert float(loss) == pytest.approx(sum(weight * float(terms[name]) for name, weight in weights.items()), rel=1e-6)
    clips = batch["clips"]
    safe = trainer.anonymizer.network(clips.clips).detach()
    expected = ((safe.norm(dim=1) - clips.clips.norm(dim=1)) ** 2).mean()
    assert float(terms["norm_gap"]) == pytest.approx(float(expected), rel=1e-4)


def test_only_what_a_term_needs_is_read(study, registered, monkeypatch):
    """A term on clips alone opens neither static clips nor labels; one that declares them asks for them."""
    monkeypatch.setitem(OBJECTIVES, "with_classes", Objective(norm_gap, classes=True))
    for store in study.features.glob("*_fb10.h5"):
        store.unlink()
    for labels in (study.data / "hmdb51").glob("hmdb51_*_labels.csv"):
        labels.unlink()
    lone = {"ft_ar_loss_weight": 0.0, "fb_loss_weight": 0.0}
    trainer = multitask_train_fa.build(params_of(**lone, extra_terms={"norm_gap": 1.0}))
    assert set(trainer.objective(next(iter(trainer.batches(0))))[1]) == {"latent", "norm_gap"}
    with refused("features_hmdb_train_demo_fb10.h5"):
        multitask_train_fa.build(params_of(ft_ar_loss_weight=0.0, privacy_objective="nt_xent"))
    with refused("hmdb51_train_labels.csv"):
        multitask_train_fa.build(params_of(**lone, extra_terms={"with_classes": 1.0}))


@pytest.mark.parametrize(
    ("changes", "critic", "static", "classes"),
    [
        ({}, False, 10, False),
        ({"privacy_objective": "conditional"}, False, 10, True),
        ({"privacy_objective": "critic"}, True, 10, True),
        ({"fb_loss_weight": 0.0, "privacy_objective": "critic"}, False, 0, False),
        ({"extra_terms": {"critic": 0.1}}, True, 10, True),
        ({"fb_loss_weight": 0.0, "extra_terms": {"published": 1}}, False, 10, False),
    ],
)
def test_parameters_read_what_the_objectives_declare(changes, critic, static, classes):
    p = params_of(**changes)
    assert (p.needs_critic, p.static_frames, p.reads_classes) == (critic, static, classes)


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"privacy_objective": "publishd"}, "privacy_objective"),
        ({"extra_terms": {"norm_gapp": 1.0}}, "extra_terms"),
        ({"extra_terms": {"conditional": -1.0}}, "extra_terms"),
        ({"extra_terms": {"conditional": "much"}}, "extra_terms"),
        ({"extra_terms": {"conditional": True}}, "extra_terms"),
        ({"extra_terms": {"conditional": float("nan")}}, "extra_terms"),
        ({"ar_dataset": None, "fb_loss_weight": 0.0, "ft_ar_loss_weight": 0.0, "ft_tad_loss_weight": 1.0,
          "extra_terms": {"conditional": 1.0}}, "ar_dataset"),
    ],
)  # fmt: skip
def test_terms_that_cannot_be_are_refused(changes, culprit):
    with refused(culprit):
        params_of(**changes)


def test_the_older_name_of_the_paper_s_objective_is_the_same(study):
    history = []
    for name in ("published", "nt_xent"):
        p = params_of(privacy_objective=name, run_id=name)
        run = RunFolder(study.runs, name)
        fit(multitask_train_fa.build(p), run, p)
        history.append(run.history())
    assert history[0] == history[1]


def test_two_terms_of_one_name_are_a_mistake(study):
    trainer = multitask_train_fa.build(params_of())
    twice = [Term("latent", 1.0, latent_consistency)] * 2
    with pytest.raises(ValueError, match="latent"):
        MultitaskTrainer(trainer.anonymizer, twice, trainer.clips)


class Unchanged(CachedAnonymizer):
    """Anonymizes nothing."""

    def forward(self, features, mask=None):
        return features


class OneOfTwo:
    """A process that has a slice of `clips`, and finds in them what the other one has."""

    count = 2

    def __init__(self, clips, part):
        self.part = part
        frames = clips.static_pairs
        self.everything = (clips.clips, *frames.unbind(dim=1), frames.mean(dim=1), clips.labels[:, None].float())

    def rows(self, num_rows):
        return self.part

    def gather(self, rows, num_rows):
        (found,) = (all_ for all_ in self.everything if all_[self.part].equal(rows))
        return found


@pytest.mark.parametrize("name", ["published", "conditional"])
def test_shares_of_processes_add_up_to_the_objective(study, name):
    clips = next(iter(multitask_train_fa.build(params_of(privacy_objective=name)).batches(0)))["clips"]
    anonymize, term = Unchanged(torch.nn.Identity()), Term.of_objective("privacy", 1.0, OBJECTIVES[name])
    whole = float(term.function(TermInputs(anonymize, {"clips": clips})))
    shares = []
    for part in (slice(0, 11), slice(11, 24)):
        own = {field: getattr(clips, field)[part] for field in ("clips", "labels", "videos", "static_pairs")}
        inputs = TermInputs(anonymize, {"clips": replace(clips, **own)}, OneOfTwo(clips, part))
        shares.append(float(term.function(inputs)))
    assert whole != 0
    assert sum(shares) == pytest.approx(whole, rel=1e-5)

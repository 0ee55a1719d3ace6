import pytest
import torch
import torch.nn.functional as F
from refusals import refused
from torch import nn

from multitask_train_fa import build
from splavu.runtime.run_folder import RunFolder
from splavu.training.loop import fit
from splavu.training.multitask import Batches
from splavu.training.objectives import CachedAnonymizer
from study.training.anonymizer_params import AnonymizerParams


def params_of(**changes):
    small = {"num_epochs": 3, "batch_size_ar": 24, "val_freq": 1, "learning_rate_fa": 1e-3, "learning_rate_ft": 1e-2}
    return AnonymizerParams(**{"run_id": "t", "ar_dataset": "hmdb51", "ft_arch": "demo", **small, **changes})


def test_terms_are_the_equation_of_the_paper(study):
    trainer = build(params_of(fa_loss_weight=2.0, fb_loss_weight=0.5, saved_fa_model=None))
    anonymizer = trainer.anonymizer.network
    with torch.no_grad():
        for parameter in anonymizer.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    batch = next(iter(trainer.batches(0)))
    clips, head = batch["clips"], trainer.tasks[0].learner.network
    safe = anonymizer(clips.clips)
    first, second = (F.normalize(anonymizer(clips.static_pairs[:, i]), dim=1) for i in (0, 1))
    rows = torch.cat([first, second])
    similarity = (rows @ rows.T / 0.1).masked_fill(torch.eye(len(rows), dtype=torch.bool), -torch.inf)
    partner = torch.arange(len(rows)).roll(len(first))
    privacy = (similarity.logsumexp(dim=1) - similarity[torch.arange(len(rows)), partner]).mean()
    task = F.cross_entropy(safe @ head.weight.T + head.bias, clips.labels)
    expected = 2.0 * ((safe - clips.clips) ** 2).mean() + task - 0.5 * privacy
    assert float(trainer.objective(batch)[0].detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_each_tensor_is_anonymized_once():
    calls = []

    class Counting(nn.Module):
        def forward(self, features, mask=None):
            calls.append(1)
            return features + 1

    once, features = CachedAnonymizer(Counting()), torch.zeros(2, 3)
    assert once(features) is once(features)
    for value in range(5):  # each is freed at once: its id may come again, its result must not
        assert float(once(torch.full((1,), float(value)))) == value + 1
    assert len(calls) == 6


def test_a_task_of_weight_zero_opens_no_file(study):
    (study.data / "hmdb51/hmdb51_train_labels.csv").unlink()
    (study.data / "hmdb51/hmdb51_val_labels.csv").unlink()
    trainer = build(params_of(ft_ar_loss_weight=0.0))
    assert trainer.tasks == []
    assert set(trainer.objective(next(iter(trainer.batches(0))))[1]) == {"latent", "privacy"}
    for static in study.features.glob("*_fb10.h5"):
        static.unlink()
    trainer = build(params_of(ft_ar_loss_weight=0.0, fb_loss_weight=0.0))
    assert set(trainer.objective(next(iter(trainer.batches(0))))[1]) == {"latent"}
    with refused("features_hmdb_train_demo_fb10.h5"):
        build(params_of(ft_ar_loss_weight=0.0))


def test_training_raises_the_privacy_term_and_keeps_the_task(study):
    p = params_of(num_epochs=15, fa_loss_weight=1.0, learning_rate_fa=3e-3)
    run = RunFolder(study.runs, p.run_id)
    fit(build(p), run, p)
    first, *_, last = run.history()
    assert last["loss/privacy"] < first["loss/privacy"] - 0.5  # NT-Xent is maximised
    assert last["loss/ar"] < first["loss/ar"]
    assert last["val/ar/top1"] > 0.8


def test_sources_of_unequal_length_and_a_shared_one():
    class Source:
        def __init__(self, size):
            self.size = size

        def __len__(self):
            return self.size

        def steps(self, first, count):
            return iter(range(100 * self.size + first, 100 * self.size + first + count))

    short, long = Source(2), Source(5)
    assert len(Batches({"clips": short, "tad": long}, 0, "longest")) == 5
    assert len(Batches({"clips": long, "tad": short}, 0, "shortest")) == 2
    assert len(Batches({"tad": long, "ad": short}, 0, "clips")) == 5  # without clips the longest
    batches = [
        batch for epoch in range(3) for batch in Batches({"clips": short, "ar": short, "tad": long}, epoch, "clips")
    ]
    assert len(batches) == 6  # an epoch is a pass over the clips
    assert all(batch["clips"] == batch["ar"] for batch in batches)
    assert [batch["tad"] for batch in batches] == list(range(500, 506))  # and the others go on where they stopped


def test_a_loss_that_is_not_finite_stops_before_a_checkpoint(study):
    p = params_of(learning_rate_fa=1e30, num_epochs=5)
    run = RunFolder(study.runs, p.run_id)
    with refused("loss term 'ar'"):
        fit(build(p), run, p)
    saved = run.path / "model_temp.pth"
    assert not saved.exists() or all(
        torch.isfinite(value).all() for value in torch.load(saved, weights_only=True)["fa_model_state_dict"].values()
    )


def test_resumed_equals_uninterrupted_and_only_own_files_go(study):
    whole, parts = (RunFolder(study.runs, name) for name in ("whole", "parts"))
    p = params_of(num_epochs=6, run_id="x")
    fit(build(p), whole, p)
    parts.path.mkdir(parents=True)
    foreign = parts.path / "model_1_0.1000.pth"
    foreign.write_text("not ours")
    for num_epochs in (2, 3, 6):
        shorter = params_of(num_epochs=num_epochs, run_id="x")
        fit(build(shorter), parts, shorter)
    assert foreign.read_text() == "not ours"
    assert parts.history() == whole.history()
    a, b = (torch.load(run.path / "model_temp.pth", weights_only=True) for run in (whole, parts))
    for key in ("fa_model_state_dict", "ft_model_ar_state_dict"):
        assert all(torch.equal(a[key][name], b[key][name]) for name in a[key])
    own = sorted(file.name for file in whole.path.glob("model_*.pth"))
    assert sorted(file.name for file in parts.path.glob("model_*.pth") if file != foreign) == own
    assert len(own) == 2  # model_temp.pth and the best


def test_a_run_folder_of_other_parameters_is_refused(study):
    p = params_of(num_epochs=1)
    run = RunFolder(study.runs, p.run_id)
    fit(build(p), run, p)
    other = params_of(num_epochs=1, learning_rate_fa=0.5)
    with refused("model_temp.pth"):
        fit(build(other), run, other)
    assert fit(build(other), run, other, restart=True)["epoch"] == 1


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"fb_loss_weight": -1.0}, "fb_loss_weight"),
        ({"fa_loss_weight": 0.0, "ft_ar_loss_weight": 0.0, "fb_loss_weight": 0.0}, "fa_loss_weight"),
        ({"fb_frame_sample": 3}, "fb_frame_sample"),
        ({"num_epochs": 0}, "num_epochs"),
    ],
)
def test_impossible_parameters(changes, culprit):
    with refused(culprit):
        params_of(**changes)


def test_conflicting_width_quotes_both(study):
    with refused("feature_dim"):
        build(params_of(feature_dim=768))


def test_batch_of_one_gives_a_finite_step(study):
    trainer = build(params_of(batch_size_ar=1))
    _, terms = trainer.objective(next(iter(trainer.batches(0))))
    assert terms["privacy"] == 0  # no negatives
    assert all(torch.isfinite(term) for term in terms.values())

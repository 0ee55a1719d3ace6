"""Chains: their grammar, what they are fitted to, what checkpoints say of them, and training that respects them."""

import dataclasses
import math
import types

import numpy as np
import pytest
import torch
from conftest import NUM_ACTIONS
from refusals import refused
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression

import model_loaders
from multitask_train_fa import build, train
from splavu.anonymizers import Quantizer, closed_form
from splavu.anonymizers.closed_form.fit_data import FitData
from splavu.anonymizers.guarantees import guarantees
from splavu.anonymizers.loading import load_anonymizer
from splavu.anonymizers.pipeline import Part, build_pipeline, names_of, parse, trained_part
from splavu.release.model_card import model_card
from splavu.runtime import checkpoints, params
from splavu.runtime.distributed import NOT_DISTRIBUTED
from splavu.runtime.run_folder import RunFolder
from splavu.stores import open_features
from splavu.training.loop import fit
from study.datasets.loading import known_subjects, open_dataset
from study.training import anonymizer as training
from study.training.anonymizer import shown_actions
from study.training.anonymizer_params import AnonymizerParams


def params_of(**changes):
    small = {"num_epochs": 2, "batch_size_ar": 24, "val_freq": 1, "learning_rate_fa": 1e-3, "learning_rate_ft": 1e-2}
    return AnonymizerParams(**{"run_id": "t", "ar_dataset": "hmdb51", "ft_arch": "demo", **small, **changes})


ENCODER = {"fa_arch": "encoder", "num_layers_fa": 1}
CRITIC = {"privacy_objective": "critic", "critic_steps": 2, "critic_reset": 2}


def test_chains_are_read_in_order():
    assert parse("transformer") == (Part("transformer"),)
    assert names_of(parse("eraser+encoder+quantizer+noise")) == "eraser+encoder+quantizer+noise"
    assert trained_part(parse("eraser+mlp")) == "mlp"
    assert trained_part(parse("leace+pca+quantizer")) is None


def test_options_are_read_and_written_alike():
    text = "leace(ridge=0.1)+random(keep=32)+mlp+quantizer(codes=(64, 64), space='features')"
    parts = parse(text)
    assert parts[-1] == Part("quantizer", {"codes": (64, 64), "space": "features"})
    assert "+".join(map(str, parts)) == text
    assert parse("quantizer(bits=8, space=features)") == parse("quantizer( bits = 8, space = 'features' )")


NO_TERM_READS_CLIPS = {"ft_ar_loss_weight": 0.0, "fb_loss_weight": 0.0, "ft_tad_loss_weight": 1.0}


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"fa_arch": "transfomer"}, "fa_arch"),
        ({"fa_arch": "quantizer+eraser"}, "fa_arch"),
        ({"fa_arch": "mlp+leace"}, "fa_arch"),
        ({"fa_arch": "mlp+encoder"}, "fa_arch"),
        ({"fa_arch": "eraser+eraser"}, "fa_arch"),
        ({"fa_arch": "mlp(hidden=3)"}, "fa_arch"),
        ({"fa_arch": "pca(keep=3"}, "fa_arch"),
        ({"fa_arch": "pca(3)"}, "fa_arch"),
        ({"fa_arch": "pca(keep=open(3))"}, "fa_arch"),
        ({"fa_arch": "pca"}, "fa_arch"),  # keep has no name of its own in parameter files
        ({"fa_arch": "pca(keep=0)"}, "fa_arch"),
        ({"fa_arch": "pca(keep=many)"}, "fa_arch"),
        ({"fa_arch": "pca(kept=3)"}, "fa_arch"),
        ({"fa_arch": "orthogonal(rank=3)"}, "fa_arch"),
        ({"fa_arch": "eraser(rank=3, share=0.5)"}, "erase_rank"),
        ({"fa_arch": "eraser(rank=3)", "erase_rank": 3}, "erase_rank"),
        ({"fa_arch": "quantizer(bits=3, codes=(8, 8))"}, "bits"),
        ({"fa_arch": "quantizer(bits=3, space=rooms)"}, "code_space"),
        ({"fa_arch": "noise(sd=-1)"}, "noise_sd"),
        ({"fa_arch": "eraser"}, "erase_rank"),
        ({"fa_arch": "eraser+quantizer", "erase_rank": 3}, "bits"),
        ({"fa_arch": "eraser", "erase_rank": 0}, "erase_rank"),
        ({"fa_arch": "noise", "noise_sd": 0.0}, "noise_sd"),
        ({"erase_rank": 3}, "erase_rank"),
        ({"bottleneck": 3}, "bottleneck"),
        ({"fa_arch": "eraser", "erase_rank": 3, "saved_fa_model": "x.pth"}, "saved_fa_model"),
        ({"fa_arch": "mlp+noise", "saved_fa_model": "x.pth"}, "noise_sd"),
        ({"code_space": "features"}, "code_space"),
        ({"fa_arch": "eraser", "erase_rank": 3, "code_dims": 3}, "code_dims"),
        ({"fa_arch": "quantizer", "bits": 3, "code_dims": 0}, "code_dims"),
        ({"left_out_actions": 1.0}, "left_out_actions"),
        ({"left_out_actions": -0.5}, "left_out_actions"),
        ({"left_out_actions": 0.5, **NO_TERM_READS_CLIPS}, "left_out_actions"),
        ({"critic_steps": 0}, "critic_steps"),
        ({"critic_reset": -1}, "critic_reset"),
        ({**CRITIC, "ssl": False, "pa_dataset": "vp_hmdb"}, "privacy_objective"),
        ({"consistency": "relative", **NO_TERM_READS_CLIPS}, "consistency"),
    ],
)
def test_impossible_chains_and_objectives(changes, culprit):
    with refused(culprit):
        params_of(**changes)


@pytest.mark.parametrize("chain", ["quantizer(bits=3)+eraser(rank=2)", "noise(sd=1)+quantizer(bits=3)+mlp+pca(keep=3)"])
def test_the_order_that_is_offered_is_accepted(chain):
    with refused("fa_arch") as caught:
        parse(chain)
    offered = caught.value.remedy.split("'")[1]
    assert {part.name for part in params_of(fa_arch=offered).chain} == {part.name for part in pipeline_parts(chain)}


def pipeline_parts(chain):
    return [part for text in chain.split("+") for part in parse(text)]


def test_fit_data_are_the_clips_with_the_mean_pictures_of_their_videos(study):
    dataset = build(params_of()).clips.dataset
    data = FitData.of(dataset)
    row = 0
    for number in range(len(dataset)):
        for clip in range(dataset.clips.num_clips[number]):
            np.testing.assert_array_equal(data.features[row], dataset.clips.rows[dataset.clips.start[number] + clip])
            start = dataset.static.start[number]
            np.testing.assert_allclose(data.static[row], dataset.static.rows[start : start + 10].mean(0), rtol=1e-5)
            assert data.classes[row] == dataset.labels[number]
            row += 1
    assert row == len(data.features)
    assert data.num_videos == len(dataset)
    fewer = FitData.of(dataset, limit=50)
    assert len(fewer.features) == len(fewer.static) == len(fewer.classes) == 50
    assert data.variance == pytest.approx(float(np.var(data.features, axis=0).mean()), rel=1e-5)


def test_a_closed_form_is_written_like_a_training_and_is_what_it_says(study):
    p = params_of(fa_arch="eraser+quantizer", erase_rank=8, bits=5)
    result = train(p, NOT_DISTRIBUTED)
    content = checkpoints.read(result["checkpoint"])
    assert content["params"]["fa_arch"] == "eraser+quantizer"
    assert content["inputs"]["encoder"] == "demo"
    assert content["epoch"] == 0
    said = content["fitted"]
    assert said["released"]["bits_at_most"] == 5
    assert said["guarantees"] == guarantees(content["fa_architecture"])
    loaded = load_anonymizer(result["checkpoint"]).eval()
    data = FitData.of(build(params_of()).clips.dataset)
    with torch.no_grad():
        released = loaded(torch.from_numpy(data.features)).numpy()
    vectors, counts = np.unique(released, axis=0, return_counts=True)
    shares = counts / counts.sum()
    assert len(vectors) == said["released"]["distinct_vectors"] <= 32
    assert said["released"]["bits_on_average"] == pytest.approx(float(-(shares * np.log2(shares)).sum()), rel=1e-6)

    before = (study.runs / "t/model_temp.pth").read_bytes()
    assert train(p, NOT_DISTRIBUTED) == result  # there already
    assert (study.runs / "t/model_temp.pth").read_bytes() == before
    with refused("model_temp.pth"):
        train(params_of(fa_arch="eraser+quantizer", erase_rank=8, bits=4), NOT_DISTRIBUTED)
    again = train(params_of(fa_arch="eraser+quantizer", erase_rank=8, bits=4), NOT_DISTRIBUTED, restart=True)
    assert again["fitted"]["released"]["bits_at_most"] == 4


def test_subjects_are_those_that_the_data_set_names(study):
    keys = build(params_of()).clips.dataset.keys
    told = known_subjects("hmdb51", keys)
    assert told == {key: f"p{int(key[7:9])}" for key in keys}
    (study.data / "hmdb51/private_labels.csv").unlink()
    assert known_subjects("hmdb51", keys) is None
    content = checkpoints.read(train(params_of(fa_arch="quantizer", bits=3), NOT_DISTRIBUTED)["checkpoint"])
    assert content["fa_architecture"]["support"]["unit"] == "video"


@pytest.mark.parametrize("changes", [{"fa_arch": "mlp"}, {"fa_arch": "quantizer", "bits": 3}])
def test_checkpoints_know_the_clips_that_they_were_trained_on(study, changes):
    best = train(params_of(**changes), NOT_DISTRIBUTED)
    fitted_to = load_anonymizer(best["checkpoint"]).fitted_to
    stores = (open_features(study.features / f"features_hmdb_{split}_demo.h5") for split in ("train", "test"))
    seen, unseen = (np.concatenate([store[key] for key in store]) for store in stores)
    assert fitted_to.holds(seen).all()
    assert not fitted_to.holds(unseen).any()
    longer = params_of(fa_arch="mlp", saved_fa_model=best["checkpoint"], run_id="longer", ar_dataset="hmdb51")
    if changes["fa_arch"] == "mlp":
        again = load_anonymizer(train(longer, NOT_DISTRIBUTED)["checkpoint"]).fitted_to
        assert again.holds(seen).all()


def same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_codes_of_what_varies_most_lie_among_principal_components_and_read_no_class(study):
    data = FitData.of(build(params_of()).clips.dataset)

    def fitted(data, options):
        return build_pipeline(parse(f"quantizer(bits=4, {options})"), data, seed=3)

    made = fitted(data, "space=features, dims=5")
    space = closed_form.code_subspace(data.features, None, dims=5)
    places = space.places(data.features)
    books = closed_form.supported_codebooks(places, None, 4, np.unique(data.videos, return_inverse=True)[1], 5)
    used = np.any([book.any(axis=0) for book in books], axis=0)
    assert same(made, Quantizer.of(space.mean, space.encode[used], space.decode[:, used], [b[:, used] for b in books]))
    with torch.no_grad():
        released = made.eval()(torch.from_numpy(data.features)).numpy()
    pca = PCA(5, svd_solver="full").fit(data.features)
    np.testing.assert_allclose(pca.inverse_transform(pca.transform(released)), released, atol=1e-4)
    for classes in (None, np.random.default_rng(0).permutation(data.classes)):
        assert same(made, fitted(dataclasses.replace(data, classes=classes), "space=features, dims=5"))
    assert not same(made, fitted(data, "dims=5"))


@pytest.mark.parametrize(
    ("options", "dims"),
    [({}, NUM_ACTIONS - 1), ({"code_dims": 2}, 2), ({"code_space": "features", "code_dims": 2}, 2)],
)
def test_checkpoints_name_the_space_of_their_codes(study, options, dims):
    content = checkpoints.read(train(params_of(fa_arch="quantizer", bits=3, **options), NOT_DISTRIBUTED)["checkpoint"])
    assert content["fa_architecture"]["subspace_dim"] == dims
    assert content["fitted"]["options"] == {"bits": 3, **options}


def test_an_unknown_space_of_codes_is_told():
    given = {"run_id": "t", "ft_arch": "demo", "ar_dataset": "hmdb51", "fa_arch": "quantizer", "bits": 3}
    with refused("t"):
        params.build(AnonymizerParams, {**given, "code_space": "feature"}, source="t")


# Actions that are left out.


def action(video):
    """As the study deals them."""
    return int(video.split("_")[1]) % NUM_ACTIONS


@pytest.mark.parametrize("changes", [{}, {"ft_ar_loss_weight": 0.0}, {"fa_arch": "quantizer", "bits": 3}])
def test_of_actions_that_are_left_out_no_video_is_shown(study, changes):
    p = params_of(left_out_actions=0.5, **changes)
    shown = shown_actions(p)
    every = open_dataset("hmdb51", "train", encoder="demo").keys
    source = build(p).clips.dataset
    assert len(shown) == 2
    assert set(source.keys) == {video for video in every if action(video) in shown} < set(every)
    assert len(build(params_of(**changes)).clips.dataset) == len(every)


def test_the_seed_draws_what_is_left_out():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "open_dataset", lambda *_, **__: types.SimpleNamespace(labels=[3, 3, 8, 5, 9]))
        drawn = [shown_actions(params_of(left_out_actions=0.25, seed=seed)) for seed in [0, *range(30)]]
        assert shown_actions(params_of()) is None
    assert drawn[0] == drawn[1]
    assert set(drawn) == {frozenset({3, 5, 8, 9}) - {one} for one in (3, 5, 8, 9)}


@pytest.mark.parametrize(("share", "count"), [(0.1, 0), (0.75, 3), (0.95, 4)])
def test_shares_that_leave_nothing_out_or_nothing_to_compare_are_refused(study, share, count):
    with refused("left_out_actions"):
        train(params_of(fa_arch="quantizer", bits=3, left_out_actions=share), NOT_DISTRIBUTED)
    assert not (study.runs / "t/model_temp.pth").exists()


def test_a_closed_form_is_fitted_to_what_is_shown_alone(study):
    whole, part = (
        train(params_of(fa_arch="quantizer", bits=3, left_out_actions=share, run_id=f"of{share}"), NOT_DISTRIBUTED)
        for share in (0.0, 0.5)
    )
    assert not same(load_anonymizer(whole["checkpoint"]), load_anonymizer(part["checkpoint"]))
    data = FitData.of(build(params_of()).clips.dataset)
    seen = np.isin(data.classes, list(shown_actions(params_of(left_out_actions=0.5))))
    data = data.take(seen)
    assert same(load_anonymizer(part["checkpoint"]), build_pipeline(parse("quantizer(bits=3)"), data))
    assert part["fitted"]["clips"] == seen.sum() < len(seen)


def test_training_behind_an_eraser_leaves_it_alone_and_brings_nothing_back(study):
    p = params_of(fa_arch="eraser+encoder", num_layers_fa=1, erase_rank=60, bottleneck=20, **CRITIC)
    start = build(p).anonymizer.network.stages[0].state_dict()
    best = train(p, NOT_DISTRIBUTED)
    trained = load_anonymizer(best["checkpoint"]).eval()
    assert all(torch.equal(value, trained.stages[0].state_dict()[name]) for name, value in start.items())
    encoder = trained.stages[1].state_dict()
    assert any(encoder[name].any() for name in encoder if name.endswith("fc2.weight"))  # it did learn
    data = FitData.of(build(p).clips.dataset)
    with torch.no_grad():
        released = trained(torch.from_numpy(data.features)).numpy()
    values = np.linalg.svd(released - released.mean(axis=0), compute_uv=False)
    assert values[20] < 1e-5 * values[0]  # twenty numbers
    said = checkpoints.read(best["checkpoint"])["fitted"]
    assert said["method"] == "eraser+encoder"
    assert any("20 numbers" in sentence for sentence in said["guarantees"])


def test_an_eraser_hides_pictures_within_a_class_from_straight_lines(study):
    trainer = build(params_of())
    data = FitData.of(trainer.clips.dataset)
    made = build_pipeline(parse("eraser(rank=60)"), data)
    released = data.after(made.eval()).features
    target = data.static - np.stack([data.static[data.classes == c].mean(0) for c in data.classes])

    def explained(features):
        return LinearRegression().fit(features[:, :40], target).score(features[:, :40], target)

    directions = np.linalg.svd(data.features - data.features.mean(0), full_matrices=False)[2].T
    assert explained(data.features @ directions) > explained(released @ directions) + 0.2


def test_what_stands_behind_a_network_is_fitted_to_what_it_has_learnt(study):
    p = params_of(fa_arch="encoder+quantizer+noise", num_layers_fa=1, bits=6, noise_sd=0.1, **CRITIC)
    best = train(p, NOT_DISTRIBUTED)
    whole, trained = (load_anonymizer(best[name]).eval() for name in ("checkpoint", "trained"))
    assert [stage["arch"] for stage in whole.architecture["stages"]] == ["encoder", "quantizer", "noise"]
    features = torch.from_numpy(FitData.of(build(p).clips.dataset).features)
    with torch.no_grad():
        learnt = trained(features)
        assert torch.equal(whole.stages[0](features), learnt)
        vectors = whole.stages[1](learnt)
    codes = vectors.unique(dim=0)
    assert len(codes) <= 64
    assert float((vectors - learnt).square().sum()) < float((learnt - learnt.mean(dim=0)).square().sum())
    said = checkpoints.read(best["checkpoint"])["fitted"]
    assert said["released"]["distinct_vectors"] == len(codes)
    assert said["guarantees"] == guarantees(whole.architecture)
    before = (study.runs / "t/model_released.pth").read_bytes()
    assert train(p, NOT_DISTRIBUTED) == best  # with the same noise, too
    assert (study.runs / "t/model_released.pth").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["conditional", "critic"])
def test_clips_are_asked_to_tell_less_of_their_pictures(study, objective):
    def told(weight):
        """Nats over the last epochs, and the accuracy."""
        changes = {"fa_arch": "mlp", "fa_loss_weight": 0.2, "learning_rate_fa": 5e-3, "num_epochs": 20}
        critic = {**CRITIC, "critic_reset": 0, "privacy_objective": objective}
        p = params_of(fb_loss_weight=weight, run_id=f"run{weight}", **changes, **critic)
        run = RunFolder(study.runs, p.run_id)
        fit(build(p), run, p)
        last = run.history()[-3:]
        return np.mean([record["loss/privacy"] for record in last]), last[-1]["val/ar/top1"]

    (unasked, _), (asked, accuracy) = told(1e-9), told(5.0)
    assert 0.8 * math.log(6) < unasked < math.log(24)  # almost all that six rivals leave to be told
    assert asked < 0.75 * unasked
    assert accuracy > 0.8


def test_a_run_with_critics_goes_on_to_the_same_bits(study):
    whole, parts = (RunFolder(study.runs, name) for name in ("whole", "parts"))
    settings = {**ENCODER, **CRITIC, "consistency": "relative", "run_id": "x"}
    p = params_of(num_epochs=5, **settings)
    fit(build(p), whole, p)
    for num_epochs in (3, 5):
        shorter = params_of(num_epochs=num_epochs, **settings)
        fit(build(shorter), parts, shorter)
    assert parts.history() == whole.history()
    a, b = (torch.load(run.path / "model_temp.pth", weights_only=True) for run in (whole, parts))
    for key in ("fa_model_state_dict", "ft_model_ar_state_dict", "critic_state_dict"):
        assert all(torch.equal(a[key][name], b[key][name]) for name in a[key])
    assert a["feature_variance"] == pytest.approx(FitData.of(build(p).clips.dataset).variance)


def test_without_a_task_the_objective_on_validation_clips_chooses(study):
    p = params_of(ft_ar_loss_weight=0.0, privacy_objective="conditional", **ENCODER)
    assert np.isfinite(train(p, NOT_DISTRIBUTED)["score"])


def test_critic_batches_are_other_batches_than_the_steps(study):
    batch = next(iter(build(params_of(**ENCODER, **CRITIC)).batches(0)))
    drawn = [tuple(batch["clips"].videos), *(tuple(clips.videos) for clips in batch["critic_batches"])]
    assert len(set(drawn)) == 3
    assert "critic_batches" not in next(iter(build(params_of(**ENCODER)).batches(0)))


def test_loaders_know_chains(study):
    p = params_of(fa_arch="eraser+encoder", num_layers_fa=1, erase_rank=4, num_epochs=1)
    path = train(p, NOT_DISTRIBUTED)["checkpoint"]
    judged = {"ft_arch": "demo", "anon": True, "saved_fa_model": path, "num_heads": 8, "feature_dim": None}
    for arch in (None, "eraser+encoder", "chain"):
        assert model_loaders.load_adapter(types.SimpleNamespace(fa_arch=arch, **judged)) is not None
    with refused("model_1_1.0000.pth"):
        model_loaders.load_adapter(types.SimpleNamespace(fa_arch="mlp", **judged))
    assert model_loaders.load_fa(p, path).architecture["arch"] == "chain"
    with refused("model_1_1.0000.pth"):
        model_loaders.load_fa(params_of(fa_arch="eraser+encoder", num_layers_fa=2, erase_rank=4), path)
    with refused("saved_fa_model"):
        model_loaders.load_fa(params_of(fa_arch="eraser", erase_rank=4))
    longer = params_of(fa_arch="eraser+encoder", num_layers_fa=1, saved_fa_model=path, run_id="longer", num_epochs=1)
    assert not build(longer).anonymizer.network.stages[0].weight.requires_grad


def test_guarantees_follow_from_the_architecture():
    encoder = {"arch": "encoder", "feature_dim": 8, "bottleneck": None}
    assert guarantees(encoder)[0].startswith("None")
    assert guarantees({"arch": "transformer", "feature_dim": 8})[0].startswith("None")
    quantizer = {"arch": "quantizer", "feature_dim": 8, "codes": [8, 4], "subspace_dim": 2}
    said = guarantees({"arch": "chain", "feature_dim": 8, "stages": [encoder, quantizer]})
    assert said == guarantees(quantizer)
    assert all(f"- {statement}" in model_card("it", quantizer, "0" * 64, None) for statement in said)


def test_every_action_has_rivals_here():
    assert NUM_ACTIONS * 2 < 24  # else the tests above would contrast nothing


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_critics_learn_in_full_precision_beside_an_anonymizer_in_half(study, precision):
    p = params_of(precision=precision, accumulate=2, clip_norm=1.0, ema_decay=0.9, **ENCODER, **CRITIC)
    trainer = build(p)
    start = {name: value.clone() for name, value in trainer.critic.network.state_dict().items()}
    assert np.isfinite(fit(trainer, RunFolder(study.runs, p.run_id), p)["score"])
    weights = trainer.critic.network.state_dict()
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in weights.values())
    assert any(not torch.equal(value, start[name]) for name, value in weights.items())

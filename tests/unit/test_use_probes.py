"""Use probes against closed forms, scikit-learn and loops: a head on one number ranks as that number does."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused
from sklearn.metrics import average_precision_score, roc_auc_score

from splavu import metrics
from splavu.attacks.rows import AttackData, Rows
from splavu.tuning import linear_probes
from splavu.tuning.linear_probes import LongVideos, actions, anomalies, moments

DRAWS = 60
NUM_ACTIONS = 4


def same(features: np.ndarray) -> np.ndarray:
    return features


def constant(features: np.ndarray) -> np.ndarray:
    return np.zeros_like(features)


def people(rng, *, noise: float, prefix: str, count: int, videos: int = 4, clips: int = 3):
    """A person does each action in turn; a clip shows it by the axis it lies on. Rows and video -> action."""
    features, clusters, names, classes = [], [], [], {}
    for person in range(count):
        for video in range(videos):
            name = f"{prefix}{person}_{video}"
            classes[name] = 10 + video % NUM_ACTIONS  # classes are any numbers
            shown = np.eye(NUM_ACTIONS + 2)[video % NUM_ACTIONS]
            features.append(shown + noise * rng.normal(size=(clips, NUM_ACTIONS + 2)))
            clusters += [f"{prefix}{person}"] * clips
            names += [name] * clips
    features = np.concatenate(features).astype(np.float32)
    return Rows(features, np.zeros((len(features), 1)), np.array(clusters), np.array(names)), classes


def world(*, noise: float, judged: int = 6, seed: int = 0):
    rng = np.random.default_rng(seed)
    parts = [people(rng, noise=noise, prefix=p, count=n) for p, n in (("a", 12), ("b", 4), ("c", judged))]
    return AttackData(*(rows for rows, _ in parts)), {k: v for _, classes in parts for k, v in classes.items()}


# Actions.


def test_actions_that_can_be_told_are_all_told():
    released, classes = world(noise=0.1)
    found = actions(released, classes, DRAWS)
    assert (found.value, found.chance) == (1.0, 1 / NUM_ACTIONS)
    assert found.drawn.shape == found.drawn_chance.shape == (DRAWS,)
    np.testing.assert_allclose(found.drawn, 1.0)


def test_actions_that_features_do_not_show_are_guessed():
    released, classes = world(noise=1.0, judged=100)
    rng = np.random.default_rng(1)
    blind = released.mapped(lambda x: rng.normal(size=x.shape).astype(np.float32))
    found = actions(blind, classes, DRAWS)
    assert found.value == pytest.approx(1 / NUM_ACTIONS, abs=4 * np.sqrt(0.25 * 0.75 / 400))
    assert found.drawn.min() <= found.value <= found.drawn.max()


def test_draws_of_actions_are_of_whole_people():
    """One judged person's actions are named wrongly: a draw is wrong as often as it holds that person."""
    released, classes = world(noise=0.1)
    wrong = {v: 10 + (k - 9) % NUM_ACTIONS if v.startswith("c3_") else k for v, k in classes.items()}
    found = actions(released, wrong, DRAWS)
    assert found.value == pytest.approx(5 / 6)
    test = released.test
    videos, first = np.unique(test.videos, return_index=True)
    resamples = metrics.cluster_resamples(test.clusters[first], num_resamples=DRAWS)
    for draw in range(DRAWS):
        drawn = [
            v for v, g in zip(videos, resamples.cluster_of_row, strict=True) for _ in range(resamples.counts[draw, g])
        ]
        assert found.drawn[draw] == pytest.approx(np.mean([not video.startswith("c3_") for video in drawn]))


def test_chance_names_the_commonest_action_of_those_judged():
    released, classes = world(noise=0.1)
    judged = released.test.take(
        np.flatnonzero([video[-1] in "002" or video == "c0_1" for video in released.test.videos])
    )
    found = actions(AttackData(released.train, released.validation, judged), classes, DRAWS)
    assert found.chance == pytest.approx(6 / 13)  # of six people actions 0 and 2, of one 1
    assert found.value == 1.0


def test_a_video_is_judged_by_the_mean_of_its_clips_wherever_they_stand():
    released, classes = world(noise=0.9, judged=40)
    test = released.test
    names = np.unique(test.videos)
    means = Rows(
        np.stack([test.features[test.videos == name].mean(axis=0) for name in names]),
        np.zeros((len(names), 1)),
        np.array([name.split("_")[0] for name in names]),
        names,
    )
    apart = test.take(np.random.default_rng(0).permutation(len(test)))
    values = [
        actions(AttackData(released.train, released.validation, rows), classes, DRAWS).value
        for rows in (test, means, apart)
    ]
    assert values[0] == values[1] == values[2]  # a linear head: the mean of scores is the score of the mean
    assert 0.4 < values[0] < 1


def test_judged_labels_change_no_prediction_of_actions():
    """Every judged video is said to be another action: what was right is wrong, and each video right once in turn."""
    released, classes = world(noise=0.9, judged=30)
    values = []
    for turn in range(NUM_ACTIONS):
        turned = {v: 10 + (k - 10 + turn) % NUM_ACTIONS if v[0] == "c" else k for v, k in classes.items()}
        values.append(actions(released, turned, DRAWS).value)
    assert sum(values) == pytest.approx(1.0)
    assert 0.4 < values[0] < 1


def test_a_constant_tells_no_action():
    released, classes = world(noise=0.1)
    found = actions(released.mapped(constant), classes, DRAWS)
    assert found.value == found.chance == 1 / NUM_ACTIONS


# Moments.


def long_videos(*, slopes: tuple[float, ...], noise: float, count: int = 24, seed: int = 0) -> LongVideos:
    """Videos of unequal length; a column is 1 where a hidden number is high, and the one feature follows it."""
    rng = np.random.default_rng(seed)
    features, labels = [], []
    for length in rng.integers(7, 40, count):
        x = rng.normal(size=(length, 1))
        features.append(x.astype(np.float32))
        labels.append(np.stack([slope * x[:, 0] + noise * rng.normal(size=length) > 0.6 for slope in slopes], axis=1))
    return LongVideos(features, labels)


def test_moments_on_one_number_are_ranked_by_it():
    videos = long_videos(slopes=(1.0, -1.0), noise=0.7)
    found = moments(videos, same, DRAWS)
    _, judged = videos.divided()
    x = np.concatenate([videos.features[place][:, 0] for place in judged])
    y = np.concatenate([videos.labels[place] for place in judged])
    expected = (average_precision_score(y[:, 0], x) + average_precision_score(y[:, 1], -x)) / 2
    assert found.value == pytest.approx(expected)
    assert found.chance == pytest.approx(y.mean())
    owners = np.repeat(np.arange(len(judged)), [len(videos.features[place]) for place in judged])
    resamples = metrics.cluster_resamples(owners, num_resamples=DRAWS)
    for draw in range(DRAWS):
        rows = np.repeat(np.arange(len(owners)), resamples.counts[draw][owners])
        slow = [average_precision_score(y[rows, c], sign * x[rows]) for c, sign in ((0, 1), (1, -1))]
        assert found.drawn[draw] == pytest.approx(np.mean(slow))
        assert found.drawn_chance[draw] == pytest.approx(y[rows].mean())


def test_moments_that_can_be_told_are_all_told_and_judged_labels_are_not_learnt_from():
    videos = long_videos(slopes=(1.0,), noise=0.0)
    assert moments(videos, same, DRAWS).value == pytest.approx(1.0)
    _, judged = videos.divided()
    turned = [~label if place in judged else label for place, label in enumerate(videos.labels)]
    others = sum(int(videos.labels[place].sum()) for place in judged)  # now above all that are positive
    positives = sum(len(videos.labels[place]) for place in judged) - others
    worst = np.mean([rank / (others + rank) for rank in range(1, positives + 1)])
    assert moments(LongVideos(videos.features, turned), same, DRAWS).value == pytest.approx(worst)


def test_moments_that_features_do_not_show_are_found_by_chance():
    videos = long_videos(slopes=(0.0, 0.0), noise=1.0, count=200)
    found = moments(videos, same, DRAWS)
    assert found.value == pytest.approx(found.chance, abs=0.08)
    flat = moments(videos, constant, DRAWS)  # all steps tie
    assert flat.value == pytest.approx(flat.chance)
    np.testing.assert_allclose(flat.drawn, flat.drawn_chance)


def test_classes_that_are_not_both_learnt_and_judged_are_left_out():
    videos = long_videos(slopes=(1.0,), noise=0.5)
    _, judged = videos.divided()

    def beside(place, label):
        only_learnt, only_judged = (
            np.full_like(label, flag) & (label == label[0]) for flag in (place not in judged, place in judged)
        )
        return np.concatenate([label, only_learnt, only_judged, np.zeros_like(label)], axis=1)

    more = LongVideos(videos.features, [beside(place, label) for place, label in enumerate(videos.labels)])
    alone, among = moments(videos, same, DRAWS), moments(more, same, DRAWS)
    assert (among.value, among.chance) == pytest.approx((alone.value, alone.chance))


# Anomalies.


def watched(*, count: int = 60, rise: float = 1.2, seed: int = 0) -> LongVideos:
    """Videos of unequal length, the abnormal half with a few high steps among ordinary ones."""
    rng = np.random.default_rng(seed)
    features, labels = [], []
    for number in range(count):
        length = int(rng.integers(4, 60))
        x = rng.normal(size=(length, 1))
        if number % 2:
            x[: max(1, length // 6)] += rise
        features.append(rng.permutation(x).astype(np.float32))
        labels.append(np.array([float(number % 2)]))
    return LongVideos(features, labels)


def top_tenth(x: np.ndarray) -> float:
    return float(np.mean(sorted(x)[-max(1, round(len(x) / 10)) :]))


def test_a_video_is_as_abnormal_as_its_most_abnormal_tenth():
    videos = watched(count=200)
    found = anomalies(videos, same, DRAWS)
    _, judged = videos.divided()
    y = np.array([videos.labels[place][0] for place in judged])
    scores = {
        name: np.array([pool(videos.features[place][:, 0]) for place in judged])
        for name, pool in (("tenth", top_tenth), ("mean", np.mean), ("highest", np.max))
    }
    assert found.value == pytest.approx(roc_auc_score(y, scores["tenth"]))
    assert all(found.value != pytest.approx(roc_auc_score(y, scores[name])) for name in ("mean", "highest"))
    assert found.chance == 0.5
    assert (found.drawn_chance == 0.5).all()
    resamples = metrics.cluster_resamples(np.arange(len(judged)), num_resamples=DRAWS)
    for draw in range(DRAWS):
        rows = np.repeat(np.arange(len(judged)), resamples.counts[draw])
        assert found.drawn[draw] == pytest.approx(roc_auc_score(y[rows], scores["tenth"][rows]))


def test_anomalies_that_can_be_told_are_and_others_are_not():
    assert anomalies(watched(rise=9.0), same, DRAWS).value == 1.0
    assert anomalies(watched(), constant, DRAWS).value == 0.5
    blind = anomalies(watched(count=400, rise=0.0), same, DRAWS).value
    assert min(blind, 1 - blind) > 0.3  # 100 videos; the head takes either direction, lengths differ


def test_judged_labels_change_no_score_of_anomalies():
    videos = watched()
    _, judged = videos.divided()
    turned = [1 - label if place in judged else label for place, label in enumerate(videos.labels)]
    found, other = (anomalies(one, same, DRAWS) for one in (videos, LongVideos(videos.features, turned)))
    assert found.value + other.value == pytest.approx(1.0)
    np.testing.assert_allclose(found.drawn + other.drawn, 1.0)


def test_what_cannot_be_judged_is_told():
    videos = watched(count=8)
    _, judged = videos.divided()
    for place in judged:
        videos.labels[place][:] = 1
    with refused("anomalies"):
        anomalies(videos, same, DRAWS)
    with refused("anomalies"):
        anomalies(LongVideos(videos.features, [np.array([float(place in judged)]) for place in range(8)]), same, DRAWS)
    nothing = long_videos(slopes=(1.0,), noise=0.0)
    with refused("moments"):
        moments(LongVideos(nothing.features, [np.zeros_like(label) for label in nothing.labels]), same, DRAWS)


# Which videos and which steps.


@pytest.mark.parametrize(("count", "held"), [(2, 1), (4, 1), (24, 6), (50, 12)])
def test_every_fourth_video_is_held_out(count, held):
    videos = LongVideos([np.zeros((1, 1))] * count, [np.zeros((1, 1))] * count)
    learnt, judged = videos.divided()
    assert sorted(learnt + judged) == list(range(count))
    assert len(judged) == held
    assert videos.divided() == (learnt, judged)


def test_heads_learn_from_a_share_of_many_steps(monkeypatch):
    monkeypatch.setattr(linear_probes, "MOST_STEPS", 50)
    fitted = []
    learn = linear_probes._head
    monkeypatch.setattr(linear_probes, "_head", lambda x, y, strength: fitted.append((x, y)) or learn(x, y, strength))
    videos = long_videos(slopes=(1.0,), noise=0.0)
    assert moments(videos, same, DRAWS).value == pytest.approx(1.0)
    features, targets = fitted[-1]  # of the chosen strength, on all that may be learnt from
    assert len(features) == 50
    np.testing.assert_array_equal(targets[:, 0] > 0, features[:, 0] > 0.6)  # still side by side
    learnt, _ = videos.divided()
    everything = np.concatenate([videos.features[place] for place in learnt])
    places = np.flatnonzero(np.isin(everything[:, 0], features[:, 0]))
    gaps = np.diff(places)
    assert (places[0], places[-1]) == (0, len(everything) - 1)
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("probe", [moments, anomalies])
def test_long_videos_are_served_before_they_are_judged(probe):
    videos = watched() if probe is anomalies else long_videos(slopes=(1.0,), noise=0.0)
    assert probe(videos, lambda x: x * -3 + 7, DRAWS).value == pytest.approx(probe(videos, same, DRAWS).value)
    assert probe(videos, constant, DRAWS).value < 0.6

"""Operating points by hand and by brute force, and measured where it is known what each anonymizer takes away."""

from __future__ import annotations

import dataclasses
import io
import itertools

import numpy as np
import pytest
import torch

from splavu.anonymizers import Quantizer, array_map
from splavu.attacks.rows import Rows
from splavu.audit.evaluator import AttackScore
from splavu.metrics.estimates import Estimate
from splavu.tuning import operating_points
from splavu.tuning.linear_probes import LongVideos, ProbeScore
from splavu.tuning.operating_points import Bench, Measurement, Point, area, choose, front, point

DRAWS = 200


# Points of figures that are made up.


def success(precision: float, chance: float = 0.5) -> AttackScore:
    values = {name: np.array([value]) for name, value in (("precision", precision), ("share", 0.5), ("chance", chance))}
    drawn = {"drawn": np.full((DRAWS, 1), precision), "drawn_chance": np.full((DRAWS, 1), chance)}
    return AttackScore(**values, **drawn, p=np.array([0.01]), mean_p=0.01)


def use(value: float, chance: float) -> ProbeScore:
    return ProbeScore(value, np.full(DRAWS, value), chance, np.full(DRAWS, chance))


def measured(*, clip=0.9, video=0.9, rank1=0.6, distinct=100, entropy=float("nan"), **uses: float) -> Measurement:
    return Measurement(
        privacy={"clip": success(clip), "video": success(video)},
        rank1=rank1,
        rank1_chance=0.1,
        rank1_drawn=np.full(DRAWS, rank1),
        uses={name: use(value, 0.5) for name, value in ({"actions": 0.9} | uses).items()},
        distinct=distinct,
        entropy=entropy,
    )


def test_raw_features_beside_themselves_give_away_all_and_lose_nothing():
    raw = [measured(moments=0.7), measured(clip=0.8, moments=0.6)]
    made = point("raw", "identity", raw, raw)
    for estimate in (*made.leakage.values(), made.linkage):
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((1, 1, 1))
    for estimate in made.lost.values():
        assert (estimate.value, estimate.low, estimate.high) == (0, 0, 0)
    assert made.kept == 1
    assert made.uses["moments"].value == pytest.approx(0.65)
    assert made.num_seeds == 2
    assert made.budget is None


def test_a_point_by_hand():
    raw = measured(clip=0.9, video=0.9, rank1=0.6, actions=0.9, moments=0.7)
    own = measured(clip=0.6, video=0.7, rank1=0.2, actions=0.8, moments=0.75, distinct=12, entropy=3.0)
    made = point("one", "eraser", [own], [raw], budget=4.0, eligible=False)
    assert made.leakage["clip"].value == pytest.approx(0.1 / 0.4)
    assert made.leakage["video"].value == pytest.approx(0.2 / 0.4)
    assert (made.unit, made.worst) == ("video", made.leakage["video"])
    assert made.linkage.value == pytest.approx(0.1 / 0.5)
    assert {name: lost.value for name, lost in made.lost.items()} == pytest.approx({"actions": 0.1, "moments": -0.05})
    assert made.most_lost.value == pytest.approx(0.1)
    assert made.kept == pytest.approx(0.3 / 0.4)
    assert (made.distinct, made.entropy, made.budget, made.eligible) == (12, 3.0, 4.0, False)
    np.testing.assert_allclose(made.draws["leakage"], 0.5)  # of the worse unit
    np.testing.assert_allclose(made.draws["kept"], 0.75)


@pytest.mark.parametrize(
    ("uses", "kept"),
    [
        ({"actions": 0.95, "moments": 0.9}, 1.0),  # better than raw features
        ({"actions": 0.95, "moments": 0.6}, 0.5),  # the least counts
        ({"actions": 0.6, "moments": 0.6}, 0.25),
        ({"actions": 0.9, "moments": 0.3}, 0.0),  # worse than chance
    ],
)
def test_use_kept_is_the_least_over_probes_and_a_share(uses, kept):
    assert point("one", "x", [measured(**uses)], [measured(moments=0.7)]).kept == pytest.approx(kept)


def test_seeds_are_averaged_and_drawn():
    """Each seed beside raw features of its own; of two seeds a draw holds one twice with probability 1/4, and its
    deviation from their mean is stretched by the root of 2, or two seeds would seem closer than they are."""
    raw = [measured(clip=0.9), measured(clip=0.7)]
    own = [measured(clip=0.6, actions=0.8, distinct=10), measured(clip=0.6, actions=0.9, distinct=20)]
    made = point("one", "x", own, raw)
    clip, lost = made.leakage["clip"], made.lost["actions"]
    of_clip, of_loss = 0.125 * 2**0.5, 0.05 * 2**0.5
    assert (clip.value, clip.low, clip.high) == pytest.approx((0.375, 0.375 - of_clip, 0.375 + of_clip))
    assert (lost.value, lost.low, lost.high) == pytest.approx((0.05, 0.05 - of_loss, 0.05 + of_loss))
    assert made.distinct == 15
    with pytest.raises(ValueError, match="zip"):
        point("one", "x", own, raw[:1])


def estimate(value: float) -> Estimate:
    return Estimate(value, value, value)


def at(leakage: float, kept: float, *, lost: float = 0.0, eligible: bool = True, name: str = "") -> Point:
    return Point(
        name=name or f"{leakage}/{kept}",
        family="x",
        num_seeds=1,
        leakage={"clip": estimate(leakage), "video": estimate(leakage - 0.01)},
        linkage=estimate(0.0),
        uses={"actions": estimate(0.5)},
        lost={"actions": estimate(lost), "moments": estimate(lost - 0.01)},
        kept=kept,
        distinct=1.0,
        entropy=0.0,
        budget=None,
        eligible=eligible,
        draws={"leakage": np.full(DRAWS, leakage), "kept": np.full(DRAWS, kept)},
    )


def dominated(one: Point, points: list[Point]) -> bool:
    return any(
        other.worst.value <= one.worst.value
        and other.kept >= one.kept
        and (other.worst.value, other.kept) != (one.worst.value, one.kept)
        for other in points
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_nothing_dominates(seed):
    rng = np.random.default_rng(seed)
    points = [at(leakage, kept) for leakage, kept in np.round(rng.random((40, 2)), 1 if seed % 2 else 6)]
    expected = {(one.worst.value, one.kept) for one in points if not dominated(one, points)}
    found = front(points)
    assert [(one.worst.value, one.kept) for one in found] == sorted(expected)
    for order in (points[::-1], sorted(points, key=lambda one: one.kept)):
        assert {(one.worst.value, one.kept) for one in front(order)} == expected


def test_the_front_of_nothing_and_of_one():
    assert front([]) == []
    one = at(0.4, 0.4)
    assert front([one]) == [one]


def test_the_least_leaking_of_those_within_the_limit_is_chosen():
    points = [at(0.1, 0.2, lost=0.3), at(0.3, 0.8, lost=0.02), at(0.2, 0.9, lost=0.021), at(0.5, 1, lost=-0.01)]
    assert choose(points, most_lost=0.02) is points[1]  # exactly at the limit
    assert choose(points, most_lost=0.01) is points[3]
    assert choose(points, most_lost=0.025) is points[2]
    assert choose(points, most_lost=1) is points[0]
    assert choose(points, most_lost=-0.02) is None
    assert choose([], most_lost=1) is None


def test_every_probe_counts_against_the_limit():
    fine = dataclasses.replace(at(0.1, 0.9), lost={"actions": estimate(0.0), "moments": estimate(0.01)})
    worse = dataclasses.replace(at(0.05, 0.9), lost={"actions": estimate(-0.1), "moments": estimate(0.03)})
    assert choose([fine, worse], most_lost=0.02) is fine


def test_what_may_not_be_chosen_is_not():
    baseline, candidate = at(0.0, 1, eligible=False), at(0.5, 0.9, lost=0.01)
    assert choose([baseline, candidate], most_lost=0.02) is candidate
    assert choose([baseline], most_lost=0.02) is None


@pytest.mark.parametrize("unit", operating_points.UNITS)
def test_undefined_leakage_is_never_chosen(unit):
    """Raw features tell nothing of this unit: there was nothing to hide, and no share of it."""
    undefined = point("one", "x", [measured(clip=0.5, video=0.5)], [measured(**{unit: 0.5})])
    assert np.isnan(undefined.leakage[unit].value)
    other = at(0.9, 0.9)
    for order in ([undefined, other], [other, undefined]):
        assert choose(order, most_lost=0.02) is other


def test_what_could_not_be_attacked_is_never_chosen():
    unmeasured = dataclasses.replace(at(0.1, 0.9), leakage={})
    assert not unmeasured.is_measured
    assert choose([unmeasured], most_lost=1) is None


@pytest.mark.parametrize("probes", [("actions", "anomalies"), ("anomalies", "actions")])
def test_undefined_use_is_never_chosen(probes):
    values = {"actions": estimate(0.0), "anomalies": estimate(float("nan"))}
    undefined = dataclasses.replace(at(0.1, 0.9), lost={probe: values[probe] for probe in probes})
    assert choose([undefined], most_lost=0.02) is None


def test_of_equal_leakage_the_one_that_loses_less_is_chosen():
    points = [at(0.2, 0.9, lost=0.01), at(0.2, 0.9, lost=0.0)]
    assert choose(points, most_lost=0.02) is points[1]


@pytest.mark.parametrize(
    ("points", "size"),
    [
        ([(1.0, 1.0)], 0.0),  # raw features
        ([(0.5, 0.8)], 0.4),
        ([(0.5, 0.8), (0.2, 0.5)], 0.55),  # 0.5 x 0.8 + 0.3 x 0.5
        ([(0.5, 0.8), (0.2, 0.5), (0.6, 0.7)], 0.55),
        ([(-0.3, 1.0)], 1.0),  # below chance counts as nothing left
        ([(1.4, 1.0)], 0.0),
    ],
)
def test_areas_of_known_rectangles(points, size):
    found = area([at(leakage, kept) for leakage, kept in points])
    assert (found.value, found.low, found.high) == pytest.approx((size, size, size))


def test_no_points_conquer_nothing():
    assert vars(area([])) == {"value": 0.0, "low": 0.0, "high": 0.0}


# A bench on which it is known what each axis holds.

NUM_ATTRIBUTES, NUM_ACTIONS, WIDTH = 2, 4, 10
TELLS_ATTRIBUTES = slice(0, NUM_ATTRIBUTES)
TELLS_ACTIONS = slice(NUM_ATTRIBUTES, NUM_ATTRIBUTES + NUM_ACTIONS)
TELLS_ANOMALY = NUM_ATTRIBUTES + NUM_ACTIONS


def clips_of(people: range, rng: np.random.Generator, classes: dict[str, int]) -> Rows:
    """4 videos of 3 clips a person: two axes hold person and attributes, four the video's action, the rest noise."""
    features, labels, clusters, videos = [], [], [], []
    for person in people:
        attributes = np.array([person % 2, person // 2 % 2])
        face = 2 * attributes - 1 + 0.5 * rng.normal(size=NUM_ATTRIBUTES)
        for video in range(4):
            name = f"p{person}_{video}"
            classes[name] = video % NUM_ACTIONS
            clips = 0.3 * rng.normal(size=(3, WIDTH))
            clips[:, TELLS_ATTRIBUTES] += face
            clips[:, TELLS_ACTIONS] += 2 * np.eye(NUM_ACTIONS)[classes[name]]
            features.append(clips)
            labels += [attributes] * 3
            clusters += [f"p{person}"] * 3
            videos += [name] * 3
    return Rows(
        np.concatenate(features).astype(np.float32),
        np.array(labels, dtype=np.float32),
        np.array(clusters),
        np.array(videos),
    )


@pytest.fixture(scope="module")
def bench() -> Bench:
    rng, classes = np.random.default_rng(0), {}
    train, judged = (clips_of(people, rng, classes) for people in (range(24), range(24, 40)))
    features, labels = [], []
    for number in range(40):
        steps = 0.3 * rng.normal(size=(int(rng.integers(10, 30)), WIDTH))
        steps[:3, TELLS_ANOMALY] += 3 * (number % 2)
        features.append(steps.astype(np.float32))
        labels.append(np.array([float(number % 2)]))
    long_videos = {"anomalies": LongVideos(features, labels)}
    return Bench(train, judged, classes, long_videos, ("logistic",), num_resamples=DRAWS, num_swaps=100)


@pytest.fixture(scope="module")
def raw(bench) -> Measurement:
    return bench.measure(np.asarray)


def without(axes):
    def serve(features: np.ndarray) -> np.ndarray:
        kept = features.copy()
        kept[:, axes] = 0
        return kept

    return serve


def test_raw_features_are_read_and_of_use(bench, raw):
    assert raw.privacy["clip"].excess > 0.4
    assert raw.uses["actions"].value == 1.0
    assert raw.uses["anomalies"].value == 1.0
    assert raw.rank1 > 2 * raw.rank1_chance
    assert raw.distinct == len(bench.judged)
    assert np.isnan(raw.entropy)  # every clip its own
    assert set(raw.privacy) == set(operating_points.UNITS)
    assert {use.drawn.shape for use in raw.uses.values()} == {(DRAWS,)}
    assert raw.rank1_drawn.min() <= raw.rank1 <= raw.rank1_drawn.max()
    again = bench.measure(np.asarray)
    for name, value in raw.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], value)


def test_the_same_features_leak_as_much_and_lose_nothing(bench, raw):
    made = point("same", "identity", [bench.measure(lambda x: x + np.float32(0))], [raw])
    assert [made.leakage[unit].value for unit in ("clip", "video")] == pytest.approx([1, 1])
    assert made.linkage.value == pytest.approx(1)
    assert made.kept == 1


def test_a_projection_that_takes_the_attributes_away_leaves_the_actions(bench, raw):
    made = point("erased", "eraser", [bench.measure(without(TELLS_ATTRIBUTES))], [raw])
    # Without the two axes scores are noise; the average precision of 48 videos then has a sd of about 0.07.
    assert abs(made.leakage["clip"].value) < 0.2
    assert abs(made.leakage["video"].value) < 0.3
    assert made.linkage.value < 0.5
    assert made.most_lost.value <= 0
    assert made.kept == 1
    assert choose([made], most_lost=0.0) is made


def test_a_projection_that_takes_a_use_away_keeps_nothing(bench, raw):
    actionless = point("a", "x", [bench.measure(without(TELLS_ACTIONS))], [raw])
    assert actionless.kept < 0.2
    assert actionless.lost["anomalies"].value == 0
    assert actionless.leakage["clip"].value > 0.9
    uneventful = point("b", "x", [bench.measure(without(TELLS_ANOMALY))], [raw])
    assert uneventful.kept < 0.6
    assert uneventful.lost["actions"].value == 0
    assert uneventful.most_lost is uneventful.lost["anomalies"]


def test_a_rotation_hides_nothing(bench, raw):
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)
    made = point("turned", "x", [bench.measure(lambda x: x @ turn)], [raw])
    assert [made.leakage[unit].value for unit in ("clip", "video")] == pytest.approx([1, 1], abs=0.05)
    assert made.kept == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("codes", [(4,), (3, 2)])
def test_what_few_vectors_tell_is_counted(bench, codes):
    rng = np.random.default_rng(1)
    axes = np.eye(WIDTH)[TELLS_ACTIONS]
    books = [rng.normal(size=(count, NUM_ACTIONS)) for count in codes]
    made = Quantizer.of(np.zeros(WIDTH), axes, axes.T, books).eval()
    found = bench.measure(array_map(made))
    with torch.no_grad():
        chosen = made.codes(torch.from_numpy(bench.judged.features)).tolist()
    shares = [chosen.count(list(code)) / len(chosen) for code in itertools.product(*map(range, codes))]
    assert found.distinct == sum(share > 0 for share in shares) <= np.prod(codes)
    assert found.entropy == pytest.approx(-sum(share * np.log2(share) for share in shares if share))
    assert found.entropy <= made.bits


def test_a_use_of_actions_that_were_not_shown_is_measured_of_these_alone(bench, raw):
    """The other anonymizer has lost what tells two actions apart: a head on these two then guesses."""
    first, second = TELLS_ACTIONS.start, TELLS_ACTIONS.start + 1
    left_out = frozenset({0, 1})
    found = {
        name: bench.measure(np.asarray, unseen=(other, left_out))
        for name, other in (("raw", np.asarray), ("blind", without([first, second])))
    }
    assert list(found["raw"].uses) == ["actions", "unseen", "anomalies"]
    assert "unseen" not in raw.uses
    assert found["raw"].uses["unseen"].value == 1.0
    assert found["raw"].uses["unseen"].chance == 0.5  # each of two, of four, is in one video in two of theirs
    assert found["raw"].uses["unseen"].drawn.shape == (DRAWS,)
    assert found["blind"].uses["unseen"].value < 0.8
    kept = found["blind"].arrays()
    for name, value in raw.arrays().items():  # nothing else is asked of the other anonymizer
        np.testing.assert_array_equal(kept[name], value)
    other_two = bench.measure(np.asarray, unseen=(without([first, second]), frozenset({2, 3})))
    assert other_two.uses["unseen"].value == 1.0  # what it lost isn't needed for these


def changed(rows: Rows, field: str) -> Rows:
    """With another value in the last place of a field."""
    array = getattr(rows, field).copy()
    place = (-1,) * array.ndim
    array[place] = "p_else"[: array.dtype.itemsize // 4] if array.dtype.kind == "U" else array[place] + 1
    return dataclasses.replace(rows, **{field: array})


@pytest.mark.parametrize("split", ["train", "judged"])
@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Rows)])
def test_a_fingerprint_is_of_every_row(bench, split, field):
    other = dataclasses.replace(bench, **{split: changed(getattr(bench, split), field)})
    assert other.fingerprint != bench.fingerprint


@pytest.mark.parametrize("field", ["features", "labels"])
def test_a_fingerprint_is_of_every_long_video(bench, field):
    videos = bench.long_videos["anomalies"]
    arrays = [array.copy() for array in getattr(videos, field)]
    arrays[-1].flat[-1] += 1
    for other in (arrays, getattr(videos, field)[:-1]):
        long_videos = {"anomalies": dataclasses.replace(videos, **{field: other})}
        assert dataclasses.replace(bench, long_videos=long_videos).fingerprint != bench.fingerprint
    assert dataclasses.replace(bench, long_videos={}).fingerprint != bench.fingerprint


def test_a_fingerprint_is_of_actions_and_of_nothing_that_attackers_do(bench):
    name = next(iter(bench.classes))
    assert dataclasses.replace(bench, classes={**bench.classes, name: 3}).fingerprint != bench.fingerprint
    before = bench.fingerprint
    bench.dealt(5)
    same = dataclasses.replace(
        bench,
        train=bench.train.take(np.arange(len(bench.train))),
        classes=dict(reversed(bench.classes.items())),
        attackers=("mlp",),
        num_swaps=7,
    )
    assert same.fingerprint == bench.fingerprint == before


def test_a_measurement_survives_a_file(raw):
    content = io.BytesIO()
    np.savez(content, **raw.arrays())
    with np.load(io.BytesIO(content.getvalue()), allow_pickle=False) as kept:
        found = Measurement.of(dict(kept))
    assert found.privacy.keys() == raw.privacy.keys()
    assert found.uses.keys() == raw.uses.keys()
    for name, value in raw.arrays().items():
        np.testing.assert_array_equal(found.arrays()[name], value)
    for name in ("rank1", "distinct", "entropy"):
        assert type(getattr(found, name)) is type(getattr(raw, name))
    assert vars(point("one", "x", [found], [raw]).worst) == vars(point("one", "x", [raw], [raw]).worst)


def test_people_are_dealt_by_seed_and_the_judged_stay(bench):
    deals = [bench.dealt(seed) for seed in (0, 0, 1)]
    tuned = [frozenset(deal.validation.clusters) for deal in deals]
    assert tuned[0] == tuned[1] != tuned[2]
    for deal in deals:
        assert deal.test is bench.judged
        assert not set(deal.train.clusters) & set(deal.validation.clusters)
        assert len(deal.train) + len(deal.validation) == len(bench.train)

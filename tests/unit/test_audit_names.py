"""What names reveal: made names that hold subjects and attributes, hashed ones, and layouts of real data sets."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
from sklearn.metrics.cluster import pair_confusion_matrix

from splavu.attacks.rows import AttackData, Rows
from splavu.audit.attributes.names import NameFeatures, best_grouping, pair_scores, parts_of
from splavu.audit.identity.run import linked_people
from splavu.audit.inputs import AuditInputs, ReleasedKey
from splavu.audit.run import AuditOptions, examine

NUM_PEOPLE = {"train": 50, "validation": 40, "test": 60}
VIDEOS, CLIPS, WIDTH = 4, 3, 12
OPTIONS = AuditOptions(
    families=("logistic",),
    set_families=(),
    gate_families=("logistic",),
    curve_families=("logistic",),
    seeds=(0,),
    gate_seeds=(0,),
    num_resamples=100,
    num_swaps=100,
    attributes_only=True,
)


def secret(name: str) -> str:
    return hashlib.blake2b(name.encode(), key=b"the owner's", digest_size=12).hexdigest()


def made(name_of) -> AuditInputs:
    """`gender` is faint in each clip and the same in all of a person's; `indoors` is in no feature, of each video.

    Args:
        name_of: Person, video, indoors -> the released name.
    """
    rng = np.random.default_rng(0)
    splits, keys = {}, {}
    for split, count in NUM_PEOPLE.items():
        gender = np.repeat(rng.permutation(count) % 2, VIDEOS)
        indoors = rng.integers(0, 2, count * VIDEOS)
        people = [f"{split}{place:02d}" for place in range(count) for _ in range(VIDEOS)]
        names = [
            name_of(person, place, inside) for place, (person, inside) in enumerate(zip(people, indoors, strict=True))
        ]
        labels = np.stack([gender, indoors], axis=1).astype(np.float32).repeat(CLIPS, axis=0)
        features = rng.normal(size=(len(labels), WIDTH)).astype(np.float32)
        features[:, 0] += 0.7 * labels[:, 0]
        splits[split] = Rows(features, labels, np.repeat(people, CLIPS), np.repeat(names, CLIPS))
        order = {name: place / (len(names) - 1) for place, name in enumerate(sorted(names))}
        keys |= {name: ReleasedKey(name, CLIPS, order[name]) for name in names}
    data = AttackData(**splits)
    return AuditInputs(("gender", "indoors"), data, data, (), (), keys=keys)


@pytest.fixture(scope="module")
def readable():
    return examine(made(lambda person, place, inside: f"{person}_{place:03d}_{'in' if inside else 'out'}"), OPTIONS)


@pytest.fixture(scope="module")
def hashed():
    return examine(made(lambda person, place, inside: secret(f"{person}_{place:03d}_{inside}")), OPTIONS)


def by_names(evidence, name: str):
    rung = next(rung for rung in evidence.rungs if (rung.name, rung.unit) == ("names", "clip"))
    return next(one for one in rung.found.attributes if one.name == name)


def strongest(evidence, name: str):
    return next(one for one in evidence.strongest["clip"].attributes if one.name == name)


@pytest.mark.slow
def test_what_a_name_says_is_read_from_it(readable):
    assert by_names(readable, "indoors").ap.value == 1
    assert strongest(readable, "indoors").ap.value == 1
    assert "names/alone" in strongest(readable, "indoors").attacker


@pytest.mark.slow
def test_a_subject_in_the_name_turns_clips_into_persons(readable):
    """Noise of 12 clips averages out: d' grows from 0.7 to 0.7 sqrt 12 = 2.4, the best AUC from 0.69 to 0.96."""
    features_only = next(rung for rung in readable.rungs if rung.name == "semi-informed").found.attributes[0]
    assert features_only.auc.value == pytest.approx(0.69, abs=0.06)
    assert (
        by_names(readable, "gender").auc.value > 0.69 + 0.1
    )  # attackers learn from 50 subjects, so less than the best
    assert readable.names["precision"] == readable.names["recall"] == 1


@pytest.mark.slow
def test_hashed_names_tell_nothing(hashed):
    assert hashed.names["grouping"] is None
    assert by_names(hashed, "indoors").auc.value == pytest.approx(0.5, abs=0.1)
    assert by_names(hashed, "indoors").verdict != "leaks"
    features_only = next(rung for rung in hashed.rungs if rung.name == "semi-informed").found.attributes[0]
    assert by_names(hashed, "gender").auc.value < features_only.auc.value + 0.04


@pytest.mark.slow
def test_raw_features_are_compared_under_the_same_names(readable):
    """Here the release is the raw features: nothing is removed, with names or without. Ensembles on released features
    have more to choose from (the informed attackers), so they differ a little."""
    leakage = {unit: one.leakage.value for unit, one in readable.strongest.items()}
    assert leakage == pytest.approx(dict.fromkeys(leakage, 1), abs=0.05)
    assert readable.names["without"]["clip"].value == pytest.approx(1, abs=0.02)


@pytest.mark.slow
def test_the_gate_of_raw_features_does_not_profit_from_names():
    """Names tell an attribute that raw features do not: the features are not shown to be attackable."""
    inputs = made(lambda person, place, inside: f"{person}_{place:03d}_{'in' if inside else 'out'}")
    deaf = inputs.released.mapped(lambda features: np.random.default_rng(5).normal(size=features.shape))
    found = examine(dataclasses.replace(inputs, released=deaf, raw=deaf), OPTIONS)
    assert strongest(found, "indoors").ap.value == 1
    assert found.gates[0].passed is not True


def test_names_link_videos_of_a_subject():
    kept = made(lambda person, place, inside: f"{person}_{place:03d}")
    found = linked_people(kept, num_resamples=20)["released to released, by names"]
    assert found["rank1"].value == 1
    assert found["eer"].value == 0
    renamed = made(lambda person, place, inside: secret(f"{person}_{place:03d}"))
    assert "released to released, by names" not in linked_people(renamed, num_resamples=20)


@pytest.mark.parametrize(
    ("layout", "subject"),
    [
        ("htest{p:04d}_bow_f_nm_np{v}_fr_goo_{v}", "hmdb51"),
        ("S001C00{v}P{p:03d}R001A00{v}_rgb", "ntu"),
        ("{p:03d}-nm-0{v}-090", "casia_b"),
        ("Cook.Cleandishes_p{p:02d}_r0{v}_v01_c03", "smarthome"),
        ("bow/htest{p:04d}_{v}.avi", "a folder before"),
        ("Subject {p}/video{v}.mp4", "a folder of the subject"),
    ],
)
def test_layouts_of_data_sets_name_the_subject(layout, subject):
    def of(people):
        pairs = [(layout.format(p=p, v=v), f"s{p}") for p in people for v in range(4)]
        return [name for name, _ in pairs], [person for _, person in pairs]

    found = best_grouping(of(range(10, 30)), of(range(30, 40)))
    names, people = of(range(40, 60))
    assert pair_scores([found.group(name) for name in names], people) == (1, 1), subject


def test_names_without_a_subject_do_not_group():
    def of(people):
        names = [secret(f"{p}-{v}") for p in people for v in range(4)]
        return names, [str(p) for p in people for _ in range(4)]

    assert best_grouping(of(range(30)), of(range(30, 50))) is None


def test_pairs_are_counted_as_scikit_learn_counts_them():
    rng = np.random.default_rng(3)
    groups, people = rng.integers(0, 5, 60).astype(str), rng.integers(0, 7, 60).astype(str)
    (_, only_group), (only_person, both) = pair_confusion_matrix(people, groups)
    assert pair_scores(groups, people) == pytest.approx((both / (both + only_group), both / (both + only_person)))


def test_names_as_numbers():
    keys = [ReleasedKey("a7_x", 2, 0.0, ("set=1",)), ReleasedKey("b12_x", 3, 0.5), ReleasedKey("a7_y", 4, 1.0)]
    features = NameFeatures.of(keys, ["p", "q", "r"])
    assert {"part 1: a", "part 2: 7", "part 3: x", "_x$"} <= set(features.items)
    assert not {"part 1: b", "file: set=1", "_"} & set(features.items)  # of one subject; in every name
    numbers = features(keys)[:, len(features.items) :]
    assert numbers[:, 0] == pytest.approx(np.log1p([7, 12, 7]))
    assert numbers[:, 1].tolist() == [-1, -1, -1]
    assert numbers[:, -4:].tolist() == [[4, 3, 2, 0.0], [5, 3, 3, 0.5], [4, 3, 4, 1.0]]
    assert parts_of("Subject_01/ab-C3") == ["subject", "01", "ab", "c", "3"]

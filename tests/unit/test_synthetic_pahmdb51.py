"""PA-HMDB51 of the synthetic world: the published format, and labels that say what the renderer shows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splavu.data.pahmdb51 import read_pahmdb51
from splavu.synthetic.datasets import pahmdb51
from splavu.synthetic.drawing.render import ATTRIBUTES, FPS, Person, render
from splavu.synthetic.layouts import film, video_name
from splavu.synthetic.people.motions import Gait, perform
from splavu.synthetic.people.subjects import sample_outfit
from splavu.synthetic.plans import generator, sample_subjects
from splavu.synthetic.world import SIZES, plan_world, synthesize

pytest.importorskip("cv2")

SEED = 3
ATTRIBUTES_OF_FRAMES = ("face", "gender", "skin_color", "nudity", "relationship")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    return synthesize(folder, seed=SEED, size="small", sets=("pa_hmdb51",), workers=1) / "pa_hmdb51"


@pytest.fixture(scope="module")
def takes() -> dict[str, pahmdb51.Take]:
    splits = plan_world(SEED, "small", sets=("pa_hmdb51",))["pa_hmdb51"]
    return {video_name(take.plan).removesuffix(".avi"): take for takes in splits.values() for take in takes}


def entries(world: Path) -> dict[str, dict]:
    return {
        name: entry
        for path in (world / "PrivacyAttributes").glob("*.json")
        for name, entry in json.loads(path.read_text()).items()
    }


def person(
    *, azimuth: float, cover: str = "none", female: bool = False, dark: bool = False, **outfit: object
) -> Person:
    """Somebody in long sleeves and trousers, unless told otherwise."""
    subject = next(s for s in sample_subjects(1, "pa", 8) if (s.female, s.dark_skin) == (female, dark))
    plain = sample_outfit(generator(1, "pa"), subject, bare=False, cover=cover)
    return Person(
        subject=subject,
        outfit=replace(plain, **{"sleeves": 1.0, "shorts": False, "skirt": False, **outfit}),
        pose=lambda seconds: perform("stand", seconds, gait=Gait()),
        place=lambda seconds: np.tile((0.5, 0.95), (len(seconds), 1)),
        azimuth=azimuth,
    )


def at_once(*people: Person) -> dict[str, object]:
    return {name: values[0] for name, values in pahmdb51.frame_values(people, np.zeros(1)).items()}


def test_the_videos_are_those_that_hmdb51_does_not_train_on(world: Path) -> None:
    plans = plan_world(SEED, "small", sets=("hmdb51",))["hmdb51"]
    expected = {video_name(plan): plan for split in ("val", "test") for plan in plans[split]}
    lengths = {name.removesuffix(".avi"): plan.num_frames for name, plan in expected.items()}
    labels = read_pahmdb51(world / "PrivacyAttributes", num_frames=lengths)
    assert set(entries(world)) == set(expected)
    assert {key: label.num_frames for key, label in labels.items()} == lengths
    assert {key: label.action for key, label in labels.items()} == {
        name.removesuffix(".avi"): plan.action for name, plan in expected.items()
    }


def test_the_fields_are_those_of_the_published_files(world: Path, shared: Path) -> None:
    published = json.loads((shared / "annotations/pa_hmdb51/PrivacyAttributes/wave.json").read_text())
    assert all(set(entry) <= {*ATTRIBUTES_OF_FRAMES, "review", "note"} for entry in published.values())
    ours = entries(world)
    assert {frozenset(entry) for entry in ours.values()} == {
        frozenset({*ATTRIBUTES_OF_FRAMES, "review", "note"}), frozenset({*ATTRIBUTES_OF_FRAMES, "review"}),
    }  # fmt: skip
    assert {entry["review"] for entry in ours.values()} == {True, False}


def test_frame_labels_agree_with_the_renderer(world: Path, takes: dict) -> None:
    labels = read_pahmdb51(world / "PrivacyAttributes")
    changing = [key for key, found in labels.items() if len(set(found.values["face"].argmax(axis=1).tolist())) > 1]
    assert len(changing) > 5, "some faces come and go"
    for key in [*changing[:2], *list(takes)[:4]]:
        shot = takes[key].stage()
        moments = np.arange(0, takes[key].plan.num_frames, 4)
        shown = render(shot.scene, shot.people, shot.seconds_offset + moments / FPS, size=(32, 24)).visible
        shown = dict(zip(ATTRIBUTES, shown.T, strict=True))
        told = dict(zip(ATTRIBUTES, labels[key].as_vispr()[moments].T, strict=True))
        labelled = ~np.isnan(told["complete_face"])
        for name in ("complete_face", "partial_face", "semi_nudity", "personal_relationship"):
            assert np.array_equal(told[name][labelled], shown[name][labelled]), (key, name)


def test_a_take_is_the_shot_that_hmdb51_films(takes: dict) -> None:
    take = next(iter(takes.values()))
    shot = take.stage()
    frames = render(shot.scene, shot.people, shot.seconds_offset + np.arange(2) / FPS).frames
    assert np.array_equal(frames, film(take.plan, SEED, f"hmdb51/{take.split}", num_frames=2))


def test_the_main_person_s_skin_and_gender_are_true_where_they_are_told(world: Path, takes: dict) -> None:
    labels = read_pahmdb51(world / "PrivacyAttributes")
    for key, take in takes.items():
        skin, gender = labels[key].values["skin_color"], labels[key].values["gender"]
        light, dark = skin[:, 1], skin[:, 2:].any(axis=1)
        own, other = (dark, light) if take.plan.subject.dark_skin else (light, dark)
        own_gender, other_gender = (gender[:, i] for i in ((2, 1) if take.plan.subject.female else (1, 2)))
        if not take.plan.companion:
            assert not other.any()
            assert not other_gender.any()
        if take.plan.face != "hidden" and take.plan.action not in ("bow", "turn"):
            labelled = skin.any(axis=1)
            assert labelled.sum() > 20
            assert np.array_equal(own, labelled)
            assert np.array_equal(own_gender, labelled)


def test_what_is_covered_or_turned_away_is_not_told() -> None:
    behind = at_once(person(azimuth=np.pi))
    assert (behind["face"], behind["skin_color"], behind["gender"], behind["nudity"]) == (0, 0, 1, 0)
    assert at_once(person(azimuth=np.pi, sleeves=0.5))["skin_color"] == 1
    assert at_once(person(azimuth=np.pi, sleeves=0.5))["nudity"] == 1
    assert at_once(person(azimuth=np.pi, bare=True, shorts=True))["nudity"] == 2
    assert at_once(person(azimuth=np.pi, cover="helmet"))["gender"] == 0
    assert at_once(person(azimuth=np.pi, cover="helmet", female=True, skirt=True))["gender"] == 2
    assert at_once(person(azimuth=0.0, cover="helmet"))["gender"] == 1
    assert at_once(person(azimuth=0.0, cover="helmet"))["skin_color"] == 0
    assert at_once(person(azimuth=0.0, cover="mask"))["face"] == 1
    assert at_once(person(azimuth=0.0))["face"] == 2
    assert at_once(person(azimuth=0.0, dark=True))["skin_color"] in (2, 3)


def test_a_companion_who_differs_makes_a_list() -> None:
    man, woman = person(azimuth=0.0), replace(person(azimuth=0.0, female=True, dark=True), role="companion")
    both = at_once(woman, man)
    assert both["gender"] == [1, 2]
    assert both["skin_color"] in ([1, 2], [1, 3])
    assert both["relationship"] == 1
    alike = at_once(replace(man, role="companion"), man)
    assert (alike["gender"], alike["skin_color"]) == (1, 1)


def test_every_value_occurs_and_lists_too(world: Path) -> None:
    found = {name: set() for name in ATTRIBUTES_OF_FRAMES}
    for entry in entries(world).values():
        for name in found:
            found[name] |= {str(value) for _, _, value in entry[name]}
    assert found["face"] == found["nudity"] == {"0", "1", "2"}
    assert found["relationship"] == {"0", "1"}
    assert found["gender"] == {"0", "1", "2", "[1, 2]"}
    assert {"0", "1", "2", "3", "[1, 2]", "[1, 3]", "[2, 3]"} == found["skin_color"]


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_the_irregularities_of_the_published_files_are_there(tmp_path: Path, size: str) -> None:
    world = synthesize(tmp_path, seed=SEED, size=size, sets=("pa_hmdb51",), workers=1) / "pa_hmdb51"
    late, overlaps, gaps = [], 0, 0
    for entry in entries(world).values():
        starts = {entry[name][0][0] for name in ATTRIBUTES_OF_FRAMES}
        assert len(starts) == 1
        late += [start for start in starts if start]
        for name in ATTRIBUTES_OF_FRAMES:
            for (_, end, _), (start, _, _) in zip(entry[name], entry[name][1:], strict=False):
                overlaps += start == end
                gaps += start > end + 1
    videos = sum(SIZES[size].hmdb51[s].subjects * SIZES[size].hmdb51[s].per_subject for s in ("val", "test"))
    assert 1 <= len(late) <= 1 + videos / 37
    assert all(2 <= start <= 13 for start in late)
    assert (overlaps, gaps) == (1, 0)


def test_ranges_are_the_runs_of_equal_values() -> None:
    assert pahmdb51.ranges([2, 2, 0, [1, 2], [1, 2], 2]) == [[0, 1, 2], [2, 2, 0], [3, 4, [1, 2]], [5, 5, 2]]
    rng = np.random.default_rng(0)
    values = rng.integers(0, 3, 40).tolist()
    again = [value for start, end, value in pahmdb51.ranges(values) for _ in range(start, end + 1)]
    assert again == values


def test_the_same_seed_writes_the_same_files_and_no_video(world: Path, tmp_path: Path) -> None:
    again = synthesize(tmp_path, seed=SEED, size="small", sets=("pa_hmdb51",), workers=2) / "pa_hmdb51"
    first, second = ({p.name: p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in (world, again))
    assert first == second
    assert len(first) == 12
    assert {name.rsplit(".", 1)[1] for name in first} == {"json"}

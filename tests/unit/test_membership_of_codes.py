"""Codes with a floor don't show whom they were fitted to by their distances; k-means at the fitted clips does."""

import importlib.util

import numpy as np
import pytest
from conftest import REPOSITORY

from splavu.anonymizers.closed_form.fit_data import FitData
from splavu.anonymizers.pipeline import build_pipeline, parse


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("membership", REPOSITORY / "benchmarks/membership.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def people(seed, count=40):
    """Clips of so many subjects of one world: actions, a place of each subject, and what a clip has alone."""
    world = np.random.default_rng(0)
    actions, looks = world.normal(size=(8, 48)) * 3, world.normal(size=(12, 48))
    rng = np.random.default_rng(seed)
    who, classes = np.repeat(np.arange(count), 24), np.tile(np.arange(8), 3 * count)
    places = rng.normal(size=(count, 12)) @ looks
    features = actions[classes] + places[who] + rng.normal(size=(len(who), 48)) * np.linspace(2, 0.3, 48)
    return FitData(features.astype(np.float32), None, classes, None, who, subjects=np.array([f"s{n}" for n in who]))


def found(benchmark, options):
    fitted, others = people(1), people(2)
    made = build_pipeline(parse(f"quantizer({options})"), fitted).eval()
    near = [benchmark.code_distances(made, data.features) for data in (fitted, others)]
    whose = (fitted.subjects, others.subjects)
    return {
        (name, unit): benchmark.auc_of_members(*(getattr(one, name) for one in near), by)
        for name in ("own", "whole")
        for unit, by in (("clip", None), ("person", whose))
    }


def test_k_means_remembers_and_levels_do_not(benchmark):
    with_floor = found(benchmark, "bits=14, space=features, dims=12")
    without = found(benchmark, "bits=14, space=features, dims=12, min_subjects=1")
    merged = found(benchmark, "codes=(128, 128), space=features, dims=12")
    assert without["own", "clip"] > 0.7
    assert without["own", "person"] > 0.95
    assert merged["own", "person"] > 0.8  # a floor alone does not do it
    assert with_floor["own", "clip"] <= 0.6
    assert with_floor["whole", "clip"] < merged["whole", "clip"] < without["whole", "clip"]
    # Of 40 people against 40 the AUC of nothing has a standard error of 0.065.
    assert with_floor["own", "person"] <= 0.6 + 2 * 0.065


def test_distances_are_those_to_the_released_vector(benchmark):
    data = people(1)
    made = build_pipeline(parse("pca(keep=30)+quantizer(bits=9)"), data).eval()
    erased = data.after(made.stages[0]).features
    released = data.after(made).features
    own, whole = benchmark.code_distances(made, data.features)
    np.testing.assert_allclose(whole, np.linalg.norm(released - erased, axis=1), rtol=1e-4)
    inside = np.linalg.norm((erased - released) @ made.stages[1].encode.double().numpy().T, axis=1)
    np.testing.assert_allclose(own, inside, rtol=1e-3)


def test_subjects_are_judged_by_their_mean(benchmark):
    members, others = np.array([0.0, 4.0, 1.0, 1.0]), np.array([3.0, 3.0])
    names = (np.array(["a", "a", "b", "b"]), np.array(["c", "d"]))
    assert benchmark.auc_of_members(members, others) == 0.75
    assert benchmark.auc_of_members(members, others, names) == 1.0

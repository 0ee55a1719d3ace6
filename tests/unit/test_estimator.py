"""`splavu.Anonymizer` that is fitted to arrays, as scikit-learn takes estimators, and `splavu.audit_arrays`."""

import pickle
import re

import numpy as np
import pytest
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import splavu
from splavu.audit.evidence import plain

WIDTH, SUBJECTS, VIDEOS, CLIPS = 12, 20, 3, 2


@pytest.fixture(scope="module")
def world():
    """Rows of subjects: features, static features, action, subject, video, one attribute of the subject."""
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(SUBJECTS), VIDEOS * CLIPS)
    video = np.repeat(np.arange(SUBJECTS * VIDEOS), CLIPS)
    action = video % VIDEOS
    tall = subject % 2
    look = np.zeros((len(subject), WIDTH))
    look[:, 4:8] = rng.normal(size=(SUBJECTS, 4))[subject]
    look[:, 8] = 4.0 * tall
    features = look + 3 * np.eye(VIDEOS, WIDTH)[action] + 0.4 * rng.normal(size=look.shape)
    static = (look + 0.1 * rng.normal(size=look.shape)).astype(np.float32)
    return {
        "features": features.astype(np.float32),
        "static": static,
        "actions": action,
        "subjects": np.array([f"p{s}" for s in subject]),
        "videos": np.array([f"v{v:03d}" for v in video]),
        "tall": tall.astype(float),
    }


def test_it_fits_what_the_library_fits(world):
    X = world["features"]
    data = splavu.FitData(X, world["static"], world["actions"], videos=world["videos"])
    expected = splavu.apply_to_array(splavu.fit("eraser", data, rank=3).eval(), X)
    made = splavu.Anonymizer(method="eraser", rank=3)
    assert made.fit(X, world["actions"], static=world["static"], videos=world["videos"]) is made
    np.testing.assert_array_equal(made.transform(X), expected)
    assert made.network_.fitted_to.holds(X).all()


def test_a_chain_is_fitted_part_by_part(world):
    X = world["features"]
    made = splavu.Anonymizer(method="eraser(rank=2)+quantizer(bits=2)")
    made.fit(X, world["actions"], static=world["static"], subjects=world["subjects"])
    assert [stage["arch"] for stage in made.architecture["stages"]] == ["affine", "quantizer"]
    assert len(np.unique(made.transform(X), axis=0)) <= 4


def test_options_are_parameters():
    made = splavu.Anonymizer(method="pca", keep=3)
    assert {"network", "device", "method", "seed", "keep"} == made.get_params().keys()
    copy = clone(made).set_params(keep=5, seed=4)
    assert (copy.get_params()["keep"], copy.seed, made.get_params()["keep"]) == (5, 4, 3)
    assert "keep=5" in repr(copy)
    with pytest.raises(NotFittedError):
        copy.transform(np.zeros((2, WIDTH)))


def test_it_is_searched_in_a_pipeline(world):
    X, y = world["features"], world["actions"]
    pipeline = Pipeline([("safe", splavu.Anonymizer(method="pca", keep=1)), ("head", LogisticRegression(max_iter=200))])
    found = GridSearchCV(pipeline, {"safe__keep": [1, WIDTH]}, cv=2).fit(X, y)
    assert found.best_params_ == {"safe__keep": WIDTH}
    erased = make_pipeline(splavu.Anonymizer(method="eraser", rank=3), RidgeClassifier())
    erased.fit(X, y, anonymizer__static=world["static"])
    assert erased.score(X, y) > 0.9


def test_it_survives_pickling(world):
    made = splavu.Anonymizer(method="pca", keep=2).fit(world["features"])
    again = pickle.loads(pickle.dumps(made))
    np.testing.assert_array_equal(again.transform(world["features"]), made.transform(world["features"]))


def test_scikit_learns_own_checks():
    check_estimator(splavu.Anonymizer(method="pca", keep=1), on_fail="raise", on_skip=None)


@given(rows=st.integers(4, 30), width=st.integers(2, 10), keep=st.integers(1, 10), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_rows_come_out_as_if_alone_and_any_order(rows, width, keep, seed):
    X = np.random.default_rng(seed).normal(size=(rows, width))
    made = splavu.Anonymizer(method="pca", keep=min(keep, width)).fit(X)
    released, order = made.transform(X), np.random.default_rng(seed).permutation(rows)
    np.testing.assert_array_equal(made.transform(X[order]), released[order])
    np.testing.assert_array_equal(np.concatenate([made.transform(X[i : i + 1]) for i in range(rows)]), released)
    assert np.linalg.matrix_rank(released - released.mean(axis=0), tol=1e-3) <= keep


BAD = [
    ("method", {"method": None}, {}),
    ("method", {"method": "pac"}, {}),
    ("method", {"method": "mlp"}, {}),
    ("method", {"method": "eraser+"}, {}),
    ("rank", {"method": "eraser"}, {"static": "static"}),
    ("rank", {"method": "eraser", "rank": 0}, {"static": "static"}),
    ("rnak", {"method": "eraser", "rnak": 3}, {"static": "static"}),
    ("bits", {"method": "eraser(rank=2)+quantizer", "bits": 3}, {"static": "static"}),
    ("static", {"method": "eraser", "rank": 2}, {}),
    ("static", {"method": "eraser", "rank": 2}, {"static": np.zeros((3, WIDTH))}),
    ("static", {"method": "eraser", "rank": 2}, {"static": np.full((SUBJECTS * VIDEOS * CLIPS, WIDTH), np.nan)}),
    ("subjects", {"method": "pca", "keep": 2}, {"subjects": ["anna"]}),
    ("private", {"method": "leace"}, {}),
    ("private", {"method": "leace"}, {"private": "subjects"}),
    ("y", {"method": "pca", "keep": 2}, {"y": np.zeros((SUBJECTS * VIDEOS * CLIPS, 2))}),
    ("keep", {"method": "pca", "keep": 99}, {}),
    ("min_subjects", {"method": "quantizer", "bits": 2, "min_subjects": 99}, {"subjects": "subjects"}),
]  # fmt: skip


@pytest.mark.parametrize(("culprit", "options", "data"), BAD)
def test_the_argument_at_fault_is_named(world, culprit, options, data):
    arrays = {name: world[value] if isinstance(value, str) else value for name, value in data.items()}
    with refused(culprit):
        splavu.Anonymizer(**options).fit(world["features"], **arrays)


def test_a_network_and_a_method_are_one_too_many(world):
    network = splavu.fit("pca", splavu.FitData(world["features"]), keep=2)
    with refused("method"):
        splavu.Anonymizer(network, method="pca", keep=2).fit(world["features"])


@pytest.fixture(scope="module")
def quickly():
    return splavu.AuditOptions.quickly(families=("logistic",), num_resamples=50, num_swaps=50, attributes_only=True)


def test_an_audit_of_arrays_is_the_audit_of_stores(world, quickly, tmp_path):
    X = world["features"]
    made = splavu.Anonymizer(method="leace").fit(X, private=world["tall"])
    released = made.transform(X)
    found = splavu.audit_arrays(
        X, released, {"tall": world["tall"]}, world["subjects"], videos=world["videos"], options=quickly
    )
    for name, rows in (("raw", X), ("released", released)):
        with splavu.StoreWriter(tmp_path / f"{name}.h5", attributes={"encoder": "demo"}) as writer:
            for video in dict.fromkeys(world["videos"]):
                writer.add(video, rows[world["videos"] == video])
    lines = {f"{v},{s},{t:.0f}" for v, s, t in zip(world["videos"], world["subjects"], world["tall"], strict=True)}
    (tmp_path / "private.csv").write_text("\n".join(["filename,subject,tall", *sorted(lines)]) + "\n")
    table = splavu.read_private_table(tmp_path / "private.csv")
    inputs = splavu.read_inputs([tmp_path / "released.h5"], table, raw=[tmp_path / "raw.h5"], read_names=False)
    expected = splavu.examine(inputs, quickly)
    assert found.people == expected.people
    assert plain(found.headline) == plain(expected.headline)
    assert plain(found.strongest) == plain(expected.strongest)
    assert plain(found.raw) == plain(expected.raw)


def test_an_audit_of_arrays_names_the_argument_at_fault(world, quickly):
    X, tall, who = world["features"], world["tall"], world["subjects"]
    bad = X.copy()
    bad[3, 2] = np.nan
    for culprit, arguments, options in (
        ("released", (X, bad, tall, who), {}),
        ("raw", (X[:-1], X, tall, who), {}),
        ("subjects", (X, X, tall, who[:-1]), {}),
        ("tall", (X, X, {"tall": tall[:-1]}, who), {}),
        ("labels", (X, X, np.arange(len(X)) % 2, who), {"videos": world["videos"]}),
        ("splits", (X, X, tall, who), {"splits": ["train"]}),
        ("labels", (X, X, tall, np.repeat(["a", "b"], len(X) // 2)), {}),
    ):
        with refused(culprit):
            splavu.audit_arrays(*arguments, options=quickly, **options)


def test_the_five_lines_of_the_page_run_as_written(world, monkeypatch):
    page = (REPOSITORY / "docs/choosing.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    short = code.replace("AuditOptions.quickly()", "AuditOptions.quickly(num_resamples=50, num_swaps=50)")
    names = {name: world[name] for name in ("features", "actions", "static", "subjects", "videos", "tall")}
    exec(compile(short, "docs/choosing.md", "exec"), names)
    assert names["evidence"].headline.sentence

"""Every closed form fitted to features without spread, with too much of it, or of width 1: a finite map or one line."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from splavu.anonymizers import apply_to_array
from splavu.anonymizers.closed_form.fit_data import FitData
from splavu.anonymizers.closed_form.inlp import inlp
from splavu.anonymizers.closed_form.methods import BUILT_IN, METHODS
from splavu.errors import UserError

NUM, WIDTH = 300, 8
PLAIN = np.random.default_rng(0).normal(size=(NUM, WIDTH)).astype(np.float32)
VIDEO = np.repeat(np.arange(NUM // 5), 5)
OPTIONS = {
    "eraser": {"rank": 1},
    "pca": {"keep": 1},
    "random": {"keep": 1},
    "quantizer": {"bits": 2},
    "noise": {"sd": 0.1},
}


def _constant_dimension(x):
    x = x.copy()
    x[:, 3] = 2
    return x


REFUSED = {
    "constant": lambda x: np.ones_like(x),
    "zero": np.zeros_like,
    "huge": lambda x: x * np.float32(1e30),
    "tiny": lambda x: x * np.float32(1e-30),
}
FITTED = {"plain": lambda x: x, "constant dimension": _constant_dimension, "width 1": lambda x: x[:, :1]}


def fit(name, features):
    data = FitData(
        features,
        features + np.float32(0.1),
        VIDEO % 4,
        np.stack([VIDEO % 2, VIDEO // 2 % 2], axis=1).astype(np.float32),
        VIDEO,
        subjects=np.array([f"s{video % 20}" for video in VIDEO]),
    )
    form = METHODS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        return form.fitted(data, form.read(OPTIONS.get(name, {})), seed=0).eval()


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("name", [form.name for form in BUILT_IN])
def test_features_without_a_spread_that_floats_hold_are_refused(name, case):
    with pytest.raises(UserError) as caught:
        fit(name, REFUSED[case](PLAIN))
    assert caught.value.culprit == "features"


@pytest.mark.parametrize("case", FITTED)
@pytest.mark.parametrize("name", [form.name for form in BUILT_IN])
def test_what_can_be_fitted_is_finite(name, case):
    features = FITTED[case](PLAIN)
    if case == "width 1" and name in ("eraser", "leace", "orthogonal"):  # nothing would be left
        with pytest.raises(UserError):
            fit(name, features)
    else:
        assert np.isfinite(apply_to_array(fit(name, features), features)).all()


def test_inlp_ends_where_nothing_predicts_the_attribute_any_more():
    """On random features the classifier's weights become zero, not a direction."""
    projection = inlp(np.repeat(PLAIN, 2, axis=0), np.tile([0, 1], NUM), rounds=5)
    assert np.isfinite(projection.matrix).all()

"""Gaussian noise in units of the features' own spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

from splavu.anonymizers.closed_form.covariance import Units, covariance_root, deviations
from splavu.anonymizers.closed_form.fit_data import FitData
from splavu.anonymizers.closed_form.form import About, ClosedForm
from splavu.runtime.schema import Positive, Schema

if TYPE_CHECKING:  # torch is imported when something is fitted
    from splavu.anonymizers.noise import GaussianNoise


@dataclass(frozen=True)
class NoiseOptions(Schema):
    """Of noise."""

    sd: Annotated[Positive | None, About("standard deviation, in `units`", required=True, parameter="noise_sd")] = None
    units: Annotated[
        Units, About("dimension: of each dimension's own deviation; whitened: of the features' covariance")
    ] = "dimension"


def _fit(data: FitData, options: NoiseOptions, seed: int | None) -> GaussianNoise:
    from splavu.anonymizers.noise import GaussianNoise

    root = (deviations if options.units == "dimension" else covariance_root)(data.features)
    return GaussianNoise.of(root, sd=cast("float", options.sd), seed=seed)


def _describe(made: GaussianNoise, data: FitData) -> str:
    return f"noise, sd {made.architecture['sd']:g} ({made.architecture['units']})"


NOISE = ClosedForm(
    "noise",
    "adds Gaussian noise, the same each time the feature is released",
    fit=_fit,
    options=NoiseOptions,
    place="noise",
    seed="secret",
    tried=({"sd": 1.0, "units": "whitened"},),
    describe=_describe,
)

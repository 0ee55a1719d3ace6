"""Anonymizers in closed form: pure functions of arrays, float64 inside, seconds on a CPU, nothing trained by gradient.

The functions are here; `splavu.anonymizers.closed_form.methods` is the table of what `fit`, `fa_arch`, sweep and
compare know by name.

Note: erasure is proven against linear attackers only, for the features it was fitted on. A network may still find what
no linear classifier finds; measure it (`python -m splavu audit`).

Letters: `N` clips, `D` feature width, `Q` columns of a concept, `A` private attributes, `C` classes, `r` directions
removed, `d` dimensions of a subspace, `K` centroids.
"""

from splavu.anonymizers.closed_form.codes import Subspace, code_subspace, kmeans_codebooks, supported_codebooks
from splavu.anonymizers.closed_form.covariance import covariance_root, deviations
from splavu.anonymizers.closed_form.erasers import leace, orthogonal, static_eraser
from splavu.anonymizers.closed_form.inlp import inlp
from splavu.anonymizers.closed_form.projection import Projection, pca, random_projection

__all__ = [
    "Projection",
    "Subspace",
    "code_subspace",
    "covariance_root",
    "deviations",
    "inlp",
    "kmeans_codebooks",
    "leace",
    "orthogonal",
    "pca",
    "random_projection",
    "static_eraser",
    "supported_codebooks",
]

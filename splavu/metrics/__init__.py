"""Scores of predictions, and how sure we may be of them: pure functions of arrays, nothing here reads a file."""

from splavu.metrics.ranking import (
    MeanAP,
    auc,
    average_precision,
    average_precisions,
    cmap,
    mean_known,
    normalised_leakage,
    prevalences,
    top1,
    video_scores,
)
from splavu.metrics.resampling import (
    Resamples,
    cluster_permutations,
    cluster_resamples,
    percentile_interval,
    permute_cluster_labels,
    permuted_average_precisions,
    permuted_rows,
    resampled_average_precisions,
    resampled_prevalences,
    simultaneous_intervals,
)

__all__ = [
    "MeanAP",
    "Resamples",
    "auc",
    "average_precision",
    "average_precisions",
    "cluster_permutations",
    "cluster_resamples",
    "cmap",
    "mean_known",
    "normalised_leakage",
    "percentile_interval",
    "permute_cluster_labels",
    "permuted_average_precisions",
    "permuted_rows",
    "prevalences",
    "resampled_average_precisions",
    "resampled_prevalences",
    "simultaneous_intervals",
    "top1",
    "video_scores",
]

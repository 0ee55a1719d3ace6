"""What a release reveals beyond attributes: who is in it, the raw features, and who the anonymizer was trained on.

Note: subjects are linked by features of whole videos, and a video is never compared with itself: every release would
link perfectly. How often a released video is matched to its own raw one is reported separately (`same_video`). Where
subjects have one video each, clips stand in for videos (`clips_apart`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from splavu.anonymizers import Anonymizer
from splavu.anonymizers.apply import ArrayMap
from splavu.anonymizers.guarantees import budget_of
from splavu.attacks.rows import AttackData, Rows
from splavu.audit.attributes.names import Names
from splavu.audit.attributes.set_attackers import maximum_similarity
from splavu.audit.attributes.units import set_data
from splavu.audit.identity.clips_apart import clips_apart, one_video_each
from splavu.audit.identity.inversion import Inverter, inversion, learn_mlp, learn_ridge
from splavu.audit.identity.linkage import Linkability, linkability, linked
from splavu.audit.identity.membership import change_signals, code_signals, membership
from splavu.audit.identity.set_linkage import SIZES, linked_sets, strongest_set_metric
from splavu.audit.identity.similarity import Metric, cosines, strongest_cross_metric, strongest_metric
from splavu.audit.identity.singling_out import release_risks
from splavu.audit.inputs import AuditInputs
from splavu.audit.subject_risk import linkage_risk
from splavu.errors import UserError
from splavu.metrics.estimates import Estimate
from splavu.metrics.retrieval import retrieve
from splavu.metrics.vector_owners import vector_owners

TPRS = {"tpr_at_1_percent": 0.01, "tpr_at_1_permille": 0.001}
"""Key of the evidence -> false-positive rate."""


def learn_inverters(inputs: AuditInputs, *, seed: int = 0) -> dict[str, Inverter]:
    """Name -> map from released to raw features, from pairs of the training subjects; empty without raw features."""
    if inputs.raw is None:
        return {}
    released, raw = inputs.released, inputs.raw
    pairs = released.validation.features, raw.validation.features
    ridge = learn_ridge(released.train.features, raw.train.features, pairs)
    mlp = learn_mlp(released.train.features, raw.train.features, pairs, seed=seed, ridge=ridge)
    return {"ridge": ridge, "mlp": mlp}


def inverted(inputs: AuditInputs, inverters: Mapping[str, Inverter], *, num_resamples: int) -> dict[str, Any]:
    """Inverter -> how much of the test subjects' raw features it brings back."""
    found = {}
    for name, invert in inverters.items():
        test = inputs.raw.test
        one = inversion(
            invert(inputs.released.test.features), test.features, test.clusters, num_resamples=num_resamples
        )
        found[name] = {
            "explained": one.explained,
            "explained_between_people": one.explained_between,
            "median_rank": one.median_rank,
            "top1": one.top1,
            "num_rows": len(test),
        }
    return found


def linked_people(inputs: AuditInputs, *, serve: ArrayMap | None = None, num_resamples: int) -> dict[str, Any]:
    """Pairing -> how well videos of one person are found: within raw, within released, and across releases.

    Args:
        serve: The anonymizer, to link what is released with a second release of it: video means, served.
    """
    given, inputs = inputs, _linkable(inputs)
    released = set_data(inputs.released, "video")
    kinds: dict[str, tuple[AttackData, AttackData]] = {"released to released": (released, released)}
    if inputs.raw is not None:
        raw = set_data(inputs.raw, "video")
        kinds |= {"raw to raw": (raw, raw), "raw to released": (raw, released)}
        if serve is not None:
            kinds["second release to released"] = (raw.mapped(serve), released)
    found = {}
    for name, (gallery, probes) in kinds.items():
        try:
            found[name] = _linked(gallery, probes, num_resamples)
        except UserError as error:  # no subject has two videos
            found[name] = {"skipped": str(error)}
    if "skipped" not in found["released to released"]:
        found["released to released, best pair of clips"] = _linked_by_best_pair(inputs.released, num_resamples)
        has_videos = inputs is given  # else clips of one video are linked, and share their name
        if has_videos and inputs.keys and (names := Names.of(inputs.keys, inputs.released)).grouping is not None:
            found["released to released, by names"] = _linked_by_names(names, released.test, num_resamples)
    for name, data in (("raw", inputs.raw), ("released", inputs.released)):
        for size in SIZES if data is not None else ():
            words = f"{name} to {name}, {size or 'all'} clip{'s' if size != 1 else ''} against as many"
            try:
                one, num_subjects = linked_sets(data, size, num_resamples=min(num_resamples, 300))
                found[words] = {**_scores(one), "subjects": num_subjects}
            except UserError as error:  # too few subjects have as many clips
                found[words] = {"skipped": str(error)}
    return found


def members(
    inputs: AuditInputs, *, anonymizer: Anonymizer | None = None, num_resamples: int, seed: int = 0
) -> dict[str, Any]:
    """Whether training subjects can be distinguished from test subjects by how far the release moved their features,
    and by how near they lie to the centroids of a quantizer.

    This assumes that the anonymizer was trained on the training subjects of the table, and the evidence says so.
    """
    if inputs.raw is None:
        return {"skipped": "takes raw features (--raw)"}
    train, test = (
        {
            **change_signals(inputs.raw.splits[name].features, inputs.released.splits[name].features),
            **({} if anonymizer is None else code_signals(anonymizer, inputs.raw.splits[name].features)),
        }
        for name in ("train", "test")
    )
    people = inputs.released.train.clusters, inputs.released.test.clusters
    if not all(np.isfinite(values).all() for signals in (train, test) for values in signals.values()):
        return {"skipped": "a feature of zeros has no angle"}
    one = membership(train, test, *people, num_resamples=num_resamples, seed=seed)
    return {
        "assumes": "the anonymizer was trained on the training subjects of the table",
        **{
            attack.name: {"auc": attack.auc, "person_auc": attack.person_auc, "tpr_at_1_percent": attack.tpr}
            for attack in (*one.thresholds, one.strongest, one.logistic)
        },
    }


def singled_out(inputs: AuditInputs, *, anonymizer: Anonymizer | None = None, seed: int = 0) -> dict[str, Any]:
    """What a release reveals of those who are in it beyond what it reveals of people in general: three risks, each less
    its control group's, and how many of the test subjects' vectors one subject alone has.

    Args:
        anonymizer: Its bits per clip are added up over a subject's clips.
    """
    found: dict[str, Any] = {}
    inputs = _linkable(inputs)
    for name, data in (("raw", inputs.raw), ("released", inputs.released)):
        if data is None:
            continue
        try:
            metric = strongest_set_metric(data, None, seed=seed)
            risks = release_risks(data.test, metric, attributes=inputs.questions.names, seed=seed)
            found[name] = {risk: dataclasses.asdict(one) | {"risk": one.risk} for risk, one in risks.items()}
        except UserError as error:  # too few videos
            found[name] = {"skipped": str(error)}
    test = inputs.released.test
    vectors = vector_owners(test.features, test.clusters)
    found["vectors"] = {
        "num_vectors": vectors.vectors,
        "of_vectors": vectors.share,
        "of_clips": vectors.clip_share,
    }
    found["clips_per_subject"] = float(np.median(np.unique(test.clusters, return_counts=True)[1]))
    if anonymizer is not None and (bits := budget_of(anonymizer.architecture)) is not None:
        found |= {"bits_per_clip": bits, "bits_per_subject": bits * found["clips_per_subject"]}
    return found


def _linkable(inputs: AuditInputs) -> AuditInputs:
    """Clips in place of videos, where subjects have one video each."""
    if not one_video_each(inputs.released):
        return inputs
    raw = None if inputs.raw is None else clips_apart(inputs.raw)
    return dataclasses.replace(inputs, released=clips_apart(inputs.released), raw=raw)


def link(
    gallery: AttackData, probes: AttackData, *, num_resamples: int = 300, num_permutations: int = 1000
) -> tuple[Linkability, Metric]:
    """Test subjects' rows linked by the metric that is trained on training subjects and chosen on validation subjects.

    Args:
        gallery: A row a video (`units.set_data`).
        probes: The same object, or other features of the same videos. A video never meets itself.
        num_resamples: Draws of subjects, for intervals.
        num_permutations: Exchanges of subjects, for the chance of D_sys.
    """
    if gallery is probes:
        chosen = strongest_metric(
            probes.train.features,
            probes.train.clusters,
            (probes.validation.features, probes.validation.clusters),
            exclude=probes.validation.videos,
        )
    else:
        chosen = strongest_cross_metric(
            gallery.train.features,
            probes.train.features,
            probes.train.clusters,
            (gallery.validation.features, probes.validation.features, probes.validation.clusters),
            exclude=probes.validation.videos,
        )
    one = linkability(
        gallery.test.features,
        gallery.test.clusters,
        probes.test.features,
        probes.test.clusters,
        exclude=(gallery.test.videos, probes.test.videos),
        metric=chosen,
        num_resamples=num_resamples,
        num_permutations=num_permutations,
    )
    return one, chosen


def _linked(gallery: AttackData, probes: AttackData, num_resamples: int) -> dict[str, Any]:
    one, chosen = link(gallery, probes, num_resamples=min(num_resamples, 300))
    result = _scores(one)
    sides = gallery.test, probes.test
    risk, found_first = linkage_risk(
        cosines(chosen.probes(probes.test.features), chosen.gallery(gallery.test.features)),
        (sides[0].clusters, sides[1].clusters),
        (sides[0].videos, sides[1].videos),
        num_permutations=min(num_resamples, 300),
    )
    result["worst_protected"] = risk.record() | found_first
    if gallery is not probes:
        same = retrieve(
            chosen.probes(probes.test.features),
            chosen.gallery(gallery.test.features),
            probe_people=probes.test.videos,
            gallery_people=gallery.test.videos,
        )
        result["same_video_rank1"] = Estimate(
            float(np.mean(same.rank1)), float("nan"), float("nan"), 1 / len(gallery.test)
        )
    return result


def _linked_by_best_pair(data: AttackData, num_resamples: int) -> dict[str, Any]:
    """Videos compared by their most similar pair of clips, by a metric that is learned and chosen on clips."""
    chosen = strongest_metric(
        data.train.features,
        data.train.clusters,
        (data.validation.features, data.validation.clusters),
        exclude=data.validation.videos,
    )
    test = data.test
    similarity, videos, _ = maximum_similarity(test.features, test.videos, test.features, test.videos, metric=chosen)
    _, first = np.unique(test.videos, return_index=True)
    people = test.clusters[first]
    one = linked(
        similarity, people, people, exclude=(videos, videos), metric=chosen.name, num_resamples=min(num_resamples, 300)
    )
    return _scores(one)


def _linked_by_names(names: Names, videos: Rows, num_resamples: int) -> dict[str, Any]:
    """Videos compared by whether their names have one group."""
    groups = names.groups(videos.videos)
    similarity = (groups[:, None] == groups[None]).astype(np.float64)
    own, people = videos.videos, videos.clusters
    one = linked(
        similarity,
        people,
        people,
        exclude=(own, own),
        metric=names.grouping.description,
        num_resamples=min(num_resamples, 300),
    )
    return _scores(one)


def _scores(one: Linkability) -> dict[str, Any]:
    return {
        "rank1": one.rank1,
        "rank5": one.rank5,
        "mean_ap": one.mean_ap,
        "eer": one.eer,
        **{name: one.tpr[fpr] for name, fpr in TPRS.items()},
        "d_sys": one.d_sys,
        "d_sys_corrected": one.d_sys_corrected,
        "p": one.p,
        "metric": one.metric,
    }

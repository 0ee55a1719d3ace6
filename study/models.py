"""Builds this study's networks from its params; the historic `fa`, `ft`, `fb` of the reference are translated here.

`fa` is the anonymizer (AAM), `ft` a utility head, `fb` the head of the privacy branch. `params` is any object with the
names of a parameter module. All functions return a network on the CPU, in training mode, ready for `.to(device)`.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from torch import nn

from splavu.anonymizers import ANONYMIZERS, Anonymizer, build_anonymizer, pipeline
from splavu.anonymizers.loading import load_anonymizer
from splavu.data.encoders import encoder_spec
from splavu.errors import UserError, nearest
from splavu.runtime import checkpoints
from splavu.runtime.params import derived_value
from splavu.runtime.schema import Count, Few, RunName, Schema
from splavu.training.heads import LinearHead, PrivacyHead
from study import config as roots
from study.datasets.loading import dataset_spec


@dataclass(frozen=True, kw_only=True)
class JudgedFeatures(Schema):
    """What the parameters of every evaluation say of the features that are judged, raw and anonymized."""

    run_id: RunName
    ft_arch: str
    """The encoder of the feature stores."""
    data_root: str | None = None
    """Another root than config.DATA, named from the repository's folder; its stores lie in features/ below it."""
    feature_dim: Count | None = None
    anon: bool = True
    """Judge anonymized features beside raw ones; False judges raw features only."""
    saved_fa_model: str | None = None
    """The anonymizer's checkpoint."""
    fa_arch: str | None = None
    """A checkpoint records its architecture; given here too, the two must agree."""
    num_heads: Few = 8
    """Of a published checkpoint, which doesn't record it."""


def load_adapter(p: JudgedFeatures) -> Anonymizer | None:
    """The anonymizer to judge, checked against params; None for raw features only."""
    if not p.anon or p.saved_fa_model is None:
        return None
    anonymizer = load_anonymizer(p.saved_fa_model, num_heads=p.num_heads)
    stated = None if p.fa_arch is None else _without_options(p.fa_arch)
    chain = _chain_of(anonymizer, stated)
    for name, found, wanted in (
        ("arch", chain, stated or chain),
        ("feature_dim", anonymizer.architecture["feature_dim"], feature_dim(p)),
    ):
        if found != wanted:
            raise UserError(p.saved_fa_model, f"has {name} = {found!r}, params mean {wanted!r}", "make params agree")
    return anonymizer


def feature_dim(params: Any) -> int:
    """D of `params.ft_arch`; `params.feature_dim`, where given, must agree."""
    width = encoder_spec(params.ft_arch).feature_dim
    given = getattr(params, "feature_dim", None)
    if width is None:
        if given is None:
            raise UserError("feature_dim", f"is needed: {params.ft_arch} exists in several widths", "add it to params")
        return given
    return derived_value("feature_dim", given, width, because=f"ft_arch = '{params.ft_arch}'")


def num_classes(params: Any, dataset: str) -> int:
    """C of a data set; `params.num_classes`, where given, must agree."""
    looked_up = dataset_spec(dataset, data_root=getattr(params, "data_root", None)).num_classes
    return derived_value(
        "num_classes", getattr(params, "num_classes", None), looked_up, because=f"data set '{dataset}'"
    )


def load_fa(
    params: Any, saved_model: str | None = None, arch: str | None = None, *, identity: bool = True
) -> Anonymizer:
    """The anonymizer that params describe, with the weights of `saved_model` if given.

    A checkpoint of ours records its architecture; what params say otherwise is an error. Published checkpoints are read
    by their parameter names. Without weights it starts as the identity.

    Args:
        params: fa_arch, ft_arch; for the transformer num_layers_fa, num_heads, batch_as_sequence; for the encoder
            num_layers_fa, num_heads, window, bottleneck.
            fa_arch may be the chain (`splavu.anonymizers.pipeline`) of a checkpoint.
        saved_model: Checkpoint with `fa_model_state_dict`, or bare weights.
        arch: Overrides `params.fa_arch`.
        identity: False starts from random weights, as pre-training does.

    Raises:
        UserError: Params and checkpoint disagree, or a chain is fitted to features, which aren't given here.
    """
    width = feature_dim(params)
    arch = _without_options(arch or getattr(params, "fa_arch", "transformer"))
    if saved_model is None:
        if arch not in ANONYMIZERS and pipeline.has_closed_form(pipeline.parse(arch)):
            raise UserError(
                "saved_fa_model", f"is missing: '{arch}' is fitted to features", "multitask_train_fa.py fits it"
            )
        options = _options_of(params, arch)
        if arch != "identity":
            options["identity"] = identity
        return build_anonymizer(arch, width, **options)

    anonymizer = load_anonymizer(saved_model, num_heads=getattr(params, "num_heads", 8))
    recorded = checkpoints.read(saved_model).get("fa_architecture") is not None
    stage = pipeline.trained_stage(anonymizer)
    expected = {"feature_dim": width, **_options_of(params, stage.architecture["arch"])}
    found = {
        "arch": _chain_of(anonymizer, arch),
        **{name: stage.architecture.get(name, expected[name]) for name in expected},
    }
    for name, value in {"arch": arch, **expected}.items():
        if name == "attends_over" and not recorded:
            anonymizer.attends_over = anonymizer.architecture[name] = value  # published weights fit both
        elif found[name] != value:
            raise UserError(
                saved_model, f"was trained with {name} = {found[name]!r}, params say {value!r}", "make them agree"
            )
    return anonymizer


def _options_of(params: Any, arch: str) -> dict[str, Any]:
    """What params say of a part that is trained."""
    if arch not in ("transformer", "encoder"):
        return {}
    options = {"num_layers": getattr(params, "num_layers_fa", 3), "num_heads": getattr(params, "num_heads", 8)}
    if arch == "transformer":
        return options | {"attends_over": "batch" if getattr(params, "batch_as_sequence", False) else "time"}
    return options | {"window": getattr(params, "window", None) or 0, "bottleneck": getattr(params, "bottleneck", None)}


def _without_options(arch: str) -> str:
    """The chain without options; the name of a class as it is."""
    return arch if arch in ANONYMIZERS else pipeline.names_of(pipeline.parse(arch))


def _chain_of(anonymizer: Anonymizer, wanted: str | None) -> str:
    """What an anonymizer is called in params: its chain, or the name of its class where that is meant."""
    arch = anonymizer.architecture["arch"]
    return arch if wanted == arch else pipeline.to_string(anonymizer.architecture)


def load_ft(params: Any, saved_model: str | None = None, arch: str | None = None) -> LinearHead:
    """The linear utility head for `params.ar_dataset` (or `params.dataset`)."""
    if arch not in (None, "linear"):
        raise UserError("arch", f"'{arch}' is no utility head", nearest(arch, ["linear"]))
    dataset = getattr(params, "ar_dataset", None) or params.dataset
    head = LinearHead(feature_dim(params), num_classes(params, dataset))
    if saved_model is not None:
        content = checkpoints.read(saved_model)
        key = "ft_model_ar_state_dict" if "ft_model_ar_state_dict" in content else "ft_model_state_dict"
        state = checkpoints.state_of(content, key, saved_model, prefer_average=True)
        checkpoints.load_into(head, state, saved_model)
    return head


def load_fb(
    saved_model: str | None = None,
    arch: str = "mlp",
    initial_embedding_size: int = 768,
    final_embedding_size: int = 128,
    *,
    normalise: bool = True,
) -> PrivacyHead:
    """The paper's privacy head, D -> D -> outputs, L2-normalised unless `normalise` is False."""
    if arch != "mlp":
        raise UserError("arch", f"'{arch}' is no privacy head", nearest(arch, ["mlp"]))
    head = PrivacyHead(initial_embedding_size, final_embedding_size, normalise=normalise)
    if saved_model is not None:
        content = checkpoints.read(saved_model)
        state = checkpoints.state_of(content, "fb_model_state_dict", saved_model, prefer_average=True)
        checkpoints.load_into(head, state, saved_model)
    return head


def load_backbone(params: Any) -> nn.Module:
    """The frozen encoder `params.ft_arch`; `params.weights` may name a hub repository or a folder."""
    from splavu.extraction.encoders import load_encoder  # needs transformers, which training on features doesn't

    return load_encoder(params.ft_arch, weights=getattr(params, "weights", None))


def load_model_tridet(
    checkpoint: str | None = None, config: str = "tridet/thumos_videoMAE.yaml", *, prefer: str = "ema"
) -> nn.Module:
    """TriDet as a configuration describes it, with the weights of a checkpoint if given.

    Args:
        checkpoint: Of TriDet (`state_dict_ema`, `state_dict`) or of co-training (`ft_model_tad_state_dict`), or bare
            weights.
        config: YAML file, named from the repository's folder.
        prefer: 'ema' takes averaged weights where there are some, 'trained' the others.
    """
    from tridet.task import load_detector  # not needed where no videos are searched

    return load_detector(roots.HERE / config, checkpoint, prefer=prefer)


def load_model_mgfn(checkpoint: str | None = None, feature_size: int = 768, *, options: str = "") -> nn.Module:
    """MGFN with the weights of a checkpoint, which tell its architecture; without one, at random.

    Args:
        checkpoint: Of MGFN, of co-training (`ft_model_ad_state_dict`), or bare weights.
        feature_size: D.
        options: As on MGFN's command line.
    """
    from mgfn.task import load_detector  # not needed where no anomalies are searched

    return load_detector(shlex.split(options), feature_size, checkpoint)

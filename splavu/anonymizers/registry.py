"""Anonymizers by name: built from params or checkpoints, or recognised by the parameters of bare weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from splavu.anonymizers.affine import AffineAnonymizer
from splavu.anonymizers.base import Anonymizer
from splavu.anonymizers.chain import Chain
from splavu.anonymizers.closed_form.methods import METHODS
from splavu.anonymizers.encoder import EncoderAnonymizer
from splavu.anonymizers.identity import IdentityAnonymizer
from splavu.anonymizers.mlp import MLPAnonymizer
from splavu.anonymizers.noise import GaussianNoise
from splavu.anonymizers.quantizer import Quantizer
from splavu.anonymizers.transformer import TransformerAnonymizer
from splavu.errors import UserError, nearest

ANONYMIZERS: Mapping[str, type[Anonymizer]] = {
    "transformer": TransformerAnonymizer,
    "mlp": MLPAnonymizer,
    "encoder": EncoderAnonymizer,
    "identity": IdentityAnonymizer,
    "affine": AffineAnonymizer,
    "quantizer": Quantizer,
    "noise": GaussianNoise,
    "chain": Chain,
}
"""Name in params (`fa_arch`) and in checkpoints -> class; closed forms of other packages may bring their own."""


def build_anonymizer(arch: str, feature_dim: int, **options: Any) -> Anonymizer:
    """The anonymizer called `arch`; `options` are its constructor's, the stages of a chain named as in `architecture`.

    Raises:
        UserError: Unknown architecture or option.
    """
    network = ANONYMIZERS.get(arch) or (METHODS[arch].network if arch in METHODS else None)
    if network is None:
        raise UserError("fa_arch", f"'{arch}' isn't an anonymizer", nearest(arch, ANONYMIZERS))
    if "stages" in options:
        options["stages"] = [build_anonymizer(**stage) for stage in options["stages"]]
    try:
        return network(feature_dim, **options)
    except TypeError as error:
        raise UserError("fa_arch", f"'{arch}' can't be built with {options} ({error})") from error


def infer_architecture(state: Mapping[str, Tensor], *, source: object = "fa_model_state_dict") -> dict[str, Any]:
    """The architecture behind bare published weights, which don't record it.

    The number of heads leaves no trace in the weights and is left out; `source` is named in errors.

    Raises:
        UserError: The parameter names are those of no published anonymizer.
    """
    if not state:
        raise UserError(source, "the anonymizer's weights are empty", "give fa_arch = 'identity' for raw features")
    blocks = {name.split(".")[1] for name in state if name.startswith("self_attn_blocks.")}
    if blocks:
        width = state["self_attn_blocks.0.self_attn.out_proj.bias"].shape[0]
        return {"arch": "transformer", "feature_dim": width, "num_layers": len(blocks)}
    if "fc1.weight" in state and "fc2.weight" in state:
        return {"arch": "mlp", "feature_dim": state["fc1.weight"].shape[1], "residual": False}
    raise UserError(source, f"'{next(iter(state))}' is a parameter of no anonymizer", "check the file")

"""V-JEPA ViT-H and ViT-L from the official checkpoint files (V-JEPA 2 is in `hub`).

The stored feature is the mean over all tokens after the final LayerNorm. The authors publish no such vector, they train
an attentive probe on the tokens; a mean is what fits a store of one row per clip. Of the two networks in a file it is
the target encoder, the moving average that the authors evaluate.

Names are those of VideoMAE but for a full `qkv.bias`, a final `norm` and `pos_embed`, a fixed table kept in the file,
whose length determines the frame size: 224 pixels, or 384 for `vith16-384`. All were trained on 16 frames.

Source: Bardes et al. 2024 and the published configurations. Names of weights and the wrapping `module.backbone.` are
as known of that program; no official file was at hand to check, and what does not match is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from splavu.data.encoders import EncoderSpec
from splavu.errors import UserError
from splavu.extraction.encoders import official
from splavu.extraction.encoders.vit import Architecture, TransformerEncoder, load_transformer

ENTRIES = ("target_encoder", "encoder")
NUM_FRAMES = 16
_FILES = {"vjepa": "vith16.pth.tar", "vjepa-large": "vitl16.pth.tar"}


def load_vjepa(spec: EncoderSpec, weights: str | None) -> TransformerEncoder:
    """The encoder of the row from the official checkpoint file `weights`.

    Raises:
        UserError: No file is given or there, or it does not fit (see `from_official`).
    """
    if weights is None:
        remedy = f"give {_FILES[spec.name]} of facebookresearch/jepa"
        raise UserError("--weights", f"missing: {spec.name} has no weights of its own", remedy)
    return from_official(official.read(weights), spec, source=weights)


def from_official(
    checkpoint: Mapping[str, object],
    spec: EncoderSpec,
    *,
    num_heads: int | None = None,
    source: str = "checkpoint",
) -> TransformerEncoder:
    """Build the encoder from a loaded official checkpoint.

    Args:
        num_heads: Needed for widths that no released model has.

    Raises:
        UserError: It is another kind of checkpoint, or a weight is missing, unknown or of another shape.
    """
    state = official.named_weights(checkpoint, entries=ENTRIES)
    if "patch_embed.proj.weight" in state and "pos_embed" not in state:
        raise UserError(
            source,
            "it has no table of positions, so it is no V-JEPA (V-JEPA 2, which rotates, or VideoMAE?)",
            "use --encoder vjepa2 with a HuggingFace folder, or the encoder of these weights",
        )
    architecture = Architecture.of_state(
        state, num_frames=NUM_FRAMES, image_size=None, num_heads=num_heads, source=source
    )
    return load_transformer(state, architecture, spec, source=source)

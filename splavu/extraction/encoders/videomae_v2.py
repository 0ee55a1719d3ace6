"""VideoMAE V2-g, and InternVideo's transformers trained like VideoMAE (ViT-B, L, H), from official checkpoint files.

The stored feature of a fine-tuned or distilled file is `fc_norm(mean over all tokens)`, what its classifier gets. Files
from pre-training alone have no `fc_norm`, and their authors define no feature; theirs is the mean over all tokens after
the final `norm`, and a warning says so. Frames are normalised with ImageNet's mean and standard deviation, as in
training; the published extraction script for temporal detection leaves that out, so its features differ from these.

A checkpoint determines everything except the heads, which follow from the released widths, and the input it was trained
with, since positions are not in the file: taken as 16 frames of 224 x 224. InternVideo also has a ViT-H for 32 frames
of 384 x 384; how its positions were made for that input is not known here, so it runs as if trained on 224 x 224.

`internvid` stores that others made may come from ViCLIP, the text-aligned model of the InternVid data. Its layout is
CLIP's; such files are refused here.

Source: Wang et al. 2023 (V2), Wang et al. 2022 (InternVideo); layouts from the specification (videomae, 2 and 5). That
InternVideo's files have the layout of VideoMAE is taken from its authors' word that they build on its program; none
was at hand to check.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch import Tensor

from splavu.data.encoders import EncoderSpec
from splavu.errors import UserError
from splavu.extraction.encoders import official
from splavu.extraction.encoders.videomae import ENTRIES
from splavu.extraction.encoders.vit import Architecture, TransformerEncoder, joined_bias, load_transformer

logger = logging.getLogger(__name__)

_FILES = {
    "maev2": "vit_g_hybrid_pt_1200e_k710_ft.pth of VideoMAE V2",
    "internvid": "VideoMAE-L or VideoMAE-H of InternVideo's model zoo",
}
_NOT_FOR_FEATURES = ("decoder.", "encoder_to_decoder.", "mask_token", "head.")


def load_official(spec: EncoderSpec, weights: str | None) -> TransformerEncoder:
    """The encoder of the row from the official checkpoint file `weights`.

    Raises:
        UserError: No file is given or there, or it does not fit (see `from_official`).
    """
    if weights is None:
        raise UserError("--weights", f"missing: {spec.name} has no weights of its own", f"give {_FILES[spec.name]}")
    return from_official(official.read(weights), spec, source=weights)


def from_official(
    checkpoint: Mapping[str, object],
    spec: EncoderSpec,
    *,
    num_heads: int | None = None,
    image_size: int = 224,
    num_frames: int = 16,
    source: str = "checkpoint",
) -> TransformerEncoder:
    """Build the encoder from a loaded official checkpoint, fine-tuned or pre-trained.

    Args:
        num_heads: Needed for widths that no released model has.
        image_size: Side of the frames it was trained with.
        num_frames: Frames of the clips it was trained with.

    Raises:
        UserError: It is another kind of checkpoint, pools by its first token, has layer scale, learned positions or
            cosine attention, or a weight is missing, unknown or of another shape.
    """
    state = joined_bias(_encoder_state(official.named_weights(checkpoint, entries=ENTRIES), source))
    if "pos_embed" in state:
        raise UserError(source, "it has learnt positions, which no released model has", "use a released checkpoint")
    architecture = Architecture.of_state(
        state, num_frames=num_frames, image_size=image_size, num_heads=num_heads, source=source
    )
    encoder = load_transformer(state, architecture, spec, source=source)
    if architecture.pools_normalised_tokens:
        logger.warning("%s: from pre-training alone; the feature is the mean of its normalised tokens", source)
    return encoder


def _encoder_state(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The encoder's weights of either layout, without decoder and head."""
    if any("resblocks" in name for name in state):
        raise UserError(source, "these weights have CLIP's layout (ViCLIP?), which cannot run here", "use a VideoMAE's")
    if "norm.weight" in state and "head.weight" in state:
        raise UserError(source, "it pools by its first token", "use a checkpoint with mean pooling (fc_norm)")
    return {
        name.removeprefix("encoder."): weight
        for name, weight in state.items()
        if not name.startswith(_NOT_FOR_FEATURES)
    }

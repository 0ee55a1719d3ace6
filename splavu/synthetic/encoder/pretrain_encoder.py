"""Pre-train the demo encoder: a small VideoMAE that knows actions and, as real encoders do, leaks appearance.

One pass serves four kinds of loss: the action's cross-entropy; which words a caption of the video would hold, as the
encoders trained on the captions of the web learn them, "woman" and "bare chest" among them, which is where appearance
gets in; where people are (joints, eyes, mouth), asked of each token and of the pooled feature, which spares a network
of this size hours of search; and masked reconstruction, where light decoders paint the picture and close-ups of the
main person from the pooled feature. Tiled still frames take part in all but the first, so their features mean
something. The people are none that a world shows.

    python -m splavu.synthetic.pretrain_encoder --out DIR
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import argparse
import dataclasses
import json
import logging
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import (
    avg_pool2d,
    binary_cross_entropy_with_logits,
    cross_entropy,
    grid_sample,
    one_hot,
    smooth_l1_loss,
)

from splavu.runtime import cli, signals
from splavu.runtime.files import claimed, replacing
from splavu.runtime.schema import Count, Few, NonNegative, Positive, Seed, Share
from splavu.synthetic.encoder.pretraining_clips import (
    CAPTION_WORDS,
    CLIP,
    JOINTS,
    MARK_GROUPS,
    MEAN,
    SIDE,
    STD,
    Batch,
    draw_batch,
    render_clips,
)  # fmt: skip
from splavu.synthetic.people.motions import ACTIONS

log = logging.getLogger(__name__)

PATCH, TUBELET, WIDTH = 16, 4, 192
TOKENS = (CLIP // TUBELET) * (SIDE // PATCH) ** 2
WHITENING_CLIPS = 128
"""Clips whose patches the fixed embedding is computed from."""
DETAIL = 8
"""Side of a reconstructed patch in pixels; the target is averaged down to it."""
FC_NORM_EPS = 1e-6
"""transformers builds `fc_norm` with 1e-5 and doesn't keep another value in the checkpoint."""


def build_model() -> nn.Module:
    """An untrained `VideoMAEForVideoClassification` in the demo encoder's shape, 3.3 M parameters."""
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    config = VideoMAEConfig(
        image_size=SIDE,
        patch_size=PATCH,
        num_frames=CLIP,
        tubelet_size=TUBELET,
        hidden_size=WIDTH,
        num_hidden_layers=6,
        num_attention_heads=3,
        intermediate_size=4 * WIDTH,
        use_mean_pooling=True,
        architectures=["VideoMAEForVideoClassification"],
        layer_norm_eps=FC_NORM_EPS,
        qkv_bias=True,
        id2label=dict(enumerate(ACTIONS)),
        label2id={action: label for label, action in enumerate(ACTIONS)},
    )
    model = VideoMAEForVideoClassification(config)
    model.fc_norm.eps = FC_NORM_EPS
    return model


class PatchPainter(nn.Module):
    """Paints the middle frame of every patch from one feature: `[B, D] -> [B, S, 3 * 8 * 8]`, S patches."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(0.02 * torch.randn(TOKENS, 2 * WIDTH))
        self.spread = nn.Linear(WIDTH, 2 * WIDTH)
        self.paint = nn.Sequential(
            nn.GELU(), nn.Linear(2 * WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, 3 * DETAIL**2)
        )

    def forward(self, features: Tensor) -> Tensor:
        scaled = self.spread(features)[:, None]
        return self.paint(scaled * (1.0 + self.place) + self.place)


class PeopleFinder(nn.Module):
    """Places joints: from the feature by their coordinates in each tubelet, from a token by which marks it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.coordinates = nn.Sequential(
            nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, CLIP // TUBELET * JOINTS * 2)
        )
        self.presence = nn.Linear(WIDTH, len(MARK_GROUPS))

    def forward(self, features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, D], [B, S, D] -> [B, 4, 13, 2]` over the picture as -1..1, and logits `[B, S, 19]`."""
        return self.coordinates(features).view(-1, CLIP // TUBELET, JOINTS, 2), self.presence(tokens)


def mark_presence(marks: Tensor) -> Tensor:  # [B, 4, 24, 2] -> [B, S, 19]
    """1 where a mark of the group lies in a token's patch, in the encoder's token order."""
    grid = SIDE // PATCH
    cell = ((marks.nan_to_num(nan=9.0) + 1.0) * (0.5 * grid)).floor().long()  # column, row
    flat = torch.where(((cell >= 0) & (cell < grid)).all(dim=-1), cell[..., 1] * grid + cell[..., 0], grid**2)
    held = one_hot(flat, grid**2 + 1)[..., :-1].transpose(2, 3).flatten(1, 2)  # [B, S, 24]
    return torch.stack([held[..., group].amax(dim=-1) for group in MARK_GROUPS], dim=-1).float()


CLOSE_UPS = (((0, 0), 0.25, 12), ((1, 2), 0.36, 12))
"""The two joints between which it lies, half-side over half the picture, pixels: head, trunk."""


def close_ups(clips: Tensor, marks: Tensor) -> Tensor:  # [B, 16, 3, 80, 80], [B, 4, 24, 2] -> [B, 864]
    """Pictures of the main person's head and trunk in the middle of the third tubelet, as one row."""
    frame, points = clips[:, 10].float(), marks[:, 2]
    rows = []
    for (first, second), half, pixels in CLOSE_UPS:
        centre = 0.5 * (points[:, first] + points[:, second])[:, None, None]  # [B, 1, 1, 2]
        offsets = torch.linspace(-half, half, pixels, device=frame.device)
        grid = centre + torch.stack(torch.meshgrid(offsets, offsets, indexing="xy"), dim=-1)
        rows.append(grid_sample(frame, grid, align_corners=False, padding_mode="border").flatten(1))
    return torch.cat(rows, dim=1)


def patch_targets(clips: Tensor) -> Tensor:  # [B, 16, 3, 80, 80] -> [B, S, 3 * 8 * 8]
    """The second frame of each tubelet at half size, cut into patches in the encoder's token order."""
    batch = clips.shape[0]
    small = avg_pool2d(clips[:, TUBELET // 2 :: TUBELET].flatten(0, 1), PATCH // DETAIL)
    grid = SIDE // PATCH
    tiles = small.view(batch, CLIP // TUBELET, 3, grid, DETAIL, grid, DETAIL)
    return tiles.permute(0, 1, 3, 5, 2, 4, 6).reshape(batch, TOKENS, 3 * DETAIL**2)


def pooled(model: nn.Module, clips: Tensor) -> Tensor:  # [B, 16, 3, 80, 80] -> [B, 192]
    """The feature: the normalised mean of the tokens."""
    return model.fc_norm(model.videomae(clips).last_hidden_state.mean(dim=1))


@torch.no_grad()
def whiten_patches(model: nn.Module, clips: Tensor, *, still: int = 128) -> None:
    """Fix the patch embedding as damped whitened principal components of patches, in place, and freeze it.

    If it were trained too, its 3072 inputs would move each token further per step than the other layers can follow.

    `still` components are of the tubelet's mean frame, the remaining ones of the difference from it: by variance alone,
    motion would not be among the first 192.

    Args:
        model: Encoder with a random patch embedding.
        clips: Training clips, [B, 16, 3, 80, 80]; some hundred.
    """
    grid = SIDE // PATCH
    tubes = clips.float().view(-1, CLIP // TUBELET, TUBELET, 3, grid, PATCH, grid, PATCH)
    patches = tubes.permute(0, 1, 4, 6, 3, 2, 5, 7).reshape(-1, 3, TUBELET, PATCH, PATCH)
    kernel = torch.zeros(WIDTH, 3, TUBELET, PATCH, PATCH)
    mean_picture = patches.mean(dim=2)
    changes = (patches - mean_picture[:, :, None])[:, :, :: TUBELET - 1]  # first and last frame of the tubelet
    for part, rows in ((mean_picture, slice(0, still)), (changes, slice(still, WIDTH))):
        flat = part.flatten(1)
        count = rows.stop - rows.start
        _, spread, basis = torch.svd_lowrank(flat - flat.mean(dim=0), q=count + 8, niter=3)
        deviation = spread[:count] / len(flat) ** 0.5
        filters = (basis[:, :count] / (deviation + 0.04 * deviation[0])).T * 1.5
        if part is mean_picture:
            kernel[rows] = filters.view(count, 3, 1, PATCH, PATCH) / TUBELET
        else:
            kernel[rows, :, :: TUBELET - 1] = filters.view(count, 3, 2, PATCH, PATCH)
            kernel[rows] -= kernel[rows].mean(dim=2, keepdim=True)
    projection = model.videomae.embeddings.patch_embeddings.projection
    projection.weight.copy_(kernel)
    projection.bias.copy_(-(kernel.flatten(1) @ patches.mean(dim=0).flatten()))
    projection.requires_grad_(False)


def export(model: nn.Module, folder: Path) -> None:
    """Write config and half-precision weights under the model's own names.

    `save_pretrained` would write the names of transformers 4, which some releases of 5 read without a word of warning
    as missing.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    weights = {name: value.half().contiguous().cpu() for name, value in model.state_dict().items()}
    with replacing(folder / "model.safetensors") as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})


def learning_rate(step: int, *, steps: int, peak: float, warmup: int = 150) -> float:
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))))


class Pupil(nn.Module):
    """The encoder and the light decoders that are thrown away after training."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.painter, self.finder = build_model(), PatchPainter(), PeopleFinder()
        pixels = sum(3 * side**2 for _, _, side in CLOSE_UPS)
        self.describer = nn.Linear(WIDTH, len(CAPTION_WORDS))
        self.portraitist = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, pixels))

    def losses(
        self, batch: Batch, static: Tensor, *, kept: int, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Loss terms by name, and the accuracy of actions."""
        with torch.autocast(batch.clips.device.type, torch.bfloat16):
            shown = None
            if kept < TOKENS:
                order = torch.rand(len(batch.clips), TOKENS, generator=generator).argsort(dim=1)
                shown = (order < kept).to(batch.clips.device)
            hidden = None if shown is None else ~shown
            tokens = self.encoder.videomae(batch.clips, bool_masked_pos=hidden).last_hidden_state  # [B, S, D]
            features = self.encoder.fc_norm(tokens.mean(dim=1))  # [B, D]
            logits = self.encoder.classifier(features[~static]).float()
            words = self.describer(features).float()
            painted, portrait = self.painter(features).float(), self.portraitist(features).float()
            found, presence = (answer.float() for answer in self.finder(features, tokens))
        actions = batch.actions[~static]
        held = mark_presence(batch.marks)
        if shown is not None:
            held = held[shown].view(presence.shape)
        terms = {
            "action": cross_entropy(logits, actions, label_smoothing=0.05),
            "captions": binary_cross_entropy_with_logits(words, batch.captions),
            "joints": smooth_l1_loss(found, batch.marks[:, :, :JOINTS], beta=0.1),
            "tokens": binary_cross_entropy_with_logits(presence, held),
            "paint": (painted - patch_targets(batch.clips).float()).square().mean(),
            "portrait": (portrait - close_ups(batch.clips, batch.marks)).square().mean(),
        }
        return terms, (logits.argmax(dim=1) == actions).float().mean()


def train(options: argparse.Namespace) -> None:
    from safetensors.torch import load_file

    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    videos = render_clips(
        options.out / "clips", subjects=options.subjects, per_subject=options.per_subject, workers=options.workers
    )
    pupil = Pupil().to(device)
    if options.init is not None:
        pupil.encoder.load_state_dict(load_file(options.init / "model.safetensors"))
        pupil.encoder.videomae.embeddings.patch_embeddings.projection.requires_grad_(False)
    else:
        first_look = draw_batch(videos, static=np.zeros(WHITENING_CLIPS, bool), rng=np.random.default_rng(0))
        whiten_patches(pupil.encoder, first_look.clips)
    parameters = [p for p in pupil.parameters() if p.requires_grad]
    decayed, plain = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, 0.98))
    state_path, first = options.out / "state.pt", 0
    if state_path.exists():
        state = torch.load(state_path, map_location=device, weights_only=True)
        pupil.load_state_dict(state["pupil"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
        print(f"resuming at step {first}")
    weight = {
        "action": 1.0,
        "captions": options.caption_weight,
        "joints": options.joints_weight,
        "tokens": options.tokens_weight,
        "paint": options.paint_weight,
        "portrait": options.portrait_weight,
    }
    static = np.arange(options.batch_size) < options.batch_size // 4
    is_static = torch.from_numpy(static).to(device)
    started, recent = time.monotonic(), []
    for step in range(first, options.steps):
        # A generator per step: a resumed run sees the batches that an uninterrupted one would have seen.
        rng = np.random.default_rng([options.seed, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps=options.steps, peak=options.lr)
        batch = draw_batch(videos, static=static, rng=rng)
        batch = Batch(*(getattr(batch, field.name).to(device) for field in dataclasses.fields(batch)))
        kept = TOKENS // 2 if step < options.masked_share * options.steps else TOKENS
        terms, right = pupil.losses(batch, is_static, kept=kept, generator=generator)
        loss = sum(weight[name] * term for name, term in terms.items())
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss {loss.item()} at step {step}: lower --lr, then run again to resume")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        recent.append([*(term.item() for term in terms.values()), right.item()])
        done = step + 1
        if done % 50 == 0 or done == options.steps:
            means = dict(zip((*terms, "top1"), np.mean(recent, axis=0).round(4).tolist(), strict=True))
            pace = (done - first) * options.batch_size / (time.monotonic() - started)
            print(json.dumps({"step": done, **means, "clips_per_s": round(pace, 1)}), flush=True)
            recent.clear()
        if done % options.save_every == 0 or done == options.steps:
            state = {"pupil": pupil.state_dict(), "optimizer": optimizer.state_dict(), "step": done}
            with replacing(state_path) as temporary:
                torch.save(state, temporary)
            signals.work_is_kept()
            export(pupil.encoder, options.out / "encoder")
    facts = {"shortest_edge": SIDE, "crop": SIDE, "mean": MEAN, "std": STD, "frames": CLIP}
    print(f"encoder in {options.out / 'encoder'}; input: {json.dumps(facts)}")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = cli.ArgumentParser(
        prog="python -m splavu.synthetic.encoder.pretrain_encoder",
        description="Pre-train the demo encoder on subjects and scenes of no data set. Interrupted runs resume.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="run folder: clips, state.pt and encoder/")
    parser.add_argument("--init", type=Path, help="folder of an encoder to go on from, instead of random weights")
    parser.add_argument("--steps", type=Count, default=7000, help="optimisation steps")
    parser.add_argument("--batch-size", type=Count, default=32, help="clips per step, a quarter of them stills")
    parser.add_argument("--lr", type=Positive, default=6e-4, help="peak learning rate (warm-up, then cosine)")
    parser.add_argument("--paint-weight", type=NonNegative, default=1.0, help="weight of the reconstruction")
    parser.add_argument("--portrait-weight", type=NonNegative, default=3.0, help="weight of the close-ups")
    parser.add_argument(
        "--caption-weight", type=NonNegative, default=4.0, help="weight of the words that describe the video"
    )
    parser.add_argument("--joints-weight", type=NonNegative, default=10.0, help="weight of the joint positions")
    parser.add_argument("--tokens-weight", type=NonNegative, default=10.0, help="weight of the joints that tokens hold")
    parser.add_argument("--masked-share", type=Share, default=0.4, help="share of steps that hide half of the patches")
    parser.add_argument("--subjects", type=Count, default=600, help="people in the training videos")
    parser.add_argument("--per-subject", type=Count, default=6, help="videos of each")
    parser.add_argument("--save-every", type=Count, default=500, help="steps between saved states")
    parser.add_argument("--seed", type=Seed, default=0, help="weights, batches and augmentation")
    parser.add_argument("--workers", type=Few, default=2, help="processes that render")
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=automatic, help="where to train")
    return parser.parse_args(arguments)


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    with claimed(options.out, is_folder=True):
        train(options)


if __name__ == "__main__":
    cli.run(main)

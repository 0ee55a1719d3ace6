"""The encoder's own training clips: people and scenes of no world, kept in one uint8 array on disk.

Frames pass through the preparation that extraction uses (short side to 80 pixels, antialiased bilinear), but keep some
columns beyond the centre crop for random crops. Action labels, positions (joints, eyes, mouth, other people) and the
words of a caption come along; the words are not the attributes that evaluations attack, but they overlap with them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from splavu.runtime.files import write_text
from splavu.runtime.workers import worker_processes
from splavu.synthetic.drawing.render import FPS, FRAME_SIZE, locate
from splavu.synthetic.layouts import film
from splavu.synthetic.people.motions import ACTIONS
from splavu.synthetic.plans import Plan, generator, sample_plans, sample_subjects, stage
from splavu.synthetic.world import generator_version

SIDE = 80
"""Pixels of the encoder's input."""
CLIP = 16
"""Frames of the encoder's input."""
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

SEED = 735_134_400
"""Seed of the pre-training people; a world with this very seed would meet none of them either (other group names)."""
FRAMES = 24
_MARGIN = 6


def shrink(frames: np.ndarray) -> Tensor:  # [T, H, W, 3] uint8 -> [T, 3, 80, W'] uint8
    """Short side to 80 pixels, antialiased bilinear, long side in proportion (rounded down)."""
    height, width = frames.shape[1:3]
    size = (SIDE, SIDE * width // height) if height <= width else (SIDE * height // width, SIDE)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    small = interpolate(pixels, size=size, mode="bilinear", antialias=True, align_corners=False)
    return small.round().clamp(0, 255).to(torch.uint8)


def normalise(clips: Tensor) -> Tensor:  # [B, T, 3, H, W] in 0..255 -> the same, ImageNet mean and deviation
    mean, std = (torch.tensor(value, device=clips.device).view(3, 1, 1) for value in (MEAN, STD))
    return (clips.float() / 255.0 - mean) / std


def _draw(plan: Plan) -> np.ndarray:  # -> [FRAMES, 3, 80, 92] uint8
    small = shrink(film(plan, SEED, "pretraining", num_frames=FRAMES))
    left = (small.shape[-1] - SIDE) // 2 - _MARGIN
    return small[..., left : left + SIDE + 2 * _MARGIN].contiguous().numpy()


JOINTS = 13
"""The first marks: joints of the main person."""
MARK_GROUPS = (*((joint,) for joint in range(JOINTS)), (13, 14), (15,), (16,), (17,), (18, 20, 22), (19, 21, 23))
"""Marks that mean the same: each joint, eyes, mouth, a companion's head and pelvis, heads and pelvises of a group."""
NUM_MARKS = 24


def _marks(plan: Plan) -> np.ndarray:  # -> [FRAMES, 24, 2]
    """Columns and rows of all marks on the arrays of `_draw`; NaN for what isn't there."""
    shot = stage(plan, generator(SEED, "pretraining", "video", plan.index))
    seconds = shot.seconds_offset + np.arange(FRAMES) / FPS
    points = np.full((FRAMES, NUM_MARKS, 2), np.nan)
    following = 18
    for person in shot.people:
        joints, face = locate(shot.scene, person, seconds)
        if person.role == "main":
            points[:, :JOINTS], points[:, JOINTS : JOINTS + 3] = joints, face
        elif person.role == "companion":
            points[:, 16:18] = joints[:, [0, 2]]
        else:
            points[:, following : following + 2] = joints[:, [0, 2]]
            following += 2
    width, height = FRAME_SIZE
    small = SIDE * width // height
    return points * (small / width, SIDE / height) - ((small - SIDE) // 2 - _MARGIN, 0)


CAPTION_WORDS = (
    "woman", "dark", "bald", "long hair", "bun", "beard", "bare chest", "skirt", "shorts", "stripes", "sunglasses",
    "mask", "helmet", "cap", "facing us", "in profile", "from behind", "with somebody", "workers behind",
)  # fmt: skip
"""What a caption of a video might say of the people in it, as captions of the web do."""


def _caption(plan: Plan) -> np.ndarray:  # -> [W] of 0 and 1
    """Which of `CAPTION_WORDS` a describer would use for this video."""
    shot = stage(plan, generator(SEED, "pretraining", "video", plan.index))
    main, roles = shot.people[-1], [person.role for person in shot.people]
    subject, outfit, turned = main.subject, main.outfit, abs(float(main.azimuth))
    said = (
        subject.female,
        subject.dark_skin,
        subject.hair_length < 0.1,
        subject.hair_length > 0.6,
        subject.bun,
        subject.beard > 0.5,
        outfit.bare,
        outfit.skirt,
        outfit.shorts,
        outfit.stripes,
        outfit.cover == "sunglasses",
        outfit.cover == "mask",
        outfit.cover == "helmet",
        outfit.cap is not None,
        turned < 0.9 and outfit.cover == "none",
        0.9 <= turned < 2.0,
        turned >= 2.0,
        "companion" in roles,
        "group" in roles,
    )
    return np.array(said, dtype=np.float32)


def _single_threaded() -> None:
    import cv2

    cv2.setNumThreads(1)
    torch.set_num_threads(1)


@dataclass(frozen=True)
class TrainingVideos:
    pixels: np.ndarray  # [N, 24, 3, 80, 92] uint8
    marks: np.ndarray  # [N, 24, 24, 2] columns and rows on these pixels, NaN for what isn't there
    actions: np.ndarray  # [N] int64
    captions: np.ndarray  # [N, W] float32, which words describe the video


def render_clips(folder: Path, *, subjects: int, per_subject: int, workers: int) -> TrainingVideos:
    """Render or reopen the training videos."""
    from tqdm import tqdm

    people = sample_subjects(SEED, "pretraining", subjects)
    plans = sample_plans(SEED, "pretraining", people, per_subject=per_subject)
    actions = np.array([ACTIONS.index(plan.action) for plan in plans])
    points = np.stack([_marks(plan) for plan in plans]).astype(np.float32)
    captions = np.stack([_caption(plan) for plan in plans])
    identity = {"generator": generator_version("hmdb51"), "subjects": subjects, "per_subject": per_subject}
    path, note = folder / "videos.npy", folder / "videos.json"
    if note.exists() and json.loads(note.read_text()) == identity:
        return TrainingVideos(np.load(path), points, actions, captions)
    folder.mkdir(parents=True, exist_ok=True)
    shape = (len(plans), FRAMES, 3, SIDE, SIDE + 2 * _MARGIN)
    videos = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    shown = partial(tqdm, total=len(plans), unit="video", desc="render")
    if workers <= 1:
        for index, plan in enumerate(shown(plans)):
            videos[index] = _draw(plan)
    else:
        with worker_processes(workers, _single_threaded) as pool:
            for index, frames in enumerate(shown(pool.map(_draw, plans, chunksize=16))):
                videos[index] = frames
    videos.flush()
    write_text(note, json.dumps(identity))
    return TrainingVideos(np.load(path), points, actions, captions)


@dataclass(frozen=True)
class Batch:
    clips: Tensor  # [B, 16, 3, 80, 80] bfloat16, normalised
    marks: Tensor  # [B, 4, 24, 2] at the middle of each tubelet, -1..1 over the picture
    actions: Tensor  # [B]
    captions: Tensor  # [B, W]


def draw_batch(videos: TrainingVideos, *, static: np.ndarray, rng: np.random.Generator) -> Batch:
    """Cut, augment and normalise one clip of a random video per entry of `static` [B]; where true, one frame tiled.

    Augmentation: temporal start, place of the crop, for a tenth of the clips a crop of 80 to 100 % of the side,
    brightness, contrast and tint. No flip.
    """
    count = len(static)
    chosen = rng.integers(len(videos.actions), size=count)
    pixels = np.empty((count, CLIP, 3, SIDE, SIDE), np.uint8)
    marks = np.empty((count, CLIP, NUM_MARKS, 2), np.float32)
    for row, (video, still) in enumerate(zip(chosen, static, strict=True)):
        start = int(rng.integers(FRAMES if still else FRAMES - CLIP + 1))
        span = slice(start, start + (1 if still else CLIP))
        side = int(rng.integers(round(0.8 * SIDE), SIDE + 1)) if rng.random() < 0.1 else SIDE
        top, left = int(rng.integers(SIDE - side + 1)), int(rng.integers(SIDE + 2 * _MARGIN - side + 1))
        crop = videos.pixels[video, span, :, top : top + side, left : left + side]
        if side != SIDE:
            crop = interpolate(torch.from_numpy(crop), size=(SIDE, SIDE), mode="bilinear", align_corners=False).numpy()
        pixels[row] = crop
        marks[row] = (videos.marks[video, span] - (left, top)) * (2.0 / side) - 1.0
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD))
    gain = torch.from_numpy(rng.uniform(0.85, 1.15, (count, 1)) * rng.normal(1.0, 0.02, (count, 3))).float()
    shift = torch.from_numpy(rng.normal(0.0, 6.0, (count, 1))).float()
    scale = gain.view(count, 1, 3, 1, 1) / (255.0 * std)
    offset = shift.view(count, 1, 1, 1, 1) / (255.0 * std) - mean / std
    clips = torch.addcmul(offset.bfloat16(), torch.from_numpy(pixels).bfloat16(), scale.bfloat16())
    middles = marks[:, 2::4].copy()
    return Batch(
        clips,
        torch.from_numpy(middles),
        torch.from_numpy(videos.actions[chosen]),
        torch.from_numpy(videos.captions[chosen]),
    )

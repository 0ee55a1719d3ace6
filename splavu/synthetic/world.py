"""`synthesize`: the whole synthetic world in one folder, in the layouts of the real data sets.

The world's identity is (seed, size, scene bias, generator version). A finished folder names it in `MANIFEST.json`, one
under way in `MANIFEST.partial.json`; the same identity returns at once or resumes, another is refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from splavu.errors import UserError, nearest

from . import layouts
from .motions import ACTIONS
from .plans import Plan, sample_plans, sample_subjects

log = logging.getLogger(__name__)

FORMAT = 1
MANIFEST = "MANIFEST.json"
UNDER_WAY = "MANIFEST.partial.json"


@dataclass(frozen=True)
class Split:
    """How many people, and videos or pictures of each."""

    subjects: int
    per_subject: int


@dataclass(frozen=True)
class Size:
    """One row of `SIZES`."""

    hmdb51: dict[str, Split]
    vispr: dict[str, Split]
    actions: tuple[str, ...] = ACTIONS
    lengths: tuple[int, int] = (34, 90)
    """Fewest and most frames of a video."""


SIZES: dict[str, Size] = {
    "tiny": Size(
        hmdb51={"train": Split(4, 3), "val": Split(2, 3), "test": Split(2, 3)},
        vispr={"train": Split(8, 3), "test": Split(6, 2)},
        actions=("jumping_jack", "walk", "wave"),
        lengths=(34, 50),
    ),
    "small": Size(
        hmdb51={"train": Split(50, 12), "val": Split(16, 10), "test": Split(34, 9)},
        vispr={"train": Split(100, 4), "test": Split(50, 4)},
    ),
    "full": Size(
        hmdb51={"train": Split(200, 12), "val": Split(60, 12), "test": Split(120, 12)},
        vispr={"train": Split(400, 5), "test": Split(200, 5)},
    ),
}


def synthesize(
    out: Path, *, seed: int, size: str, workers: int = 2, scene_bias: float = 0.0, progress: bool = False
) -> Path:
    """Render the world into a folder, or return at once if it is already there.

    Args:
        out: Folder; made if missing.
        seed: Any non-negative integer. People, scenes and splits all follow from it.
        size: `tiny` (36 pictures and 24 videos, seconds), `small` (about 1100 videos) or `full` (4500).
        workers: Processes that render; 1 stays in this one. The pixels don't depend on it.
        scene_bias: Probability that a video's backdrop is the one tied to its action.
        progress: Show a progress bar.

    Returns:
        `out`.

    Raises:
        UserError: The folder holds another world, or other data in its place, or an argument is out of range.
    """
    if size not in SIZES:
        raise UserError(f"size '{size}'", "is unknown", nearest(size, SIZES))
    if seed < 0:
        raise UserError(f"seed {seed}", "is negative", "give 0 or more")
    if not 0.0 <= scene_bias <= 1.0:
        raise UserError(f"scene bias {scene_bias}", "is no probability", "give a number from 0 to 1")
    identity = {
        "format": FORMAT, "seed": seed, "size": size, "scene_bias": float(scene_bias), "generator": generator_version(),
    }  # fmt: skip
    if _is_finished(out, identity):
        return out
    layouts.write_bytes(out / UNDER_WAY, _json(identity))
    world = plan_world(seed, size, scene_bias=scene_bias)
    jobs: list[Callable[[], None]] = []
    for split, plans in world["hmdb51"].items():
        jobs += [partial(layouts.write_video, plan, seed, f"hmdb51/{split}", out / "hmdb51") for plan in plans]
    for split, plans in world["vispr"].items():
        jobs += [partial(layouts.write_image, plan, seed, f"vispr/{split}", split, out / "vispr") for plan in plans]
    _run(jobs, workers=workers, progress=progress)
    layouts.write_hmdb_labels(out / "hmdb51", world["hmdb51"], SIZES[size].actions)
    layouts.write_vispr_labels(out / "vispr", world["vispr"])
    layouts.write_bytes(out / "README.md", _card(identity).encode())
    counts = {name: {split: len(plans) for split, plans in splits.items()} for name, splits in world.items()}
    layouts.write_bytes(out / MANIFEST, _json({**identity, "counts": counts, "splits": asdict(SIZES[size])}))
    (out / UNDER_WAY).unlink()
    return out


def plan_world(seed: int, size: str, *, scene_bias: float = 0.0) -> dict[str, dict[str, list[Plan]]]:
    """Set name -> split -> plans. No person appears in two splits or two sets."""
    rows = SIZES[size]
    world: dict[str, dict[str, list[Plan]]] = {"hmdb51": {}, "vispr": {}}
    for split, row in rows.hmdb51.items():
        people = sample_subjects(seed, f"h{split}", row.subjects)
        world["hmdb51"][split] = sample_plans(
            seed, f"hmdb51/{split}", people, per_subject=row.per_subject, actions=rows.actions,
            lengths=rows.lengths, scene_bias=scene_bias,
        )  # fmt: skip
    for split, row in rows.vispr.items():
        people = sample_subjects(seed, f"v{split}", row.subjects)
        world["vispr"][split] = sample_plans(
            seed, f"vispr/{split}", people, per_subject=row.per_subject, scene_bias=scene_bias
        )
    return world


def generator_version() -> str:
    """A hash of the code that decides pixels and labels: another version is another world."""
    digest = hashlib.sha256()
    for name in (
        "canvas", "figures", "layouts", "motions", "plans", "render", "scenes", "skeleton", "subjects", "world",
    ):  # fmt: skip
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return digest.hexdigest()[:16]


def _is_finished(out: Path, identity: dict) -> bool:
    """Whether this very world is complete; refuses a folder that holds something else."""
    for name, finished in ((MANIFEST, True), (UNDER_WAY, False)):
        if not (out / name).exists():
            continue
        try:
            found = json.loads((out / name).read_text())
        except ValueError as error:
            raise UserError(out / name, "is no JSON", "remove the folder and synthesize again") from error
        different = [key for key, value in identity.items() if found.get(key) != value]
        if different:
            told = ", ".join(f"{key} {found.get(key)} instead of {identity[key]}" for key in different)
            raise UserError(out, f"holds another synthetic world ({told})", "choose another folder or remove this one")
        return finished
    occupied = [name for name in ("hmdb51", "vispr") if (out / name).exists()]
    if occupied:
        raise UserError(
            out / occupied[0], "exists and is not of a synthetic world", "choose another folder; nothing was written"
        )
    return False


def _run(jobs: list[Callable[[], None]], *, workers: int, progress: bool) -> None:
    from tqdm import tqdm

    shown = partial(tqdm, total=len(jobs), unit="file", desc="synthesize", disable=not progress)
    if workers <= 1:
        for job in shown(jobs):
            job()
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_single_threaded) as pool:
        for _ in shown(pool.map(_call, jobs, chunksize=8)):
            pass


def _single_threaded() -> None:
    import cv2

    cv2.setNumThreads(1)


def _call(job: Callable[[], None]) -> None:
    job()


def _json(content: dict) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _card(identity: dict) -> str:
    return f"""# Synthetic world

Rendered by `splavu.synthetic` (seed {identity["seed"]}, size {identity["size"]}, scene bias {identity["scene_bias"]},
generator {identity["generator"]}). No real person is shown.

`hmdb51/` has the layout of HMDB51 ({", ".join(ACTIONS)}), `vispr/` that of VISPR. Splits share no subject.
`hmdb51/private_labels.csv` gives subject, split and private attributes of each video, `vispr/subjects.csv` those of
each picture.

The seven attributes, in VISPR's order, as they are meant here:

| attribute | 1 means |
|---|---|
| skin_color | the main person has a dark skin tone (a property of the subject) |
| gender | presents as female: body shape, hair, clothes (a property of the subject) |
| complete_face | the face is turned to the camera and uncovered |
| partial_face | profile or three-quarter view, or sunglasses, or a mask; never together with complete_face |
| semi_nudity | bare torso, or a swimming top |
| personal_relationship | a second person in touch with the main one |
| social_relationship | two or three people further back, dressed alike |

They are independent of each other and of the action, with shares of 0.5, 0.5, 0.4, 0.35, 0.25, 0.3 and 0.25.
Licence of the pictures: CC0.
"""

"""`synthesize`: the synthetic world in one folder, set by set, in the layouts of the real data sets.

The world's identity is (seed, size, scene bias), a set's identity also the version of the code that draws it. Finished
sets are listed in `MANIFEST.json`, unfinished ones in `MANIFEST.partial.json`: a finished set returns at once, an
unfinished one resumes, a new one is added to the folder and changes no other set, and another world is refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from splavu.errors import UserError, nearest
from splavu.runtime import extras, signals
from splavu.runtime.files import claimed, write_bytes
from splavu.runtime.workers import worker_processes
from splavu.synthetic import layouts
from splavu.synthetic.datasets import casia_b, ntu, pahmdb51, smarthome, thumos14, ucf101, ucf_crime, vp
from splavu.synthetic.people.motions import ACTIONS
from splavu.synthetic.plans import Split, sample_splits

log = logging.getLogger(__name__)

FORMAT = 2
MANIFEST = "MANIFEST.json"
UNDER_WAY = "MANIFEST.partial.json"
TRIMMED = ("hmdb51", "vispr")
"""The sets that are rendered when none are named."""


@dataclass(frozen=True)
class Size:
    """One row of `SIZES`: for each set, people and videos of its splits."""

    hmdb51: dict[str, Split]
    vispr: dict[str, Split]
    thumos14: dict[str, Split]
    ucf_crime: dict[str, Split]
    casia_b_subjects: dict[str, int]
    ntu: dict[str, Split]
    tsh: dict[str, Split]
    ucf101: dict[str, Split]
    actions: tuple[str, ...] = ACTIONS
    lengths: tuple[int, int] = (34, 90)
    """Fewest and most frames of a trimmed video."""
    thumos14_seconds: tuple[float, float] = (20.0, 65.0)
    """Shortest and longest video."""
    ucf_crime_seconds: tuple[float, float] = (14.5, 26.0)
    ucf_crime_abnormal: float = 0.45
    """Share of abnormal videos."""
    casia_b_views: tuple[int, ...] = casia_b.VIEWS
    casia_b_lengths: tuple[int, int] = (34, 50)
    ntu_actions: tuple[str, ...] = tuple(ntu.NUMBERS)
    tsh_activities: tuple[str, ...] = tuple(smarthome.MOTION_OF)
    short_lengths: tuple[int, int] = (34, 44)
    """Fewest and most frames of a video of ntu, tsh or ucf101."""

    @property
    def casia_b(self) -> dict[str, Split]:
        videos = casia_b.WALKS * len(self.casia_b_views)
        return {split: Split(subjects, videos) for split, subjects in self.casia_b_subjects.items()}


SIZES: dict[str, Size] = {
    "tiny": Size(
        hmdb51={"train": Split(4, 3), "val": Split(2, 3), "test": Split(2, 3)},
        vispr={"train": Split(8, 3), "test": Split(6, 2)},
        thumos14={"validation": Split(2, 2), "test": Split(2, 1)},
        ucf_crime={"train": Split(3, 2), "test": Split(2, 2)},
        casia_b_subjects={"train": 2, "test": 2},
        ntu={"train": Split(2, 6), "test": Split(2, 6)},
        tsh={"train": Split(4, 3), "test": Split(2, 3)},
        ucf101={"train": Split(2, 3), "test": Split(2, 3)},
        actions=("jumping_jack", "walk", "wave"),
        lengths=(34, 50),
        thumos14_seconds=(6.0, 9.0),
        ucf_crime_seconds=(9.0, 11.0),
        ucf_crime_abnormal=0.5,
        casia_b_views=(0, 90),
        ntu_actions=("brush_hair", "drink", "wave"),
        tsh_activities=("Drink.Frombottle", "Usetelephone", "Walk"),
    ),
    "quick": Size(
        hmdb51={"train": Split(40, 8), "val": Split(14, 6), "test": Split(28, 7)},
        vispr={"train": Split(40, 3), "test": Split(24, 3)},
        thumos14={"validation": Split(20, 1), "test": Split(12, 1)},
        ucf_crime={"train": Split(26, 2), "test": Split(12, 2)},
        casia_b_subjects={"train": 4, "test": 8},
        ntu={"train": Split(8, 24), "test": Split(10, 24)},
        tsh={"train": Split(11, 9), "test": Split(7, 9)},
        ucf101={"train": Split(18, 6), "test": Split(7, 6)},
        lengths=(34, 50),
        thumos14_seconds=(12.0, 26.0),
        ucf_crime_seconds=(12.0, 17.0),
        casia_b_views=(0, 54, 90, 126),
    ),
    "small": Size(
        hmdb51={"train": Split(50, 12), "val": Split(16, 10), "test": Split(34, 9)},
        vispr={"train": Split(100, 4), "test": Split(50, 4)},
        thumos14={"validation": Split(30, 2), "test": Split(15, 2)},
        ucf_crime={"train": Split(40, 2), "test": Split(17, 2)},
        casia_b_subjects={"train": 6, "test": 14},
        ntu={"train": Split(14, 36), "test": Split(20, 48)},
        tsh={"train": Split(11, 27), "test": Split(7, 29)},
        ucf101={"train": Split(18, 12), "test": Split(7, 12)},
        casia_b_views=(0, 54, 90, 126),
    ),
    "full": Size(
        hmdb51={"train": Split(200, 12), "val": Split(60, 12), "test": Split(120, 12)},
        vispr={"train": Split(400, 5), "test": Split(200, 5)},
        thumos14={"validation": Split(100, 2), "test": Split(106, 2)},
        ucf_crime={"train": Split(200, 2), "test": Split(70, 2)},
        casia_b_subjects={"train": 40, "test": 40},
        ntu={"train": Split(14, 96), "test": Split(20, 60)},
        tsh={"train": Split(11, 120), "test": Split(7, 120)},
        ucf101={"train": Split(18, 60), "test": Split(7, 60)},
    ),
}

Videos = dict[str, list[Any]]
"""Split -> the plans of the set, of its own type."""


@dataclass(frozen=True)
class DataSet:
    """One row of `SETS`."""

    plan: Callable[[int, Size, float], Videos]
    """(seed, size, scene bias) -> what each split shows. No person appears in two splits or two sets."""
    draw: Callable[[Any, int, str, Path], None] | None
    """(plan, seed, split, the set's folder): write one video or picture, if it isn't there; None: labels only."""
    label: Callable[[Path, Videos, Size], None]
    """(the set's folder, plans, size): write the tables."""
    modules: tuple[str, ...]
    """Modules that decide its pixels and labels, besides `SHARED`."""
    card: str
    """What the data root's README says of it."""


SHARED = (
    "drawing/canvas",
    "people/figures",
    "layouts",
    "people/motions",
    "plans",
    "drawing/recording",
    "drawing/render",
    "drawing/scenes",
    "people/skeleton",
    "people/subjects",
)


def _plan_hmdb51(seed: int, size: Size, scene_bias: float) -> Videos:
    return sample_splits(
        seed, "hmdb51", size.hmdb51, actions=size.actions, lengths=size.lengths, scene_bias=scene_bias
    )  # fmt: skip


def _plan_vispr(seed: int, size: Size, scene_bias: float) -> Videos:
    return sample_splits(seed, "vispr", size.vispr, scene_bias=scene_bias)


def _classes(size: Size) -> tuple[str, ...]:
    return tuple(action for action in size.actions if action in thumos14.CLASSES)


def _plan_thumos14(seed: int, size: Size, scene_bias: float) -> Videos:
    return thumos14.sample_videos(
        seed, size.thumos14, seconds=size.thumos14_seconds, actions=_classes(size), scene_bias=scene_bias
    )


def _plan_ucf_crime(seed: int, size: Size, scene_bias: float) -> Videos:
    return ucf_crime.sample_videos(
        seed, size.ucf_crime, seconds=size.ucf_crime_seconds, abnormal=size.ucf_crime_abnormal, scene_bias=scene_bias
    )


def _plan_casia_b(seed: int, size: Size, scene_bias: float) -> Videos:  # everybody walks in the same room
    return casia_b.sample_videos(seed, size.casia_b_subjects, views=size.casia_b_views, lengths=size.casia_b_lengths)


def _plan_pa_hmdb51(seed: int, size: Size, scene_bias: float) -> Videos:
    videos = _plan_hmdb51(seed, size, scene_bias)
    return {split: [pahmdb51.Take(plan, seed, split) for plan in videos[split]] for split in pahmdb51.SPLITS}


def _plan_vp(seed: int, size: Size, scene_bias: float) -> Videos:
    return {
        "hmdb51": vp.of_hmdb51(_plan_hmdb51(seed, size, scene_bias)),
        "ucf101": vp.of_ucf101(_plan_ucf101(seed, size, scene_bias)),
    }


def _plan_ntu(seed: int, size: Size, scene_bias: float) -> Videos:
    return ntu.sample_videos(
        seed, size.ntu, actions=size.ntu_actions, lengths=size.short_lengths, scene_bias=scene_bias
    )


def _plan_tsh(seed: int, size: Size, scene_bias: float) -> Videos:
    return smarthome.sample_videos(
        seed, size.tsh, activities=size.tsh_activities, lengths=size.short_lengths, scene_bias=scene_bias
    )


def _plan_ucf101(seed: int, size: Size, scene_bias: float) -> Videos:
    return ucf101.sample_videos(
        seed, size.ucf101, actions=size.actions, lengths=size.short_lengths, scene_bias=scene_bias
    )


SETS: Mapping[str, DataSet] = MappingProxyType(
    {
        "hmdb51": DataSet(
            plan=_plan_hmdb51,
            draw=lambda plan, seed, split, folder: layouts.write_video(plan, seed, f"hmdb51/{split}", folder),
            label=lambda folder, videos, size: layouts.write_hmdb_labels(folder, videos, size.actions),
            modules=(),
            card=f"""`hmdb51/` has the layout of HMDB51 ({", ".join(ACTIONS)}); `private_labels.csv` gives subject,
split and private attributes of each video.""",
        ),
        "vispr": DataSet(
            plan=_plan_vispr,
            draw=lambda plan, seed, split, folder: layouts.write_image(plan, seed, f"vispr/{split}", split, folder),
            label=lambda folder, pictures, size: layouts.write_vispr_labels(folder, pictures),
            modules=(),
            card="`vispr/` has the layout of VISPR; `subjects.csv` gives the same for each picture.",
        ),
        "thumos14": DataSet(
            plan=_plan_thumos14,
            draw=lambda video, seed, split, folder: thumos14.write_video(video, seed, folder),
            label=lambda folder, videos, size: thumos14.write_labels(folder, videos, _classes(size)),
            modules=("people/gestures", "people/timelines", "datasets/thumos14"),
            card="""`thumos14/` has the layout of THUMOS14: untrimmed videos in which people idle about and now and
then perform one of the actions (all but `walk`, which is background here). `thumos14.json` has the published file's
format, `Validation` trains, and `private_labels.csv` is as above. A segment begins at the first frame in which the pose
moves towards the action and ends after the last in which it still returns from it.""",
        ),
        "ucf_crime": DataSet(
            plan=_plan_ucf_crime,
            draw=lambda video, seed, split, folder: ucf_crime.write_video(video, seed, folder),
            label=lambda folder, videos, size: ucf_crime.write_labels(folder, videos),
            modules=(
                "people/gestures",
                "people/mishaps",
                "people/surveillance",
                "people/timelines",
                "datasets/ucf_crime",
            ),
            card="""`ucf_crime/` has the layout of UCF-Crime: videos of calm scenes, some with a fight, a fall or
somebody fleeing. There are fewer and shorter ones than in UCF-Crime. `ucf-i3d.list` (training, abnormal first) and
`ucf-i3d-test.list` name them, `gt-ucf.npy` holds the truth of the test videos in the order of the list, frame by frame,
and `Temporal_Anomaly_Annotation_for_Testing_Videos.txt` the same in UCF-Crime's own format (last frames count in).
`private_labels.csv` is as above; personal_relationship does not occur.""",
        ),
        "casia_b": DataSet(
            plan=_plan_casia_b,
            draw=lambda walk, seed, split, folder: casia_b.write_video(walk, seed, folder),
            label=lambda folder, videos, size: casia_b.write_labels(folder, videos),
            modules=("datasets/casia_b",),
            card="""`casia_b/` has the layout of Casia-B: `videos/SSS-TT-NN-VVV.avi`, subject, walk (`nm` normal, `bg`
with a bag, `cl` in a long coat), repetition and view in degrees (000 towards the camera, 090 to the right). Subjects
001 and up train, 075 and up are tested. A subject's clothes are the same in all walks, under the coat too; cameras and
backdrops are the same for all subjects. In `private_labels.csv` the faces follow from the view, and semi_nudity and the
relationships don't occur.""",
        ),
        "pa_hmdb51": DataSet(
            plan=_plan_pa_hmdb51,
            draw=None,
            label=lambda folder, videos, size: pahmdb51.write_labels(folder, videos),
            modules=("datasets/pahmdb51",),
            card="""`pa_hmdb51/` has the format of PA-HMDB51: `PrivacyAttributes/<action>.json` gives ranges of frames
(the last counts in) with what is seen in the validation and test videos of `hmdb51`; it has no videos of its own. Face
(0 none, 1 partial, 2 complete) and nudity (0 none, 1 short sleeves, shorts or a skirt, 2 bare) are the main person's.
skin_color is 1 for light, 2 or 3 for dark skin, and 0 where neither a face nor bare arms, legs or torso are seen;
gender is 1 male, 2 female, and 0 where a helmet hides the head and neither a chest turned to the camera, a skirt nor a
bare torso reveals it; both are lists where the companion's differ. relationship is 1 with a companion. As in the
published files a few videos have no label for their first frames, and one frame is in two ranges.""",
        ),
        "vp": DataSet(
            plan=_plan_vp,
            draw=None,
            label=lambda folder, videos, size: vp.write_labels(folder, videos),
            modules=("trimmed", "datasets/ucf101", "datasets/vp"),
            card="""`vp/` has the format of VP-HMDB51 and VP-UCF101: a label such as "[0. 1. 0. 1. 1.]" for every video
of `hmdb51` and `ucf101`, named by its path below `videos`. In this order 1 means: dark skin, a complete or partial
face, presents as female, bare, a companion. It has no videos of its own.""",
        ),
        "ntu": DataSet(
            plan=_plan_ntu,
            draw=lambda video, seed, split, folder: ntu.write_video(video, seed, split, folder),
            label=lambda folder, videos, size: ntu.write_labels(folder, videos),
            modules=("people/daily_actions", "datasets/ntu", "trimmed"),
            card=f"""`ntu/` has the file names and subjects of NTU RGB+D (those the protocol leaves out are not
there): daily gestures, filmed from closer ({", ".join(f"A{n:03d} {name}" for name, n in ntu.NUMBERS.items())}).
`ntu_subject_gender_labels.json` has the gender of each subject, `ntu_val_labels.csv` that of each test video, and
`private_labels.csv` is as above. Everybody does everything equally often; hair is brushed in several ways, each of
which resembles another action. NTU-Bias-F and NTU-Bias-M are drawn from it.""",
        ),
        "tsh": DataSet(
            plan=_plan_tsh,
            draw=lambda video, seed, split, folder: smarthome.write_video(video, seed, split, folder),
            label=lambda folder, videos, size: smarthome.write_labels(folder, videos, size.tsh_activities),
            modules=("people/daily_actions", "datasets/smarthome", "trimmed"),
            card="""`tsh/` has the layout of Toyota Smarthome, with the subjects of its cross-subject split: three women
and eight men train. `tsh_labels.csv` counts classes from 1, as `tsh_class_mapping.json` names them. Women and men are
not filmed at the same activities equally often, so here gender does depend on the action. `private_labels.csv` is as
above; its actions are those of the synthetic world.""",
        ),
        "ucf101": DataSet(
            plan=_plan_ucf101,
            draw=lambda video, seed, split, folder: ucf101.write_video(video, seed, split, folder),
            label=lambda folder, videos, size: ucf101.write_labels(folder, videos, size.actions),
            modules=("trimmed", "datasets/ucf101"),
            card="""`ucf101/` has the layout of UCF101: a folder for each class, a group (`g01`) for each subject, and
`ucfTrainTestlist/` with the first split, in which groups 1 to 7 are tested on. The actions are those of `hmdb51`.
`private_labels.csv` is as above.""",
        ),
    }
)
"""Set name -> how it is planned, drawn and labelled."""


def synthesize(
    out: Path,
    *,
    seed: int,
    size: str,
    sets: Sequence[str] = TRIMMED,
    workers: int = 2,
    scene_bias: float = 0.0,
    progress: bool = False,
) -> Path:
    """Render sets of the world into a folder; finished sets are skipped.

    Args:
        out: Folder; made if missing.
        seed: Any non-negative integer. People, scenes and splits all follow from it.
        size: `tiny` (seconds), `quick` (a minute), `small` or `full`; `SIZES` has the numbers.
        sets: Names of `SETS`. More can be added to the folder later.
        workers: Processes that render; 1 stays in this one. The pixels don't depend on it.
        scene_bias: Probability that a video's backdrop is the one tied to its action.
        progress: Show a progress bar.

    Returns:
        `out`.

    Raises:
        UserError: The folder holds another world, or other data in its place, or an argument is out of range; the
            extra `video` is missing.
    """
    if size not in SIZES:
        raise UserError(f"size '{size}'", "is unknown", nearest(size, SIZES))
    for name in sets:
        if name not in SETS:
            raise UserError(f"set '{name}'", "is unknown", nearest(name, SETS))
    if seed < 0:
        raise UserError(f"seed {seed}", "is negative", "give 0 or more")
    if not 0.0 <= scene_bias <= 1.0:
        raise UserError(f"scene bias {scene_bias}", "is not a probability", "give a number from 0 to 1")
    for package in ("cv2", "av"):
        extras.check(package, extra="video", why="the world is drawn and encoded with it")
    identity = {"format": FORMAT, "seed": seed, "size": size, "scene_bias": float(scene_bias)}
    versions = {name: generator_version(name) for name in sets}
    finished, under_way = (_recorded(out / name, identity, versions) for name in (MANIFEST, UNDER_WAY))
    missing = [name for name in versions if name not in finished]
    for name in missing:
        if name not in under_way and (out / name).exists():
            raise UserError(
                out / name, "exists and is not of a synthetic world", "choose another folder; nothing was written"
            )
    if not missing:
        return out
    with claimed(out, is_folder=True):
        under_way |= {name: {"generator": versions[name]} for name in missing}
        write_bytes(out / UNDER_WAY, _json({**identity, "sets": under_way}))
        signals.work_is_kept()
        world = plan_world(seed, size, scene_bias=scene_bias, sets=missing)
        jobs = [
            partial(_draw, name, plan, seed, split, out / name)
            for name, splits in world.items()
            if SETS[name].draw is not None
            for split, plans in splits.items()
            for plan in plans
        ]
        _run(jobs, workers=workers, progress=progress)
        for name, splits in world.items():
            SETS[name].label(out / name, splits, SIZES[size])
            finished[name] = under_way.pop(name) | {
                "counts": {split: len(plans) for split, plans in splits.items()},
                "splits": {split: asdict(row) for split, row in getattr(SIZES[size], name, {}).items()},
            }
        finished = {name: finished[name] for name in SETS if name in finished}
        write_bytes(out / "README.md", _card(identity, finished).encode())
        write_bytes(out / MANIFEST, _json({**identity, "sets": finished}))
        if under_way:
            write_bytes(out / UNDER_WAY, _json({**identity, "sets": under_way}))
        else:
            (out / UNDER_WAY).unlink()
    return out


def plan_world(seed: int, size: str, *, scene_bias: float = 0.0, sets: Sequence[str] = TRIMMED) -> dict[str, Videos]:
    """Set name -> split -> plans. No person appears in two splits or two sets."""
    return {name: SETS[name].plan(seed, SIZES[size], scene_bias) for name in sets}


def generator_version(name: str) -> str:
    """A hash of the code that decides pixels and labels of a set: another version is another set."""
    digest = hashlib.sha256()
    for module in (*SHARED, *SETS[name].modules):
        digest.update((Path(__file__).parent / f"{module}.py").read_bytes())
    return digest.hexdigest()[:16]


def _recorded(path: Path, identity: dict[str, Any], versions: Mapping[str, str]) -> dict[str, dict]:
    """The sets that a manifest names; refuses one of another world, or of one of our sets in another version."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(path, "is not valid JSON", "remove the folder and synthesize again") from error
    different = [
        f"{key} {found.get(key)} instead of {value}" for key, value in identity.items() if found.get(key) != value
    ]
    recorded = {} if different else found["sets"]
    for name, version in versions.items():
        if name in recorded and recorded[name]["generator"] != version:
            different.append(f"{name} of generator {recorded[name]['generator']} instead of {version}")
    if different:
        differences = ", ".join(different)
        raise UserError(
            path.parent, f"holds another synthetic world ({differences})", "choose another folder or remove this one"
        )
    return recorded


def _draw(name: str, plan: Any, seed: int, split: str, folder: Path) -> None:
    SETS[name].draw(plan, seed, split, folder)


def _run(jobs: list[Callable[[], None]], *, workers: int, progress: bool) -> None:
    from tqdm import tqdm

    shown = partial(tqdm, total=len(jobs), unit="file", desc="synthesize", disable=not progress)
    if workers <= 1:
        for job in shown(jobs):
            job()
        return
    with worker_processes(workers, _single_threaded) as pool:
        for _ in shown(pool.map(_call, jobs, chunksize=min(8, 1 + len(jobs) // 200))):
            pass


def _single_threaded() -> None:
    import cv2

    cv2.setNumThreads(1)


def _call(job: Callable[[], None]) -> None:
    job()


def _json(content: dict) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _card(identity: Mapping[str, Any], sets: Mapping[str, dict]) -> str:
    versions = ", ".join(f"{name} {about['generator']}" for name, about in sets.items())
    layouts_told = "\n\n".join(SETS[name].card for name in sets)
    return f"""# Synthetic world

Rendered by `splavu.synthetic` (seed {identity["seed"]}, size {identity["size"]}, scene bias {identity["scene_bias"]};
generators: {versions}). No real person is shown. Splits share no subject.

{layouts_told}

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

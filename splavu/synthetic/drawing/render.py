"""A scene and its people -> frames, and the attributes of the main person that are visible in each frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from splavu.synthetic.drawing.canvas import Canvas
from splavu.synthetic.drawing.scenes import MARGIN, Scene, backdrop, camera_path
from splavu.synthetic.people.figures import draw_person, track
from splavu.synthetic.people.motions import Pose
from splavu.synthetic.people.skeleton import Joints, face_points, joints, keypoints
from splavu.synthetic.people.subjects import Outfit, Subject

FRAME_SIZE = (160, 120)
"""Width and height of the default frame."""
FPS = 30
_OVERSAMPLING = 2

ATTRIBUTES = (
    "skin_color", "gender", "complete_face", "partial_face", "semi_nudity", "personal_relationship",
    "social_relationship",
)  # fmt: skip
"""The seven private attributes, in VISPR's order."""


@dataclass(frozen=True)
class Person:
    """Somebody in the scene: identity, clothes, and movement as functions of time."""

    subject: Subject
    outfit: Outfit
    pose: Callable[[np.ndarray], Pose]
    """Seconds [T] -> joint angles at those moments."""
    place: Callable[[np.ndarray], np.ndarray]
    """Seconds [T] -> ground point [T, 2] in shares of the frame's width and height."""
    azimuth: float | Callable[[np.ndarray], np.ndarray]
    """Heading against the direction to the camera, radians: 0 faces it, pi/2 walks to the right, pi shows the back."""
    height: float = 0.8
    """Body height as a share of the frame's height."""
    role: str = "main"
    """`main`, `companion` (close beside) or `group` (further back)."""


@dataclass(frozen=True)
class Rendered:
    frames: np.ndarray  # [T, H, W, 3] uint8, RGB
    visible: np.ndarray  # [T, A] uint8: the attributes as this frame shows them
    keypoints: np.ndarray  # [T, 13, 2] pixels of the main person's joints (`skeleton.KEYPOINTS`)


def render(
    scene: Scene, people: Sequence[Person], seconds: np.ndarray, *, size: tuple[int, int] = FRAME_SIZE
) -> Rendered:
    """Film the people, given from far to near, at these moments.

    Args:
        scene: Backdrop, light and camera.
        people: Painted in this order; exactly one has the role `main`.
        seconds: Moments of the frames, [T]; need not be evenly spaced.
        size: Width and height of a frame.
    """
    import cv2

    width, height = size
    wide, high = width * _OVERSAMPLING, height * _OVERSAMPLING
    plate = backdrop(scene, wide, high)
    camera = _camera(scene, seconds)
    skeletons = [skeleton_at(person, seconds) for person in people]
    places = [_placed(person, seconds, camera, wide, high) for person in people]
    tracks = [track(skeleton, **place) for skeleton, place in zip(skeletons, places, strict=True)]
    main = next(index for index, person in enumerate(people) if person.role == "main")
    table = _light_table(scene)
    grain = _Grain(scene, size)
    frames = np.empty((len(seconds), height, width, 3), np.uint8)
    corners = np.rint(camera).astype(int) + MARGIN
    for frame, (column, row) in enumerate(corners.tolist()):
        canvas = Canvas(plate[row : row + high, column : column + wide].copy())
        for person, moves in zip(people, tracks, strict=True):
            draw_person(canvas, person.subject, person.outfit, moves, frame)
        small = cv2.resize(canvas.pixels, size, interpolation=cv2.INTER_AREA)
        frames[frame] = grain.apply(cv2.LUT(small, table), seconds[frame])
    return Rendered(
        frames=frames,
        visible=visible_attributes(people, seconds),
        keypoints=keypoints(skeletons[main], **places[main]) / _OVERSAMPLING,
    )


def visible_attributes(people: Sequence[Person], seconds: np.ndarray) -> np.ndarray:  # [T] -> [T, A] uint8
    """What `render` shows of the main person at each moment (`ATTRIBUTES`); nothing is drawn."""
    person = next(person for person in people if person.role == "main")
    roles = {other.role for other in people}
    complete, partial = face_visibility(person, seconds)
    columns = {
        "skin_color": person.subject.dark_skin,
        "gender": person.subject.female,
        "complete_face": complete,
        "partial_face": partial,
        "semi_nudity": person.outfit.bare,
        "personal_relationship": "companion" in roles,
        "social_relationship": "group" in roles,
    }
    return np.stack([np.broadcast_to(columns[name], len(seconds)).astype(np.uint8) for name in ATTRIBUTES], axis=1)


def face_visibility(person: Person, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [T] -> [T], [T] bool
    """Whether somebody's face is seen completely, and whether only in part; never both."""
    skeleton = skeleton_at(person, seconds)
    turned = np.abs((skeleton.gaze + np.pi) % (2 * np.pi) - np.pi)
    bowed = skeleton.pitch > 0.9
    open_face = (turned < np.radians(45)) & ~bowed
    some_face = (turned < np.radians(115)) & ~(bowed & (turned < np.radians(45)))
    complete = open_face & (person.outfit.cover == "none")
    return complete, some_face & ~complete & (person.outfit.cover != "helmet")


def skeleton_at(person: Person, seconds: np.ndarray) -> Joints:
    """Somebody's joints and heading at each moment [T]."""
    azimuth = person.azimuth(seconds) if callable(person.azimuth) else person.azimuth
    return joints(person.pose(seconds), person.subject.body, azimuth=azimuth)


def locate(
    scene: Scene, person: Person, seconds: np.ndarray, *, size: tuple[int, int] = FRAME_SIZE
) -> tuple[np.ndarray, np.ndarray]:  # -> [T, 13, 2], [T, 3, 2]
    """Pixels of somebody's joints (`skeleton.KEYPOINTS`), and of eyes and mouth, NaN where they can't be seen.

    Nothing is drawn. Occlusion by other people and by one's own arms isn't considered.
    """
    skeleton = skeleton_at(person, seconds)
    wide, high = (_OVERSAMPLING * side for side in size)
    place = _placed(person, seconds, _camera(scene, seconds), wide, high)
    face = face_points(skeleton, person.subject.body, **place)
    hidden = face[..., 2] < 0.12
    cover = person.outfit.cover
    hidden |= np.array([cover in ("sunglasses", "helmet")] * 2 + [cover in ("mask", "helmet")])
    face = np.where(hidden[..., None], np.nan, face[..., :2])
    return keypoints(skeleton, **place) / _OVERSAMPLING, face / _OVERSAMPLING


def _camera(scene: Scene, seconds: np.ndarray) -> np.ndarray:  # [T] -> [T, 2] canvas pixels
    return np.clip(_OVERSAMPLING * camera_path(scene, seconds), -MARGIN, MARGIN)


def _placed(person: Person, seconds: np.ndarray, camera: np.ndarray, wide: int, high: int) -> dict:
    """Where the person stands on the canvas and how many pixels a body height has, as keyword arguments."""
    ground = person.place(seconds) * (wide, high) - camera
    return {"ground": ground, "scale": person.height * person.subject.stature * high}


def _light_table(scene: Scene) -> np.ndarray:  # [256, 1, 3] uint8
    level = (np.arange(256) / 255.0)[:, None] ** scene.light.gamma * np.array(scene.light.gain)
    return np.clip(255.0 * level, 0, 255).astype(np.uint8)[:, None]


class _Grain:
    """Sensor noise: two windows of one noise field, drawn again for each moment; one is added, one subtracted."""

    def __init__(self, scene: Scene, size: tuple[int, int]) -> None:
        self.width, self.height = size
        self.seed = scene.seed
        rng = np.random.default_rng(scene.seed + 2)
        shape = (2 * self.height, 2 * self.width, 3)
        self.field = np.abs(rng.normal(0.0, scene.light.noise, shape)).astype(np.uint8)

    def apply(self, frame: np.ndarray, second: float) -> np.ndarray:
        import cv2

        tick = round(second * 1000)
        for operation, salt in ((cv2.add, 7919), (cv2.subtract, 104729)):
            row = (tick * salt + self.seed) % self.height
            column = (tick * (salt + 2) + self.seed // 3) % self.width
            frame = operation(frame, self.field[row : row + self.height, column : column + self.width])
        return frame

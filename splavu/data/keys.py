"""Keys: what a feature store calls a video, and which name in a table means it.

Note: a key is a key. Only a known media extension is ever taken off a name: `show.S01.E05` and `walk_1.25` have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from splavu.errors import UserError

VIDEO_EXTENSIONS = frozenset(
    {".avi", ".mp4", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ts"}
    | {
        ".m2ts",
        ".mts",
        ".vob",
        ".divx",
        ".asf",
        ".ogv",
        ".mxf",
        ".f4v",
        ".3g2",
        ".m2v",
        ".y4m",
        ".h264",
        ".hevc",
        ".gif",
    }
)
"""Of the files that extraction takes for videos."""
IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
"""Of the files that extraction takes for still images."""
MEDIA_EXTENSIONS = VIDEO_EXTENSIONS | IMAGE_EXTENSIONS | {".ogg", ".tif", ".tiff", ".npy", ".npz"}
"""All that may stand at the end of a video's name without being part of its key; upper or lower case."""


def without_extension(name: str) -> str:
    """`"brush_hair/a.b.avi"` -> `"brush_hair/a.b"`: the name less a known media extension."""
    stem, dot, extension = name.rpartition(".")
    return stem if dot and f".{extension.lower()}" in MEDIA_EXTENSIONS else name


def file_key(name: str) -> str:
    """`"brush_hair/a.b.avi"` -> `"a.b"`: the key that extraction gives a video, without folder and media extension."""
    return without_extension(name.rsplit("/", 1)[-1])


def require_below(name: str, *, source: object) -> str:
    """The name, unless it leads out of the folder that it is looked for in.

    Raises:
        UserError: It is empty, absolute, or has a part '..' or a NUL.
    """
    if not name or "\0" in name or name.startswith("/") or ".." in name.split("/"):
        raise UserError(source, f"'{name}' is no name of a file below a folder", "write it without '..'")
    return name


def match_keys(names: Iterable[str], keys: Iterable[str], *, source: object) -> dict[str, str]:
    """The key of a store -> the name in a table that means it, in the order of the keys.

    A name means the key that is the same; of the names and keys that are left, those that are the same without a media
    extension; of the rest, those where the longer path ends in the shorter one.

    Args:
        names: File names as a table has them, each once.
        keys: Of a store, each once; those that no name means are left out.
        source: The table, for the error.

    Raises:
        UserError: Two names mean one key, or one name two keys.
    """
    names, keys = list(names), list(keys)
    found = {key: key for key in set(names).intersection(keys)}
    for ends in (_whole, _ends):
        taken = set(found.values())
        pairs = _pairs([name for name in names if name not in taken], [key for key in keys if key not in found], ends)
        key_of: dict[str, str] = {}
        for name, key in pairs:
            if found.setdefault(key, name) != name:
                problem = f"'{found[key]}' and '{name}' could both be the key '{key}'"
                raise UserError(source, problem, "write the key itself as the file name, or take one of the rows out")
            if key_of.setdefault(name, key) != key:
                problem = f"'{name}' could be the key '{key_of[name]}' or '{key}'"
                raise UserError(source, problem, "write the key itself as the file name")
    return {key: found[key] for key in keys if key in found}


def _pairs(
    names: Sequence[str], keys: Sequence[str], ends: Callable[[str], Iterable[str]]
) -> dict[tuple[str, str], None]:
    """Names and keys of which one, without extension, is among the ends of the other."""
    of_name, of_key = _by_stem(names), _by_stem(keys)
    pairs = [(name, key) for name in names for end in ends(without_extension(name)) for key in of_key.get(end, ())]
    pairs += [(name, key) for key in keys for end in ends(without_extension(key)) for name in of_name.get(end, ())]
    return dict.fromkeys(pairs)


def _by_stem(items: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in items:
        found.setdefault(without_extension(item), []).append(item)
    return found


def _whole(path: str) -> tuple[str, ...]:
    return (path,)


def _ends(path: str) -> list[str]:
    """`"a/b/c"` -> `["a/b/c", "b/c", "c"]`."""
    parts = path.split("/")
    return ["/".join(parts[place:]) for place in range(len(parts))]

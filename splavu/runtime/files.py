"""Writing a file: complete or not at all, and never over something that must not be replaced.

Every file that this program writes whole goes through `replacing`: the new content is written to a temporary file
beside the target, forced to the disk, and moved to the target's name. An interruption at any moment leaves the old file
or the new one; what is left of the temporary file has a name that ends in `TEMPORARY`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from splavu.errors import UserError, writing
from splavu.runtime.locks import locked

PathLike = str | os.PathLike[str]

ROOM = 2**20
"""Bytes that a folder must have room for, where nothing better is known."""
FREE_SPACE = "free space, or choose another output folder"
BLOCK = 4096
FORMATS = {
    "an HDF5 file": b"\x89HDF\r\n\x1a\n",
    "a ZIP archive": b"PK",
    "a Parquet file": b"PAR1",
    "a NumPy array": b"\x93NUMPY",
    "a PNG picture": b"\x89PNG",
    "a JPEG picture": b"\xff\xd8\xff",
    "a PDF": b"%PDF",
}
"""How files of a format begin."""
TEMPORARY = ".tmp"
"""The end of the name of a temporary file; the name begins with a dot and the target's name."""


@contextlib.contextmanager
def replacing(path: PathLike, *, inputs: Iterable[PathLike] = (), durable: bool = True) -> Iterator[Path]:
    """The path of a temporary file that takes the place of `path` when the block ends without an error.

    Args:
        path: The target; its folder is made if there is none.
        inputs: Files and folders that the running command reads: none of them is replaced.
        durable: Force the content to the disk first, so that it also survives a loss of power.

    Raises:
        UserError: `check_target` refuses the target; nothing was written.
        OSError: It can't be written; the target is as it was, and the temporary file is removed.
    """
    path = Path(path)
    check_target(path, inputs=inputs)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id alone would not do: those of two machines that share a file system may agree.
    temporary = _beside(path, f".{os.getpid()}-{uuid.uuid4().hex[:8]}{TEMPORARY}")
    try:
        yield temporary
        _refuse_other_format(path, temporary)
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: PathLike, content: bytes, *, inputs: Iterable[PathLike] = ()) -> Path:
    """Write a file as `replacing` does.

    Raises:
        UserError: The target is refused or can't be written (disk full, read-only); what was there before stays.
    """
    with writing(path), replacing(path, inputs=inputs) as temporary:
        temporary.write_bytes(content)
    return Path(path)


def write_text(path: PathLike, text: str, *, inputs: Iterable[PathLike] = ()) -> Path:
    """Write a text file in UTF-8, with bytes of names that aren't as Python's escapes; otherwise as `write_bytes`."""
    return write_bytes(path, text.encode(errors="backslashreplace"), inputs=inputs)


@contextlib.contextmanager
def claimed(
    path: PathLike,
    *,
    inputs: Iterable[PathLike] = (),
    is_folder: bool = False,
    marks: Sequence[bytes] = (),
    room: int = ROOM,
) -> Iterator[None]:
    """A block in which `path` is this process's to write: what could stop it is found before the work, not after it.

    Args:
        path: A file to be written, or a folder if `is_folder`; the folders that lead to it are made.
        inputs: As for `check_target`.
        is_folder: As for `check_target`.
        marks: As for `check_target`.
        room: Bytes that will be written at least.

    Raises:
        UserError: `check_target` refuses the target; another process is writing it; nothing can be written there, or
            not as much. What was made is removed again.
    """
    path = Path(path)
    check_target(path, inputs=inputs, is_folder=is_folder, marks=marks)
    folder = path if is_folder else path.parent
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        with writing(path):
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            if free < room:
                raise UserError(path, f"its disk has {_size(free)} free, at least {_size(room)} are needed", FREE_SPACE)
            lock = folder / ".lock" if is_folder else _beside(path, ".lock")
            claim = contextlib.ExitStack()
            claim.enter_context(locked(lock, culprit=path, problem="another process is writing it"))
        with claim:
            yield
    finally:
        with contextlib.suppress(OSError):  # those that hold something stay
            for parent in made:
                parent.rmdir()


def check_target(
    path: PathLike, *, inputs: Iterable[PathLike] = (), is_folder: bool = False, marks: Sequence[bytes] = ()
) -> None:
    """Refuse to write to `path` what would destroy something else; to be called before any work and any writing.

    Args:
        path: A file to be written, or a folder if `is_folder`.
        inputs: Files and folders that the running command reads.
        is_folder: The target is a folder of files.
        marks: What every file of this kind that this program has ever written holds one of, near its beginning or end.

    Raises:
        UserError: `path` is an input (the same file under any name), lies in a folder that is an input, or is a folder
            that holds one; it is there, but no regular file (a device, pipe, socket or folder) or, if `is_folder`, no
            folder; it is a symbolic link that leads out of its folder; or a file without any of `marks`.
    """
    path = Path(path)
    with writing(path):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            mode = None
        resolved = _resolved(path)
        if mode is not None and stat.S_ISLNK(mode):
            if not resolved.is_relative_to(path.parent.resolve()):
                raise UserError(path, f"is a link to {resolved}", "give the file itself, or remove the link")
            mode = resolved.stat().st_mode if resolved.exists() else None
        if mode is not None and not (stat.S_ISDIR if is_folder else stat.S_ISREG)(mode):
            raise UserError(path, f"is a {_kind(mode)}: it is not replaced", "give another name for the output")
        if marks and mode is not None and not _holds_one(resolved, marks):
            raise UserError(path, "was not written by this command: it is not replaced", "give another name")
        for name in inputs:
            source = _resolved(name)
            is_same = source == resolved or (mode is not None and source.exists() and source.samefile(resolved))
            if is_same or (source.is_dir() and resolved.is_relative_to(source)):
                where = "is" if is_same else "lies in"
                raise UserError(path, f"{where} an input of this command ({name})", "give another name for the output")
            if is_folder and source.is_relative_to(resolved):
                raise UserError(path, f"holds an input of this command ({name})", "give another folder for the output")


def _resolved(path: PathLike) -> Path:
    """Where a path leads; a link that leads back to itself stays (`Path.resolve` raises on some versions)."""
    return Path(os.path.realpath(path))


def is_companion(name: str) -> bool:
    """Whether a file name is that of a companion: macOS keeps what else it knows of `a.npy` in `._a.npy`."""
    return name.startswith("._")


def files_of(path: PathLike) -> list[Path]:
    """The file, or the files in a folder: what a command reads of a model, beside which it may write others."""
    path = Path(path)
    return sorted(part for part in path.iterdir() if part.is_file()) if path.is_dir() else [path]


def file_hash(path: PathLike) -> str:
    """SHA-256 of a file, or of the names and bytes of a folder's files."""
    path, digest = Path(path), hashlib.sha256()
    for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if part.is_file():
            if path.is_dir():
                digest.update(part.relative_to(path).as_posix().encode())
            with part.open("rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
    return digest.hexdigest()


def _beside(path: Path, ending: str) -> Path:
    """A hidden file beside `path`, whose name is no longer than file systems allow."""
    name = os.fsencode(path.name)
    shown = path.name if len(name) < 200 else hashlib.sha256(name).hexdigest()
    return path.with_name(f".{shown}{ending}")


def _holds_one(path: Path, marks: Sequence[bytes]) -> bool:
    """Whether a file has one of `marks` in its first or last block; an empty one has nothing to lose."""
    with path.open("rb") as file:
        content = file.read(BLOCK)
        if (size := file.seek(0, os.SEEK_END)) > BLOCK:
            file.seek(max(BLOCK, size - BLOCK))
            content += file.read()
    return not content or any(mark in content for mark in marks)


def _refuse_other_format(path: Path, new: Path) -> None:
    """A file of another format than the one that is to take its place can't be an earlier one of the same command."""
    if path.is_file() and path.stat().st_size and new.is_file() and (found := _format(path)) != _format(new):
        raise UserError(
            path, f"holds {found}: it is not replaced by {_format(new)}", "give another name for the output"
        )


def _format(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(BLOCK)
    for name, beginning in FORMATS.items():
        if start.startswith(beginning):
            return name
    return "binary data" if b"\0" in start else "text"


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"


def _kind(mode: int) -> str:
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(mode), "device")

"""Writing a file: complete or not at all, and never over something that must not be replaced.

Every file that this program writes whole goes through `replacing`: the new content is written to a temporary file
beside the target, forced to the disk, and moved to the target's name. An interruption at any moment leaves the old file
or the new one; what is left of the temporary file has a name that ends in `TEMPORARY`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from splavu.errors import UserError, writing

PathLike = str | os.PathLike[str]

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
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}{TEMPORARY}")
    try:
        yield temporary
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
    """Write a text file in UTF-8; otherwise as `write_bytes`."""
    return write_bytes(path, text.encode(), inputs=inputs)


def check_target(path: PathLike, *, inputs: Iterable[PathLike] = (), is_folder: bool = False) -> None:
    """Refuse to write to `path` what would destroy something else; to be called before any work and any writing.

    Args:
        path: A file to be written, or a folder if `is_folder`.
        inputs: Files and folders that the running command reads.
        is_folder: The target is a folder of files.

    Raises:
        UserError: `path` is an input (the same file under any name), lies in a folder that is an input, or is a folder
            that holds one; it is there, but no regular file (a device, pipe, socket or folder) or, if `is_folder`, no
            folder; or it is a symbolic link that leads out of its folder.
    """
    path = Path(path)
    with writing(path):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            mode = None
        resolved = path.resolve()
        if mode is not None and stat.S_ISLNK(mode):
            if not resolved.is_relative_to(path.parent.resolve()):
                raise UserError(path, f"is a link to {resolved}", "give the file itself, or remove the link")
            mode = resolved.stat().st_mode if resolved.exists() else None
        if mode is not None and not (stat.S_ISDIR if is_folder else stat.S_ISREG)(mode):
            raise UserError(path, f"is a {_kind(mode)}: it is not replaced", "give another name for the output")
        for name in inputs:
            source = Path(name).resolve()
            is_same = source == resolved or (mode is not None and source.exists() and source.samefile(resolved))
            if is_same or (source.is_dir() and resolved.is_relative_to(source)):
                where = "is" if is_same else "lies in"
                raise UserError(path, f"{where} an input of this command ({name})", "give another name for the output")
            if is_folder and source.is_relative_to(resolved):
                raise UserError(path, f"holds an input of this command ({name})", "give another folder for the output")


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


def _kind(mode: int) -> str:
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(mode), "device")

"""A source, the files of a folder or split, encoded into its stores: resumable, alone or as one of several shards."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from splavu.errors import UserError, printable
from splavu.extraction.decoding import Job, decoders
from splavu.extraction.encoders import FrozenEncoder
from splavu.extraction.extract import extract
from splavu.extraction.provenance import provenance
from splavu.extraction.settings import ExtractionSettings
from splavu.extraction.shards import Shard, ranks_here
from splavu.extraction.sources import CLIPS, STATIC, VIEWS, Source
from splavu.extraction.videos import backend_version, image_reader_version
from splavu.runtime.progress import progress_bar
from splavu.stores import StoreWriter


@dataclass(frozen=True)
class Extracted:
    """What became of a source."""

    failures: dict[str, str]
    """Key -> why it has no features, here or in the sources before."""
    is_whole: bool
    """Whether the stores are written: of several shards, after the last."""
    lines: tuple[str, ...]

    def __str__(self) -> str:
        """What was written, and how fast."""
        return "\n".join(self.lines)


def extract_source(
    source: Source,
    encoder: FrozenEncoder,
    settings: ExtractionSettings,
    *,
    backend: str,
    device: torch.device,
    known: Mapping[str, str] | None = None,
    shard: Shard | None = None,
    is_merge: bool = False,
    resume: bool = True,
) -> Extracted:
    """Extract one source, or a shard of it, into its stores. What is in them already stays as it is.

    Args:
        source: Files and stores.
        encoder: From `splavu.extraction.encoders.load_encoder`.
        settings: How fast; its encoder is not read.
        backend: Video reader, from `videos.pick_backend`.
        device: Where the encoder computes.
        known: Key -> why it failed in the sources before; the last of several shards has to know.
        shard: The part that this process extracts; None is everything.
        is_merge: Extract nothing, merge what shards have left.
        resume: Keep what an earlier run has written.

    Raises:
        UserError: A store has other attributes, or another process is writing it. Files that can't be read are
            reported as failures.
    """
    started = time.monotonic()
    failures: dict[str, str] = {}
    num_videos = num_clips = 0
    keys = list(source.files) if shard is None else shard.keys(source.files)
    ours = None if shard is None else (shard.index, shard.count)
    with contextlib.ExitStack() as stack:
        writers: dict[str, StoreWriter] = {}
        for output, path in source.stores.items():
            attributes = _provenance(output, source, encoder, settings, backend)
            writers[output] = stack.enter_context(StoreWriter(path, attributes=attributes, resume=resume, shard=ours))
            writers[output].failures |= known or {}
        jobs = []
        for key in keys:
            missing = [output for output, writer in writers.items() if not writer.done(key)]
            if missing:
                num_frames = encoder.spec.num_frames
                make = source.only(key).pieces
                pieces = functools.partial(make, key, missing, num_frames=num_frames, backend=backend)
                jobs.append(Job(key, pieces, source.files[key]))
        num_done = len(keys) - len(jobs)
        if is_merge:
            failures |= {job.key: "not extracted yet" for job in jobs}
            jobs = []
        num_workers, is_isolated = decoders(settings.num_workers, sharing=ranks_here())
        results = extract(
            jobs,
            encoder,
            preprocessing=source.preprocessing,
            device=device,
            batch_size=settings.batch_size,
            num_workers=num_workers,
            precision=settings.precision,
            is_isolated=is_isolated,
            timeout=settings.timeout,
        )
        title = next(iter(source.stores.values())).name
        for result in progress_bar(results, total=len(jobs), desc=title, unit="file", disable=None):
            try:
                if result.error is not None:
                    raise result.error
                for output, features in result.features.items():
                    is_single = output == VIEWS and not source.is_augmented  # stored as (D,)
                    writers[output].add(result.key, features[0] if is_single else features)
                    num_clips += len(features)
                num_videos += 1
            except UserError as error:
                failures[result.key] = str(error)
                for writer in writers.values():
                    writer.failures[result.key] = str(error)
    seconds = time.monotonic() - started
    lines = []
    for writer in writers.values():
        if not writer.is_merged:
            lines.append(f"{writer.path}: shard {shard} done; the last one merges")
        elif len(writer):
            lines.append(f"{writer.path}: {len(writer)} keys")
        else:
            lines.append(f"{writer.path}: not written, nothing could be extracted")
    lines.append(
        f"  {num_videos} files, {num_clips} clips in {seconds:.1f} s ({num_clips / max(seconds, 1e-9):.0f} clips/s), "
        f"{num_done} were there already, {len(failures)} failed"
    )
    for writer in writers.values():
        failures |= writer.failures
    is_whole = all(writer.is_merged for writer in writers.values())
    return Extracted({**(known or {}), **failures}, is_whole, tuple(lines))


def described(encoder: FrozenEncoder, device: torch.device) -> str:
    """Which encoder it is, in a line; of the demo encoder, that it is none for real features."""
    spec = encoder.spec
    line = f"encoder {spec.name}, {spec.feature_dim} wide, weights {encoder.weights_hash[:12]}, on {device}"
    note = "note: the demo encoder is for trying things out; for real features use --encoder videoMAE"
    return f"{line}\n{note}" if spec.name == "demo" else line


def report_failures(failures: Mapping[str, str]) -> int:
    """Print which files failed and why; the exit code, 0 or 1."""
    for key, reason in failures.items():
        print(printable(f"failed: {key}: {reason}"))
    if failures:
        print(f"{len(failures)} failed; run the same command to try these again")
    return 1 if failures else 0


def _provenance(
    output: str, source: Source, encoder: FrozenEncoder, settings: ExtractionSettings, backend: str
) -> dict[str, str | int | float]:
    num_frames = encoder.spec.num_frames
    if output == CLIPS:
        rule: dict[str, str | int | bool] = {"kind": "consecutive", "frames": num_frames, "stride": 1, "overlap": 0}
    else:
        rule = {"kind": "static", "frames": num_frames, "augmented": source.is_augmented}
        rule["count"] = source.num_static if output == STATIC else (source.num_views if source.is_augmented else 1)
        if source.is_augmented:
            rule["seed"] = source.seed
    return provenance(
        encoder,
        preprocessing=source.preprocessing,
        decoder=image_reader_version() if output == VIEWS else backend_version(backend),
        precision=settings.precision,
        clip_rule=rule,
        hide=source.hide,
    )

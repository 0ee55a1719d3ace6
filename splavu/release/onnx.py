"""An anonymizer as ONNX, for programs without PyTorch: rows `[batch, D]` in, rows out, checked before it is kept.

Note: ONNX computes the same function, not the same bits. A runtime chooses its own order of
summation, by the size of the batch too, so outputs agree with released stores to `TOLERANCE`, and no better.

Needs onnx, onnxscript and onnxruntime.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from splavu._version import __version__
from splavu.anonymizers import Anonymizer, one_by_one
from splavu.anonymizers.loading import weights_hash
from splavu.errors import UserError
from splavu.release.anonymize import refuse_mixing
from splavu.runtime import extras
from splavu.runtime.files import PathLike, check_target, write_bytes

INPUT, OUTPUT = "features", "anonymized"
TOLERANCE = 1e-4
"""Largest difference from PyTorch that is accepted, as a share of the largest output: some hundred roundings of
float32 (6e-8), which is what sums of a thousand terms in another order may differ by."""
MARKS = (b"anonymizer_sha256",)
"""Every file that this program has written ends with it (`splavu.runtime.files.check_target`)."""
OLDEST_OPSET = 7
BATCHES = (1, 2, 7, 64, 257)
"""Sizes of batch that are compared: alone, not a multiple of anything, a tile, more than that."""


@dataclass(frozen=True)
class Exported:
    """What was written, and how far it is from PyTorch."""

    path: Path
    opset: int
    difference: float
    """Largest over `BATCHES`, as a share of the largest output."""

    def __str__(self) -> str:
        sizes = ", ".join(map(str, BATCHES))
        return (
            f"{self.path}: ONNX, opset {self.opset}, '{INPUT}' [batch, D] -> '{OUTPUT}' [batch, D]; differs from "
            f"PyTorch by {self.difference:.1e} of the largest output at most (batches of {sizes}; "
            f"{TOLERANCE:g} is accepted)"
        )


class _Rows(nn.Module):
    def __init__(self, anonymizer: Anonymizer) -> None:
        super().__init__()
        self.anonymizer = anonymizer

    def forward(self, features: Tensor) -> Tensor:  # [B, D] -> [B, D]
        return self.anonymizer.map_rows(features)


def export_onnx(
    anonymizer: Anonymizer, path: PathLike, *, opset: int = 18, inputs: Iterable[PathLike] = ()
) -> Exported:
    """Write `map_rows` as an ONNX file with a free batch axis, and provenance in its metadata.

    Args:
        anonymizer: The trained anonymizer.
        path: The file to write.
        opset: Version of ONNX's operators.
        inputs: Files that the running command reads; none of them is replaced.

    Raises:
        UserError: `path` is an input or no regular file; onnx, onnxscript or onnxruntime is missing; the anonymizer
            attends over the batch; an operation of it has no ONNX counterpart; the file's outputs differ from
            PyTorch's. Nothing is written then.
    """
    path, inputs = Path(path), list(inputs)
    check_target(path, inputs=inputs)
    refuse_mixing(anonymizer)
    onnx, onnxruntime = _onnx(path)
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise UserError("--opset", f"{opset} is unknown", f"give one from {OLDEST_OPSET} to {newest}")
    anonymizer = anonymizer.cpu().eval()
    width = anonymizer.architecture["feature_dim"]
    model = _exported(anonymizer, width, opset, path)
    made = max(entry.version for entry in model.opset_import if not entry.domain)
    if made != opset:
        raise UserError("--opset", f"{opset} can't be had: the exporter gives {made}", f"give --opset {made}")
    onnx.helper.set_model_props(
        model,
        {
            "splavu_version": __version__,
            "anonymizer": json.dumps(anonymizer.architecture, sort_keys=True),
            "anonymizer_sha256": weights_hash(anonymizer),
        },
    )
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    difference = max(
        _difference(session, anonymizer, torch.randn(size, width, generator=_seeded(size))) for size in BATCHES
    )
    if not difference <= TOLERANCE:
        raise UserError(path, f"ONNX differs from PyTorch by {difference:.1e} of the largest output", "use PyTorch")
    write_bytes(path, content, inputs=inputs)
    return Exported(path, made, difference)


def _exported(anonymizer: Anonymizer, width: int, opset: int, path: Path) -> Any:
    rows = torch.zeros(2, width)
    with warnings.catch_warnings(), _silenced():
        warnings.simplefilter("ignore")  # the exporter's own, about packages that aren't needed here
        try:
            program = torch.onnx.export(
                _Rows(anonymizer).eval(),
                (rows,),
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                verbose=False,
            )
        except Exception as error:  # the exporter chains whatever went wrong below it in kinds of its own
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            arch = anonymizer.architecture["arch"]
            raise UserError(path, f"'{arch}' can't be exported to opset {opset} ({reason})", "use PyTorch") from error
    assert program is not None, "dynamo=True returns the program"
    return program.model_proto


@contextmanager
def _silenced() -> Iterator[None]:
    """The exporter and its optimizer log each step, some as warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _difference(session: Any, anonymizer: Anonymizer, rows: Tensor) -> float:
    with torch.inference_mode():
        expected = one_by_one(anonymizer, rows).numpy()
    found = session.run([OUTPUT], {INPUT: rows.numpy()})[0]
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _onnx(culprit: object) -> tuple[Any, Any]:
    wanted = {"extra": "onnx", "why": "the export needs it", "culprit": culprit}
    onnx, runtime, _ = (extras.require(name, **wanted) for name in ("onnx", "onnxruntime", "onnxscript"))
    return onnx, runtime

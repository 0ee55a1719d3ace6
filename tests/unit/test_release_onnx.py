"""ONNX: the same function as PyTorch's, on a free batch axis, or no file."""

import json
import sys

import numpy as np
import pytest
import torch
from refusals import refused

from splavu.anonymizers import Anonymizer, build_anonymizer
from splavu.anonymizers.loading import weights_hash
from splavu.release import onnx as onnx_export
from splavu.release.onnx import export_onnx
from splavu.runtime import extras

onnx, onnxruntime, _ = (
    pytest.importorskip(package, reason="needs the extra 'onnx'") for package in ("onnx", "onnxruntime", "onnxscript")
)

D = 24


@pytest.mark.parametrize("arch", ["mlp", "transformer"])
def test_onnx_gives_what_pytorch_gives_for_one_row_and_for_many(tmp_path, arch):
    torch.manual_seed(0)
    anonymizer = build_anonymizer(arch, D, identity=False).eval()
    exported = export_onnx(anonymizer, tmp_path / "aam.onnx")
    assert exported.difference < onnx_export.TOLERANCE
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    for count in (1, 3, 500):
        rows = np.random.default_rng(count).normal(size=(count, D)).astype(np.float32)
        with torch.no_grad():
            expected = np.stack([anonymizer(torch.from_numpy(row)).numpy() for row in rows])
        # Sums of D float32 terms in another order: some roundings of 6e-8.
        np.testing.assert_allclose(session.run(["anonymized"], {"features": rows})[0], expected, rtol=1e-4, atol=1e-5)
    model = onnx.load(exported.path)
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert found["anonymizer_sha256"] == weights_hash(anonymizer)
    assert json.loads(found["anonymizer"]) == anonymizer.architecture
    assert exported.opset == 18


class Odd(Anonymizer):
    """Exports as another function than it is: tracing sees a constant."""

    def __init__(self):
        super().__init__()
        self.architecture = {"arch": "odd", "feature_dim": D}

    def map_rows(self, rows):
        return rows * 2 if torch.compiler.is_exporting() else rows * 3


def test_a_file_that_differs_is_not_written(tmp_path):
    with refused("aam.onnx"):
        export_onnx(Odd().eval(), tmp_path / "aam.onnx")
    assert list(tmp_path.iterdir()) == []


def test_refused(tmp_path, monkeypatch):
    mixing = build_anonymizer("transformer", D, attends_over="batch")
    with refused("anonymizer"):
        export_onnx(mixing, tmp_path / "aam.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with refused("aam.onnx") as caught:
        export_onnx(build_anonymizer("mlp", D), tmp_path / "aam.onnx")
    assert caught.value.remedy == extras.remedy("onnx")

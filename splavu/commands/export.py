"""Write a trained anonymizer as ONNX, and check the file's output against PyTorch's."""

from __future__ import annotations

import argparse
from pathlib import Path

from splavu.runtime.cli import ArgumentParser
from splavu.runtime.schema import Count, Few


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("target", metavar="OUT.onnx", type=Path, help="to be written")
    parser.add_argument(
        "--aam", metavar="ANONYMIZER", required=True, help="checkpoint, folder of save_pretrained, or hub name"
    )
    parser.add_argument("--opset", type=Count, default=18, help="version of ONNX's operators (default 18)")
    parser.add_argument("--num-heads", type=Few, default=8, help="attention heads, where a checkpoint lacks them")


def run(args: argparse.Namespace) -> int:
    """Export, check, and print what was written."""
    from splavu.release.onnx import MARKS, export_onnx
    from splavu.release.pretrained import load_pretrained
    from splavu.runtime.files import claimed, files_of

    inputs = files_of(args.aam)
    with claimed(args.target, inputs=inputs, marks=MARKS):
        anonymizer = load_pretrained(args.aam, num_heads=args.num_heads)
        print(export_onnx(anonymizer, args.target, opset=args.opset, inputs=inputs))
    return 0

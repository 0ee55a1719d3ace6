"""I3D ResNet-50, called `largei3d`: 2048 numbers per clip, the global mean of its last map, not normalised.

Its files come from TeD-SPAD, in whose wrapper a head (`mlp`) follows these features. The features of a store are those
before that head and before the classifier, so neither is loaded. Input is RGB in 0..1, as TeD-SPAD fine-tuned it.

Source: Carreira and Zisserman 2017; Fioresi et al. 2023 (TeD-SPAD); the layers from the specification (i3d, appendix).

Letters: B clips, T frames, H and W pixels; D channels, and t, h, w positions of a map.
"""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splavu.data.encoders import EncoderSpec
from splavu.errors import UserError
from splavu.extraction.encoders.convolutional import ConvolutionalEncoder, load, read_weights

logger = logging.getLogger(__name__)

ORIGIN = "a saved I3D ResNet-50 of TeD-SPAD (UCF-CRCV/TeD-SPAD)"
FEATURE_DIM = 2048
LEAST_FRAMES = 7
LEAST_SIDE = 5
"""Pixels. Below these, nothing would be left to pool: the max poolings have no padding."""

_EXPANSION = 4
_LAYERS = (  # planes, stride in space, and which blocks look at three time steps
    (64, 1, (True, True, True)),
    (128, 2, (True, False, True, False)),
    (256, 2, (True, False, True, False, True, False)),
    (512, 2, (False, True, False)),
)
_HEADS = ("mlp.", "fc.")


class Bottleneck(nn.Module):
    """1 x 1 x 1 (or 3 x 1 x 1, in time), 1 x 3 x 3, 1 x 1 x 1, around a shortcut."""

    def __init__(self, channels_in: int, planes: int, *, stride: int, is_temporal: bool, has_projection: bool) -> None:
        super().__init__()
        channels_out, steps = _EXPANSION * planes, (1, stride, stride)
        frames = 3 if is_temporal else 1
        self.conv1 = nn.Conv3d(channels_in, planes, (frames, 1, 1), padding=(frames // 2, 0, 0), bias=False)
        self.bn1 = nn.BatchNorm3d(planes)
        self.conv2 = nn.Conv3d(planes, planes, (1, 3, 3), steps, padding=(0, 1, 1), bias=False)
        self.bn2 = nn.BatchNorm3d(planes)
        self.conv3 = nn.Conv3d(planes, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(channels_out)
        self.downsample = nn.Sequential()
        if has_projection:
            self.downsample.append(nn.Conv3d(channels_in, channels_out, 1, steps, bias=False))
            self.downsample.append(nn.BatchNorm3d(channels_out))

    def forward(self, maps: Tensor) -> Tensor:  # [B, D, t, h, w] -> [B, 4 planes, t, h / stride, w / stride]
        inner = F.relu(self.bn1(self.conv1(maps)), inplace=True)
        inner = F.relu(self.bn2(self.conv2(inner)), inplace=True)
        inner = self.bn3(self.conv3(inner))
        return F.relu(inner + self.downsample(maps), inplace=True)


class I3DResNet50(nn.Module):
    """The network, with the official names.

    Args:
        num_classes: Of the classifier `fc`; None builds none, and leaves `classify` without use.
        dropout: Probability to drop a feature before the classifier, in training.
    """

    def __init__(self, *, num_classes: int | None = 400, dropout: float = 0.5) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, 64, (5, 7, 7), stride=2, padding=(2, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        self.maxpool1 = nn.MaxPool3d((2, 3, 3), stride=2)
        self.maxpool2 = nn.MaxPool3d((2, 1, 1))
        channels = 64
        for number, (planes, stride, temporal) in enumerate(_LAYERS, start=1):
            layer = nn.Sequential()
            for is_temporal in temporal:
                is_first = not len(layer)
                layer.append(
                    Bottleneck(
                        channels,
                        planes,
                        stride=stride if is_first else 1,
                        is_temporal=is_temporal,
                        has_projection=is_first,
                    )
                )
                channels = _EXPANSION * planes
            self.add_module(f"layer{number}", layer)
        self.dropout = nn.Dropout(dropout)
        self.fc = None if num_classes is None else nn.Linear(FEATURE_DIM, num_classes)

    def forward(self, clips: Tensor) -> Tensor:  # [B, 3, T, H, W] in 0..1 -> [B, 2048]
        """Features of clips; a batch of one keeps its axis.

        Raises:
            ValueError: The clips have fewer than 7 frames, or 5 pixels on a side.
        """
        frames, *sides = clips.shape[2:]
        if frames < LEAST_FRAMES or min(sides) < LEAST_SIDE:
            raise ValueError(
                f"clips of {frames} frames of {sides[0]} x {sides[1]} pixels; "
                f"at least {LEAST_FRAMES} of {LEAST_SIDE} x {LEAST_SIDE} expected"
            )
        maps = self.maxpool1(F.relu(self.bn1(self.conv1(clips)), inplace=True))
        maps = self.maxpool2(self.layer1(maps))
        return self.layer4(self.layer3(self.layer2(maps))).mean(dim=(2, 3, 4))

    def classify(self, features: Tensor) -> Tensor:  # [B, 2048] -> [B, C]
        """Class scores before the softmax."""
        return self.fc(self.dropout(features))


def load_i3d_resnet(spec: EncoderSpec, weights: str | None) -> ConvolutionalEncoder:
    """I3D ResNet-50 with the weights of a file; heads in it are left out, which is logged.

    Raises:
        UserError: No file is given, or it does not fit the network in every name and shape.
    """
    found = read_weights(spec, weights, origin=ORIGIN)
    state = {_own_name(name): weight for name, weight in found.items()}
    if len(state) < len(found):
        raise UserError(weights, "holds some weights twice, with and without 'i3d.' or as 'scale'", "keep one of them")
    if heads := sorted(name for name in state if name.startswith(_HEADS)):
        logger.info("%s: heads are not used: %s", weights, ", ".join(heads))
    with torch.device("meta"):
        network = I3DResNet50(num_classes=None)
    load(network, {name: weight for name, weight in state.items() if name not in heads}, source=str(weights))
    return ConvolutionalEncoder(network, spec)


def _own_name(name: str) -> str:
    """Without the wrapper's prefix; frozen batch norms call their weight `scale`."""
    name = name.removeprefix("i3d.")
    module, _, kind = name.rpartition(".")
    return f"{module}.weight" if kind == "scale" else name

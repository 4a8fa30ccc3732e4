"""Monocular 3D detection after MonoDLE, with pitch and roll beside the heading.

An object is one cell of the feature map: the one its projected 3D centre falls into. The cell
coordinate of a pixel u of the network input is u / stride. All nine sub-heads lie side by side in
one output tensor, in the order of SUBHEADS.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag_perception.core import geometry
from tag_perception.core.labels import DETECTION_CLASSES
from tag_perception.core.structures import Objects3D, View

HEADING_BINS = 12
"""Bin k of the observation angle alpha is centred on k · 2 pi / 12."""

SUBHEADS = {
    'heatmap': len(DETECTION_CLASSES),  # logit of an object centre, per class
    'offset_2d': 2,  # x, y: centre of the 2D box minus cell index, cells
    'size_2d': 2,  # width, height of the 2D box, cells
    'depth': 2,  # x and s: the depth is exp(-x) metres, its standard deviation exp(s) metres
    'offset_3d': 2,  # x, y: projected 3D centre minus cell index, cells
    'size_3d': 3,  # length, width, height, metres: the order of the dataset (MonoDLE has H, W, L)
    'heading': 2 * HEADING_BINS,  # logit of each bin, then residual of each bin, radians
    'pitch': 1,  # theta of geometry's ZYX angles, radians
    'roll': 1,  # phi, radians
}
"""Output channels of each sub-head, in order; 43 together."""

MAX_DETECTIONS = 50
NEAR_M, DEPTH_CAP_M = 1.0, 100.0
"""Depths of the box centre that are learned and decoded, metres."""
MIN_SIZE_M = 0.1
"""No decoded box is thinner."""

# What an untrained head answers. Small learning rates move a bias slowly; a car 20 m away is a
# better place to start from than a point at 1 m. -2.19 makes a heatmap of 0.1 (MonoDLE).
_PRIORS = {
    'heatmap': (-2.19,) * len(DETECTION_CLASSES),
    'size_2d': (10.0, 8.0),
    'depth': (-math.log(20.0), 1.0),
    'size_3d': (4.2, 1.8, 1.6),
}


class Head(nn.Module):
    """(B, C, h, w) features → (B, 43, h, w): per sub-head 3×3 convolution, ReLU, 1×1 convolution.

    The nine 3×3 convolutions read the same features and are computed as one.
    """

    def __init__(self, in_channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(in_channels, hidden * len(SUBHEADS), 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.outputs = nn.ModuleDict()
        for name, channels in SUBHEADS.items():
            output = nn.Conv2d(hidden, channels, 1)
            nn.init.normal_(output.weight, std=0.001)
            output.bias = nn.Parameter(torch.tensor(_PRIORS.get(name, (0.0,) * channels)))
            self.outputs[name] = output

    def forward(self, features: Tensor) -> Tensor:
        """All sub-heads, concatenated in the order of SUBHEADS."""
        hidden = self.relu(self.hidden(features)).chunk(len(SUBHEADS), 1)
        return torch.cat([f(x) for f, x in zip(self.outputs.values(), hidden, strict=True)], 1)


def decode(output: Tensor, view: View) -> Objects3D:
    """(B, 50) boxes by falling score, from the peaks of the heatmap; no threshold is applied.

    The score is heatmap · exp(-s), at most 1 (MonoDLE): a box of uncertain depth ranks lower.
    Shapes depend on nothing but the input's, and nothing waits for the device.
    """
    heat, class_id, cell = _peaks(output)
    width = output.shape[-1]
    # From here on in float32: half precision cannot tell pixels apart at the right edge.
    at = split(_gather(output, cell).float())
    cell_xy = torch.stack((cell % width, cell // width), -1)
    center_px = _to_image(cell_xy + at['offset_3d'], output, view)
    depth_m = depth_from_raw(at['depth'][..., 0]).clamp(NEAR_M, DEPTH_CAP_M)
    log_sigma = at['depth'][..., 1].clamp(-10, 10)
    intrinsics = view.intrinsics[:, None]
    ray = geometry.unproject(center_px, torch.ones_like(depth_m), intrinsics)
    alpha = _decode_heading(at['heading'])
    psi = geometry.psi_from_alpha(alpha, center_px[..., 0], intrinsics[..., 0], intrinsics[..., 2])
    pitch, roll = at['pitch'][..., 0], at['roll'][..., 0]
    objects = Objects3D(
        class_id=class_id,
        score=(heat * torch.exp(-log_sigma)).clamp(0, 1),
        center_cam=geometry.optical_to_camera(ray * depth_m[..., None]),
        size_lwh_m=at['size_3d'].clamp_min(MIN_SIZE_M),
        rotation_cam=geometry.quaternion_from_euler(psi, pitch, roll),
        box_2d_px=_decode_box_2d(cell_xy + at['offset_2d'], at['size_2d'], output, view),
        depth_sigma_m=torch.exp(log_sigma) * ray.norm(dim=-1),
    )
    return _sorted_by_score(objects)


def split(channels_last: Tensor) -> dict[str, Tensor]:
    """(…, 43) by name: the inverse of the concatenation in Head."""
    parts = channels_last.split(list(SUBHEADS.values()), -1)
    return dict(zip(SUBHEADS, parts, strict=True))


def depth_from_raw(raw: Tensor) -> Tensor:
    """Metres. MonoDLE's 1 / sigmoid(x) - 1 is exp(-x), always positive and finite here."""
    return torch.exp(-raw.clamp(-10, 10))


def _peaks(output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Heat, class and flat cell index, each (B, K), of the highest local maxima."""
    heat = torch.sigmoid(output[:, : SUBHEADS['heatmap']].float())
    is_peak = heat == F.max_pool2d(heat, 3, stride=1, padding=1)
    heat = (heat * is_peak).flatten(1)
    cells = output.shape[-2] * output.shape[-1]
    score, index = heat.topk(min(MAX_DETECTIONS, heat.shape[1]))
    return score, index // cells, index % cells


def _gather(output: Tensor, cell: Tensor) -> Tensor:
    """(B, K, C) columns of (B, C, h, w) at flat cell indices (B, K)."""
    index = cell[:, None].expand(-1, output.shape[1], -1)
    return output.flatten(2).gather(2, index).transpose(1, 2)


def _to_image(cell_xy: Tensor, output: Tensor, view: View) -> Tensor:
    """Pixels (…, 2) of the camera image at cell coordinates; resizing aligns image corners."""
    cells_xy, input_xy, image_xy = (
        (size[1], size[0]) for size in (output.shape[-2:], view.input_size, view.image_size)
    )
    axes = zip(cell_xy.unbind(-1), cells_xy, input_xy, image_xy, strict=True)
    pixels = [
        (cell * (input_px / cells) + 0.5) * (image_px / input_px) - 0.5
        for cell, cells, input_px, image_px in axes
    ]
    return torch.stack(pixels, -1)


def _decode_box_2d(center: Tensor, size: Tensor, output: Tensor, view: View) -> Tensor:
    """(…, 4) x1, y1, x2, y2 inside the camera image and at least a pixel wide and high."""
    half = size.clamp_min(0) / 2
    low = _to_image(center - half, output, view).unbind(-1)
    high = _to_image(center + half, output, view).unbind(-1)
    height, width = view.image_size
    x1, y1 = low[0].clamp(0, width - 2), low[1].clamp(0, height - 2)
    x2 = torch.maximum(high[0], x1 + 1).clamp_max(width - 1)
    y2 = torch.maximum(high[1], y1 + 1).clamp_max(height - 1)
    return torch.stack((x1, y1, x2, y2), -1)


def _decode_heading(heading: Tensor) -> Tensor:
    """Observation angle alpha (…), radians, of (…, 24)."""
    logit, residual = heading.chunk(2, -1)
    best = logit.argmax(-1, keepdim=True)
    alpha = best * (2 * math.pi / HEADING_BINS) + residual.gather(-1, best)
    return geometry.wrap_angle(alpha.squeeze(-1))


def _sorted_by_score(objects: Objects3D) -> Objects3D:
    order = objects.score.argsort(dim=1, descending=True)
    row = torch.arange(len(order), device=order.device)[:, None]
    return objects[row, order]

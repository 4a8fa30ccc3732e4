"""Monocular 3D detection after MonoDLE, with pitch and roll beside the heading.

An object is one cell of the feature map: the one its projected 3D centre falls into. The cell
coordinate of a pixel u of the network input is u / stride. All nine sub-heads lie side by side in
one output tensor, in the order of SUBHEADS.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag_perception.core import geometry
from tag_perception.core.labels import DETECTION_CLASSES
from tag_perception.core.structures import Camera, Objects3D, Sample, View

log = logging.getLogger(__name__)

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
AFTER_HEATMAP = {name: channels for name, channels in SUBHEADS.items() if name != 'heatmap'}
"""The sub-heads whose output is read in the cells of peaks only; 37 channels."""

MAX_OBJECTS = 100
"""Rows of a target: no more objects are learned from one image."""
MAX_DETECTIONS = 50
NEAR_M, DEPTH_CAP_M = 1.0, 100.0
"""Depths of the box centre that are learned and decoded, metres."""
MIN_SIZE_M = 0.1
"""No decoded box is thinner."""
IGNORE = 0.9999
"""Heat of cells that are neither object nor background: (1 - IGNORE)^4 removes their loss."""

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
            if not output.weight.is_meta:  # there, filling costs seconds of imports
                nn.init.normal_(output.weight, std=0.001)
            output.bias = nn.Parameter(torch.tensor(_PRIORS.get(name, (0.0,) * channels)))
            self.outputs[name] = output

    def forward(self, features: Tensor) -> Tensor:
        """All sub-heads, concatenated in the order of SUBHEADS."""
        hidden = self.relu(self.hidden(features)).chunk(len(SUBHEADS), 1)
        return torch.cat([f(x) for f, x in zip(self.outputs.values(), hidden, strict=True)], 1)


def encode_target(sample: Sample, stride: int) -> dict[str, Tensor]:
    """What the output should be: heatmap (6, h, w) and MAX_OBJECTS rows, of which `mask` are used.

    `cell` is a row's flat index into h · w, `heading_bin` and `heading_residual` are its heading,
    the others are named and measured like the sub-heads. Not learned, yet no background either:
    objects nearer than NEAR_M or beyond DEPTH_CAP_M, without a visible part, or behind another one
    in the same cell. Raises ValueError where the sample has no boxes labelled.
    """
    objects = sample.detection3d
    if objects is None:
        raise ValueError(f'{sample.name} has no boxes labelled; leave task detection3d out')
    height, width = (side // stride for side in sample.image.shape[:2])
    rows = _encode_objects(objects, sample.camera, stride, height, width)
    learned = _select(rows)
    if len(learned) > MAX_OBJECTS:
        log.warning('%s: the nearest %d of %d objects', sample.name, MAX_OBJECTS, len(learned))
        learned = learned[:MAX_OBJECTS]

    heatmap = torch.zeros(SUBHEADS['heatmap'], height, width)
    for box in () if sample.ignore_px is None else sample.ignore_px.tolist():
        _paint(heatmap, box, stride)
    class_ids = objects.class_id.tolist()
    for index in set(range(len(objects))) - set(learned):
        _paint(heatmap[class_ids[index]], objects.box_2d_px[index].tolist(), stride)
    for index in learned:  # after all painting, which must not hide a peak
        radius = gaussian_radius(*rows['size_2d'][index].tolist())
        y, x = divmod(int(rows['cell'][index]), width)
        _draw_peak(heatmap[class_ids[index]], x, y, radius)

    target = {name: _padded(values[learned]) for name, values in rows.items()}
    return target | {'heatmap': heatmap, 'mask': torch.arange(MAX_OBJECTS) < len(learned)}


def loss(output: Tensor, target: dict[str, Tensor]) -> dict[str, Tensor]:
    """MonoDLE's seven terms, pitch and roll: means over the batch's objects, 0 without any."""
    mask = target['mask']
    predicted = split(_gather(output, target['cell']).float()[mask])
    true = {name: values[mask] for name, values in target.items() if name != 'heatmap'}
    return {
        'heatmap': _focal_loss(output[:, : SUBHEADS['heatmap']].float(), target['heatmap']),
        'offset_2d': _mean((predicted['offset_2d'] - true['offset_2d']).abs()),
        'size_2d': _mean((predicted['size_2d'] - true['size_2d']).abs()),
        'depth': _laplacian_loss(predicted['depth'], true['depth']),
        'offset_3d': _mean((predicted['offset_3d'] - true['offset_3d']).abs()),
        'size_3d': _dimension_aware_loss(predicted['size_3d'], true['size_3d']),
        'heading': _heading_loss(
            predicted['heading'], true['heading_bin'], true['heading_residual']
        ),
        'pitch': _sine_loss(predicted['pitch'], true['pitch']),
        'roll': _sine_loss(predicted['roll'], true['roll']),
    }


def decode(output: Tensor, view: View) -> Objects3D:
    """(B, 50) boxes by falling score, from the peaks of the heatmap; no threshold is applied.

    The score is heatmap · min(1, exp(-s)): a box whose depth is uncertain to more than a metre
    ranks lower (MonoDLE, which has no bound: a certain depth would lift any faint heat to 1).
    Shapes depend on nothing but the input's, and nothing waits for the device.
    """
    peaks = find_peaks(output[:, : SUBHEADS['heatmap']])
    rows = _gather(output[:, SUBHEADS['heatmap'] :], peaks.cell)
    return decode_peaks(peaks, rows, (output.shape[-2], output.shape[-1]), view)


class Peaks(NamedTuple):
    """The K highest local maxima of each heatmap, the highest first; each (B, K)."""

    heat: Tensor
    """Float32 in [0, 1]."""
    class_id: Tensor
    cell: Tensor
    """Flat index into h · w."""


def find_peaks(heatmap: Tensor) -> Peaks:
    """Peaks of logits (B, 6, h, w): cells that are the highest of their 3×3 neighbourhood."""
    heat = torch.sigmoid(heatmap.float())
    is_peak = heat == F.max_pool2d(heat, 3, stride=1, padding=1)
    heat = (heat * is_peak).flatten(1)
    cells = heatmap.shape[-2] * heatmap.shape[-1]
    score, index = heat.topk(min(MAX_DETECTIONS, heat.shape[1]))
    return Peaks(score, index // cells, index % cells)


def decode_peaks(peaks: Peaks, rows: Tensor, grid: tuple[int, int], view: View) -> Objects3D:
    """Boxes of peaks on a map of `grid` = (h, w) cells.

    `rows` (B, K, 37) is what the sub-heads after the heatmap say in the peaks' cells.
    """
    # From here on in float32: half precision cannot tell pixels apart at the right edge.
    at = _named(rows.float(), AFTER_HEATMAP)
    width = grid[1]
    cell_xy = torch.stack((peaks.cell % width, peaks.cell // width), -1)
    center_px = _to_image(cell_xy + at['offset_3d'], grid, view)
    depth_m = depth_from_raw(at['depth'][..., 0]).clamp(NEAR_M, DEPTH_CAP_M)
    log_sigma = at['depth'][..., 1].clamp(-10, 10)
    intrinsics = view.intrinsics[:, None]
    ray = geometry.unproject(center_px, torch.ones_like(depth_m), intrinsics)
    alpha = _decode_heading(at['heading'])
    psi = geometry.psi_from_alpha(alpha, center_px[..., 0], intrinsics[..., 0], intrinsics[..., 2])
    pitch, roll = at['pitch'][..., 0], at['roll'][..., 0]
    objects = Objects3D(
        class_id=peaks.class_id,
        score=peaks.heat * torch.exp(-log_sigma).clamp_max(1),
        center_cam=geometry.optical_to_camera(ray * depth_m[..., None]),
        size_lwh_m=at['size_3d'].clamp_min(MIN_SIZE_M),
        rotation_cam=geometry.quaternion_from_euler(psi, pitch, roll),
        box_2d_px=_decode_box_2d(cell_xy + at['offset_2d'], at['size_2d'], grid, view),
        depth_sigma_m=torch.exp(log_sigma) * ray.norm(dim=-1),
    )
    return _sorted_by_score(objects)


def split(channels_last: Tensor) -> dict[str, Tensor]:
    """(…, 43) by name: the inverse of the concatenation in Head."""
    return _named(channels_last, SUBHEADS)


def depth_from_raw(raw: Tensor) -> Tensor:
    """Metres. MonoDLE's 1 / sigmoid(x) - 1 is exp(-x), always positive and finite here."""
    return torch.exp(-raw.clamp(-10, 10))


def _named(channels_last: Tensor, subheads: Mapping[str, int]) -> dict[str, Tensor]:
    parts = channels_last.split(list(subheads.values()), -1)
    return dict(zip(subheads, parts, strict=True))


def _gather(output: Tensor, cell: Tensor) -> Tensor:
    """(B, K, C) columns of (B, C, h, w) at flat cell indices (B, K)."""
    index = cell[:, None].expand(-1, output.shape[1], -1)
    return output.flatten(2).gather(2, index).transpose(1, 2)


def _encode_objects(
    objects: Objects3D, camera: Camera, stride: int, height: int, width: int
) -> dict[str, Tensor]:
    """What the cells of all objects should say, (N, …) by name, on a map of height × width."""
    box = objects.box_2d_px.double() / stride
    center_optical = geometry.camera_to_optical(objects.center_cam.double())
    intrinsics = center_optical.new_tensor([camera.fx, camera.fy, camera.u0, camera.v0])
    # In the plane of the camera there is no projection; such objects are left out by NEAR_M.
    center_px = geometry.project(center_optical, intrinsics).nan_to_num()
    # A centre outside the image belongs to the nearest cell, and offset_3d carries the rest.
    limit = center_px.new_tensor([width - 1, height - 1])
    cell_xy = (center_px / stride).floor().clamp_min(0).minimum(limit)
    cell_x, cell_y = cell_xy.long().unbind(1)
    psi, theta, phi = geometry.euler_from_rotation(
        geometry.rotation_from_quaternion(objects.rotation_cam.double())
    )
    alpha = geometry.alpha_from_psi(psi, center_px[:, 0], camera.fx, camera.u0)
    step = 2 * math.pi / HEADING_BINS
    heading_bin = torch.floor(alpha / step + 0.5)
    return {
        'cell': cell_y * width + cell_x,
        'offset_2d': ((box[:, :2] + box[:, 2:]) / 2 - cell_xy).float(),
        'size_2d': (box[:, 2:] - box[:, :2]).float(),
        'depth': center_optical[:, 2].float(),
        'offset_3d': (center_px / stride - cell_xy).float(),
        'size_3d': objects.size_lwh_m.float(),
        'heading_bin': heading_bin.long() % HEADING_BINS,
        'heading_residual': (alpha - heading_bin * step).float(),
        'pitch': theta[:, None].float(),
        'roll': phi[:, None].float(),
    }


def _select(rows: dict[str, Tensor]) -> list[int]:
    """Indices of the objects to learn, the nearest first; one per cell, as a cell can say one."""
    depth_m = rows['depth']
    usable = (depth_m >= NEAR_M) & (depth_m <= DEPTH_CAP_M) & (rows['size_2d'] > 0).all(1)
    owner: dict[int, int] = {}
    for index in depth_m.argsort().tolist():
        if usable[index]:
            owner.setdefault(int(rows['cell'][index]), index)
    return list(owner.values())


def _padded(rows: Tensor) -> Tensor:
    return torch.cat((rows, rows.new_zeros(MAX_OBJECTS - len(rows), *rows.shape[1:])))


def gaussian_radius(width: float, height: float, overlap: float = 0.7) -> int:
    """How far, in cells, the corners of a box may move until its IoU falls to about `overlap`.

    CornerNet's rule with CenterNet's roots: r2 and r3 are not divided by their leading
    coefficients, which is kept because published hyperparameters go with it.
    """
    area, half = width * height, width + height
    cases = (
        (half, area * (1 - overlap) / (1 + overlap), 4.0),
        (2 * half, area * (1 - overlap), 16.0),
        (-2 * overlap * half, area * (overlap - 1), 16.0 * overlap),
    )
    return max(0, int(min((b + math.sqrt(b * b - factor * c)) / 2 for b, c, factor in cases)))


def _paint(heatmap: Tensor, box_px: list[float], stride: int) -> None:
    """Set what x1, y1, x2, y2 touches in (…, h, w) to IGNORE."""
    x1, y1, x2, y2 = (math.floor(value / stride) for value in box_px)
    heatmap[..., max(y1, 0) : max(y2 + 1, 0), max(x1, 0) : max(x2 + 1, 0)] = IGNORE


def _draw_peak(heatmap: Tensor, x: int, y: int, radius: int) -> None:
    """Raise (h, w) to a Gaussian that is 1 at the cell and ends `radius` = 3 sigma away."""
    sigma = (2 * radius + 1) / 6
    rows, columns = (
        torch.arange(max(0, at - radius), min(size, at + radius + 1))
        for at, size in zip((y, x), heatmap.shape, strict=True)
    )
    falls = [torch.exp(-((k - at) ** 2) / (2 * sigma**2)) for k, at in ((rows, y), (columns, x))]
    window = heatmap[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    window.copy_(torch.maximum(window, torch.outer(*falls)))


def _mean(values: Tensor) -> Tensor:
    """The mean, and 0 (with a gradient of 0) where there is nothing."""
    return values.sum() / max(values.numel(), 1)


def _focal_loss(logit: Tensor, target: Tensor) -> Tensor:
    """CornerNet Eq. 1 per object: log p where the target is 1, log(1 - p) elsewhere."""
    p = torch.sigmoid(logit)
    at_peak = (1 - p) ** 2 * F.logsigmoid(logit)
    elsewhere = (1 - target) ** 4 * p**2 * F.logsigmoid(-logit)
    is_peak = target == 1
    return -torch.where(is_peak, at_peak, elsewhere).sum() / is_peak.sum().clamp_min(1)


def _laplacian_loss(raw: Tensor, depth_m: Tensor) -> Tensor:
    """-log likelihood of a Laplacian with standard deviation exp(s), less a constant."""
    error = (depth_from_raw(raw[:, 0]) - depth_m).abs()
    return _mean(math.sqrt(2) * torch.exp(-raw[:, 1]) * error + raw[:, 1])


def _dimension_aware_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """The value of L1 with the gradient of the relative error (MonoDLE)."""
    error = (predicted - true).abs()
    relative = error / true.clamp_min(MIN_SIZE_M)
    weight = error.sum() / relative.sum().clamp_min(1e-9)
    return _mean(relative * weight.detach())


def _heading_loss(heading: Tensor, true_bin: Tensor, true_residual: Tensor) -> Tensor:
    """Cross-entropy over the bins and L1 on the residual of the true one."""
    logit, residual = heading.chunk(2, -1)
    of_true_bin = residual.gather(1, true_bin[:, None]).squeeze(1)
    cross_entropy = F.cross_entropy(logit, true_bin, reduction='none')
    return _mean(cross_entropy) + _mean((of_true_bin - true_residual).abs())


def _sine_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """Smooth L1 of sin(predicted - true) as FCOS3D writes it.

    It cannot tell an angle from the opposite one; pitch and roll stay below pi / 2.
    """
    x = torch.sin(predicted) * torch.cos(true)
    y = torch.cos(predicted) * torch.sin(true)
    return _mean(F.smooth_l1_loss(x, y, beta=1 / 9, reduction='none'))


def _to_image(cell_xy: Tensor, grid: tuple[int, int], view: View) -> Tensor:
    """Pixels (…, 2) of the camera image at cell coordinates; resizing aligns image corners."""
    cells_xy, input_xy, image_xy = (
        (size[1], size[0]) for size in (grid, view.input_size, view.image_size)
    )
    axes = zip(cell_xy.unbind(-1), cells_xy, input_xy, image_xy, strict=True)
    pixels = [
        (cell * (input_px / cells) + 0.5) * (image_px / input_px) - 0.5
        for cell, cells, input_px, image_px in axes
    ]
    return torch.stack(pixels, -1)


def _decode_box_2d(center: Tensor, size: Tensor, grid: tuple[int, int], view: View) -> Tensor:
    """(…, 4) x1, y1, x2, y2 inside the camera image and at least a pixel wide and high."""
    half = size.clamp_min(0) / 2
    low = _to_image(center - half, grid, view).unbind(-1)
    high = _to_image(center + half, grid, view).unbind(-1)
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

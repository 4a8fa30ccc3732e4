"""Drawing a Scene: 3D boxes on the image, coloured masks and depth, panels side by side.

Pictures are (H, W, 3) uint8 RGB, in and out. Every box line is cut to the camera's view frustum in
3D before it is projected, so a box that reaches behind the camera cannot throw lines across the
picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np
import torch

from tag_perception.config import ConfigError
from tag_perception.core.geometry import (
    EDGES,
    box_corners,
    camera_to_optical,
    rotation_from_quaternion,
)
from tag_perception.core.labels import DETECTION_CLASSES, PALETTE, SEMANTIC_CLASSES
from tag_perception.core.structures import Camera, Objects3D, Scene

NEAR_M = 0.1
"""Lines end at this distance in front of the camera."""

DETECTION_COLORS = (
    (255, 140, 0),
    (240, 70, 70),
    (255, 225, 60),
    (190, 120, 255),
    (70, 220, 255),
    (110, 240, 110),
)
"""RGB line colour of each detection class: brighter than the class table, whose car is navy."""

_TURBO = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_TURBO)[:, 0, ::-1]
DEPTH_PALETTE = np.concatenate([np.zeros((1, 3), np.uint8), _TURBO[:0:-1]])
"""(256, 3) uint8 RGB: 0 is black for "no depth", then from 1 (near, red) to 255 (far, blue)."""

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_DARK, _LIGHT = (25, 25, 25), (235, 235, 235)
_CAPTION_SIZE, _FIRST_ROW, _ROW, _INDENT = 0.47, 8, 24, 90


@dataclass(frozen=True)
class OverlayStyle:
    """How a scene is drawn. Line and text sizes follow the height of the picture."""

    semantic_alpha: float = 0.3
    """Opacity of the class colours on the image; 0 leaves the image as it is."""
    depth_near_m: float = 3.0
    """Distance drawn in the first (red) depth colour; nearer looks the same."""
    depth_far_m: float = 100.0
    """Distance drawn in the last (blue) depth colour; farther looks the same."""
    box_labels: bool = True
    """Write class and distance above each box."""

    def __post_init__(self) -> None:
        if not 0 <= self.semantic_alpha <= 1:
            raise ConfigError(f'semantic_alpha must be in 0 … 1, got {self.semantic_alpha}')
        if not 0 < self.depth_near_m < self.depth_far_m < float('inf'):
            raise ConfigError(
                'depth colours need 0 < depth_near_m < depth_far_m, '
                f'got {self.depth_near_m} and {self.depth_far_m}'
            )


def draw_scene(
    image: np.ndarray, scene: Scene, camera: Camera | None, style: OverlayStyle | None = None
) -> np.ndarray:
    """A copy of `image` with the mask blended in and the 3D boxes on top (needs a camera)."""
    style = style or OverlayStyle()
    canvas = _contiguous_copy(image)
    if scene.semantic is not None and style.semantic_alpha > 0:
        colors = color_semantic(scene.semantic.numpy())
        cv2.addWeighted(
            canvas, 1 - style.semantic_alpha, colors, style.semantic_alpha, 0, dst=canvas
        )
    if scene.detection3d is not None and camera is not None:
        _draw_objects(canvas, scene.detection3d, camera, style)
    return canvas


def color_semantic(mask: np.ndarray) -> np.ndarray:
    """(H, W) uint8 train ids → RGB in the dataset's colours, 255 black."""
    return cv2.applyColorMap(np.ascontiguousarray(mask), PALETTE[:, None])


def color_depth(depth_m: np.ndarray, near_m: float = 3.0, far_m: float = 100.0) -> np.ndarray:
    """(H, W) metres → RGB on a logarithmic scale from near_m to far_m, black where there is none.

    The range is fixed, so equal colours mean equal distances in every frame.
    """
    usable = (depth_m > 0) & (depth_m < np.inf)  # False for NaN
    log_depth = cv2.log(np.clip(depth_m, near_m, far_m, dtype=np.float32))
    per_shade = 254 / np.log(far_m / near_m)
    shade = cv2.convertScaleAbs(log_depth, alpha=per_shade, beta=1 - per_shade * np.log(near_m))
    return cv2.applyColorMap(shade * usable.view(np.uint8), DEPTH_PALETTE[:, None])


def panels(
    image: np.ndarray,
    scene: Scene,
    camera: Camera | None,
    style: OverlayStyle | None = None,
    panel_width: int = 1024,
    note: str = '',
) -> np.ndarray:
    """Image with 3D boxes | mask | depth, side by side under captions; sides are even numbers.

    A task that the scene lacks has no panel; `note` goes into the first caption. Everything is
    scaled to `panel_width` before it is drawn, so lines and text stay sharp.
    """
    style = style or OverlayStyle()
    size = (
        panel_width // 2 * 2,
        max(round(image.shape[0] * panel_width / image.shape[1] / 2) * 2, 2),
    )
    small = cv2.resize(_contiguous_copy(image), size, interpolation=cv2.INTER_AREA)
    view = None if camera is None else camera.resized(*size)
    drawn = draw_scene(small, scene, view, replace(style, semantic_alpha=0.0))
    rows = 1 if scene.semantic is None else len(_legend(size[0]))
    caption = _caption(size[0], f'{_boxes_text(scene)}   {note}', rows)
    pictures = [np.vstack((caption, drawn))]
    if scene.semantic is not None:
        mask = cv2.resize(scene.semantic.numpy(), size, interpolation=cv2.INTER_NEAREST)
        pictures.append(np.vstack((_semantic_caption(size[0]), color_semantic(mask))))
    if scene.depth is not None:
        near_m, far_m = style.depth_near_m, style.depth_far_m
        depth_m = cv2.resize(scene.depth.numpy(), size, interpolation=cv2.INTER_NEAREST)
        picture = color_depth(depth_m, near_m, far_m)
        pictures.append(np.vstack((_depth_caption(size[0], near_m, far_m, rows), picture)))
    return np.hstack(pictures)


def clip_to_frustum(
    starts: np.ndarray, ends: np.ndarray, camera: Camera, margin_px: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The visible parts of segments (N, 3) → (N, 3) in S, and which of them have one (N,) bool.

    The frustum is the image grown by `margin_px`, from NEAR_M on. Each of its planes bounds the
    range [enter, leave] of the segment's parameter (Liang and Barsky's clipping, in 3D).
    """
    fx, fy, u0, v0 = camera.fx, camera.fy, camera.u0, camera.v0
    right, bottom = camera.width - 1 + margin_px, camera.height - 1 + margin_px
    planes = np.array(  # inside where a x + b y + c z + d >= 0
        [
            [0, 0, 1, -NEAR_M],
            [fx, 0, u0 + margin_px, 0],
            [-fx, 0, right - u0, 0],
            [0, fy, v0 + margin_px, 0],
            [0, -fy, bottom - v0, 0],
        ]
    )
    at_start = starts @ planes[:, :3].T + planes[:, 3]  # (N, 5)
    at_end = ends @ planes[:, :3].T + planes[:, 3]
    span = np.where(at_start == at_end, 1.0, at_start - at_end)
    crossing = at_start / span
    enter = np.where(at_start < 0, crossing, 0.0).max(1)
    leave = np.where(at_end < 0, crossing, 1.0).min(1)
    outside = ((at_start < 0) & (at_end < 0)).any(1)
    visible = ~outside & (enter < leave)
    along = ends - starts
    heads, tails = starts + enter[:, None] * along, starts + leave[:, None] * along
    # Of coordinates beyond 10^15 m rounding leaves cuts in the plane of the camera.
    visible &= np.minimum(heads[:, 2], tails[:, 2]) > NEAR_M / 2
    return heads, tails, visible


def _draw_objects(
    canvas: np.ndarray, objects: Objects3D, camera: Camera, style: OverlayStyle
) -> None:
    """Far boxes first, near ones on top; then the labels, where near ones keep their place."""
    scale = canvas.shape[0] / 1024
    starts, ends = _box_lines(objects)
    distances_m = objects.center_cam.double().norm(dim=-1).numpy()
    labels: list[tuple[str, np.ndarray, tuple[int, int, int]]] = []
    for index in np.argsort(-distances_m):
        if not np.isfinite(starts[index]).all():
            continue
        heads, tails, visible = clip_to_frustum(starts[index], ends[index], camera, 8 * scale)
        if not visible.any():
            continue
        lines = np.stack((_pixels(heads[visible], camera), _pixels(tails[visible], camera)), 1)
        class_id = int(objects.class_id[index])
        color = DETECTION_COLORS[class_id]
        width = max(1, round(scale * (3 if distances_m[index] < 30 else 2)))
        fixed = np.rint(lines * 16).astype(np.int32)  # (N, 2, 2), sixteenths of a pixel
        cv2.polylines(canvas, list(fixed), False, color, width, cv2.LINE_AA, shift=4)
        text = f'{DETECTION_CLASSES[class_id]} {distances_m[index]:.0f} m'
        labels.append((text, lines.reshape(-1, 2), color))
    taken: list[tuple[int, int, int, int]] = []
    for text, points, color in reversed(labels if style.box_labels else []):
        _draw_label(canvas, text, points, color, scale, taken)


def _box_lines(objects: Objects3D) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends (N, 17, 3) in S: 12 edges, a cross on the front face, a heading arrow."""
    center = objects.center_cam.double()
    half = objects.size_lwh_m.double() / 2
    rotation = rotation_from_quaternion(objects.rotation_cam.double())
    corners = box_corners(center, 2 * half, rotation)
    # The arrow lies on the ground: from the middle of the floor to half a length past the front.
    tail, tip, left, right = half.new_tensor([[0, 0], [2, 0], [1.6, 0.35], [1.6, -0.35]])
    floor = half.new_tensor([-1.0])
    arrow = (
        torch.stack([torch.cat((at, floor)) for at in (tail, tip, left, right)]) * half[:, None]
    )
    arrow = center[:, None] + arrow @ rotation.transpose(-1, -2)
    points = camera_to_optical(torch.cat((corners, arrow), 1)).numpy()  # (N, 12, 3)
    front = ((2, 7), (3, 6))  # FRB–FLT, FLB–FRT
    pairs = np.array([*EDGES, *front, (8, 9), (9, 10), (9, 11)])
    return points[:, pairs[:, 0]], points[:, pairs[:, 1]]


def _pixels(points: np.ndarray, camera: Camera) -> np.ndarray:
    """(N, 3) in S with z > 0 → (N, 2) float pixels."""
    focal, principal = np.array([camera.fx, camera.fy]), np.array([camera.u0, camera.v0])
    return points[:, :2] / points[:, 2:] * focal + principal


def _draw_label(
    canvas: np.ndarray,
    text: str,
    points_px: np.ndarray,
    color: tuple[int, int, int],
    scale: float,
    taken: list[tuple[int, int, int, int]],
) -> None:
    """Text on a dark plate above the box's highest visible point, moved into the picture.

    It climbs at most three rows over the plates in `taken`; a label that finds no place is left
    out, for two labels in one place are both unreadable.
    """
    height, width = canvas.shape[:2]
    size, thickness, pad = (
        max(0.8 * scale, 0.38),
        max(1, round(2 * scale)),
        max(2, round(4 * scale)),
    )
    (text_w, text_h), below = cv2.getTextSize(text, _FONT, size, thickness)
    row = text_h + below + 2 * pad
    left = int(points_px[:, 0].mean()) - text_w // 2
    left = min(max(left, pad), max(width - text_w - pad, pad))
    bottom = min(max(int(points_px[:, 1].min()) - pad, row), max(height, row))
    for _ in range(4):
        plate = (left - pad, bottom - row, left + text_w + pad, bottom)
        if bottom >= row and not any(_overlap(plate, other) for other in taken):
            taken.append(plate)
            cv2.rectangle(canvas, plate[:2], plate[2:], _DARK, cv2.FILLED)
            base = (left, bottom - below - pad)
            cv2.putText(canvas, text, base, _FONT, size, color, thickness, cv2.LINE_AA)
            return
        bottom -= row


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _contiguous_copy(image: np.ndarray) -> np.ndarray:
    """A fresh RGB array; a view of BGR memory is swapped by OpenCV (100× faster)."""
    if image.strides[2] < 0:
        return cv2.cvtColor(np.ascontiguousarray(image[..., ::-1]), cv2.COLOR_BGR2RGB)
    return np.array(image, order='C')


def _boxes_text(scene: Scene) -> str:
    if scene.detection3d is None:
        return '3D boxes: withheld (no valid calibration)'
    return f'3D boxes: {len(scene.detection3d)}'


def _caption(width: int, text: str, rows: int) -> np.ndarray:
    strip = np.full((_FIRST_ROW + rows * _ROW, width, 3), _DARK, np.uint8)
    _write(strip, text, 10)
    return strip


@cache
def _legend(width: int) -> list[list[tuple[int, int]]]:
    """(train id, left) of every class, row by row: the same in each frame of a film."""
    rows: list[list[tuple[int, int]]] = [[]]
    left = _INDENT
    for train_id, name in enumerate(SEMANTIC_CLASSES):
        room = 18 + _text_width(name)
        if rows[-1] and left + room > width:
            rows.append([])
            left = _INDENT
        rows[-1].append((train_id, left))
        left += room + 14
    return rows


def _semantic_caption(width: int) -> np.ndarray:
    legend = _legend(width)
    strip = _caption(width, 'semantic', len(legend))
    for row, entries in enumerate(legend):
        top = row * _ROW
        for train_id, left in entries:
            color = PALETTE[train_id].tolist()
            cv2.rectangle(strip, (left, top + 9), (left + 12, top + 21), color, cv2.FILLED)
            _write(strip, SEMANTIC_CLASSES[train_id], left + 18, top)
    return strip


def _depth_caption(width: int, near_m: float, far_m: float, rows: int) -> np.ndarray:
    strip = _caption(width, 'depth', rows)
    left = _INDENT + _write(strip, f'{near_m:g} m', _INDENT) + 10
    shades = cv2.resize(DEPTH_PALETTE[None, 1:], (200, 14))[:, : max(width - left, 0)]
    strip[9:23, left : left + shades.shape[1]] = shades
    _write(strip, f'{far_m:g} m', left + 210)
    return strip


def _write(strip: np.ndarray, text: str, left: int, top: int = 0) -> int:
    """Write in one row of a caption strip; the width of the text in pixels."""
    cv2.putText(strip, text, (left, top + 21), _FONT, _CAPTION_SIZE, _LIGHT, 1, cv2.LINE_AA)
    return _text_width(text)


def _text_width(text: str) -> int:
    return cv2.getTextSize(text, _FONT, _CAPTION_SIZE, 1)[0][0]

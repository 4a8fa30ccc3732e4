"""The types that walk through the house: Camera, Objects3D, Scene, Sample.

Frames (ISO 8855 and REP 103): V vehicle (x forward, y left, z up, on the ground below the rear
axle); C camera (axes like V, origin at the optical centre); S optical (x right, y down, z forward,
origin like C). Boxes are always in C. Pixels: u right, v down, (0, 0) is the centre of the
top-left pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

MAX_INTRINSIC_PX = 1e6
"""No lens is that long, no principal point that far out: such a number is a mistake of units."""


@dataclass(frozen=True)
class Camera:
    """Pinhole calibration of one rectified image, in float64."""

    width: int
    height: int
    fx: float
    """Focal length, pixels."""
    fy: float
    u0: float
    """Principal point, pixels."""
    v0: float
    baseline_m: float | None = None
    """Distance to the right stereo camera, metres (disparity datasets only)."""
    camera_T_vehicle: np.ndarray | None = None
    """(4, 4) rigid transform p_C = T p_V: Cityscapes' `sensor_T_ISO_8855` with the last row."""

    @property
    def K(self) -> np.ndarray:
        """(3, 3) intrinsic matrix."""
        return np.array([[self.fx, 0.0, self.u0], [0.0, self.fy, self.v0], [0.0, 0.0, 1.0]])

    def resized(self, width: int, height: int) -> Camera:
        """The camera of the same picture resampled to width × height (pixel centres aligned)."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * sx,
            fy=self.fy * sy,
            u0=(self.u0 + 0.5) * sx - 0.5,
            v0=(self.v0 + 0.5) * sy - 0.5,
        )

    def fault(self) -> str | None:
        """Why this calibration cannot place a 3D box, or None if it can."""
        values = tuple(map(float, (self.fx, self.fy, self.u0, self.v0)))
        if not np.all(np.isfinite(values)):
            return f'intrinsics are not finite: fx, fy, u0, v0 = {values}'
        if self.fx <= 0 or self.fy <= 0:
            return f'focal length must be positive: fx = {self.fx}, fy = {self.fy}'
        if min(self.fx, self.fy) < 1:
            return f'focal length below a pixel, is it normalised? fx = {self.fx}, fy = {self.fy}'
        if max(map(abs, values)) > MAX_INTRINSIC_PX:
            return f'intrinsics beyond {MAX_INTRINSIC_PX:g} pixels: fx, fy, u0, v0 = {values}'
        return None


@dataclass(frozen=True)
class Objects3D:
    """N boxes of one image as a struct of tensors, all on one device, in frame C."""

    class_id: Tensor
    """(N,) int64 index into `labels.DETECTION_CLASSES`."""
    score: Tensor
    """(N,) float in [0, 1]; 1 for ground truth."""
    center_cam: Tensor
    """(N, 3) geometric box centre in C, metres."""
    size_lwh_m: Tensor
    """(N, 3) full length, width, height, metres."""
    rotation_cam: Tensor
    """(N, 4) unit quaternion w, x, y, z: object axes (x front, y left, z up) → C."""
    box_2d_px: Tensor
    """(N, 4) visible (modal) rectangle x1, y1, x2, y2 in image pixels."""
    depth_sigma_m: Tensor
    """(N,) standard deviation of the distance along the viewing ray, metres; 0: exact."""

    def __len__(self) -> int:
        return len(self.class_id)

    def __getitem__(self, index: Tensor | slice | int | tuple[Tensor, Tensor]) -> Objects3D:
        """The boxes that an index, mask or slice selects; of a batch, also [image, box]."""
        return Objects3D(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Objects3D:
        """Copy of all tensors on `device`."""
        return Objects3D(
            **{
                f.name: getattr(self, f.name).to(device, non_blocking=non_blocking)
                for f in fields(self)
            }
        )

    def cpu(self) -> Objects3D:
        """Copy on the host."""
        return self.to('cpu')

    @staticmethod
    def empty(device: torch.device | str = 'cpu') -> Objects3D:
        """No box at all."""
        return Objects3D(
            class_id=torch.zeros(0, dtype=torch.int64, device=device),
            score=torch.zeros(0, device=device),
            center_cam=torch.zeros(0, 3, device=device),
            size_lwh_m=torch.zeros(0, 3, device=device),
            rotation_cam=torch.zeros(0, 4, device=device),
            box_2d_px=torch.zeros(0, 4, device=device),
            depth_sigma_m=torch.zeros(0, device=device),
        )


@dataclass(frozen=True)
class View:
    """How a batch of B network inputs was taken from camera images; what decoding has to undo."""

    intrinsics: Tensor
    """(B, 4) fx, fy, u0, v0 of the camera images (not of the resized inputs), pixels."""
    image_size: tuple[int, int]
    """Height, width of the camera images."""
    input_size: tuple[int, int]
    """Height, width of the network input they were resized to."""


@dataclass(frozen=True)
class Scene:
    """What the network says about one image, at the resolution of that image. One field per task.

    Decoding returns a batch: every tensor has a leading dimension B, and `scene[b]` is one image.
    """

    semantic: Tensor | None
    """(H, W) uint8 train ids, 255 unlabelled."""
    depth: Tensor | None
    """(H, W) float32 metres along the optical axis (z of S), NaN where there is none (sky)."""
    detection3d: Objects3D | None
    """Boxes by falling score; None where they are withheld (no valid calibration)."""

    def __getitem__(self, index: int) -> Scene:
        """One image of a batch."""
        return self._map(lambda value: value[index])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Scene:
        """Copy of all tensors on `device`."""
        return self._map(lambda value: value.to(device, non_blocking=non_blocking))

    def cpu(self) -> Scene:
        """Copy on the host."""
        return self.to('cpu')

    def _map(self, function: Callable[[Any], Any]) -> Scene:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Scene(**{k: None if v is None else function(v) for k, v in values.items()})


@dataclass(frozen=True)
class Sample:
    """One labelled image of a dataset. Labels that a dataset does not have are None."""

    name: str
    """Stem shared by all files of the image, e.g. aachen_000000_000019."""
    image: np.ndarray
    """(H, W, 3) uint8 RGB."""
    camera: Camera
    semantic: np.ndarray | None = None
    """(H, W) uint8 train ids, 255 where not scored."""
    depth: np.ndarray | None = None
    """(H, W) float32 metres along the optical axis, NaN where not measured."""
    detection3d: Objects3D | None = None
    ignore_px: np.ndarray | None = None
    """(M, 4) float32 rectangles x1, y1, x2, y2 in which detections are not scored."""

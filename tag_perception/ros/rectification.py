"""Images of a lens with distortion → the pinhole images the network was made for.

The rules are those of image_proc: K and D describe the raw image, R and P the rectified one. The
maps are made once per calibration; after that a frame costs one `cv2.remap`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import torch
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from tag_perception.core.labels import UNLABELLED
from tag_perception.core.structures import Camera, Scene
from tag_perception.ros.messages import to_camera_info

COEFFICIENTS = {'plumb_bob': (4, 5), 'rational_polynomial': (8, 12, 14), 'equidistant': (4,)}
"""Distortion models that can be undone, and how many coefficients each may have."""


class Rectifier:
    """Undistorts the images of one calibration."""

    def __init__(self, info: CameraInfo) -> None:
        """`info` passes `fault(info)`. A P of zeros (uncalibrated) stands for K."""
        raw = np.array(info.k, np.float64).reshape(3, 3)
        turn: np.ndarray = np.array(info.r, np.float64).reshape(3, 3)
        turn = turn if turn.any() else np.eye(3)
        projection = np.array(info.p, np.float64).reshape(3, 4)[:, :3]
        projection = projection if projection[0, 0] > 0 else raw
        coefficients, size = np.array(info.d, np.float64), (info.width, info.height)
        fisheye = info.distortion_model == 'equidistant'
        make: Callable = (
            cv2.fisheye.initUndistortRectifyMap if fisheye else cv2.initUndistortRectifyMap
        )
        # Fixed-point maps are half the memory of float maps and twice as fast.
        self._maps = make(raw, coefficients, turn, projection, size, cv2.CV_16SC2)
        seen = self._remap(np.full((info.height, info.width), 255, np.uint8))
        self._unseen = torch.from_numpy(seen < 255)
        self._has_unseen = bool(self._unseen.any())
        self.camera = Camera(
            *size,
            fx=float(projection[0, 0]),
            fy=float(projection[1, 1]),
            u0=float(projection[0, 2]),
            v0=float(projection[1, 2]),
        )
        """Calibration of the rectified images."""

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 rectified; black where the lens saw nothing."""
        if image.strides[2] < 0:  # BGR memory seen as RGB stays that, without a copy
            return self._remap(np.ascontiguousarray(image[..., ::-1]))[..., ::-1]
        return self._remap(np.ascontiguousarray(image))

    def blank(self, scene: Scene) -> Scene:
        """The scene without class and depth where the lens saw nothing."""
        if not self._has_unseen:
            return scene
        semantic, depth = scene.semantic, scene.depth
        return replace(
            scene,
            semantic=None if semantic is None else semantic.masked_fill(self._unseen, UNLABELLED),
            depth=None if depth is None else depth.masked_fill(self._unseen, torch.nan),
        )

    def camera_info(self, header: Header) -> CameraInfo:
        """What the rectified images are: no distortion, K = P."""
        return to_camera_info(self.camera, header)

    def _remap(self, image: np.ndarray) -> np.ndarray:
        coordinates, fractions = self._maps
        return cv2.remap(image, coordinates, fractions, cv2.INTER_LINEAR)


def is_distorted(info: CameraInfo) -> bool:
    """Whether any distortion coefficient is not zero."""
    return any(info.d)


def fault(info: CameraInfo) -> str | None:
    """Why the distortion of `info` cannot be undone, or None if it can."""
    allowed = COEFFICIENTS.get(info.distortion_model)
    if allowed is None:
        known = ', '.join(COEFFICIENTS)
        return f'distortion_model {info.distortion_model!r} is not one of {known}'
    if len(info.d) not in allowed:
        numbers = ' or '.join(map(str, allowed))
        return f'{info.distortion_model} needs {numbers} coefficients, d has {len(info.d)}'
    if not np.isfinite([*info.d, *info.k, *info.r, *info.p]).all():
        return 'd, k, r or p is not finite'
    if info.k[0] <= 0 or info.k[4] <= 0:
        return f'focal length must be positive: k has {info.k[0]} and {info.k[4]}'
    return None


def rectified_camera(info: CameraInfo) -> Camera:
    """Calibration of images that were rectified before they came: P, and K where P is zero."""
    fx, _, u0, _, _, fy, v0, *_ = info.p if info.p[0] > 0 else (*info.k[:3], 0.0, *info.k[3:6])
    return Camera(info.width, info.height, fx=fx, fy=fy, u0=u0, v0=v0)

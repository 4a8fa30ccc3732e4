"""Which pinhole camera do the pixels belong to? Lens distortion is undone on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from tag_perception.core.structures import Camera, Scene
from tag_perception.ros import messages, rectification
from tag_perception.ros.rectification import Rectifier


@dataclass(frozen=True)
class Seen:
    """One image as a pinhole camera would have taken it."""

    pixels: np.ndarray
    """(H, W, 3) uint8 RGB."""
    camera: Camera | None
    """None where there is no usable calibration."""
    withheld: str | None
    """Why `camera` is None."""
    describe: Callable[[Header], CameraInfo] | None = None
    """CameraInfo of mask and depth under a header; None without calibration."""
    finish: Callable[[Scene], Scene] = lambda scene: scene
    """Takes class and depth from pixels that the lens did not see."""


class Calibration:
    """Applies camera_info to images; keeps the maps of the last distorted one."""

    def __init__(self) -> None:
        self._key: tuple | None = None
        self._rectifier: Rectifier | None = None

    def apply(self, pixels: np.ndarray, info: CameraInfo | None, rectified: bool) -> Seen:
        """The pinhole image of (H, W, 3) uint8 RGB `pixels`.

        `rectified`: the pixels are that already, whatever distortion `info` has.
        """
        if info is None:
            return Seen(pixels, None, 'no camera_info yet')
        height, width = pixels.shape[:2]
        if (info.width, info.height) != (width, height):
            sizes = f'{info.width}×{info.height}, the image is {width}×{height}'
            return Seen(pixels, None, f'camera_info is for {sizes}')
        distorted = rectification.is_distorted(info)
        if distorted and not rectified:
            return self._undistorted(pixels, info)
        camera = rectification.rectified_camera(info) if rectified else messages.to_camera(info)
        fault = camera.fault()
        if fault is not None:
            return Seen(pixels, None, f'camera_info: {fault}')
        if distorted:  # the pixels have none of it, and the outputs are to say so
            return Seen(
                pixels, camera, None, lambda header: messages.to_camera_info(camera, header)
            )
        return Seen(pixels, camera, None, lambda header: messages.with_header(info, header))

    def _undistorted(self, pixels: np.ndarray, info: CameraInfo) -> Seen:
        fault = rectification.fault(info)
        if fault is not None:
            return Seen(pixels, None, f'camera_info: {fault}')
        key = (info.distortion_model, *info.d, *info.k, *info.r, *info.p, *pixels.shape)
        if self._rectifier is None or key != self._key:
            self._key, self._rectifier = key, Rectifier(info)
        rectifier = self._rectifier
        fault = rectifier.camera.fault()
        if fault is not None:
            return Seen(pixels, None, f'camera_info: {fault}')
        straight = rectifier(pixels)
        return Seen(straight, rectifier.camera, None, rectifier.camera_info, rectifier.blank)

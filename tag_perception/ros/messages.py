"""Every conversion between ROS messages and the types of the core.

Pixels are never assigned to a message: rosidl would walk them one by one, half a second per image.
They are read and written through NumPy views of the memory the message already has.
"""

from __future__ import annotations

import functools
import sys
from typing import Literal

import cv2
import numpy as np
import torch
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection3DArray, LabelInfo, VisionClass, VisionInfo

from tag_perception.core.geometry import (
    OPTICAL_R_CAMERA,
    optical_to_camera,
    quaternion_from_rotation,
    quaternion_multiply,
)
from tag_perception.core.labels import DETECTION_CLASSES, DETECTION_TRAIN_IDS, SEMANTIC_CLASSES
from tag_perception.core.structures import Camera, Objects3D, Scene
from tag_perception.ros import wire
from tag_perception.ros.wire import Rejected, WireImage, WireMessage
from tag_perception.runtime.engine import UNTRAINED, EngineStatus

ClassIdFormat = Literal['name', 'id']

BIG_ENDIAN = sys.byteorder == 'big'

PIXELS: dict[str, tuple[int, slice]] = {
    'rgb8': (3, slice(None)),
    'bgr8': (3, slice(None, None, -1)),
    'rgba8': (4, slice(3)),
    'bgra8': (4, slice(2, None, -1)),
    'mono8': (1, slice(None)),
}
"""Encodings that are an RGB view of the message's own memory: bytes per pixel, where RGB is."""

CONVERSIONS: dict[str, tuple[int, int]] = {
    # OpenCV names a pattern by its second row, ROS by its first.
    'bayer_rggb8': (1, cv2.COLOR_BayerBG2RGB),
    'bayer_bggr8': (1, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg8': (1, cv2.COLOR_BayerGR2RGB),
    'bayer_grbg8': (1, cv2.COLOR_BayerGB2RGB),
    'bayer_rggb16': (2, cv2.COLOR_BayerBG2RGB),
    'bayer_bggr16': (2, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg16': (2, cv2.COLOR_BayerGR2RGB),
    'bayer_grbg16': (2, cv2.COLOR_BayerGB2RGB),
    'yuv422': (2, cv2.COLOR_YUV2RGB_UYVY),
    'yuv422_yuy2': (2, cv2.COLOR_YUV2RGB_YUY2),
}
"""Encodings that OpenCV has to convert: bytes per pixel, colour conversion."""

OPTICAL_T_CAMERA = np.eye(4)
"""(4, 4) from C to S, which have one origin."""
OPTICAL_T_CAMERA[:3, :3] = OPTICAL_R_CAMERA

BYTES_PER_PIXEL = {name: row[0] for name, row in (*PIXELS.items(), *CONVERSIONS.items())}
"""Every encoding that can be read."""


def check_image(message: Image | WireImage) -> None:
    """Raise Rejected if the pixels of `message` cannot be read. Costs microseconds."""
    if message.encoding not in BYTES_PER_PIXEL:
        known = ', '.join(BYTES_PER_PIXEL)
        raise Rejected(f'encoding {message.encoding!r} is not one of {known}')
    bytes_per_pixel = BYTES_PER_PIXEL[message.encoding]
    if message.encoding.endswith('16') and bool(message.is_bigendian) != BIG_ENDIAN:
        raise Rejected(f'encoding {message.encoding} in foreign byte order (is_bigendian)')
    if message.height == 0 or message.width == 0:
        raise Rejected(f'image is empty: {message.width}×{message.height}')
    if message.step < message.width * bytes_per_pixel:
        raise Rejected(
            f'step {message.step} is smaller than a row: {message.width} {message.encoding} '
            f'pixels are {message.width * bytes_per_pixel} bytes'
        )
    if len(message.data) < message.height * message.step:
        raise Rejected(
            f'data has {len(message.data)} bytes, height × step = {message.height} × '
            f'{message.step} needs {message.height * message.step}'
        )


def to_rgb(message: Image | WireImage) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a checked image, a view of its memory where the encoding allows.

    Raises Rejected where OpenCV cannot convert the pixels.
    """
    height, width, step = message.height, message.width, message.step
    if message.encoding in PIXELS:
        channels, rgb = PIXELS[message.encoding]
        view: np.ndarray = np.ndarray(
            (height, width, channels), np.uint8, message.data, strides=(step, channels, 1)
        )[..., rgb]
        return np.broadcast_to(view, (height, width, 3)) if channels == 1 else view
    bytes_per_pixel, conversion = CONVERSIONS[message.encoding]
    row_bytes = width * bytes_per_pixel
    rows: np.ndarray = np.ndarray((height, row_bytes), np.uint8, message.data, strides=(step, 1))
    pixels = np.ascontiguousarray(rows)
    if message.encoding.startswith('bayer'):
        pixels = pixels.view(np.uint16 if bytes_per_pixel == 2 else np.uint8)
    else:
        pixels = pixels.reshape(height, width, 2)
    try:
        image: np.ndarray = cv2.cvtColor(pixels, conversion)
    except cv2.error as error:
        raise Rejected(f'{message.encoding} {width}×{height}: {error.err or error}') from error
    return image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)


def to_camera(info: CameraInfo) -> Camera:
    """Calibration in a CameraInfo; `Camera.fault()` tells whether it can be used."""
    return Camera(info.width, info.height, fx=info.k[0], fy=info.k[4], u0=info.k[2], v0=info.k[5])


def to_camera_info(camera: Camera, header: Header) -> CameraInfo:
    """CameraInfo of a rectified image: no distortion, P = [K | 0]."""
    k = camera.K
    return CameraInfo(
        header=header,
        height=camera.height,
        width=camera.width,
        distortion_model='plumb_bob',
        d=[0.0] * 5,
        k=k.ravel(),
        r=np.eye(3).ravel(),
        p=np.column_stack((k, np.zeros(3))).ravel(),
    )


def with_header(info: CameraInfo, header: Header) -> CameraInfo:
    """The same calibration under another header."""
    values = {name: getattr(info, name) for name in info.get_fields_and_field_types()}
    return CameraInfo(**{**values, 'header': header})


def to_detections(
    header: Header,
    boxes: Objects3D,
    ids: ClassIdFormat,
    frame_T_camera: np.ndarray = OPTICAL_T_CAMERA,
) -> WireMessage:
    """A Detection3DArray with one detection per box, in the frame that `header` names.

    `frame_T_camera` (4, 4) leads from C to that frame, which is S unless told otherwise. The
    box's own axes are x front, y left, z up, so `size` is length, width, height.
    """
    center, orientation, covariance = _poses(boxes, frame_T_camera)
    pose = np.column_stack((center, orientation[:, [1, 2, 3, 0]]))  # messages have xyzw
    score, size = boxes.score.numpy(), boxes.size_lwh_m.numpy()
    names = class_ids(ids)
    return wire.detections(
        Detection3DArray,
        header,
        [names[i] for i in boxes.class_id.tolist()],
        np.column_stack((score, pose, covariance, pose, size)),
    )


def to_scene(
    semantic: Image | None, depth: Image | None, detections: Detection3DArray | None
) -> Scene:
    """What the messages of one frame say; the way back from the node's outputs."""
    return Scene(
        semantic=None if semantic is None else torch.from_numpy(_pixels(semantic, np.uint8)),
        depth=None if depth is None else torch.from_numpy(_pixels(depth, np.float32)),
        detection3d=None if detections is None else to_objects(detections),
    )


def to_objects(message: Detection3DArray) -> Objects3D:
    """Boxes in C of detections in the optical frame. Their 2D rectangles, not sent, are zero."""
    indices = {
        name: index
        for ids in (class_ids('name'), class_ids('id'))
        for index, name in enumerate(ids)
    }
    rows = []
    for detection in message.detections:
        result, pose, size = detection.results[0], detection.bbox.center, detection.bbox.size
        at, turn = pose.position, pose.orientation
        variance = sum(result.pose.covariance[i] for i in (0, 7, 14))  # of x, y, z
        rows.append(
            (
                indices[result.hypothesis.class_id], result.hypothesis.score, at.x, at.y, at.z,
                size.x, size.y, size.z, turn.w, turn.x, turn.y, turn.z, variance,
            )
        )  # fmt: skip
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 13)
    turn = quaternion_from_rotation(torch.from_numpy(OPTICAL_R_CAMERA.T.copy()))
    return Objects3D(
        class_id=table[:, 0].long(),
        score=table[:, 1].float(),
        center_cam=optical_to_camera(table[:, 2:5]).float(),
        size_lwh_m=table[:, 5:8].float(),
        rotation_cam=quaternion_multiply(turn, table[:, 8:12]).float(),
        box_2d_px=torch.zeros(len(rows), 4),
        depth_sigma_m=table[:, 12].sqrt().float(),
    )


def class_ids(ids: ClassIdFormat) -> tuple[str, ...]:
    """What stands in `hypothesis.class_id` for each detection class: its name or its train id."""
    return DETECTION_CLASSES if ids == 'name' else tuple(map(str, DETECTION_TRAIN_IDS))


def semantic_labels() -> LabelInfo:
    """Train ids and names of the mask; 255 is unlabelled. Boxes use the same numbers."""
    classes = [VisionClass(class_id=i, class_name=n) for i, n in enumerate(SEMANTIC_CLASSES)]
    return LabelInfo(class_map=classes)


def detection_labels(score_threshold: float) -> LabelInfo:
    """Ids (the mask's train ids) and names of the classes with 3D boxes."""
    pairs = zip(DETECTION_TRAIN_IDS, DETECTION_CLASSES, strict=True)
    classes = [VisionClass(class_id=i, class_name=name) for i, name in pairs]
    return LabelInfo(class_map=classes, threshold=score_threshold)


def vision_info(status: EngineStatus, label_topic: str) -> VisionInfo:
    """Which network made the results, and the topic where its classes are listed."""
    network = f'TAG multi-task network, backbone {status.network.backbone}'
    weights = status.checkpoint if status.trained else f'{UNTRAINED}: random weights'
    return VisionInfo(method=f'{network}, {weights}', database_location=label_topic)


def _pixels(message: Image, dtype: type[np.generic]) -> np.ndarray:
    """(H, W) pixels of a mask or depth image as we write them, a view of its memory."""
    return np.frombuffer(message.data, dtype).reshape(message.height, message.width)


def _poses(
    boxes: Objects3D, frame_T_camera: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre (N, 3), orientation (N, 4) wxyz, covariance (N, 36) x y z and angles, in a frame.

    The variance of the distance lies along the viewing ray r: sigma² r rᵀ. What the network says
    nothing about is 0.
    """
    # In NumPy: each of torch's operations on so little costs as much as all of these.
    pose = np.asarray(frame_T_camera, np.float64)
    rotation, in_camera = pose[:3, :3], boxes.center_cam.numpy().astype(np.float64)
    center = in_camera @ rotation.T + pose[:3, 3]
    orientation = boxes.rotation_cam.numpy() @ _turned_by(rotation.tobytes())
    with np.errstate(invalid='ignore'):  # a box at the camera itself has no ray: NaN
        ray = in_camera / np.linalg.norm(in_camera, axis=-1, keepdims=True) @ rotation.T
    along = ray * boxes.depth_sigma_m.numpy()[:, None]
    covariance = np.zeros((len(boxes), 6, 6))
    covariance[:, :3, :3] = along[:, :, None] * along[:, None, :]
    return center, orientation, covariance.reshape(-1, 36)


@functools.lru_cache(maxsize=16)
def _turned_by(rotation: bytes) -> np.ndarray:
    """(4, 4), into which a quaternion is multiplied from the left to turn it by `rotation`.

    That is (3, 3) float64; kept, since the frame of the boxes hardly moves against the camera.
    """
    matrix = torch.frombuffer(bytearray(rotation), dtype=torch.float64).reshape(3, 3)
    units = torch.eye(4, dtype=torch.float64)
    return quaternion_multiply(quaternion_from_rotation(matrix), units).numpy()

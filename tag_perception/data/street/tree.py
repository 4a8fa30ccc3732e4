"""Streets on disk, in the layout and with the file formats of Cityscapes-3D."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from tag_perception.config import InputError
from tag_perception.data.street.annotation import record
from tag_perception.data.street.render import (
    ANNOTATED,
    Rendering,
    check_device,
    check_street,
    city,
    render_frame,
    start_method,
    stem,
)
from tag_perception.data.street.view import RATE_HZ, World

SNIPPET = range(-ANNOTATED, 11)
"""Steps of a snippet's 30 frames from the annotated one."""
SUFFIXES = {
    'leftImg8bit': '_leftImg8bit.png',
    'gtFine/labelIds': '_gtFine_labelIds.png',
    'gtFine/instanceIds': '_gtFine_instanceIds.png',
    'disparity': '_disparity.png',
    'camera': '_camera.json',
    'vehicle': '_vehicle.json',
    'timestamp': '_timestamp.txt',
    'gtBbox3d': '_gtBbox3d.json',
}
"""Files of an annotated frame; the folder is what stands before the slash."""
SEQUENCE_SUFFIXES = {
    'leftImg8bit_sequence': '_leftImg8bit.png',
    'vehicle_sequence': '_vehicle.json',
    'timestamp_sequence': '_timestamp.txt',
}
"""Files of every frame of a snippet."""


def write_tree(
    out: Path | str,
    seed: int,
    frames: int,
    size: tuple[int, int],
    split: str = 'train',
    sequence: bool = False,
    workers: int = 0,
    device: str = 'cpu',
    progress: bool = True,
) -> list[str]:
    """Write streets 0 … frames - 1 of `seed` below `out`; returns the annotated stems.

    With `sequence`, each also gets its snippet of 30 frames at 17 Hz. Two or more `workers` are
    processes that share the work. Frames that are complete already are kept, so an interrupted run
    continues; no file is ever half-written. Raises InputError where `out` cannot be written or
    holds these frames in another size.
    """
    if frames < 1:
        raise InputError(f'frames {frames}: give at least 1')
    check_device(device)
    check_street(seed, 0, size, split)
    steps = SNIPPET if sequence else range(1)
    moments = [(frame, step) for frame in range(frames) for step in steps]
    jobs = _Jobs(moments, Path(out), seed, size, split, sequence, device)
    parallel = workers if workers > 1 else 0
    loader = DataLoader(
        jobs,
        batch_size=None,
        num_workers=parallel,
        multiprocessing_context=start_method(device, parallel),
    )
    names = []
    for name in tqdm(loader, total=len(jobs), unit='frame', desc=split, disable=not progress):
        if isinstance(name, InputError):
            raise name
        names.append(name)
    return [name for name in names if name.endswith(f'_{ANNOTATED:06d}')]


class _Jobs(Dataset):
    """Frames to write, as a dataset: a loader spreads them over processes."""

    def __init__(self, moments: list[tuple[int, int]], *rest: Any) -> None:
        self.moments, self.rest = moments, rest

    def __len__(self) -> int:
        return len(self.moments)

    def __getitem__(self, index: int) -> str | InputError:
        out, seed, size, split, sequence, device = self.rest
        try:
            return write_frame(out, seed, *self.moments[index], size, split, sequence, device)
        except InputError as error:  # a loader would raise it with a traceback for a message
            return error


def write_frame(
    out: Path,
    seed: int,
    frame: int,
    step: int,
    size: tuple[int, int],
    split: str,
    sequence: bool,
    device: str,
) -> str:
    """One frame with all its files, unless they are there; returns its stem."""
    name = stem(seed, frame, step)
    suffixes = (SUFFIXES if step == 0 else {}) | (SEQUENCE_SUFFIXES if sequence else {})
    paths = {
        key: out / key.split('/')[0] / split / city(seed) / f'{name}{suffix}'
        for key, suffix in suffixes.items()
    }
    if all(path.exists() for path in paths.values()):
        _check_size(paths['leftImg8bit' if step == 0 else 'leftImg8bit_sequence'], size)
        return name
    rendering = render_frame(seed, frame, size, split, step, device)
    for key, path in paths.items():
        _write(path, _CONTENT[key.removesuffix('_sequence')](rendering))
    return name


def _check_size(path: Path, size: tuple[int, int]) -> None:
    header = path.open('rb').read(24)
    width, height = (int.from_bytes(header[i : i + 4], 'big') for i in (16, 20))
    if (height, width) != size:
        raise InputError(
            f'{path}: is {height}x{width}, not {size[0]}x{size[1]}; give that size or another OUT'
        )


def _write(path: Path, content: bytes) -> None:
    """All or nothing: a part file takes the name of the whole when it is complete."""
    part = path.with_name(f'{path.name}.part')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f'{path}: cannot be written ({reason}); free space or give another folder'
        ) from error
    finally:  # also after Ctrl-C
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _image(rendering: Rendering) -> bytes:
    return _png(rendering.picture.image.cpu().numpy()[..., ::-1])


def _label_ids(rendering: Rendering) -> bytes:
    return _png(rendering.picture.label.cpu().numpy())


def _instance_ids(rendering: Rendering) -> bytes:
    return _png(rendering.annotation.instance.astype(np.uint16))


def _disparity(rendering: Rendering) -> bytes:
    """p = 256 d + 1 for the disparity d in pixels, 0 in the sky and on the ego bonnet."""
    camera = rendering.world.rig.camera
    depth = rendering.picture.depth.cpu().numpy().astype(np.float64)
    assert camera.baseline_m is not None
    with np.errstate(invalid='ignore'):
        code = np.rint(256 * camera.fx * camera.baseline_m / depth) + 1
    valid = np.isfinite(depth) & (code > 1) & (code < 1 << 16)
    return _png(np.where(valid, code, 0).astype(np.uint16))


def _camera(rendering: Rendering) -> bytes:
    rig = rendering.world.rig
    camera, (x, y, z) = rig.camera, rig.position
    extrinsic = {
        'baseline': camera.baseline_m, 'pitch': rig.pitch, 'roll': 0.0, 'yaw': rig.yaw,
        'x': x, 'y': y, 'z': z,
    }  # fmt: skip
    intrinsic = {'fx': camera.fx, 'fy': camera.fy, 'u0': camera.u0, 'v0': camera.v0}
    return _json({'extrinsic': extrinsic, 'intrinsic': intrinsic})


def _vehicle(rendering: Rendering) -> bytes:
    """The odometry; position and temperature are those of the dataset's home town."""
    world: World = rendering.world
    return _json({
        'gpsHeading': 0.0, 'gpsLatitude': 48.74, 'gpsLongitude': 9.1, 'outsideTemperature': 15.0,
        'speed': world.speed, 'yawRate': world.yaw_rate,
    })  # fmt: skip


def _timestamp(rendering: Rendering) -> bytes:
    index = int(rendering.name.rsplit('_', 1)[1])
    return str(round(index / RATE_HZ * 1e9)).encode()


def _boxes(rendering: Rendering) -> bytes:
    return _json(record(rendering.annotation, rendering.world))


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode('.png', pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode()


_CONTENT: dict[str, Callable[[Rendering], bytes]] = {
    'leftImg8bit': _image,
    'gtFine/labelIds': _label_ids,
    'gtFine/instanceIds': _instance_ids,
    'disparity': _disparity,
    'camera': _camera,
    'vehicle': _vehicle,
    'timestamp': _timestamp,
    'gtBbox3d': _boxes,
}

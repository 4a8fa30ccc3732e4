"""One picture of one street: from a seed to image, labels, things and depth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tag_perception.core.geometry import OPTICAL_R_CAMERA, rotation_from_euler
from tag_perception.core.structures import Camera
from tag_perception.data.street.layout import Layout
from tag_perception.data.street.raster import Lens, Polygons, project, rasterise
from tag_perception.data.street.road import Patches, Road, surface
from tag_perception.data.street.shading import shade
from tag_perception.data.street.shadows import cast
from tag_perception.data.street.stage import Stage, Standing
from tag_perception.data.street.textures import atlas
from tag_perception.data.street.town import plan
from tag_perception.data.street.traffic import Traffic
from tag_perception.data.street.weather import Weather
from tag_perception.data.street.weather import draw as draw_weather

SPLITS = ('train', 'val')
FULL_WIDTH, FULL_HEIGHT = 2048, 1024
"""Image size that intrinsics are drawn for, pixels."""
RATE_HZ = 17.0
THINGS = (24, 25, 26, 27, 28, 31, 32, 33)
"""Label ids whose objects are told apart."""
EGO_VEHICLE, SKY = 1, 23
"""Label ids of the ego bonnet and of the sky."""


@dataclass(frozen=True)
class Rig:
    """The camera as mounted: pose of C in the vehicle frame V, and the ego bonnet in its view."""

    camera: Camera
    pitch: float
    """Radians, nose down positive; roll is 0."""
    yaw: float
    position: tuple[float, float, float]
    """Of the optical centre in V, metres."""
    bonnet: float
    """Share of the image height that the ego bonnet covers, 0 for none."""


@dataclass(frozen=True)
class World:
    """One street at one moment, before the camera looks at it."""

    road: Road
    ground: tuple[Patches, ...]
    standing: Standing
    thing: np.ndarray
    """(N,) number of every placement that is a vehicle or a person, 1, 2, …; 0 otherwise."""
    weather: Weather
    rig: Rig
    world_T_vehicle: np.ndarray
    """(4, 4) pose of the ego vehicle."""
    speed: float
    """Of the ego vehicle, metres per second."""
    yaw_rate: float
    """Of the ego vehicle, radians per second, left positive."""
    grain: int
    """Picks the sensor noise."""


@dataclass(frozen=True)
class Picture:
    """What the camera sees, as tensors on the rendering device."""

    image: Tensor
    """(H, W, 3) uint8 RGB."""
    label: Tensor
    """(H, W) uint8 Cityscapes label ids."""
    thing: Tensor
    """(H, W) int32 number of the vehicle or person, 0 for none."""
    depth: Tensor
    """(H, W) float32 metres along the optical axis, infinite in the sky, NaN on the bonnet."""
    coverage: Tensor
    """(things,) int64 pixels that each thing would cover if nothing stood in front of it."""


def compose(seed: int, frame: int, size: tuple[int, int], split: str, step: int) -> World:
    """Lay out street `frame` of `seed`, `step` / 17 s after the annotated moment."""
    entropy = [seed, frame, SPLITS.index(split)]
    time_s = step / RATE_HZ
    rng = np.random.default_rng([*entropy, 0])
    street = plan(rng)
    weather = draw_weather(rng)
    still, moving, annotated = Stage(), Stage(), Stage()
    paint = Layout(street, still, weather, rng).build()
    for stage, moment in ((annotated, 0.0), (moving, time_s)):
        traffic = Traffic(street, stage, weather, np.random.default_rng([*entropy, 1]), moment)
        traffic.build()
    # What would collide is decided at the annotated moment, for the whole sequence.
    standing = still.join(moving.select(_apart(annotated))).stand(street.road)
    thing = np.isin(standing.label, THINGS)
    rng = np.random.default_rng([*entropy, 2])
    pose, turn = _ego_pose(street.road, traffic.speed * time_s)
    return World(
        street.road, (surface(street.road, street.cover), *paint), standing, thing * thing.cumsum(), weather,
        _rig(rng, size), pose, traffic.speed, traffic.speed * turn, int(rng.integers(1 << 20)) + 7919 * step,
    )  # fmt: skip


def look(world: World, device: str) -> Picture:
    """Render the picture."""
    textures, camera = atlas(device), world.rig.camera
    lens = _lens(world, device)
    polygons = Polygons.cat((
        _ground_polygons(world.ground, device),
        world.standing.polygons(world.thing, device),
        cast(world.standing, world.weather, device),
    ))  # fmt: skip
    planes = project(polygons, lens, textures)
    pixels = rasterise(planes, lens, textures, int(world.thing.max(initial=0)) + 1)
    bonnet = _bonnet(world.rig, device)
    image = shade(pixels, lens, textures, world.weather, bonnet, world.grain)
    shape = (camera.height, camera.width)
    kept = pixels.planes.polygons
    label = torch.where(pixels.hit, kept.label.index_select(0, pixels.polygon), SKY).view(shape)
    thing = torch.where(pixels.hit, kept.thing.index_select(0, pixels.polygon), 0).view(shape)
    depth = pixels.depth.view(shape)
    if bonnet is not None:
        label, thing = torch.where(bonnet, EGO_VEHICLE, label), torch.where(bonnet, 0, thing)
        depth = torch.where(bonnet, torch.nan, depth)
    return Picture(image, label.to(torch.uint8), thing, depth, pixels.coverage)


def camera_T_world(world: World) -> np.ndarray:
    """(4, 4) world → C."""
    return world.rig.camera.camera_T_vehicle @ np.linalg.inv(world.world_T_vehicle)


def _apart(stage: Stage) -> np.ndarray:
    """(N,) False for things that stand inside an earlier one or inside the ego vehicle."""
    foot = stage.footprints()
    foot = np.concatenate(([[1.3, 0.0, 2.8, 1.05]], foot))
    gap = (
        np.abs(foot[:, None, :2] - foot[None, :, :2])
        - (foot[:, None, 2:] + foot[None, :, 2:])
        - 0.1
    )
    touching = (gap < 0).all(-1)
    rider = np.concatenate(([False], np.array(stage.label) == 25))
    keep = np.ones(len(foot), bool)
    for i in range(1, len(foot)):
        if rider[i]:
            keep[i] = keep[i - 1]  # a rider follows the vehicle placed just before
        else:
            keep[i] = not (touching[i, :i] & keep[:i] & ~rider[:i]).any()
    return keep[1:]


def _rig(rng: np.random.Generator, size: tuple[int, int]) -> Rig:
    """Like the two rigs of the real dataset, a little varied."""
    height, width = size
    focal = rng.uniform(2240, 2290)
    full = Camera(
        FULL_WIDTH, FULL_HEIGHT, focal, focal * rng.uniform(0.995, 1.005), rng.uniform(1040, 1105),
        rng.uniform(508, 522), rng.uniform(0.205, 0.225),
    )  # fmt: skip
    scale = width / FULL_WIDTH
    middle = (full.v0 - (FULL_HEIGHT - 1) / 2) * scale + (height - 1) / 2
    pitch, yaw = rng.uniform(0.02, 0.055), rng.uniform(-0.02, 0.02)
    position = (1.7, rng.uniform(-0.12, 0.12), rng.uniform(1.16, 1.28))
    zero = torch.zeros((), dtype=torch.float64)
    rotation = rotation_from_euler(zero + yaw, zero + pitch, zero).numpy()  # C → V
    transform = np.eye(4)
    transform[:3, :3] = rotation.T
    transform[:3, 3] = -rotation.T @ np.array(position)
    camera = Camera(
        width, height, full.fx * scale, full.fy * scale, (full.u0 + 0.5) * scale - 0.5, middle,
        full.baseline_m, transform,
    )  # fmt: skip
    bonnet = rng.uniform(0.03, 0.1) if rng.random() < 0.7 else 0.0
    return Rig(camera, pitch, yaw, position, bonnet)


def _ego_pose(road: Road, s: float) -> tuple[np.ndarray, float]:
    """Pose of V with the rear axle at s, and the curvature of the lane there."""
    at = np.array([s])
    point, along, left = road.tangents(at + 1.35, np.zeros(1), np.array([1.35]), np.array([0.75]))
    pose = np.eye(4)
    pose[:3, :3] = np.stack((along[0], left[0], np.cross(along[0], left[0])), 1)
    pose[:3, 3] = point[0] - 1.35 * along[0]
    ahead, behind = road.heading(at + 2.5)[0], road.heading(at - 2.5)[0]
    return pose, float(ahead - behind) / 5.0


def _lens(world: World, device: str) -> Lens:
    camera, transform = world.rig.camera, camera_T_world(world)
    rotation = OPTICAL_R_CAMERA @ transform[:3, :3]
    position = -transform[:3, :3].T @ transform[:3, 3]
    rotation_t, position_t = (
        torch.from_numpy(a.astype(np.float32)).to(device) for a in (rotation, position)
    )
    return Lens(
        camera.height,
        camera.width,
        camera.fx,
        camera.fy,
        camera.u0,
        camera.v0,
        rotation_t,
        position_t,
    )


def _ground_polygons(patches: tuple[Patches, ...], device: str) -> Polygons:
    def gather(name: str, dtype: type) -> Tensor:
        array = np.concatenate([getattr(part, name) for part in patches]).astype(dtype)
        return torch.from_numpy(array).to(device)

    color = gather('color', np.float32)
    color = torch.cat((color, torch.zeros_like(color[:, :1])), 1)
    label = gather('label', np.int32)
    return Polygons(
        gather('corner', np.float32), gather('texture', np.int32), gather('repeat', np.float32), gather('origin', np.float32),
        color, torch.zeros_like(label), label, gather('kind', np.int32),
    )  # fmt: skip


def _bonnet(rig: Rig, device: str) -> Tensor | None:
    """(H, W) mask of the ego bonnet, highest in the middle."""
    if not rig.bonnet:
        return None
    height, width = rig.camera.height, rig.camera.width
    across = torch.linspace(-1, 1, width, device=device)
    edge = height * (1 - rig.bonnet * (1 - 0.3 * across * across))
    return torch.arange(height, device=device)[:, None] > edge

"""One picture of one street: from a seed to image, labels, things and depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tag_perception.core.geometry import OPTICAL_R_CAMERA, rotation_from_euler
from tag_perception.core.structures import Camera
from tag_perception.data.street.dice import Dice
from tag_perception.data.street.furniture import Furniture
from tag_perception.data.street.lots import Lots
from tag_perception.data.street.markings import paint
from tag_perception.data.street.planes import Lens, Polygons, project
from tag_perception.data.street.raster import rasterise
from tag_perception.data.street.road import Patches, Road, surface
from tag_perception.data.street.shading import shade
from tag_perception.data.street.shadows import cast
from tag_perception.data.street.stage import Stage, Standing
from tag_perception.data.street.textures import atlas
from tag_perception.data.street.town import Plan, plan
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
    """(H, W) float32 metres along the optical axis, NaN in the sky and on the ego bonnet."""
    coverage: Tensor
    """(things,) int64 pixels that each thing would cover if nothing stood in front of it."""


def compose(seed: int, frame: int, size: tuple[int, int], split: str, step: int) -> World:
    """Lay out street `frame` of `seed`, `step` / 17 s after the annotated moment."""
    dice = Dice(f'{seed} {split} {frame} place')
    traffic_seed, rig_seed = (f'{seed} {split} {frame} {part}' for part in ('traffic', 'rig'))
    street, weather = plan(dice), draw_weather(dice)
    still = Stage()
    street.open_side_streets()
    for builder in (Lots, Furniture):
        builder(street, still, weather, dice).build()
    marks = paint(street, dice)
    moving = _traffic(street, weather, traffic_seed, step)
    # What would collide is decided at the annotated moment, for the whole sequence.
    annotated = moving if step == 0 else _traffic(street, weather, traffic_seed, 0)
    standing = still.join(moving.stage.select(_apart(annotated.stage))).stand(street.road)
    thing = np.isin(standing.label, THINGS)
    pose, turn = _ego_pose(street.road, moving.speed * step / RATE_HZ)
    return World(
        road=street.road,
        ground=(surface(street.road, street.cover), *marks),
        standing=standing,
        thing=thing * thing.cumsum(),
        weather=weather,
        rig=_rig(Dice(rig_seed), size),
        world_T_vehicle=pose,
        speed=moving.speed,
        yaw_rate=moving.speed * turn,
        grain=Dice(f'{rig_seed} {step}').whole(0, 1 << 30),
    )


def _traffic(street: Plan, weather: Weather, seed: str, step: int) -> Traffic:
    traffic = Traffic(street, Stage(), weather, Dice(seed), step / RATE_HZ)
    traffic.build()
    return traffic


def look(world: World, device: str) -> Picture:
    """Render the picture."""
    textures, camera = atlas(device), world.rig.camera
    lens = _lens(world)
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
    depth = torch.where(pixels.hit, pixels.depth, torch.nan).view(shape)
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


def _rig(dice: Dice, size: tuple[int, int]) -> Rig:
    """Like the two rigs of the real dataset, a little varied; drawn for 2048 × 1024 pixels."""
    (height, width), scale = size, size[1] / FULL_WIDTH
    focal, ratio = dice.uniform(2240, 2290), dice.uniform(0.995, 1.005)
    u0, v0, baseline = dice.uniform(1040, 1105), dice.uniform(508, 522), dice.uniform(0.205, 0.225)
    pitch, yaw = dice.uniform(0.02, 0.055), dice.uniform(-0.02, 0.02)
    position = (1.7, dice.uniform(-0.12, 0.12), dice.uniform(1.16, 1.28))
    zero = torch.zeros((), dtype=torch.float64)
    rotation = rotation_from_euler(zero + yaw, zero + pitch, zero).numpy()  # C → V
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = rotation.T, -rotation.T @ np.array(position)
    camera = Camera(
        width=width,
        height=height,
        fx=focal * scale,
        fy=focal * ratio * scale,
        u0=(u0 + 0.5) * scale - 0.5,
        # Images of another shape are cut or continued above and below, evenly.
        v0=(v0 - (FULL_HEIGHT - 1) / 2) * scale + (height - 1) / 2,
        baseline_m=baseline,
        camera_T_vehicle=transform,
    )
    bonnet = dice.uniform(0.03, 0.1) if dice.chance(0.7) else 0.0
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


def _lens(world: World) -> Lens:
    camera, transform = world.rig.camera, camera_T_world(world)
    rotation = OPTICAL_R_CAMERA @ transform[:3, :3]
    position = -transform[:3, :3].T @ transform[:3, 3]
    # Rounded to float32 here, so that both kinds of device multiply by the same numbers.
    rows = tuple(tuple(row) for row in rotation.astype(np.float32).tolist())
    return Lens(
        camera.height, camera.width, camera.fx, camera.fy, camera.u0, camera.v0,
        rows, tuple(position.astype(np.float32).tolist()),
    )  # fmt: skip


def _ground_polygons(patches: tuple[Patches, ...], device: str) -> Polygons:
    def gather(name: str, dtype: type) -> Tensor:
        """Planar, patch after patch."""
        array = np.concatenate([getattr(part, name) for part in patches]).astype(dtype)
        planar = np.ascontiguousarray(np.moveaxis(array, 0, -1))
        return torch.from_numpy(planar).to(device)

    color, label = gather('color', np.float32), gather('label', np.int32)
    return Polygons(
        corner=gather('corner', np.float32),
        texture=gather('texture', np.int32),
        repeat=gather('repeat', np.float32),
        origin=gather('origin', np.float32),
        color=torch.cat((color, torch.zeros_like(color[:1]))),
        thing=torch.zeros_like(label),
        label=label,
        kind=gather('kind', np.int32),
    )


def _bonnet(rig: Rig, device: str) -> Tensor | None:
    """(H, W) mask of the ego bonnet, highest in the middle."""
    if not rig.bonnet:
        return None
    height, width = rig.camera.height, rig.camera.width
    across = torch.linspace(-1, 1, width, device=device)
    edge = height * (1 - rig.bonnet * (1 - 0.3 * across * across))
    return torch.arange(height, device=device)[:, None] > edge

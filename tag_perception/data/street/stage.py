"""Placements of shapes on the ground, and how they become polygons and boxes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from tag_perception.core.labels import LABEL_BY_NAME
from tag_perception.data.street.colors import Palette
from tag_perception.data.street.people import poses
from tag_perception.data.street.planes import ORDINARY, Polygons
from tag_perception.data.street.road import Road
from tag_perception.data.street.scenery import scenery
from tag_perception.data.street.shapes import Shape
from tag_perception.data.street.vehicles import MODELS

SLOTS = 8


@lru_cache(maxsize=1)
def shapes() -> dict[str, Shape]:
    """Every shape by name."""
    return {**{model.name: model.shape for model in MODELS}, **poses(), **scenery()}


@lru_cache(maxsize=1)
def _index() -> dict[str, int]:
    return {name: index for index, name in enumerate(shapes())}


@lru_cache(maxsize=1)
def _extents() -> np.ndarray:
    return np.array([(shape.low, shape.high) for shape in shapes().values()], np.float64)


@lru_cache(maxsize=1)
def _counts() -> np.ndarray:
    return np.array([len(shape.slot) for shape in shapes().values()])


@lru_cache(maxsize=1)
def _starts() -> np.ndarray:
    return _counts().cumsum() - _counts()


@lru_cache(maxsize=4)
def _library(device: str) -> dict[str, Tensor]:
    """The quadrilaterals of all shapes one after the other, planar."""
    parts = list(shapes().values())
    arrays = {
        'corner': np.concatenate([part.corner for part in parts]).transpose(1, 2, 0),
        'texture': np.concatenate([part.texture for part in parts]).astype(np.int32),
        'repeat': np.concatenate([part.repeat for part in parts]).T,
        'slot': np.concatenate([part.slot for part in parts]),
    }
    return {n: torch.from_numpy(np.ascontiguousarray(a)).to(device) for n, a in arrays.items()}


@dataclass
class Stage:
    """Shapes being placed: one entry per placement in every list."""

    shape: list[int] = field(default_factory=list)
    place: list[tuple[float, float, float, float]] = field(default_factory=list)
    """s, d, lift above the ground, yaw against the street."""
    scale: list[tuple[float, float, float]] = field(default_factory=list)
    palette: list[Palette] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    tilted: list[bool] = field(default_factory=list)
    """Follows the slope of the ground (vehicles) instead of standing upright."""
    shadow: list[int] = field(default_factory=list)
    """0 none, 1 as a box, 2 as a crown."""
    group: list[bool] = field(default_factory=list)
    """Part of a heap that nobody annotates one by one."""

    def add(
        self, name: str, s: float, d: float, label: str, palette: Palette, *, lift: float = 0.0,
        yaw: float = 0.0, scale: tuple[float, float, float] = (1.0, 1.0, 1.0),
        tilted: bool = False, shadow: int = 0, group: bool = False,
    ) -> None:  # fmt: skip
        """Place one shape; `palette` holds R, G, B, glow of its slots."""
        self.shape.append(_index()[name])
        self.place.append((s, d, lift, yaw))
        self.scale.append(scale)
        self.palette.append(palette)
        self.label.append(LABEL_BY_NAME[label].id)
        self.tilted.append(tilted)
        self.shadow.append(shadow)
        self.group.append(group)

    def select(self, keep: np.ndarray) -> Stage:
        """The placements that a (N,) mask keeps."""
        chosen = np.nonzero(keep)[0]
        return Stage(*([getattr(self, f.name)[i] for i in chosen] for f in fields(self)))

    def join(self, other: Stage) -> Stage:
        """These placements and then the other ones."""
        return Stage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def footprints(self) -> np.ndarray:
        """(N, 4) s and d of the middle and half extents along and across the street."""
        place, shape = np.array(self.place), np.array(self.shape)
        half = (
            (_extents()[shape][:, 1, :2] - _extents()[shape][:, 0, :2])
            * np.array(self.scale)[:, :2]
            / 2
        )
        cos, sin = np.abs(np.cos(place[:, 3])), np.abs(np.sin(place[:, 3]))
        reach = np.stack(
            (cos * half[:, 0] + sin * half[:, 1], sin * half[:, 0] + cos * half[:, 1]), 1
        )
        return np.concatenate((place[:, :2], reach), 1)

    def stand(self, road: Road) -> Standing:
        """Put everything on the ground."""
        shape = np.array(self.shape)
        place, scale = np.array(self.place), np.array(self.scale)
        extents = _extents()[shape] * scale[:, None]
        reach = np.where(self.tilted, 0.33 * (extents[:, 1, 0] - extents[:, 0, 0]), 0.4)
        half = np.where(self.tilted, 0.45 * (extents[:, 1, 1] - extents[:, 0, 1]), 0.4)
        point, along, left = road.tangents(place[:, 0], place[:, 1], reach, half)
        up = np.cross(along, left)
        up /= np.linalg.norm(up, axis=1, keepdims=True)
        upright = ~np.array(self.tilted)
        heading = road.heading(place[:, 0])
        axis = np.stack((np.cos(heading), np.sin(heading), np.zeros_like(heading)), 1)
        forward = np.where(upright[:, None], axis, along)
        up[upright] = (0.0, 0.0, 1.0)
        side = np.cross(up, forward)
        cos, sin = np.cos(place[:, 3:]), np.sin(place[:, 3:])
        front = cos * forward + sin * side
        rotation = np.stack((front, np.cross(up, front), up), 2)
        position = point + place[:, 2:3] * up
        return Standing(
            shape, scale, np.array(self.palette), np.array(self.label), np.array(self.group),
            np.array(self.shadow), rotation, position, extents, point, along, left, place[:, 3],
        )  # fmt: skip


@dataclass(frozen=True)
class Standing:
    """N placements with their poses in the world, as arrays."""

    shape: np.ndarray
    scale: np.ndarray
    palette: np.ndarray
    label: np.ndarray
    group: np.ndarray
    shadow: np.ndarray
    rotation: np.ndarray
    """(N, 3, 3) object axes → world."""
    position: np.ndarray
    """(N, 3) origin of the shape in the world."""
    extents: np.ndarray
    """(N, 2, 3) lowest and highest coordinates in the object's axes."""
    ground: np.ndarray
    """(N, 3) the point of the ground below."""
    along: np.ndarray
    """(N, 3) unit tangent of the ground along the street."""
    left: np.ndarray
    """(N, 3) unit tangent of the ground across the street."""
    yaw: np.ndarray

    @property
    def box_center(self) -> np.ndarray:
        """(N, 3) centre of the tight box in the world."""
        return self.position + np.einsum('nij,nj->ni', self.rotation, self.extents.mean(1))

    @property
    def box_size(self) -> np.ndarray:
        """(N, 3) length, width, height of the tight box."""
        return self.extents[:, 1] - self.extents[:, 0]

    def polygons(self, thing: np.ndarray, device: str) -> Polygons:
        """All quadrilaterals in world coordinates; `thing` numbers the placements."""
        library = _library(device)
        count = _counts()[self.shape]
        total = int(count.sum())
        start = _starts()[self.shape] - (count.cumsum() - count)
        rows = torch.from_numpy(np.stack((count, start, thing, self.label))).to(device)
        owner = torch.repeat_interleave(rows[0], output_size=total)
        begin, number, label = rows[1:].index_select(1, owner)
        quad = torch.arange(total, device=device) + begin
        pose = np.concatenate(
            (self.rotation * self.scale[:, None, :], self.position[:, :, None]), 2
        )
        columns = torch.from_numpy(pose.astype(np.float32).reshape(-1, 12).T.copy()).to(device)
        # [R | t], placement by placement: its columns, (3, 1, total) each
        rx, ry, rz, t = columns.index_select(1, owner).view(3, 4, 1, total).unbind(1)
        x, y, z = library['corner'].index_select(2, quad).unbind(1)
        palette = torch.from_numpy(self.palette.astype(np.float32).reshape(-1, 4).T.copy())
        slot = library['slot'].index_select(0, quad)
        return Polygons(
            corner=(rx * x + ry * y + rz * z + t).transpose(0, 1),
            texture=library['texture'].index_select(0, quad),
            repeat=library['repeat'].index_select(1, quad),
            origin=torch.zeros(2, total, device=device),
            color=palette.to(device).index_select(1, owner * SLOTS + slot),
            thing=number.to(torch.int32),
            label=label.to(torch.int32),
            kind=torch.full((total,), ORDINARY, dtype=torch.int32, device=device),
        )

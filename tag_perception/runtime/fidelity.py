"""How much of the reference path's Scene another path keeps, in what a user would notice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tag_perception.core.structures import Objects3D, Scene

SURE = 0.3
"""Boxes with a lower score are not asked for."""
NEAR_PX = 2.0
"""So far may the sides of the same box be apart in the picture, and …"""
NEAR = 0.02
"""… its centre, by its distance."""


@dataclass(frozen=True)
class Fidelity:
    """Means over images; None where the network has no such task, or nothing was seen."""

    same_labels: float | None
    """Share of the pixels with the label of the reference."""
    depth_error: float | None
    """Median over the pixels of the difference by the reference's depth."""
    same_boxes: float | None
    """Share of the reference's boxes, of score SURE or more, that are there in the same class."""


def compare(scenes: Sequence[Scene], references: Sequence[Scene]) -> Fidelity:
    """Of the Scenes of the same images."""
    labels: list[float] = []
    depths: list[float] = []
    boxes: list[float] = []
    for scene, reference in zip(scenes, references, strict=True):
        if scene.semantic is not None and reference.semantic is not None:
            labels.append(float((scene.semantic == reference.semantic).float().mean()))
        if scene.depth is not None and reference.depth is not None:
            error = (scene.depth - reference.depth).abs() / reference.depth
            measured = error[error.isfinite()]  # one of the two may see sky
            depths += [float(measured.median())] if len(measured) else []
        if scene.detection3d is not None and reference.detection3d is not None:
            sure = reference.detection3d[reference.detection3d.score >= SURE]
            boxes += [_share_found(sure, scene.detection3d)] if len(sure) else []
    return Fidelity(_mean(labels), _mean(depths), _mean(boxes))


def _share_found(wanted: Objects3D, found: Objects3D) -> float:
    apart_px = (wanted.box_2d_px[:, None] - found.box_2d_px).abs().amax(-1)
    apart_m = torch.cdist(wanted.center_cam, found.center_cam)
    near_m = NEAR * wanted.center_cam.norm(dim=-1, keepdim=True)
    same = wanted.class_id[:, None] == found.class_id
    return float((same & (apart_px <= NEAR_PX) & (apart_m <= near_m)).any(1).float().mean())


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None

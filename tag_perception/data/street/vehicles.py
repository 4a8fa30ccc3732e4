"""Every vehicle model by class; lamps tell its front from its back."""

from __future__ import annotations

from dataclasses import dataclass

from tag_perception.core.labels import DETECTION_CLASSES
from tag_perception.data.street.cars import BODIES, build_car
from tag_perception.data.street.cycles import build_bicycle, build_motorcycle
from tag_perception.data.street.heavy import build_bus, build_lorry, build_tram
from tag_perception.data.street.shapes import Shape


@dataclass(frozen=True)
class Model:
    """One vehicle body, standing on z = 0 with its box centred on x = y = 0."""

    name: str
    label: str
    """Cityscapes class name."""
    shape: Shape
    seat: tuple[float, float, float] | None = None
    """Where a rider sits; two-wheelers only."""


_BIKER, _CYCLIST = (-0.32, 0.0, 0.82), (-0.22, 0.0, 0.95)

MODELS = (
    *(Model(name, 'car', build_car(body)) for name, body in BODIES.items()),
    Model('lorry', 'truck', build_lorry(7.6, 3.5, 'box')),
    Model('lorry_long', 'truck', build_lorry(9.8, 3.8, 'curtain')),
    Model('lorry_small', 'truck', build_lorry(6.2, 3.0, 'box', 2.2)),
    Model('tipper', 'truck', build_lorry(7.4, 2.9, 'tipper')),
    Model('tanker', 'truck', build_lorry(8.6, 3.3, 'tank')),
    Model('bus', 'bus', build_bus(12.0, 3.1)),
    Model('bus_short', 'bus', build_bus(9.2, 3.0)),
    Model('coach', 'bus', build_bus(12.6, 3.6)),
    Model('tram', 'train', build_tram(18.0)),
    Model('tram_short', 'train', build_tram(13.0)),
    Model('tram_long', 'train', build_tram(26.0)),
    Model('motorcycle', 'motorcycle', build_motorcycle(scooter=False), _BIKER),
    Model('scooter', 'motorcycle', build_motorcycle(scooter=True), _BIKER),
    Model('bicycle', 'bicycle', build_bicycle(step_through=False, basket=False), _CYCLIST),
    Model('bicycle_low', 'bicycle', build_bicycle(step_through=True, basket=False), _CYCLIST),
    Model('bicycle_basket', 'bicycle', build_bicycle(step_through=True, basket=True), _CYCLIST),
)

BY_LABEL = {label: [m for m in MODELS if m.label == label] for label in DETECTION_CLASSES}
"""The models of each class."""

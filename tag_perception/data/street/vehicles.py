"""The vehicle models: all six classes, several bodies each, with lamps that tell front from back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tag_perception.data.street.shapes import TYRE, Shape, Solid

PAINT, GLASS, HEAD, TAIL, TRIM, SECOND, WHITE = 0, 1, 3, 4, 5, 6, 7
"""Palette slots of vehicles (slot 2 is TYRE)."""


@dataclass(frozen=True)
class Model:
    """One vehicle body, standing on z = 0 with its box centred on x = y = 0."""

    name: str
    label: str
    """Cityscapes class name."""
    shape: Shape
    seat: tuple[float, float, float] | None = None
    """Where a rider sits; two-wheelers only."""


@dataclass(frozen=True)
class CarBody:
    """Proportions of a car, metres; x is measured from the rear bumper."""

    length: float
    width: float
    height: float
    hood: float
    """Length of the bonnet."""
    screen: float
    """Horizontal run of the windscreen."""
    back: float
    """Horizontal run of the rear window."""
    trunk: float = 0.0
    """Length of the boot lid behind the rear window."""
    belt: float = 0.92
    """Height of the window sill."""
    wheel: float = 0.32
    panes: str = 'panes_two'


CARS = {
    'hatchback': CarBody(4.05, 1.75, 1.47, 0.95, 0.75, 0.35),
    'small': CarBody(3.6, 1.66, 1.5, 0.75, 0.7, 0.22, belt=0.95, wheel=0.29),
    'sedan': CarBody(4.6, 1.8, 1.44, 1.2, 0.85, 0.7, trunk=0.55, panes='panes_three'),
    'limousine': CarBody(
        4.95, 1.87, 1.46, 1.3, 0.9, 0.75, trunk=0.6, wheel=0.34, panes='panes_three'
    ),
    'estate': CarBody(4.65, 1.81, 1.48, 1.15, 0.8, 0.3, panes='panes_three'),
    'suv': CarBody(4.55, 1.88, 1.7, 1.05, 0.7, 0.35, belt=1.08, wheel=0.37, panes='panes_three'),
    'offroad': CarBody(4.4, 1.9, 1.86, 1.15, 0.4, 0.12, belt=1.2, wheel=0.4, panes='panes_three'),
    'minivan': CarBody(4.5, 1.83, 1.66, 0.75, 0.95, 0.25, belt=1.0, panes='panes_three'),
    'van': CarBody(5.0, 1.92, 1.95, 0.6, 0.75, 0.1, belt=1.12, wheel=0.34, panes='panes_three'),
    'delivery': CarBody(5.6, 2.0, 2.5, 0.6, 0.7, 0.05, belt=1.25, wheel=0.36, panes='panes_van'),
    'coupe': CarBody(4.3, 1.82, 1.32, 1.3, 0.95, 0.95, trunk=0.3, belt=0.88, wheel=0.34),
}


def _car(body: CarBody) -> Shape:
    s, w, rear = Solid(), body.width / 2, -body.length / 2
    front, sill = -rear, 0.24
    edge = w - 0.03
    hood_end = front - body.hood
    cabin_rear = rear + body.trunk
    s.hull(
        [
            (rear, edge - 0.1, body.belt - 0.1),
            (rear + 0.18, edge, body.belt - 0.02),
            (cabin_rear + 0.02, edge, body.belt) if body.trunk else (rear + 0.2, edge, body.belt),
            (hood_end, edge, body.belt),
            (front - 0.25, edge - 0.02, body.belt - 0.14),
            (front, edge - 0.14, body.belt - 0.28),
        ],
        sill, PAINT,
    )  # fmt: skip
    _cabin(s, body, max(cabin_rear, rear + 0.06), hood_end, edge)
    base = 2 * body.wheel
    for x in (rear + 0.17 * body.length + 0.08, front - 0.17 * body.length - 0.05):
        for side in (1, -1):
            s.quad(_arch(x, side * (w - 0.012), base), TYRE, 'disc')
            s.wheel(x, side * w, body.wheel, 0.2, TRIM)
    s.box(
        (rear + 0.15, -edge + 0.1, 0.16),
        (front - 0.15, edge - 0.1, sill),
        TYRE,
        faces='front back left right',
    )
    _car_face(s, body, front, edge)
    _car_back(s, body, rear, edge)
    return _centred(s.shape())


def _cabin(s: Solid, body: CarBody, rear: float, hood_end: float, edge: float) -> None:
    low, high, top = edge - 0.02, edge - 0.2, body.height
    roof_rear, roof_front = rear + body.back, hood_end - body.screen
    inside = ((rear + hood_end) / 2, 0.0, (body.belt + top) / 2)
    corners = {
        'screen': ((hood_end, -low, body.belt), (hood_end, low, body.belt), (roof_front, high, top - 0.04), (roof_front, -high, top - 0.04)),
        'back': ((rear, low, body.belt), (rear, -low, body.belt), (roof_rear, -high, top - 0.04), (roof_rear, high, top - 0.04)),
        'left': ((hood_end, low, body.belt), (rear, low, body.belt), (roof_rear, high, top - 0.04), (roof_front, high, top - 0.04)),
        'right': ((rear, -low, body.belt), (hood_end, -low, body.belt), (roof_front, -high, top - 0.04), (roof_rear, -high, top - 0.04)),
    }  # fmt: skip
    for face, quad in corners.items():
        texture = body.panes if face in ('left', 'right') else 'pane'
        s.quad(quad, PAINT, texture, away_from=inside)
    mid = (roof_front + roof_rear) / 2
    for xa, za, xb, zb in ((roof_rear, top - 0.04, mid, top), (mid, top, roof_front, top - 0.04)):
        lid = ((xa, high, za), (xa, -high, za), (xb, -high, zb), (xb, high, zb))
        s.quad(lid, PAINT, away_from=inside)


def _arch(x: float, y: float, size: float) -> list[tuple[float, float, float]]:
    reach, step = size * 0.58, (1 if y > 0 else -1)
    return [
        (x + step * reach, y, 0.14), (x - step * reach, y, 0.14),
        (x - step * reach, y, 0.14 + 2 * reach), (x + step * reach, y, 0.14 + 2 * reach),
    ]  # fmt: skip


def _car_face(s: Solid, body: CarBody, x: float, edge: float) -> None:
    """Grille, bumper, plate and headlamps on the front, 1 cm proud."""
    half, low = edge - 0.16, body.belt - 0.28
    x += 0.01
    s.box((x - 0.02, -half, 0.26), (x, half, 0.42), TYRE, faces='front')
    s.box((x - 0.02, -0.35, low - 0.2), (x, 0.35, low - 0.02), WHITE, 'grille', faces='front')
    s.box((x - 0.01, -0.26, 0.4), (x + 0.005, 0.26, 0.51), WHITE, 'plate', faces='front')
    for side in (1, -1):
        a, b = sorted((side * (half - 0.34), side * (half + 0.015)))
        s.box((x - 0.22, a, low - 0.17), (x, b, low - 0.02), HEAD, faces='front left right')


def _car_back(s: Solid, body: CarBody, x: float, edge: float) -> None:
    half, top = edge - 0.11, body.belt - 0.1
    x -= 0.01
    s.box((x, -half, 0.26), (x + 0.02, half, 0.4), TYRE, faces='back')
    s.box((x - 0.005, -0.26, 0.5), (x + 0.01, 0.26, 0.61), WHITE, 'plate', faces='back')
    tall = 0.34 if body.height > 1.6 else 0.17
    for side in (1, -1):
        a, b = sorted((side * (half - 0.3), side * half))
        s.box((x, a, top - tall), (x + 0.1, b, top - 0.02), TAIL, faces='back left right')


def _long_wheels(s: Solid, xs: tuple[float, ...], width: float, radius: float) -> None:
    for x in xs:
        for side in (1, -1):
            s.quad(_arch(x, side * (width / 2 - 0.012), 2 * radius * 0.95), TYRE, 'disc')
            s.wheel(x, side * width / 2, radius, 0.45, TRIM, 'wheel_heavy')


def _face(s: Solid, x: float, width: float, low: float, high: float, lamp: float) -> None:
    """Windscreen, lamps and plate of a bus or lorry whose front plane is at x."""
    half = width / 2
    s.box(
        (x - 0.02, -half + 0.06, low), (x + 0.01, half - 0.06, high), PAINT, 'pane', faces='front'
    )
    s.box(
        (x - 0.02, -0.26, lamp - 0.2),
        (x + 0.015, 0.26, lamp - 0.09),
        WHITE,
        'plate',
        faces='front',
    )
    s.box(
        (x - 0.02, -half + 0.5, lamp - 0.1),
        (x + 0.01, half - 0.5, lamp + 0.25),
        WHITE,
        'grille',
        faces='front',
    )
    for side in (1, -1):
        a, b = sorted((side * (half - 0.45), side * (half - 0.08)))
        s.box((x - 0.02, a, lamp - 0.1), (x + 0.015, b, lamp + 0.1), HEAD, faces='front')


def _tail(s: Solid, x: float, width: float, lamp: float) -> None:
    for side in (1, -1):
        a, b = sorted((side * (width / 2 - 0.35), side * (width / 2 - 0.04)))
        s.box((x - 0.015, a, lamp - 0.12), (x + 0.02, b, lamp + 0.12), TAIL, faces='back')
    s.box(
        (x - 0.015, -0.26, lamp - 0.1), (x + 0.02, 0.26, lamp + 0.02), WHITE, 'plate', faces='back'
    )


def _truck(length: float, height: float, cargo: str, width: float = 2.48) -> Shape:
    s, half = Solid(), width / 2 - 0.02
    rear, front, cab = -length / 2, length / 2, length / 2 - 2.0
    cab_top = min(height, 2.75)
    s.hull(
        [
            (cab, half - 0.03, cab_top),
            (front - 0.3, half - 0.03, cab_top),
            (front, half - 0.06, 1.75),
        ],
        0.42,
        PAINT,
    )
    s.box(
        (cab + 0.45, -half + 0.02, 1.55),
        (front - 0.42, half - 0.02, 2.4),
        PAINT,
        'pane',
        faces='left right',
    )
    screen = ((front + 0.005, -half + 0.1, 1.6), (front + 0.005, half - 0.1, 1.6), (front - 0.26, half - 0.12, cab_top - 0.12), (front - 0.26, -half + 0.12, cab_top - 0.12))  # fmt: skip
    s.quad(screen, PAINT, 'pane', away_from=(cab, 0, 1))
    _face(s, front, width - 0.1, 1.3, 1.32, 0.75)
    s.box((rear + 0.3, -half + 0.5, 0.55), (cab, half - 0.5, 1.0), TYRE, faces='back left right')
    _cargo(s, cargo, rear, cab - 0.12, half, height)
    _tail(s, rear, width, 0.85)
    s.box((rear, -half, 0.6), (rear + 0.1, half, 1.05), TYRE, faces='back left right top')
    axles = (rear + 1.5, front - 1.15) if length < 8 else (rear + 1.2, rear + 2.5, front - 1.3)
    _long_wheels(s, axles, width, 0.47)
    return _centred(s.shape())


def _cargo(s: Solid, kind: str, rear: float, front: float, half: float, height: float) -> None:
    low, high = (rear, -half, 1.0), (front, half, height)
    if kind == 'box':
        s.box(low, high, SECOND, 'sheet', (0, 0))
        s.box(
            (rear + 0.4, -half - 0.01, 1.5),
            (front - 0.4, half + 0.01, height - 0.4),
            WHITE,
            'poster_a',
            faces='left right',
        )
    elif kind == 'curtain':
        s.box(low, high, SECOND, 'cloth', (0, 0))
    elif kind == 'tipper':
        s.box((rear, -half, 0.95), (front, half, 1.95), SECOND, 'sheet', (0, 0))
        s.box(
            (rear + 0.3, -half + 0.15, 1.9), (front - 0.3, half - 0.15, 2.1), TRIM, 'earth', (0, 0)
        )
        s.box((front - 0.1, -half, 1.9), (front, half, height), SECOND)
    else:  # a tank
        middle = (1.0 + height) / 2
        s.prism((rear, 0, middle), (front, 0, middle), (half, half), SECOND, sides=12)


def _bus(length: float, height: float, width: float = 2.54) -> Shape:
    s, half = Solid(), width / 2 - 0.02
    rear, front = -length / 2, length / 2
    s.hull(
        [
            (rear, half - 0.05, height - 0.06),
            (rear + 0.25, half, height - 0.02),
            (front - 0.35, half, height - 0.02),
            (front, half - 0.08, height - 0.3),
        ],
        0.32,
        PAINT,
    )
    s.box(
        (rear + 0.3, -half - 0.01, 1.25),
        (front - 0.4, half + 0.01, 2.45),
        PAINT,
        'panes_bus',
        faces='left right',
    )
    s.box(
        (rear + 0.3, -half - 0.005, 0.34),
        (front - 0.4, half + 0.005, 0.75),
        SECOND,
        faces='left right',
    )
    for x in (front - 1.7, 0.3, rear + 2.6):  # doors on the kerb side
        s.box(
            (x - 0.62, -half - 0.015, 0.4),
            (x + 0.62, -half, 2.5),
            GLASS,
            'panes_two',
            faces='right',
        )
    s.box(
        (rear - 0.01, -half + 0.25, 1.5),
        (rear + 0.1, half - 0.25, 2.5),
        PAINT,
        'pane',
        faces='back',
    )
    _face(s, front, width - 0.2, 1.05, height - 0.65, 0.68)
    s.box(
        (front - 0.1, -half + 0.4, height - 0.62),
        (front + 0.005, half - 0.4, height - 0.36),
        HEAD,
        faces='front',
    )
    _tail(s, rear, width - 0.1, 1.0)
    s.box((rear + 1.5, -0.6, height - 0.02), (rear + 4.0, 0.6, height + 0.14), PAINT)
    _long_wheels(s, (rear + 3.2, front - 2.7), width, 0.48)
    return _centred(s.shape())


def _tram(length: float, height: float = 3.45, width: float = 2.42) -> Shape:
    s, half = Solid(), width / 2 - 0.02
    rear, front = -length / 2, length / 2
    nose = 0.9
    s.hull(
        [
            (rear, half - 0.4, 1.6),
            (rear + nose, half, height - 0.2),
            (front - nose, half, height - 0.2),
            (front, half - 0.4, 1.6),
        ],
        0.2,
        PAINT,
    )
    s.box(
        (rear + nose, -half - 0.01, 1.2),
        (front - nose, half + 0.01, 2.6),
        PAINT,
        'panes_tram',
        faces='left right',
    )
    s.box(
        (rear + nose, -half - 0.006, 0.22),
        (front - nose, half + 0.006, 0.7),
        SECOND,
        faces='left right',
    )
    for end, x in ((1, front), (-1, rear)):
        screen = [
            (x + end * 0.01, -half + 0.44, 1.62),
            (x + end * 0.01, half - 0.44, 1.62),
            (x - end * (nose - 0.1), half - 0.16, height - 0.5),
            (x - end * (nose - 0.1), -half + 0.16, height - 0.5),
        ]
        s.quad(screen, PAINT, 'pane', away_from=(0, 0, 1))
        for side in (1, -1):
            a, b = sorted((side * (half - 0.75), side * (half - 0.45)))
            low, high = sorted((x, x + end * 0.012))
            s.box(
                (low, a, 0.8),
                (high, b, 1.02),
                HEAD if end > 0 else TAIL,
                faces='front' if end > 0 else 'back',
            )
    for x in np.linspace(rear + 2.2, front - 2.2, max(2, round(length / 7))):
        s.box(
            (x - 0.6, -half - 0.014, 0.3),
            (x + 0.6, half + 0.014, 2.65),
            GLASS,
            'panes_two',
            faces='left right',
        )
    s.box((rear + 2, -0.8, height - 0.2), (front - 2, 0.8, height), TRIM)
    s.box(
        (rear + 1.2, -half + 0.2, 0.0),
        (front - 1.2, half - 0.2, 0.2),
        TYRE,
        faces='front back left right',
    )
    return _centred(s.shape())


def _motorcycle(scooter: bool) -> Model:
    s = Solid()
    reach, radius, width = (0.68, 0.24, 0.14) if scooter else (0.73, 0.31, 0.16)
    for x in (-reach, reach):
        for y in (width / 2, -width / 2):
            s.wheel(x, y, radius, width / 2, TRIM, 'wheel')
    s.box((-0.5, -0.16, 0.3), (0.35, 0.16, 0.62), TYRE if not scooter else PAINT)
    if scooter:
        s.box((-0.85, -0.2, 0.45), (-0.05, 0.2, 0.75), PAINT)
        s.box((0.36, -0.24, 0.3), (0.5, 0.24, 0.95), PAINT)
        s.box((-0.9, -0.18, 0.78), (-0.55, 0.18, 1.1), SECOND)
    else:
        s.ball((0.15, 0, 0.78), (0.34, 0.19, 0.17), PAINT, sides=8, rings=4)
        s.box((-0.95, -0.12, 0.68), (-0.6, 0.12, 0.86), PAINT)
        s.prism((-0.75, 0.2, 0.33), (-0.1, 0.2, 0.3), (0.07, 0.06), TRIM)
    s.box((-0.75, -0.15, 0.74), (-0.05, 0.15, 0.83), TYRE)
    s.prism((reach, 0.1, radius), (0.42, 0.1, 0.98), (0.035, 0.035), TRIM)
    s.prism((reach, -0.1, radius), (0.42, -0.1, 0.98), (0.035, 0.035), TRIM)
    s.prism((0.38, -0.36, 1.04), (0.38, 0.36, 1.04), (0.025, 0.025), TYRE)
    s.box((0.4, -0.17, 0.8), (0.56, 0.17, 1.12), PAINT)
    s.box((0.55, -0.1, 0.82), (0.575, 0.1, 0.98), HEAD, faces='front')
    s.box((-1.0, -0.1, 0.66), (-0.9, 0.1, 0.78), TAIL, faces='back left right')
    s.box((-1.0, -0.1, 0.48), (-0.95, 0.1, 0.62), WHITE, 'plate', faces='back')
    return Model(
        'scooter' if scooter else 'motorcycle',
        'motorcycle',
        _centred(s.shape()),
        (-0.32, 0.0, 0.82),
    )


def _bicycle(step_through: bool, basket: bool) -> Model:
    s, tube = Solid(), 0.022
    for x in (-0.53, 0.53):
        s.quad(
            [
                (x + 0.34, 0.0, 0.0),
                (x - 0.34, 0.0, 0.0),
                (x - 0.34, 0.0, 0.68),
                (x + 0.34, 0.0, 0.68),
            ],
            TRIM,
            'wheel_bicycle',
        )
        s.box((x - 0.33, -0.02, 0.3), (x - 0.29, 0.02, 0.38), TYRE)
        ring = [
            (x + 0.33 * np.cos(t), 0.0, 0.34 + 0.33 * np.sin(t))
            for t in np.linspace(0, 2 * np.pi, 13)
        ]
        for a, b in zip(ring[:-1], ring[1:], strict=True):
            s.prism(a, b, (0.02, 0.02), TYRE, sides=4)
    head, seat, crank = (0.4, 0.0, 0.86), (-0.2, 0.0, 0.86), (-0.1, 0.0, 0.3)
    low_head = (0.44, 0.0, 0.62)
    joints = [
        (crank, seat),
        (crank, low_head),
        (
            low_head if step_through else head,
            (-0.13, 0.0, 0.45) if step_through else (-0.19, 0.0, 0.8),
        ),
        ((-0.53, 0.0, 0.34), crank),
        ((-0.53, 0.0, 0.34), (-0.18, 0.0, 0.75)),
        ((0.53, 0.0, 0.34), head),
        (head, (0.36, 0.0, 1.02)),
    ]
    for a, b in joints:
        s.prism(a, b, (tube, tube), PAINT, sides=4)
    s.prism((0.34, -0.29, 1.02), (0.34, 0.29, 1.02), (0.02, 0.02), TYRE, sides=4)
    s.box((-0.36, -0.08, 0.88), (-0.1, 0.08, 0.95), TYRE)
    s.box((-0.14, -0.16, 0.27), (0.0, 0.16, 0.32), TYRE)
    s.box((-0.8, -0.05, 0.68), (-0.3, 0.05, 0.71), TYRE)
    s.box((-0.86, -0.04, 0.58), (-0.82, 0.04, 0.66), TAIL)
    s.box((0.5, -0.05, 0.78), (0.55, 0.05, 0.87), HEAD)
    if basket:
        s.box((0.42, -0.2, 0.82), (0.76, 0.2, 1.05), SECOND, 'cloth')
    name = f'bicycle{"_low" if step_through else ""}{"_basket" if basket else ""}'
    return Model(name, 'bicycle', _centred(s.shape()), (-0.22, 0.0, 0.95))


def _centred(shape: Shape) -> Shape:
    """Move the box to x = y = 0; the lowest point is the ground already."""
    middle = (shape.low + shape.high) / 2
    middle[2] = shape.low[2]
    return Shape(shape.corner - middle, shape.texture, shape.repeat, shape.slot)


MODELS = (
    *(Model(name, 'car', _car(body)) for name, body in CARS.items()),
    Model('lorry', 'truck', _truck(7.6, 3.5, 'box')),
    Model('lorry_long', 'truck', _truck(9.8, 3.8, 'curtain')),
    Model('lorry_small', 'truck', _truck(6.2, 3.0, 'box', 2.2)),
    Model('tipper', 'truck', _truck(7.4, 2.9, 'tipper')),
    Model('tanker', 'truck', _truck(8.6, 3.3, 'tank')),
    Model('bus', 'bus', _bus(12.0, 3.1)),
    Model('bus_short', 'bus', _bus(9.2, 3.0)),
    Model('coach', 'bus', _bus(12.6, 3.6)),
    Model('tram', 'train', _tram(18.0)),
    Model('tram_short', 'train', _tram(13.0)),
    Model('tram_long', 'train', _tram(26.0)),
    _motorcycle(False),
    _motorcycle(True),
    _bicycle(False, False),
    _bicycle(True, True),
    _bicycle(True, False),
)
"""Every vehicle model."""

"""Passenger cars and vans: one set of proportions per body style."""

from __future__ import annotations

from dataclasses import dataclass

from tag_perception.data.street.shapes import TYRE, Shape, Solid

PAINT, GLASS, HEAD, TAIL, TRIM, SECOND, WHITE = 0, 1, 3, 4, 5, 6, 7
"""Palette slots of all vehicles (slot 2 is TYRE)."""


@dataclass(frozen=True)
class CarBody:
    """Proportions of a car, metres."""

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
    panes: str = 'panes_three'
    """Texture of the side windows."""


BODIES = {
    'hatchback': CarBody(4.05, 1.75, 1.47, 0.95, 0.75, 0.35, panes='panes_two'),
    'small': CarBody(3.6, 1.66, 1.5, 0.75, 0.7, 0.22, belt=0.95, wheel=0.29, panes='panes_two'),
    'sedan': CarBody(4.6, 1.8, 1.44, 1.2, 0.85, 0.7, trunk=0.55),
    'limousine': CarBody(4.95, 1.87, 1.46, 1.3, 0.9, 0.75, trunk=0.6, wheel=0.34),
    'estate': CarBody(4.65, 1.81, 1.48, 1.15, 0.8, 0.3),
    'suv': CarBody(4.55, 1.88, 1.7, 1.05, 0.7, 0.35, belt=1.08, wheel=0.37),
    'offroad': CarBody(4.4, 1.9, 1.86, 1.15, 0.4, 0.12, belt=1.2, wheel=0.4),
    'minivan': CarBody(4.5, 1.83, 1.66, 0.75, 0.95, 0.25, belt=1.0),
    'van': CarBody(5.0, 1.92, 1.95, 0.6, 0.75, 0.1, belt=1.12, wheel=0.34),
    'delivery': CarBody(5.6, 2.0, 2.5, 0.6, 0.7, 0.05, belt=1.25, wheel=0.36, panes='panes_van'),
    'coupe': CarBody(4.3, 1.82, 1.32, 1.3, 0.95, 0.95, 0.3, 0.88, 0.34, 'panes_two'),
}


def build_car(body: CarBody) -> Shape:
    """The shape of a car."""
    s, half, rear = Solid(), body.width / 2, -body.length / 2
    front, sill, edge, belt = -rear, 0.24, half - 0.03, body.belt
    hood_end, cabin_rear = front - body.hood, max(rear + body.trunk, rear + 0.06)
    profile = [
        (rear, edge - 0.1, belt - 0.1),
        (rear + 0.18, edge, belt - 0.02),
        (max(cabin_rear + 0.02, rear + 0.2), edge, belt),
        (hood_end, edge, belt),
        (front - 0.25, edge - 0.02, belt - 0.14),
        (front, edge - 0.14, belt - 0.28),
    ]
    s.hull(profile, sill, PAINT)
    _cabin(s, body, cabin_rear, hood_end, edge)
    axles = (rear + 0.17 * body.length + 0.08, front - 0.17 * body.length - 0.05)
    arches(s, axles, half - 0.012, body.wheel * 1.16)
    s.wheels(axles, half, body.wheel, 0.2, TRIM)
    floor = ((rear + 0.15, 0.1 - edge, 0.16), (front - 0.15, edge - 0.1, sill))
    s.box(*floor, TYRE, faces='front back left right')
    _face(s, body, front + 0.01, edge - 0.16)
    _tail(s, body, rear - 0.01, edge - 0.11)
    return s.shape().grounded(centred=True)


def arches(s: Solid, xs: tuple[float, ...], y: float, reach: float) -> None:
    """Dark wheel housings on both sides."""
    for x in xs:
        s.pair('sides', y, (x - reach, x + reach), (0.14, 0.14 + 2 * reach), TYRE, 'disc')


def plate(s: Solid, face: str, x: float, z: float) -> None:
    """A number plate whose lower edge is at z."""
    s.panel(face, x, (-0.26, 0.26), (z, z + 0.11), WHITE, 'plate')


def _cabin(s: Solid, body: CarBody, rear: float, hood_end: float, edge: float) -> None:
    """Windows all round and a slightly arched roof."""
    low, high, sill, top = edge - 0.02, edge - 0.2, body.belt, body.height
    eaves, inside = top - 0.04, ((rear + hood_end) / 2, 0.0, (sill + top) / 2)
    roof_rear, roof_front = rear + body.back, hood_end - body.screen
    base = [(hood_end, low), (rear, low), (rear, -low), (hood_end, -low)]
    roof = [(roof_front, high), (roof_rear, high), (roof_rear, -high), (roof_front, -high)]
    textures = (body.panes, 'pane', body.panes, 'pane')
    for i, texture in enumerate(textures):  # left, back, right, front
        j = (i + 1) % 4
        quad = ((*base[i], sill), (*base[j], sill), (*roof[j], eaves), (*roof[i], eaves))
        s.quad(quad, PAINT, texture, away_from=inside)
    middle = (roof_front + roof_rear) / 2
    for xa, za, xb, zb in ((roof_rear, eaves, middle, top), (middle, top, roof_front, eaves)):
        s.quad(
            ((xa, high, za), (xa, -high, za), (xb, -high, zb), (xb, high, zb)),
            PAINT,
            away_from=inside,
        )


def _face(s: Solid, body: CarBody, x: float, half: float) -> None:
    """Bumper, grille, plate and headlamps."""
    low = body.belt - 0.28
    s.panel('front', x, (-half, half), (0.26, 0.42), TYRE)
    s.panel('front', x, (-0.35, 0.35), (low - 0.2, low - 0.02), WHITE, 'grille')
    plate(s, 'front', x + 0.005, 0.4)
    inner, outer, lamp = half - 0.34, half + 0.015, (low - 0.17, low - 0.02)
    s.pair('front', x, (inner, outer), lamp, HEAD)
    s.pair('sides', outer, (x - 0.22, x), lamp, HEAD)


def _tail(s: Solid, body: CarBody, x: float, half: float) -> None:
    """Bumper, plate and tail lamps."""
    top = body.belt - 0.1
    lamp = (top - (0.34 if body.height > 1.6 else 0.17), top - 0.02)
    s.panel('back', x, (-half, half), (0.26, 0.4), TYRE)
    plate(s, 'back', x - 0.005, 0.5)
    s.pair('back', x, (half - 0.3, half), lamp, TAIL)
    s.pair('sides', half, (x, x + 0.1), lamp, TAIL)

"""Everything that stands still: house parts, walls, fences, poles, signs, lights and plants.

Shapes are of unit size where they are stretched to fit (a house front, a wall, a pole) and of real
size where they are not (a traffic light).
"""

from __future__ import annotations

from tag_perception.data.street.shapes import METRIC, Shape, Solid, box_face
from tag_perception.data.street.textures import TEXTURE

FACADES = tuple(name for name in TEXTURE if name.startswith('facade'))
SHOPS = ('shop_a', 'shop_b')
LOW_CROWN = 'crown_cone'
"""The crown that begins near the ground, so that nothing drives or looks below it."""
LOW_HALF = 0.3
"""Half the width of its lowest branches, in units of the tree's scale."""
CROWNS = ('crown_round', 'crown_tall', 'crown_flat', 'crown_thin', LOW_CROWN)
SIGNS = tuple(name for name in TEXTURE if name.startswith('sign_'))
POSTERS = ('poster_a', 'poster_b', 'poster_c')
BLOCKS = ('stone', 'brick', 'concrete', 'plaster', 'boards', 'sheet', 'hedge', 'plain', 'tiles')
"""Textures that exist as plain boxes."""
FENCES = ('bars', 'mesh', 'pickets', 'rails')

UNIT_LOW, UNIT_HIGH = (-0.5, -0.5, 0.0), (0.5, 0.5, 1.0)


def _block(texture: str, repeat: tuple[float, float] = METRIC, top: str | None = None) -> Shape:
    s = Solid()
    s.box(UNIT_LOW, UNIT_HIGH, 0, texture, repeat, 'front back left right')
    s.box(UNIT_LOW, UNIT_HIGH, 1 if top else 0, top or texture, METRIC, 'top')
    return s.shape()


def _roof() -> Shape:
    """A gable roof, ridge along x."""
    s, inside = Solid(), (0, 0, 0.2)
    for side in (1, -1):
        eaves = ((-0.5, side * 0.5, 0), (0.5, side * 0.5, 0), (0.5, 0, 1), (-0.5, 0, 1))
        s.quad(eaves, 0, 'tiles', METRIC, inside)
    for x in (-0.5, 0.5):
        s.quad(((x, -0.5, 0), (x, 0.5, 0), (x, 0, 1)), 1, 'plaster', METRIC, inside)
    return s.shape()


def _sheet(texture: str) -> Shape:
    """An upright rectangle along x, seen from both sides, with posts."""
    s = Solid()
    s.quad(box_face((-0.5, 0, 0), (0.5, 0, 1), 'left'), 0, texture, METRIC)
    return s.shape()


def _pole() -> Shape:
    s = Solid()
    s.prism((0, 0, 0), (0, 0, 1), (1.0, 0.8), 0, sides=6)
    return s.shape()


def _lamp() -> Shape:
    """A street lamp, 1 high, its arm reaching 0.22 towards +y."""
    s = Solid()
    s.prism((0, 0, 0), (0, 0, 0.98), (0.011, 0.007), 0)
    s.prism((0, 0, 0.97), (0, 0.2, 1.0), (0.006, 0.005), 0)
    s.box((-0.015, 0.14, 0.985), (0.015, 0.23, 1.005), 0)
    return s.shape()


def _plate(texture: str) -> Shape:
    """A sign of one metre facing +x, its centre at the origin."""
    s = Solid()
    s.quad(box_face((0, -0.5, -0.5), (0, 0.5, 0.5), 'front'), 0, texture)
    return s.shape()


def _signal(texture: str) -> Shape:
    s = Solid()
    s.box((-0.12, -0.16, 0.0), (0.1, 0.16, 0.92), 0, faces='back left right top')
    s.box((-0.12, -0.16, 0.0), (0.1, 0.16, 0.92), 1, texture, faces='front')
    for z in (0.29, 0.58, 0.86):
        s.box((0.1, -0.12, z), (0.24, 0.12, z + 0.03), 0, faces='top left right front')
    return s.shape()


def _tree(crown: str) -> Shape:
    """A tree of height 1 whose two layers of leaves face along x."""
    s = Solid()
    fork = 0.16 if crown == LOW_CROWN else 0.42
    s.prism((0, 0, 0), (0, 0, fork + 0.2), (0.026, 0.016), 1, 'bark', 6)
    low, half = (0.04, LOW_HALF) if crown == LOW_CROWN else (0.24, 0.4)
    s.quad(box_face((0.02, -half, low), (0.02, half, 1.0), 'back'), 0, crown)
    inner = half * 0.72
    s.quad(box_face((-0.1, inner, low + 0.08), (-0.1, -inner, 0.86), 'back'), 2, crown)
    return s.shape()


def _bush() -> Shape:
    s = Solid()
    s.quad(box_face((0.2, -0.5, -0.08), (0.2, 0.5, 1.0), 'back'), 2, 'bush')
    s.quad(box_face((-0.2, 0.45, -0.1), (-0.2, -0.4, 0.8), 'back'), 0, 'bush')
    return s.shape()


def _bench() -> Shape:
    s = Solid()
    s.box((-0.8, -0.2, 0.4), (0.8, 0.2, 0.46), 0, 'boards')
    s.box((-0.8, -0.22, 0.46), (0.8, -0.18, 0.85), 0, 'boards')
    for x in (-0.7, 0.7):
        s.box((x - 0.04, -0.2, 0), (x + 0.04, 0.2, 0.4), 1)
    return s.shape()


def scenery() -> dict[str, Shape]:
    """All still shapes by name."""
    shapes = {
        'roof': _roof(),
        'pole': _pole(),
        'lamp': _lamp(),
        'bush': _bush(),
        'bench': _bench(),
    }
    shapes |= {name: _block(name, METRIC, 'concrete') for name in FACADES}
    shapes |= {name: _block(name) for name in (*SHOPS, *BLOCKS)}
    shapes |= {name: _block(name, (1.0, 1.0)) for name in POSTERS}
    shapes |= {name: _sheet(name) for name in FENCES}
    shapes |= {name: _plate(name) for name in (*SIGNS, 'disc')}
    shapes |= {name: _signal(name) for name in TEXTURE if name.startswith('signal_')}
    shapes |= {name.replace('crown', 'tree'): _tree(name) for name in CROWNS}
    return shapes

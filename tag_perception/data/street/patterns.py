"""The table of textures: one line each; the drawings are in `drawings`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tag_perception.data.street.drawings import (
    Draw,
    asphalt,
    blocks,
    crown,
    disc,
    facade,
    grille,
    leaves,
    panes,
    plate,
    poster,
    sheet,
    shop,
    sign,
    signal,
    speckle,
    stripes,
    wheel,
    worn,
)


@dataclass(frozen=True)
class Pattern:
    """One texture: its name, how it is drawn, and how it is used."""

    name: str
    function: Draw
    tile_m: float = 1.0
    cutout: bool = False
    solid_far: bool = False

    def draw(self, side: int) -> np.ndarray:
        """(side, side, 4) float RGBA; the same on every call."""
        rng = np.random.default_rng([side, *self.name.encode()])
        return self.function(side, rng)


PATTERNS = (
    Pattern('plain', speckle(0.94, 1.0, 4, 0.008), 2.0),
    Pattern('noise', speckle(0.0, 1.0, 4, 0.0), 16.0),
    Pattern('asphalt', asphalt, 4.0),
    Pattern('concrete', speckle(0.75, 1.0, 5, 0.03), 3.0),
    Pattern('slabs', blocks(8, 8, 0.06, 0.16, False), 4.0),
    Pattern('paving', blocks(16, 8, 0.1, 0.3, True), 2.0),
    Pattern('cobble', blocks(14, 14, 0.22, 0.4, True), 2.0),
    Pattern('grass', leaves(0.35, 0.15), 2.5),
    Pattern('earth', speckle(0.55, 1.05, 6, 0.06), 3.0),
    Pattern('plaster', speckle(0.84, 1.0, 5, 0.02), 5.0),
    Pattern('brick', blocks(24, 8, 0.12, 0.4, True), 2.0),
    Pattern('stone', blocks(6, 4, 0.1, 0.45, True), 3.0),
    Pattern('tiles', blocks(12, 10, 0.2, 0.35, True), 3.0),
    Pattern('sheet', sheet(16), 2.5),
    Pattern('boards', sheet(10), 2.0),
    Pattern('hedge', leaves(0.3, 0.3), 1.6),
    Pattern('bark', speckle(0.4, 1.0, 12, 0.08), 1.0),
    Pattern('cloth', speckle(0.72, 1.05, 6, 0.03), 0.8),
    Pattern('facade_old', facade((0.36, 0.56), 'old'), 3.0),
    Pattern('facade_plain', facade((0.42, 0.44), 'plain'), 3.0),
    Pattern('facade_wide', facade((0.7, 0.46), 'plain'), 3.0),
    Pattern('facade_office', facade((0.9, 0.55), 'office'), 3.0),
    Pattern('facade_brick', facade((0.38, 0.5), 'brick'), 3.0),
    Pattern('facade_balcony', facade((0.5, 0.6), 'balcony'), 3.0),
    Pattern('shop_a', shop(False), 4.0),
    Pattern('shop_b', shop(True), 4.0),
    Pattern('bars', stripes(16, 2, 0.3), 2.0, True, True),
    Pattern('mesh', stripes(24, 24, 0.22), 2.0, True, True),
    Pattern('pickets', stripes(12, 2, 0.66), 2.0, True, True),
    Pattern('rails', stripes(1, 3, 0.08), 2.0, True, True),
    Pattern('crown_round', crown('round', 1.0), 1.0, True),
    Pattern('crown_tall', crown('tall', 1.0), 1.0, True),
    Pattern('crown_flat', crown('flat', 0.9), 1.0, True),
    Pattern('crown_thin', crown('round', 0.4), 1.0, True),
    Pattern('crown_cone', crown('cone', 1.1), 1.0, True),
    Pattern('bush', crown('flat', 1.4), 1.0, True),
    Pattern('wheel', wheel(5, 0.34, True), 1.0, True),
    Pattern('wheel_heavy', wheel(8, 0.42, True), 1.0, True),
    Pattern('wheel_bicycle', wheel(14, 0.12, False), 1.0, True, True),
    Pattern('disc', disc, 1.0, True),
    Pattern('panes_two', panes((0.0, 0.52, 1.0), 0.1, 0.9, 0.035), 1.0),
    Pattern('panes_three', panes((0.0, 0.28, 0.62, 1.0), 0.1, 0.9, 0.03), 1.0),
    Pattern('panes_van', panes((0.6, 1.0), 0.1, 0.75, 0.03), 1.0),
    Pattern('pane', panes((0.0, 1.0), 0.08, 0.92, 0.04), 1.0),
    Pattern('panes_bus', panes(tuple(np.linspace(0, 1, 8)), 0.06, 0.94, 0.008), 1.0),
    Pattern('panes_tram', panes(tuple(np.linspace(0, 1, 11)), 0.04, 0.96, 0.006), 1.0),
    Pattern('grille', grille, 1.0),
    Pattern('plate', plate, 1.0),
    Pattern('poster_a', poster, 1.0),
    Pattern('poster_b', poster, 1.0),
    Pattern('poster_c', poster, 1.0),
    Pattern('worn', worn, 3.0),
    Pattern('sign_limit', sign('disc', (0.95, 0.95, 0.95), (0.8, 0.05, 0.06), '30'), 1.0, True),
    Pattern('sign_no_entry', sign('disc', (0.85, 0.06, 0.07), (0.85, 0.06, 0.07), '-'), 1.0, True),
    Pattern('sign_must', sign('disc', (0.05, 0.22, 0.72), (0.05, 0.22, 0.72), '>'), 1.0, True),
    Pattern('sign_danger', sign('up', (0.95, 0.95, 0.95), (0.8, 0.05, 0.06), '!'), 1.0, True),
    Pattern('sign_yield', sign('down', (0.95, 0.95, 0.95), (0.8, 0.05, 0.06), ''), 1.0, True),
    Pattern('sign_priority', sign('diamond', (0.95, 0.75, 0.1), (0.9, 0.9, 0.9), ''), 1.0, True),
    Pattern('sign_stop', sign('octagon', (0.78, 0.05, 0.06), (0.9, 0.9, 0.9), 'STOP'), 1.0, True),
    Pattern('sign_parking', sign('square', (0.05, 0.22, 0.72), (0.9, 0.9, 0.9), 'P'), 1.0, True),
    Pattern('sign_way', sign('square', (0.9, 0.75, 0.1), (0.1, 0.1, 0.1), 'A 4'), 1.0, True),
    Pattern('signal_red', signal((0,))),
    Pattern('signal_amber', signal((0, 1))),
    Pattern('signal_green', signal((2,))),
)
"""The atlas in order; the index of a texture is its place here."""

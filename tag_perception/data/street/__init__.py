"""Seeded synthetic streets: pictures and complete ground truth from one geometric description.

`render(seed, frame, size)` gives a Sample, `StreetStream` a dataset that is rendered on access,
`write_tree` files in the layout of Cityscapes-3D. The hops:

    town, lots, furniture, markings, traffic   what is where            → Stage of placements
    road, stage, shadows                       where that is in space   → Polygons
    planes, raster                             what each pixel sees     → Pixels
    weather, shading                           light, air and sensor    → image
    annotation                                 boxes and regions        → Objects3D, gtBbox3d

Shapes come from cars, heavy, cycles, people and scenery; their surfaces from patterns, drawings
and textures. `view` walks the hops for one picture.
"""

from tag_perception.data.street.render import (
    StreetStream,
    parse_size,
    render,
    render_frame,
    start_method,
)
from tag_perception.data.street.tree import write_tree

__all__ = [
    'StreetStream', 'parse_size', 'render', 'render_frame', 'start_method', 'write_tree',
]  # fmt: skip

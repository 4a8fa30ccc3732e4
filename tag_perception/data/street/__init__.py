"""Seeded synthetic streets: pictures and complete ground truth from one geometric description.

`render(seed, frame, size)` gives a Sample, `StreetStream` a dataset that is rendered on access,
`write_tree` files in the layout of Cityscapes-3D. The hops, one module each:

    town, layout, traffic   what is where           → Stage of placements in street coordinates
    road, stage, shadows    where that is in space  → Polygons
    raster                  what each pixel sees    → Pixels: polygon, depth, shade
    shading                 light, air and sensor   → image
    annotation              boxes and regions       → Objects3D, gtBbox3d
"""

from tag_perception.data.street.render import StreetStream, parse_size, render, render_frame
from tag_perception.data.street.tree import write_tree

__all__ = ['StreetStream', 'parse_size', 'render', 'render_frame', 'write_tree']

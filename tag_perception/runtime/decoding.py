"""From the outputs of a trunk to a Scene: core.tasks.decode with its two costly steps shortened.

Boxes are computed in the cells of peaks only, and labels without upsampling every class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from torch import Tensor

from tag_perception.core import tasks
from tag_perception.core.structures import Scene, View
from tag_perception.core.tasks import depth, detection3d
from tag_perception.runtime.trunk import PeakHead

Labeller = Callable[[Tensor, tuple[int, int]], Tensor]
"""(B, 19, h, w) logits and a size → (B, H, W) uint8."""


def decode(
    outputs: Mapping[str, Tensor],
    peak_head: PeakHead | None,
    view: View,
    label: Labeller,
    depth_place: Tensor | None = None,
    beside: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Scene:
    """Batched Scene, on the device of `outputs`, of what a `trunk.Trunk` names.

    `depth_place`: (B, H, W) float32 in which its depth may lie. `beside`: where the maps are
    computed while the boxes are.
    """
    decoded: dict[str, object] = {}
    with beside():
        if 'semantic' in outputs:
            decoded['semantic'] = label(outputs['semantic'], view.image_size)
        if 'depth' in outputs:
            decoded['depth'] = depth.decode(outputs['depth'], view)
        maps = tasks.assemble(decoded, depth_place)
    if peak_head is not None:
        heatmap = outputs['heatmap']
        peaks = detection3d.find_peaks(heatmap)
        rows = peak_head(outputs['features'], peaks.cell)
        grid = (heatmap.shape[-2], heatmap.shape[-1])
        return replace(maps, detection3d=detection3d.decode_peaks(peaks, rows, grid, view))
    if 'detection3d' in outputs:
        return replace(maps, detection3d=detection3d.decode(outputs['detection3d'], view))
    return maps

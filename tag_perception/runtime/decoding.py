"""From the outputs of a trunk to a Scene: core.tasks.decode with its costly steps shortened.

Boxes are computed in the cells of peaks only, and labels without upsampling every class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from tag_perception.core import tasks
from tag_perception.core.structures import Objects3D, Scene, View
from tag_perception.core.tasks import depth, detection3d
from tag_perception.runtime.trunk import PeakHead

Labeller = Callable[[Tensor, tuple[int, int]], Tensor]
"""(B, 19, h, w) logits and a size → (B, H, W) uint8."""


def decode_maps(outputs: Mapping[str, Tensor], view: View, label: Labeller) -> Scene:
    """Batched Scene without boxes, on the device of `outputs`, of what a `trunk.Trunk` names."""
    decoded: dict[str, Tensor] = {}
    if 'semantic' in outputs:
        decoded['semantic'] = label(outputs['semantic'], view.image_size)
    if 'depth' in outputs:
        decoded['depth'] = depth.decode(outputs['depth'], view)
    return tasks.assemble(decoded)


def decode_boxes(
    outputs: Mapping[str, Tensor], peak_head: PeakHead | None, view: View
) -> Objects3D | None:
    """Batched boxes, on the device of `outputs`; None where the network has no detection."""
    if peak_head is not None:
        heatmap = outputs['heatmap']
        peaks = detection3d.find_peaks(heatmap)
        rows = peak_head(outputs['features'], peaks.cell)
        grid = (heatmap.shape[-2], heatmap.shape[-1])
        return detection3d.decode_peaks(peaks, rows, grid, view)
    if 'detection3d' in outputs:
        return detection3d.decode(outputs['detection3d'], view)
    return None

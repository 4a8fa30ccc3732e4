"""The class of every image pixel in one kernel: upsampled logits never reach the memory.

Needs triton, which comes with torch for CUDA, and the C compiler that triton needs.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256
"""Pixels of a row that one program labels."""


def labels_at(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H, W) uint8: the same as `argmax(upsample(logits, size))`, ties aside.

    Logits are (B, C, h, w) on CUDA, of any memory format and floating-point type.
    """
    logits = logits.contiguous()  # a class after the other: neighbours read neighbours
    batch, classes, height, width = logits.shape
    labels = torch.empty(batch, *size, dtype=torch.uint8, device=logits.device)
    _label[(triton.cdiv(size[1], BLOCK), size[0], batch)](
        logits, labels, *logits.stride(), height, width, size[0], size[1], classes, BLOCK
    )  # fmt: skip
    return labels


@triton.jit
def _label(
    logits, labels, stride_b, stride_c, stride_y, stride_x, height, width, out_height, out_width,
    classes: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0) * block + tl.arange(0, block)
    row = tl.program_id(1)
    image = tl.program_id(2).to(tl.int64)
    # Pixel centres of the labels in cells of the logits, as in torch with align_corners=False.
    y = tl.maximum((row + 0.5) * (height / out_height) - 0.5, 0.0)
    x = tl.maximum((column + 0.5) * (width / out_width) - 0.5, 0.0)
    top = y.to(tl.int32)
    left = x.to(tl.int32)
    down = y - top
    right = x - left
    bottom = tl.minimum(top + 1, height - 1)
    beside = tl.minimum(left + 1, width - 1)

    highest = tl.full((block,), float('-inf'), tl.float32)
    winner = tl.zeros((block,), tl.uint8)
    inside = column < out_width
    left = tl.where(inside, left, 0)
    beside = tl.where(inside, beside, 0)
    for index in range(classes):
        plane = logits + image * stride_b + index * stride_c
        upper = plane + top * stride_y
        lower = plane + bottom * stride_y
        above = (1 - right) * tl.load(upper + left * stride_x).to(tl.float32)
        above += right * tl.load(upper + beside * stride_x).to(tl.float32)
        below = (1 - right) * tl.load(lower + left * stride_x).to(tl.float32)
        below += right * tl.load(lower + beside * stride_x).to(tl.float32)
        value = (1 - down) * above + down * below
        winner = tl.where(value > highest, index, winner).to(tl.uint8)
        highest = tl.maximum(value, highest)
    tl.store(labels + (image * out_height + row) * out_width + column, winner, mask=inside)

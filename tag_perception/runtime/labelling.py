"""The class of every image pixel without upsampling every class: exact, and a tenth of the work.

Bilinear interpolation blends the four neighbouring cells. Where one class is the largest in all
four, it is the largest everywhere between them, so the square between them has one label. Only
squares on a class boundary are interpolated, and only for the classes that can still win there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tag_perception.core.tasks import semantic


def labels_at(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H, W) uint8: the same as `argmax(upsample(logits, size))`, ties aside.

    Logits are (B, C, h, w). The short cut needs H, W to be even multiples of h, w; other sizes
    take the plain way.
    """
    height, width = logits.shape[-2:]
    rows, columns = size[0] // height, size[1] // width
    if size != (height * rows, width * columns) or rows % 2 or columns % 2:
        upsampled = semantic.upsample(logits.contiguous(memory_format=torch.channels_last), size)
        return upsampled.argmax(1).to(torch.uint8)
    padded = F.pad(logits.float(), (1, 1, 1, 1), mode='replicate')
    cells = padded.permute(0, 2, 3, 1).contiguous()  # the logits of a cell side by side
    best = cells.argmax(-1).to(torch.uint8)  # (B, h + 2, w + 2)
    corner = best[:, :-1, :-1]  # of each square between four cells, (B, h + 1, w + 1)
    mixed = corner != best[:, :-1, 1:]
    mixed |= corner != best[:, 1:, :-1]
    mixed |= corner != best[:, 1:, 1:]
    wide = corner.repeat_interleave(columns, 2)[:, :, None].repeat(1, 1, rows, 1)
    tiles = wide.unflatten(3, (-1, columns))  # (B, h + 1, rows, w + 1, columns)
    b, y, x = mixed.nonzero(as_tuple=True)
    neighbours = [(0, 0), (0, 1), (1, 0), (1, 1)]
    corners = torch.stack([cells[b, y + down, x + right] for down, right in neighbours], 2)
    tiles[b, y, :, x] = _winners(corners, rows, columns)
    whole = tiles.view(len(logits), (height + 1) * rows, (width + 1) * columns)
    return whole[:, rows // 2 : rows // 2 + size[0], columns // 2 : columns // 2 + size[1]]


def _winners(corners: Tensor, rows: int, columns: int) -> Tensor:
    """(N, rows, columns) uint8 of N squares whose four corners have logits (N, C, 4)."""
    weights = _bilinear_weights(rows, columns).to(corners)
    squares, classes, _ = corners.shape
    # A class whose largest corner is under another's smallest cannot win anywhere between them.
    floor = corners.amin(2).amax(1, keepdim=True)
    contender = corners.amax(2) >= floor
    highest = corners.new_full((squares, rows * columns), -torch.inf)
    winner = torch.zeros(squares, rows * columns, dtype=torch.uint8, device=corners.device)
    for index in range(classes):
        among = contender[:, index].nonzero().squeeze(1)
        value = corners[among, index] @ weights
        wins = value > highest[among]
        highest[among] = torch.where(wins, value, highest[among])
        winner[among] = torch.where(wins, index, winner[among]).to(torch.uint8)
    return winner.view(squares, rows, columns)


def _bilinear_weights(rows: int, columns: int) -> Tensor:
    """(4, rows · columns) weights of the corners at the pixel centres of a square."""
    down = (torch.arange(rows) + 0.5) / rows
    right = (torch.arange(columns) + 0.5) / columns
    pairs = [(1 - down, 1 - right), (1 - down, right), (down, 1 - right), (down, right)]
    return torch.stack([torch.outer(a, b).flatten() for a, b in pairs])

"""The class of every image pixel on the CPU, exact, without all classes upsampled side by side.

Bilinear interpolation blends the four neighbouring cells. Where one class is the largest in all
four, it is the largest everywhere between them, so the square between them has one label. Only
squares on a class boundary are interpolated, and only for the classes that can still win there:
a twentieth of the time of an argmax of torch. Where squares do not hold a whole number of pixels,
each class is upsampled by itself and compared with the best so far, which is six times as fast.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def labels_at(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H, W) uint8: the same as `argmax(upsample(logits, size))`, ties aside.

    Logits are (B, C, h, w). Squares need H, W to be even multiples of h, w.
    """
    height, width = logits.shape[-2:]
    rows, columns = size[0] // height, size[1] // width
    if size != (height * rows, width * columns) or rows % 2 or columns % 2:
        return torch.stack([_class_by_class(image, size) for image in logits])
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
    order, winners = _winners(corners, rows, columns)
    tiles[b[order], y[order], :, x[order]] = winners
    whole = tiles.view(len(logits), (height + 1) * rows, (width + 1) * columns)
    return whole[:, rows // 2 : rows // 2 + size[0], columns // 2 : columns // 2 + size[1]]


def _winners(corners: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Labels of N squares whose four corners have logits (N, C, 4).

    Returns an order of the squares, and (N, rows, columns) uint8 in that order: those with most
    classes to compare come first, so that each class is compared in a block without gaps.
    """
    weights = _bilinear_weights(rows, columns).to(corners)
    contender = _can_win(corners.permute(2, 1, 0)).T
    contenders, order = contender.sum(1).sort(descending=True)
    ranked = contender[order].byte().argsort(dim=1, descending=True, stable=True)
    logits = corners[order].gather(1, ranked[:, :, None].expand(-1, -1, 4))
    classes = ranked.byte()
    highest = logits[:, 0] @ weights
    winner = classes[:, :1].repeat(1, rows * columns)
    for rank in range(1, classes.shape[1]):
        compared = int((contenders > rank).sum())
        if compared == 0:
            break
        value = logits[:compared, rank] @ weights
        wins = value > highest[:compared]
        # Modulo 256 that is the class where it wins; torch.where takes ten times as long.
        winner[:compared] += wins.byte() * (classes[:compared, rank, None] - winner[:compared])
        torch.maximum(highest[:compared], value, out=highest[:compared])
    return order, winner.view(-1, rows, columns)


def _bilinear_weights(rows: int, columns: int) -> Tensor:
    """(4, rows · columns) weights of the corners at the pixel centres of a square."""
    down = (torch.arange(rows) + 0.5) / rows
    right = (torch.arange(columns) + 0.5) / columns
    pairs = [(1 - down, 1 - right), (1 - down, right), (down, 1 - right), (down, right)]
    return torch.stack([torch.outer(a, b).flatten() for a, b in pairs])


def _class_by_class(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W) uint8 of one image's logits (C, h, w), for any size."""
    logits = logits.float().contiguous()
    height, width = size
    value, wins, labels = (
        np.empty(size, np.float32),
        np.empty(size, np.uint8),
        np.zeros(size, np.uint8),
    )
    highest = np.full(size, -np.inf, np.float32)
    for train_id in _contenders(logits):
        plane = logits[train_id].numpy()
        cv2.resize(plane, (width, height), dst=value, interpolation=cv2.INTER_LINEAR)
        np.greater(value, highest, out=wins.view(np.bool_))
        np.multiply(wins, np.uint8(train_id), out=wins)
        np.maximum(labels, wins, out=labels)  # ids rise: the last that won is the largest
        np.maximum(value, highest, out=highest)
    return torch.from_numpy(labels)


def _contenders(logits: Tensor) -> list[int]:
    """The classes of (C, h, w) logits that can be the largest anywhere, in order."""
    _, height, width = logits.shape
    padded = F.pad(logits[None], (1, 1, 1, 1), mode='replicate')[0]
    corners = torch.stack(
        [padded[:, y : y + height + 1, x : x + width + 1] for y in (0, 1) for x in (0, 1)]
    )
    return _can_win(corners).flatten(1).any(1).nonzero().flatten().tolist()


def _can_win(corners: Tensor) -> Tensor:
    """(C, …) bool of squares whose four corners have logits (4, C, …).

    A class whose largest corner is under another's smallest cannot win anywhere between them.
    """
    return corners.amax(0) >= corners.amin(0).amax(0)

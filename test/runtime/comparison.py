"""How far two Scenes of one image may be apart, in the units a user reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tag_perception.core.structures import Scene


@dataclass(frozen=True)
class Tolerances:
    """Of a precision, against eager fp32 on the same device."""

    labels: float
    """Least share of the pixels with the same label."""
    depth: float
    """Largest difference by the depth; in half precision of 99 % of the pixels."""
    center: float
    """Of a box, by its distance."""
    size_m: float
    box_2d_px: float
    turn_rad: float
    score: float
    ties: float
    """Share of the boxes in which it may go the other way: another box, another heading."""


TOLERANCES = {
    'fp32': Tolerances(0.995, 1e-3, 5e-4, 1e-3, 0.01, 1e-3, 1e-4, ties=0.0),
    'fp16': Tolerances(0.995, 0.005, 0.005, 0.01, 0.5, 0.01, 0.005, ties=0.15),
    'bf16': Tolerances(0.97, 0.02, 0.025, 0.05, 2.5, 0.05, 0.05, ties=0.4),
}
"""For random weights, whose classes, peaks and headings are nearly tied; `assert_as_good` holds
trained ones to more."""
SURE = 0.35
"""Score of the boxes of trained weights that have to be there, …"""
NEAR = {'center': 0.02, 'size_m': 0.05, 'box_2d_px': 2.0, 'turn_rad': 0.05, 'score': 0.05}
"""… and how near they have to be, as in Tolerances."""


def assert_close(
    actual: Scene, expected: Scene, precision: str = 'fp32', slack: float = 1.0
) -> None:
    """Every optimised path is held to this; `slack` multiplies all but labels and ties."""
    allowed = TOLERANCES[precision]
    if expected.semantic is not None:
        assert actual.semantic.shape == expected.semantic.shape
        assert actual.semantic.dtype == torch.uint8
        share = float((actual.semantic == expected.semantic).float().mean())
        assert share >= allowed.labels, f'{share:.4f} of the labels are the same'
    if expected.depth is not None:
        valid = actual.depth.isfinite() & expected.depth.isfinite()
        assert valid.float().mean() >= expected.depth.isfinite().float().mean() - (
            1 - allowed.labels
        )
        relative = ((actual.depth - expected.depth).abs() / expected.depth)[valid].sort().values
        most = int(len(relative) * (1 if precision == 'fp32' else 0.99))
        worst = float(relative[most - 1]) if most else 0.0
        assert worst <= slack * allowed.depth, f'depth differs by {worst:.4f}'
    if expected.detection3d is None:
        assert actual.detection3d is None
        return
    ours, theirs = actual.detection3d, expected.detection3d
    assert len(ours) == len(theirs)
    pair = _pairs(ours.box_2d_px, theirs.box_2d_px, ours.class_id, theirs.class_id)
    ours, theirs = ours[pair >= 0], theirs[pair[pair >= 0]]
    apart = _differences(ours, theirs)
    same = torch.stack([apart[k] <= slack * getattr(allowed, k) for k in apart]).all(0)
    worst = {name: float(value.max()) for name, value in apart.items() if len(value)}
    others = len(pair) - int(same.sum())
    assert others <= allowed.ties * len(pair), f'{others} of {len(pair)} boxes differ: {worst}'


def assert_as_good(actual: Scene, expected: Scene, labels: float) -> None:
    """What half precision may do to the Scene of trained weights, in what a user would notice.

    Share of the same labels at least `labels`. Depth: median within 0.5 %, 99 % of the pixels
    within 5 %. Boxes of which the reference is SURE are all there, in the same class, and NEAR.
    """
    share = float((actual.semantic == expected.semantic).float().mean())
    assert share >= labels, f'{share:.4f} of the labels are the same'
    relative = (actual.depth - expected.depth).abs() / expected.depth
    relative = relative[relative.isfinite()]  # one of the two may see sky
    near = float((relative <= 0.05).float().mean())
    assert relative.median() <= 0.005, f'depth differs by {relative.median():.4f}'
    assert near >= 0.99, f'depth of {near:.4f} of the pixels is within 5 %'
    sure = expected.detection3d[expected.detection3d.score >= SURE]
    found = actual.detection3d
    pair = _pairs(sure.box_2d_px, found.box_2d_px, sure.class_id, found.class_id)
    assert bool((pair >= 0).all()), f'{int((pair < 0).sum())} of {len(pair)} boxes are not there'
    for name, apart in _differences(found[pair], sure).items():
        assert (apart <= NEAR[name]).all(), f'{name} differs by {float(apart.max()):.4f}'


def _differences(ours, theirs):
    """Of the same boxes, by the name of their tolerance."""
    return {
        'center': (ours.center_cam - theirs.center_cam).norm(dim=-1)
        / theirs.center_cam.norm(dim=-1),
        'size_m': (ours.size_lwh_m - theirs.size_lwh_m).abs().amax(-1),
        'box_2d_px': (ours.box_2d_px - theirs.box_2d_px).abs().amax(-1),
        'turn_rad': _turns(ours, theirs),
        'score': (ours.score - theirs.score).abs(),
    }


def _turns(ours, theirs):
    """Radians from one rotation to the other."""
    # Unit quaternions a turn apart differ by 2 sin(turn / 4); q and -q are the same rotation.
    apart = [(ours.rotation_cam + s * theirs.rotation_cam).norm(dim=-1) for s in (-1, 1)]
    return 4 * (torch.minimum(*apart) / 2).clamp_max(1).asin()


def _pairs(ours, theirs, our_class, their_class):
    """Index of the same box in `theirs` or -1: equal scores may come in any order."""
    distance = torch.cdist(ours.double(), theirs.double())
    distance = distance + 1e6 * (our_class[:, None] != their_class)
    nearest = distance.min(1)
    return torch.where(nearest.values < 8, nearest.indices, -1)

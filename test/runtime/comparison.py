"""How far two Scenes of one image may be apart, in the units a user reads."""

from __future__ import annotations

import torch

from tag_perception.core.structures import Scene


def assert_close(
    actual: Scene,
    expected: Scene,
    *,
    half: bool = False,
    slack: float = 1.0,
    flips: float = 0.0,
) -> None:
    """Every optimised path is held to this; `half` for fp16 and bf16.

    fp32: boxes within 1 cm, 0.01 px, 1e-3 rad and 1e-4 of score; labels ≥ 99.5 %; depth 0.1 %.
    half: the tolerances below, for random weights, whose classes, peaks and headings are nearly
    tied; `assert_as_good` holds trained ones to more. `slack` multiplies all but that of labels.
    `flips`: share of the boxes in which such a tie may break the other way, into another heading
    or another box.
    """
    labels, depth, center_m, size_m, pixels, angle, score = (
        (0.98, 0.02, 0.2, 0.05, 2.0, 0.05, 0.02)
        if half
        else (0.995, 1e-3, 0.01, 1e-3, 0.01, 1e-3, 1e-4)
    )
    depth, center_m, size_m, pixels, angle, score = (
        slack * tolerance for tolerance in (depth, center_m, size_m, pixels, angle, score)
    )
    if expected.semantic is not None:
        assert actual.semantic.shape == expected.semantic.shape
        assert actual.semantic.dtype == torch.uint8
        assert (actual.semantic == expected.semantic).float().mean() >= labels
    if expected.depth is not None:
        valid = actual.depth.isfinite() & expected.depth.isfinite()
        assert valid.float().mean() >= expected.depth.isfinite().float().mean() - (1 - labels)
        relative = ((actual.depth - expected.depth).abs() / expected.depth)[valid]
        assert relative.quantile(0.99 if half else 1.0) <= depth if len(relative) else True
    if expected.detection3d is None:
        assert actual.detection3d is None
        return
    ours, theirs = actual.detection3d, expected.detection3d
    assert len(ours) == len(theirs)
    pair = _pairs(ours.box_2d_px, theirs.box_2d_px, ours.class_id, theirs.class_id)
    assert (pair < 0).float().mean() <= max(flips, 0.1 if half else 0.0)
    ours, theirs = ours[pair >= 0], theirs[pair[pair >= 0]]

    def largest(name: str) -> float:
        difference = (getattr(ours, name) - getattr(theirs, name)).abs().flatten()
        return float(difference.max()) if len(difference) else 0.0

    assert largest('center_cam') <= center_m
    assert largest('size_lwh_m') <= size_m
    assert largest('box_2d_px') <= pixels
    assert largest('score') <= score
    turn = _turns(ours, theirs)
    assert turn.numel() == 0 or float(turn.quantile(1 - flips)) <= angle


def assert_as_good(actual: Scene, expected: Scene, labels: float = 0.995) -> None:
    """What half precision may do to the Scene of trained weights, in what a user would notice.

    Labels ≥ 99.5 % the same, or `labels`. Depth: median within 0.5 %, 99 % of the pixels within
    5 %. Boxes that
    the reference scores 0.35 or more are all there, in the same class: score within 0.05, centre
    within 2 % of its distance, size within 5 cm, 2 px in the picture, heading within 0.05 rad.
    """
    assert (actual.semantic == expected.semantic).float().mean() >= labels
    relative = (actual.depth - expected.depth).abs() / expected.depth
    relative = relative[relative.isfinite()]  # one of the two may see sky
    assert relative.median() <= 0.005
    assert (relative <= 0.05).float().mean() >= 0.99
    sure = expected.detection3d[expected.detection3d.score >= 0.35]
    found = actual.detection3d
    pair = _pairs(sure.box_2d_px, found.box_2d_px, sure.class_id, found.class_id)
    assert bool((pair >= 0).all())
    same = found[pair]
    if len(sure):
        assert (same.score - sure.score).abs().max() <= 0.05
        apart = (same.center_cam - sure.center_cam).norm(dim=-1) / sure.center_cam.norm(dim=-1)
        assert apart.max() <= 0.02
        assert (same.size_lwh_m - sure.size_lwh_m).abs().max() <= 0.05
        assert (same.box_2d_px - sure.box_2d_px).abs().max() <= 2
        assert _turns(same, sure).max() <= 0.05


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

"""The rasteriser against ray casting in float64, and its promises about edges."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tag_perception.data.street.planes import ORDINARY, Lens, Polygons, project
from tag_perception.data.street.raster import FURTHEST_M, rasterise
from tag_perception.data.street.textures import CUTOUT, TEXTURE, atlas

HEIGHT, WIDTH = 48, 64
LENS = Lens(
    HEIGHT, WIDTH, 60.0, 62.0, 31.3, 22.7,
    rotation=((0.0, -1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)), position=(0.0, 0.0, 0.0),
)  # fmt: skip


def _polygons(corners, texture='plain', thing=0):
    """(K, 4, 3) corners in the camera's x forward, y left, z up."""
    corners = np.asarray(corners, np.float32)
    count = len(corners)
    whole = {'dtype': torch.int32}
    return Polygons(
        corner=torch.from_numpy(np.ascontiguousarray(corners.transpose(1, 2, 0))),
        texture=torch.full((count,), TEXTURE[texture], **whole),
        repeat=torch.ones(2, count),
        origin=torch.zeros(2, count),
        color=torch.ones(4, count),
        thing=torch.full((count,), thing, **whole),
        label=torch.arange(count, **whole),
        kind=torch.full((count,), ORDINARY, **whole),
    )


def _see(polygons, things=1):
    pixels = rasterise(project(polygons, LENS, atlas('cpu')), LENS, atlas('cpu'), things)
    shape = (HEIGHT, WIDTH)
    label = pixels.planes.polygons.label[pixels.polygon]
    return pixels.hit.view(shape), label.view(shape), pixels.depth.view(shape), pixels


def _rays():
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
    return np.stack((np.ones_like(u), -(u - LENS.u0) / LENS.fx, -(v - LENS.v0) / LENS.fy), -1)


def _distance(quad):
    """Of the camera from the plane, metres."""
    normal = np.cross(quad[2] - quad[0], quad[3] - quad[1])
    return abs(normal @ quad[0]) / np.linalg.norm(normal)


def _cast(quad):
    """Ray cast one planar convex quadrilateral: (H, W) depth, NaN outside; and the margin."""
    rays, quad = _rays(), np.asarray(quad, float)
    normal = np.cross(quad[2] - quad[0], quad[3] - quad[1])
    with np.errstate(divide='ignore', invalid='ignore'):
        depth = (normal @ quad[0]) / (rays @ normal)
    points = rays * depth[..., None]
    inside = np.full(depth.shape, np.inf)
    for a, b in zip(quad, np.roll(quad, -1, 0), strict=True):
        inward = np.cross(normal, b - a)
        inside = np.minimum(inside, (points - a) @ (inward / np.linalg.norm(inward)))
    visible = (inside > 0) & (depth > 0)
    return np.where(visible, depth, np.nan), np.abs(inside) / np.maximum(np.abs(depth), 1e-9)


def _upright(x, y, z, half_width, half_height, yaw):
    along = np.array((math.sin(yaw), -math.cos(yaw), 0.0)) * half_width
    up = np.array((0.0, 0.0, half_height))
    center = np.array((x, y, z))
    return [center - along - up, center + along - up, center + along + up, center - along + up]


@settings(max_examples=60, deadline=None)
@given(
    x=st.floats(-3, 60), y=st.floats(-15, 15), z=st.floats(-6, 6),
    half_width=st.floats(0.2, 12), half_height=st.floats(0.2, 8), yaw=st.floats(-1.3, 1.3),
)  # fmt: skip
def test_a_quadrilateral_covers_the_pixels_and_depths_of_a_float64_ray_caster(
    x, y, z, half_width, half_height, yaw
):
    quad = _upright(x, y, z, half_width, half_height, yaw)
    assume(_distance(quad) > 1e-3)  # of a plane through the camera there is nothing to see
    expected, margin = _cast(quad)
    hit, _, depth, _ = _see(_polygons([quad, quad[::-1]]))  # whichever side faces the camera
    clear = margin > 1e-4  # radians from an edge; on the edge either answer is right
    assert np.array_equal(hit.numpy()[clear], np.isfinite(expected)[clear])
    both = hit.numpy() & np.isfinite(expected)
    np.testing.assert_allclose(depth.numpy()[both], expected[both], rtol=2e-4)


def test_neighbours_share_edges_without_gap_or_overlap():
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.linspace(-8, 8, 13), np.linspace(-6, 6, 11), indexing='ij'), -1)
    grid[1:-1, 1:-1] += rng.uniform(-0.3, 0.3, grid[1:-1, 1:-1].shape)
    points = np.concatenate((np.full((*grid.shape[:2], 1), 9.0), grid), -1)
    quads = np.stack((points[1:, :-1], points[:-1, :-1], points[:-1, 1:], points[1:, 1:]), 2)
    hit, label, _, _ = _see(_polygons(quads.reshape(-1, 4, 3)))
    assert hit.all()
    alone = sum(_see(_polygons(quads.reshape(-1, 4, 3)[i : i + 1]))[0].int() for i in range(120))
    assert (alone == 1).all()
    assert len(label.unique()) > 50


def test_ground_under_the_camera_reaches_the_lower_edge():
    far, near, wide = 1e4, -50.0, 1e4
    ground = [[(near, wide, -1.2), (near, -wide, -1.2), (far, -wide, -1.2), (far, wide, -1.2)]]
    hit, _, depth, _ = _see(_polygons(ground))
    rows = np.arange(HEIGHT)
    expected = 1.2 * LENS.fy / (rows - LENS.v0)
    below = rows > LENS.v0 + 0.1
    assert hit.numpy()[below].all()
    assert not hit.numpy()[rows < LENS.v0].any()
    np.testing.assert_allclose(depth.numpy()[below, 5], expected[below], rtol=1e-4)
    assert (depth[~hit] == FURTHEST_M).all()


def test_the_nearer_surface_wins_and_backs_are_not_seen():
    near, far = _upright(10, 0, 0, 2, 2, 0), _upright(20, 0, 0, 8, 8, 0)
    turned = _upright(5, 0, 0, 2, 2, 0)[::-1]
    _, label, depth, _ = _see(_polygons([far, near, turned]))
    middle = label[round(LENS.v0), round(LENS.u0)]
    assert middle == 1
    assert depth[round(LENS.v0), round(LENS.u0)] == pytest.approx(10)
    assert label[2, round(LENS.u0)] == 0


def test_texture_coordinates_run_from_the_first_corner_along_and_up():
    quad = _upright(7, 0.5, 0.2, 2, 1, 0.6)
    planes = project(_polygons([quad]), LENS, atlas('cpu'))
    for corner, expected in zip(quad, ((0, 0), (1, 0), (1, 1), (0, 1)), strict=True):
        z = corner[0]
        pixel = (-corner[1] / z * LENS.fx + LENS.u0, -corner[2] / z * LENS.fy + LENS.v0)
        for axis, value in zip((planes.along, planes.up), expected, strict=True):
            a, b, c, d = axis[:, 0].tolist()
            assert z * (a * pixel[0] + b * pixel[1] + c) + d == pytest.approx(value, abs=1e-4)


def test_holes_of_a_cutout_show_what_is_behind():
    disc, wall = _upright(10, 0, 0, 3, 3, 0), _upright(12, 0, 0, 20, 20, 0)
    polygons = Polygons.cat((_polygons([disc], 'disc'), _polygons([wall])))
    polygons.label[:] = torch.tensor([1, 2])
    hit, label, _, _ = _see(polygons)
    assert hit.all()
    shown = (label == 1).sum() / (2 * 3 / 10 * LENS.fx * 2 * 3 / 10 * LENS.fy)
    assert shown == pytest.approx(math.pi / 4, abs=0.06)


def test_coverage_counts_what_a_thing_would_cover_alone():
    hidden, front = (
        _polygons([_upright(20, 0, 0, 3, 2, 0)], thing=1),
        _polygons([_upright(10, 0, 0, 1.5, 3, 0)], thing=2),
    )
    alone = int(_see(hidden, 3)[0].sum())
    pixels = _see(Polygons.cat((hidden, front)), 3)[3]
    assert pixels.coverage.tolist()[1] == alone
    owner = torch.where(pixels.hit, pixels.planes.polygons.thing[pixels.polygon], 0)
    assert int((owner == 1).sum()) < alone
    assert int((owner == 2).sum()) == pixels.coverage.tolist()[2]


def test_an_empty_scene_is_all_sky():
    hit, _, depth, pixels = _see(_polygons([_upright(-10, 0, 0, 1, 1, 0)]))
    assert not hit.any()
    assert (depth == FURTHEST_M).all()
    assert pixels.coverage.tolist() == [0]


def test_cutouts_keep_their_coverage_in_every_mip_level():
    texels = atlas('cpu').texels
    for name in ('crown_round', 'disc', 'sign_stop', 'wheel'):
        index = TEXTURE[name]
        assert CUTOUT[index]
        ids = torch.full((4096,), index, dtype=torch.int32)
        place = torch.rand(2, 4096, generator=torch.Generator().manual_seed(0))
        shares = [
            (atlas('cpu').sample(ids, *place, torch.full((4096,), level)) < 0).float().mean()
            for level in (0.0, 2.0, 4.0)
        ]
        assert max(shares) - min(shares) < 0.08, name
    assert texels.dtype == torch.int32

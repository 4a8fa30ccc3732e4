import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tag_perception.config import ConfigError
from tag_perception.core.geometry import quaternion_from_euler
from tag_perception.core.labels import PALETTE, TRAIN_ID
from tag_perception.core.structures import Camera, Objects3D, Scene
from tag_perception.overlay import (
    DETECTION_COLORS,
    NEAR_M,
    OverlayStyle,
    clip_to_frustum,
    color_depth,
    color_semantic,
    draw_scene,
    panels,
)

CAMERA = Camera(2048, 1024, 2262.52, 2265.3017905988554, 1096.98, 513.137)
PLAIN = OverlayStyle(semantic_alpha=0.0, box_labels=False)


def boxes(*rows):
    """Each row: class, centre x y z in C, length width height, psi theta phi."""
    table = torch.tensor([row[1:] for row in rows], dtype=torch.float32).reshape(-1, 9)
    count = len(rows)
    return Objects3D(
        class_id=torch.tensor([row[0] for row in rows], dtype=torch.int64),
        score=torch.ones(count),
        center_cam=table[:, :3],
        size_lwh_m=table[:, 3:6],
        rotation_cam=quaternion_from_euler(table[:, 6], table[:, 7], table[:, 8]),
        box_2d_px=torch.zeros(count, 4),
        depth_sigma_m=torch.zeros(count),
    )


def drawn(objects, camera=CAMERA, style=PLAIN):
    black = np.zeros((camera.height, camera.width, 3), np.uint8)
    return draw_scene(black, Scene(None, None, objects), camera, style)


def lit_near(picture, u, v, radius=3):
    u, v = round(u), round(v)
    return picture[v - radius : v + radius + 1, u - radius : u + radius + 1].any()


# The golden box of the dataset's 3D annotation format, in C (psi, theta, phi in radians).
GOLDEN = (0, 32.14884, 5.57789, 0.57177, 4.3, 1.72, 1.53, 0.4797143, -0.0235138, -0.0372331)
GOLDEN_CORNERS_PX = (
    (693.20, 533.99), (816.17, 528.73), (717.05, 520.36), (605.66, 524.83),
    (689.84, 417.91), (813.13, 415.63), (714.17, 419.78), (602.53, 421.89),
)  # fmt: skip


def test_box_lines_join_the_golden_corners():
    picture = drawn(boxes(GOLDEN))
    for i, j in ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (6, 7), (0, 4), (1, 5), (2, 6), (3, 7)):
        for part in (0.02, 0.5, 0.98):
            at = np.add(
                np.multiply(GOLDEN_CORNERS_PX[i], 1 - part),
                np.multiply(GOLDEN_CORNERS_PX[j], part),
            )
            assert lit_near(picture, *at), f'edge {i}-{j} is missing at {part}'
    vs, us = np.nonzero(picture.any(-1))
    assert abs(us.max() - 816.17) < 4
    assert abs(vs.min() - 415.63) < 4
    assert abs(vs.max() - 533.99) < 4
    assert abs(us.min() - 602.53) < 4


def test_front_is_crossed_and_the_arrow_points_ahead():
    """A car seen from the side, nose to the left: cross and arrow only on that side."""
    picture = drawn(boxes((0, 20, 0, 0, 4, 1, 1.5, math.pi / 2, 0, 0)))
    _, us = np.nonzero(picture.any(-1))
    left, right = CAMERA.u0 - us.min(), us.max() - CAMERA.u0
    assert left == pytest.approx(2262.52 * 4 / 20, rel=0.03)  # the tip, twice half the length away
    assert right == pytest.approx(2262.52 * 2 / 19.5, rel=0.03)  # the near rear edge


def test_a_box_beside_the_camera_stays_on_its_side():
    """Without clipping, its corners behind the camera would be mirrored to the right half."""
    picture = drawn(boxes((0, 0.5, 2.0, -0.5, 4.5, 1.8, 1.5, 0, 0, 0)))
    _, us = np.nonzero(picture.any(-1))
    assert len(us) > 100
    assert us.max() < CAMERA.u0


def test_a_box_behind_the_camera_draws_nothing():
    assert not drawn(boxes((0, -10, 1, 0, 4.5, 1.8, 1.5, 0.3, 0, 0)), style=OverlayStyle()).any()


def test_a_box_with_nan_is_left_out_and_the_others_stay():
    good = (1, 20, 1, 0, 4.5, 1.8, 1.5, 0.3, 0, 0)
    broken = (0, float('nan'), 1, 0, 4.5, 1.8, 1.5, 0.3, 0, 0)
    assert np.array_equal(drawn(boxes(broken, good)), drawn(boxes(good)))


def test_near_boxes_cover_far_ones():
    """Two boxes with the same silhouette at the front: the near one's colour wins."""
    far, near = (3, 40, 0, 0, 4, 4, 4, 0, 0, 0), (4, 10, 0, 0, 1, 1, 1, 0, 0, 0)
    for order in ((far, near), (near, far)):
        picture = drawn(boxes(*order))
        colors = {tuple(c) for c in picture[513, :].reshape(-1, 3).tolist()}
        assert DETECTION_COLORS[4] in colors
    assert np.array_equal(drawn(boxes(far, near)), drawn(boxes(near, far)))


def test_labels_stay_inside_and_do_not_cover_each_other():
    style = OverlayStyle(semantic_alpha=0.0)
    twins = [(0, 20 + 0.1 * i, 0, 0, 4, 1.8, 1.5, 0, 0, 0) for i in range(12)]
    objects = boxes(*twins)
    plates = (drawn(objects, style=style) == 25).all(-1)
    assert not (drawn(objects) == 25).all(-1).any()  # no plate without labels
    rows = np.flatnonzero(plates.any(1))
    assert len(rows) > 2
    # four rows of text at most: the others give way instead of covering them
    runs = 1 + np.count_nonzero(np.diff(rows) > 1)
    assert runs <= 4
    corner = drawn(boxes((0, 8, 4.5, 3, 4, 1.8, 1.5, 0, 0, 0)), style=style)
    assert (corner == 25).all(-1).any(), 'the label of a cut-off box moves into the picture'


finite = st.floats(-1e6, 1e6, width=32)
point = st.tuples(finite, finite, finite) | st.tuples(*[st.floats(-20, 20, width=32)] * 3)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(point, point), min_size=1, max_size=8))
def test_clipped_segments_lie_in_the_frustum_and_none_is_lost(segments):
    starts, ends = np.array(segments, dtype=np.float64).transpose(1, 0, 2)
    heads, tails, visible = clip_to_frustum(starts, ends, CAMERA)
    fx, fy, u0, v0 = CAMERA.fx, CAMERA.fy, CAMERA.u0, CAMERA.v0

    def inside(points, slack):
        x, y, z = points.T
        with np.errstate(all='ignore'):
            u, v = fx * x / z + u0, fy * y / z + v0
        in_u = (u >= -slack) & (u <= CAMERA.width - 1 + slack)
        in_v = (v >= -slack) & (v <= CAMERA.height - 1 + slack)
        return (z >= NEAR_M - 1e-6 * max(slack, 0)) & in_u & in_v

    scale = np.abs(np.array(segments)).max(initial=1.0)
    slack = 0.01 + 1e-9 * fx * scale / NEAR_M  # rounding of huge coordinates, in pixels
    assert inside(heads[visible], slack).all()
    assert inside(tails[visible], slack).all()
    for part in np.linspace(0.01, 0.99, 25):
        seen = inside(starts + part * (ends - starts), -slack)
        assert visible[seen].all(), 'a visible segment was thrown away'


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),
            *[st.floats(width=32)] * 3,
            *[st.floats(0, 2.0**100, width=32)] * 3,
            *[st.floats(-4, 4, width=32)] * 3,
        ),
        max_size=4,
    )
)
@example([(0, 0.0, 1.0, 0.0, 5.429563652623565e16, 0.0, 0.0, 0.0, 0.0, 0.0)])
def test_no_box_can_break_the_drawing(rows):
    camera = CAMERA.resized(256, 128)
    picture = drawn(boxes(*rows), camera, OverlayStyle())
    assert picture.shape == (128, 256, 3)
    assert picture.dtype == np.uint8


def test_mask_blends_and_the_input_is_left_alone():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 128, 3), np.uint8)
    before = image.copy()
    mask = torch.full((64, 128), TRAIN_ID['car'], dtype=torch.uint8)
    scene = Scene(mask, None, None)
    assert np.array_equal(draw_scene(image, scene, None, OverlayStyle(semantic_alpha=0)), image)
    whole = draw_scene(image, scene, None, OverlayStyle(semantic_alpha=1))
    assert (whole == (0, 0, 142)).all()
    half = draw_scene(image, scene, None, OverlayStyle(semantic_alpha=0.5)).astype(int)
    assert np.abs(half - np.add(image, (0, 0, 142), dtype=int) / 2).max() <= 1
    assert np.array_equal(image, before)


def test_a_view_of_bgr_memory_is_drawn_like_its_copy():
    bgr = np.random.default_rng(0).integers(0, 256, (128, 256, 3), np.uint8)
    scene = Scene(None, None, boxes((0, 10, 0, 0, 4, 2, 2, 0, 0, 0)))
    camera = CAMERA.resized(256, 128)
    view = bgr[..., ::-1]
    assert np.array_equal(draw_scene(view, scene, camera), draw_scene(view.copy(), scene, camera))
    padded = np.zeros((128, 300, 3), np.uint8)[:, :256]
    assert draw_scene(padded, scene, camera).shape == (128, 256, 3)


def test_semantic_colors_are_the_datasets():
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(color_semantic(mask), PALETTE[mask])
    assert np.array_equal(color_semantic(mask.T), PALETTE[mask.T])  # not contiguous


def test_depth_colors_have_a_fixed_range():
    values = np.array([[0.5, 3, 5, 10, 20, 40, 80, 100, 1e9]], np.float32)
    row = color_depth(values, 3, 100)[0].astype(int)
    assert np.array_equal(row[0], row[1])  # nearer than the range
    assert np.array_equal(row[-1], row[-2])  # farther
    assert row[1][0] > 100 > row[1][2], 'near is red'
    assert len({tuple(c) for c in row[1:-1].tolist()}) == 7
    for index, value in enumerate(values[0]):  # a pixel's colour does not depend on the others
        assert np.array_equal(
            color_depth(np.array([[value]], np.float32), 3, 100)[0, 0], row[index]
        )


@pytest.mark.filterwarnings('error')
def test_depth_without_value_is_black_and_only_that():
    bad = np.array([[np.nan, np.inf, -np.inf, 0, -3]], np.float32)
    assert not color_depth(bad).any()
    good = np.geomspace(0.01, 1e4, 1000, dtype=np.float32)[None]
    assert color_depth(good).any(-1).all()


def test_panels_show_what_the_scene_has():
    image = np.full((100, 333, 3), 128, np.uint8)
    camera = Camera(333, 100, 300.0, 300.0, 166.0, 50.0)
    mask = torch.full((100, 333), TRAIN_ID['road'], dtype=torch.uint8)
    depth = torch.full((100, 333), 10.0)
    full = panels(image, Scene(mask, depth, boxes(GOLDEN)), camera, panel_width=501)
    height, width = full.shape[:2]
    assert width == 3 * 500
    assert height % 2 == 0
    assert np.array_equal(full[-1, 750], PALETTE[TRAIN_ID['road']])
    assert np.array_equal(full[-1, 1250], color_depth(np.full((1, 1), 10, np.float32))[0, 0])
    assert panels(image, Scene(None, depth, None), None, panel_width=501).shape[1] == 2 * 500
    narrow = panels(image, Scene(mask, depth, None), None, panel_width=64)
    assert narrow.shape[1] == 192
    gray = panels(image, Scene(None, None, boxes()), None, panel_width=200)
    assert cv2.absdiff(gray[-1, 50], image[0, 0]).max() == 0


@pytest.mark.parametrize('width', [1024, 640, 300])
def test_the_legend_shows_the_colour_of_every_class_in_the_mask(width):
    image = np.zeros((190, 1024, 3), np.uint8)
    mask = torch.arange(19, dtype=torch.uint8).repeat_interleave(10)[:, None].repeat(1, 1024)
    depth = torch.full((190, 1024), 10.0)
    full = panels(image, Scene(mask, depth, None), None, panel_width=width)
    caption = full[: full.shape[0] - round(190 * width / 1024 / 2) * 2]
    legend = caption[:, width : 2 * width].reshape(-1, 3)
    for name, train_id in TRAIN_ID.items():
        area = (legend == PALETTE[train_id]).all(1).sum()
        assert area >= 100, name
    assert width < 1024 or caption.shape[0] == 56  # two rows in the demo's film


@pytest.mark.parametrize(
    'wrong',
    [
        {'semantic_alpha': 1.5},
        {'semantic_alpha': float('nan')},
        {'depth_near_m': 0.0},
        {'depth_near_m': 50.0, 'depth_far_m': 10.0},
        {'depth_far_m': float('inf')},
    ],
)
def test_a_style_out_of_range_is_refused(wrong):
    with pytest.raises(ConfigError):
        OverlayStyle(**wrong)

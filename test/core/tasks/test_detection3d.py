"""Detection: encode → decode is exact, every loss by hand, what is ignored, learning."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import default_collate

from tag_perception.core import geometry
from tag_perception.core.labels import DETECTION_CLASSES
from tag_perception.core.structures import Camera, Objects3D, Sample, View
from tag_perception.core.tasks import detection3d as task

REAL_BOXES = Path('../shared/data/cityscapes3d/unknownframe_a_gtBbox3d.json')
CAMERA = Camera(2048, 1024, fx=2262.52, fy=2265.3, u0=1096.98, v0=513.137)
CAR, TRUCK = 0, 1


# --- building scenes ---------------------------------------------------------------------------


def make_objects(camera: Camera, boxes: list[dict]) -> Objects3D:
    """Boxes from u, v, depth and angles; 2D boxes are 40 × 24 px around (u, v) unless given."""
    intrinsics = torch.tensor([camera.fx, camera.fy, camera.u0, camera.v0], dtype=torch.float64)

    def column(name, default):
        values = [box.get(name, default) for box in boxes]
        return torch.tensor(values, dtype=torch.float64).reshape(len(boxes), *np.shape(default))

    pixel = column('uv', (100.0, 60.0))
    optical = geometry.unproject(pixel, column('depth', 20.0), intrinsics)
    box_2d = [
        box.get('box', (u - 20, v - 12, u + 20, v + 12))
        for box, (u, v) in zip(boxes, pixel.tolist(), strict=True)
    ]
    return Objects3D(
        class_id=torch.tensor([box.get('class_id', CAR) for box in boxes], dtype=torch.int64),
        score=torch.ones(len(boxes)),
        center_cam=geometry.optical_to_camera(optical),
        size_lwh_m=column('size', (4.0, 1.8, 1.5)),
        rotation_cam=geometry.quaternion_from_euler(*column('euler', (0.5, 0.02, -0.01)).T),
        box_2d_px=torch.tensor(box_2d, dtype=torch.float64).reshape(-1, 4),
        depth_sigma_m=torch.zeros(len(boxes)),
    )


def make_sample(camera: Camera, objects: Objects3D | None, ignore=None) -> Sample:
    return Sample(
        'made_up',
        np.zeros((camera.height, camera.width, 3), np.uint8),
        camera,
        detection3d=objects,
        ignore_px=None if ignore is None else np.array(ignore, np.float32).reshape(-1, 4),
    )


def small_sample(boxes: list[dict], ignore=None) -> Sample:
    """On a 128 × 256 image: 16 × 32 cells at stride 8."""
    camera = CAMERA.resized(256, 128)
    return make_sample(camera, make_objects(camera, boxes), ignore)


def encode(sample: Sample, stride: int = 8) -> dict[str, torch.Tensor]:
    """The target as a batch of one."""
    return default_collate([task.encode_target(sample, stride)])


def perfect_output(target: dict[str, torch.Tensor]) -> torch.Tensor:
    """What a network that fulfils the target says, written down sub-head by sub-head."""
    heatmap = target['heatmap']
    batch, _, height, width = heatmap.shape
    output = torch.zeros(batch, 43, height, width)
    output[:, :6] = torch.logit(torch.where(heatmap == task.IGNORE, 0, heatmap), eps=1e-4)
    for image in range(batch):
        for row in range(int(target['mask'][image].sum())):
            t = {k: v[image, row] for k, v in target.items() if k not in ('heatmap', 'mask')}
            logit, residual = torch.zeros(12), torch.full((12,), 99.0)
            logit[t['heading_bin']], residual[t['heading_bin']] = 5.0, t['heading_residual']
            column = [t['offset_2d'], t['size_2d'], -torch.log(t['depth'])[None]]
            column += [torch.zeros(1), t['offset_3d'], t['size_3d'], logit, residual]
            column += [t['pitch'], t['roll']]
            output[image, 6:, t['cell'] // width, t['cell'] % width] = torch.cat(column)
    return output


def resize_box(box: torch.Tensor, camera: Camera, to: Camera) -> torch.Tensor:
    scale = torch.tensor([to.width / camera.width, to.height / camera.height] * 2)
    return (box + 0.5) * scale - 0.5


def view_of(camera: Camera, input_size: tuple[int, int]) -> View:
    intrinsics = torch.tensor([[camera.fx, camera.fy, camera.u0, camera.v0]])
    return View(intrinsics, (camera.height, camera.width), input_size)


def rotation(quaternion: torch.Tensor) -> torch.Tensor:
    return geometry.rotation_from_quaternion(quaternion.double())


# --- encode → decode ---------------------------------------------------------------------------

cameras = st.builds(
    Camera,
    width=st.integers(200, 2100),
    height=st.integers(120, 1100),
    fx=st.floats(300, 2500),
    fy=st.floats(300, 2500),
    u0=st.floats(80, 1200),
    v0=st.floats(50, 600),
)
sides = st.integers(2, 12).map(lambda n: 32 * n)
fractions = st.floats(0, 1)
scenes = st.lists(
    st.fixed_dictionaries(
        {
            'class_id': st.integers(0, 5),
            'at': st.tuples(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5)),
            'depth': st.floats(-20, 120),
            'size': st.tuples(st.floats(0.3, 20), st.floats(0.3, 4), st.floats(0.3, 5)),
            'euler': st.tuples(
                st.floats(-math.pi, math.pi), st.floats(-1.4, 1.4), st.floats(-1.4, 1.4)
            ),
            'corner': st.tuples(fractions, fractions),
            'extent': st.tuples(fractions, fractions),
        }
    ),
    max_size=12,
)


def place(camera: Camera, boxes: list[dict]) -> Objects3D:
    """Fractions of the image → pixels; every 2D box lies inside and is at least 5 px wide."""
    limit = np.array([camera.width - 1, camera.height - 1])
    for box in boxes:
        box['uv'] = tuple(np.array(box['at']) * limit)
        low = np.array(box['corner']) * (limit - 5)
        high = low + 5 + np.array(box['extent']) * (limit - 5 - low)
        box['box'] = (*low, *high)
    return make_objects(camera, boxes)


@settings(max_examples=150, deadline=None)
@given(camera=cameras, size=st.tuples(sides, sides), stride=st.sampled_from([4, 8]), boxes=scenes)
def test_encode_decode_returns_the_boxes(camera, size, stride, boxes):
    """Any camera, input size and pose: each learnable box comes back from its own cell."""
    objects = place(camera, boxes)
    input_camera = camera.resized(size[1], size[0])
    in_input = Objects3D(
        **{**vars(objects), 'box_2d_px': resize_box(objects.box_2d_px, camera, input_camera)}
    )
    target = encode(make_sample(input_camera, in_input), stride)
    decoded = task.decode(perfect_output(target), view_of(camera, size))[0]
    decoded = decoded[decoded.score > 0.9]

    depth_m = objects.center_cam[:, 0]
    learnable = objects[(depth_m >= task.NEAR_M) & (depth_m <= task.DEPTH_CAP_M)]
    optical = geometry.camera_to_optical(learnable.center_cam)
    k = torch.tensor([input_camera.fx, input_camera.fy, input_camera.u0, input_camera.v0])
    cell = (geometry.project(optical, k) / stride).floor()
    cell = torch.minimum(cell.clamp_min(0), torch.tensor([size[1], size[0]]) // stride - 1)
    nearest = {}
    for index in learnable.center_cam[:, 0].argsort().tolist():
        nearest.setdefault(tuple(cell[index].tolist()), index)
    expected = learnable[list(nearest.values())]

    assert len(decoded) == len(expected)
    if len(expected) == 0:
        return
    distance = torch.cdist(expected.center_cam, decoded.center_cam.double())
    best = distance.argmin(1)
    assert len(set(best.tolist())) == len(expected)
    decoded = decoded[best]
    assert torch.equal(decoded.class_id, expected.class_id)
    # Pixels survive float32 to about 1e-4; 100 m away and with a short lens that is centimetres.
    tolerance = 1e-3 + 5e-4 * expected.center_cam.norm(dim=1) / 3
    assert (distance.gather(1, best[:, None]).squeeze(1) < tolerance).all()
    torch.testing.assert_close(decoded.size_lwh_m.double(), expected.size_lwh_m, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        rotation(decoded.rotation_cam), rotation(expected.rotation_cam), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(decoded.box_2d_px.double(), expected.box_2d_px, atol=2e-3, rtol=0)


@pytest.mark.skipif(not REAL_BOXES.exists(), reason='no real Cityscapes-3D annotation at hand')
def test_encode_decode_returns_real_boxes():
    """13 annotated vehicles, one of them with its centre outside the image."""
    document = json.loads(REAL_BOXES.read_text())
    sensor = document['sensor']
    camera = Camera(2048, 1024, sensor['fx'], sensor['fy'], sensor['u0'], sensor['v0'])
    transform = torch.tensor(sensor['sensor_T_ISO_8855'], dtype=torch.float64)
    labels = [box['label'] for box in document['objects']]
    boxes = [box['3d'] for box in document['objects']]
    in_vehicle = torch.tensor([box['center'] for box in boxes], dtype=torch.float64)
    q = torch.tensor([box['rotation'] for box in boxes], dtype=torch.float64)
    modal = torch.tensor([box['2d']['modal'] for box in document['objects']], dtype=torch.float64)
    objects = Objects3D(
        class_id=torch.tensor([DETECTION_CLASSES.index(label) for label in labels]),
        score=torch.ones(len(boxes)),
        center_cam=in_vehicle @ transform[:, :3].T + transform[:, 3],
        size_lwh_m=torch.tensor([box['dimensions'] for box in boxes]),
        rotation_cam=geometry.quaternion_from_rotation(
            transform[:, :3] @ geometry.rotation_from_quaternion(q)
        ),
        box_2d_px=torch.cat((modal[:, :2], modal[:, :2] + modal[:, 2:]), 1),
        depth_sigma_m=torch.zeros(len(boxes)),
    )
    target = encode(make_sample(camera, objects))
    assert target['mask'].sum() == len(objects) == 13
    assert target['offset_3d'].abs().max() > 50  # u = 2484.6: 54 cells right of the border
    decoded = task.decode(perfect_output(target), view_of(camera, (1024, 2048)))[0]
    decoded = decoded[decoded.score > 0.9]
    distance = torch.cdist(objects.center_cam, decoded.center_cam.double())
    assert distance.shape == (13, 13)
    assert (distance.amin(1) < 1e-3).all()
    best = decoded[distance.argmin(1)]
    assert torch.equal(best.class_id, objects.class_id)
    assert torch.allclose(rotation(best.rotation_cam), rotation(objects.rotation_cam), atol=1e-5)
    assert torch.allclose(best.box_2d_px.double(), objects.box_2d_px, atol=1e-3)


# --- targets -----------------------------------------------------------------------------------


def test_golden_car_by_hand():
    """The car of the golden vector; the numbers are worked out on paper."""
    car = {'uv': (704.42779, 472.84808), 'depth': 32.14884, 'size': (4.3, 1.72, 1.53)}
    car |= {'euler': (0.4797143, -0.0235138, -0.0372331), 'box': (602, 415, 816, 533)}
    target = task.encode_target(make_sample(CAMERA, make_objects(CAMERA, [car])), 8)
    assert target['heatmap'].shape == (6, 128, 256)
    row = {k: v[0] for k, v in target.items() if k not in ('heatmap', 'mask')}
    assert target['mask'].tolist() == [True] + [False] * (task.MAX_OBJECTS - 1)
    assert row['cell'] == 59 * 256 + 88
    expected = {
        'offset_3d': (704.42779 / 8 - 88, 472.84808 / 8 - 59),
        'offset_2d': (709 / 8 - 88, 474 / 8 - 59),
        'size_2d': (214 / 8, 118 / 8),
        'depth': 32.14884,
        'size_3d': (4.3, 1.72, 1.53),
        'heading_bin': 8,  # alpha = -1.8787186 = -4 · 30° + 0.2156765
        'heading_residual': 0.2156765,
        'pitch': (-0.0235138,),
        'roll': (-0.0372331,),
    }
    for name, value in expected.items():
        assert row[name].tolist() == pytest.approx(value, abs=1e-5), name
    assert target['heatmap'][CAR, 59, 88] == 1
    assert (target['heatmap'] == 1).sum() == 1


@pytest.mark.parametrize(
    ('size', 'radius'),
    [((10, 10), 2), ((1, 1), 0), ((100, 50), 18), ((50, 100), 18), ((0.1, 9), 0)],
)
def test_gaussian_radius_by_hand(size, radius):
    """(10, 10): the third case decides, (-28 + sqrt(784 + 336)) / 2 = 2.73."""
    assert task.gaussian_radius(*size) == radius


def test_gaussian_falls_off_and_is_cut_at_the_border():
    box = (4, 4, 84, 84)  # 10 × 10 cells: radius 2, sigma 5 / 6
    heat = task.encode_target(small_sample([{'uv': (44, 4), 'box': box}]), 8)['heatmap'][CAR]
    one, two = math.exp(-0.72), math.exp(-2.88)
    assert heat[0, 3:8].tolist() == pytest.approx([two, one, 1, one, two])
    assert heat[1, 3:8].tolist() == pytest.approx([x * one for x in (two, one, 1, one, two)])
    assert heat[3].sum() == 0
    assert heat[0, 2] == heat[0, 8] == 0


def test_centre_outside_the_image_goes_to_the_border_cell():
    target = task.encode_target(small_sample([{'uv': (300, -9), 'box': (200, 20, 255, 60)}]), 8)
    assert target['cell'][0] == 31
    assert target['offset_3d'][0].tolist() == pytest.approx([300 / 8 - 31, -9 / 8], abs=1e-5)
    assert target['heatmap'][CAR, 0, 31] == 1


@pytest.mark.parametrize(
    'lost',
    [
        {'depth': 100.5},
        {'depth': 0.9},
        {'depth': -20.0},
        {'depth': 0.0},
        {'uv': (40, 40), 'depth': 30.0},  # the same cell as a nearer object
    ],
)
def test_what_is_not_learned_is_no_background_either(lost):
    """Painted in the channel of its class alone, except where something else has its peak."""
    kept = {'uv': (41, 42), 'depth': 10.0, 'class_id': TRUCK}
    lost = {'box': (32, 32, 90, 50)} | lost
    target = task.encode_target(small_sample([lost, kept]), 8)
    assert target['mask'].sum() == 1
    assert target['depth'][0] == pytest.approx(10.0)
    painted = target['heatmap'] == task.IGNORE
    assert painted[CAR, 4:7, 4:12].all()
    assert painted.sum() == 3 * 8
    assert (target['heatmap'] == 1).nonzero().tolist() == [[TRUCK, 5, 5]]


@pytest.mark.parametrize('box', [(30, 30, 30, 50), (30, 30, 50, 20), (0, 0, 0, 0)])
def test_object_without_visible_part_is_not_learned(box):
    target = task.encode_target(small_sample([{'box': box}]), 8)
    assert not target['mask'].any()
    assert (target['heatmap'] < 1).all()


def test_ignore_regions_hide_no_peak():
    """All classes are painted over what the region touches; peaks are drawn afterwards."""
    regions = [(16, 16, 39, 24), (-90, -90, -1, -1), (250, 120, 900, 900), (500, 0, 600, 50)]
    target = task.encode_target(small_sample([{'uv': (20, 20)}], regions), 8)
    heat = target['heatmap']
    assert heat[CAR, 2, 2] == 1
    inside = torch.zeros(16, 32, dtype=torch.bool)
    inside[2:4, 2:5] = True
    inside[15, 31] = True
    assert torch.equal(heat[TRUCK] == task.IGNORE, inside)
    assert (heat[TRUCK] == 0).sum() == 16 * 32 - 7


def test_painted_cells_cost_nothing():
    logit = torch.full((1, 43, 16, 32), 3.0, requires_grad=True)  # "objects everywhere"
    ignored = encode(small_sample([], [(0, 0, 256, 128)]))
    task.loss(logit, ignored)['heatmap'].backward()
    assert logit.grad.abs().max() < 1e-15


def test_more_objects_than_rows_are_reported(caplog):
    boxes = [
        {'uv': (8 * (i % 32) + 4, 8 * (i // 32) + 4), 'depth': 90.0 - i / 2} for i in range(120)
    ]
    target = task.encode_target(small_sample(boxes), 8)
    assert target['mask'].all()
    assert target['depth'].max() == pytest.approx(90 - 20 / 2)  # the 20 farthest are left out
    assert 'made_up: the nearest 100 of 120' in caplog.text


def test_targets_have_fixed_shapes():
    full = task.encode_target(small_sample([{}, {'uv': (50, 50)}]), 8)
    empty = task.encode_target(small_sample([]), 8)
    assert {k: (v.shape, v.dtype) for k, v in full.items()} == {
        k: (v.shape, v.dtype) for k, v in empty.items()
    }
    with pytest.raises(ValueError, match='made_up has no boxes'):
        task.encode_target(make_sample(CAMERA, None), 8)


# --- losses ------------------------------------------------------------------------------------


def loss_of(boxes: list[dict], change) -> dict[str, float]:
    """Terms for a perfect output after `change(column, cell_row, cell_column)` spoiled it."""
    target = encode(small_sample(boxes))
    output = perfect_output(target)
    for cell in target['cell'][target['mask']].tolist():
        change(output[0, :, cell // 32, cell % 32])
    return {name: term.item() for name, term in task.loss(output, target).items()}


def channels(name: str) -> slice:
    names = list(task.SUBHEADS)
    start = sum(task.SUBHEADS[n] for n in names[: names.index(name)])
    return slice(start, start + task.SUBHEADS[name])


def test_perfect_output_has_no_regression_loss():
    terms = loss_of([{}, {'uv': (40, 40)}], lambda column: None)
    assert terms.keys() == task.SUBHEADS.keys()
    cross_entropy = math.log(1 + 11 * math.exp(-5))
    assert terms.pop('heading') == pytest.approx(cross_entropy, abs=1e-5)
    del terms['heatmap']  # the shoulders of a Gaussian always cost something
    assert all(value == pytest.approx(0, abs=1e-5) for value in terms.values())


@pytest.mark.parametrize('name', ['offset_2d', 'size_2d', 'offset_3d'])
def test_l1_by_hand(name):
    def change(column):
        column[channels(name)] += torch.tensor([0.5, -2.0])

    assert loss_of([{}], change)[name] == pytest.approx((0.5 + 2.0) / 2, abs=1e-5)


def test_depth_by_hand():
    """20 m where 22 m is true, sigma 2 m: sqrt(2) / 2 · 2 + log 2."""

    def change(column):
        column[channels('depth')] = torch.tensor([-math.log(20), math.log(2)])

    expected = math.sqrt(2) + math.log(2)
    assert loss_of([{'depth': 22.0}], change)['depth'] == pytest.approx(expected, abs=1e-4)


def test_best_sigma_is_the_standard_deviation():
    """What decode calls depth_sigma_m: exp(s) that minimises the loss over Laplacian errors."""
    rng = np.random.default_rng(0)
    truth = torch.from_numpy(30 + rng.laplace(scale=3, size=20000))
    sigmas = torch.linspace(2, 8, 241, dtype=torch.float64)
    losses = [
        task._laplacian_loss(torch.tensor([[-math.log(30), s]]).expand(len(truth), 2), truth)
        for s in sigmas.log().tolist()
    ]
    best = sigmas[torch.stack(losses).argmin()]
    assert best.item() == pytest.approx(truth.std().item(), rel=0.02)


def test_size_by_hand():
    """The value is plain L1; the gradient of each element is divided by the true size."""
    true = torch.tensor([[4.0, 2.0, 1.0]])
    predicted = torch.tensor([[5.0, 1.5, 1.0]], requires_grad=True)
    value = task._dimension_aware_loss(predicted, true)
    value.backward()
    assert value.item() == pytest.approx((1 + 0.5) / 3)
    weight = 1.5 / (1 / 4 + 0.5 / 2)
    expected = [weight / 4 / 3, -weight / 2 / 3, 0.0]
    assert predicted.grad[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_heading_by_hand():
    """Equal logits cost log 12; only the residual of the true bin counts."""

    def change(column):
        heading = column[channels('heading')]
        true_bin = heading[:12].argmax()
        heading[:12] = 0.7
        heading[12 + true_bin] += 0.1

    assert loss_of([{}], change)['heading'] == pytest.approx(math.log(12) + 0.1, abs=1e-5)


@pytest.mark.parametrize('name', ['pitch', 'roll'])
@pytest.mark.parametrize(
    ('error', 'expected'), [(0.05, 4.5 * math.sin(0.05) ** 2), (0.3, math.sin(0.3) - 1 / 18)]
)
def test_pitch_and_roll_by_hand(name, error, expected):
    """Quadratic below 1/9, linear above, in the sine of the error."""

    def change(column):
        column[channels(name)] -= error

    level = [{'euler': (0.5, 0.0, 0.0)}]
    assert loss_of(level, change)[name] == pytest.approx(expected, abs=1e-6)


def test_focal_by_hand():
    """Two peaks, one cell at half heat, one of background; divided by the number of peaks."""
    target = torch.tensor([1.0, 1.0, 0.5, 0.0])
    p = torch.tensor([0.7, 0.2, 0.4, 0.1])
    expected = (0.3**2 * -math.log(0.7) + 0.8**2 * -math.log(0.2)
                + 0.5**4 * 0.4**2 * -math.log(0.6) + 0.1**2 * -math.log(0.9)) / 2  # fmt: skip
    assert task._focal_loss(torch.logit(p), target).item() == pytest.approx(expected, rel=1e-5)


def test_focal_without_a_peak_is_not_divided():
    value = task._focal_loss(torch.logit(torch.tensor([0.1, 0.2])), torch.zeros(2))
    expected = 0.1**2 * -math.log(0.9) + 0.2**2 * -math.log(0.8)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_means_are_over_the_objects_of_the_batch():
    """One image with one object, one with two, one with none: each object counts a third."""
    boxes = [{'uv': (40, 40)}], [{'uv': (80, 80)}, {'uv': (120, 40)}], []
    target = default_collate([task.encode_target(small_sample(b), 8) for b in boxes])
    output = perfect_output(target)
    cell = target['cell'][1, 0]
    output[1, channels('offset_3d'), cell // 32, cell % 32] += 3.0
    assert task.loss(output, target)['offset_3d'].item() == pytest.approx(1.0, abs=1e-5)


def test_empty_batch_has_finite_losses_and_gradients():
    target = default_collate([task.encode_target(small_sample([]), 8)] * 2)
    output = torch.randn(2, 43, 16, 32, requires_grad=True)
    terms = task.loss(output, target)
    assert all(terms[name] == 0 for name in terms if name != 'heatmap')
    sum(terms.values()).backward()
    assert output.grad.isfinite().all()
    assert (output.grad[:, 6:] == 0).all()
    assert (output.grad[:, :6] > 0).all()


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_wild_outputs_have_finite_losses_and_gradients(dtype):
    target = encode(small_sample([{}, {'uv': (40, 40)}]))
    output = (10 * torch.randn(1, 43, 16, 32)).to(dtype).requires_grad_()
    total = sum(task.loss(output, target).values())
    total.backward()
    assert total.dtype == torch.float32
    assert total.isfinite()
    assert output.grad.isfinite().all()


def test_gradients_are_those_of_the_values():
    """Finite differences; the size loss is left out, whose gradient is meant to differ."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    truth = torch.rand(5, generator=generator, dtype=torch.float64)
    bins = torch.tensor([0, 3, 11, 5, 5])
    check = torch.autograd.gradcheck
    assert check(task._focal_loss, (random(5), torch.where(truth > 0.5, 1.0, truth)))
    assert check(task._laplacian_loss, (random(5, 2), 20 * truth))
    assert check(task._heading_loss, (random(5, 24), bins, truth))
    assert check(task._sine_loss, (random(5), truth))


# --- head and decoding -------------------------------------------------------------------------


def test_head_is_nine_separate_subheads():
    """The 3×3 convolutions are computed as one; each output depends on its own share alone."""
    head = task.Head(16, 8)
    features = torch.randn(2, 16, 4, 8)
    output = head(features)
    assert output.shape == (2, 43, 4, 8)
    for index, name in enumerate(task.SUBHEADS):
        own = slice(8 * index, 8 * index + 8)
        hidden = torch.conv2d(
            features, head.hidden.weight[own], head.hidden.bias[own], padding=1
        ).relu()
        expected = head.outputs[name](hidden)
        torch.testing.assert_close(output[:, channels(name)], expected, atol=1e-5, rtol=1e-5)


def test_untrained_head_answers_its_priors():
    """A faint car 20 m away, everywhere: random weights decode to something drawable."""
    output = task.Head(16, 8)(torch.randn(1, 16, 16, 32))
    objects = task.decode(output, view_of(CAMERA, (128, 256)))
    assert objects.score.shape == (1, task.MAX_DETECTIONS)
    assert (objects.score < 0.3).all()
    assert (objects.center_cam[..., 0] - 20).abs().max() < 5


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_decodes_in_float32(dtype):
    """The same rounded numbers give the same boxes, whatever type they come in."""
    output = torch.randn(2, 43, 16, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    view = view_of(CAMERA, (128, 256))
    low, full = task.decode(output, view), task.decode(output.float(), view)
    for name, values in vars(low).items():
        assert torch.equal(values, getattr(full, name)), name


@settings(max_examples=30, deadline=None)
@given(
    scale=st.sampled_from([0.0, 1.0, 30.0, 3e4]), seed=st.integers(0, 99), batch=st.integers(1, 3)
)
def test_any_output_decodes_to_valid_boxes(scale, seed, batch):
    output = scale * torch.randn(batch, 43, 8, 16, generator=torch.Generator().manual_seed(seed))
    objects = task.decode(output.clamp(-6e4, 6e4).half(), view_of(CAMERA, (64, 128)))
    for name, values in vars(objects).items():
        assert values.isfinite().all(), name
        assert values.shape[:2] == (batch, 50), name
    assert ((objects.score >= 0) & (objects.score <= 1)).all()
    assert (objects.score.diff(dim=1) <= 0).all()
    assert ((objects.class_id >= 0) & (objects.class_id < 6)).all()
    depth_m = objects.center_cam[..., 0]
    assert ((depth_m >= task.NEAR_M) & (depth_m <= task.DEPTH_CAP_M + 1e-3)).all()
    assert (objects.size_lwh_m > 0).all()
    assert torch.allclose(objects.rotation_cam.norm(dim=-1), torch.ones(1), atol=1e-5)
    x1, y1, x2, y2 = objects.box_2d_px.unbind(-1)
    assert ((x1 >= 0) & (y1 >= 0) & (x2 <= 2047) & (y2 <= 1023)).all()
    assert ((x2 - x1 > 0.9) & (y2 - y1 > 0.9)).all()


def test_score_and_sigma():
    """Heat times exp(-s); sigma along the ray is longer than along the optical axis."""
    output = torch.full((1, 43, 16, 32), -20.0)
    output[0, CAR, 8, 30] = torch.logit(torch.tensor(0.8))
    output[0, 6:, 8, 30] = 0.0
    output[0, channels('depth'), 8, 30] = torch.tensor([-math.log(20), math.log(2)])
    best = task.decode(output, view_of(CAMERA, (128, 256)))[0][0]
    assert best.score.item() == pytest.approx(0.8 / 2, rel=1e-5)
    u, v = (240 + 0.5) * 8 - 0.5, (64 + 0.5) * 8 - 0.5
    ray = math.hypot(1, (u - CAMERA.u0) / CAMERA.fx, (v - CAMERA.v0) / CAMERA.fy)
    assert best.depth_sigma_m.item() == pytest.approx(2 * ray, rel=1e-5)


def test_a_certain_depth_does_not_raise_the_score():
    """Otherwise the faint heat of all other classes in a near car's cell would pass as boxes."""
    output = torch.full((1, 43, 16, 32), -20.0)
    output[0, CAR : TRUCK + 1, 8, 30] = torch.logit(torch.tensor([0.8, 0.05]))
    output[0, channels('depth'), 8, 30] = torch.tensor([-math.log(20), math.log(0.05)])
    scores = task.decode(output, view_of(CAMERA, (128, 256))).score[0]
    assert scores[:2].tolist() == pytest.approx([0.8, 0.05], rel=1e-4)


def test_shoulders_of_a_peak_are_no_detections():
    output = torch.full((1, 43, 16, 32), -12.0)
    output[0, CAR, 7:10, 9:12] = 1.0
    output[0, CAR, 8, 10] = 2.0
    output[0, channels('depth')] = 0.0
    scores = task.decode(output, view_of(CAMERA, (128, 256))).score[0]
    assert (scores > 0.01).sum() == 1


def test_decoding_reads_nothing_back_from_the_device():
    """On the meta device a value that steers the host or decides a shape raises."""
    output = torch.zeros(2, 43, 16, 32, device='meta')
    view = View(torch.zeros(2, 4, device='meta'), (1024, 2048), (128, 256))
    objects = task.decode(output, view)
    assert objects.box_2d_px.shape == (2, 50, 4)


def test_head_overfits_one_sample():
    torch.manual_seed(0)
    boxes = [
        {'uv': (60, 60), 'depth': 12.0, 'euler': (1.0, 0.05, -0.04)},
        {'uv': (150, 70), 'depth': 45.0, 'class_id': TRUCK, 'size': (7.0, 2.5, 3.0)},
        {'uv': (220, 90), 'depth': 6.0, 'euler': (-2.5, 0.0, 0.1)},
    ]
    sample = small_sample(boxes)
    target = encode(sample)
    head = task.Head(32, 16)
    features = torch.randn(1, 32, 16, 32)
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, 100)
    for _ in range(100):
        optimizer.zero_grad()
        sum(task.loss(head(features), target).values()).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        decoded = task.decode(head(features), view_of(sample.camera, (128, 256)))[0]
    found = decoded[:3]
    objects = sample.detection3d
    assert (found.score > 0.1).all()
    assert (decoded.score[3:] < 0.1).all()
    match = torch.cdist(objects.center_cam, found.center_cam.double()).argmin(1)
    found = found[match]
    assert torch.equal(found.class_id, objects.class_id)
    assert torch.allclose(found.center_cam.double(), objects.center_cam, rtol=0.05, atol=0.3)
    assert torch.allclose(found.size_lwh_m.double(), objects.size_lwh_m, atol=0.3)
    assert torch.allclose(rotation(found.rotation_cam), rotation(objects.rotation_cam), atol=0.1)
    assert (found.box_2d_px - objects.box_2d_px).abs().max() < 4

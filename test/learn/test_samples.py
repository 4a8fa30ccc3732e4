import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from tag_perception.core import geometry
from tag_perception.core.structures import Camera, Objects3D, Sample
from tag_perception.core.tasks import detection3d
from tag_perception.learn.configuration import DataConfig
from tag_perception.learn.samples import Draws, Shuffled, TrainingItems, jitter, mirror


def first(draws: Draws, count: int) -> list[int]:
    return [draw for draw, _ in zip(draws, range(count), strict=False)]


@pytest.mark.parametrize('world', [1, 2, 4])
def test_ranks_share_the_draws_of_a_step(world):
    ranks = [first(Draws(40, rank, world), 8 // world) for rank in range(world)]
    assert sorted(itertools.chain(*ranks)) == list(range(40, 48))


def test_a_bounded_sequence_holds_everything_once():
    ranks = [Draws(0, rank, 3, stop=10) for rank in range(3)]
    assert sorted(itertools.chain(*ranks)) == [*range(10)]


def test_every_epoch_is_another_permutation():
    order = Shuffled(50, seed=1)
    epochs = [[order(draw) for draw in range(e * 50, e * 50 + 50)] for e in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [[*range(50)]] * 2
    assert epochs[0] != epochs[1] != sorted(epochs[1])
    assert [Shuffled(50, seed=2)(draw) for draw in range(50)] != epochs[0]


@pytest.fixture
def sample() -> Sample:
    rng = np.random.default_rng(0)
    camera = Camera(128, 64, fx=140.0, fy=141.0, u0=70.3, v0=30.0)
    center = torch.tensor([[15.0, 3.0, 0.5], [22.0, -6.0, -0.4]])
    euler = torch.tensor([[0.4, 0.03, -0.02], [2.5, -0.05, 0.04]])
    boxes = Objects3D(
        class_id=torch.tensor([0, 3]),
        score=torch.ones(2),
        center_cam=center,
        size_lwh_m=torch.tensor([[4.2, 1.8, 1.5], [12.0, 2.5, 3.2]]),
        rotation_cam=geometry.quaternion_from_euler(*euler.unbind(-1)),
        box_2d_px=torch.tensor([[20.0, 10.0, 60.0, 40.0], [90.0, 20.0, 120.0, 50.0]]),
        depth_sigma_m=torch.zeros(2),
    )
    return Sample(
        name='a',
        image=rng.integers(0, 256, (64, 128, 3), np.uint8),
        camera=camera,
        semantic=rng.integers(0, 19, (64, 128), np.uint8),
        depth=rng.uniform(1, 90, (64, 128)).astype(np.float32),
        detection3d=boxes,
        ignore_px=np.array([[3.0, 4.0, 9.0, 8.0]], np.float32),
    )


def corners_px(sample: Sample) -> torch.Tensor:
    boxes, camera = sample.detection3d, sample.camera
    rotation = geometry.rotation_from_quaternion(boxes.rotation_cam)
    corners = geometry.box_corners(boxes.center_cam, boxes.size_lwh_m, rotation)
    intrinsics = torch.tensor([camera.fx, camera.fy, camera.u0, camera.v0])
    return geometry.project(geometry.camera_to_optical(corners), intrinsics)


def test_a_mirrored_sample_is_what_a_mirror_shows(sample):
    mirrored = mirror(sample)
    np.testing.assert_array_equal(mirrored.image, sample.image[:, ::-1])
    np.testing.assert_array_equal(mirrored.depth, sample.depth[:, ::-1])
    before, after = corners_px(sample), corners_px(mirrored)
    left_and_right_swapped = after[:, [1, 0, 3, 2, 5, 4, 7, 6]]
    torch.testing.assert_close(127 - left_and_right_swapped[..., 0], before[..., 0])
    torch.testing.assert_close(left_and_right_swapped[..., 1], before[..., 1])
    assert mirrored.detection3d.box_2d_px[0].tolist() == [67.0, 10.0, 107.0, 40.0]
    assert mirrored.ignore_px.tolist() == [[118.0, 4.0, 124.0, 8.0]]


def test_mirroring_twice_changes_nothing(sample):
    twice = mirror(mirror(sample))
    assert twice.camera.u0 == pytest.approx(sample.camera.u0)
    for name in ('center_cam', 'rotation_cam', 'box_2d_px'):
        torch.testing.assert_close(
            getattr(twice.detection3d, name), getattr(sample.detection3d, name)
        )


def test_the_observation_angle_becomes_pi_minus_itself(sample):
    def alpha(s: Sample) -> torch.Tensor:
        rotation = geometry.rotation_from_quaternion(s.detection3d.rotation_cam)
        psi = geometry.euler_from_rotation(rotation)[0]
        x, y, _ = s.detection3d.center_cam.unbind(-1)
        return geometry.alpha_from_psi(
            psi, s.camera.u0 - s.camera.fx * y / x, s.camera.fx, s.camera.u0
        )

    expected = geometry.wrap_angle(torch.pi - alpha(sample))
    torch.testing.assert_close(alpha(mirror(sample)), expected, atol=1e-5, rtol=0)


class Counting:
    def __init__(self, sample: Sample) -> None:
        self.sample, self.loaded = sample, []

    def __getitem__(self, index: int) -> Sample:
        self.loaded.append(index)
        return replace(self.sample, name=str(index))


def test_views_of_an_image_load_it_once_and_alternate(sample, tiny):
    source = Counting(sample)
    config = replace(tiny(), data=DataConfig(views=2, flip=True, workers=0))
    items = TrainingItems(source, lambda index: index + 100, config, stride=8)
    shown = [items[draw] for draw in range(6)]
    assert source.loaded == [100, 101, 102]
    assert [item['name'] for item in shown] == ['100', '100', '101', '101', '102', '102']
    for one, other in zip(shown[::2], shown[1::2], strict=True):
        torch.testing.assert_close(one['image'], other['image'].flip(1))
    torch.testing.assert_close(items[3]['image'], shown[3]['image'])
    assert set(shown[0]['targets']) == {'detection3d', 'semantic', 'depth'}
    assert detection3d.encode_target(sample, 8).keys() == shown[0]['targets']['detection3d'].keys()


def test_jitter_is_reproducible_and_keeps_the_mean_near(sample):
    one, same, other = (jitter(sample.image, np.random.default_rng(s), 0.2) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert one.dtype == np.uint8
    assert abs(one.mean() / sample.image.mean() - 1) < 0.5

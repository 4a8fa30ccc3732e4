"""Each task can learn one picture by heart: loss, targets and decoding agree."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tag_perception.core import geometry
from tag_perception.core.inference import infer
from tag_perception.core.network import build_network
from tag_perception.core.structures import Sample, Scene
from tag_perception.data.cityscapes3d import Cityscapes3D
from tag_perception.data.resizing import resize_sample
from tag_perception.learn.configuration import (
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    read_experiment,
)
from tag_perception.learn.module import SceneModule
from tag_perception.learn.samples import encode

from .conftest import TINY, TRAIN

SIZE = (64, 128)


def learn_by_heart(config: TrainConfig, tree, seed: int = 0) -> tuple[Sample, Scene, list[float]]:
    """One sample, what a network that has seen nothing else then says of it, and the losses."""
    torch.manual_seed(seed)
    sample = tilted(resize_sample(Cityscapes3D(tree, 'train')[0], SIZE))
    config = replace(
        config, optimizer=OptimizerConfig('adam', lr=4e-3), schedule=ScheduleConfig('cosine')
    )
    network = build_network(config.network)
    module = SceneModule(config, network, config.steps)
    made = module.configure_optimizers()
    optimizer, schedule = made['optimizer'], made['lr_scheduler']['scheduler']
    item = encode(sample, config.network.tasks, network.stride)
    # Twice, since batch norm sees a single value per channel at stride 64 otherwise.
    batch = torch.utils.data.default_collate([item, item])
    losses = []
    for _ in range(config.steps):
        optimizer.zero_grad()
        loss = module.total(module.terms(network, batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    image = torch.from_numpy(sample.image)[None]
    return sample, infer(network.eval(), image, [sample.camera])[0], losses


def tilted(sample: Sample) -> Sample:
    """With vehicles on slopes: on a level road, doing nothing learns pitch and roll."""
    psi, _, _ = euler(sample.detection3d)
    sign = (-1.0) ** torch.arange(len(psi))
    rotation = geometry.quaternion_from_euler(psi, 0.3 * sign, -0.2 * sign)
    return replace(sample, detection3d=replace(sample.detection3d, rotation_cam=rotation.float()))


def accuracy(sample: Sample, scene: Scene) -> float:
    valid = sample.semantic != 255
    return (scene.semantic.numpy() == sample.semantic)[valid].mean()


def relative_rmse(sample: Sample, scene: Scene) -> float:
    """Of the depth, in standard deviations of the labels: 1 is the mean answered everywhere."""
    found = scene.depth.numpy()
    valid = (sample.depth < 80) & np.isfinite(found)  # the sky has none
    error = (found - sample.depth)[valid]
    return np.sqrt((error**2).mean()) / sample.depth[valid].std()


def matches(sample: Sample, scene: Scene):
    """(labelled, found) boxes of one class whose centres are less than a metre apart."""
    truth, found = sample.detection3d, scene.detection3d
    found = found[found.score > 0.3]
    distance = torch.cdist(truth.center_cam.float(), found.center_cam)
    other_class = truth.class_id[:, None] != found.class_id
    nearest, which = distance.masked_fill(other_class, torch.inf).min(1)
    near = nearest < 1.0
    return truth[near], found[which[near]]


def euler(objects) -> torch.Tensor:
    """psi, pitch and roll, (3, N)."""
    rotation = geometry.rotation_from_quaternion(objects.rotation_cam.double())
    return torch.stack(geometry.euler_from_rotation(rotation))


@pytest.fixture(scope='module')
def learned(tree):
    """All tasks at once, a third of the time of one after the other."""
    options = ('network.width=16', 'steps=100', f'data.root={tree}')
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = learn_by_heart(read_experiment(TRAIN / 'tag.yaml', (*TINY, *options)), tree)
    torch.set_num_threads(threads)
    return found


def test_masks_are_learned_by_heart(learned):
    sample, scene, losses = learned
    assert losses[-1] < 0.15 * losses[0]
    assert accuracy(sample, scene) > 0.88


def test_depth_is_learned_by_heart(learned):
    sample, scene, _ = learned
    assert relative_rmse(sample, scene) < 0.65


def test_boxes_are_learned_by_heart(learned):
    sample, scene, _ = learned
    truth, found = matches(sample, scene)
    assert len(sample.detection3d) == 6
    assert len(truth) >= 5
    assert (scene.detection3d.score > 0.3).sum() <= 8
    aside = (found.center_cam - truth.center_cam)[:, 1:]
    assert aside.abs().mean() < 0.15  # half a cell 15 m away is 0.4 m
    assert (found.size_lwh_m - truth.size_lwh_m).abs().mean() < 0.8
    assert (found.box_2d_px - truth.box_2d_px).abs().mean() < 5
    psi, pitch, roll = geometry.wrap_angle(euler(found) - euler(truth)).abs().mean(1).tolist()
    assert psi < 0.06  # half a bin is 0.26
    assert pitch < 0.1
    assert roll < 0.1


@pytest.mark.slow
def test_semantic_learns_one_sample(tiny, tree):
    config = tiny('network.tasks=[semantic]', 'network.width=16', 'steps=150')
    sample, scene, losses = learn_by_heart(config, tree)
    assert losses[-1] < 0.1 * losses[0]
    assert accuracy(sample, scene) > 0.93


@pytest.mark.slow
def test_depth_learns_one_sample(tiny, tree):
    config = tiny('network.tasks=[depth]', 'network.width=16', 'steps=150')
    sample, scene, losses = learn_by_heart(config, tree)
    assert losses[-1] < 0.2 * losses[0]
    assert relative_rmse(sample, scene) < 0.5


@pytest.mark.slow
def test_detection_learns_one_sample(tiny, tree):
    config = tiny('network.tasks=[detection3d]', 'network.width=16', 'steps=300')
    sample, scene, losses = learn_by_heart(config, tree)
    assert losses[-1] < 0.2 * losses[0]
    truth, found = matches(sample, scene)
    assert len(truth) > 0.7 * len(sample.detection3d) > 2
    assert (found.size_lwh_m - truth.size_lwh_m).abs().mean() < 0.2

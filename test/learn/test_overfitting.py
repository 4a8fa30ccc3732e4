"""Each task can learn one picture by heart: loss, targets and decoding agree."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tag_perception.core.inference import infer
from tag_perception.core.network import build_network
from tag_perception.data.cityscapes3d import Cityscapes3D
from tag_perception.data.resizing import resize_sample
from tag_perception.learn.configuration import OptimizerConfig, ScheduleConfig
from tag_perception.learn.module import SceneModule
from tag_perception.learn.samples import encode

SIZE = (64, 128)


@pytest.fixture
def learn_by_heart(tiny, tree):
    """learn_by_heart(task, steps) → (sample, what the network then says of it, losses)."""

    def learn(task: str, steps: int):
        torch.manual_seed(0)
        sample = resize_sample(Cityscapes3D(tree, 'train')[0], SIZE)
        config = tiny(f'network.tasks=[{task}]', 'network.width=16', f'steps={steps}')
        config = replace(
            config,
            optimizer=OptimizerConfig('adam', lr=4e-3),
            schedule=ScheduleConfig('cosine'),
        )
        network = build_network(config.network)
        module = SceneModule(config, network, steps)
        made = module.configure_optimizers()
        optimizer, schedule = made['optimizer'], made['lr_scheduler']['scheduler']
        item = encode(sample, config.network.tasks, network.stride)
        # Twice, since batch norm sees a single value per channel at stride 64 otherwise.
        batch = torch.utils.data.default_collate([item, item])
        losses = []
        for _ in range(steps):
            optimizer.zero_grad()
            loss = module.total(module.terms(network, batch))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 10)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        image = torch.from_numpy(sample.image)[None]
        return sample, infer(network.eval(), image, [sample.camera])[0], losses

    return learn


@pytest.mark.slow
def test_semantic_learns_one_sample(learn_by_heart):
    sample, scene, losses = learn_by_heart('semantic', 150)
    valid = sample.semantic != 255
    accuracy = (scene.semantic.numpy() == sample.semantic)[valid].mean()
    assert losses[-1] < 0.1 * losses[0]
    assert accuracy > 0.93


@pytest.mark.slow
def test_depth_learns_one_sample(learn_by_heart):
    sample, scene, losses = learn_by_heart('depth', 150)
    valid = sample.depth < 80
    error = (scene.depth.numpy() - sample.depth)[valid]
    spread = sample.depth[valid].std()
    assert losses[-1] < 0.2 * losses[0]
    assert np.sqrt((error**2).mean()) < 0.5 * spread


@pytest.mark.slow
def test_detection_learns_one_sample(learn_by_heart):
    sample, scene, losses = learn_by_heart('detection3d', 300)
    truth, found = sample.detection3d, scene.detection3d
    assert losses[-1] < 0.2 * losses[0]
    found = found[found.score > 0.3]
    assert len(truth) >= 4
    distance = torch.cdist(truth.center_cam.float(), found.center_cam)
    same = truth.class_id[:, None] == found.class_id
    nearest, which = distance.masked_fill(~same, torch.inf).min(1)
    assert (nearest < 1.0).float().mean() > 0.7
    near = nearest < 1.0
    error = found.size_lwh_m[which[near]] - truth.size_lwh_m[near]
    assert error.abs().mean() < 0.2

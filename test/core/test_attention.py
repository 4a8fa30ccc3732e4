import numpy as np
import pytest
import torch

from tag_perception.core.attention import TaskAttention

TASKS = ('detection3d', 'semantic', 'depth')
CHANNELS, SEMANTIC, DETAIL = 4, 6, 3


def features(batch=2, height=5, width=7):
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(batch, CHANNELS, height, width, generator=generator)
    x_semantic = torch.randn(batch, SEMANTIC, 2, 3, generator=generator)
    x_detail = torch.randn(batch, DETAIL, height, width, generator=generator)
    return h, x_semantic, x_detail


def attention(**options):
    torch.manual_seed(1)
    return TaskAttention(TASKS, CHANNELS, SEMANTIC, DETAIL, **options)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def alpha_by_hand(module, task, x_semantic):
    """Global average pool, two fully connected layers, sigmoid (Eq. 3), in numpy."""
    layers = module.S_ch[task]
    w1, b1, w2, b2 = (p.detach().numpy() for p in layers.parameters())
    pooled = x_semantic.numpy().mean(axis=(2, 3))
    hidden = np.maximum(pooled @ w1.T + b1, 0)
    return sigmoid(hidden @ w2.T + b2)[:, :, None, None]


def beta_by_hand(module, x_detail):
    """One 3×3 convolution with dilation 2 and zero padding, sigmoid (Eq. 3), cell by cell."""
    weight, bias = (p.detach().numpy() for p in module.S_sp.parameters())
    x = np.pad(x_detail.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)))
    batch, _, height, width = x_detail.shape
    logits = np.full((batch, 1, height, width), bias[0])
    for v in range(height):
        for u in range(width):
            patch = x[:, :, v : v + 5 : 2, u : u + 5 : 2]
            logits[:, 0, v, u] += (patch * weight[0]).sum(axis=(1, 2, 3))
    return sigmoid(logits)


def test_task_features_are_alpha_times_h_plus_beta():
    module, (h, x_semantic, x_detail) = attention(), features()
    h_t = module(h, x_semantic, x_detail)
    beta = beta_by_hand(module, x_detail)
    assert tuple(h_t) == TASKS
    for task in TASKS:
        expected = alpha_by_hand(module, task, x_semantic) * h.numpy() + beta
        np.testing.assert_allclose(h_t[task].detach(), expected, atol=1e-6)


def test_without_channel_attention_every_task_gets_h_plus_beta():
    module, (h, x_semantic, x_detail) = attention(channel=False), features()
    h_t = module(h, x_semantic, x_detail)
    for task in TASKS:
        np.testing.assert_allclose(
            h_t[task].detach(), h.numpy() + beta_by_hand(module, x_detail), atol=1e-6
        )


def test_without_spatial_attention_every_task_gets_alpha_times_h():
    module, (h, x_semantic, x_detail) = attention(spatial=False), features()
    h_t = module(h, x_semantic, x_detail)
    for task in TASKS:
        expected = alpha_by_hand(module, task, x_semantic) * h.numpy()
        np.testing.assert_allclose(h_t[task].detach(), expected, atol=1e-6)


def test_without_attention_every_task_gets_h_itself_and_nothing_is_learned():
    module, (h, x_semantic, _) = attention(channel=False, spatial=False), features()
    assert all(feature is h for feature in module(h, x_semantic, None).values())
    assert not list(module.parameters())


def test_alpha_is_per_task_and_beta_is_shared():
    module, (h, x_semantic, x_detail) = attention(), features()
    nothing = module(torch.zeros_like(h), x_semantic, x_detail)  # alpha · 0 + beta
    assert torch.equal(nothing['semantic'], nothing['depth'])
    h_t = module(h, x_semantic, x_detail)
    assert not torch.allclose(h_t['semantic'], h_t['depth'])


def test_pointwise_spatial_attention_has_a_map_per_channel():
    module, (h, x_semantic, x_detail) = attention(spatial_kernel='pointwise'), features()
    beta = module(torch.zeros_like(h), x_semantic, x_detail)['depth'].detach()
    weight, bias = (p.detach().numpy() for p in module.S_sp.parameters())
    logits = np.einsum('oi,bihw->bohw', weight[:, :, 0, 0], x_detail.numpy())
    np.testing.assert_allclose(beta, sigmoid(logits + bias[:, None, None]), atol=1e-6)


def test_spatial_attention_needs_a_detail_path():
    with pytest.raises(ValueError, match='detail path'):
        TaskAttention(TASKS, CHANNELS, SEMANTIC, None)

import re
from dataclasses import replace

import pytest
import torch

from tag_perception.config import ConfigError, InputError, from_dict, to_dict
from tag_perception.core.network import PRESETS, NetworkConfig, build_network

CHANNELS = {'detection3d': 43, 'semantic': 19, 'depth': 1}
TINY = NetworkConfig(width=4)
WITH_AUXILIARY = ('ddrnet23_slim', 'ddrnet23', 'ddrnet39', 'pidnet_s', 'pidnet_m', 'pidnet_l')


@pytest.mark.parametrize('name', PRESETS)
def test_every_preset_runs_and_learns_with_all_its_parameters(name):
    torch.manual_seed(0)
    config = replace(PRESETS[name], auxiliary_heads=name in WITH_AUXILIARY)
    if config.backbone == 'tag':
        config = replace(config, width=config.width // 4)  # the same modules, built faster
    network = build_network(config)
    image = torch.randn(2, 3, 96, 160)
    stride = 4 if config.backbone in ('dla34', 'icnet') else 8
    cells = (96 // stride, 160 // stride)
    expected = {task: (2, CHANNELS[task], *cells) for task in config.tasks}
    assert network.stride == stride

    with torch.inference_mode():
        outputs = network.eval()(image)
    assert {task: tuple(output.shape) for task, output in outputs.items()} == expected
    assert all(output.isfinite().all() for output in outputs.values())

    outputs = network.train()(image)
    if config.auxiliary_heads:
        expected |= {f'auxiliary_{t}': (2, CHANNELS[t], 12, 20) for t in config.tasks}
        if name.startswith('pidnet'):
            expected['boundary'] = (2, 1, 12, 20)
    assert {task: tuple(output.shape) for task, output in outputs.items()} == expected
    sum(output.square().sum() for output in outputs.values()).backward()
    unmoved = {
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None
        or not parameter.grad.isfinite().all()
        or not parameter.grad.any()
    }
    classifier = {'imagenet_classifier.weight', 'imagenet_classifier.bias'}
    assert unmoved == (classifier if config.imagenet_classifier else set())


def test_forward_is_backbone_then_attention_then_heads():
    torch.manual_seed(0)
    network = build_network(TINY).eval()
    image = torch.randn(2, 3, 64, 96)
    h, x_semantic, x_detail, *_ = network.backbone(image)
    h_t = network.attention(h, x_semantic, x_detail)
    outputs = network(image)
    for task, head in network.heads.items():
        torch.testing.assert_close(outputs[task], head(h_t[task]))


def test_images_of_a_batch_do_not_see_each_other():
    torch.manual_seed(0)
    network = build_network(TINY).eval()
    images = torch.randn(2, 3, 64, 96)
    together = network(images)
    for b in range(2):
        alone = network(images[b : b + 1])
        for task in CHANNELS:
            torch.testing.assert_close(together[task][b : b + 1], alone[task])


@pytest.mark.parametrize('size', [(100, 160), (96, 150)])
def test_sides_have_to_be_multiples_of_32(size):
    with pytest.raises(InputError, match=rf'{size[0]}×{size[1]} pixels.*multiples of 32'):
        build_network(TINY)(torch.zeros(1, 3, *size))


def test_classifier_reads_the_semantic_feature():
    torch.manual_seed(0)
    network = build_network(replace(TINY, imagenet_classifier=True)).eval()
    image = torch.randn(2, 3, 64, 96)
    pooled = network.backbone(image).x_semantic.flatten(2).mean(2)
    torch.testing.assert_close(network.classify(image), network.imagenet_classifier(pooled))
    assert network.classify(image).shape == (2, 1000)
    with pytest.raises(ConfigError, match='imagenet_classifier'):
        build_network(TINY).classify(image)


@pytest.mark.parametrize('name', PRESETS)
def test_presets_survive_a_plain_dictionary(name):
    assert from_dict(NetworkConfig, to_dict(PRESETS[name])) == PRESETS[name]


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'backbone': 'vgg'}, "'vgg' is not one of tag, dla34"),
        ({'tasks': ['semantic', 'flow']}, 'flow'),
        ({'tasks': []}, 'at least one'),
        ({'tasks': ['depth', 'depth']}, 'none twice'),
        ({'width': 63}, 'width 63'),
        ({'width': 0}, 'width 0'),
        ({'detail_blocks': [1, -1, 0]}, 'detail_blocks'),
        ({'layer5_blocks': 0}, 'layer5_blocks'),
        ({'p1_kernel': 5}, 'p1_kernel'),
        ({'input_size': [1000, 2048]}, 'multiples of 32'),
        ({'input_size': [0, 2048]}, 'multiples of 32'),
        ({'context': 'fpn'}, 'context'),
        ({'backbone': 'dla34'}, 'false with backbone dla34'),
        (
            {
                'backbone': 'icnet',
                'channel_attention': False,
                'spatial_attention': False,
                'context': 'ppm',
            },
            'context describes backbone tag',
        ),
    ],
)
def test_configuration_names_what_is_wrong(values, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        from_dict(NetworkConfig, values)


def test_auxiliary_heads_need_a_backbone_with_a_feature_for_them():
    with pytest.raises(ConfigError, match='auxiliary_heads: backbone tag'):
        build_network(replace(TINY, auxiliary_heads=True))


def test_auxiliary_heads_leave_inference_alone():
    torch.manual_seed(0)
    config = replace(PRESETS['ddrnet23_slim'], auxiliary_heads=True)
    network = build_network(config).eval()
    plain = build_network(PRESETS['ddrnet23_slim']).eval()
    weights = network.state_dict()
    plain.load_state_dict({k: v for k, v in weights.items() if not k.startswith('auxiliary')})
    image = torch.randn(1, 3, 64, 64)
    outputs = network(image)
    assert set(outputs) == set(CHANNELS)
    for task, output in plain(image).items():
        torch.testing.assert_close(outputs[task], output)


def test_weights_are_named_after_the_paper():
    names = set(build_network(TINY).state_dict())
    assert {
        'backbone.stem.0.conv.weight',
        'backbone.layer4.1.conv2.norm.weight',
        'backbone.detail.0.conv1.conv.weight',
        'backbone.context.f.21.P1.conv.weight',
        'backbone.g.conv.weight',
        'attention.S_ch.depth.fc1.weight',
        'attention.S_sp.bias',
        'heads.semantic.0.weight',
    } <= names


def test_fresh_weights_keep_activations_in_range():
    torch.manual_seed(0)
    network = build_network(PRESETS['tag_slim']).train()
    features = network.backbone(torch.randn(4, 3, 128, 128))
    assert 0.3 < features.h.std() < 3
    assert 0.3 < features.x_semantic.std() < 3

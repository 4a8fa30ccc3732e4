import torch
import torch.nn.functional as F

from tag_perception.core.backbones.dla import DLA34, DLAUp, Tree


def test_levels_are_halved_and_h_is_a_quarter():
    backbone = DLA34().eval()
    shapes = {}
    for name in ('stem', 'level2', 'level3', 'level4', 'level5'):
        getattr(backbone, name).register_forward_hook(
            lambda _m, _i, output, name=name: shapes.update({name: tuple(output.shape[1:])})
        )
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, 64, 96))
    assert shapes == {
        'stem': (32, 32, 48),
        'level2': (64, 16, 24),
        'level3': (128, 8, 12),
        'level4': (256, 4, 6),
        'level5': (512, 2, 3),
    }
    assert features.h.shape == (1, 64, 16, 24)
    assert features.x_semantic.shape == (1, 512, 2, 3)


def test_root_of_a_tree_sees_all_subtrees_and_the_pooled_input():
    tree = Tree(2, 4, 8).eval()
    x = torch.randn(1, 4, 8, 8)
    seen = {}
    tree.right.root.register_forward_pre_hook(lambda _m, args: seen.update(root=args[0]))
    for name, module in (('left', tree.left), ('a', tree.right.left), ('b', tree.right.right)):
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    tree(x)
    expected = [seen['b'], seen['a'], F.max_pool2d(x, 2), seen['left']]
    assert torch.equal(seen['root'], torch.cat(expected, dim=1))


def test_up_sampling_starts_as_bilinear_interpolation():
    up = DLAUp((2, 4)).steps[0].up[0]
    x = torch.randn(1, 2, 5, 6)
    bilinear = F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)
    # At the border the deconvolution reads zeros, interpolation repeats the edge.
    torch.testing.assert_close(up(x)[..., 1:-1, 1:-1], bilinear[..., 1:-1, 1:-1])


def test_climbing_merges_every_deeper_level_at_every_step():
    climb = DLAUp((2, 4, 8, 16)).eval()
    assert [len(step.node) for step in climb.steps] == [1, 2, 3]
    levels = [torch.randn(1, 2 * 2**i, 32 >> i, 16 >> i, requires_grad=True) for i in range(4)]
    top = climb(levels)
    assert top.shape == levels[0].shape
    top.sum().backward()
    assert all(level.grad.abs().sum() > 0 for level in levels)

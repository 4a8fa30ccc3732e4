"""The table of backbones. Adding one: a file with a Backbone, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tag_perception.core.backbones.backbone import Backbone, Features
from tag_perception.core.backbones.ddrnet import DDRNet
from tag_perception.core.backbones.dla import DLA34
from tag_perception.core.backbones.icnet import ICNet
from tag_perception.core.backbones.pidnet import PIDNet
from tag_perception.core.backbones.resnet import ResNet50
from tag_perception.core.backbones.tag import TwoPathway

__all__ = ['BACKBONES', 'Backbone', 'Features']

BACKBONES: dict[str, Callable[..., Backbone]] = {
    'tag': TwoPathway,
    'dla34': DLA34,
    'resnet50': ResNet50,
    'icnet': ICNet,
    'ddrnet23_slim': partial(DDRNet, width=32),
    'ddrnet23': DDRNet,
    'ddrnet39': partial(
        DDRNet, layer1_blocks=3, layer2_blocks=4, layer3_blocks=(3, 3), layer4_blocks=3
    ),
    'pidnet_s': partial(PIDNet, width=32),
    'pidnet_m': PIDNet,
    'pidnet_l': partial(PIDNet, large=True),
}

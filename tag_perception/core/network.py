"""The multi-task network: one image in, one output per task out (paper Fig. 3).

    image ─► backbone ─┬─► h ───────────┐
                       ├─► x_semantic ──┼─► TAG ─► h_t ─► head of task t ─► outputs[t]
                       └─► x_detail ────┘

    h   = B(x_agg) + g(x_detail)     Eq. 1 and 2, backbones/tag.py
    h_t = alpha_t · h + beta         Eq. 3 and 4, attention.py

Every part is built from a NetworkConfig, which a checkpoint stores beside its weights. `PRESETS`
names the networks of the paper, its baselines among them, and `tag_slim`, sized for a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from tag_perception.config import ConfigError, InputError
from tag_perception.core.attention import TaskAttention
from tag_perception.core.backbones import BACKBONES, Backbone, Features
from tag_perception.core.tasks import TASKS

SIDE_MULTIPLE = 32
"""Both sides of an input image are multiples of this many pixels."""
HEAD_WIDTHS = {'detection3d': 1, 'semantic': 4, 'depth': 4}
"""Hidden channels of a task's head, in base widths; detection has nine narrow sub-heads."""
MAX_PIXELS = 2**25
"""Of an input image, 8192×4096: a configuration that claims more is a damaged one."""
IMAGENET_CLASSES = 1000
TAG_FIELDS = (
    'spatial_kernel',
    'high_resolution_branch',
    'context',
    'detail_blocks',
    'layer5_blocks',
    'p1_kernel',
)
"""Fields of NetworkConfig that mean nothing to another backbone and keep their defaults there."""


class Network(nn.Module):
    """Backbone → TAG → heads. Build it with `build_network`."""

    def __init__(
        self,
        config: NetworkConfig,
        backbone: Backbone,
        attention: TaskAttention,
        heads: nn.ModuleDict,
        auxiliary_heads: nn.ModuleDict | None = None,
        imagenet_classifier: nn.Linear | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.stride = backbone.stride
        """Pixels per cell of every output."""
        self.backbone = backbone
        self.attention = attention
        self.heads = heads
        self.auxiliary_heads = auxiliary_heads
        self.imagenet_classifier = imagenet_classifier

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Raw outputs (B, ·, H/stride, W/stride) by task of a normalised image (B, 3, H, W).

        In training, auxiliary heads add `auxiliary_<task>` and, with PIDNet, `boundary`. Raises
        InputError for sides that are not multiples of 32.
        """
        _check_sides(image)
        features = self.backbone(image)  # two pathways, Eq. 1 and 2
        h_t = self.attention(features.h, features.x_semantic, features.x_detail)  # Eq. 3 and 4
        outputs = {t: head(h_t[t]) for t, head in self.heads.items()}  # section III-C
        if self.training and self.auxiliary_heads is not None:
            outputs |= self._auxiliary_outputs(features, self.auxiliary_heads)
        return outputs

    def classify(self, image: Tensor) -> Tensor:
        """(B, 1000) ImageNet logits from x_semantic: what the backbone is pre-trained with."""
        if self.imagenet_classifier is None:
            raise ConfigError('this network has no ImageNet layer; set imagenet_classifier: true')
        _check_sides(image)
        return self.imagenet_classifier(self.backbone(image).x_semantic.mean(dim=(2, 3)))

    @staticmethod
    def _auxiliary_outputs(features: Features, heads: nn.ModuleDict) -> dict[str, Tensor]:
        return {
            name: head(features.boundary if name == 'boundary' else features.auxiliary)
            for name, head in heads.items()
        }


@dataclass(frozen=True)
class NetworkConfig:
    """Everything that decides the shape of the network."""

    backbone: str = 'tag'
    """A name in `backbones.BACKBONES`."""
    tasks: tuple[str, ...] = ('detection3d', 'semantic', 'depth')
    """Names in `tasks.TASKS`."""
    width: int = 64
    """Base width in channels; all of `tag` and every head scale with it. Even."""
    channel_attention: bool = True
    """alpha_t of TAG, which needs backbone `tag`, like all fields down to `p1_kernel`."""
    spatial_attention: bool = True
    """beta of TAG."""
    spatial_kernel: Literal['dilated', 'pointwise'] = 'dilated'
    """S_sp: dilated 3×3 to one map, or 1×1 to one map per channel of h."""
    high_resolution_branch: bool = True
    """The path that yields x_detail; without it beta is taken from layer 2."""
    context: Literal['aggregation', 'ppm'] = 'aggregation'
    """What turns the semantic path into x_agg: Algorithm 1, or pyramid pooling."""
    detail_blocks: tuple[int, int, int] = (1, 1, 0)
    """Blocks of the detail path beside layers 3, 4 and 5."""
    layer5_blocks: int = 1
    """Bottlenecks of layer 5."""
    p1_kernel: Literal[3, 1] = 3
    """Kernel of W_P1 in Eq. 1."""
    auxiliary_heads: bool = False
    """A second set of heads on an earlier feature, for training only (DDRNet, PIDNet)."""
    imagenet_classifier: bool = False
    """Carry the layer of ImageNet pre-training, which `forward` does not use."""
    input_size: tuple[int, int] = (1024, 2048)
    """Height and width, in pixels, that the weights are for."""

    def __post_init__(self) -> None:
        _check(self)


def build_network(config: NetworkConfig) -> Network:
    """The network of a configuration with fresh weights: He initialisation, batch norm 1 and 0."""
    backbone = _build_backbone(config)
    attention = TaskAttention(
        config.tasks,
        backbone.channels,
        backbone.semantic_channels,
        backbone.detail_channels,
        channel=config.channel_attention,
        spatial=config.spatial_attention,
        spatial_kernel=config.spatial_kernel,
    )
    classifier = (
        nn.Linear(backbone.semantic_channels, IMAGENET_CLASSES)
        if config.imagenet_classifier
        else None
    )
    return Network(
        config,
        backbone,
        attention,
        _build_heads(config, backbone.channels),
        _build_auxiliary_heads(config, backbone) if config.auxiliary_heads else None,
        classifier,
    )


def _build_backbone(config: NetworkConfig) -> Backbone:
    if config.backbone == 'tag':
        backbone = BACKBONES['tag'](
            width=config.width,
            high_resolution_branch=config.high_resolution_branch,
            context=config.context,
            detail_blocks=config.detail_blocks,
            layer5_blocks=config.layer5_blocks,
            p1_kernel=config.p1_kernel,
        )
    else:
        backbone = BACKBONES[config.backbone]()
    for module in backbone.modules():
        # On the meta device there is nothing to fill, and trying costs seconds of imports.
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return backbone


def _build_heads(config: NetworkConfig, in_channels: int) -> nn.ModuleDict:
    return nn.ModuleDict(
        {t: TASKS[t].Head(in_channels, HEAD_WIDTHS[t] * config.width) for t in config.tasks}
    )


def _build_auxiliary_heads(config: NetworkConfig, backbone: Backbone) -> nn.ModuleDict:
    if backbone.auxiliary_channels is None:
        raise ConfigError(f'auxiliary_heads: backbone {config.backbone} has no feature for them')
    heads = {
        f'auxiliary_{task}': head
        for task, head in _build_heads(config, backbone.auxiliary_channels).items()
    }
    if backbone.boundary_channels is not None:
        hidden = backbone.boundary_channels // 2
        heads['boundary'] = nn.Sequential(
            nn.Conv2d(backbone.boundary_channels, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, 1, 1),
        )
    return nn.ModuleDict(heads)


def _check_sides(image: Tensor) -> None:
    height, width = image.shape[-2:]
    if height % SIDE_MULTIPLE or width % SIDE_MULTIPLE:
        raise InputError(
            f'input of {height}×{width} pixels: both sides have to be multiples of '
            f'{SIDE_MULTIPLE}; resize or pad the image'
        )


def _check(config: NetworkConfig) -> None:
    def require(condition: bool, message: str) -> None:
        if not condition:
            raise ConfigError(message)

    backbone, tasks = config.backbone, config.tasks
    require(backbone in BACKBONES, f'backbone {backbone!r} is not one of {", ".join(BACKBONES)}')
    unknown = [task for task in tasks if task not in TASKS]
    require(not unknown, f'tasks {unknown} are not among {", ".join(TASKS)}')
    require(len(tasks) == len(set(tasks)) > 0, f'tasks {tasks}: at least one, and none twice')
    require(
        2 <= config.width <= 1024 and config.width % 2 == 0,
        f'width {config.width} is not an even number from 2 to 1024',
    )
    require(
        all(0 <= n <= 16 for n in config.detail_blocks) and 1 <= config.layer5_blocks <= 16,
        f'detail_blocks {config.detail_blocks} have to be 0…16 and layer5_blocks '
        f'{config.layer5_blocks} 1…16',
    )
    require(
        all(side > 0 and side % SIDE_MULTIPLE == 0 for side in config.input_size),
        f'input_size {config.input_size}: both sides have to be multiples of {SIDE_MULTIPLE}',
    )
    require(
        config.input_size[0] * config.input_size[1] <= MAX_PIXELS,
        f'input_size {config.input_size}: more than {MAX_PIXELS} pixels',
    )
    if backbone == 'tag':
        return
    require(
        not (config.channel_attention or config.spatial_attention),
        f'channel_attention and spatial_attention have to be false with backbone {backbone}',
    )
    for name in TAG_FIELDS:
        require(
            getattr(config, name) == getattr(NetworkConfig, name),
            f'{name} describes backbone tag; leave it out with {backbone}',
        )


_TAG = NetworkConfig()
_WITHOUT_TAG = replace(_TAG, channel_attention=False, spatial_attention=False)
_DLA34 = replace(_WITHOUT_TAG, backbone='dla34', imagenet_classifier=True)

PRESETS: dict[str, NetworkConfig] = {
    'tag': _TAG,
    'tag_without_tag': _WITHOUT_TAG,
    'tag_slim': replace(_TAG, width=32, input_size=(512, 1024)),
    # Table III
    'tag_without_branch': replace(_TAG, high_resolution_branch=False),
    'tag_ppm': replace(_TAG, context='ppm'),
    'tag_without_alpha': replace(_TAG, channel_attention=False),
    'tag_without_beta': replace(_TAG, spatial_attention=False),
    # Table II; the paper's parameters of DLA-34 and ResNet-50 contain the unused ImageNet layer
    'dla34_detection3d': replace(_DLA34, tasks=('detection3d',)),
    'dla34_semantic': replace(_DLA34, tasks=('semantic',)),
    'dla34_depth': replace(_DLA34, tasks=('depth',)),
    'dla34': _DLA34,
    'resnet50': replace(_WITHOUT_TAG, backbone='resnet50', imagenet_classifier=True),
    'icnet': replace(_WITHOUT_TAG, backbone='icnet'),
    'ddrnet23_slim': replace(_WITHOUT_TAG, backbone='ddrnet23_slim'),
    'ddrnet23': replace(_WITHOUT_TAG, backbone='ddrnet23'),
    'ddrnet39': replace(_WITHOUT_TAG, backbone='ddrnet39'),
    'pidnet_s': replace(_WITHOUT_TAG, backbone='pidnet_s'),
    'pidnet_m': replace(_WITHOUT_TAG, backbone='pidnet_m'),
    'pidnet_l': replace(_WITHOUT_TAG, backbone='pidnet_l'),
}
"""The networks by name."""

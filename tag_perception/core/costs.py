"""What each network costs: parameters and multiply-accumulates, beside the paper's Table II.

Counted on the meta device, so no memory and no time is spent on weights. MACs are those of
convolutions and fully connected layers. The paper's "GFLOPs" come out as these MACs plus 2 per
batch norm output and 1 per ReLU output; that rule value is printed as information.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tag_perception.config import InputError
from tag_perception.core.network import PRESETS, Network, NetworkConfig, build_network

INPUT_SIZE = (1024, 2048)
"""Height and width that all tables are counted at, with one image."""


class Figures(NamedTuple):
    """Published figures of one network; None where there are none."""

    params_m: float | None = None
    """Paper Table II, millions."""
    gmacs: float | None = None
    """Paper Table II, where they are called GFLOPs."""
    reconstructed_params_m: float | None = None
    """Our reconstruction of the paper's networks from their sources and from the paper's text."""
    reconstructed_gmacs: float | None = None
    reconstructed_params_with_auxiliary_m: float | None = None


PAPER = {
    'dla34_detection3d': Figures(20.1, 246, 20.114, 244.88),
    'dla34_semantic': Figures(19.9, 222, 19.932, 221.00),
    'dla34_depth': Figures(19.9, 223, 19.927, 220.39),
    'dla34': Figures(20.4, 285, 20.415, 284.21),
    'resnet50': Figures(44.5, 373, 45.25, 368.1),
    'icnet': Figures(44.4, 226, 44.44, 224.46),
    'ddrnet23_slim': Figures(7.5, 75, 6.883, 75.15, 7.519),
    'ddrnet23': Figures(23.9, 216, 22.367, 215.72, 23.629),
    'ddrnet39': Figures(35.5, 345, 34.280, 344.03, 35.543),
    'pidnet_s': Figures(9.4, 84, 8.738, 83.61, 9.392),
    'pidnet_m': Figures(32.2, 241, 30.756, 249.98, 32.092),
    'pidnet_l': Figures(40.3, 339, 38.860, 337.85, 40.196),
    'tag_without_tag': Figures(32.8, 218, 32.182, 217.93),
    'tag': Figures(33.9, 219, 33.168, 217.96),
    # Table III prints neither parameters nor GFLOPs.
    'tag_without_branch': Figures(None, None, 32.54, 197.56),
    'tag_ppm': Figures(None, None, 24.8, 184.2),
    'tag_without_alpha': Figures(None, None, 32.183, 217.96),
    'tag_without_beta': Figures(None, None, 33.166, 217.93),
}
"""Every network of the paper, in the order of its tables."""


@dataclass(frozen=True)
class Module:
    """The share of one part of the network."""

    name: str
    params: int
    macs: int


@dataclass(frozen=True)
class Cost:
    """What one network costs for one image."""

    params: int
    macs: int
    """Of convolutions and fully connected layers."""
    rule: int
    """The same by the paper's way of counting: + 2 per batch norm and 1 per ReLU output."""
    modules: tuple[Module, ...]


@dataclass(frozen=True)
class Row:
    """One preset at 1×3×1024×2048, with the published figures beside it."""

    name: str
    cost: Cost
    params_with_auxiliary: int | None
    """Including heads that exist for training only; None for a backbone without them."""
    published: Figures


def our_rows() -> list[Row]:
    """The paper's own network, without its attention, its ablations and `tag_slim`."""
    return [_row(name) for name, config in PRESETS.items() if config.backbone == 'tag']


def paper_rows() -> list[Row]:
    """Every network of the paper's Tables II and III."""
    return [_row(name) for name in PAPER]


def count(config: NetworkConfig, input_size: tuple[int, int] = INPUT_SIZE) -> Cost:
    """Cost of one image (3, *input_size) in evaluation mode, where no auxiliary head runs."""
    return _count(_build_empty(config), input_size)


def format_table(rows: Sequence[Row], modules: bool = False) -> str:
    """Text table; with `modules`, every network is followed by its parts."""
    lines = [
        'One image of 3×1024×2048. paper: Table II; rec.: reconstruction; rule: + 2·BN + ReLU.',
        f'{"":20}{"parameters":>12}{"with aux.":>12}{"paper":>8}{"rec.":>9}{"rec.+aux":>9}'
        f'{"MACs":>18}{"rule":>9}{"paper":>7}{"rec.":>9}',
    ]
    for row in rows:
        cost, published = row.cost, row.published
        auxiliary = row.params_with_auxiliary
        lines.append(
            f'{row.name:20}{cost.params:12,}{f"{auxiliary:,}" if auxiliary else "–":>12}'
            f'{_cell(published.params_m, "M", 1):>8}'
            f'{_cell(published.reconstructed_params_m, "M"):>9}'
            f'{_cell(published.reconstructed_params_with_auxiliary_m, "M"):>9}'
            f'{cost.macs:18,}{cost.rule / 1e9:8.2f}G{_cell(published.gmacs, "G", 0):>7}'
            f'{_cell(published.reconstructed_gmacs, "G", 2):>9}'
        )
        if modules:
            lines += [f'  {m.name:18}{m.params:12,}{m.macs:56,}' for m in cost.modules]
    return '\n'.join(lines)


def write_json(rows: Sequence[Row], path: Path | str) -> None:
    """{"rows": [{"name", "params", "macs", "paper_params_m", "paper_gmacs", …}, …]}."""
    try:
        Path(path).write_text(json.dumps({'rows': [_plain(row) for row in rows]}, indent=1) + '\n')
    except OSError as error:
        raise InputError(f'{path}: cannot write the costs: {error.strerror}') from error


def _row(name: str) -> Row:
    config = PRESETS[name]
    network = _build_empty(config)
    with_auxiliary = None
    if network.backbone.auxiliary_channels is not None:
        larger = _build_empty(replace(config, auxiliary_heads=True))
        with_auxiliary = _params_by_part(larger).total()
    return Row(name, _count(network, INPUT_SIZE), with_auxiliary, PAPER.get(name, Figures()))


def _build_empty(config: NetworkConfig) -> Network:
    with torch.device('meta'):
        return build_network(config)


def _count(network: Network, input_size: tuple[int, int]) -> Cost:
    macs: Counter[str] = Counter()
    extra: Counter[str] = Counter()
    for name, module in network.named_modules():
        module.register_forward_hook(_counting_hook(_part(name), macs, extra))
    with torch.no_grad():
        network.eval()(torch.empty(1, 3, *input_size, device='meta'))
    params = _params_by_part(network)
    modules = tuple(Module(part, size, macs[part]) for part, size in params.items())
    return Cost(params.total(), macs.total(), macs.total() + extra.total(), modules)


def _part(name: str) -> str:
    """'backbone.layer1.0.conv1' → 'layer1', 'heads.depth.conv' → 'heads.depth'."""
    group, *rest = name.split('.')
    if group in ('backbone', 'attention') and rest:
        return rest[0]
    return '.'.join((group, *rest[:1]))


def _params_by_part(network: Network) -> Counter[str]:
    params: Counter[str] = Counter()
    for name, parameter in network.named_parameters():
        params[_part(name.rpartition('.')[0])] += parameter.numel()
    return params


def _counting_hook(
    part: str, macs: Counter[str], extra: Counter[str]
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            macs[part] += module.weight[0].numel() * output.numel()
        elif isinstance(module, nn.ConvTranspose2d):
            macs[part] += module.weight[0].numel() * inputs[0].numel()
        elif isinstance(module, nn.Linear):
            macs[part] += module.in_features * output.numel()
        elif isinstance(module, nn.BatchNorm2d):
            extra[part] += 2 * output.numel()
        elif isinstance(module, nn.ReLU):
            extra[part] += output.numel()

    return add


def _cell(value: float | None, unit: str, digits: int = 3) -> str:
    return '–' if value is None else f'{value:.{digits}f}{unit}'


def _plain(row: Row) -> dict:
    cost, published = row.cost, row.published
    return {
        'name': row.name,
        'params': cost.params,
        'macs': cost.macs,
        'paper_params_m': published.params_m,
        'paper_gmacs': published.gmacs,
        'params_with_auxiliary': row.params_with_auxiliary,
        'paper_rule_macs': cost.rule,
        'reconstructed_params_m': published.reconstructed_params_m,
        'reconstructed_gmacs': published.reconstructed_gmacs,
        'reconstructed_params_with_auxiliary_m': published.reconstructed_params_with_auxiliary_m,
        'modules': [asdict(module) for module in cost.modules],
    }

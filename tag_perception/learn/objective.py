"""What training minimises: the weighted sum of all named loss terms of all tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag_perception.config import InputError
from tag_perception.core.labels import UNLABELLED
from tag_perception.core.tasks import TASKS

AUXILIARY = 'auxiliary_'
"""Prefix of the outputs of training-only heads; the rest of the name is the task."""
BOUNDARY = 'boundary'
"""Output of PIDNet's training-only head for the edges between classes."""


class NonFiniteLoss(InputError):
    """A loss is NaN or infinite; the message names the term, the step and the files."""


def loss_terms(
    outputs: Mapping[str, Tensor],
    targets: Mapping[str, dict[str, Tensor]],
    options: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> dict[str, Tensor]:
    """Unweighted terms by `<output>/<term>`, in float32 whatever the precision of the network.

    `options` holds keyword arguments of the losses by task.
    """
    terms = {}
    for name, output in outputs.items():
        if name == BOUNDARY:
            found = boundary_loss(output.float(), targets)
        else:
            task = name.removeprefix(AUXILIARY)
            found = TASKS[task].loss(output.float(), targets[task], **options.get(task, {}))
        terms.update({f'{name}/{term}': value for term, value in found.items()})
    return terms


def weighted_sum(
    terms: Mapping[str, Tensor], weights: Mapping[str, float], auxiliary_weight: float
) -> Tensor:
    """Sum of weight(task) · term; terms of training-only heads count `auxiliary_weight` of it."""
    total = torch.zeros(())
    for name, value in terms.items():
        output = name.split('/')[0]
        task = 'semantic' if output == BOUNDARY else output.removeprefix(AUXILIARY)
        factor = 1.0 if output == task else auxiliary_weight
        total = total.to(value.device) + factor * weights[task] * value
    return total


def boundary_loss(output: Tensor, targets: Mapping[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """Cross-entropy of "an edge between classes lies here", both answers of equal weight.

    The target of a cell is whether two labelled pixels within it differ. Without semantic targets
    there is nothing to learn.
    """
    if 'semantic' not in targets:
        return {}
    train_id = targets['semantic']['train_id'].float()[:, None]
    labelled = train_id != UNLABELLED
    size = output.shape[-2:]
    lowest = -F.adaptive_max_pool2d(-train_id, size)
    highest = F.adaptive_max_pool2d(torch.where(labelled, train_id, -1.0), size)
    edge = (highest > lowest).float()
    valid = (highest >= 0).float()
    weight = valid * torch.where(edge > 0, _share(edge, valid), _share(1 - edge, valid))
    total = F.binary_cross_entropy_with_logits(output, edge, weight=weight, reduction='sum')
    return {'cross_entropy': total / valid.sum().clamp_min(1)}


def check_finite(terms: Mapping[str, Tensor], names: Sequence[str], step: int) -> None:
    """Raise NonFiniteLoss where a term is NaN or infinite."""
    if not terms or bool(
        torch.stack([value.detach() for value in terms.values()]).isfinite().all()
    ):
        return
    broken = [name.replace('/', ' ') for name, value in terms.items() if not value.isfinite()]
    raise NonFiniteLoss(
        f'the loss {", ".join(broken)} is not finite at step {step}, batch of '
        f'{", ".join(names)}; check these files, lower optimizer.lr or set precision to 32-true'
    )


def check_finite_weights(network: nn.Module, step: int) -> None:
    """Raise NonFiniteLoss where a step has spoiled the weights: such a state is not worth saving.

    A finite loss can do that with a gradient that is not, and the next loss would be too late.
    """
    for name, value in network.state_dict().items():
        if not value.isfinite().all():
            raise NonFiniteLoss(
                f'{name} is not finite after step {step}; nothing was saved of it: lower '
                'optimizer.lr, or set optimizer.clip_norm or precision to 32-true'
            )


def _share(chosen: Tensor, valid: Tensor) -> Tensor:
    """Weight that makes the `chosen` cells count as much as all the others together."""
    return 0.5 * valid.sum() / (chosen * valid).sum().clamp_min(1)

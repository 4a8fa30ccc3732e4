"""The Lightning modules: what one step of training does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from tag_perception.core.network import Network
from tag_perception.core.preprocess import to_input
from tag_perception.learn.configuration import TrainConfig
from tag_perception.learn.objective import check_finite, loss_terms, weighted_sum
from tag_perception.learn.schedules import rate_factor

Tensors = tuple[Tensor, ...] | list[Tensor]

VALIDATION_LOSS = 'validation/loss'
"""Logged name of the number whose lowest value marks the best weights."""


class TrainingModule(L.LightningModule, ABC):
    """Optimiser, schedule, moving average and logging; subclasses define the loss."""

    def __init__(self, config: TrainConfig, network: Network, steps: int) -> None:
        """`steps` is the length of the training, epochs resolved."""
        super().__init__()
        self.config, self.network, self.steps = config, network, steps
        self.average = _moving_average(network, config.optimizer.average_decay)

    @property
    def result(self) -> Network:
        """The weights to validate and keep: the moving average where there is one."""
        return self.network if self.average is None else self.average.module  # type: ignore[return-value]

    @abstractmethod
    def terms(self, network: Network, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Unweighted loss terms of a batch."""

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The scalar that is minimised."""
        return torch.stack(list(terms.values())).sum()

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor:
        """Loss of one batch; raises NonFiniteLoss."""
        terms = self.terms(self.network, batch)
        check_finite(terms, batch['name'], self.global_step)
        loss = self.total(terms)
        self._log('train', terms, loss, batch)
        self.log('train/lr', self.trainer.optimizers[0].param_groups[0]['lr'])
        return loss

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """Log the same terms on images that are not trained on."""
        terms = self.terms(self.result, batch)
        self._log('validation', terms, self.total(terms), batch)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser of the configuration, its rate set anew at every step."""
        optimizer = _optimizer(self.config, list(self.network.parameters()))
        schedule = LambdaLR(
            optimizer, lambda step: rate_factor(self.config.schedule, step, self.steps)
        )
        return {
            'optimizer': optimizer,
            'lr_scheduler': {'scheduler': schedule, 'interval': 'step', 'name': 'lr'},
        }

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then let the average follow: before a checkpoint can be saved."""
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update_parameters(self.network)

    def _log(self, stage: str, terms: dict[str, Tensor], loss: Tensor, batch: Any) -> None:
        self.log_dict(
            {f'{stage}/{name}': value.detach() for name, value in terms.items()},
            batch_size=len(batch['name']),
            sync_dist=stage == 'validation',
        )
        self.log(
            f'{stage}/loss',
            loss.detach(),
            prog_bar=True,
            batch_size=len(batch['name']),
            sync_dist=stage == 'validation',
        )


class SceneModule(TrainingModule):
    """The tasks of the network, from images and encoded targets."""

    def terms(self, network: Network, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Loss terms of all tasks and training-only heads, in float32."""
        outputs = network(to_input(batch['image'], self.config.network.input_size))
        with torch.autocast(self.device.type, enabled=False):
            options = {'depth': {'beta_m': self.config.depth_beta_m}}
            return loss_terms(outputs, batch['targets'], options)

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """Weighted as in the paper unless the experiment says otherwise."""
        config = self.config
        return weighted_sum(terms, config.loss_weights, config.auxiliary_weight)


class ClassifierModule(TrainingModule):
    """ImageNet classification with the backbone of the network."""

    def terms(self, network: Network, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Cross-entropy, and the share of wrong answers in validation."""
        images, truth = batch['image'], batch['class_id']
        logits = network.classify(to_input(images, (images.shape[1], images.shape[2]))).float()
        if not self.training:
            self.log(
                'validation/top1_error',
                (logits.argmax(1) != truth).float().mean(),
                batch_size=len(truth),
                sync_dist=True,
            )
        return {'classification/cross_entropy': F.cross_entropy(logits, truth)}


def _moving_average(network: Network, decay: float) -> AveragedModel | None:
    """Weights and batch norm statistics, averaged; shorter memory at first."""
    if not decay:
        return None

    def blend(average: Tensors, current: Tensors, count: Tensor | int) -> None:
        if not average[0].is_floating_point():  # counters of batch norm
            torch._foreach_copy_(average, current)
            return
        now = min(decay, (1 + float(count)) / (10 + float(count)))
        torch._foreach_lerp_(average, current, 1 - now)

    average = AveragedModel(network, multi_avg_fn=blend, use_buffers=True)
    return average.requires_grad_(False)


def _optimizer(config: TrainConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    options = config.optimizer
    if options.name == 'sgd':
        return torch.optim.SGD(
            parameters,
            lr=options.lr,
            momentum=options.momentum,
            nesterov=options.momentum > 0,
            weight_decay=options.weight_decay,
        )
    kind = {'adam': torch.optim.Adam, 'adamw': torch.optim.AdamW}[options.name]
    return kind(parameters, lr=options.lr, weight_decay=options.weight_decay)

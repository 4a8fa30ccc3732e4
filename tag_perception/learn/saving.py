"""What a run leaves on disk, replaced in one move so that a crash or a full disk harms nothing.

<run>/experiment.yaml     the configuration
<run>/last.ckpt           everything to resume exactly (Lightning)
<run>/last.safetensors    the weights (core.checkpoint)
<run>/best.safetensors    the weights with the lowest validation loss
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import lightning as L
import torch

from tag_perception.config import to_dict
from tag_perception.core import checkpoint
from tag_perception.core.checkpoint import CheckpointError
from tag_perception.learn.configuration import TrainConfig
from tag_perception.learn.module import VALIDATION_LOSS, TrainingModule
from tag_perception.learn.objective import check_finite_weights

LAST, LAST_WEIGHTS, BEST_WEIGHTS = 'last.ckpt', 'last.safetensors', 'best.safetensors'


class CheckpointWriter(L.Callback):
    """Saves every `save_every` steps and at the end; after a validation, the best weights."""

    def __init__(self, folder: Path, config: TrainConfig, images_per_step: int) -> None:
        self.folder, self.config, self.images_per_step = folder, config, images_per_step
        self.revision = git_revision()
        self.best = float('inf')
        self.saved_step = -1

    def state_dict(self) -> dict[str, Any]:
        """Travels in last.ckpt."""
        return {'best': self.best, 'torch_rng': torch.get_rng_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Back from last.ckpt."""
        self.best = state['best']
        torch.set_rng_state(state['torch_rng'])

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
        """Save where it is time."""
        step = trainer.global_step
        due = step % self.config.save_every == 0 or step == trainer.max_steps
        if due and step != self.saved_step:
            check_finite_weights(module.result, step)
            self.saved_step = step
            # In this order a failure between the two is made good by resuming.
            self.save_weights(trainer, module, LAST_WEIGHTS)
            self.save_resumable(trainer)

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        """Keep the weights if they are the best so far."""
        value = float(trainer.callback_metrics.get(VALIDATION_LOSS, float('inf')))
        if not trainer.sanity_checking and value < self.best:
            self.best = value
            self.save_weights(trainer, module, BEST_WEIGHTS)

    def save_resumable(self, trainer: L.Trainer) -> None:
        """Write last.ckpt. Raises CheckpointError where the disk does not take it."""
        path, partial = self.folder / LAST, self.folder / f'.{LAST}.partial'
        try:
            trainer.save_checkpoint(partial, weights_only=False)  # all processes; the first writes
            if trainer.is_global_zero:
                os.replace(partial, path)
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            raise CheckpointError(
                f'{path}: cannot save step {trainer.global_step}: {error}; '
                'the checkpoint before it is intact; free the disk and run the same command'
            ) from error

    def save_weights(self, trainer: L.Trainer, module: TrainingModule, name: str) -> None:
        """Write the weights with what they are."""
        if trainer.is_global_zero:
            metadata = self.describe(trainer.global_step)
            checkpoint.save(self.folder / name, module.result, self.config.network, metadata)

    def describe(self, step: int) -> dict[str, Any]:
        """Where the weights come from: what models/README.md has to say of them."""
        return {
            'goal': self.config.goal,
            'step': step,
            'images': step * self.images_per_step,
            'best_validation_loss': self.best if self.best < float('inf') else None,
            'git_revision': self.revision,
            'torch': torch.__version__,
            'experiment': to_dict(self.config),
        }


def git_revision() -> str:
    """Commit of this source tree, with -dirty where files differ; unknown outside of git."""
    command = ['git', 'describe', '--always', '--dirty', '--abbrev=12', '--exclude', '*']
    try:
        answer = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return 'unknown'
    return answer.stdout.strip() or 'unknown'

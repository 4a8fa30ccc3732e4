"""From a checkpoint and a tree to results and report: what the verb `evaluate` calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tag_perception.config import InputError
from tag_perception.core import checkpoint as checkpoints
from tag_perception.data.cityscapes3d import Cityscapes3D
from tag_perception.evaluate.evaluation import evaluate
from tag_perception.evaluate.predictor import NetworkPredictor
from tag_perception.evaluate.report import write_report

HEADLINE = (
    'miou', 'rmse_m', 'rmse_disp_px', 'mds_amodal', 'mds_modal', 'car_ds_amodal', 'car_ds_modal',
    'pitch_error_rad', 'roll_error_rad',
)  # fmt: skip


def evaluate_checkpoint(
    checkpoint: str,
    root: str,
    split: str,
    out: str,
    skip_broken: bool = False,
    limit: int | None = None,
    device: str = 'auto',
) -> tuple[dict[str, Any], Path]:
    """Results and path of the report; both are written to the folder `out`."""
    if limit is not None and limit < 1:
        raise InputError(f'--limit {limit} leaves no frame; give 1 or more')
    loaded = checkpoints.load(checkpoint)
    dataset = Cityscapes3D(root, split)
    predictor = NetworkPredictor(loaded.network, device)
    about = {
        'name': _name(Path(checkpoint)),
        'checkpoint': str(checkpoint),
        'sha256': loaded.sha256,
        'backbone': loaded.config.backbone,
        'input_size': list(loaded.config.input_size),
        'device': str(predictor.device),
    }
    results = evaluate(predictor, dataset, out, skip_broken=skip_broken, limit=limit, about=about)
    report = write_report(
        results,
        dataset,
        lambda sample: predictor(sample.image, sample.camera),
        out,
        predictor.attention,
    )
    return results, report


def _name(checkpoint: Path) -> str:
    """That of the file, for best and last, the names of every training, behind their folder's."""
    folder = f'{checkpoint.absolute().parent.name}/' if checkpoint.stem in ('best', 'last') else ''
    return folder + checkpoint.stem


def format_headline(results: dict[str, Any]) -> str:
    """The scores that a reader wants first, one a line."""
    lines = [f'{results["scored_frames"]["all"]} frames, {len(results["broken"])} broken left out']
    for key in HEADLINE:
        value = results[key]
        lines.append(f'{key:<16} {"–" if value is None else f"{value:.4f}"}')
    return '\n'.join(lines)

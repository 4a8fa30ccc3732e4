"""The official Cityscapes-3D Detection Score, by the official tool, from official result files."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from tag_perception.core import geometry
from tag_perception.core.labels import DETECTION_CLASSES
from tag_perception.core.structures import Camera, Objects3D
from tag_perception.data.annotations import result_document

MATCHINGS = ('amodal', 'modal')
"""2D rectangles that are matched; the numbers of the official tool are the positions here."""
TERMS = {
    'bev_center': 'Center_Dist',
    'yaw': 'OS_Yaw',
    'pitch_roll': 'OS_Pitch_Roll',
    'size': 'Size_Similarity',
}
"""The four terms of the Detection Score by the name the official tool gives them."""
RANGE_EDGES_M = tuple(range(0, 101, 10))
"""Bounds of the bins for the errors of matched boxes."""


class DetectionScore:
    """Writes one result file per image, then lets the official evaluator read them."""

    def __init__(self, folder: Path) -> None:
        """`folder` gets the result files; what an earlier evaluation left there is removed."""
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        self._truths: dict[str, Path] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        self._boxes = 0

    def update(self, name: str, predicted: Objects3D, camera: Camera, truth: Path) -> None:
        """Add one image; `truth` is its gtBbox3d file."""
        document = result_document(predicted, camera)
        self.folder.mkdir(parents=True, exist_ok=True)  # not before: a refusal leaves nothing
        (self.folder / f'{name}_predBbox3d.json').write_text(json.dumps(document))
        self._truths[name] = truth
        self._sizes[name] = camera.width, camera.height
        self._boxes += len(document['objects'])

    def results(self) -> dict[str, Any]:
        """Scores for both matchings, errors of matched boxes, and hits and misses by frame."""
        if not self._truths:
            return {}
        with tempfile.TemporaryDirectory() as folder:
            for truth in self._truths.values():
                shutil.copy(truth, folder)
            runs = {name: self._run(Path(folder), name) for name in MATCHINGS}
        amodal = runs['amodal']
        return {
            **{name: _scores(run) for name, run in runs.items()},
            'matched': _matched_errors(amodal),
            'confidences': _confidences(amodal),
            'frames': {name: _hits(amodal, name) for name in self._truths},
        }

    def _run(self, truths: Path, matching: str) -> Any:
        """A finished official Box3dEvaluator with the official settings."""
        with _official() as (module, helpers):
            parameters = helpers.EvaluationParameters(
                list(DETECTION_CLASSES),
                min_iou_to_match=0.7,
                max_depth=100,
                step_size=5,
                matching_method=MATCHINGS.index(matching),
                cw=-1.0,
                num_conf=50,
            )
            evaluator = module.Box3dEvaluator(parameters)
            evaluator.loadGT(str(truths))
            evaluator.loadPredictions(str(self.folder))
            loaded = sum(len(image['objects']) for image in evaluator.preds.values())
            if set(evaluator.gts) != set(evaluator.preds) or loaded != self._boxes:
                raise RuntimeError(
                    f'{self.folder}: the official evaluator read {loaded} of {self._boxes} boxes'
                )
            for name, camera in evaluator.cameras.items():
                # The tool assumes 2048×1024 when it cuts boxes at the border of the image.
                camera.imgWidth, camera.imgHeight = self._sizes[name]
            evaluator.evaluate()
        return evaluator


@contextlib.contextmanager
def _official() -> Iterator[tuple[ModuleType, ModuleType]]:
    """The official modules, without what importing and running them does to logs and stderr.

    Importing opens `eval.log` in the working directory and takes over the root logger. What the
    tool would log (boxes it cannot read, images without a prediction) `_run` checks by counting.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.addHandler(logging.NullHandler())  # a root logger with a handler keeps eval.log away
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # deprecated calls, means over no class
            from cityscapesscripts.evaluation import evalObjectDetection3d as module
            from cityscapesscripts.evaluation import objectDetectionHelpers as helpers

            module.logger.disabled = True
            yield module, helpers
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def _scores(evaluator: Any) -> dict[str, Any]:
    """Scores by class and their means, 0…1; None for classes without a box in the truth."""
    results = evaluator.results
    counts = results['GT_stats']
    present = [name for name, count in counts.items() if count]
    classes: dict[str, Any] = {name: None for name in DETECTION_CLASSES}
    for name in present:
        classes[name] = {
            'ds': float(results['Detection_Score'][name]),
            'ap': results['AP'][name]['auc'],
            **{key: float(results[term][name]['auc']) for key, term in TERMS.items()},
            'boxes': counts[name],
            'range_bins': len(results['Center_Dist'][name]['data']),
            'working_confidence': float(results['working_confidence'][name]),
            'recall': results['AP'][name]['data']['recall'],
            'precision': results['AP'][name]['data']['precision'],
        }
    means = {}
    for key in ('ds', 'ap', *TERMS):
        values = [classes[name][key] for name in present]
        means[key] = float(np.mean(values)) if values else np.nan
    return {'mean': means, 'classes': classes}


def _confidences(evaluator: Any) -> dict[str, float]:
    """Score above which a box of a class counts: the official working point, where there is one.

    Without a single hit the official choice is 0, which would call every guess a false alarm.
    """
    half = float(evaluator._conf_thresholds[25])
    return {
        label: float(confidence) if evaluator.results['AP'][label]['auc'] else half
        for label, confidence in evaluator.results['working_confidence'].items()
    }


def _matches(evaluator: Any) -> Iterator[tuple[Any, Any]]:
    """True and predicted box of every match at the working confidence of its class."""
    for label, confidence in _confidences(evaluator).items():
        for name, match in evaluator._stats[confidence]['data'].items():
            pairs = zip(match['tp_idx_gt'][label], match['tp_idx_pred'][label], strict=True)
            for true, predicted in pairs:
                yield (
                    evaluator.gts[name]['objects'][true],
                    evaluator.preds[name]['objects'][predicted],
                )


def _matched_errors(evaluator: Any) -> dict[str, Any]:
    """Mean errors of matched boxes, over all of them and by distance; NaN where none matched.

    Angles are those of the rotation from the true to the predicted box, in the axes of the true
    one, so pitch and roll do not depend on frame or heading. `level_*` is what a level box with
    the true yaw would get: pitch and roll are worth having only below it.
    """
    pairs = list(_matches(evaluator))
    true = {key: _column(pairs, 0, key) for key in ('center', 'dims', 'rotation')}
    predicted = {key: _column(pairs, 1, key) for key in ('center', 'dims', 'rotation')}
    rotation, answer = (
        geometry.rotation_from_quaternion(torch.nn.functional.normalize(x['rotation'], dim=-1))
        for x in (true, predicted)
    )
    psi = geometry.euler_from_rotation(rotation)[0]
    level = geometry.rotation_from_euler(psi, torch.zeros_like(psi), torch.zeros_like(psi))
    yaw, pitch, roll = _angles_between(rotation, answer)
    _, level_pitch, level_roll = _angles_between(rotation, level)
    ratio = true['dims'] / predicted['dims']
    errors = {
        'center_m': (true['center'] - predicted['center']).norm(dim=-1),
        'yaw_rad': yaw,
        'pitch_rad': pitch,
        'roll_rad': roll,
        'level_pitch_rad': level_pitch,
        'level_roll_rad': level_roll,
        'size_similarity': torch.minimum(ratio, 1 / ratio).prod(-1),
    }
    distance_m = true['center'][:, :2].norm(dim=-1).numpy()
    bins = np.digitize(distance_m, RANGE_EDGES_M) - 1
    counts = [int((bins == i).sum()) for i in range(len(RANGE_EDGES_M) - 1)]
    return {
        'boxes': len(pairs),
        'mean': {key: _mean(value.numpy()) for key, value in errors.items()},
        'by_range': {
            'edges_m': list(RANGE_EDGES_M),
            'boxes': counts,
            **{
                key: [_mean(value.numpy()[bins == i]) for i in range(len(counts))]
                for key, value in errors.items()
            },
        },
    }


def _column(pairs: list[tuple[Any, Any]], side: int, key: str) -> torch.Tensor:
    width = 4 if key == 'rotation' else 3
    rows = [getattr(pair[side], key) for pair in pairs]
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, width)


def _angles_between(
    true: torch.Tensor, predicted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    yaw, pitch, roll = geometry.euler_from_rotation(true.transpose(-1, -2) @ predicted)
    return yaw.abs(), pitch.abs(), roll.abs()


def _hits(evaluator: Any, name: str) -> dict[str, int]:
    """True positives, false positives and misses of one image at the working confidences."""
    counts = {'hits': 0, 'false': 0, 'missed': 0}
    for label, confidence in _confidences(evaluator).items():
        match = evaluator._stats[confidence]['data'][name]
        counts['hits'] += len(match['tp_idx_gt'][label])
        counts['false'] += len(match['fp_idx_pred'][label])
        counts['missed'] += len(match['fn_idx_gt'][label])
    return counts


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float('nan')

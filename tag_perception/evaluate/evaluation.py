"""Scoring any predict(image, camera) → Scene on a Cityscapes-3D split, frame by frame.

No scene is kept: masks and depths are added up, boxes go to result files, and the frames that the
report shows are predicted again.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from tag_perception.config import InputError
from tag_perception.core.structures import Camera, Sample, Scene
from tag_perception.data.cityscapes3d import Cityscapes3D, Frame
from tag_perception.evaluate.depth import DepthScore
from tag_perception.evaluate.detection3d import DetectionScore
from tag_perception.evaluate.semantic import SemanticScore

Predict = Callable[[np.ndarray, Camera], Scene]

RESULTS = 'results.json'
DETECTIONS = 'detections'
"""Folder of the official result files and of nothing else: the tool reads every JSON there."""


def evaluate(
    predict: Predict,
    dataset: Cityscapes3D,
    out_dir: Path | str,
    *,
    skip_broken: bool = False,
    limit: int | None = None,
    about: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Score `predict` on the first `limit` frames; writes and returns OUT/results.json.

    A broken frame raises InputError, or is left out and listed. `about` goes to the results as it
    is (name, checkpoint, …). Tasks that scenes or labels lack are None. `fps` is the speed of
    `predict`, one image after the other.
    """
    evaluation = Evaluation(Path(out_dir))
    broken: list[InputError] | None = [] if skip_broken else None
    total = len(dataset.frames[:limit])
    samples = _samples(dataset, limit, broken)
    # disable=None: a bar on a terminal only.
    for frame, sample in tqdm(samples, 'evaluate', total, leave=False, unit='frame', disable=None):
        start = time.perf_counter()
        scene = predict(sample.image, sample.camera)
        evaluation.add(
            frame.path('detection3d'), sample, scene, (time.perf_counter() - start) * 1e3
        )
    if not evaluation.frames:
        raise InputError(f'{dataset.root}: no frame of {dataset.split} could be scored')
    scores = evaluation.results()
    results = {
        **(about or {}),
        'dataset': str(dataset.root),
        'split': dataset.split,
        'fps': 1e3 / scores['predict_ms'],
        **scores,
        'broken': [str(error) for error in broken or ()],
    }
    return write_results(results, Path(out_dir))


@dataclass
class Evaluation:
    """The running scores of one split; use it directly where scenes come from elsewhere."""

    out_dir: Path
    frames: list[dict[str, Any]] = field(default_factory=list)
    """One row of numbers per image."""

    def __post_init__(self) -> None:
        self.semantic, self.depth = SemanticScore(), DepthScore()
        self.detection3d = DetectionScore(self.out_dir / DETECTIONS)
        self._scored = {'semantic': 0, 'depth': 0, 'detection3d': 0}

    def add(self, truth: Path, sample: Sample, scene: Scene, predict_ms: float = np.nan) -> None:
        """Score one image, whose gtBbox3d file is `truth`.

        A task that the scene or the labels lack is passed over.
        """
        scene = scene.cpu()
        row: dict[str, Any] = {'name': sample.name, 'predict_ms': predict_ms}
        if scene.semantic is not None and sample.semantic is not None:
            self._scored['semantic'] += 1
            row['miou'] = self.semantic.update(scene.semantic.numpy(), sample.semantic)
        if scene.depth is not None and sample.depth is not None:
            self._scored['depth'] += 1
            row |= self.depth.update(scene.depth.numpy(), sample.depth, sample.camera)
        if scene.detection3d is not None and sample.detection3d is not None:
            self._scored['detection3d'] += 1
            self.detection3d.update(sample.name, scene.detection3d, sample.camera, truth)
        self.frames.append(row)

    def results(self) -> dict[str, Any]:
        """All scores as plain values: the headline ones first, then by task, then by frame."""
        semantic = self.semantic.results() if self._scored['semantic'] else {}
        depth = self.depth.results() if self._scored['depth'] else {}
        boxes = self.detection3d.results() if self._scored['detection3d'] else {}
        hits = boxes.pop('frames', {})
        frames = [_rated({**row, **hits.get(row['name'], {})}) for row in self.frames]
        return {
            **_headline(semantic, depth, boxes),
            'predict_ms': float(np.median([row['predict_ms'] for row in self.frames])),
            'scored_frames': {'all': len(self.frames), **self._scored},
            'semantic': semantic or None,
            'depth': depth or None,
            'detection3d': boxes or None,
            'frames': frames,
        }


def scene_from_labels(sample: Sample) -> Scene:
    """The scene that a perfect network would report."""
    semantic, depth = (
        None if labels is None else torch.from_numpy(labels)
        for labels in (sample.semantic, sample.depth)
    )
    return Scene(semantic=semantic, depth=depth, detection3d=sample.detection3d)


def write_results(results: dict[str, Any], out_dir: Path) -> dict[str, Any]:
    """Write OUT/results.json with null for every number that is none; returns what was written."""
    plain = _without_nan(results)
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / RESULTS).write_text(json.dumps(plain, indent=1, allow_nan=False))
    return plain


def _samples(
    dataset: Cityscapes3D, limit: int | None, broken: list[InputError] | None
) -> Iterator[tuple[Frame, Sample]]:
    try:
        yield from dataset.samples(limit, broken)
    except InputError as error:
        raise InputError(f'{error} (--skip-broken goes on without such frames)') from error


def _headline(
    semantic: dict[str, Any], depth: dict[str, Any], boxes: dict[str, Any]
) -> dict[str, Any]:
    """The numbers of the paper's tables under fixed names; fractions are 0…1."""
    row = {
        'miou': semantic.get('miou'),
        'rmse_m': depth.get('rmse_m'),
        'rmse_disp_px': depth.get('rmse_disp_px'),
    }
    for matching in ('amodal', 'modal'):
        scores = boxes.get(matching, {'mean': {}, 'classes': {}})
        car = scores['classes'].get('car') or {}
        row |= {
            f'mds_{matching}': scores['mean'].get('ds'),
            f'car_ds_{matching}': car.get('ds'),
            f'map_{matching}': scores['mean'].get('ap'),
        }
    matched = boxes.get('matched', {'mean': {}})['mean']
    return row | {
        'pitch_error_rad': matched.get('pitch_rad'),
        'roll_error_rad': matched.get('roll_rad'),
    }


def _rated(row: dict[str, Any]) -> dict[str, Any]:
    """The row with a rating 0…1: the mean of mIoU, share of depths within 25 %, and box F1."""
    parts = [row.get('miou', np.nan), row.get('delta1', np.nan)]
    boxes = 2 * row.get('hits', 0) + row.get('false', 0) + row.get('missed', 0)
    if boxes:
        parts.append(2 * row['hits'] / boxes)
    known = [value for value in parts if not math.isnan(value)]
    return {**row, 'rating': float(np.mean(known)) if known else np.nan}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

"""A self-contained HTML report on the results of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch

from tag_perception.core.labels import DETECTION_CLASSES
from tag_perception.core.structures import Camera, Objects3D, Sample, Scene
from tag_perception.data.cityscapes3d import Cityscapes3D
from tag_perception.evaluate import figures
from tag_perception.evaluate.evaluation import scene_from_labels
from tag_perception.evaluate.template import PAGE
from tag_perception.overlay import panels

REPORT = 'report.html'
PANEL_WIDTH = 840
SHOWN = 2
"""Frames shown as best, and as worst."""
TERMS = ('ds', 'ap', 'bev_center', 'yaw', 'pitch_roll', 'size')

Attention = Callable[[np.ndarray, Camera], dict[str, np.ndarray]]


def write_report(
    results: dict[str, Any],
    dataset: Cityscapes3D,
    scene_of: Callable[[Sample], Scene],
    out_dir: Path | str,
    attention: Attention | None = None,
) -> Path:
    """Write OUT/report.html; `scene_of` predicts the few frames that are shown once more."""
    best, worst = _best_and_worst(results['frames'])
    index = {name: i for i, name in enumerate(dataset.names)}

    def shown(row: dict[str, Any]) -> dict[str, str]:
        sample = dataset[index[row['name']]]
        picture = _picture(sample, scene_of(sample), results)
        return {'name': row['name'], 'text': _describe(row), 'picture': picture}

    def looked_into(row: dict[str, Any]) -> dict[str, str] | None:
        sample = dataset[index[row['name']]]
        maps = attention(sample.image, sample.camera) if attention else {}
        if not maps:
            return None
        return {'name': row['name'], 'picture': figures.attention(sample.image, maps)}

    page = _environment().from_string(PAGE)
    html = page.render(
        name=results.get('name') or 'Evaluation',
        results=results,
        tiles=_tiles(results),
        terms=TERMS,
        one_bin=_has_single_bin(results),
        figures=_figures(results),
        best=[shown(row) for row in best],
        worst=[shown(row) for row in worst],
        attention=[frame for row in (*best[:1], *worst[:1]) if (frame := looked_into(row))],
    )
    path = Path(out_dir) / REPORT
    path.write_text(html)
    return path


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.ChainableUndefined)
    environment.filters['percent'] = lambda value: _text(value, 100, 1)
    environment.filters['number'] = lambda value, digits: _text(value, 1, digits)
    return environment


def _text(value: Any, factor: float, digits: int) -> str:
    """A number for a table, a dash for none."""
    return f'{factor * value:.{digits}f}' if isinstance(value, (int, float)) else '–'


def _tiles(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Label and value of the headline numbers."""
    rows = [
        ('mIoU', 'miou', 100, ' %'),
        ('depth RMSE', 'rmse_m', 1, ' m'),
        ('disparity RMSE', 'rmse_disp_px', 1, ' px'),
        ('mDS, amodal', 'mds_amodal', 100, ' %'),
        ('mDS, modal', 'mds_modal', 100, ' %'),
        ('car DS, amodal', 'car_ds_amodal', 100, ' %'),
        ('car DS, modal', 'car_ds_modal', 100, ' %'),
        ('mean |pitch| error', 'pitch_error_rad', 180 / math.pi, '°'),
        ('mean |roll| error', 'roll_error_rad', 180 / math.pi, '°'),
    ]
    return [
        (label, _text(results[key], factor, 2) + ('' if results[key] is None else unit))
        for label, key, factor, unit in rows
    ]


def _has_single_bin(results: dict[str, Any]) -> bool:
    if not results['detection3d']:
        return False
    scores = (
        s for m in ('amodal', 'modal') for s in results['detection3d'][m]['classes'].values()
    )
    return any(score and score['range_bins'] == 1 for score in scores)


def _figures(results: dict[str, Any]) -> dict[str, str]:
    made = {}
    if results['detection3d']:
        if any(results['detection3d']['amodal']['classes'].values()):
            made['precision_recall'] = figures.precision_recall(results['detection3d'])
        if results['detection3d']['matched']['boxes']:
            made['box_errors'] = figures.box_errors(results['detection3d']['matched'])
    if results['semantic'] and results['semantic']['miou'] is not None:
        made['class_iou'] = figures.class_iou(results['semantic'])
        made['confusion'] = figures.confusion(results['semantic'])
    if results['depth'] and results['depth']['pixels']:
        made['depth_errors'] = figures.depth_errors(results['depth'])
    return made


def _best_and_worst(rows: list[dict]) -> tuple[list[dict], list[dict]]:
    """Up to SHOWN rows of either end, none of them twice."""
    rated = sorted((row for row in rows if row['rating'] is not None), key=lambda r: -r['rating'])
    best = rated[:SHOWN]
    return best, rated[len(best) :][-SHOWN:][::-1]


def _describe(row: dict[str, Any]) -> str:
    parts = [f'rating {row["rating"]:.3f}']
    if row.get('miou') is not None:
        parts.append(f'mIoU {100 * row["miou"]:.1f} %')
    if row.get('rmse_m') is not None:
        parts.append(f'depth RMSE {row["rmse_m"]:.2f} m')
    if 'hits' in row:
        parts.append(f'boxes: {row["hits"]} found, {row["false"]} false, {row["missed"]} missed')
    return ' · '.join(parts)


def _picture(sample: Sample, scene: Scene, results: dict[str, Any]) -> str:
    """The network's scene above the ground truth, tasks side by side."""
    scene = scene.cpu()
    if scene.detection3d is not None and results['detection3d']:
        confidences = results['detection3d']['confidences']
        boxes = _confident(scene.detection3d, confidences)
        scene = replace(scene, detection3d=boxes)
    truth = scene_from_labels(sample)
    truth = replace(
        truth,
        **{  # only tasks that the network has, so that the columns match
            task: None
            for task in ('semantic', 'depth', 'detection3d')
            if getattr(scene, task) is None
        },
    )
    rows = [
        panels(sample.image, s, sample.camera, panel_width=PANEL_WIDTH) for s in (scene, truth)
    ]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 8), (0, width - row.shape[1]), (0, 0))) for row in rows]
    return figures.picture(np.concatenate(padded))


def _confident(boxes: Objects3D, confidences: dict[str, float]) -> Objects3D:
    limits = torch.tensor([confidences[name] for name in DETECTION_CLASSES])
    return boxes[boxes.score >= limits[boxes.class_id].to(boxes.score)]

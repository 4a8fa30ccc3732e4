"""The report's charts and pictures as data URIs, so that the page needs no other file."""

from __future__ import annotations

import base64
import io
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tag_perception.core.labels import DETECTION_CLASSES, PALETTE, SEMANTIC_CLASSES
from tag_perception.overlay import DETECTION_COLORS

COLORS = {
    name: tuple(0.85 * channel / 255 for channel in color)
    for name, color in zip(DETECTION_CLASSES, DETECTION_COLORS, strict=True)
}
"""The overlay's line colours, darker for a white page."""


def picture(image: np.ndarray) -> str:
    """Data URI of an (H, W, 3) uint8 RGB image, as JPEG."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, 85]
    _, data = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
    return _uri('image/jpeg', data.tobytes())


def precision_recall(detection: dict[str, Any]) -> str:
    """Precision over recall by class, for both matchings; a dot at the working point."""
    figure = Figure(figsize=(10, 5), layout='constrained')
    for axes, matching in zip(
        figure.subplots(1, 2, sharey=True), ('amodal', 'modal'), strict=True
    ):
        for name, score in detection[matching]['classes'].items():
            if score is None:
                continue
            recall, precision = np.array(score['recall']), np.array(score['precision'])
            found = recall > 0
            label = f'{name}: AP {100 * score["ap"]:.1f} %'
            axes.plot(recall[found], precision[found], '.-', color=COLORS[name], label=label)
            if score['ap']:
                # Thresholds are 0, 0.02, … 1, and the working confidence is one of them.
                at = round(score['working_confidence'] * (len(recall) - 1))
                axes.plot(recall[at], precision[at], 'o', markersize=9, color=COLORS[name])
        axes.set(xlim=(0, 1.02), ylim=(0, 1.05), xlabel='recall', ylabel='precision')
        axes.set_title(f'{matching} matching, IoU > 0.7')
        axes.grid(alpha=0.3)
        _legend_below(axes, columns=3)
    return chart(figure)


def box_errors(matched: dict[str, Any]) -> str:
    """Errors of matched boxes over distance: centre, yaw, and tilt beside that of level boxes."""
    ranges, mean = matched['by_range'], matched['mean']
    figure = Figure(figsize=(10, 4.2), layout='constrained')
    panels = (
        ('centre, metres', (('center_m', '3D distance', 'C0', 'o-'),), 1.0),
        ('yaw, degrees', (('yaw_rad', 'yaw', 'C0', 'o-'),), 180 / np.pi),
        (
            'tilt, degrees',
            (
                ('pitch_rad', 'pitch', 'C0', 'o-'),
                ('level_pitch_rad', 'pitch, level box', 'C0', 'o:'),
                ('roll_rad', 'roll', 'C1', 's-'),
                ('level_roll_rad', 'roll, level box', 'C1', 's:'),
            ),
            180 / np.pi,
        ),
    )
    for axes, (title, curves, factor) in zip(figure.subplots(1, 3), panels, strict=True):
        for key, label, color, style in curves:
            values = factor * _numbers(ranges[key])
            caption = f'{label}: mean {factor * _number(mean[key]):.3g}'
            axes.plot(_centers(ranges['edges_m']), values, style, color=color, label=caption)
        axes.set(xlabel='distance in V, m', xlim=(0, ranges['edges_m'][-1]), title=title)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        _legend_below(axes, columns=1)
    return chart(figure)


def depth_errors(depth: dict[str, Any]) -> str:
    """RMSE and relative error over distance, and where the pixels are."""
    ranges = depth['by_range']
    edges = np.array(ranges['edges_m'], float)
    figure = Figure(figsize=(10, 3.6), layout='constrained')
    pixels = _numbers(ranges['pixels'])
    panels = (
        ('RMSE, metres', _numbers(ranges['rmse_m'])),
        ('mean relative error, %', 100 * _numbers(ranges['abs_rel'])),
        ('share of pixels, %', 100 * pixels / max(pixels.sum(), 1)),
    )
    for axes, (title, values) in zip(figure.subplots(1, 3), panels, strict=True):
        axes.bar(edges[:-1], values, np.diff(edges), align='edge', color='C0', edgecolor='white')
        axes.set(xlabel='true depth, m', xlim=(0, edges[-1]), title=title)
        axes.grid(alpha=0.3, axis='y')
    return chart(figure)


def class_iou(semantic: dict[str, Any]) -> str:
    """IoU of every class as a bar in its colour; absent classes have no bar."""
    figure = Figure(figsize=(10, 3.6), layout='constrained')
    axes = figure.subplots()
    values = 100 * _numbers([semantic['iou'][name] for name in SEMANTIC_CLASSES])
    columns = np.arange(len(values))
    axes.bar(columns, values, color=PALETTE[: len(values)] / 255.0)
    for x, value in zip(columns, values, strict=True):
        text = 'absent' if np.isnan(value) else f'{value:.1f}'
        height = 0 if np.isnan(value) else value
        axes.annotate(text, (x, height), (0, 3), textcoords='offset points', ha='center', size=8)
    axes.set_xticks(columns, SEMANTIC_CLASSES, rotation=35, ha='right', fontsize=9)
    axes.set(ylabel='IoU, %', ylim=(0, 110))
    return chart(figure)


def confusion(semantic: dict[str, Any]) -> str:
    """Where the pixels of each true class went, in percent of the row."""
    counts = np.array(semantic['confusion'], float)
    rows = counts.sum(1, keepdims=True)
    shares = 100 * np.divide(counts, rows, out=np.full_like(counts, np.nan), where=rows > 0)
    figure = Figure(figsize=(10, 8), layout='constrained')
    axes = figure.subplots()
    axes.imshow(np.nan_to_num(shares), cmap='Blues', vmin=0, vmax=100, aspect='auto')
    for (y, x), share in np.ndenumerate(shares):
        if share >= 0.5:
            color = 'white' if share > 60 else 'black'
            axes.text(x, y, f'{share:.0f}', ha='center', va='center', size=7, color=color)
    names = [*SEMANTIC_CLASSES, 'void']
    axes.set_xticks(range(len(names)), names, rotation=45, ha='right', fontsize=8)
    axes.set_yticks(range(len(SEMANTIC_CLASSES)), SEMANTIC_CLASSES, fontsize=8)
    axes.set(xlabel='predicted', ylabel='true, % of the row')
    return chart(figure)


def attention(image: np.ndarray, maps: dict[str, np.ndarray]) -> str:
    """Paper Fig. 4: h and beta beside the image, then alpha·h and alpha·h + beta of every task.

    A map is the mean over the channels, coloured from its 1st (blue) to its 99th percentile (red).
    """
    tasks = [key.split('/')[1] for key in maps if key.startswith('alpha_h/')]
    figure = Figure(figsize=(10, 5.6), layout='constrained')
    grid = figure.subplots(3, max(len(tasks), 3), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    grid[0, 0].imshow(cv2.resize(image, (512, 256), interpolation=cv2.INTER_AREA), aspect='auto')
    grid[0, 0].set_title('image', fontsize=9)
    _heat(grid[0, 1], maps['h'], 'h, shared by all tasks')
    if 'beta' in maps:
        _heat(grid[0, 2], maps['beta'], 'β')
    for column, task in enumerate(tasks):
        _heat(grid[1, column], maps[f'alpha_h/{task}'], f'α·h, {task}')
        _heat(grid[2, column], maps[f'h_t/{task}'], f'α·h + β, {task}')
    return _png(figure)


def _legend_below(axes: Axes, columns: int) -> None:
    """Curves may be anywhere within the axes, so the legend is not."""
    axes.legend(fontsize=8, ncols=columns, loc='upper center', bbox_to_anchor=(0.5, -0.17))


def _heat(axes: Axes, values: np.ndarray, title: str) -> None:
    low, high = np.percentile(values, (1, 99))
    axes.imshow(values, cmap='turbo', vmin=low, vmax=max(high, low + 1e-9), aspect='auto')
    axes.set_title(f'{title} ({low:.3g} … {high:.3g})', fontsize=9)


def _centers(edges: list[float]) -> np.ndarray:
    return (np.array(edges[:-1], float) + np.array(edges[1:], float)) / 2


def _number(value: float | None) -> float:
    return float('nan') if value is None else float(value)


def _numbers(values: list[float | None]) -> np.ndarray:
    return np.array([_number(value) for value in values])


def chart(figure: Figure) -> str:
    """Data URI of a figure, as SVG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='svg')
    return _uri('image/svg+xml', buffer.getvalue())


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=110)
    return _uri('image/png', buffer.getvalue())


def _uri(kind: str, data: bytes) -> str:
    return f'data:{kind};base64,{base64.b64encode(data).decode()}'

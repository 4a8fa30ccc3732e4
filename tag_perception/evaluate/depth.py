"""Depth errors over all pixels of a set, in metres and in disparity pixels, at full resolution.

The RMSE is taken over the pixels of the whole set, not averaged over images. Metres: pixels with a
true depth below 80 m. Disparity: every pixel with a true disparity. Where the network says there
is no depth (NaN, sky) but the truth has one, its answer counts as 80 m.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tag_perception.core.structures import Camera

CAP_M = 80.0
"""Customary range of the metric, and the distance that a missing answer counts as."""
NEAREST_M = 1.0
"""Predictions nearer than this count as this: one pixel of 0 m is an infinite disparity."""
RANGE_EDGES_M = (0, 5, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80)
"""Bounds of the range bins."""
BINS = len(RANGE_EDGES_M) - 1


class DepthScore:
    """Adds up images."""

    def __init__(self) -> None:
        self._count = np.zeros(BINS, np.int64)
        self._squares = np.zeros(BINS)
        self._absolute = np.zeros(BINS)
        self._relative = np.zeros(BINS)
        self._close = np.zeros(BINS, np.int64)
        self._missing = 0
        self._disparity_count = 0
        self._disparity_squares = 0.0

    def update(self, predicted: np.ndarray, truth: np.ndarray, camera: Camera) -> dict[str, float]:
        """Add (H, W) float32 metres, NaN for none; returns rmse_m and delta1 of this image."""
        if predicted.shape != truth.shape:
            raise ValueError(f'predicted depth is {predicted.shape}, the truth {truth.shape}')
        measured = truth > 0  # False for NaN
        true = truth[measured].astype(np.float64)
        answer = predicted[measured].astype(np.float64)
        silent = ~np.isfinite(answer)
        answer = np.where(silent, CAP_M, answer)
        self._add_disparities(answer, true, camera)

        near = true < CAP_M
        true, answer = true[near], answer[near]
        error = np.abs(answer - true)
        close = np.maximum(answer / true, true / np.maximum(answer, 1e-6)) < 1.25
        self._missing += int(silent[near].sum())
        bins = np.searchsorted(RANGE_EDGES_M, true, side='right') - 1
        self._count += np.bincount(bins, minlength=BINS)
        self._close += np.bincount(bins[close], minlength=BINS)
        for total, values in (
            (self._squares, error**2),
            (self._absolute, error),
            (self._relative, error / true),
        ):
            total += np.bincount(bins, values, minlength=BINS)
        if not true.size:
            return {'rmse_m': np.nan, 'delta1': np.nan}
        return {'rmse_m': float(np.sqrt(np.mean(error**2))), 'delta1': float(close.mean())}

    def _add_disparities(self, answer: np.ndarray, true: np.ndarray, camera: Camera) -> None:
        if camera.baseline_m is None:
            return
        fb = camera.fx * camera.baseline_m
        error = fb / np.maximum(answer, NEAREST_M) - fb / true
        self._disparity_count += true.size
        self._disparity_squares += float(np.sum(error**2))

    def results(self) -> dict[str, Any]:
        """Errors over all pixels and by range; NaN where there was no pixel."""
        with np.errstate(invalid='ignore', divide='ignore'):
            count = self._count.sum()
            squares = np.float64(self._disparity_squares)
            return {
                'rmse_m': np.sqrt(self._squares.sum() / count),
                'rmse_disp_px': np.sqrt(squares / self._disparity_count),
                'abs_m': self._absolute.sum() / count,
                'abs_rel': self._relative.sum() / count,
                'delta1': self._close.sum() / count,
                'missing': self._missing / count,
                'pixels': int(count),
                'by_range': {
                    'edges_m': list(RANGE_EDGES_M),
                    'pixels': self._count.tolist(),
                    'rmse_m': np.sqrt(self._squares / self._count).tolist(),
                    'abs_m': (self._absolute / self._count).tolist(),
                    'abs_rel': (self._relative / self._count).tolist(),
                },
            }

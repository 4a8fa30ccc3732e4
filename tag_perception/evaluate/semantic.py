"""mIoU of the official pixel evaluator, from one running confusion matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from tag_perception.core.labels import SEMANTIC_CLASSES, UNLABELLED

CLASSES = len(SEMANTIC_CLASSES)


class SemanticScore:
    """Adds up images. Void ground truth is not scored; predicted void counts as a miss."""

    def __init__(self) -> None:
        self.confusion = np.zeros((CLASSES, CLASSES + 1), np.int64)
        """Pixels by true class (row) and predicted class (column); the last column is void."""

    def update(self, predicted: np.ndarray, truth: np.ndarray) -> float:
        """Add (H, W) uint8 train ids; returns the mIoU of this image, NaN if all is void."""
        if predicted.shape != truth.shape:
            raise ValueError(f'predicted mask is {predicted.shape}, the truth {truth.shape}')
        scored = truth != UNLABELLED
        columns = np.minimum(predicted[scored].astype(np.int64), CLASSES)
        cells = truth[scored] * np.int64(CLASSES + 1) + columns
        counts = np.bincount(cells, minlength=self.confusion.size)
        confusion = counts.reshape(self.confusion.shape)
        self.confusion += confusion
        return mean_iou(confusion)

    def results(self) -> dict[str, Any]:
        """mIoU, IoU by class (None where a class is in neither), pixel accuracy, confusion."""
        total = self.confusion.sum()
        return {
            'miou': mean_iou(self.confusion),
            'pixel_accuracy': np.trace(self.confusion) / total if total else np.nan,
            'iou': dict(zip(SEMANTIC_CLASSES, class_iou(self.confusion).tolist(), strict=True)),
            'confusion': self.confusion.tolist(),
        }


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """(19,) IoU = TP / (TP + FP + FN); NaN for a class neither labelled nor predicted."""
    hits = np.diag(confusion).astype(float)
    union = confusion.sum(1) + confusion[:, :CLASSES].sum(0) - hits
    return np.divide(hits, union, out=np.full(CLASSES, np.nan), where=union > 0)


def mean_iou(confusion: np.ndarray) -> float:
    """Mean over the classes that occur; NaN if none does."""
    iou = class_iou(confusion)
    return float(iou[~np.isnan(iou)].mean()) if not np.isnan(iou).all() else float('nan')

"""Draws docs/results.jpg: what the shipped weights say of a street they never saw, and the truth.

Run it when the weights change: python docs/draw_results.py
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tag_perception.data.street import render_frame
from tag_perception.evaluate.evaluation import scene_from_labels
from tag_perception.overlay import panels
from tag_perception.runtime.engine import Engine, EngineConfig

HELD_OUT_SEED, FRAME = 1000, 1
"""Of the streets that models/README.md scores the weights on."""


def draw() -> np.ndarray:
    """(H, W, 3) uint8 RGB: image with boxes, mask, depth; the network above the ground truth."""
    sample = render_frame(HELD_OUT_SEED, frame=FRAME, size=(512, 1024)).sample
    seen = Engine(EngineConfig(device='cpu'))(sample.image, sample.camera)
    rows = {'network': seen, 'ground truth': scene_from_labels(sample)}
    return np.vstack(
        [
            panels(sample.image, scene, sample.camera, panel_width=768, note=note)
            for note, scene in rows.items()
        ]
    )


if __name__ == '__main__':
    path = Path(__file__).with_name('results.jpg')
    cv2.imwrite(str(path), draw()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    print(path)

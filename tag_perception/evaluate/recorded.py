"""Scoring what a node has published: accuracy over the wire, by the lines that score a network."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tag_perception.config import InputError
from tag_perception.core.structures import Sample, Scene
from tag_perception.evaluate.evaluation import Evaluation, write_results


class RecordedFrame(NamedTuple):
    """Labels, and the scene that was published for them."""

    sample: Sample
    scene: Scene
    annotation: str | None
    """The gtBbox3d document (JSON), which the official tool reads."""
    latency_ms: float
    """From the image's stamp to the results; NaN where unknown."""


def evaluate_recorded(
    frames: Iterable[RecordedFrame], out_dir: Path | str, about: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Score every frame; writes and returns OUT/results.json as `evaluate` does.

    Raises InputError where nothing can be scored.
    """
    evaluation = Evaluation(Path(out_dir))
    with tempfile.TemporaryDirectory() as folder:
        for frame in frames:
            path = Path(folder, f'{frame.sample.name}_gtBbox3d.json')
            if frame.annotation is not None:
                json.loads(frame.annotation)
                path.write_text(frame.annotation)
            evaluation.add(path, frame.sample, frame.scene, frame.latency_ms)
        if not evaluation.frames:
            raise InputError('no frame has both results and labels: are these bags of one drive?')
        results = {**(about or {}), **evaluation.results(), 'broken': []}
    if not any(results[task] for task in ('semantic', 'depth', 'detection3d')):
        raise InputError(
            'the ground truth has no labels: make it with make-bag of a labelled tree'
        )
    return write_results(results, Path(out_dir))

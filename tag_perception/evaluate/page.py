"""`show`: one self-contained HTML page on what a node published, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from tag_perception.config import InputError
from tag_perception.core.labels import DETECTION_CLASSES
from tag_perception.core.structures import Camera, Scene
from tag_perception.evaluate import figures
from tag_perception.overlay import panels

PANEL_WIDTH = 640
MAX_PICTURES = 24
"""Frames that are drawn: every one, or evenly spaced ones of a long recording."""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #f4f5f7; margin: 0; }
main { max-width: 1960px; margin: 0 auto; padding: 20px; }
section { background: #fff; border: 1px solid #dfe2e6; border-radius: 8px; padding: 14px 20px;
  margin: 14px 0; }
h1 { margin: 4px 0 0; font-size: 24px; } h2 { margin: 4px 0 8px; font-size: 18px; }
.note { color: #59636e; font-size: 13px; margin: 4px 0; }
img { width: 100%; display: block; } .plot { max-width: 1100px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 2px 14px 2px 0; text-align: right; }
th:first-child, td:first-child { text-align: left; } th { color: #59636e; font-weight: 600; }
.bar { display: flex; gap: 12px; align-items: center; } .bar input { flex: 1; }
.frames.ready article { display: none; } .frames.ready article.on { display: block; }
</style></head>
<body><main>
<h1>{{ title }}</h1>
<p class="note">{{ count }} frames with results,
{{ seconds | round(1) }} s{% if count > frames | length %} · {{ frames | length }} of them drawn
{%- endif %}</p>
<section><div class="bar"><button id="back" title="left arrow key">◀</button>
<input id="slider" type="range" min="0" max="{{ frames | length - 1 }}" value="0"
 aria-label="frame"><button id="on" title="right arrow key">▶</button>
<output id="which"></output></div>
<div class="frames" id="frames">
{%- for frame in frames %}
<article><p class="note">frame {{ frame.index }} · stamp {{ frame.stamp }} s</p>
<img src="{{ frame.picture }}" alt="boxes, mask and depth of frame {{ frame.index }}">
{%- if frame.boxes is none %}<p>detections: none published</p>
{%- else %}<table><tr><th>class</th><th>score</th><th>distance</th><th>± along the ray</th></tr>
{%- for box in frame.boxes %}<tr><td>{{ box.name }}</td><td>{{ '%.2f' % box.score }}</td>
<td>{{ '%.1f' % box.distance_m }} m</td><td>{{ '%.1f' % box.sigma_m }} m</td></tr>{% endfor %}
</table>{% if not frame.boxes %}<p>no object</p>{% endif %}{% endif %}</article>
{%- endfor %}
</div></section>
<section><h2>Latency</h2>
{%- if latency %}<img class="plot" id="latency" src="{{ latency }}" alt="latency by stage">
<table><tr><th>stage</th><th>p50</th><th>p95</th><th>largest</th></tr>
{%- for row in stages %}<tr><td>{{ row.name }}</td><td>{{ '%.1f' % row.p50 }} ms</td>
<td>{{ '%.1f' % row.p95 }} ms</td><td>{{ '%.1f' % row.largest }} ms</td></tr>{% endfor %}</table>
{%- else %}<p>not recorded</p>{% endif %}</section>
</main>
<script>
const articles = [...document.querySelectorAll('article')];
const slider = document.getElementById('slider');
function show(index) {
  slider.value = Math.min(Math.max(index, 0), articles.length - 1);
  articles.forEach((article, i) => article.classList.toggle('on', i === +slider.value));
  document.getElementById('which').value = `${+slider.value + 1} / ${articles.length}`;
}
slider.addEventListener('input', () => show(+slider.value));
document.getElementById('back').addEventListener('click', () => show(+slider.value - 1));
document.getElementById('on').addEventListener('click', () => show(+slider.value + 1));
document.addEventListener('keydown', event => {
  if (event.target !== slider && event.key === 'ArrowLeft') show(+slider.value - 1);
  if (event.target !== slider && event.key === 'ArrowRight') show(+slider.value + 1);
});
document.getElementById('frames').classList.add('ready');
show(0);
addEventListener('load', () => {
  const seen = [...document.images].filter(image => image.naturalWidth > 0).length;
  document.body.dataset.pictures = `${seen} of ${document.images.length}`;
});
</script>
</body></html>
"""


@dataclass(frozen=True)
class ShownFrame:
    """What the page shows of one frame."""

    stamp_ns: int
    image: np.ndarray
    """(H, W, 3) uint8 RGB."""
    camera: Camera | None
    scene: Scene
    latency_ms: dict[str, float]
    """By stage, and `total`; empty where unknown."""


def write_page(
    frames: Iterable[ShownFrame], path: Path | str, title: str, max_pictures: int = MAX_PICTURES
) -> int:
    """Write the page to the file `path`; returns the number of frames. Raises InputError."""
    drawn: list[dict[str, Any]] = []
    latencies: list[dict[str, float]] = []
    stamps: list[int] = []
    step = 1
    for index, frame in enumerate(frames):
        stamps.append(frame.stamp_ns)
        latencies.append(frame.latency_ms)
        if index % step == 0:
            drawn.append(_draw(index, frame))
        if len(drawn) > max_pictures:  # from now on half as many
            drawn, step = drawn[::2], 2 * step
    if not stamps:
        raise InputError('no frame has results: are these bags of one drive?')
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    html = environment.from_string(PAGE).render(
        title=title,
        count=len(stamps),
        seconds=(stamps[-1] - stamps[0]) / 1e9,
        frames=drawn,
        latency=_plot(latencies, stamps),
        stages=_stages(latencies),
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding='utf-8')
    return len(stamps)


def _draw(index: int, frame: ShownFrame) -> dict[str, Any]:
    picture = panels(frame.image, frame.scene, frame.camera, panel_width=PANEL_WIDTH)
    boxes = frame.scene.detection3d
    rows = None
    if boxes is not None:
        rows = [
            {
                'name': DETECTION_CLASSES[int(box.class_id)],
                'score': float(box.score),
                'distance_m': float(box.center_cam.norm()),
                'sigma_m': float(box.depth_sigma_m),
            }
            for box in (boxes[i] for i in range(len(boxes)))
        ]
    return {
        'index': index,
        'stamp': f'{frame.stamp_ns / 1e9:.3f}',
        'picture': figures.picture(picture),
        'boxes': rows,
    }


def _stages(latencies: list[dict[str, float]]) -> list[dict[str, Any]]:
    rows = []
    for name in dict.fromkeys(name for row in latencies for name in row):
        values = np.array([row[name] for row in latencies if name in row])
        p50, p95 = np.percentile(values, (50, 95))
        rows.append({'name': name, 'p50': p50, 'p95': p95, 'largest': values.max()})
    return rows


def _plot(latencies: list[dict[str, float]], stamps: list[int]) -> str | None:
    """Stacked stages over time as a data URI; None where no frame has a latency."""
    found = dict.fromkeys(name for row in latencies for name in row)
    names = [name for name in found if name != 'total' and '/' not in name]  # x/y: part of x
    if not names:
        return None
    seconds = (np.array(stamps) - stamps[0]) / 1e9
    values = np.array([[row.get(name, np.nan) for row in latencies] for name in names])
    figure = Figure(figsize=(11, 3.6), layout='constrained')
    axes = figure.subplots()
    bottom = np.zeros(len(seconds))
    width = 0.9 * float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.05
    for index, (name, row) in enumerate(zip(names, np.nan_to_num(values), strict=True)):
        axes.bar(seconds, row, width, bottom, label=name, color=f'C{index % 10}')
        bottom += row
    axes.set(xlabel='time of the recording, seconds', ylabel='milliseconds')
    axes.grid(axis='y', alpha=0.3)
    axes.legend(fontsize=8, ncols=min(len(names), 9), loc='upper right')
    return figures.chart(figure)

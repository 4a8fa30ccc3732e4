"""Results side by side: ΔT of paper Eq. 6, and the paper's Fig. 1, ΔT over frames per second."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tag_perception.config import InputError
from tag_perception.evaluate.evaluation import RESULTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = ('mds_amodal', 'miou', 'rmse_m')
"""One metric per task, the paper's choice as far as it is known."""
REAL_TIME_FPS = 30.0
MARKERS = 'os^D'
"""With the ten colours: forty networks that can be told apart."""


@dataclass(frozen=True)
class Entry:
    """One network's results."""

    name: str
    values: Mapping[str, Any]
    fps: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of the comparison."""

    name: str
    values: tuple[float, ...]
    """Of the compared metrics."""
    delta_t: float
    """Percent."""
    fps: float | None


def delta_t(values: Mapping[str, float], baseline: Mapping[str, float]) -> float:
    """ΔT in percent over the metrics of `baseline` (paper Eq. 6); an RMSE is better when lower."""
    gains = [
        (-1 if name.startswith('rmse') else 1) * (values[name] - single) / single
        for name, single in baseline.items()
    ]
    return 100 * sum(gains) / len(gains)


def read_entries(paths: Sequence[Path | str], speeds: Sequence[str] = ()) -> list[Entry]:
    """Results files, or folders that hold one; `speeds` are "name=fps" and override the files.

    Entries of the same name get their folder's behind it.
    """
    files = [Path(path, RESULTS) if Path(path).is_dir() else Path(path) for path in paths]
    entries = [_read_entry(file) for file in files]
    names = Counter(entry.name for entry in entries)
    entries = [
        replace(entry, name=f'{entry.name} ({_folder(file)})') if names[entry.name] > 1 else entry
        for entry, file in zip(entries, files, strict=True)
    ]
    fps = dict(_parse_speed(text) for text in speeds)
    for name in fps:
        if name not in {entry.name for entry in entries}:
            known = ', '.join(entry.name for entry in entries)
            raise InputError(f'--fps: no results named {name!r}; there are: {known}')
    return [replace(entry, fps=fps.get(entry.name, entry.fps)) for entry in entries]


def compare(
    entries: Sequence[Entry],
    baselines: Sequence[Entry] = (),
    metrics: Sequence[str] = METRICS,
) -> list[Row]:
    """One row per entry; without `baselines` the first entry is the baseline.

    Of several baselines (single-task networks) the first that has a metric gives it.
    """
    reference = {
        name: next(
            (_metric(e, name) for e in baselines or entries[:1] if e.values.get(name) is not None),
            None,
        )
        for name in metrics
    }
    for name, value in reference.items():
        if not value:
            raise InputError(f'{name}: no baseline has it above 0; choose others with --metrics')
    rows = []
    for entry in entries:
        values = {name: _metric(entry, name) for name in metrics}
        change = delta_t(values, reference)  # type: ignore[arg-type]
        rows.append(Row(entry.name, tuple(values.values()), change, entry.fps))
    return rows


def format_rows(rows: Sequence[Row], metrics: Sequence[str] = METRICS) -> str:
    """The comparison as a text table."""
    width = max(len('network'), *(len(row.name) for row in rows)) + 2
    lines = [f'{"network":<{width}}' + ''.join(f'{m:>14}' for m in (*metrics, 'ΔT %', 'FPS'))]
    for row in rows:
        cells = [f'{value:.4f}' for value in row.values]
        cells += [f'{row.delta_t:+.2f}', '–' if row.fps is None else f'{row.fps:.1f}']
        lines.append(f'{row.name:<{width}}' + ''.join(f'{cell:>14}' for cell in cells))
    return '\n'.join(lines)


def draw(rows: Sequence[Row], path: Path | str) -> None:
    """The paper's Fig. 1: ΔT over FPS, to a file of any type that matplotlib writes."""
    figure = _figure(rows)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise InputError(f'{path}: cannot draw there: {error}') from error


def _figure(rows: Sequence[Row]) -> Figure:
    from matplotlib.figure import Figure

    points = []
    for row in rows:
        if row.fps is None:
            given = shlex.quote(f'{row.name}=VALUE')
            raise InputError(f'{row.name}: no "fps" in its results; give --fps {given}')
        points.append((row.fps, row.delta_t))
    figure = Figure(figsize=(7, 5 + 0.1 * len(rows)), layout='constrained')
    axes = figure.subplots()
    axes.axhline(0, color='0.6', linewidth=1, zorder=1)
    axes.axvline(REAL_TIME_FPS, color='0.6', linewidth=1, linestyle='--', zorder=1)
    for index, (row, point) in enumerate(zip(rows, points, strict=True)):
        marker = MARKERS[index // 10 % len(MARKERS)]
        text = f'{row.name}: {row.delta_t:+.2f} %, {point[0]:.1f} FPS'
        axes.plot(*point, f'C{index % 10}{marker}', markersize=9, label=text)
    # Names beside the points would hide one another where networks are alike.
    figure.legend(loc='outside lower center', ncols=2, fontsize=8)
    axes.margins(0.18)
    axes.set(
        xlabel=f'frames per second (dashed: real time, {REAL_TIME_FPS:g})',
        ylabel='ΔT in % of the baseline (higher is better)',
    )
    return figure


def _read_entry(path: Path) -> Entry:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f'{path}: not a results file of evaluate: {error}') from error
    if not isinstance(values, dict):
        raise InputError(f'{path}: not a results file of evaluate')
    return Entry(str(values.get('name') or _folder(path)), values, values.get('fps'))


def _folder(file: Path) -> str:
    return file.absolute().parent.name


def _parse_speed(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition('=')
    try:
        fps = float(value)
    except ValueError:
        fps = 0.0
    if not name or not 0 < fps < float('inf'):
        raise InputError(f'--fps {text!r} is not of the form name=value with a positive value')
    return name, fps


def _metric(entry: Entry, name: str) -> float:
    value = entry.values.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f'{entry.name}: no {name} in its results; choose others with --metrics')
    return float(value)

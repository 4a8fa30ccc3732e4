"""Repeated trainings under equal budgets, and the table that compares them.

A study file names one experiment, what every run changes in it, and the seeds. Runs that have
results are skipped and a run that was killed goes on, so the same command finishes a study.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from tag_perception import config as configuration
from tag_perception.config import ConfigError, InputError
from tag_perception.learn.configuration import read_experiment
from tag_perception.learn.saving import LAST_WEIGHTS
from tag_perception.learn.training import train

RESULTS = 'results.json'
"""What the evaluation of a run leaves in its folder."""

Evaluate = Callable[[Path, Path], Mapping[str, Any]]
"""(weights, folder) → scores; the folder receives the results file."""
DeltaT = Callable[[Mapping[str, float], Mapping[str, float]], float]
"""(scores, single-task scores) → ΔT in percent, paper Eq. 6."""


@dataclass(frozen=True)
class StudyConfig:
    """What is repeated, and how it is told apart."""

    experiment: str
    """Experiment file, relative to the study file."""
    runs: dict[str, Any]
    """Name → list of "a.b=c" that make the run."""
    singles: dict[str, str]
    """Metric → name of the run whose single task it measures: the baseline of ΔT."""
    seeds: tuple[int, ...] = (0, 1, 2)
    common: tuple[str, ...] = ()
    """Overrides of every run: the equal budget."""
    output: str = 'out/study'
    evaluation: str = ''
    """Labelled tree whose split val scores all runs."""

    def __post_init__(self) -> None:
        for name, overrides in self.runs.items():
            if not isinstance(overrides, list) or not all(isinstance(o, str) for o in overrides):
                raise ConfigError(f'runs.{name}: expected a list of "a.b=c"')
        for metric, name in self.singles.items():
            if name not in self.runs:
                raise ConfigError(f'singles.{metric}: no run is called {name!r}')


@dataclass(frozen=True)
class Line:
    """One kind of run: mean and spread over its seeds of every metric that it has, and of ΔT."""

    name: str
    values: Mapping[str, tuple[float, float]]
    delta_t: tuple[float, float] | None
    """Percent; None where a run has not all metrics."""
    seeds: int


def read_study(path: Path | str, overrides: Sequence[str] = ()) -> StudyConfig:
    """The study of a file; `experiment` becomes a path. Raises ConfigError (one line)."""
    config = configuration.load(StudyConfig, path, overrides)
    experiment = str(Path(path).parent / config.experiment)
    return configuration.from_dict(
        StudyConfig, {**configuration.to_dict(config), 'experiment': experiment}
    )


def run_study(config: StudyConfig, evaluate: Evaluate, report: Callable[[str], None]) -> None:
    """Train and score whatever has no results yet; `report` hears of each run."""
    for seed in config.seeds:  # seed by seed: an unfinished study compares equal things
        for name, overrides in config.runs.items():
            folder = _folder(config, name, seed)
            if (folder / RESULTS).exists():
                report(f'{name}, seed {seed}: done before')
                continue
            report(f'{name}, seed {seed}')
            extra = (*config.common, *overrides, f'seed={seed}', f'output={folder}')
            train(read_experiment(config.experiment, extra))
            evaluate(folder / LAST_WEIGHTS, folder)


def collect(config: StudyConfig, delta_t: DeltaT) -> list[Line]:
    """The lines of all runs that have results. Raises InputError where a baseline has none."""
    found = {name: _results(config, name) for name in config.runs}
    baseline = {}
    for metric, name in config.singles.items():
        if not found[name]:
            raise InputError(f'{config.output}: {name} has no results yet; run the study first')
        baseline[metric] = mean(float(result[metric]) for result in found[name])
    lines = []
    for name, results in found.items():
        if not results:
            continue
        values = {
            metric: _spread([float(result[metric]) for result in results])
            for metric in config.singles
            if all(result.get(metric) is not None for result in results)
        }
        change = None
        if len(values) == len(config.singles):
            change = _spread([delta_t(result, baseline) for result in results])
        lines.append(Line(name, values, change, len(results)))
    return lines


def format_lines(lines: Sequence[Line], metrics: Sequence[str]) -> str:
    """A Markdown table: mean ± standard deviation over the seeds."""
    rows = [['run', *metrics, 'ΔT %', 'seeds']]
    for line in lines:
        cells = [_cell(line.values.get(metric), '.4f') for metric in metrics]
        rows.append([line.name, *cells, _cell(line.delta_t, '+.2f'), str(line.seeds)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rows.insert(1, ['-' * width for width in widths])
    return '\n'.join(
        '| ' + ' | '.join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + ' |'
        for row in rows
    )


def _folder(config: StudyConfig, name: str, seed: int) -> Path:
    return Path(config.output) / f'{name}_seed{seed}'


def _results(config: StudyConfig, name: str) -> list[dict[str, Any]]:
    paths = [_folder(config, name, seed) / RESULTS for seed in config.seeds]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return mean(values), stdev(values) if len(values) > 1 else float('nan')


def _cell(value: tuple[float, float] | None, style: str) -> str:
    return '–' if value is None else f'{value[0]:{style}} ± {value[1]:{style.lstrip("+")}}'

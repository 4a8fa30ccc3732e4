"""How fast the engine is, measured: every contender in turn, round after round, in one run.

Contenders that take turns meet the same disturbances, so the ratios between their medians hold
where the times themselves do not. `p50_ms` is the whole way from the image to the Scene, both on
the host; `network_p50_ms` is the network alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from tag_perception.config import InputError
from tag_perception.core.network import PRESETS, Network, NetworkConfig, build_network
from tag_perception.core.structures import Camera
from tag_perception.runtime import roofline
from tag_perception.runtime.contenders import EAGER, build_best, build_contenders
from tag_perception.runtime.machine import machine
from tag_perception.runtime.runner import Runner

PAPER_FPS = {
    'dla34_detection3d': 17.4, 'dla34_semantic': 17.8, 'dla34_depth': 17.8, 'dla34': 17.3,
    'resnet50': 12.4, 'icnet': 21.7, 'ddrnet23_slim': 50.9, 'ddrnet23': 30.1, 'ddrnet39': 20.3,
    'pidnet_s': 42.9, 'pidnet_m': 24.9, 'pidnet_l': 20.4, 'tag_without_tag': 30.8, 'tag': 30.2,
}  # fmt: skip
"""Paper Table II: network alone, Titan RTX, 1024×2048, batch 1."""
SINGLES = ('dla34_detection3d', 'dla34_semantic', 'dla34_depth')
THREE_SINGLES = '3 × dla34'
"""What a user without a multi-task network runs: one network per task, one after the other."""
WARM_UP = 2


@dataclass(frozen=True)
class Row:
    """One contender on one network, size and batch; times are of the whole batch."""

    engine: str
    preset: str
    size: str
    """Height×width of image and network input."""
    device: str
    batch: int
    rounds: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    min_ms: float
    max_ms: float
    network_p50_ms: float
    ratio_to_eager: float | None
    """p50 of eager fp32 in the same run by this p50; None where eager does not take part."""
    network_ratio_to_eager: float | None
    fps: float
    """Images per second, from the p50."""
    stages_ms: Mapping[str, float]
    """Median of each stage."""
    roofline_share: float | None = None
    """Least possible time of the network alone by its p50."""
    paper_fps: float | None = None


def benchmark_engine(
    presets: Sequence[str],
    size: tuple[int, int] | None,
    batches: Sequence[int],
    rounds: int,
    device: torch.device,
) -> list[Row]:
    """Every contender on every preset at `size` (None: the preset's own) and batch."""
    _check_counts(rounds, batches)
    rows = []
    for config, preset in [(sized(preset, size), preset) for preset in presets]:
        contenders = build_contenders(untrained(config), device)
        dtypes = {name: _dtype(name) for name in contenders}
        rates = {d: roofline.measure_rates(device, d) for d in set(dtypes.values())}
        for batch in batches:
            samples = measure(contenders, config.input_size, batch, rounds)
            for name, sample in samples.items():
                work = roofline.measure_work(config, 'dense' not in name and 'eager' not in name)
                dtype = dtypes[name]
                least_ms = batch * work.roofline_ms(rates[dtype], dtype.itemsize)
                row = _row(name, preset, config, device, batch, sample, samples.get(EAGER))
                rows.append(replace(row, roofline_share=least_ms / row.network_p50_ms))
        for contender in contenders.values():
            contender.close()
    return rows


def benchmark_baselines(
    presets: Sequence[str], size: tuple[int, int], rounds: int, device: torch.device
) -> list[Row]:
    """Each network in the engine that serves it best, and the three single tasks in a row."""
    _check_counts(rounds, [1])
    configs = {preset: sized(preset, size) for preset in presets}
    runners = {preset: build_best(untrained(config), device) for preset, config in configs.items()}
    samples = measure(runners, size, 1, rounds)
    rows = [
        replace(
            _row(runners[name].backend, name, configs[name], device, 1, sample, None),
            paper_fps=PAPER_FPS.get(name),
        )
        for name, sample in samples.items()
    ]
    if set(SINGLES) <= set(samples):
        together = Sample.sum([samples[name] for name in SINGLES])
        first = SINGLES[0]
        backend = runners[first].backend
        rows.append(_row(backend, THREE_SINGLES, configs[first], device, 1, together, None))
    for runner in runners.values():
        runner.close()
    return rows


@dataclass
class Sample:
    """The measured rounds of one contender."""

    total_ms: list[float]
    stages_ms: list[dict[str, float]]

    @staticmethod
    def sum(samples: Sequence[Sample]) -> Sample:
        """What running all of them one after the other takes."""
        return Sample(
            [sum(times) for times in zip(*(s.total_ms for s in samples), strict=True)],
            [
                {stage: sum(part[stage] for part in parts) for stage in parts[0]}
                for parts in zip(*(s.stages_ms for s in samples), strict=True)
            ],
        )


def measure(
    runners: Mapping[str, Runner], size: tuple[int, int], batch: int, rounds: int
) -> dict[str, Sample]:
    """Let the runners take turns with the same images for `rounds` rounds."""
    height, width = size
    generator = np.random.default_rng(0)
    images = [_picture(generator, height, width) for _ in range(batch)]
    cameras = [Camera(width, height, width, width, width / 2, height / 2)] * batch
    samples = {name: Sample([], []) for name in runners}
    for round_ in range(WARM_UP + rounds):
        for name, runner in runners.items():
            start = time.perf_counter()
            runner(images, cameras)
            elapsed_ms = (time.perf_counter() - start) * 1e3
            if round_ >= WARM_UP:
                samples[name].total_ms.append(elapsed_ms)
                samples[name].stages_ms.append(dict(runner.stages_ms))
    return samples


def report(kind: str, rows: Sequence[Row], device: torch.device) -> dict[str, object]:
    """What is written as JSON."""
    return {'benchmark': kind, 'machine': machine(device), 'rows': [asdict(row) for row in rows]}


def format_table(rows: Sequence[Row]) -> str:
    """The same for the reader; `stages` are upload/preprocess/network/decode/download."""
    lines = [
        f'{"engine":26}{"preset":18}{"size":>11}{"batch":>6}{"p50 ms":>9}{"p99 ms":>9}'
        f'{"min–max ms":>18}{"network":>9}{"×eager":>8}{"×net":>6}{"roof":>6}{"FPS":>8}'
        f'{"paper":>7}  stages ms'
    ]
    for row in rows:
        stages = '/'.join(f'{value:.1f}' for value in row.stages_ms.values())
        lines.append(
            f'{row.engine:26}{row.preset:18}{row.size:>11}{row.batch:>6}{row.p50_ms:>9.1f}'
            f'{row.p99_ms:>9.1f}{f"{row.min_ms:.0f}–{row.max_ms:.0f}":>18}'
            f'{row.network_p50_ms:>9.1f}{_cell(row.ratio_to_eager, "8.2f")}'
            f'{_cell(row.network_ratio_to_eager, "6.2f")}{_cell(row.roofline_share, "6.0%")}'
            f'{row.fps:>8.1f}{_cell(row.paper_fps, "7.1f")}  {stages}'
        )
    return '\n'.join(lines)


def sized(preset: str, size: tuple[int, int] | None) -> NetworkConfig:
    """Raises InputError for an unknown preset or a size that no network accepts."""
    if preset not in PRESETS:
        raise InputError(f'preset {preset!r} is not one of {", ".join(PRESETS)}')
    config = PRESETS[preset]
    return config if size is None else replace(config, input_size=size)


def choose_device(name: str) -> torch.device:
    """auto, cuda or cpu; raises InputError where there is no CUDA."""
    if name == 'cuda' and not torch.cuda.is_available():
        raise InputError('no CUDA device is available; set --device to cpu')
    return torch.device('cuda:0' if name != 'cpu' and torch.cuda.is_available() else 'cpu')


def untrained(config: NetworkConfig) -> Network:
    """Random weights cost the same time as trained ones."""
    torch.manual_seed(0)
    return build_network(config).eval()


def _check_counts(rounds: int, batches: Sequence[int]) -> None:
    if rounds < 1 or min(batches) < 1:
        raise InputError(f'rounds {rounds} and batch {min(batches)} have to be at least 1')


def _row(
    name: str,
    preset: str,
    config: NetworkConfig,
    device: torch.device,
    batch: int,
    sample: Sample,
    eager: Sample | None,
) -> Row:
    total = np.array(sample.total_ms)
    stages = {k: _median([s[k] for s in sample.stages_ms]) for k in sample.stages_ms[0]}
    network_ratio = ratio = None
    if eager is not None:
        ratio = _median(eager.total_ms) / _median(sample.total_ms)
        network_ratio = _median([s['network'] for s in eager.stages_ms]) / stages['network']
    p50, p95, p99 = (float(value) for value in np.percentile(total, (50, 95, 99)))
    return Row(
        engine=name,
        preset=preset,
        size='x'.join(map(str, config.input_size)),
        device=torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu',
        batch=batch,
        rounds=len(total),
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        min_ms=float(total.min()),
        max_ms=float(total.max()),
        network_p50_ms=stages['network'],
        ratio_to_eager=ratio,
        network_ratio_to_eager=network_ratio,
        fps=1e3 * batch / p50,
        stages_ms=stages,
    )


def _dtype(name: str) -> torch.dtype:
    half = {'fp16': torch.float16, 'bf16': torch.bfloat16}
    return next((dtype for key, dtype in half.items() if key in name), torch.float32)


def _picture(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Patches of 32 pixels: an untrained network then sees regions, not noise."""
    coarse = generator.integers(0, 256, (-(-height // 32), -(-width // 32), 3), np.uint8)
    return np.kron(coarse, np.ones((32, 32, 1), np.uint8))[:height, :width]


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def _cell(value: float | None, form: str) -> str:
    width = int(form.split('.')[0])
    return f'{"–":>{width}}' if value is None else f'{value:{form}}'

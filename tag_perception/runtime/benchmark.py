"""How fast the engine is, measured: every contender in turn, round after round, in one run.

Contenders that take turns meet the same disturbances, so the ratios between their medians hold
where the times themselves do not. `p50_ms` is the whole way from the image to the Scene, both on
the host; `network_p50_ms` is the network alone. What a contender's short cuts cost is told beside
its speed: `fidelity` compares its Scenes with the eager ones.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from tag_perception.config import InputError
from tag_perception.core import checkpoint
from tag_perception.core.network import PRESETS, Network, NetworkConfig, build_network
from tag_perception.core.structures import Camera, Scene
from tag_perception.runtime import fidelity, roofline
from tag_perception.runtime.contenders import EAGER, build_best, build_contenders, build_int8
from tag_perception.runtime.fidelity import Fidelity
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
PATCHES = 4
PICTURES = 16
"""Of a folder: every second one is measured with, the others calibrate 8-bit integers."""
MAX_BATCH = 64


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
    network_fps: float
    """The same of the network alone."""
    stages_ms: Mapping[str, float]
    """Median of each stage."""
    roofline_share: float | None = None
    """Least possible time of the network alone by its p50."""
    fidelity: Fidelity | None = None
    """What is left of eager fp32's Scenes; says little with random weights."""
    paper_fps: float | None = None
    """To be held against network_fps."""
    ratio_to_three_singles: float | None = None
    """p50 of THREE_SINGLES in the same run by this p50."""


def benchmark_engine(
    sources: Sequence[str],
    size: tuple[int, int] | None,
    batches: Sequence[int],
    rounds: int,
    device: torch.device,
    images: str = '',
    int8: bool = False,
) -> list[Row]:
    """Every contender on every preset or checkpoint at `size` (None: its own) and batch.

    `images` is a folder of pictures to measure with; without it they are random patches. With
    `int8` every second one calibrates a network of 8-bit integers.
    """
    _check_counts(rounds, batches)
    rows = []
    for source in sources:
        network = _resized(source, size)
        config = network.config
        pictures = _read_pictures(images, config.input_size) if images else _patches(config)
        measured, calibrating = pictures[::2], pictures[1::2]
        contenders = build_contenders(network, device)
        if int8:
            contenders |= build_int8(network, calibrating)
        dtypes = {name: _dtype(name) for name in contenders}
        scenes = {name: _scenes(contender, measured) for name, contender in contenders.items()}
        works = {sparse: roofline.measure_work(config, sparse) for sparse in (True, False)}
        for batch in batches:
            before = {d: roofline.measure_rates(device, d) for d in set(dtypes.values())}
            samples = measure(contenders, measured, batch, rounds)
            rates = {d: rate.or_better(device, d) for d, rate in before.items()}
            for name, sample in samples.items():
                work = works['dense' not in name and 'eager' not in name]
                dtype = dtypes[name]
                least_ms = batch * work.roofline_ms(rates[dtype], dtype.itemsize)
                row = _row(name, source, config, device, batch, sample, samples.get(EAGER))
                share = least_ms / row.network_p50_ms
                kept = fidelity.compare(scenes[name], scenes[EAGER])
                rows.append(replace(row, roofline_share=share, fidelity=kept))
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
    samples = measure(runners, _patches(configs[presets[0]]), 1, rounds)
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
        all_ms = rows[-1].p50_ms
        rows = [replace(row, ratio_to_three_singles=all_ms / row.p50_ms) for row in rows]
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
    runners: Mapping[str, Runner], pictures: Sequence[np.ndarray], batch: int, rounds: int
) -> dict[str, Sample]:
    """Let the runners take turns with the same pictures, of one size, for `rounds` rounds."""
    images = [pictures[index % len(pictures)] for index in range(batch)]
    cameras = [_camera(image) for image in images]
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
        f'{"net FPS":>8}{"paper":>7}{"×3 DLA":>7}{"labels":>8}{"depth":>7}{"boxes":>6}  stages ms'
    ]
    for row in rows:
        kept = row.fidelity or Fidelity(None, None, None)
        stages = '/'.join(f'{value:.1f}' for value in row.stages_ms.values())
        lines.append(
            f'{row.engine:26}{row.preset:18}{row.size:>11}{row.batch:>6}{row.p50_ms:>9.1f}'
            f'{row.p99_ms:>9.1f}{f"{row.min_ms:.0f}–{row.max_ms:.0f}":>18}'
            f'{row.network_p50_ms:>9.1f}{_cell(row.ratio_to_eager, "8.2f")}'
            f'{_cell(row.network_ratio_to_eager, "6.2f")}{_cell(row.roofline_share, "6.0%")}'
            f'{row.fps:>8.1f}{row.network_fps:>8.1f}{_cell(row.paper_fps, "7.1f")}'
            f'{_cell(row.ratio_to_three_singles, "7.2f")}{_cell(kept.same_labels, "8.2%")}'
            f'{_cell(kept.depth_error, "7.2%")}{_cell(kept.same_boxes, "6.0%")}  {stages}'
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


def _resized(source: str, size: tuple[int, int] | None) -> Network:
    """The network of a preset, with random weights, or of a checkpoint, for images of `size`."""
    if source in PRESETS or not Path(source).exists():
        return untrained(sized(source, size))
    network = checkpoint.load(source).network.eval()
    if size is not None:
        network.config = replace(network.config, input_size=size)  # no weight depends on it
    return network


def _check_counts(rounds: int, batches: Sequence[int]) -> None:
    if rounds < 1 or min(batches) < 1:
        raise InputError(f'rounds {rounds} and batch {min(batches)} have to be at least 1')
    if max(batches) > MAX_BATCH:
        raise InputError(f'batch {max(batches)} is more than {MAX_BATCH}')


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
        network_fps=1e3 * batch / stages['network'],
        stages_ms=stages,
    )


def _dtype(name: str) -> torch.dtype:
    half = {'fp16': torch.float16, 'bf16': torch.bfloat16}
    return next((dtype for key, dtype in half.items() if key in name), torch.float32)


def _scenes(runner: Runner, pictures: Sequence[np.ndarray]) -> list[Scene]:
    return [scene for image in pictures for scene in runner([image], [_camera(image)])]


def _camera(image: np.ndarray) -> Camera:
    """Any will do: the boxes of all contenders are placed by the same."""
    height, width = image.shape[:2]
    return Camera(width, height, width, width, width / 2, height / 2)


def _patches(config: NetworkConfig) -> list[np.ndarray]:
    """Pictures of 32-pixel patches: an untrained network then sees regions, not noise."""
    generator = np.random.default_rng(0)
    height, width = config.input_size
    cells = (-(-height // 32), -(-width // 32), 3)
    coarse = [generator.integers(0, 256, cells, np.uint8) for _ in range(PATCHES)]
    return [np.kron(c, np.ones((32, 32, 1), np.uint8))[:height, :width] for c in coarse]


def _read_pictures(folder: str, size: tuple[int, int]) -> list[np.ndarray]:
    """Up to PICTURES of a folder's images, spread over it, as (H, W, 3) RGB of `size`."""
    found = sorted(p for p in Path(folder).glob('**/*') if p.suffix in ('.png', '.jpg', '.jpeg'))
    if len(found) < 2:
        raise InputError(f'{folder}: at least two pictures (PNG or JPEG) are needed, in a folder')
    pictures = []
    for path in found[:: max(1, len(found) // PICTURES)][:PICTURES]:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise InputError(f'{path}: cannot be read as a picture')
        resized = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
        pictures.append(cv2.cvtColor(resized, cv2.COLOR_BGR2RGB))
    return pictures


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def _cell(value: float | None, form: str) -> str:
    width = int(form.split('.')[0])
    return f'{"–":>{width}}' if value is None else f'{value:{form}}'

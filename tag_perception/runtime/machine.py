"""What a benchmark ran on, and where its figures go."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from tag_perception.config import InputError

MATRIX_UNITS = frozenset(
    {'avx2', 'avx512f', 'avx512_vnni', 'avx512_bf16', 'avx512_fp16', 'amx_int8', 'amx_bf16'}
)
"""Instruction sets on which the speed of a network on the CPU depends."""
OPENMP = ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY', 'OMP_NUM_THREADS')
"""Variables that decide how torch shares the cores with others."""
PACKAGES = ('torch', 'onnxruntime', 'openvino', 'tensorrt', 'triton')


def machine(device: torch.device) -> dict[str, object]:
    """Hardware, versions and load, as figures need them beside them."""
    found: dict[str, object] = {
        'os': platform.platform(),
        'architecture': platform.machine(),
        'cpu': cpu_name(),
        'cpu_cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'openmp': {name: os.environ[name] for name in OPENMP if name in os.environ},
        'cpu_matrix_units': sorted(cpu_flags() & MATRIX_UNITS),
        'load_average': list(os.getloadavg()),
        'python': platform.python_version(),
        'time_utc': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
        'versions': {name: package_version(name) for name in PACKAGES},
    }
    if device.type == 'cuda':
        found['gpu'] = torch.cuda.get_device_name(device)
        found['cuda'] = torch.version.cuda
        found['cudnn'] = torch.backends.cudnn.version()
        found['driver'] = _read('/proc/driver/nvidia/version').split('\n')[0]
    return found


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """So many processes that want a core each all the time, as those of a stack around us may."""
    if number < 0:
        raise InputError(f'{number} busy processes: give 0 or more')
    spin = [sys.executable, '-c', 'while True: pass']
    processes = [subprocess.Popen(spin) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def write_json(path: str | Path, content: Mapping[str, object]) -> None:
    """Raises InputError where the file cannot be written."""
    try:
        Path(path).write_text(json.dumps(content, indent=1) + '\n')
    except OSError as error:
        raise InputError(f'{path}: cannot write the figures: {error.strerror}') from error


def cpu_name() -> str:
    """As the kernel says it."""
    return _cpuinfo('model name') or platform.processor()


def cpu_flags() -> frozenset[str]:
    """The instruction sets of an x86 CPU in the kernel's words; empty elsewhere."""
    return frozenset(_cpuinfo('flags').split())


def _cpuinfo(field: str) -> str:
    """Of the first core."""
    lines = (line.partition(':') for line in _read('/proc/cpuinfo').splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == field), '')


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ''


def package_version(package: str) -> str | None:
    """Of an installed package; None where it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None

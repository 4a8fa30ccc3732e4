"""What a benchmark ran on, and where its figures go."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from tag_perception.config import InputError


def machine(device: torch.device) -> dict[str, object]:
    """Hardware, versions and load, as figures need them beside them."""
    found: dict[str, object] = {
        'os': platform.platform(),
        'architecture': platform.machine(),
        'cpu': _cpu_name(),
        'cpu_cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'load_average': list(os.getloadavg()),
        'python': platform.python_version(),
        'time_utc': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
        'versions': {name: _version(name) for name in ('torch', 'onnxruntime', 'openvino')},
    }
    if device.type == 'cuda':
        found['gpu'] = torch.cuda.get_device_name(device)
        found['cuda'] = torch.version.cuda
        found['cudnn'] = torch.backends.cudnn.version()
        found['driver'] = _read('/proc/driver/nvidia/version').split('\n')[0]
    return found


def write_json(path: str | Path, content: Mapping[str, object]) -> None:
    """Raises InputError where the file cannot be written."""
    try:
        Path(path).write_text(json.dumps(content, indent=1) + '\n')
    except OSError as error:
        raise InputError(f'{path}: cannot write the figures: {error.strerror}') from error


def _cpu_name() -> str:
    lines = _read('/proc/cpuinfo').splitlines()
    names = [line.split(':')[1].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor()


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ''


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

"""The network as ONNX, and ONNX Runtime, which runs it on any CPU."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tag_perception.config import InputError, to_dict
from tag_perception.core.network import Network
from tag_perception.runtime import cache
from tag_perception.runtime.runner import first_line
from tag_perception.runtime.trunk import Trunk

OPSET = 17
"""The oldest that knows all operators used, for the sake of other readers of the file."""


class OnnxTrunk:
    """A trunk compiled for one input size and batch 1; the ONNX file is kept in the cache."""

    def __init__(
        self, trunk: Trunk, dtype: torch.dtype = torch.float32, model: bytes | None = None
    ) -> None:
        """Takes `model` in the place of the trunk's own ONNX file.

        Raises ImportError without onnxruntime, InputError where there is no ONNX for the trunk, or
        `dtype` is not float32.
        """
        import onnxruntime

        if dtype != torch.float32:
            raise InputError('onnxruntime computes in fp32 on the CPU')
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Threads that spin after their work take the CPU from whoever publishes the result.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model or fetch_onnx(trunk), options, providers=['CPUExecutionProvider']
        )
        # Own buffers: fresh ones would cost a page fault per 4 kB in every call.
        self._image = torch.zeros(1, 3, *trunk.config.input_size)
        self._outputs = {
            output.name: torch.zeros(output.shape) for output in self._session.get_outputs()
        }
        self._binding = self._session.io_binding()
        _bind(self._binding.bind_input, 'image', self._image)
        for name, buffer in self._outputs.items():
            _bind(self._binding.bind_output, name, buffer)

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Outputs by name of (1, 3, H, W); overwritten by the next call."""
        self._image.copy_(image)
        self._session.run_with_iobinding(self._binding)
        return self._outputs


def fetch_onnx(trunk: Trunk, batch: int = 1) -> bytes:
    """The ONNX file of a trunk, from the cache where it is there. Raises InputError as to_onnx."""
    return cache.fetch(
        f'{digest(trunk, batch)}.onnx',
        {'network code': code_digest(), 'torch': torch.__version__},
        make=lambda: to_onnx(trunk, trunk.names, batch),
        read=bytes,
    )


def to_onnx(network: Network | Trunk, names: Sequence[str], batch: int = 1) -> bytes:
    """The ONNX file of a network or trunk: `image` (batch, 3, H, W) → outputs called `names`.

    Numbers in it have the type of the weights.
    Raises InputError for a network with an operator that ONNX does not have.
    """
    file = io.BytesIO()
    dtype = next(network.parameters()).dtype
    image = torch.zeros(batch, 3, *network.config.input_size, dtype=dtype)
    try:
        with warnings.catch_warnings(), torch.inference_mode(), _PoolingByProducts():
            warnings.simplefilter('ignore')
            torch.onnx.export(
                _Listed(network, names).eval(),  # the mode to which export sets all modules back
                (image,),
                file,  # type: ignore[arg-type]
                input_names=['image'],
                output_names=list(names),
                opset_version=OPSET,
                dynamo=False,  # the other exporter needs another package
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise InputError(f'it cannot be written as ONNX: {first_line(error)}') from error
    return file.getvalue()


class _Listed(nn.Module):
    """A network whose outputs are a tuple in the order of `names`."""

    def __init__(self, network: Network | Trunk, names: Sequence[str]) -> None:
        super().__init__()
        self.network, self.names = network, tuple(names)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        outputs = self.network(image)
        return outputs if isinstance(outputs, tuple) else tuple(outputs[n] for n in self.names)


class _PoolingByProducts(TorchFunctionMode):
    """Adaptive average pooling as two matrix products, since ONNX has no such operator."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is not F.adaptive_avg_pool2d:
            return func(*args, **(kwargs or {}))
        image, bins = args
        height, width = (int(side) for side in image.shape[-2:])
        rows, columns = (_averages(cells, bins).to(image) for cells in (height, width))
        return rows @ image @ columns.T


def _averages(cells: int, bins: int) -> Tensor:
    """(bins, cells): each row averages the cells that its bin touches."""
    weights = torch.zeros(bins, cells)
    for i in range(bins):
        first, end = i * cells // bins, -(-(i + 1) * cells // bins)
        weights[i, first:end] = 1 / (end - first)
    return weights


def _bind(bind: Callable[..., None], name: str, buffer: Tensor) -> None:
    bind(name, 'cpu', 0, 'float32', tuple(buffer.shape), buffer.data_ptr())


def digest(trunk: Trunk, batch: int = 1) -> str:
    """24 hexadecimal digits of all that decides the ONNX file, apart from versions and code."""
    sha256 = hashlib.sha256(json.dumps([to_dict(trunk.config), trunk.names, batch]).encode())
    for name, value in trunk.state_dict().items():
        sha256.update(name.encode())
        sha256.update(value.contiguous().numpy().data)
    return sha256.hexdigest()[:24]


def code_digest() -> str:
    """Of the modules that decide what a network with given weights computes."""
    package = Path(__file__).parents[1]
    files = [*sorted(package.glob('core/**/*.py')), package / 'runtime/trunk.py', Path(__file__)]
    return hashlib.sha256(b''.join(file.read_bytes() for file in files)).hexdigest()

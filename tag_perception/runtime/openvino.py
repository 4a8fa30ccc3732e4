"""OpenVINO, the fastest way to run the network on an Intel CPU, above all on one with AMX."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from tag_perception.config import InputError
from tag_perception.runtime.onnx import fetch_onnx
from tag_perception.runtime.trunk import Trunk

PRECISIONS = {torch.float32: 'f32', torch.bfloat16: 'bf16'}


class OpenVinoTrunk:
    """A trunk compiled for one input size and batch 1, in float32 or bfloat16."""

    def __init__(self, trunk: Trunk, dtype: torch.dtype) -> None:
        """Raises ImportError without openvino, InputError where there is no ONNX for the trunk."""
        import openvino
        from openvino import preprocess

        core = _core()
        read = core.read_model(fetch_onnx(trunk))
        # Images come channels last; their other order would cost a copy of each.
        layout = preprocess.PrePostProcessor(read)
        layout.input().tensor().set_layout(openvino.Layout('NHWC'))
        layout.input().model().set_layout(openvino.Layout('NCHW'))
        settings = {
            'INFERENCE_NUM_THREADS': torch.get_num_threads(),
            'PERFORMANCE_HINT': 'LATENCY',
            'INFERENCE_PRECISION_HINT': PRECISIONS[dtype],
        }
        try:
            self._compiled = core.compile_model(layout.build(), 'CPU', settings)
        except RuntimeError as error:
            reason = ' '.join(str(error).split())  # the first line is a place in its code
            raise InputError(f'OpenVINO refuses the network: {reason}') from error
        self._names = trunk.names

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Float32 outputs by name of (1, 3, H, W); overwritten by the next call."""
        pixels = image.permute(0, 2, 3, 1).contiguous().numpy()
        values = self._compiled([pixels], share_inputs=True, share_outputs=True)
        return {name: torch.from_numpy(values[name]) for name in self._names}


@functools.cache
def _core() -> Any:
    """The only one of this process, for its whole life.

    Every core gives its thread another stack for signal handlers and puts the one before back when
    it goes. If an older core goes first, that one is freed already, and the next signal (Ctrl-C,
    the end of a child) ends the process with a segmentation fault.
    """
    import openvino

    return openvino.Core()

"""The network in 8-bit integers: only a contender of `benchmark engine`, which says what it costs.

Ranges of the activations come from calibration images; weights are scaled channel by channel.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from tag_perception.config import InputError
from tag_perception.runtime.onnx import to_onnx
from tag_perception.runtime.runner import first_line
from tag_perception.runtime.trunk import Trunk


def to_int8(trunk: Trunk, images: Sequence[Tensor]) -> bytes:
    """ONNX with 8-bit convolutions, calibrated on normalised images (1, 3, H, W).

    Raises ImportError without onnxruntime or onnx, InputError where ONNX Runtime refuses.
    """
    from onnxruntime import quantization

    class Images(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(images)

        def get_next(self) -> dict[str, object] | None:
            image = next(self._left, None)
            return None if image is None else {'image': image.contiguous().numpy()}

    with tempfile.TemporaryDirectory() as folder:
        exact, rounded = Path(folder, 'exact.onnx'), Path(folder, 'rounded.onnx')
        exact.write_bytes(to_onnx(trunk, trunk.names))
        logging.disable(logging.WARNING)  # of the root logger: advice on other ways to quantise
        try:
            quantization.quantize_static(
                exact,
                rounded,
                Images(),
                op_types_to_quantize=['Conv'],
                per_channel=True,
                extra_options={'ActivationSymmetric': False, 'WeightSymmetric': True},
            )
        except (RuntimeError, ValueError) as error:
            raise InputError(f'no int8 network: {first_line(error)}') from error
        finally:
            logging.disable(logging.NOTSET)
        return rounded.read_bytes()

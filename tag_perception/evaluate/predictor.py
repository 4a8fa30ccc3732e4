"""A network as the callable that evaluation scores, and a look into its attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tag_perception.config import InputError
from tag_perception.core.inference import infer
from tag_perception.core.network import Network
from tag_perception.core.preprocess import to_tensor
from tag_perception.core.structures import Camera, Scene


class NetworkPredictor:
    """`predictor(image, camera) → Scene` by the reference path; every box is kept."""

    def __init__(self, network: Network, device: str = 'auto') -> None:
        """`device` is cpu, cuda or auto (CUDA where there is one)."""
        if device == 'cuda' and not torch.cuda.is_available():
            raise InputError('no CUDA device is available; use --device cpu')
        if device == 'auto':
            device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self.device = torch.device(device)
        self.network = network.eval().to(self.device)

    def __call__(self, image: np.ndarray, camera: Camera) -> Scene:
        """Scene of one (H, W, 3) uint8 RGB image, on the host."""
        memory, bgr = to_tensor(image)
        return infer(self.network, memory.to(self.device)[None], [camera], bgr)[0].cpu()

    def attention(self, image: np.ndarray, camera: Camera) -> dict[str, np.ndarray]:
        """What paper Fig. 4 shows, as (h, w) channel means at feature resolution.

        Keys: h, beta, then alpha·h and h_t (= alpha·h + beta) as `alpha_h/<task>` and
        `h_t/<task>`. Empty for a network without TAG.
        """
        attention, seen = self.network.attention, {}
        if attention.S_ch is None and attention.S_sp is None:
            return {}

        def look(module: Any, inputs: tuple[Tensor, ...], h_t: dict[str, Tensor]) -> None:
            h, _, x_detail = inputs
            beta = torch.zeros_like(h[:, :1])
            if attention.S_sp is not None:
                beta = torch.sigmoid(attention.S_sp(x_detail))
                seen['beta'] = beta
            seen['h'] = h
            for task, value in h_t.items():
                seen[f'alpha_h/{task}'] = value - beta
                seen[f'h_t/{task}'] = value

        handle = attention.register_forward_hook(look)
        try:
            self(image, camera)
        finally:
            handle.remove()
        return {key: value[0].float().mean(0).cpu().numpy() for key, value in seen.items()}

"""Half precision with trained weights: random ones are tied so nearly that rounding decides."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tag_perception.data.street import render
from tag_perception.runtime import cpu
from tag_perception.runtime.engine import Engine, EngineConfig

from .comparison import assert_as_good
from .test_engine import CAMERA, photos, reference

WEIGHTS = sorted(Path(__file__).parents[2].glob('models/*.safetensors'))
LABELS = {'fp16': 0.995, 'bf16': 0.99}
"""Least share of the same labels; bf16 is what nobody gets without asking for it."""
WAYS = [
    ('cpu', 'bf16', 'torch'), ('cpu', 'bf16', 'openvino'),
    *(
        pytest.param('cuda', precision, backend, marks=pytest.mark.gpu)
        for precision in LABELS
        for backend in ('torch', 'triton')
    ),
]  # fmt: skip


@pytest.fixture(params=WEIGHTS, ids=lambda path: path.stem)
def weights(request):
    return str(request.param)


@pytest.mark.skipif(not WEIGHTS, reason='no trained weights in models/')
@pytest.mark.parametrize(('device', 'precision', 'backend'), WAYS)
def test_half_precision_is_as_good_as_the_reference(weights, device, precision, backend):
    if device == 'cuda' and not torch.cuda.is_available():
        pytest.skip('needs a CUDA device')
    if device == 'cpu' and not cpu.multiplies_bf16():
        pytest.skip('this CPU does not multiply bf16')
    if not find_spec(backend):
        pytest.skip(f'{backend} is not installed')
    engine = Engine(
        EngineConfig(
            weights, device=device, precision=precision, backend=backend, score_threshold=0
        )
    )
    for picture, camera in pictures():
        expected = reference(weights, picture, camera, device)
        assert_as_good(engine(picture, camera), expected, LABELS[precision])


def pictures():
    """Two streets that were never trained on, and real ones where there are any."""
    for seed in (900_001, 900_002):
        sample = render(seed, 0, (256, 512))
        yield sample.image, sample.camera
    for path in photos()[:: max(1, len(photos()) // 3)]:
        picture = np.array(Image.open(path).convert('RGB'))
        yield picture, CAMERA.resized(picture.shape[1], picture.shape[0])

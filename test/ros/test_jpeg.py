"""Which library decodes JPEG, and that all of them give the same picture."""

from __future__ import annotations

import logging
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('rclpy')

from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage

from tag_perception.ros import jpeg
from tag_perception.ros.compression import to_rgb
from tag_perception.ros.jpeg import OnCpu, OnGpu, choose_decoder
from tag_perception.ros.node import PerceptionNode

from .fakes import FakeEngine

PIXELS = cv2.GaussianBlur(
    np.random.default_rng(5).integers(0, 255, (24, 40, 3), np.uint8), (0, 0), 2
)


def encode(suffix: str, *options: int) -> np.ndarray:
    return cv2.imencode(suffix, PIXELS[..., ::-1], options)[1].ravel()


def like_a_gpu(data: torch.Tensor, mode: str, device: str) -> torch.Tensor:
    """What a library does, without a GPU: (3, H, W) RGB, and an error for what it cannot read."""
    assert (mode, device, data.dtype, data.ndim) == ('RGB', 'cuda:0', torch.uint8, 1)
    if b'\xff\xc2' in data.numpy().tobytes():  # the frame header of progressive JPEG
        raise RuntimeError('unsupported')
    pixels = cv2.imdecode(data.numpy(), cv2.IMREAD_COLOR)
    if pixels is None:
        raise RuntimeError('damaged')
    return torch.from_numpy(pixels[..., ::-1].copy()).permute(2, 0, 1)


def swapped(data: torch.Tensor, mode: str, device: str) -> torch.Tensor:
    return like_a_gpu(data, mode, device).flip(0)


def missing() -> jpeg.Decode:
    raise ImportError('no such library\nand a second line')


def test_the_cpu_engine_decodes_on_the_cpu():
    assert isinstance(choose_decoder('cpu', {'never asked': missing}), OnCpu)


def test_the_first_library_that_works_is_taken():
    found = choose_decoder('cuda:0', {'gone': missing, 'good': lambda: like_a_gpu})
    assert found.name == 'good on cuda:0'
    np.testing.assert_array_equal(found(encode('.jpg')), OnCpu()(encode('.jpg')))


def test_what_fails_the_trial_is_not_used_and_the_log_says_why(caplog):
    caplog.set_level(logging.INFO)
    libraries = {
        'gone': missing,
        'swapped': lambda: swapped,
        'flat': lambda: lambda data, mode, device: torch.zeros(48, 64, dtype=torch.uint8),
    }
    assert isinstance(choose_decoder('cuda:0', libraries), OnCpu)
    assert 'gone: ImportError: no such library; swapped: differs by' in caplog.text
    assert 'flat: ' in caplog.text


def test_what_a_library_cannot_read_is_left_to_opencv_and_counted():
    decoder = OnGpu('good', lambda *a, **k: like_a_gpu(*a, **k), 'cuda:0')
    progressive = encode('.jpg', cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    np.testing.assert_array_equal(decoder(progressive), OnCpu()(progressive))
    np.testing.assert_array_equal(decoder(encode('.png')), PIXELS)  # no JPEG: not counted
    assert decoder.name == 'good on cuda:0; 1 images left to OpenCV'
    assert decoder(encode('.jpg')[:30]) is None


@pytest.mark.parametrize(
    'form', ['jpeg', 'bgr8; jpeg compressed bgr8', 'rgb8; jpeg compressed rgb8']
)
def test_channels_are_in_the_same_order_with_either(form):
    message = CompressedImage(format=form)
    message.data.frombytes(encode('.jpg').tobytes())
    decoder = OnGpu('good', like_a_gpu, 'cuda:0')
    np.testing.assert_array_equal(to_rgb(message, decoder), to_rgb(message))


def test_the_node_decides_for_all_cameras_when_it_is_configured_and_says_so(
    monkeypatch, client, spin_until
):
    monkeypatch.setattr(jpeg, 'LIBRARIES', {'good': lambda: like_a_gpu})

    class OnCuda(FakeEngine):
        def __init__(self, config=None) -> None:
            super().__init__(config)
            self.status = replace(self.status, device='cuda:0')

    node = PerceptionNode(
        OnCuda,
        parameter_overrides=[
            Parameter('image_transport', value='compressed'),
            Parameter('cameras', value=['front', 'left']),
        ],
    )
    node.autostart()
    images = client.create_publisher(CompressedImage, 'left/image/compressed', 1)
    spin_until(lambda: images.get_subscription_count() > 0, node, client)
    for data in (encode('.jpg'), encode('.jpg', cv2.IMWRITE_JPEG_PROGRESSIVE, 1)):
        message = CompressedImage(format='jpeg')
        message.data.frombytes(data.tobytes())
        mailbox = node.channels[1].input.mailbox
        before = mailbox.counts.processed
        images.publish(message)
        spin_until(lambda m=mailbox, n=before: m.counts.processed > n, node, client)
    (engine,) = [report for report in node._reports() if report.name == 'engine']
    assert engine.values['jpeg_decoder'] == 'good on cuda:0; 1 images left to OpenCV'
    node.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_a_real_gpu_gives_the_picture_of_the_cpu():
    decoder = choose_decoder('cuda:0')
    if isinstance(decoder, OnCpu):
        pytest.skip('neither torchcodec nor torchvision decodes on this GPU')
    difference = decoder(encode('.jpg')).astype(int) - OnCpu()(encode('.jpg'))
    assert np.abs(difference).mean() < 2  # colour is interpolated in different ways

"""The page of `show`, read as text and by a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch

from tag_perception.config import InputError
from tag_perception.core.structures import Camera, Objects3D, Scene
from tag_perception.evaluate.page import ShownFrame, write_page

BROWSER = next(filter(shutil.which, ('chromium', 'chromium-browser', 'google-chrome')), None)
SIZE = (64, 128)


def frame(index: int, boxes: bool = True) -> ShownFrame:
    random = np.random.default_rng(index)
    box = Objects3D(
        class_id=torch.tensor([2]),
        score=torch.tensor([0.75]),
        center_cam=torch.tensor([[12.0, 0.0, 5.0]]),
        size_lwh_m=torch.tensor([[10.0, 2.5, 3.0]]),
        rotation_cam=torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        box_2d_px=torch.zeros(1, 4),
        depth_sigma_m=torch.tensor([0.4]),
    )
    return ShownFrame(
        stamp_ns=10**18 + index * 10**8,
        image=random.integers(0, 255, (*SIZE, 3), np.uint8),
        camera=Camera(128, 64, fx=120.0, fy=120.0, u0=64.0, v0=32.0),
        scene=Scene(
            torch.from_numpy(random.integers(0, 19, SIZE, np.uint8)),
            torch.from_numpy(random.uniform(3, 90, SIZE).astype(np.float32)),
            box if boxes else Objects3D.empty(),
        ),
        latency_ms={'network': 10.0 + index, 'fill': 2.0, 'total': 12.0 + index},
    )


def test_page_needs_no_other_file_and_says_what_was_seen(tmp_path):
    path = tmp_path / 'deep' / 'page.html'
    assert write_page(map(frame, range(3)), path, 'drive <7>') == 3
    html = path.read_text()
    assert 'drive &lt;7&gt;' in html
    assert not re.findall(r'(?:src|href)="(?!data:)', html)
    assert html.count('<article>') == 3
    assert html.count('<td>bus</td><td>0.75</td>') == 3
    assert '13.0 m' in html
    assert '<td>network</td><td>11.0 ms</td>' in html


def test_long_recordings_are_thinned_evenly(tmp_path):
    path = tmp_path / 'page.html'
    assert write_page(map(frame, range(21)), path, 'x', max_pictures=6) == 21
    shown = [int(n) for n in re.findall(r'frame (\d+) ·', path.read_text())]
    assert shown == [0, 4, 8, 12, 16, 20]


def test_frames_without_boxes_calibration_or_latency(tmp_path):
    bare = replace(frame(1), camera=None, latency_ms={})
    withheld = replace(bare, scene=replace(bare.scene, detection3d=None))
    empty = replace(frame(2, boxes=False), latency_ms={})
    path = tmp_path / 'page.html'
    write_page([withheld, empty], path, 'x')
    html = path.read_text()
    assert 'none published' in html
    assert 'no object' in html
    assert 'not recorded' in html


def test_nothing_to_show_is_an_error(tmp_path):
    with pytest.raises(InputError, match='no frame has results'):
        write_page([], tmp_path / 'page.html', 'x')


@pytest.mark.skipif(BROWSER is None, reason='no chromium is installed')
def test_a_browser_shows_every_picture_and_one_frame_at_a_time(tmp_path):
    path = tmp_path / 'page.html'
    write_page(map(frame, range(3)), path, 'drive')
    command = [
        BROWSER, '--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
        f'--user-data-dir={tmp_path / "profile"}', '--virtual-time-budget=5000', '--dump-dom',
        path.as_uri(),
    ]  # fmt: skip
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120)
    dom = finished.stdout
    assert 'data-pictures="4 of 4"' in dom, finished.stderr
    assert dom.count('<article class="on">') == 1
    assert dom.count('<article') == 3
    assert 'id="frames"' in dom

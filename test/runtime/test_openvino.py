import subprocess
import sys

import pytest

pytest.importorskip('openvino')

REBUILT = """
import signal, sys
import torch
from tag_perception.core.network import PRESETS, build_network
from tag_perception.runtime.openvino import OpenVinoTrunk
from tag_perception.runtime.trunk import Trunk
from dataclasses import replace

config = replace(PRESETS['tag_slim'], width=16, input_size=(64, 128))
trunk = Trunk(build_network(config).eval())
older = OpenVinoTrunk(trunk, torch.float32)
newer = OpenVinoTrunk(trunk, torch.float32)
del older
del newer
heard = []
signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
signal.raise_signal(signal.SIGUSR1)
sys.exit(0 if heard else 1)
"""


def test_a_signal_after_an_engine_was_replaced_does_not_end_the_process():
    done = subprocess.run([sys.executable, '-c', REBUILT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

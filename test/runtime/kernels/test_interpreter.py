"""All tests of kernels without a GPU, where triton is installed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.mark.skipif('TRITON_INTERPRET' in os.environ, reason='this is the child')
@pytest.mark.skipif(torch.cuda.is_available(), reason='the tests run on the GPU')
def test_kernels_are_right_when_interpreted():
    pytest.importorskip('triton')
    here = Path(__file__).parent
    tests = [here, here.with_name('test_fused.py')]
    child = subprocess.run(  # triton reads the variable when it is imported
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', *tests],
        env={**os.environ, 'TRITON_INTERPRET': '1'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stdout + child.stderr
    (passed,) = re.findall(r'(\d+) passed', child.stdout)
    assert int(passed) > 30

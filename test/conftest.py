"""Fixtures for all tests."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from tag_perception import entry

entry.share_cores()

# The suite tries the same examples on every run, so that it fails for a change and not by chance;
# new ones are what `make fuzz` is for.
settings.register_profile('same', derandomize=True, deadline=None, print_blob=True)
if 'FUZZ_SCALE' not in os.environ:
    settings.load_profile('same')


# A shell has its background jobs ignore Ctrl-C, and the processes that tests start would inherit
# that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope='session')
def write_tree() -> Callable[..., Path]:
    """`write_tree(root, split='val', frames=4, size=(128, 256), seed=0)` → root, see tree.py."""
    pytest.importorskip('cityscapesscripts', reason='the official Cityscapes tools are missing')
    spec = importlib.util.spec_from_file_location('tree', Path(__file__).with_name('tree.py'))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write_tree

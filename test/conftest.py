"""Fixtures for all tests."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest


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

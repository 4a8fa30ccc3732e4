from __future__ import annotations

import pytest

from tag_perception import share
from tag_perception.config import InputError


def test_files_are_found_in_the_source_tree():
    assert share.shared_file('config', 'perception.rviz').is_file()


@pytest.mark.parametrize('depth', ['lib/python3.11/site-packages', 'python'])
def test_files_are_found_where_they_are_installed(monkeypatch, tmp_path, depth):
    installed = tmp_path / 'share' / 'tag_perception' / 'models' / 'a.safetensors'
    installed.parent.mkdir(parents=True)
    installed.touch()
    module = tmp_path / depth / 'tag_perception' / 'share.py'
    monkeypatch.setattr(share, '__file__', str(module))
    assert share.shared_file('models', 'a.safetensors') == installed
    with pytest.raises(InputError, match=r'models/b\.safetensors is not installed'):
        share.shared_file('models', 'b.safetensors')

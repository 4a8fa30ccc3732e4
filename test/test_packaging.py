"""The package as ROS sees it: manifest, colcon build and test, the install space."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MANIFEST = ElementTree.parse(ROOT / 'package.xml').getroot()

ROSDEP = {
    'PIL': 'python3-pil',
    'cv2': 'python3-opencv',
    'hypothesis': 'python3-hypothesis',
    'jinja2': 'python3-jinja2',
    'matplotlib': 'python3-matplotlib',
    'numpy': 'python3-numpy',
    'pytest': 'python3-pytest',
    'tf2_ros': 'tf2_ros_py',
    'torch': 'python3-torch',
    'tqdm': 'python3-tqdm',
    'yaml': 'python3-yaml',
}
"""Python module → rosdep key; all of these exist in rosdep."""

PIP_ONLY = {
    'cityscapesscripts', 'lightning', 'onnx', 'onnxruntime', 'openvino', 'rosbags', 'safetensors',
}  # fmt: skip
"""Modules rosdep has no system package for; the README names them."""


def third_party(*patterns: str) -> Iterator[str]:
    """Top-level modules that files of the project import, but for Python's and our own."""
    own = {'tag_perception', *sys.stdlib_module_names}
    for path in (path for pattern in patterns for path in ROOT.glob(pattern)):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {node.module or ''}
            else:
                continue
            yield from {name.split('.')[0] for name in names} - own


# The manifest


def test_version_is_the_same_everywhere() -> None:
    version = MANIFEST.findtext('version')
    setup = re.search(r"version='([^']+)'", (ROOT / 'setup.py').read_text())
    newest = re.search(r'^(\d+\.\d+\.\d+) \(', (ROOT / 'CHANGELOG.rst').read_text(), re.MULTILINE)
    assert setup
    assert newest
    assert version == setup[1] == newest[1]


def test_manifest_is_format_3_of_an_ament_python_package() -> None:
    assert MANIFEST.get('format') == '3'
    assert MANIFEST.findtext('export/build_type') == 'ament_python'
    assert MANIFEST.findtext('license') == 'Apache-2.0'
    assert 'Apache License' in (ROOT / MANIFEST.find('license').get('file')).read_text()


def test_every_import_is_declared() -> None:
    declared = {node.text for node in MANIFEST if node.tag.endswith('depend')}
    used = {*third_party('tag_perception/**/*.py', 'launch/*.py')} - PIP_ONLY
    needed = {ROSDEP.get(module, module) for module in used}
    needed -= {'triton'}  # comes with torch for CUDA
    needed -= {'tensorrt'}  # for those who set engine.backend to it
    assert needed <= declared


def test_readme_names_what_only_pip_has() -> None:
    readme = (ROOT / 'README.md').read_text()
    used = PIP_ONLY & {*third_party('tag_perception/**/*.py')}
    assert {name for name in used if name not in readme} == set()


def test_requirements_bring_every_import() -> None:
    brought = {
        re.split(r'[\[=<>]', line)[0].strip().lower()
        for path in (ROOT / 'requirements').glob('*.txt')
        for line in path.read_text().splitlines()
    }
    names = {'cv2': 'opencv-python-headless', 'PIL': 'pillow', 'yaml': 'pyyaml'}
    from_pip = PIP_ONLY | {module for module, key in ROSDEP.items() if key.startswith('python3-')}
    used = from_pip & {*third_party('tag_perception/**/*.py')}
    assert {names.get(module, module).lower() for module in used} <= brought


# The install space


@pytest.fixture(scope='module')
def colcon(tmp_path_factory) -> Callable[..., str]:
    """colcon(verb, *options) → what it prints; its build, install and log lie in `.place`."""
    if shutil.which('colcon', path=tool_path()) is None:
        pytest.skip('colcon is not installed')
    prefix = os.environ.get('AMENT_PREFIX_PATH') or sys.prefix
    variables = {'PATH': tool_path(), 'AMENT_PREFIX_PATH': prefix, 'CMAKE_PREFIX_PATH': prefix}

    def run(*words: str) -> str:
        done = subprocess.run(
            ['colcon', *words],
            cwd=run.place,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    run.place = tmp_path_factory.mktemp('colcon')
    return run


def tool_path() -> str:
    """PATH with the commands of the running Python's environment first."""
    return os.pathsep.join((str(Path(sys.executable).parent), os.environ.get('PATH', '')))


THIS_PACKAGE = ['--base-paths', str(ROOT), '--packages-select', 'tag_perception']


@pytest.fixture(scope='module')
def prefix(colcon) -> Path:
    """Where `colcon build` has installed the package."""
    colcon('build', *THIS_PACKAGE)
    return colcon.place / 'install' / 'tag_perception'


def run_installed(prefix: Path, *command: str | Path) -> str:
    """What a command prints that finds the package in the install space first."""
    modules = next(prefix.glob('lib/python*/site-packages'))
    environment = dict(os.environ)
    for name, first in (('PYTHONPATH', modules), ('AMENT_PREFIX_PATH', prefix)):
        environment[name] = os.pathsep.join(filter(None, (str(first), environment.get(name))))
    done = subprocess.run(
        [str(word) for word in command],
        cwd=prefix,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_launch_file_and_configuration_is_installed(prefix: Path) -> None:
    share = prefix / 'share' / 'tag_perception'
    files = [
        path.relative_to(ROOT)
        for folder in ('launch', 'config', 'models')
        for path in (ROOT / folder).rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    ]
    assert {path.parts[0] for path in files} >= {'launch', 'config'}
    assert [str(path) for path in files if not (share / path).is_file()] == []
    assert (share / 'package.xml').is_file()


def test_ament_index_finds_the_package(prefix: Path) -> None:
    pytest.importorskip('ament_index_python')
    code = 'from ament_index_python import get_package_share_directory as share\n'
    found = run_installed(prefix, sys.executable, '-c', code + 'print(share("tag_perception"))')
    assert Path(found) == prefix / 'share' / 'tag_perception'


def test_every_module_is_installed(prefix: Path) -> None:
    modules = next(prefix.glob('lib/python*/site-packages'))
    names = {path.relative_to(ROOT) for path in (ROOT / 'tag_perception').rglob('*.py')}
    assert {str(name) for name in names if not (modules / name).is_file()} == set()
    code = 'import tag_perception; print(tag_perception.__file__)'
    found = run_installed(prefix, sys.executable, '-c', code)
    assert Path(found) == modules / 'tag_perception' / '__init__.py'


def test_every_console_script_is_installed_and_finds_its_function(prefix: Path) -> None:
    setup = (ROOT / 'setup.py').read_text()
    scripts = re.findall(r"'(\w+) = ([\w.]+):(\w+)'", setup)
    assert {name for name, _, _ in scripts} >= {'benchmark', 'perception_node', 'tag_perception'}
    for name, module, function in scripts:
        program = prefix / 'lib' / 'tag_perception' / name
        assert os.access(program, os.X_OK), f'{program} is missing: ros2 run would not find it'
        code = f'import {module} as m; assert callable(m.{function})'
        if '.ros.' not in module or find_spec('rclpy'):
            run_installed(prefix, sys.executable, '-c', code)


def test_installed_command_runs(prefix: Path) -> None:
    usage = run_installed(prefix, prefix / 'lib' / 'tag_perception' / 'tag_perception', '--help')
    assert usage.startswith('usage: ')


def test_colcon_test_runs_the_suite(colcon, prefix: Path) -> None:
    """One file of the suite, so that this test does not start itself."""
    colcon('test', *THIS_PACKAGE, '--pytest-args', 'test/test_architecture.py')
    summary = colcon('test-result', '--verbose')
    count = re.search(r'Summary: (\d+) tests, 0 errors, 0 failures', summary)
    assert count, summary
    assert int(count[1]) > 50

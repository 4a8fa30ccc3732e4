"""Set-up: what it made, what it leaves alone, and the one line that says what is missing."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]

VISION_MSGS = {
    'VisionClass': '1e4a11f0fed50b5623cb8ff26ca0e37952a48a9c074d16f804b44e9164c2037a',
    'LabelInfo': '3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783',
    'VisionInfo': '95d3116a17484ad91c9a2686e1d54890bbfc3ff6c6a2de137738c4950d45d284',
    'ObjectHypothesis': '51da43cec11c01957a64d1e05a24acd18aae7745ec30b74348ad5f6d634f7f90',
    'ObjectHypothesisWithPose': '41c12344c0396c48b81df12467c192d99b2a0eb1463c5c37194e4223251c80bc',
    'BoundingBox3D': 'bbb73a65c163d7f9bb29009c7bde9f7faa576bd2d23299c4511d19230dab4698',
    'BoundingBox3DArray': 'a81938db9576b10c2eecd7c5a5da3eac496efd00221b25ed051dfbc81fb56da6',
    'Detection3D': 'ddd703be132ab0b69d33121f1bb034132bfbb3b0ac5f9fb1516005ba1c8a265b',
    'Detection3DArray': '793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018',
    'Point2D': 'eab0e83f44ab4de92ceaf76dd7d0e7638f2bdd1d16ffbe16c7a136c48e407247',
    'Pose2D': 'b0b5d1d7b4c20dd4fcde3ed1d4b289a919290572007d67a97043814db25d3648',
    'BoundingBox2D': '008eacbb0cf8f26e83795547bed013eec3675485ef386ec056d80eaaf1c1ce2f',
    'BoundingBox2DArray': '2464e82838009386d371b523211c21c91d74d313fcdd6788223c531d621cf691',
    'Detection2D': '0d12b69df5c593b3455b7346fac8205437a7d4bcb09b9e0e0b2dde787ded38ea',
    'Detection2DArray': '214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968',
}
"""Type hashes of vision_msgs 4.1.1 (REP-2011): equal ones talk to any other ROS 2 machine."""


@pytest.fixture
def bootstrap() -> ModuleType:
    """The set-up script as a module."""
    spec = importlib.util.spec_from_file_location('bootstrap', ROOT / 'underlay' / 'bootstrap.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(venv: Path, *options: str, root: Path = ROOT, **variables: str) -> tuple[int, str, str]:
    """Exit code, output and errors of the set-up script under changed environment variables."""
    command = [sys.executable, root / 'underlay' / 'bootstrap.py', '--venv', venv, *options]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def doctored(folder: Path, code: str) -> str:
    """A PYTHONPATH under which Python starts with `code`."""
    folder.mkdir(exist_ok=True)
    (folder / 'sitecustomize.py').write_text(code)
    return str(folder)


# What was made


@pytest.mark.parametrize(
    ('package', 'name', 'digest'),
    [('vision_msgs', *row) for row in VISION_MSGS.items()]
    + [
        (
            'tf2_msgs',
            'TFMessage',
            'e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087',
        )
    ],
)
def test_underlay_speaks_the_messages_of_every_ros(package: str, name: str, digest: str) -> None:
    module = Path(pytest.importorskip(package).__file__)
    description = next(
        prefix / 'share' / package / 'msg' / f'{name}.json'
        for prefix in module.parents
        if (prefix / 'share' / package).is_dir()
    )
    hashes = {
        entry['type_name']: entry['hash_string']
        for entry in json.loads(description.read_text())['type_hashes']
    }
    assert hashes[f'{package}/msg/{name}'] == f'RIHS01_{digest}'


def test_underlay_stays_out_of_real_workspaces() -> None:
    assert (ROOT / 'underlay' / 'COLCON_IGNORE').is_file()
    defined = {path.stem for path in (ROOT / 'underlay/vision_msgs/msg').glob('*.msg')}
    assert defined == set(VISION_MSGS)


@pytest.mark.parametrize('module', ['tag_perception', 'vision_msgs', 'tf2_msgs'])
def test_modules_are_found_from_anywhere(module: str, tmp_path: Path) -> None:
    if find_spec('rclpy') is None:
        pytest.skip('needs ROS')
    code = f'import {module}; print({module}.__file__)'
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).is_file()


@pytest.mark.parametrize(
    'path', sorted((ROOT / 'requirements').glob('*.txt')), ids=lambda p: p.stem
)
def test_requirements_name_no_source_and_pin_torch(path: Path) -> None:
    lines = [line.split('#')[0].strip() for line in path.read_text().splitlines()]
    for line in filter(None, lines):
        assert re.match(r'[A-Za-z0-9-]+(\[\w+\])?[=<>]', line), f'{line}: a name and a version'
        assert '/' not in line
        assert not line.startswith('torch') or line == 'torch==2.13.0'


# What is run again, and what is not


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose set-up installs nothing."""
    root = tmp_path / 'project'
    (root / 'requirements').mkdir(parents=True)
    (root / 'underlay').mkdir()
    shutil.copy(ROOT / 'underlay' / 'bootstrap.py', root / 'underlay')
    for name in ('ros-kilted', 'runtime', 'training', 'export', 'development'):
        (root / 'requirements' / f'{name}.txt').touch()
    for name in ('setup.py', 'setup.cfg', 'pyproject.toml'):
        (root / name).touch()
    return root


@pytest.fixture
def environment(bootstrap, project, monkeypatch):
    """An environment of that project whose actions only tell that they ran."""
    monkeypatch.setattr(bootstrap, 'ROOT', project)
    made = bootstrap.Environment(project / '.venv', 'kilted')
    made.ran = []
    made.path.mkdir()
    for name in ('create', 'install', 'build_underlay', 'link_package'):
        monkeypatch.setattr(made, name, lambda name=name: made.ran.append(name))
    return made


def test_second_run_does_nothing(environment, capsys) -> None:
    environment.set_up()
    assert environment.ran == ['create', 'install', 'build_underlay', 'link_package']
    environment.ran.clear()
    environment.set_up()
    assert environment.ran == []
    assert capsys.readouterr().out.endswith('nothing to do\n')


def test_interrupted_run_goes_on_where_it_stopped(environment, monkeypatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(environment, 'build_underlay', interrupted)
        with pytest.raises(KeyboardInterrupt):
            environment.set_up()
    assert environment.ran == ['create', 'install']
    environment.set_up()
    assert environment.ran == ['create', 'install', 'build_underlay', 'link_package']


@pytest.mark.parametrize(
    ('changed', 'again'),
    [
        ('requirements/runtime.txt', ['install', 'build_underlay', 'link_package']),
        ('underlay/a_msgs/msg/A.msg', ['build_underlay', 'link_package']),
        ('setup.py', ['link_package']),
        ('README.md', []),
    ],
)
def test_a_change_repeats_what_depends_on_it(environment, bootstrap, changed, again) -> None:
    root = environment.path.parent
    package = root / 'underlay' / 'a_msgs' / 'msg'
    package.mkdir(parents=True)
    (package.parent / 'package.xml').touch()
    environment.interfaces = [package.parent]
    environment.set_up()
    environment.ran.clear()
    (root / changed).write_text('# changed')
    environment.set_up()
    assert environment.ran == again


def test_a_package_cut_off_while_it_was_written_is_written_again(
    bootstrap, environment, monkeypatch
) -> None:
    site = environment.path / 'lib' / 'python3.11' / 'site-packages'
    for name, files in {'whole-1.dist-info': ['INSTALLER'], 'torn-1.dist-info': []}.items():
        (site / name).mkdir(parents=True)
        for file in ['METADATA', *files]:
            (site / name / file).touch()
    monkeypatch.setattr(environment, '_run', lambda *command: None)
    bootstrap.Environment.install(environment)
    assert [path.name for path in site.iterdir()] == ['whole-1.dist-info']


def test_cmake_files_name_the_include_folders_of_this_machine(
    bootstrap, environment, monkeypatch
) -> None:
    cmake = environment.path / 'share' / 'a_msgs' / 'cmake' / 'a_msgsExport.cmake'
    cmake.parent.mkdir(parents=True)
    foreign = (
        '"/opt/python/cp311-cp311/include/python3.11;{}/opt/numpy/_core/include;/usr/include"'
    )
    cmake.write_text(foreign.format('/opt/python/lib/python3.11/site-packages;'))
    monkeypatch.setattr(environment, '_answer', lambda code: '/here/python /here/numpy')
    for _ in range(2):  # repairing twice is repairing once
        environment._repair_cmake_files()
        expected = (
            '"/here/python;/opt/python/lib/python3.11/site-packages;/here/numpy;/usr/include"'
        )
        assert cmake.read_text() == expected


# What is missing


TOOLS = ('cc', 'gcc', 'c++', 'g++', 'cmake', 'make')


@pytest.mark.parametrize(
    ('absent', 'package'),
    [
        (('cc', 'gcc'), 'gcc'),
        (('c++', 'g++'), r'g\+\+'),
        (('cmake',), 'cmake'),
        (('make',), 'make'),
        (TOOLS, r'gcc g\+\+ cmake make'),
    ],
)
def test_missing_tools_are_named_together(tmp_path: Path, absent, package) -> None:
    for tool in set(TOOLS) - set(absent):
        (tmp_path / tool).touch(mode=0o755)
    code, out, error = run(tmp_path / 'venv', PATH=str(tmp_path))
    assert (code, out) == (1, '')
    pattern = (
        f'set-up: missing: {package}; install them [(]Debian, Ubuntu: apt install {package}[)]\n'
    )
    assert re.fullmatch(pattern, error)
    assert not (tmp_path / 'venv').exists()


@pytest.mark.parametrize('version', [(3, 9, 2), (3, 13, 0), (3, 8, 10)])
def test_wrong_python_is_named(tmp_path: Path, version) -> None:
    code = f'import sys\nclass V(tuple): major, minor = {version[:2]}\n'
    code += f'sys.version_info = V(({version[0]}, {version[1]}, {version[2]}, "final", 0))\n'
    path = doctored(tmp_path / 'site', code)
    result = run(tmp_path / 'venv', PYTHONPATH=path)
    assert result == (
        1,
        '',
        f'set-up: this is Python 3.{version[1]}, and 3.10 to 3.12 is needed: '
        'name another one, as in `make setup PYTHON3=python3.12`\n',
    )


@pytest.mark.parametrize(
    ('code', 'expected'),
    [
        ('import sys; sys.modules["ensurepip"] = None', 'missing: python3-venv; install them .*'),
        (
            'import sysconfig; sysconfig.get_path = lambda name: "/nowhere"',
            'missing: python3-dev; install them .*',
        ),
        (
            'import shutil, types\n'
            'shutil.disk_usage = lambda path: types.SimpleNamespace(free=3.2e9)',
            '3.2 GB free in .*, and 4 GB are needed: free some',
        ),
    ],
)
def test_missing_parts_are_named(tmp_path: Path, code, expected) -> None:
    path = doctored(tmp_path / 'site', code)
    status, out, error = run(tmp_path / 'venv', PYTHONPATH=path)
    assert (status, out) == (1, '')
    assert re.fullmatch(f'set-up: {expected}\n', error)


def test_unknown_distribution_is_refused(tmp_path: Path) -> None:
    status, _, error = run(tmp_path / 'venv', '--ros', 'melodic')
    assert status == 1
    assert error == "set-up: no distribution 'melodic': take one of ('kilted', 'jazzy')\n"


def test_make_without_python_says_so() -> None:
    done = subprocess.run(
        ['make', '--no-print-directory', 'setup', 'PYTHON3=python3.no'],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.startswith('set-up: there is no python3.no; install Python 3.10 to 3.12')


def test_no_network_is_one_line(project: Path) -> None:
    """The real pip, told that its index stands on a port of this machine where nobody listens."""
    (project / 'requirements' / 'runtime.txt').write_text('PyYAML==6.0.2\n')
    status, _, error = run(
        project / '.venv',
        root=project,
        PIP_CONFIG_FILE=os.devnull,
        PIP_INDEX_URL='http://127.0.0.1:9/simple',
        PIP_EXTRA_INDEX_URL='',
        PIP_FIND_LINKS='',
        PIP_NO_CACHE_DIR='1',
        PIP_RETRIES='1',
    )
    assert status == 1
    log = project / '.venv' / 'setup.log'
    assert error == (
        'set-up: no package index can be reached: check the network and `pip config list`, '
        f'then `make setup` again (log: {log})\n'
    )
    stamps = json.loads((project / '.venv' / 'setup.json').read_text())
    assert len(stamps) == 1, 'the environment stands, the packages are still due'


def test_a_killed_command_is_one_line(environment) -> None:
    with pytest.raises(Exception, match=r'^sh was ended by signal 9 .*goes on from here$'):
        environment._run('sh', '-c', 'kill -9 $$')


@pytest.mark.parametrize(
    ('line', 'remedy'),
    [
        ('OSError: [Errno 28] No space left on device', 'the disk is full: free 4 GB, then '),
        ('ReadTimeoutError: Read timed out.', 'no package index can be reached: check '),
        (
            'ERROR: No matching distribution found for x==9',
            'stopped at "ERROR: No matching distribution',
        ),
    ],
)
def test_causes_in_a_log_become_one_line(bootstrap, line, remedy) -> None:
    message = bootstrap.explain(['Collecting x', line, 'bye'], Path('setup.log'))
    assert message.startswith(remedy)
    assert '\n' not in message
    assert 'setup.log' in message
    assert '`make setup` again' in message

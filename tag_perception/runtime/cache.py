"""A few large files that are dear to make, in the user's cache folder, checked when read.

A file is one line of JSON and the content. The line holds a digest of the content and what the
content was made with, so that neither a damaged file nor one of other versions is ever used.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

log = logging.getLogger(__name__)

Content = TypeVar('Content')

KEPT_FILES = 8
"""So many of the files used last stay in the folder."""
HEADER_BYTES = 2**16
MAX_BYTES = 2**31
"""Larger ones are not read: an ONNX file cannot be, and ours are a tenth of that."""


def folder() -> Path:
    """$XDG_CACHE_HOME/tag_perception, by default below ~/.cache."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'tag_perception'


def fetch(
    name: str,
    made_with: Mapping[str, str],
    make: Callable[[], bytes],
    read: Callable[[bytes], Content],
) -> Content:
    """What `read` makes of file `name`; made anew, and said so, unless that is to be trusted.

    A file that `read` refuses with ValueError is made anew, too; its second refusal is raised.
    """
    try:
        found = _checked(folder() / name, made_with)
    except ValueError as error:
        log.warning('cache file %s %s; making it anew', name, error)
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        log.info('cache file %s is not there yet; making it', name)
    else:
        try:
            return read(found)
        except ValueError as error:
            log.warning('cache file %s: %s; making it anew', name, error)
    content = make()
    try:
        _write(folder() / name, made_with, content)
    except OSError as error:
        _warn_once(f'cannot keep files in {folder()}: {error.strerror}')
    except RuntimeError as error:
        _warn_once(f'cannot keep files: {error}')
    return read(content)


@functools.cache
def _warn_once(problem: str) -> None:
    log.warning('%s; every start will make them anew', problem)


def _checked(path: Path, made_with: Mapping[str, str]) -> bytes:
    """Raises ValueError where the file is damaged or was made with anything else."""
    with path.open('rb') as file:
        line = file.readline(HEADER_BYTES)
        try:
            header = json.loads(line)
            sha256, size = header['sha256'], int(header['bytes'])
            found = dict(header['made_with'])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError('is not one of ours') from error
        if found != made_with:
            differing = [k for k in made_with if found.get(k) != made_with[k]]
            raise ValueError(f'was made with another {", ".join(differing) or "recipe"}')
        # Before memory is taken for a size that is only claimed, in the header or by the disk.
        if size > MAX_BYTES or os.fstat(file.fileno()).st_size != len(line) + size:
            raise ValueError('is damaged')
        content = file.read()
    if sha256 != hashlib.sha256(content).hexdigest():
        raise ValueError('is damaged')
    path.touch()
    return content


def _write(path: Path, made_with: Mapping[str, str], content: bytes) -> None:
    """All or nothing, also beside another process that writes the same file."""
    header = {
        'sha256': hashlib.sha256(content).hexdigest(),
        'bytes': len(content),
        'made_with': dict(made_with),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(json.dumps(header).encode() + b'\n' + content)
        os.replace(partial, path)
    except OSError:
        Path(partial).unlink(missing_ok=True)
        raise
    by_age = sorted(path.parent.glob(f'*{path.suffix}'), key=lambda p: p.stat().st_mtime)
    for outdated in by_age[:-KEPT_FILES]:
        outdated.unlink(missing_ok=True)

"""Files that travel with the package: configuration, launch files, weights."""

from __future__ import annotations

from pathlib import Path

from tag_perception.config import InputError


def shared_file(*parts: str) -> Path:
    """A file of this package's share folder: in the source tree, or where it is installed.

    Raises InputError where it is in neither.
    """
    source, *prefixes = Path(__file__).resolve().parents[1:]
    for folder in (source, *(prefix / 'share' / 'tag_perception' for prefix in prefixes)):
        if folder.joinpath(*parts).exists():
            return folder.joinpath(*parts)
    raise InputError(f'{"/".join(parts)} is not installed; install tag_perception again')

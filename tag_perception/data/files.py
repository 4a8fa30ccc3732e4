"""Reading the files of a dataset so that every complaint names the file and the field."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from tag_perception.config import InputError

Key = str | int
"""One step into a JSON document: the name of a member or the index of an item."""


class JsonFile:
    """A parsed JSON file whose values are fetched by path: `file.number('intrinsic', 'fx')`."""

    def __init__(self, path: Path) -> None:
        """Raises InputError where the file is missing, half-written or not JSON."""
        self.path = path
        try:
            self._document = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise InputError(f'{path}: no such file') from None
        except OSError as error:
            raise InputError(f'{path}: cannot be read: {error.strerror}') from error
        except (ValueError, RecursionError) as error:
            raise InputError(f'{path}: not valid JSON ({_one_line(error)})') from error

    def __contains__(self, key: str) -> bool:
        return isinstance(self._document, dict) and key in self._document

    def has(self, *keys: Key) -> bool:
        """Whether the value exists."""
        try:
            self.value(*keys)
        except InputError:
            return False
        return True

    def value(self, *keys: Key) -> Any:
        """Whatever stands at `keys`."""
        node = self._document
        for depth, key in enumerate(keys, 1):
            try:
                if not isinstance(node, dict if isinstance(key, str) else list):
                    raise KeyError(key)
                node = node[key]  # type: ignore[index]
            except LookupError:
                raise self.fault('is missing', *keys[:depth]) from None
        return node

    def length(self, *keys: Key) -> int:
        """Number of items of the list at `keys`."""
        value = self.value(*keys)
        if not isinstance(value, list):
            raise self.fault(f'expected a list, got {_short(value)}', *keys)
        return len(value)

    def text(self, *keys: Key) -> str:
        """The string at `keys`."""
        value = self.value(*keys)
        if not isinstance(value, str):
            raise self.fault(f'expected a string, got {_short(value)}', *keys)
        return value

    def number(self, *keys: Key) -> float:
        """The finite number at `keys`."""
        value = self.value(*keys)
        if not _is_finite_number(value):
            raise self.fault(f'expected a finite number, got {_short(value)}', *keys)
        return float(value)

    def numbers(self, count: int, *keys: Key) -> np.ndarray:
        """(count,) float64: the list of finite numbers at `keys`."""
        value = self.value(*keys)
        if (
            not isinstance(value, list)
            or len(value) != count
            or not all(map(_is_finite_number, value))
        ):
            raise self.fault(f'expected {count} finite numbers, got {_short(value)}', *keys)
        return np.array(value, np.float64)

    def fault(self, what: str, *keys: Key) -> InputError:
        """The error `<file>: <field>: <what>`."""
        field = ''.join(f'[{key}]' if isinstance(key, int) else f'.{key}' for key in keys)
        return InputError(f'{self.path}: {field.lstrip(".") or "document"}: {what}')


def read_pixels(path: Path, kind: str, modes: tuple[str, ...]) -> np.ndarray:
    """Pixels of a PNG or JPEG whose Pillow mode is one of `modes`; `kind` describes those.

    Pillow and not OpenCV, which returns the intact upper part of a half-written file in silence.
    """
    try:
        with Image.open(path, formats=('PNG', 'JPEG')) as image:
            image.load()
            mode, pixels = image.mode, np.array(image)
    except FileNotFoundError:
        raise InputError(f'{path}: no such file') from None
    except UnidentifiedImageError:
        raise InputError(f'{path}: damaged image (neither PNG nor JPEG)') from None
    except Exception as error:  # hostile bytes fail in every part of a decoder in its own way
        raise InputError(f'{path}: damaged image ({_one_line(error)})') from error
    if mode not in modes:
        raise InputError(f'{path}: pixels: expected {kind}, got mode {mode}')
    return pixels


def check_size(path: Path, pixels: np.ndarray, width: int, height: int) -> None:
    """Raise InputError unless `pixels` is (height, width, …)."""
    if pixels.shape[:2] != (height, width):
        raise InputError(
            f'{path}: size: {pixels.shape[1]}×{pixels.shape[0]}, its image is {width}×{height}'
        )


def _is_finite_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond float64
        return False


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split()) or type(error).__name__


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}…'

"""Dataclass ⇄ YAML ⇄ "a.b=c" overrides; an unknown key or a wrong type is an error.

PyYAML is imported where it is used: a command imports this module before it handles signals.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

Config = TypeVar('Config')


class InputError(ValueError):
    """Something given by the user is wrong. The message is one line: the thing and the remedy."""


class ConfigError(InputError):
    """A configuration names an unknown key or holds a value of the wrong type."""


def from_dict(cls: type[Config], values: Mapping[str, Any], where: str = '') -> Config:
    """Build the (nested) dataclass `cls` from plain values; `where` prefixes keys in errors."""
    if not isinstance(values, Mapping):
        raise ConfigError(f'{where or cls.__name__}: expected a mapping, got {values!r}')
    hints = typing.get_type_hints(cls)
    known = {field.name: hints[field.name] for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(str(key) for key in set(values) - set(known))
    if unknown:
        raise ConfigError(
            f'unknown key {_join(where, unknown[0])!r}; known here: {", ".join(sorted(known))}'
        )
    kwargs = {key: _convert(known[key], value, _join(where, key)) for key, value in values.items()}
    try:
        return cls(**kwargs)
    except TypeError as error:
        raise ConfigError(f'{where or cls.__name__}: {error}') from error


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested dict of a dataclass, ready for YAML or JSON (tuples become lists)."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def flatten(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """{'a': {'b': 1}} → {'a.b': 1}: the dotted names that ROS parameters and overrides share."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = _join(prefix, key)
        flat.update(flatten(value, name) if isinstance(value, Mapping) else {name: value})
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{'a.b': 1} → {'a': {'b': 1}}, the inverse of `flatten`."""
    values: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, leaf = name.split('.')
        node = values
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f'{name!r}: {parent!r} is a value, not a section')
        if isinstance(node.get(leaf), dict):
            raise ConfigError(f'{name!r} is a section, not a value')
        node[leaf] = value
    return values


def load(cls: type[Config], path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Read `cls` from a YAML file, then apply overrides of the form "a.b=c" (c is YAML)."""
    try:
        text = Path(path).read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f'{path}: {error}') from error
    try:
        return override(from_dict(cls, _parse(text) or {}), overrides)
    except ConfigError as error:
        raise ConfigError(f'{path}: {error}') from error


def save(config: Any, path: Path | str) -> None:
    """Write a dataclass as YAML that `load` reads back."""
    import yaml

    Path(path).write_text(yaml.safe_dump(to_dict(config), sort_keys=False))


def override(config: Config, assignments: Sequence[str]) -> Config:
    """A copy of `config` with every "a.b=c" applied; c is YAML, "a.b=" is empty text."""
    values = to_dict(config)
    known = flatten(values)
    for assignment in assignments:
        name, equals, text = assignment.partition('=')
        if not equals:
            raise ConfigError(f'override {assignment!r} is not of the form name=value')
        if name not in known and not isinstance(_at(values, name), Mapping):
            raise ConfigError(f'unknown key {name!r}; known: {", ".join(sorted(known))}')
        *parents, leaf = name.split('.')
        node = values
        for parent in parents:
            node = node[parent]
        try:
            node[leaf] = _parse(text) if text else ''
        except ConfigError as error:
            raise ConfigError(f'{name}: {error}') from error
    return from_dict(type(config), values)


def _parse(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: the 99th of May
        raise ConfigError(f'not YAML: {" ".join(str(error).split())}') from error


def _at(values: Any, name: str) -> Any:
    for part in name.split('.'):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def _join(where: str, key: str) -> str:
    return f'{where}.{key}' if where else str(key)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Check `value` against a type hint: scalars, Literal, Optional, tuple, dict, dataclass."""
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise ConfigError(f'{where}: {value!r} is not one of {", ".join(map(str, arguments))}')
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, where)
    if origin in (tuple, list):
        return _convert_sequence(origin, arguments, value, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f'{where}: expected a mapping, got {value!r}')
        return {k: _convert(arguments[1], v, f'{where}[{k!r}]') for k, v in value.items()}
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        return _to_float(value, where)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is not Any and not isinstance(value, hint):
        raise ConfigError(f'{where}: expected {hint.__name__}, got {value!r}')
    if hint is int and isinstance(value, bool):
        raise ConfigError(f'{where}: expected int, got {value!r}')
    return value


def _to_float(value: int | str, where: str) -> float:
    """Also of text: YAML 1.1 takes 2e-5, without a dot, for a word."""
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise ConfigError(f'{where}: expected float, got {value!r}') from None


def _convert_sequence(origin: type, arguments: tuple, value: Any, where: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f'{where}: expected a list, got {value!r}')
    if origin is tuple and Ellipsis not in arguments and len(value) != len(arguments):
        raise ConfigError(f'{where}: expected {len(arguments)} values, got {len(value)}')
    item_types = arguments if origin is tuple and Ellipsis not in arguments else None
    return origin(
        _convert(item_types[i] if item_types else arguments[0], item, f'{where}[{i}]')
        for i, item in enumerate(value)
    )

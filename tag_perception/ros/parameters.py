"""The node's configuration as ROS parameters: same dotted names, same defaults, checked ranges."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import textwrap
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from tag_perception import config
from tag_perception.config import ConfigError, InputError
from tag_perception.overlay import OverlayStyle
from tag_perception.ros.messages import ClassIdFormat
from tag_perception.runtime.engine import EngineConfig


@dataclass(frozen=True)
class PerceptionConfig:
    """Everything that can be set on the node. QoS has its own parameters: `qos_overrides`."""

    autostart: bool = True
    """Configure and activate at start, without a lifecycle manager."""
    class_id_format: ClassIdFormat = 'name'
    """What detections carry as class_id: the class name, or the mask's train id as text."""
    stale_after_s: float = 1.0
    """Seconds without a frame after which diagnostics call the input stale."""
    latency_window_s: float = 10.0
    """Seconds that the rate and latency figures in diagnostics cover."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    overlay: OverlayStyle = field(default_factory=OverlayStyle)


RANGES: dict[str, tuple[float, float]] = {
    'stale_after_s': (0.05, 3600.0),
    'latency_window_s': (1.0, 3600.0),
    'engine.score_threshold': (0.0, 1.0),
    'overlay.semantic_alpha': (0.0, 1.0),
    'overlay.depth_near_m': (0.1, 1000.0),
    'overlay.depth_far_m': (0.2, 10000.0),
}
"""Allowed values of every numeric parameter, bounds included."""

OURS = ('qos_overrides.', 'use_sim_time', 'start_type_description_service')
"""Names of parameters that belong to rclpy and not to this configuration."""


def declare(node: Node) -> PerceptionConfig:
    """Declare every parameter and return the configuration with the overrides applied.

    Raises InputError for an unknown name, a wrong type or a value outside its range.
    """
    defaults = config.flatten(config.to_dict(PerceptionConfig()))
    _check_known(node, defaults)
    for name, default in defaults.items():
        try:
            node.declare_parameter(name, default, descriptor(name))
        except InvalidParameterTypeException as error:
            raise ConfigError(f'parameter {name}: {" ".join(str(error).split())}') from error
        except InvalidParameterValueException as error:
            low, high = RANGES[name]
            raise ConfigError(f'parameter {name} is outside {low:g} … {high:g}') from error
    return from_values({name: node.get_parameter(name).value for name in defaults})


def from_values(values: dict[str, Any]) -> PerceptionConfig:
    """The configuration of dotted names and values; raises InputError with the allowed values."""
    for name, (low, high) in RANGES.items():
        if name in values and not low <= values[name] <= high:  # also false for NaN
            raise ConfigError(f'{name} = {values[name]} is outside {low:g} … {high:g}')
    return config.from_dict(PerceptionConfig, config.unflatten(values))


def change(
    current: PerceptionConfig, parameters: Iterable[Parameter], configured: bool
) -> tuple[PerceptionConfig, SetParametersResult]:
    """The configuration after setting `parameters`, or `current` and the reason against it."""
    values = config.flatten(config.to_dict(current))
    changes = {p.name: p.value for p in parameters if p.name in values}
    fixed = [name for name in changes if name.startswith('engine.')]
    if configured and fixed:
        reason = f'{fixed[0]} takes effect in configure: clean the node up first'
        return current, SetParametersResult(successful=False, reason=reason)
    try:
        return from_values({**values, **changes}), SetParametersResult(successful=True)
    except InputError as error:
        return current, SetParametersResult(successful=False, reason=str(error))


def descriptor(name: str) -> ParameterDescriptor:
    """Description, range and allowed values of one parameter."""
    hint, description = _fields()[name]
    choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    result = ParameterDescriptor(
        name=name,
        description=description,
        additional_constraints=f'one of {", ".join(choices)}' if choices else '',
        read_only=name == 'autostart',
    )
    if name.startswith('engine.'):
        result.additional_constraints += '; ' if choices else ''
        result.additional_constraints += 'fixed while the node is configured'
    if name in RANGES:
        low, high = RANGES[name]
        if hint is int:
            result.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        else:
            result.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    return result


@cache
def _fields() -> dict[str, tuple[Any, str]]:
    """Type and description of every dotted name, read from the dataclasses that own them."""

    def walk(cls: type, prefix: str) -> Iterable[tuple[str, tuple[Any, str]]]:
        hints, descriptions = typing.get_type_hints(cls), _docstrings(cls)
        for item in dataclasses.fields(cls):  # type: ignore[arg-type]
            hint = hints[item.name]
            if dataclasses.is_dataclass(hint):
                yield from walk(typing.cast(type, hint), f'{prefix}{item.name}.')
            else:
                yield prefix + item.name, (hint, descriptions.get(item.name, ''))

    return dict(walk(PerceptionConfig, ''))


def _docstrings(cls: type) -> dict[str, str]:
    """The text below each field of a dataclass, which Python itself throws away."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
    texts = {}
    for statement, following in zip(body, body[1:]):  # noqa: B905, RUF007
        if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr):
            name = typing.cast(ast.Name, statement.target).id
            texts[name] = ' '.join(ast.literal_eval(following.value).split())
    return texts


def _check_known(node: Node, defaults: dict[str, Any]) -> None:
    # rclpy ignores overrides that nobody declares, so a misspelt name would go unnoticed.
    for name in node._parameter_overrides:
        if name not in defaults and not name.startswith(OURS):
            near = difflib.get_close_matches(name, defaults, 1)
            hint = f'did you mean {near[0]}?' if near else f'known: {", ".join(defaults)}'
            raise ConfigError(f'unknown parameter {name!r}; {hint}')

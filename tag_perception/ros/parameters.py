"""The node's configuration as ROS parameters: same dotted names, same defaults, checked ranges."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

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
from tag_perception.core.labels import DETECTION_CLASSES
from tag_perception.core.occupancy import GridConfig
from tag_perception.overlay import OverlayStyle
from tag_perception.ros.messages import ClassIdFormat
from tag_perception.ros.planning import PointsConfig
from tag_perception.runtime.engine import EngineConfig

CAMERA_NAME = '[A-Za-z](_?[A-Za-z0-9])*_?'
"""What may stand between two slashes of a topic."""


@dataclass(frozen=True)
class ScoreThresholds:
    """By class, on top of `engine.score_threshold`; may change at run time."""

    car: float = 0.0
    """Cars with a lower score are dropped, 0 … 1."""
    truck: float = 0.0
    """Trucks with a lower score are dropped, 0 … 1."""
    bus: float = 0.0
    """Buses with a lower score are dropped, 0 … 1."""
    train: float = 0.0
    """Trains with a lower score are dropped, 0 … 1."""
    motorcycle: float = 0.0
    """Motorcycles with a lower score are dropped, 0 … 1."""
    bicycle: float = 0.0
    """Bicycles with a lower score are dropped, 0 … 1."""


@dataclass(frozen=True)
class OutputToggles:
    """What is published at all. What is made on demand is free while nobody subscribes."""

    detections: bool = True
    """Publish ~/detections, ~/detections_2d, ~/consistency, ~/label_info and ~/markers."""
    semantic: bool = True
    """Publish ~/semantic/*."""
    depth: bool = True
    """Publish ~/depth/*."""
    overlay: bool = True
    """Publish ~/overlay."""
    points: bool = True
    """Publish ~/points."""
    obstacles: bool = True
    """Publish ~/obstacles."""

    def allows(self, topic: str) -> bool:
        """Whether `topic`, relative to the node, is to be published."""
        group = topic.partition('/')[0]
        if group in ('detections_2d', 'consistency', 'label_info', 'markers'):
            group = 'detections'
        return getattr(self, group, True)


@dataclass(frozen=True)
class PerceptionConfig:
    """Everything that can be set on the node. QoS has its own parameters: `qos_overrides`."""

    autostart: bool = True
    """Configure and activate at start, without a lifecycle manager."""
    cameras: tuple[str, ...] = ()
    """Names of several cameras, e.g. front: its topics are front/image and ~/front/detections."""
    image_transport: Literal['raw', 'compressed'] = 'raw'
    """Subscribe to the image topic, or to its /compressed (JPEG, PNG)."""
    rectified_input: bool = False
    """Images come rectified (image_rect) although camera_info has a distortion: use its P."""
    max_rate_hz: float = 0.0
    """Process at most this many frames per second of a camera, Hz; 0: all there is time for."""
    target_frame: str = ''
    """TF frame of detections, markers and obstacles, e.g. base_link; empty: that of the image."""
    class_id_format: ClassIdFormat = 'name'
    """What detections carry as class_id: the class name, or the mask's train id as text."""
    min_consistency: float = 0.0
    """Boxes whose ~/consistency is lower are dropped, 0 … 1; 0: none."""
    stale_after_s: float = 1.0
    """Seconds without a frame after which diagnostics call the input stale."""
    latency_window_s: float = 10.0
    """Seconds that the rate and latency figures in diagnostics cover."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    score_thresholds: ScoreThresholds = field(default_factory=ScoreThresholds)
    outputs: OutputToggles = field(default_factory=OutputToggles)
    points: PointsConfig = field(default_factory=PointsConfig)
    obstacles: GridConfig = field(default_factory=GridConfig)
    overlay: OverlayStyle = field(default_factory=OverlayStyle)

    def __post_init__(self) -> None:
        for index, name in enumerate(self.cameras):
            if not re.fullmatch(CAMERA_NAME, name):
                raise ConfigError(
                    f'cameras: {name!r} cannot be part of a topic: take letters, digits and '
                    'single underscores, a letter first'
                )
            if name in self.cameras[:index]:
                raise ConfigError(f'cameras: {name!r} stands there twice; each needs its own name')


RANGES: dict[str, tuple[float, float]] = {
    'max_rate_hz': (0.0, 1000.0),
    'min_consistency': (0.0, 1.0),
    'stale_after_s': (0.05, 3600.0),
    'latency_window_s': (1.0, 3600.0),
    'engine.score_threshold': (0.0, 1.0),
    **{f'score_thresholds.{name}': (0.0, 1.0) for name in DETECTION_CLASSES},
    'points.stride': (1, 64),
    'obstacles.resolution_m': (0.05, 5.0),
    'obstacles.ahead_m': (5.0, 200.0),
    'obstacles.side_m': (2.0, 100.0),
    'obstacles.min_height_m': (-5.0, 5.0),
    'obstacles.max_height_m': (0.0, 20.0),
    'obstacles.camera_height_m': (0.1, 10.0),
    'overlay.semantic_alpha': (0.0, 1.0),
    'overlay.depth_near_m': (0.1, 1000.0),
    'overlay.depth_far_m': (0.2, 10000.0),
}
"""Allowed values of every numeric parameter, bounds included."""

JSON_TYPES = {
    bool: 'boolean',
    int: 'integer',
    float: 'number',
    str: 'string',
    list: 'array',
}

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
            _declare(node, name, default)
        except InvalidParameterTypeException as error:
            raise ConfigError(f'parameter {name}: {" ".join(str(error).split())}') from error
        except InvalidParameterValueException as error:
            low, high = RANGES[name]
            raise ConfigError(f'parameter {name} is outside {low:g} … {high:g}') from error
    return from_values({name: node.get_parameter(name).value for name in defaults})


def from_values(values: dict[str, Any]) -> PerceptionConfig:
    """The configuration of dotted names and values; raises InputError with the allowed values."""
    for name, (low, high) in RANGES.items():
        value = values.get(name, low)
        if not isinstance(value, (int, float)) or not low <= value <= high:  # nor is NaN inside
            raise ConfigError(f'{name} = {value!r} is outside {low:g} … {high:g}')
    return config.from_dict(PerceptionConfig, config.unflatten(values))


def change(
    current: PerceptionConfig,
    parameters: Iterable[Parameter],
    fault: Callable[[PerceptionConfig], str | None] | None,
) -> tuple[PerceptionConfig, SetParametersResult]:
    """The configuration after setting `parameters`, or `current` and the reason against it.

    `fault` tells what a configured node cannot do; None: the node is not configured.
    """
    values = config.flatten(config.to_dict(current))
    changes = {p.name: p.value for p in parameters if p.name in values}
    fixed = [name for name in changes if _is_fixed(name)]
    if fault is not None and fixed:
        reason = f'{fixed[0]} takes effect in configure: clean the node up first'
        return current, SetParametersResult(successful=False, reason=reason)
    try:
        changed = from_values({**values, **changes})
        problem = fault(changed) if fault is not None else None
        if problem is not None:
            raise ConfigError(problem)
    except InputError as error:
        return current, SetParametersResult(successful=False, reason=str(error))
    return changed, SetParametersResult(successful=True)


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
    if _is_fixed(name):
        result.additional_constraints += '; ' if choices else ''
        result.additional_constraints += 'fixed while the node is configured'
    if name in RANGES:
        low, high = RANGES[name]
        if hint is int:
            result.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        else:
            result.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    return result


def refusal(node: Node, parameter: Parameter) -> str | None:
    """Why `parameter` cannot be one of the node's: its name is unknown or its type is wrong."""
    name, given = parameter.name, parameter.type_.name.lower()
    if not node.has_parameter(name):
        return unknown(name)
    declared = Parameter.Type(node.describe_parameter(name).type).name.lower()
    if given != declared:
        now = node.get_parameter(name).value
        return f'{name} is of type {declared}, now {now!r}; {parameter.value!r} is of type {given}'
    return None


def unknown(name: str) -> str:
    """What is wrong with a name that no parameter has, and what it may have meant."""
    near = difflib.get_close_matches(name, _fields(), 1)
    hint = f'did you mean {near[0]}?' if near else f'known: {", ".join(_fields())}'
    return f'unknown parameter {name!r}; {hint}'


def schema() -> dict[str, Any]:
    """JSON schema of a parameter file: types, ranges, choices, defaults and descriptions."""
    root: dict[str, Any] = {'type': 'object', 'additionalProperties': False, 'properties': {}}
    for name, default in config.flatten(config.to_dict(PerceptionConfig())).items():
        *parents, leaf = name.split('.')
        node = root
        for parent in parents:
            empty = {'type': 'object', 'additionalProperties': False, 'properties': {}}
            node = node['properties'].setdefault(parent, empty)
        hint, description = _fields()[name]
        entry: dict[str, Any] = {
            'type': JSON_TYPES[type(default)],
            'default': default,
            'description': description,
        }
        if typing.get_origin(hint) is Literal:
            entry['enum'] = list(typing.get_args(hint))
        if name in RANGES:
            entry['minimum'], entry['maximum'] = RANGES[name]
        if name == 'cameras':
            entry['items'] = {'type': 'string', 'pattern': f'^{CAMERA_NAME}$'}
            entry['uniqueItems'] = True
        node['properties'][leaf] = entry
    # Parameters that belong to rclpy (use_sim_time, qos_overrides) may stand beside ours.
    root['additionalProperties'] = True
    wrapped = {'type': 'object', 'required': ['ros__parameters'], 'properties': {}}
    wrapped['properties'] = {'ros__parameters': root}
    return {
        '$schema': 'https://json-schema.org/draft/2020-12/schema',
        'title': 'Parameters of tag_perception/perception_node',
        'type': 'object',
        'additionalProperties': wrapped,
    }


def _declare(node: Node, name: str, default: Any) -> None:
    if not isinstance(default, list):
        node.declare_parameter(name, default, descriptor(name))
        return
    # rclpy takes an empty list for one of bytes, and that of a YAML file for no value at all.
    names = Parameter.Type.STRING_ARRAY
    node.declare_parameter(name, names, descriptor(name))
    if node.get_parameter_or(name).value is None:
        node.set_parameters([Parameter(name, names, default)])


def _is_fixed(name: str) -> bool:
    """Whether a parameter is read in configure only."""
    return name.startswith('engine.') or name in ('cameras', 'image_transport')


@cache
def _fields() -> dict[str, tuple[Any, str]]:
    """Type and description of every dotted name, read from the dataclasses that own them."""

    def walk(cls: type, prefix: str) -> Iterable[tuple[str, tuple[Any, str]]]:
        hints, descriptions = typing.get_type_hints(cls), _docstrings(cls)
        for item in dataclasses.fields(cls):
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
            raise ConfigError(unknown(name))

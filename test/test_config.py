"""Dataclass ⇄ YAML ⇄ overrides: what goes in comes back, and what is wrong is named."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tag_perception import config
from tag_perception.config import ConfigError, InputError


@dataclass(frozen=True)
class Optimizer:
    name: Literal['adam', 'sgd'] = 'adam'
    rate: float = 2e-5
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True)
class Experiment:
    seed: int = 0
    title: str = ''
    flip: bool = False
    limit: int | None = None
    tasks: tuple[str, ...] = ('depth',)
    widths: list[int] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    root: Path = Path('data')
    optimizer: Optimizer = Optimizer()
    second: Optimizer | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f'seed {self.seed} is negative')


texts = st.text(max_size=8)
keys = st.text('abcdefg_', min_size=1, max_size=6)
numbers = st.floats(allow_nan=False)
optimizers = st.builds(
    Optimizer,
    name=st.sampled_from(['adam', 'sgd']),
    rate=numbers,
    betas=st.tuples(numbers, numbers),
)
experiments = st.builds(
    Experiment,
    seed=st.integers(0),
    title=texts,
    flip=st.booleans(),
    limit=st.none() | st.integers(),
    tasks=st.lists(texts, max_size=3).map(tuple),
    widths=st.lists(st.integers(), max_size=3),
    weights=st.dictionaries(texts, numbers, max_size=3),
    root=st.text('ab/', min_size=1).map(Path),
    optimizer=optimizers,
    second=st.none() | optimizers,
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(experiments)
def test_dict_round_trip(experiment):
    assert config.from_dict(Experiment, config.to_dict(experiment)) == experiment


@settings(max_examples=50, deadline=None)
@given(experiments)
def test_file_round_trip(tmp_path_factory, experiment):
    path = tmp_path_factory.getbasetemp() / 'experiment.yaml'
    config.save(experiment, path)
    assert config.load(Experiment, path) == experiment


@given(st.recursive(st.integers(), lambda x: st.dictionaries(keys, x, min_size=1), max_leaves=9))
def test_flatten_round_trip(values):
    values = values if isinstance(values, dict) else {'only': values}
    flat = config.flatten(values)
    assert not any(isinstance(value, dict) for value in flat.values())
    assert config.unflatten(flat) == values


@pytest.mark.parametrize('flat', [{'a': 1, 'a.b': 2}, {'a.b': 2, 'a': 1}])
def test_a_name_is_a_value_or_a_section(flat):
    with pytest.raises(ConfigError, match="'a'"):
        config.unflatten(flat)


@pytest.mark.parametrize(
    ('values', 'says'),
    [
        ({'sead': 1}, "unknown key 'sead'"),
        ({'optimizer': {'momentum': 1}}, "unknown key 'optimizer.momentum'"),
        ({1: 2, 'x': 3}, "unknown key '1'"),
        ({'seed': '1'}, "seed: expected int, got '1'"),
        ({'seed': True}, 'seed: expected int, got True'),
        ({'seed': 1.5}, 'seed: expected int, got 1.5'),
        ({'flip': 1}, 'flip: expected bool, got 1'),
        ({'limit': 'x'}, "limit: expected int, got 'x'"),
        ({'title': None}, 'title: expected str, got None'),
        ({'tasks': 'depth'}, "tasks: expected a list, got 'depth'"),
        ({'tasks': ['depth', 3]}, r'tasks\[1\]: expected str, got 3'),
        ({'weights': [1]}, r'weights: expected a mapping, got \[1\]'),
        ({'weights': {'depth': 'x'}}, r"weights\['depth'\]: expected float, got 'x'"),
        ({'optimizer': 3}, 'optimizer: expected a mapping, got 3'),
        ({'optimizer': {'name': 'lamb'}}, "optimizer.name: 'lamb' is not one of adam, sgd"),
        ({'optimizer': {'betas': [0.9]}}, 'optimizer.betas: expected 2 values, got 1'),
        ({'seed': -1}, 'seed -1 is negative'),
    ],
)
def test_wrong_values_are_named(values, says):
    with pytest.raises(InputError, match=says):
        config.from_dict(Experiment, values)


def test_missing_value_is_named():
    needed = dataclasses.make_dataclass('Needed', [('path', str)])
    with pytest.raises(ConfigError, match='path'):
        config.from_dict(needed, {})


@given(plain)
def test_any_plain_value_gives_a_config_or_a_one_line_input_error(values: Any):
    try:
        config.from_dict(Experiment, values)
    except InputError as error:
        assert '\n' not in str(error)  # noqa: PT017


def test_overrides():
    start = Experiment()
    changed = config.override(
        start,
        ['seed=7', 'optimizer.rate=1e-3', 'optimizer.name=sgd', 'tasks=[depth, semantic]',
         'limit=null', 'weights={depth: 2}', 'title="7"'],
    )  # fmt: skip
    assert changed == Experiment(
        seed=7,
        tasks=('depth', 'semantic'),
        title='7',
        weights={'depth': 2.0},
        optimizer=Optimizer('sgd', rate=1e-3),
    )
    assert start == Experiment()
    assert config.override(changed, ['optimizer={name: adam}']).optimizer == Optimizer()


@pytest.mark.parametrize(
    ('assignment', 'says'),
    [
        ('seed', "'seed' is not of the form name=value"),
        ('sead=1', "unknown key 'sead'; known: .*seed"),
        ('seed.x=1', "unknown key 'seed.x'"),
        ('optimizer.momentum=1', "unknown key 'optimizer.momentum'"),
        ('=1', "unknown key ''"),
        ('tasks=[', 'tasks'),
        ('seed=fast', "seed: expected int, got 'fast'"),
    ],
)
def test_wrong_overrides_are_named(assignment, says):
    with pytest.raises(ConfigError, match=says) as error:
        config.override(Experiment(), [assignment])
    assert '\n' not in str(error.value)


@settings(max_examples=100)
@given(
    st.text(max_size=20)
    | st.from_regex(r'(seed|optimizer\.rate|tasks)=[^\n]{0,10}', fullmatch=True)
)
def test_any_override_text_gives_a_config_or_a_one_line_input_error(text):
    try:
        config.override(Experiment(), [text])
    except InputError as error:
        assert '\n' not in str(error)  # noqa: PT017


@pytest.mark.parametrize('text', ['2e-5', '1E3', '.5', '3', '.inf', '-1.5e+2'])
def test_numbers_are_floats_the_way_people_write_them(tmp_path, text):
    """YAML 1.1 reads 2e-5, without a dot, as text."""
    path = tmp_path / 'a.yaml'
    path.write_text(f'rate: {text}\n')
    rate = config.load(Optimizer, path).rate
    assert isinstance(rate, float)
    assert rate == (math.inf if text == '.inf' else float(text))


@pytest.mark.parametrize(
    ('content', 'says'),
    [
        (b'seed: [', 'seed|parsing'),
        (b'- 1\n', 'expected a mapping'),
        (b'\xff\xfe\x00', 'decode|codec'),
        (b'seed: \x00', 'special characters'),
        (b'sead: 1\n', "unknown key 'sead'"),
    ],
)
def test_wrong_files_are_named(tmp_path, content, says):
    path = tmp_path / 'a.yaml'
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=says) as error:
        config.load(Experiment, path)
    assert str(error.value).startswith(str(path))
    assert '\n' not in str(error.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r'a\.yaml'):
        config.load(Experiment, tmp_path / 'a.yaml')


def test_empty_file_means_the_defaults(tmp_path):
    path = tmp_path / 'a.yaml'
    path.write_text('')
    assert config.load(Experiment, path, ['seed=3']) == Experiment(seed=3)

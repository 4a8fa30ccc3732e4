import json
import math

import pytest

from tag_perception.config import ConfigError, InputError
from tag_perception.evaluate.comparison import delta_t
from tag_perception.learn.study import collect, format_lines, read_study, run_study

from .conftest import TINY, TRAIN


@pytest.fixture
def study(tree, tmp_path):
    text = {
        'experiment': str(TRAIN / 'tag.yaml'),
        'output': str(tmp_path / 'out'),
        'seeds': [0, 1],
        'common': [*TINY, f'data.root={tree}', 'network.width=8', 'steps=2'],
        'singles': {'miou': 'single', 'rmse_m': 'deep'},
        'runs': {
            'single': ['network.tasks=[semantic]'],
            'deep': ['network.tasks=[depth]'],
            'both': ['network.tasks=[semantic, depth]', 'network.spatial_attention=false'],
        },
    }
    path = tmp_path / 'study.yaml'
    path.write_text(json.dumps(text))
    return path


def test_a_study_trains_scores_and_goes_on(study, tmp_path):
    config = read_study(study)
    scored, heard = [], []

    def evaluate(weights, folder):
        assert weights.exists()
        name = folder.name
        if name == 'deep_seed1' and name not in scored:
            scored.append(name)
            raise KeyboardInterrupt
        scored.append(name)
        scores = {'single': (0.5, None), 'deep': (None, 4.0), 'both': (0.55, 3.6)}
        miou, rmse = scores[name.split('_')[0]]
        shift = 0.1 * int(name[-1])
        result = {'miou': miou and miou + shift, 'rmse_m': rmse and rmse - shift}
        (folder / 'results.json').write_text(json.dumps(result))

    with pytest.raises(KeyboardInterrupt):
        run_study(config, evaluate, heard.append)
    run_study(config, evaluate, heard.append)
    assert sorted(scored) == sorted(
        [f'{run}_seed{seed}' for run in ('single', 'deep', 'both') for seed in (0, 1)]
        + ['deep_seed1']
    )
    assert heard.count('single, seed 0: done before') == 1
    single, deep, both = collect(config, delta_t)
    assert single.values == {'miou': (pytest.approx(0.55), pytest.approx(0.1 / math.sqrt(2)))}
    assert single.delta_t is None
    assert deep.values['rmse_m'][0] == pytest.approx(3.95)
    first = 100 * ((0.55 - 0.55) / 0.55 - (3.6 - 3.95) / 3.95) / 2
    second = 100 * ((0.65 - 0.55) / 0.55 - (3.5 - 3.95) / 3.95) / 2
    assert both.delta_t[0] == pytest.approx((first + second) / 2)
    table = format_lines([single, deep, both], ['miou', 'rmse_m'])
    assert '| both   | 0.6000 ± 0.0707 | 3.5500 ± 0.0707 |' in table
    assert len({len(line) for line in table.splitlines()}) == 1


def test_a_baseline_without_results_is_one_clear_line(study):
    with pytest.raises(InputError, match='single has no results yet'):
        collect(read_study(study), delta_t)


@pytest.mark.parametrize(
    ('override', 'message'),
    [
        ('runs={a: [x=1]}', "singles.miou: no run is called 'single'"),
        ('runs={a: 3}', 'runs.a: expected a list'),
        ('seed=1', "unknown key 'seed'"),
    ],
)
def test_a_wrong_study_is_one_clear_line(study, override, message):
    with pytest.raises(ConfigError, match=message):
        read_study(study, [override])

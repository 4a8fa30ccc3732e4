import csv
from pathlib import Path

import pytest
import torch

from tag_perception.learn.configuration import TrainConfig, read_experiment

TRAIN = Path(__file__).parents[2] / 'config' / 'train'
TINY = (
    'init_from=', 'network.input_size=[64, 128]', 'data.workers=0', 'device=cpu', 'log_every=1',
    'optimizer.lr=0.001', 'validate_every=100', 'save_every=100', 'seed=3',
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors: a second thread would only wait for the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='session')
def tree(write_tree, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('tree')
    for split, seed in (('train', 0), ('val', 1)):
        write_tree(root, split, frames=5, size=(64, 128), seed=seed)
    return root


@pytest.fixture
def tiny(tree, tmp_path):
    """tiny('a.b=c', …) → a narrow TAG on the tiny tree, in a fresh folder."""

    def make(*overrides: str, experiment: str = 'tag.yaml') -> TrainConfig:
        width = ('network.width=8',) if experiment.startswith('tag') else ()
        where = (f'data.root={tree}', f'output={tmp_path / "run"}')
        return read_experiment(TRAIN / experiment, (*TINY, *width, *where, *overrides))

    return make


@pytest.fixture
def read_log():
    """read_log(folder, key) → {step: value} of all starts of a run, later ones winning."""

    def read(folder: Path, key: str = 'train/loss') -> dict[int, float]:
        values = {}
        for path in sorted(folder.glob('csv/*/metrics.csv')):
            rows = csv.DictReader(path.open())
            values.update({int(r['step']): float(r[key]) for r in rows if r.get(key)})
        return values

    return read

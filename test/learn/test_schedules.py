import pytest

from tag_perception.learn.configuration import ScheduleConfig
from tag_perception.learn.schedules import rate_factor


def test_poly_is_that_of_the_paper():
    config = ScheduleConfig('poly', power=0.9)
    assert rate_factor(config, 0, 40_000) == 1
    assert rate_factor(config, 20_000, 40_000) == pytest.approx(0.5**0.9)
    assert rate_factor(config, 40_000, 40_000) == 0


@pytest.mark.parametrize(('epoch', 'factor'), [(0, 1), (29, 1), (30, 0.1), (60, 0.01), (99, 1e-3)])
def test_steps_fall_at_epochs_30_60_and_90_of_imagenet(epoch, factor):
    config = ScheduleConfig('steps', milestones=(0.3, 0.6, 0.9), gamma=0.1)
    per_epoch = 5005
    assert rate_factor(config, epoch * per_epoch, 100 * per_epoch) == pytest.approx(factor)
    before = rate_factor(config, max(epoch * per_epoch - 1, 0), 100 * per_epoch)
    assert before == pytest.approx(10 * factor if epoch in (30, 60, 90) else factor)


def test_warm_up_rises_to_the_schedule():
    config = ScheduleConfig('cosine', warmup=3)
    rates = [rate_factor(config, step, 1000) for step in range(5)]
    assert rates[:3] == pytest.approx([0.25, 0.5, 0.75], rel=1e-4)
    assert rates[3] == pytest.approx(1, rel=1e-4)
    assert rate_factor(config, 2000, 1000) == pytest.approx(0)

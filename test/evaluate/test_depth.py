import numpy as np
import pytest

from tag_perception.core.structures import Camera
from tag_perception.evaluate.depth import CAP_M, DepthScore

CAMERA = Camera(4, 1, fx=100.0, fy=100.0, u0=2.0, v0=0.5, baseline_m=0.2)  # fx·b = 20 px·m
NAN = np.nan


def scored(*images, camera=CAMERA):
    score = DepthScore()
    for predicted, truth in images:
        score.update(np.array([predicted], np.float32), np.array([truth], np.float32), camera)
    return score.results()


def test_errors_by_hand():
    results = scored(([12, 20, 50, 7], [10, 20, 40, NAN]))
    assert results['rmse_m'] == pytest.approx(np.sqrt((4 + 0 + 100) / 3))
    assert results['abs_m'] == pytest.approx(4)
    assert results['abs_rel'] == pytest.approx((0.2 + 0 + 0.25) / 3)
    assert results['delta1'] == pytest.approx(2 / 3)  # 50 for 40 is exactly 25 % off
    in_pixels = np.array([20 / 12 - 2, 0, 20 / 50 - 20 / 40])
    assert results['rmse_disp_px'] == pytest.approx(np.sqrt(np.mean(in_pixels**2)))
    assert results['pixels'] == 3


def test_rmse_is_over_all_pixels_and_not_a_mean_of_images():
    results = scored(([11, 0, 0, 0], [10, NAN, NAN, NAN]), ([20, 20, 20, 23], [20, 20, 20, 20]))
    assert results['rmse_m'] == pytest.approx(np.sqrt((1 + 9) / 5))


def test_no_answer_where_there_is_depth_counts_as_the_cap():
    results = scored(([NAN, np.inf, 10, NAN], [30, 79, 10, NAN]))
    assert results['rmse_m'] == pytest.approx(np.sqrt(((CAP_M - 30) ** 2 + 1) / 3))
    assert results['missing'] == pytest.approx(2 / 3)
    in_pixels = np.array([20 / 80 - 20 / 30, 20 / 80 - 20 / 79, 0])
    assert results['rmse_disp_px'] == pytest.approx(np.sqrt(np.mean(in_pixels**2)))


def test_far_truth_is_scored_in_disparity_only():
    results = scored(([90, 40, 40, 40], [400, 80, NAN, NAN]))
    assert results['pixels'] == 0
    assert np.isnan(results['rmse_m'])
    in_pixels = np.array([20 / 90 - 20 / 400, 20 / 40 - 20 / 80])
    assert results['rmse_disp_px'] == pytest.approx(np.sqrt(np.mean(in_pixels**2)))


def test_every_pixel_falls_into_one_range_bin():
    random = np.random.default_rng(0)
    truth = random.uniform(0.1, 79.9, 500)
    answer = truth * random.uniform(0.8, 1.3, 500)
    results = scored((answer, truth))
    ranges = results['by_range']
    assert sum(ranges['pixels']) == 500
    squares = np.array(ranges['rmse_m']) ** 2 * ranges['pixels']
    assert results['rmse_m'] == pytest.approx(np.sqrt(squares.sum() / 500))
    bin_3 = (truth >= 15) & (truth < 20)
    assert ranges['abs_m'][3] == pytest.approx(np.abs(answer - truth)[bin_3].mean(), rel=1e-5)


def test_zero_and_negative_answers_stay_finite():
    results = scored(([0, -3, 1e-9, 5], [5, 5, 5, 5]))
    assert np.isfinite(results['rmse_disp_px'])
    assert results['delta1'] == 0.25


def test_all_invalid_disparity_has_no_score():
    results = scored(([5, 5, 5, 5], [NAN] * 4))
    assert all(np.isnan(results[key]) for key in ('rmse_m', 'rmse_disp_px', 'abs_rel', 'delta1'))
    assert results['pixels'] == 0


def test_without_a_baseline_there_is_no_disparity():
    from dataclasses import replace

    results = scored(([5, 5, 5, 6], [5] * 4), camera=replace(CAMERA, baseline_m=None))
    assert results['rmse_m'] == 0.5
    assert np.isnan(results['rmse_disp_px'])

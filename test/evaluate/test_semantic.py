import numpy as np
import pytest
from PIL import Image

from tag_perception.core.labels import SEMANTIC_CLASSES, TRAIN_ID_TO_ID, UNLABELLED
from tag_perception.evaluate.semantic import SemanticScore


def official_scores(folder, pairs):
    """mIoU and IoU by class of the official pixel evaluator, which reads label ids from PNGs."""
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official

    official.args.quiet, official.args.JSONOutput = True, False
    official.args.evalInstLevelScore = False  # uses what numpy 2.4 removed; no part of the IoU
    table = np.zeros(256, np.uint8)  # void becomes label id 0
    table[: len(TRAIN_ID_TO_ID)] = TRAIN_ID_TO_ID
    paths = []
    for index, pair in enumerate(pairs):
        paths.append([])
        for kind, mask in zip(('pred', 'gtFine_labelIds'), pair, strict=True):
            path = folder / f'a_{index:06d}_{0:06d}_{kind}.png'
            Image.fromarray(table[mask]).save(path)
            paths[-1].append(str(path))
    results = official.evaluateImgLists(*map(list, zip(*paths, strict=True)), official.args)
    return results['averageScoreClasses'], results['classScores']


@pytest.mark.parametrize('classes', [(0, 1, 2, 10, 13), tuple(range(19))])
def test_equal_to_the_official_evaluator(tmp_path, classes):
    random = np.random.default_rng(len(classes))
    score, pairs = SemanticScore(), []
    for _ in range(3):
        truth = random.choice((*classes, UNLABELLED), (40, 60)).astype(np.uint8)
        predicted = np.where(random.random(truth.shape) < 0.6, truth, random.choice(classes))
        predicted = np.where(random.random(truth.shape) < 0.05, UNLABELLED, predicted)
        pairs.append((predicted.astype(np.uint8), truth))
        score.update(*pairs[-1])
    results = score.results()
    expected, by_class = official_scores(tmp_path, pairs)
    assert results['miou'] == pytest.approx(expected, abs=1e-12)
    for name in SEMANTIC_CLASSES:
        assert results['iou'][name] == pytest.approx(by_class[name], nan_ok=True)


def test_void_truth_costs_nothing_and_void_answers_are_misses():
    truth = np.array([[0, 0, 0, 0, UNLABELLED, UNLABELLED]], np.uint8)
    score = SemanticScore()
    assert score.update(np.array([[0, 0, 0, UNLABELLED, 5, 1]], np.uint8), truth) == 0.75
    assert score.results()['iou']['road'] == 0.75
    assert np.isnan(score.results()['iou']['pole'])


def test_nothing_but_void_has_no_score():
    void = np.full((4, 4), UNLABELLED, np.uint8)
    score = SemanticScore()
    assert np.isnan(score.update(np.zeros((4, 4), np.uint8), void))
    assert np.isnan(score.results()['miou'])
    assert np.isnan(score.results()['pixel_accuracy'])


def test_masks_of_another_size_are_refused():
    with pytest.raises(ValueError, match='predicted mask is'):
        SemanticScore().update(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8))

"""The class table against the official one."""

import numpy as np
from cityscapesscripts.helpers.labels import labels as official

from tag_perception.core import labels

POSITIVE = [label for label in official if label.id >= 0]  # -1 is the licence plate: in no image


def test_every_row_is_the_official_one():
    ours = [tuple(label) for label in labels.LABELS]
    assert ours == [(x.name, x.id, x.trainId, tuple(x.color)) for x in POSITIVE]


def test_lookup_tables():
    for label in POSITIVE:
        assert labels.ID_TO_TRAIN_ID[label.id] == label.trainId
    unknown = np.setdiff1d(np.arange(256), [label.id for label in POSITIVE])
    assert (labels.ID_TO_TRAIN_ID[unknown] == labels.UNLABELLED).all()
    train_ids = np.arange(len(labels.SEMANTIC_CLASSES))
    assert (labels.ID_TO_TRAIN_ID[labels.TRAIN_ID_TO_ID] == train_ids).all()
    evaluated = [x for x in POSITIVE if not x.ignoreInEval]
    assert len(evaluated) == len(labels.SEMANTIC_CLASSES) == 19
    for label in evaluated:
        assert labels.SEMANTIC_CLASSES[label.trainId] == label.name
        assert tuple(labels.PALETTE[label.trainId]) == label.color
    assert not labels.PALETTE[labels.UNLABELLED].any()


def test_detection_classes_are_the_evaluated_vehicles_with_instances():
    vehicles = {x.name: x.trainId for x in POSITIVE if x.category == 'vehicle' and x.trainId < 255}
    assert dict(zip(labels.DETECTION_CLASSES, labels.DETECTION_TRAIN_IDS, strict=True)) == vehicles
    assert labels.SEMANTIC_CLASSES[labels.SKY] == 'sky'

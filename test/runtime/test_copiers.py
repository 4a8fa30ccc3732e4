"""Images copied by several threads are copied whole."""

import numpy as np
import pytest

from tag_perception.runtime.copiers import COPIERS, Copiers


@pytest.fixture
def copiers():
    made = Copiers()
    yield made
    made.close()


@pytest.mark.parametrize('height', [1, COPIERS - 1, COPIERS, 2 * COPIERS + 1, 375])
def test_every_row_of_every_image_arrives(copiers, height):
    random = np.random.default_rng(height)
    padded = random.integers(0, 256, (3, height, 40, 3), np.uint8)
    images = padded[:, :, 3:36]  # rows with a gap between them, as messages may have them
    places = np.zeros(images.shape, np.uint8)
    copiers(places, images)
    assert (places == images).all()


def test_an_image_of_another_size_is_refused(copiers):
    with pytest.raises(ValueError, match='broadcast'):
        copiers(np.zeros((1, 8, 4, 3), np.uint8), [np.zeros((8, 5, 3), np.uint8)])


def test_threads_end(copiers):
    copiers.close()
    with pytest.raises(RuntimeError, match='shutdown'):
        copiers(np.zeros((1, 8, 4, 3), np.uint8), [np.zeros((8, 4, 3), np.uint8)])

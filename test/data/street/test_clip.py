import json

import numpy as np

from tag_perception.data.street.clip import street_clip


def test_a_clip_is_a_labelled_drive():
    count, frames = street_clip(3, size=(64, 128))
    frames = list(frames)
    assert count == len(frames) == 3
    steps = np.diff([frame.stamp_ns for frame in frames])
    np.testing.assert_allclose(steps, 1e9 / 17, rtol=1e-6)
    for frame in frames:
        assert frame.image.shape == (64, 128, 3)
        assert frame.semantic.shape == frame.depth.shape == (64, 128)
        assert frame.camera.fault() is None
        assert json.loads(frame.annotation).keys() >= {'sensor', 'objects', 'ignore'}
    assert not np.array_equal(frames[0].image, frames[1].image), 'the car does not move'

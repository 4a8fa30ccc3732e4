from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('rclpy')

from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from tf2_msgs.msg import TFMessage

from tag_perception.ros.frames import NoTransform, StaticTransforms

NOW = Time(sec=5)
HALF = np.sqrt(0.5)


def pose(parent: str, child: str, xyz=(0.0, 0.0, 0.0), wxyz=(1.0, 0.0, 0.0, 0.0)):
    result = TransformStamped(child_frame_id=child)
    result.header.frame_id = parent
    at, turn = result.transform.translation, result.transform.rotation
    at.x, at.y, at.z = xyz
    turn.w, turn.x, turn.y, turn.z = wxyz
    return result


def test_a_lookup_beside_a_new_pose_sees_all_of_it_or_nothing(tree):
    """Threads look up while the node hears of frames: what they walk through must not change."""
    seen = tree._parents
    frames = list(seen)
    tree.add(TFMessage(transforms=[pose('base_link', 'new')]))
    assert list(seen) == frames
    assert tree.lookup('base_link', 'new', NOW).shape == (4, 4)


@pytest.fixture
def tree() -> StaticTransforms:
    """base_link → camera_link (1.7 ahead, 1.2 up, looks left) → optical; base_link → roof."""
    transforms = StaticTransforms()
    transforms.add(
        TFMessage(
            transforms=[
                pose('base_link', 'camera_link', (1.7, 0.0, 1.2), (HALF, 0.0, 0.0, HALF)),
                pose('camera_link', 'optical', wxyz=(0.5, -0.5, 0.5, -0.5)),
                pose('base_link', '/roof', (0.0, 0.0, 2.0)),
            ]
        )
    )
    return transforms


def test_chain_up(tree):
    matrix = tree.lookup('base_link', 'optical', NOW)
    ahead = matrix @ [0.0, 0.0, 10.0, 1.0]  # 10 m along the optical axis, which looks left
    np.testing.assert_allclose(ahead, [1.7, 10.0, 1.2, 1.0], atol=1e-12)


def test_up_and_down_again(tree):
    matrix = tree.lookup('roof', '/optical', NOW)
    np.testing.assert_allclose(matrix @ [0, 0, 0, 1], [1.7, 0.0, -0.8, 1.0], atol=1e-12)
    inverse = tree.lookup('optical', 'roof', NOW)
    np.testing.assert_allclose(matrix @ inverse, np.eye(4), atol=1e-12)


def test_a_frame_in_itself(tree):
    np.testing.assert_array_equal(tree.lookup('optical', 'optical', NOW), np.eye(4))


def test_a_miss_names_both_frames_and_what_is_known(tree):
    with pytest.raises(
        NoTransform, match=r'map ← optical .* base_link, camera_link, optical, roof'
    ):
        tree.lookup('map', 'optical', NOW)
    with pytest.raises(NoTransform, match='frames there: none'):
        StaticTransforms().lookup('a', 'b', NOW)


def test_newer_poses_replace_older_and_nonsense_is_ignored(tree):
    tree.add(TFMessage(transforms=[pose('base_link', 'roof', (0.0, 0.0, 3.0))]))
    tree.add(TFMessage(transforms=[pose('base_link', 'roof', wxyz=(0.0, 0.0, 0.0, 0.0))]))
    assert tree.lookup('base_link', 'roof', NOW)[2, 3] == 3.0


def test_a_loop_ends(tree):
    tree.add(TFMessage(transforms=[pose('a', 'b'), pose('b', 'a')]))
    with pytest.raises(NoTransform):
        tree.lookup('base_link', 'a', NOW)

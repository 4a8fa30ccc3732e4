import shutil

import numpy as np
import pytest

from tag_perception.config import InputError
from tag_perception.data.cityscapes3d import Cityscapes3D
from tag_perception.data.sequences import sequence_frames, stamped_samples, stamps_ns

STEP_NS = round(1e9 / 17)


@pytest.fixture
def tree(write_tree, tmp_path):
    """Two annotated frames, 000019 and 000020, and a snippet 000017 … 000021 around them."""
    write_tree(tmp_path, frames=2)
    annotated = Cityscapes3D(tmp_path, 'val').frames[0]
    folder = tmp_path / 'leftImg8bit_sequence/val/testburg'
    folder.mkdir(parents=True)
    for number in range(17, 22):
        name = f'testburg_000000_{number:06d}_leftImg8bit.png'
        shutil.copy(annotated.image_path, folder / name)
    return tmp_path


def write_stamps(frames, stamps):
    for frame, stamp in zip(frames, stamps, strict=True):
        frame.path('timestamp').parent.mkdir(parents=True, exist_ok=True)
        frame.path('timestamp').write_text(f'{stamp}\n')


def test_stamps_come_from_files_only_where_every_frame_has_one(tree):
    frames = sequence_frames(tree)
    assert len(frames) == 5
    nominal = stamps_ns(frames)
    assert nominal[0] == 0
    assert np.allclose(np.diff(nominal), STEP_NS, atol=1)
    measured = [100, 58_000_100, 117_000_100, 180_000_100, 240_000_100]
    write_stamps(frames, measured)
    assert frames[0].path('timestamp').parts[-4] == 'timestamp_sequence'
    assert stamps_ns(frames) == [stamp - 100 for stamp in measured]
    frames[2].path('timestamp').unlink()
    assert stamps_ns(frames) == nominal


def test_stamps_that_do_not_rise_are_named(tree):
    frames = sequence_frames(tree)
    write_stamps(frames, [0, 10, 20, 20, 30])
    with pytest.raises(InputError, match=r'000020_timestamp\.txt: content: 20 ns is not after'):
        stamps_ns(frames)


def test_sequences_follow_one_another(write_tree, tmp_path):
    write_tree(tmp_path, frames=2, city='aurich')
    write_tree(tmp_path, frames=2, city='bern')
    stamps = stamps_ns(sequence_frames(tmp_path, 'val'))
    assert stamps[0] == 0
    assert np.allclose(np.diff(stamps), STEP_NS, atol=1)


def test_samples_carry_stamp_calibration_and_the_labels_of_annotated_frames(tree):
    samples = list(stamped_samples(sequence_frames(tree)))
    assert [sample.stamp_ns for sample in samples] == stamps_ns(sequence_frames(tree))
    assert [sample.semantic is not None for sample in samples] == [0, 0, 1, 1, 0]
    assert {sample.camera.fx for sample in samples} == {samples[2].camera.fx}


def test_broken_frames_leave_a_gap_in_time(tree):
    frames, broken = sequence_frames(tree), []
    frames[1].image_path.write_bytes(b'half')
    with pytest.raises(InputError, match='damaged image'):
        list(stamped_samples(frames))
    stamps = [sample.stamp_ns for sample in stamped_samples(frames, broken)]
    assert stamps == np.delete(stamps_ns(frames), 1).tolist()
    assert len(broken) == 1


def test_a_wrong_split_is_named(tree):
    with pytest.raises(InputError, match="no images of split 'train'; splits there: val"):
        sequence_frames(tree, 'train')

"""TensorRT runs on a GPU only; what is asked of it, and what is kept, is tested anywhere."""

import logging
import sys
from enum import Enum
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from tag_perception.config import InputError
from tag_perception.runtime import tensorrt
from tag_perception.runtime.engine import Engine, EngineConfig
from tag_perception.runtime.tensorrt import Progress, TensorRtTrunk
from tag_perception.runtime.trunk import Trunk

from .comparison import assert_close
from .conftest import awake_network, save
from .test_engine import CAMERA, image, real_frames, reference

HALF = torch.float16


class FakeTensorRt(ModuleType):
    """The part of tensorrt that is used; a plan is the ONNX file with a head."""

    __version__ = '10.1'

    def __init__(self):
        super().__init__('tensorrt')
        fake = self
        self.cleared: list[str] = []
        self.builds, self.plan, self.parses, self.loads = 0, b'plan of this GPU:', True, True

        class Severity(Enum):
            INTERNAL_ERROR, ERROR, WARNING = range(3)

        class ILogger:
            pass

        ILogger.Severity = Severity

        class IProgressMonitor:
            pass

        class Builder:
            def __init__(self, logger):
                self.logger = logger

            def create_network(self, flags):
                assert flags == 1 << 4
                return SimpleNamespace()

            def create_builder_config(self):
                return SimpleNamespace(
                    set_memory_pool_limit=lambda pool, limit: None,
                    clear_flag=fake.cleared.append,
                )

            def build_serialized_network(self, network, config):
                fake.builds += 1
                config.progress_monitor.phase_start('Building', None, 10)
                assert config.progress_monitor.step_complete('Building', 4)
                config.progress_monitor.phase_finish('Building')
                if fake.plan is None:
                    self.logger.log(Severity.ERROR, 'no tactic\nfor conv 1')
                    return None
                return memoryview(fake.plan + network.model)

        class OnnxParser:
            def __init__(self, network, logger):
                self.network = network

            def parse(self, model):
                self.network.model = model
                return fake.parses

            def get_error(self, index):
                return 'node 7:\n not supported'

        class Runtime:
            def __init__(self, logger):
                self.logger = logger

            def deserialize_cuda_engine(self, plan):
                if not fake.loads or not plan.startswith(fake.plan):
                    self.logger.log(Severity.ERROR, 'the plan is of another platform')
                    return None
                return SimpleNamespace(
                    plan=plan, create_execution_context=lambda: SimpleNamespace()
                )

        self.ILogger, self.IProgressMonitor = ILogger, IProgressMonitor
        self.Builder, self.OnnxParser, self.Runtime = Builder, OnnxParser, Runtime
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=4)
        self.BuilderFlag = SimpleNamespace(TF32='TF32')
        self.MemoryPoolType = SimpleNamespace(WORKSPACE=0)


@pytest.fixture
def fake(monkeypatch, tmp_path, caplog):
    fake = FakeTensorRt()
    monkeypatch.setitem(sys.modules, 'tensorrt', fake)
    monkeypatch.setattr(tensorrt, '_gpu', lambda device: 'H100 (9.0)')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    caplog.set_level(logging.INFO)
    return fake


@pytest.fixture(scope='module')
def network():
    return awake_network('tag_slim')


def build(network, dtype=HALF):
    return TensorRtTrunk(Trunk(network), torch.device('cpu'), dtype)


def test_a_plan_is_built_once_with_the_types_of_the_precision(fake, network, caplog):
    onnx = pytest.importorskip('onnx')
    plan = build(network)._engine.plan
    graph = onnx.load_from_string(plan[len(fake.plan) :]).graph
    float16 = onnx.TensorProto.FLOAT16
    assert graph.input[0].type.tensor_type.elem_type == float16
    assert {output.type.tensor_type.elem_type for output in graph.output} == {float16}
    assert 'which takes minutes' in caplog.text
    assert build(network)._engine.plan == plan
    assert fake.builds == 1
    assert fake.cleared == []
    build(network, torch.float32)
    assert fake.builds == 2
    assert fake.cleared == ['TF32']


def test_a_stale_or_foreign_plan_is_built_anew_and_said(fake, network, monkeypatch, caplog):
    build(network)
    fake.__version__ = '10.2'
    build(network)
    assert 'was made with another tensorrt; making it anew' in caplog.text
    monkeypatch.setattr(tensorrt, '_gpu', lambda device: 'L4 (8.9)')
    build(network)
    assert 'was made with another GPU; making it anew' in caplog.text
    fake.plan = b'plan of another driver:'
    build(network)
    assert 'the plan is of another platform; making it anew' in caplog.text
    assert fake.builds == 4
    build(network)
    assert fake.builds == 4


def test_a_damaged_plan_never_reaches_tensorrt(fake, network, tmp_path, caplog):
    build(network)
    (file,) = (tmp_path / 'tag_perception').glob('*.plan')
    file.write_bytes(file.read_bytes()[:-9])
    build(network)
    assert 'is damaged; making it anew' in caplog.text
    assert 'another platform' not in caplog.text
    assert fake.builds == 2


def test_without_a_cache_folder_each_start_builds(fake, network, tmp_path, caplog):
    (tmp_path / 'tag_perception').write_text('a file where the folder should be')
    for _ in range(2):
        build(network)
    assert fake.builds == 2
    assert caplog.text.count('cannot keep files in') == 1


def test_refusals_are_one_line_with_a_remedy(fake, network, monkeypatch):
    fake.parses = False
    with pytest.raises(InputError, match='run this network: node 7: not supported; set backend'):
        build(network)
    fake.parses, fake.plan = True, None
    with pytest.raises(InputError, match='run this network: no tactic for conv 1; set backend'):
        build(network)
    fake.plan, fake.loads = b'plan', False
    with pytest.raises(InputError, match='cannot load the plan: the plan is of another platform'):
        build(network)
    monkeypatch.setitem(sys.modules, 'tensorrt', None)
    with pytest.raises(InputError, match='install tensorrt, or set backend to auto or torch'):
        build(network)


class Doubling:
    """An execution context whose plan writes twice the sum of the image into every output."""

    def __init__(self, works=True):
        self.works, self.addresses, self.streams = works, {}, []

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def execute_async_v3(self, stream):
        self.streams.append(stream)
        pixels = view(self.addresses['image'], 3 * 4 * 6)
        for name in ('semantic', 'depth'):
            view(self.addresses[name], 8)[:] = 2 * pixels.sum()
        return self.works


def view(address, count):
    import ctypes

    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address))


def test_a_batch_runs_image_by_image_on_the_current_stream(fake, network, monkeypatch):
    stream = SimpleNamespace(cuda_stream=77)
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda: stream)
    trunk = build(network, torch.float32)
    trunk._names = ('semantic', 'depth')
    trunk._engine.get_tensor_shape = lambda name: (1, 2, 2, 2)
    trunk._context = context = Doubling()
    images = torch.rand(3, 3, 4, 6).contiguous(memory_format=torch.channels_last)
    outputs = trunk(images)
    assert context.streams == [77] * 3
    for output in outputs:
        assert output.shape == (3, 2, 2, 2)
        expected = 2 * images.sum((1, 2, 3))[:, None].expand(-1, 8)
        torch.testing.assert_close(output.flatten(1), expected)
    context.works = False
    with pytest.raises(RuntimeError, match='TensorRT: the plan does not run'):
        trunk(images)


def test_progress_is_said_every_few_seconds(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    now_s = [0.0]
    monkeypatch.setattr(tensorrt.time, 'monotonic', lambda: now_s[0])
    progress = Progress()
    progress.phase_start('Building engine', None, 40)
    progress.phase_start('Tactics', 'Building engine', 1000)
    for step in range(40):
        now_s[0] += 0.5
        assert progress.step_complete('Tactics', step)
        assert progress.step_complete('Building engine', step)
    progress.phase_finish('Tactics')
    progress.phase_finish('Building engine')
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == 'TensorRT, Building engine: 10 of 40 steps'
    assert len(said) == 4


@pytest.mark.skipif(torch.cuda.is_available(), reason='this machine has CUDA')
@pytest.mark.parametrize('backend', ['tensorrt', 'triton'])
def test_without_cuda_the_engine_says_so_or_falls_back(network, tmp_path, backend):
    weights = save(network, tmp_path / 'tiny.safetensors')
    with pytest.raises(InputError, match=f'{backend} needs CUDA; on the CPU set backend to auto'):
        Engine(EngineConfig(weights, device='cpu', backend=backend))
    engine = Engine(EngineConfig(weights, backend=backend))
    assert engine.status.device == 'cpu'
    assert engine.status.backend in ('torch', 'onnxruntime', 'openvino')


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('precision', ['fp32', 'fp16', 'bf16'])
def test_tensorrt_equals_the_reference_path(network, tmp_path, precision):
    pytest.importorskip('tensorrt')
    weights = save(network, tmp_path / 'tiny.safetensors')
    engine = Engine(EngineConfig(weights, 'tag_slim', 'cuda', precision, 'tensorrt', 'warn', 0.0))
    assert engine.status.backend == 'tensorrt, cuda graph'
    pictures = [image(seed) for seed in range(3)]
    for picture, scene in zip(pictures, engine.batch(pictures, [CAMERA] * 3), strict=True):
        assert_close(scene, reference(weights, picture, CAMERA, 'cuda'), precision)
    for picture, camera in real_frames():
        expected = reference(weights, picture, camera, 'cuda')
        assert_close(engine(picture, camera), expected, precision)

"""`python -m tag_perception VERB …`: verbs parse, import lazily and call one function.

Heavy imports stay inside the verbs, so that `--help` is instant and a verb needs only the packages
it uses. A wrong input ends with one line on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tag_perception.config import InputError
from tag_perception.entry import STOPPABLE


def costs(arguments: Sequence[str]) -> int:
    """Parameters and MACs of every network, beside the paper's figures."""
    parser = _parser(costs)
    parser.add_argument('--table', choices=('ours', 'paper'), default='ours', help='which rows')
    parser.add_argument('--json', metavar='FILE', help='write the rows as JSON')
    args = parser.parse_args(arguments)
    from tag_perception.core import costs as module

    rows = module.paper_rows() if args.table == 'paper' else module.our_rows()
    if args.json:  # first: whoever reads the table may close the pipe
        module.write_json(rows, args.json)
    print(module.format_table(rows, modules=args.table == 'ours'))
    return 0


def train(arguments: Sequence[str]) -> int:
    """Train the network of an experiment file; the same command continues a killed run."""
    parser = _parser(train)
    parser.add_argument('experiment', help='config/train/<experiment>.yaml')
    parser.add_argument('override', nargs='*', metavar='a.b=c', help='change values of the file')
    parser.add_argument('--dry-run', action='store_true', help='two batches, no files')
    args = parser.parse_args(arguments)
    from tag_perception.learn.configuration import read_experiment
    from tag_perception.learn.training import train as run

    folder = run(read_experiment(args.experiment, args.override), dry_run=args.dry_run)
    print('dry run: fine' if args.dry_run else f'{folder}: best.safetensors, last.safetensors')
    return 0


def check_dataset(arguments: Sequence[str]) -> int:
    """List every problem of a Cityscapes-3D tree, then what is in it."""
    parser = _parser(check_dataset)
    parser.add_argument('root', help='folder that holds leftImg8bit, gtFine, camera, …')
    args = parser.parse_args(arguments)
    from tag_perception.data import check as module

    check = module.check_dataset(args.root)
    for problem in check.problems:
        print(problem)
    print(f'{len(check.problems) or "no"} problem{"s" if len(check.problems) != 1 else ""}\n')
    print(module.format_counts(check))
    return 1 if check.problems else 0


def evaluate(arguments: Sequence[str]) -> int:
    """Score a checkpoint on a Cityscapes-3D split; writes results and an HTML report."""
    parser = _parser(evaluate)
    parser.add_argument('checkpoint', help='safetensors file written by train')
    parser.add_argument('root', help='folder that holds leftImg8bit, gtFine, camera, …')
    parser.add_argument('--split', default='val', help='which split')
    parser.add_argument('--out', required=True, metavar='DIR', help='where results and report go')
    parser.add_argument('--skip-broken', action='store_true', help='leave out broken frames')
    parser.add_argument('--limit', type=int, metavar='N', help='only the first N frames')
    parser.add_argument('--device', choices=('auto', 'cuda', 'cpu'), default='auto')
    args = parser.parse_args(arguments)
    from tag_perception.evaluate import run

    results, report = run.evaluate_checkpoint(**vars(args))
    print(run.format_headline(results))
    print(f'report: {report}')
    return 0


def compare(arguments: Sequence[str]) -> int:
    """Compare results of evaluate: ΔT (paper Eq. 6), and ΔT over FPS as the paper's Fig. 1."""
    parser = _parser(compare)
    parser.add_argument('results', nargs='+', help='results.json files or their folders')
    parser.add_argument(
        '--baseline', nargs='+', metavar='FILE', default=[],
        help='single-task results; without them the first of the results is the baseline',
    )  # fmt: skip
    parser.add_argument('--metrics', default='mds_amodal,miou,rmse_m', help='one per task')
    parser.add_argument(
        '--fps', nargs='+', metavar='NAME=VALUE', default=[],
        help='speeds, instead of those at which evaluate ran',
    )  # fmt: skip
    parser.add_argument('--out', metavar='FILE', help='draw the figure (svg, png, pdf)')
    args = parser.parse_args(arguments)
    from tag_perception.evaluate import comparison

    entries = comparison.read_entries(args.results, args.fps)
    metrics = args.metrics.split(',')
    rows = comparison.compare(entries, comparison.read_entries(args.baseline), metrics)
    print(comparison.format_rows(rows, metrics))
    if args.out:
        comparison.draw(rows, args.out)
    return 0


def study(arguments: Sequence[str]) -> int:
    """Train and score the runs of a study that are missing, then print its table."""
    parser = _parser(study)
    parser.add_argument('study', help='config/study/<study>.yaml')
    parser.add_argument('override', nargs='*', metavar='a.b=c', help='change values of the file')
    parser.add_argument('--table', action='store_true', help='only print what there is')
    args = parser.parse_args(arguments)
    from tag_perception.evaluate.comparison import delta_t
    from tag_perception.evaluate.run import evaluate_checkpoint
    from tag_perception.learn import study as module

    config = module.read_study(args.study, args.override)
    if not args.table:
        module.run_study(
            config,
            lambda weights, out: evaluate_checkpoint(
                str(weights), config.evaluation, 'val', str(out)
            )[0],
            print,
        )
    print(module.format_lines(module.collect(config, delta_t), list(config.singles)))
    return 0


def street(arguments: Sequence[str]) -> int:
    """Generate synthetic streets in the Cityscapes-3D layout; the same command continues a run."""
    parser = _parser(street)
    parser.add_argument('out', help='folder to write into')
    parser.add_argument('--seed', type=int, default=0, help='other seeds give other streets')
    parser.add_argument('--frames', type=int, default=10, metavar='N', help='streets to generate')
    parser.add_argument('--size', default='512x1024', metavar='HxW', help='of the images, pixels')
    parser.add_argument('--split', choices=('train', 'val'), default='train', help='which split')
    parser.add_argument(
        '--sequence', action='store_true', help='30 frames at 17 Hz of each street'
    )
    cores = os.cpu_count() or 1
    parser.add_argument('--workers', type=int, default=cores, metavar='N', help='processes')
    parser.add_argument('--device', default='cpu', help='where to render: cpu, cuda')
    args = parser.parse_args(arguments)
    from tag_perception.data.street import parse_size, write_tree

    size = parse_size(args.size)
    names = write_tree(**{**vars(args), 'size': size})
    streets = 'street' if len(names) == 1 else 'streets'
    span = ' … '.join(dict.fromkeys([names[0], names[-1]]))
    print(f'{args.out}: {len(names)} {streets} of split {args.split}, {span}')
    return 0


def publish(arguments: Sequence[str]) -> int:
    """Write a checkpoint in fp16 with its scores inside, as models/ holds them."""
    parser = _parser(publish)
    parser.add_argument('checkpoint', help='e.g. out/train/<experiment>/best.safetensors')
    parser.add_argument('output', help='e.g. models/<name>.safetensors')
    parser.add_argument('--results', metavar='FILE', help='results.json of evaluate')
    args = parser.parse_args(arguments)
    from tag_perception.learn import publishing

    print(publishing.publish(args.checkpoint, args.output, args.results))
    return 0


def make_bag(arguments: Sequence[str]) -> int:
    """Turn a Cityscapes(-3D) tree or a folder of images into a rosbag2."""
    parser = _parser(make_bag)
    parser.add_argument('source', help='root of a Cityscapes tree, or a folder of images')
    parser.add_argument('output', help='FILE.mcap, or a folder')
    parser.add_argument('--split', help='only this split of the tree')
    parser.add_argument('--camera', metavar='JSON', help='calibration for a folder of images')
    parser.add_argument('--hz', type=float, default=17.0, help='where nothing tells the time')
    parser.add_argument('--limit', type=int, metavar='N', help='only the first N frames')
    parser.add_argument('--storage', choices=('mcap', 'sqlite3'), default='mcap')
    parser.add_argument('--encoding', choices=('bgr8', 'rgb8'), default='bgr8')
    args = parser.parse_args(arguments)

    def work(stop: Any) -> None:
        from tag_perception.data.recording import open_recording
        from tag_perception.ros import bag

        source = args.source, args.split, args.camera, args.hz, args.limit
        total, frames = open_recording(*source)
        counts = bag.make_bag(
            frames,
            args.output,
            storage=args.storage,
            encoding=args.encoding,
            total=total,
            progress=True,
            stop=stop,
        )
        _print_topics(args.output, counts)

    return _run(work)


def play_bag(arguments: Sequence[str]) -> int:
    """Publish a bag at its own pace, or each image after the results of the last (lockstep)."""
    parser = _parser(play_bag)
    parser.add_argument('bag', help='FILE.mcap, FILE.db3 or a folder with metadata.yaml')
    parser.add_argument('--rate', type=float, default=1.0, help='speed')
    parser.add_argument('--loop', action='store_true', help='play again and again')
    parser.add_argument('--clock', action='store_true', help='publish /clock')
    parser.add_argument(
        '--lockstep', metavar='NODE', nargs='?', const='/perception', help='wait for its results'
    )
    parser.add_argument('--images', metavar='TOPIC', help='what lockstep follows, of several')
    own, ros = _split_ros(arguments)
    args = parser.parse_args(own)

    def work(stop: Any) -> None:
        from tag_perception.ros import player, session

        playback = player.Playback(args.rate, args.loop, args.clock, args.lockstep, args.images)
        with session.client('bag_player', ros) as node:
            played = player.play_bag(args.bag, node, playback, progress=True, stop=stop)
        _print_topics(args.bag, played.messages)
        if played.unanswered:
            print(f'{played.unanswered} images without results')

    return _run(work)


def record_bag(arguments: Sequence[str]) -> int:
    """Record what a perception node publishes, until Ctrl-C."""
    parser = _parser(record_bag)
    parser.add_argument('output', help='FILE.mcap, or a folder')
    parser.add_argument('--node', default='/perception', help='full name of the node')
    parser.add_argument('--lazy', action='store_true', help='also overlay, colours and markers')
    parser.add_argument('--storage', choices=('mcap', 'sqlite3'), default='mcap')
    own, ros = _split_ros(arguments)
    args = parser.parse_args(own)

    def work(stop: Any) -> None:
        from tag_perception.ros import recorder, session

        with session.client('bag_recorder', ros) as node:
            counts = recorder.record_bag(
                args.output,
                node,
                perception=args.node,
                lazy=args.lazy,
                storage=args.storage,
                on_ready=lambda n: print(f'recording {n} topics', flush=True),
                progress=True,
                stop=stop,
            )
        _print_topics(args.output, counts)

    return _run(work)


def process_bag(arguments: Sequence[str]) -> int:
    """Write what the node would publish for every image of a bag, without DDS."""
    parser = _parser(process_bag)
    parser.add_argument('bag', help='FILE.mcap, FILE.db3 or a folder with metadata.yaml')
    parser.add_argument('output', help='FILE.mcap, or a folder')
    parser.add_argument(
        'override',
        nargs='*',
        metavar='a.b=c',
        help='parameters of the node, e.g. engine.device=cpu',
    )
    parser.add_argument('--images', metavar='TOPIC', help='which, if the bag has several')
    parser.add_argument('--node', default='/perception', help='namespace of the outputs')
    parser.add_argument('--lazy', action='store_true', help='also overlay, colours and markers')
    parser.add_argument('--storage', choices=('mcap', 'sqlite3'), default='mcap')
    args = parser.parse_args(arguments)

    def work(stop: Any) -> None:
        from tag_perception.config import override
        from tag_perception.ros import bag
        from tag_perception.ros.parameters import PerceptionConfig
        from tag_perception.ros.storage import BagReader
        from tag_perception.runtime.engine import Engine

        config = override(PerceptionConfig(), args.override)
        BagReader(args.bag).close()  # a wrong path is told before the network loads
        counts = bag.process_bag(
            args.bag,
            args.output,
            Engine(config.engine),
            config,
            image_topic=args.images,
            node=args.node,
            lazy=args.lazy,
            storage=args.storage,
            progress=True,
            stop=stop,
        )
        print(f'{args.output}: {counts}')

    return _run(work)


def evaluate_bag(arguments: Sequence[str]) -> int:
    """Score recorded results against the ground truth that make-bag wrote."""
    parser = _parser(evaluate_bag)
    parser.add_argument('bag', help='what record-bag or process-bag wrote')
    parser.add_argument('--ground-truth', metavar='BAG', help='if it is another one')
    parser.add_argument('--out', required=True, metavar='DIR', help='where the results go')
    parser.add_argument('--node', default='/perception', help='who published the results')
    args = parser.parse_args(arguments)
    from tag_perception.evaluate.run import format_headline
    from tag_perception.ros.results import Recording

    recording = Recording(args.bag, args.ground_truth, args.node)
    results, remarks = _score(recording, args.out)
    print('\n'.join([format_headline(results), *remarks]))
    recording.check_whole()
    return 0


def show(arguments: Sequence[str]) -> int:
    """Write an HTML page with frames, boxes, mask, depth and latency of recorded results."""
    parser = _parser(show)
    parser.add_argument('bag', help='what record-bag or process-bag wrote')
    parser.add_argument('--input', metavar='BAG', help='the bag with the images, if another one')
    parser.add_argument('--out', metavar='FILE.html', help='default: beside the bag')
    parser.add_argument('--node', default='/perception', help='who published the results')
    parser.add_argument('--pictures', type=int, default=24, metavar='N', help='frames to draw')
    args = parser.parse_args(arguments)
    if args.pictures < 1:
        raise InputError(f'--pictures {args.pictures}: at least one')
    from tag_perception.evaluate.page import ShownFrame, write_page
    from tag_perception.ros.results import Recording

    recording = Recording(args.bag, args.input, args.node)
    frames = (
        ShownFrame(r.source.stamp_ns, r.source.image, r.source.camera, r.scene, r.latency_ms)
        for r in recording
    )
    out = args.out or str(Path(args.bag).with_suffix('.html'))
    count = write_page(frames, out, Path(args.bag).name, args.pictures)
    print(f'{out}: {count} frames, {recording.missing} without results')
    recording.check_whole()
    return 0


def schema(arguments: Sequence[str]) -> int:
    """Print the JSON schema of the node's parameter files."""
    _parser(schema).parse_args(arguments)
    import json

    from tag_perception.ros import parameters

    print(json.dumps(parameters.schema(), indent=2, ensure_ascii=False))
    return 0


def node(arguments: Sequence[str]) -> int:
    """The perception node; takes ROS arguments (--ros-args …)."""
    _parser(node).parse_known_args(arguments)  # for --help; the rest belongs to ROS
    from tag_perception.ros.process import perception_node

    return perception_node(['perception_node', *arguments])


def wait_active(arguments: Sequence[str]) -> int:
    """Wait until a lifecycle node is active, for scripts and launch files."""
    parser = _parser(wait_active)
    parser.add_argument('node', nargs='?', default='/perception', help='full name of the node')
    parser.add_argument('--timeout', type=float, default=120.0, metavar='S', help='seconds')
    own, ros_arguments = _split_ros(arguments)
    args = parser.parse_args(own)

    def work(stop: Any) -> None:
        from tag_perception.ros import readiness, session

        with session.client('wait_active', ros_arguments) as ros:
            readiness.wait_active(ros, args.node, args.timeout, stop)

    return _run(work)


def demo(arguments: Sequence[str]) -> int:
    """Play frames through DDS into the node; record, measure and draw what it publishes."""
    parser = _parser(demo)
    parser.add_argument(
        '--input',
        metavar='PATH',
        help='folder of images, Cityscapes tree or bag; without it the real sequence in '
        '../shared, or streets that the demo draws itself',
    )
    parser.add_argument('--out', default='out/demo', help='folder for the results')
    parser.add_argument(
        '--checkpoint', metavar='FILE', help='default: the weights that ship; or random'
    )
    parser.add_argument('--device', choices=('auto', 'cuda', 'cpu'), default='auto')
    parser.add_argument('--frames', type=int, default=150, metavar='N', help='at most')
    parser.add_argument('--camera', metavar='JSON', help='calibration for a folder of images')
    parser.add_argument('--images', metavar='TOPIC', help='which, if the bag has several')
    args = parser.parse_args(arguments)
    if args.frames < 1:
        raise InputError(f'--frames {args.frames}: at least one')

    def work(stop: Any) -> None:
        from tag_perception.ros import demo as module

        parameters = {'engine.device': args.device}
        if args.checkpoint:
            parameters['engine.checkpoint'] = args.checkpoint
        chain = module.Demo(Path(args.out), parameters)
        summary = chain.run(_demo_input(args), _demo_scores, stop)
        if summary:
            print(module.format_summary(summary))
        print(f'{args.out}: ' + ', '.join(sorted(path.name for path in chain.products())))
        if 'damage' in summary:
            raise InputError(summary['damage'])

    return _run(work)


def benchmark(arguments: Sequence[str]) -> int:
    """Measure speed: engine (backends, stages), baselines (Table II), ros, cameras (DDS)."""
    parser = _parser(benchmark)
    kinds = parser.add_subparsers(dest='kind', required=True)
    engine = kinds.add_parser('engine', help='every backend, stage by stage')
    engine.add_argument(
        '--preset', nargs='+', default=['tag_slim'], help='networks, or checkpoint files'
    )
    engine.add_argument('--size', metavar='HxW', help='default: what each preset is made for')
    engine.add_argument('--batch', nargs='+', type=int, default=[1], help='images per pass')
    engine.add_argument('--images', default='', metavar='FOLDER', help='default: random patches')
    engine.add_argument('--int8', action='store_true', help='also 8-bit integers (on the CPU)')
    baselines = kinds.add_parser('baselines', help='the networks of Table II, and 3 × DLA34')
    baselines.add_argument('--preset', nargs='+', default=None, help='default: all of Table II')
    baselines.add_argument('--size', metavar='HxW', default='1024x2048')
    cameras = kinds.add_parser('cameras', help='several cameras through one node')
    cameras.add_argument('--cameras', type=int, default=2, metavar='N', help='how many')
    cameras.add_argument(
        '--rate', type=float, nargs='+', default=[10.0], metavar='HZ', help='of all, or of each'
    )
    cameras.add_argument('--size', metavar='HxW', default='512x1024', help='of the images')
    ros = kinds.add_parser('ros', help='one camera through DDS and the node, hop by hop')
    ros.add_argument('--rate', type=float, default=30.0, metavar='HZ', help='of the camera')
    ros.add_argument('--size', metavar='HxW', default='1024x2048', help='of the images')
    ros.add_argument('--checkpoint', default='random', metavar='FILE', help='or auto')
    for kind in (cameras, ros):
        kind.add_argument('--seconds', type=float, default=20.0, help='how long to send')
        kind.add_argument(
            '--engine', choices=('none', 'auto'), default='auto', help='none: constants'
        )
        kind.add_argument('--preset', default='tag_slim', help='network')
    for kind in (engine, baselines):
        kind.add_argument('--rounds', type=int, default=20, help='measured calls of each')
    for kind in (engine, baselines, cameras, ros):
        kind.add_argument('--device', choices=('auto', 'cuda', 'cpu'), default='auto')
        kind.add_argument('--json', metavar='FILE', help='write the figures')
    args = parser.parse_args(arguments)
    if args.kind in ('cameras', 'ros'):
        return _benchmark_chain(args)
    from tag_perception.data.street import parse_size
    from tag_perception.runtime import benchmark as module
    from tag_perception.runtime.machine import write_json

    device = module.choose_device(args.device)
    if args.kind == 'engine':
        size = parse_size(args.size) if args.size else None
        rows = module.benchmark_engine(
            args.preset, size, args.batch, args.rounds, device, args.images, args.int8
        )
    else:
        presets = args.preset or list(module.PAPER_FPS)
        rows = module.benchmark_baselines(presets, parse_size(args.size), args.rounds, device)
    print(module.format_table(rows))
    if args.json:
        write_json(args.json, module.report(args.kind, rows, device))
    return 0


def build_engine(arguments: Sequence[str]) -> int:
    """Make what a start of the node keeps in the cache (ONNX, TensorRT plan), and end."""
    parser = _parser(build_engine)
    names = [f'--{name}' for name in ('checkpoint', 'preset', 'device', 'precision', 'backend')]
    for name in names:
        parser.add_argument(name, default=argparse.SUPPRESS, help=f'as engine.{name[2:]}')
    args = parser.parse_args(arguments)
    from tag_perception.config import from_dict
    from tag_perception.runtime.cache import folder
    from tag_perception.runtime.engine import Engine, EngineConfig

    logging.basicConfig(level=logging.INFO, format='%(message)s')
    wanted = vars(args)
    on_no_gpu = 'error' if wanted.get('device') == 'cuda' else 'ignore'
    engine = Engine(from_dict(EngineConfig, {**wanted, 'on_no_gpu': on_no_gpu}))
    status = engine.status
    print(f'{status.checkpoint}: {status.backend} in {status.precision} on {status.device_name}')
    print(f'cache: {folder()}')
    engine.close()
    return 0


def export(arguments: Sequence[str]) -> int:
    """Write a network as ONNX, for other runtimes."""
    parser = _parser(export)
    parser.add_argument('source', help='checkpoint, or a preset for random weights')
    parser.add_argument('output', help='FILE.onnx')
    parser.add_argument('--batch', type=int, default=1, help='images per pass')
    args = parser.parse_args(arguments)
    from tag_perception.runtime import export as module

    names = module.export(args.source, args.output, args.batch)
    print(f'{args.output}: image → {", ".join(names)}')
    return 0


VERBS: dict[str, Callable[[Sequence[str]], int]] = {
    'costs': costs,
    'train': train,
    'study': study,
    'publish': publish,
    'check-dataset': check_dataset,
    'evaluate': evaluate,
    'compare': compare,
    'street': street,
    'make-bag': make_bag,
    'play-bag': play_bag,
    'record-bag': record_bag,
    'process-bag': process_bag,
    'evaluate-bag': evaluate_bag,
    'show': show,
    'schema': schema,
    'node': node,
    'wait-active': wait_active,
    'demo': demo,
    'benchmark': benchmark,
    'build-engine': build_engine,
    'export': export,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code is 0 for success, 2 for wrong input, 130 for Ctrl-C.

    Where Ctrl-C is the way to end the verb, it is a success.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ('-h', '--help'):
        print(_usage())
        return 0 if arguments else 2
    verb, *rest = arguments
    if verb not in VERBS:
        print(f'tag_perception: no verb {verb!r}; known: {", ".join(VERBS)}', file=sys.stderr)
        return 2
    try:
        code = VERBS[verb](rest)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # who reads our output (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except InputError as error:
        print(f'tag_perception {verb}: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0 if verb in STOPPABLE else 130


def _run(work: Callable[[Any], None]) -> int:
    """Work that Ctrl-C may end at any time, with what is done kept and exit code 0."""
    from tag_perception.ros.process import run

    return run(work, leave=True)


def _benchmark_chain(args: argparse.Namespace) -> int:
    """Cameras → node → subscriber, each a process of its own."""
    several = args.kind == 'cameras'
    if several and len(args.rate) not in (1, args.cameras):
        raise InputError(f'--rate has {len(args.rate)} values: give one, or one per camera')

    def work(stop: Any) -> None:
        from tag_perception.data.street import parse_size
        from tag_perception.ros import benchmark_cameras, benchmark_ros
        from tag_perception.runtime.benchmark import choose_device
        from tag_perception.runtime.machine import machine, write_json

        common = args.seconds, args.engine, args.preset, args.device
        size = parse_size(args.size)
        if several:
            rates = tuple(args.rate * args.cameras if len(args.rate) == 1 else args.rate)
            figures = benchmark_cameras.Rig(rates, size, *common).run(stop)
            form = benchmark_cameras.format_table
        else:
            rig = benchmark_cameras.Rig((args.rate,), size, *common, args.checkpoint, alone=True)
            figures, form = benchmark_ros.run(rig, stop), benchmark_ros.format_table
        if figures:
            print(form(figures))
        if figures and args.json:
            about = {'benchmark': args.kind, 'machine': machine(choose_device(args.device))}
            write_json(args.json, {**about, **figures})

    return _run(work)


def _score(recording: Any, out: Any) -> tuple[dict[str, Any], list[str]]:
    """Scores of recorded results, and remarks on what they do not cover."""
    from tag_perception.core.structures import Sample
    from tag_perception.evaluate.recorded import RecordedFrame, evaluate_recorded
    from tag_perception.ros.results import Recorded

    def frame(recorded: Recorded) -> RecordedFrame:
        source, labels = recorded.source, recorded.source.labels
        if source.camera is None:
            raise InputError(f'{recording.source}: frame {source.stamp_ns} has no calibration')
        semantic = None if labels.semantic is None else labels.semantic.numpy()
        depth = None if labels.depth is None else labels.depth.numpy()
        boxes = None if source.annotation is None else labels.detection3d
        name = str(source.stamp_ns)
        sample = Sample(name, source.image, source.camera, semantic, depth, boxes)
        total_ms = recorded.latency_ms.get('total', float('nan'))
        return RecordedFrame(sample, recorded.scene, source.annotation, total_ms)

    bag = str(recording.results)
    about = {'name': bag, 'bag': bag, 'ground_truth': str(recording.source)}
    results = evaluate_recorded(map(frame, recording), out, about)
    remarks = []
    if recording.missing:
        remarks.append(f'{recording.missing} frames have no results and are not in these scores')
    if recording.score_threshold and results['detection3d']:
        remarks.append(
            f'boxes below {recording.score_threshold:g} were not published: record with '
            'engine.score_threshold=0.0 for the official scores'
        )
    return results, remarks


def _demo_scores(recording: Path, ground_truth: Path, out: Path) -> dict[str, Any]:
    """The headline scores of the demo's recording, and remarks on them."""
    from tag_perception.evaluate.run import HEADLINE
    from tag_perception.ros.demo import NODE
    from tag_perception.ros.results import Recording

    results, remarks = _score(Recording(recording, ground_truth, NODE), out)
    return {**{name: results[name] for name in HEADLINE}, 'remarks': remarks}


def _demo_input(args: argparse.Namespace) -> Callable[[Path, Any], object]:
    """What writes the demo's input bag: (path, stop) → the bag."""
    from tag_perception.data.recording import open_recording
    from tag_perception.ros import bag
    from tag_perception.ros.demo import copy_bag
    from tag_perception.ros.storage import is_bag

    real = Path(__file__).resolve().parents[1] / '../shared/data/cityscapes_sequence'
    source = Path(args.input) if args.input else real
    if is_bag(source):
        return lambda output, stop: copy_bag(source, args.images, args.frames, output, stop)
    if args.input and not source.is_dir():
        what = 'is neither a folder nor a bag' if source.exists() else 'does not exist'
        raise InputError(
            f'{source} {what}: give a folder of images, a Cityscapes tree or a bag (.mcap, .db3)'
        )
    if args.input or real.is_dir():
        total, frames = open_recording(source, camera=args.camera, limit=args.frames)
    else:
        from tag_perception.data.street.clip import street_clip

        total, frames = street_clip(min(args.frames, 30))  # as many as a snippet of Cityscapes
    return lambda output, stop: bag.make_bag(frames, output, total=total, progress=True, stop=stop)


def _split_ros(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our arguments and those from --ros-args on."""
    arguments = list(arguments)
    cut = arguments.index('--ros-args') if '--ros-args' in arguments else len(arguments)
    return arguments[:cut], arguments[cut:]


def _print_topics(path: str, counts: dict[str, int]) -> None:
    print(f'{path}: {sum(counts.values())} messages')
    for topic, count in sorted(counts.items()):
        print(f'  {count:6d}  {topic}')


def _parser(verb: Callable[[Sequence[str]], int]) -> argparse.ArgumentParser:
    name = next(name for name, function in VERBS.items() if function is verb)
    return argparse.ArgumentParser(
        prog=f'tag_perception {name}',
        description=verb.__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )


def _usage() -> str:
    lines = ['usage: python -m tag_perception VERB [--help] …', '', 'verbs:']
    width = max(map(len, VERBS))
    lines += [
        f'  {name:<{width}}  {(verb.__doc__ or "").splitlines()[0]}'
        for name, verb in VERBS.items()
    ]
    return '\n'.join(lines)

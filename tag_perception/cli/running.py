"""Verbs around the running node: node, wait-active, demo and schema."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tag_perception.cli.parsing import parser_of, split_ros, stoppable
from tag_perception.cli.scores import score_recording
from tag_perception.config import InputError


def node(arguments: Sequence[str]) -> int:
    """The perception node; takes ROS arguments (--ros-args …)."""
    parser_of(node).parse_known_args(arguments)  # for --help; the rest belongs to ROS
    from tag_perception.ros.process import perception_node

    return perception_node(['perception_node', *arguments])


def wait_active(arguments: Sequence[str]) -> int:
    """Wait until a lifecycle node is active, for scripts and launch files."""
    parser = parser_of(wait_active)
    parser.add_argument('node', nargs='?', default='/perception', help='full name of the node')
    parser.add_argument('--timeout', type=float, default=120.0, metavar='S', help='seconds')
    own, ros_arguments = split_ros(arguments)
    args = parser.parse_args(own)

    def work(stop: Any) -> None:
        from tag_perception.ros import readiness, session

        with session.client('wait_active', ros_arguments) as ros:
            readiness.wait_active(ros, args.node, args.timeout, stop)

    return stoppable(work)


def demo(arguments: Sequence[str]) -> int:
    """Play frames through DDS into the node; record, measure and draw what it publishes."""
    parser = parser_of(demo)
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

    return stoppable(work)


def schema(arguments: Sequence[str]) -> int:
    """Print the JSON schema of the node's parameter files."""
    parser_of(schema).parse_args(arguments)
    import json

    from tag_perception.ros import parameters

    print(json.dumps(parameters.schema(), indent=2, ensure_ascii=False))
    return 0


def _demo_scores(recording: Path, ground_truth: Path, out: Path) -> dict[str, Any]:
    """The headline scores of the demo's recording, and remarks on them."""
    from tag_perception.evaluate.run import HEADLINE
    from tag_perception.ros.demo import NODE
    from tag_perception.ros.results import Recording

    results, remarks = score_recording(Recording(recording, ground_truth, NODE), out)
    return {**{name: results[name] for name in HEADLINE}, 'remarks': remarks}


def _demo_input(args: argparse.Namespace) -> Callable[[Path, Any], object]:
    """What writes the demo's input bag: (path, stop) → the bag."""
    from tag_perception.data.recording import open_recording
    from tag_perception.ros import bag
    from tag_perception.ros.demo import copy_bag
    from tag_perception.ros.storage import is_bag

    real = Path(__file__).resolve().parents[2] / '../shared/data/cityscapes_sequence'
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

"""Verbs that make, play, record and process bags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tag_perception.cli.parsing import parser_of, print_topics, split_ros, stoppable


def make_bag(arguments: Sequence[str]) -> int:
    """Turn a Cityscapes(-3D) tree or a folder of images into a rosbag2."""
    parser = parser_of(make_bag)
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
        print_topics(args.output, counts)

    return stoppable(work)


def play_bag(arguments: Sequence[str]) -> int:
    """Publish a bag at its own pace, or each image after the results of the last (lockstep)."""
    parser = parser_of(play_bag)
    parser.add_argument('bag', help='FILE.mcap, FILE.db3 or a folder with metadata.yaml')
    parser.add_argument('--rate', type=float, default=1.0, help='speed')
    parser.add_argument('--loop', action='store_true', help='play again and again')
    parser.add_argument('--clock', action='store_true', help='publish /clock')
    parser.add_argument(
        '--lockstep', metavar='NODE', nargs='?', const='/perception', help='wait for its results'
    )
    parser.add_argument('--images', metavar='TOPIC', help='what lockstep follows, of several')
    own, ros = split_ros(arguments)
    args = parser.parse_args(own)

    def work(stop: Any) -> None:
        from tag_perception.ros import player, session

        playback = player.Playback(args.rate, args.loop, args.clock, args.lockstep, args.images)
        with session.client('bag_player', ros) as node:
            played = player.play_bag(args.bag, node, playback, progress=True, stop=stop)
        print_topics(args.bag, played.messages)
        if played.unanswered:
            print(f'{played.unanswered} images without results')

    return stoppable(work)


def record_bag(arguments: Sequence[str]) -> int:
    """Record what a perception node publishes, until Ctrl-C."""
    parser = parser_of(record_bag)
    parser.add_argument('output', help='FILE.mcap, or a folder')
    parser.add_argument('--node', default='/perception', help='full name of the node')
    parser.add_argument('--lazy', action='store_true', help='also overlay, colours and markers')
    parser.add_argument('--storage', choices=('mcap', 'sqlite3'), default='mcap')
    own, ros = split_ros(arguments)
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
        print_topics(args.output, counts)

    return stoppable(work)


def process_bag(arguments: Sequence[str]) -> int:
    """Write what the node would publish for every image of a bag, without DDS."""
    parser = parser_of(process_bag)
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

    return stoppable(work)

"""Verbs about speed: benchmark, build-engine and export."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from typing import Any

from tag_perception.cli import datasets
from tag_perception.cli.parsing import parser_of, stoppable
from tag_perception.config import InputError


def benchmark(arguments: Sequence[str]) -> int:
    """Measure speed: engine (backends, stages), baselines (Table II), ros, cameras, street."""
    parser = parser_of(benchmark)
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
    street = kinds.add_parser('street', help='rendered streets, as a training takes them')
    street.add_argument('--size', metavar='HxW', default='512x1024', help='of the images')
    street.add_argument(
        '--workers', type=int, metavar='N',
        help='loader processes; default: one per core, on a GPU at most '
        f'{datasets.WORKERS_ON_A_GPU}; 0: none',
    )  # fmt: skip
    street.add_argument('--frames', type=int, default=100, metavar='N', help='in a round')
    for kind in (cameras, ros):
        kind.add_argument('--seconds', type=float, default=20.0, help='how long to send')
        kind.add_argument(
            '--engine', choices=('none', 'auto'), default='auto', help='none: constants'
        )
        kind.add_argument('--preset', default='tag_slim', help='network')
    for kind in (engine, baselines):
        kind.add_argument('--rounds', type=int, default=20, help='measured calls of each')
        kind.add_argument(
            '--busy', type=int, default=0, metavar='N', help='beside N processes that never wait'
        )
    street.add_argument('--rounds', type=int, default=3, help='measured rounds')
    for kind in (engine, baselines, cameras, ros, street):
        kind.add_argument('--device', choices=('auto', 'cuda', 'cpu'), default='auto')
        kind.add_argument('--json', metavar='FILE', help='write the figures')
    args = parser.parse_args(arguments)
    if args.kind in ('cameras', 'ros'):
        return _benchmark_chain(args)
    if args.kind == 'street':
        return _benchmark_street(args)
    from tag_perception.data.street import parse_size
    from tag_perception.runtime import benchmark as module
    from tag_perception.runtime.machine import busy_processes, write_json

    device = module.choose_device(args.device)
    with busy_processes(args.busy):
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
        write_json(args.json, {**module.report(args.kind, rows, device), 'busy': args.busy})
    return 0


def build_engine(arguments: Sequence[str]) -> int:
    """Make what a start of the node keeps in the cache (ONNX, TensorRT plan), and end."""
    parser = parser_of(build_engine)
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
    parser = parser_of(export)
    parser.add_argument('source', help='checkpoint, or a preset for random weights')
    parser.add_argument('output', help='FILE.onnx')
    parser.add_argument('--batch', type=int, default=1, help='images per pass')
    args = parser.parse_args(arguments)
    from tag_perception.runtime import export as module

    names = module.export(args.source, args.output, args.batch)
    print(f'{args.output}: image → {", ".join(names)}')
    return 0


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

    return stoppable(work)


def _benchmark_street(args: argparse.Namespace) -> int:
    """A loader of rendered streets."""
    from dataclasses import asdict

    from tag_perception.data.street import parse_size, speed
    from tag_perception.runtime.benchmark import choose_device
    from tag_perception.runtime.machine import machine, write_json

    device = choose_device(args.device)
    workers = datasets.rendering_workers(device.type) if args.workers is None else args.workers
    figures = speed.measure(parse_size(args.size), device.type, workers, args.frames, args.rounds)
    print(speed.format_speed(figures))
    if args.json:
        write_json(
            args.json, {'benchmark': 'street', 'machine': machine(device), **asdict(figures)}
        )
    return 0

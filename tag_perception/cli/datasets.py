"""Verbs around labelled trees: check-dataset and street."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tag_perception.cli.parsing import parser_of

WORKERS_ON_A_GPU = 8
"""Processes that render on one GPU unless told otherwise: each takes memory there."""


def check_dataset(arguments: Sequence[str]) -> int:
    """List every problem of a Cityscapes-3D tree, then what is in it."""
    parser = parser_of(check_dataset)
    parser.add_argument('root', help='folder that holds leftImg8bit, gtFine, camera, …')
    args = parser.parse_args(arguments)
    from tag_perception.data import check as module

    check = module.check_dataset(args.root)
    for problem in check.problems:
        print(problem)
    print(f'{len(check.problems) or "no"} problem{"s" if len(check.problems) != 1 else ""}\n')
    print(module.format_counts(check))
    return 1 if check.problems else 0


def street(arguments: Sequence[str]) -> int:
    """Generate synthetic streets in the Cityscapes-3D layout; the same command continues a run."""
    parser = parser_of(street)
    parser.add_argument('out', help='folder to write into')
    parser.add_argument('--seed', type=int, default=0, help='other seeds give other streets')
    parser.add_argument('--frames', type=int, default=10, metavar='N', help='streets to generate')
    parser.add_argument('--size', default='512x1024', metavar='HxW', help='of the images, pixels')
    parser.add_argument('--split', choices=('train', 'val'), default='train', help='which split')
    parser.add_argument(
        '--sequence', action='store_true', help='30 frames at 17 Hz of each street'
    )
    parser.add_argument(
        '--workers', type=int, metavar='N',
        help=f'processes (default: one per core, on a GPU at most {WORKERS_ON_A_GPU})',
    )  # fmt: skip
    parser.add_argument('--device', default='cpu', help='where to render: cpu, cuda')
    args = parser.parse_args(arguments)
    workers = rendering_workers(args.device) if args.workers is None else args.workers
    from tag_perception.data.street import parse_size, write_tree

    size = parse_size(args.size)
    names = write_tree(**{**vars(args), 'size': size, 'workers': workers})
    streets = 'street' if len(names) == 1 else 'streets'
    span = ' … '.join(dict.fromkeys([names[0], names[-1]]))
    print(f'{args.out}: {len(names)} {streets} of split {args.split}, {span}')
    return 0


def rendering_workers(device: str) -> int:
    """How many processes render on a device unless the user says."""
    cores = os.cpu_count() or 1
    return cores if device == 'cpu' else min(cores, WORKERS_ON_A_GPU)

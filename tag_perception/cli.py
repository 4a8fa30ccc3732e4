"""`python -m tag_perception VERB …`: verbs parse, import lazily and call one function.

Heavy imports stay inside the verbs, so that `--help` is instant and a verb needs only the packages
it uses. A wrong input ends with one line on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from tag_perception.config import InputError


def costs(arguments: Sequence[str]) -> int:
    """Parameters and MACs of every network, beside the paper's figures."""
    parser = _parser(costs)
    parser.add_argument('--table', choices=('ours', 'paper'), default='ours', help='which rows')
    parser.add_argument('--json', metavar='FILE', help='write the rows as JSON')
    args = parser.parse_args(arguments)
    from tag_perception.core import costs as module

    rows = module.paper_rows() if args.table == 'paper' else module.our_rows()
    print(module.format_table(rows, modules=args.table == 'ours'))
    if args.json:
        module.write_json(rows, args.json)
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
    parser.add_argument('--fps', nargs='+', metavar='NAME=VALUE', default=[])
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
            ),
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
    parser.add_argument('--sequence', action='store_true', help='30 frames at 17 Hz of each street')
    parser.add_argument('--workers', type=int, default=1, metavar='N', help='processes')
    parser.add_argument('--device', default='cpu', help='where to render: cpu, cuda')
    args = parser.parse_args(arguments)
    from tag_perception.data.street import parse_size, write_tree

    size = parse_size(args.size)
    names = write_tree(**{**vars(args), 'size': size})
    print(f'{args.out}: {len(names)} streets of split {args.split}, {names[0]} … {names[-1]}')
    return 0


VERBS: dict[str, Callable[[Sequence[str]], int]] = {
    'costs': costs,
    'train': train,
    'study': study,
    'check-dataset': check_dataset,
    'evaluate': evaluate,
    'compare': compare,
    'street': street,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code is 0 for success, 2 for wrong input, 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ('-h', '--help'):
        print(_usage())
        return 0 if arguments else 2
    verb, *rest = arguments
    if verb not in VERBS:
        print(f'tag_perception: no verb {verb!r}; known: {", ".join(VERBS)}', file=sys.stderr)
        return 2
    try:
        return VERBS[verb](rest)
    except InputError as error:
        print(f'tag_perception {verb}: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


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

"""Verbs that make weights: costs, train, study and publish."""

from __future__ import annotations

from collections.abc import Sequence

from tag_perception.cli.parsing import parser_of


def costs(arguments: Sequence[str]) -> int:
    """Parameters and MACs of every network, beside the paper's figures."""
    parser = parser_of(costs)
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
    parser = parser_of(train)
    parser.add_argument('experiment', help='config/train/<experiment>.yaml')
    parser.add_argument('override', nargs='*', metavar='a.b=c', help='change values of the file')
    parser.add_argument('--dry-run', action='store_true', help='two batches, no files')
    args = parser.parse_args(arguments)
    from tag_perception.learn.configuration import read_experiment
    from tag_perception.learn.training import train as run

    folder = run(read_experiment(args.experiment, args.override), dry_run=args.dry_run)
    print('dry run: fine' if args.dry_run else f'{folder}: best.safetensors, last.safetensors')
    return 0


def study(arguments: Sequence[str]) -> int:
    """Train and score the runs of a study that are missing, then print its table."""
    parser = parser_of(study)
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


def publish(arguments: Sequence[str]) -> int:
    """Write a checkpoint in fp16 with its scores inside, as models/ holds them."""
    parser = parser_of(publish)
    parser.add_argument('checkpoint', help='e.g. out/train/<experiment>/best.safetensors')
    parser.add_argument('output', help='e.g. models/<name>.safetensors')
    parser.add_argument('--results', metavar='FILE', help='results.json of evaluate')
    parser.add_argument(
        '--sky-bias', type=float, default=0.0, metavar='X',
        help='added to the logit of sky; below 0, less is taken for sky, which has no depth',
    )  # fmt: skip
    args = parser.parse_args(arguments)
    from tag_perception.learn import publishing

    print(publishing.publish(args.checkpoint, args.output, args.results, args.sky_bias))
    return 0

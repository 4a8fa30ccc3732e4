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
    print(module.format_table(rows))
    if args.json:
        module.write_json(rows, args.json)
    return 0


VERBS: dict[str, Callable[[Sequence[str]], int]] = {
    'costs': costs,
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

"""`python -m tag_perception VERB …`: verbs parse, import lazily and call one function.

Heavy imports stay inside the verbs, so that `--help` is instant and a verb needs only the packages
it uses. A wrong input ends with one line on stderr and exit code 2.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from tag_perception.cli import bags, datasets, learning, running, scores, speed
from tag_perception.config import InputError
from tag_perception.entry import STOPPABLE

VERBS: dict[str, Callable[[Sequence[str]], int]] = {
    'costs': learning.costs,
    'train': learning.train,
    'study': learning.study,
    'publish': learning.publish,
    'check-dataset': datasets.check_dataset,
    'evaluate': scores.evaluate,
    'compare': scores.compare,
    'street': datasets.street,
    'make-bag': bags.make_bag,
    'play-bag': bags.play_bag,
    'record-bag': bags.record_bag,
    'process-bag': bags.process_bag,
    'evaluate-bag': scores.evaluate_bag,
    'show': scores.show,
    'schema': running.schema,
    'node': running.node,
    'wait-active': running.wait_active,
    'demo': running.demo,
    'benchmark': speed.benchmark,
    'build-engine': speed.build_engine,
    'export': speed.export,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code is 0 for success, 2 for wrong input, 130 for Ctrl-C.

    Where Ctrl-C is the way to end the verb, it is a success.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    verb = arguments[0] if arguments else ''
    try:
        code = _run(arguments)
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


def _run(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ('-h', '--help'):
        print(_usage())
        return 0 if arguments else 2
    verb, *rest = arguments
    if verb not in VERBS:
        print(f'tag_perception: no verb {verb!r}; known: {", ".join(VERBS)}', file=sys.stderr)
        return 2
    return VERBS[verb](rest)


def _usage() -> str:
    lines = ['usage: python -m tag_perception VERB [--help] …', '', 'verbs:']
    width = max(map(len, VERBS))
    lines += [
        f'  {name:<{width}}  {(verb.__doc__ or "").splitlines()[0]}'
        for name, verb in VERBS.items()
    ]
    return '\n'.join(lines)

"""transport.py: what messages need is there before they come."""

import os
import resource
import subprocess
import sys

import pytest

from tag_perception.ros import transport

PIXELS = 2**20

BEGIN = """
import resource, threading
from tag_perception.ros import process  # all else later, as our commands have it

def touch(size):
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    memory = bytearray(size)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begin)

def in_a_thread(*arguments):
    thread = threading.Thread(target=touch, args=arguments)
    thread.start()
    thread.join()

def work(stop):
    from tag_perception.ros import session, transport
    with session.client('populated'):
"""


def numbers_of(*lines: str, launched: bool) -> list[int]:
    """What `lines` print in a process with a node; `launched` in the environment that it needs."""
    code = BEGIN + '\n'.join(f'        {line}' for line in lines) + '\nprocess.run(work)'
    ours = {*transport.MALLOC, *transport.COPIES}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    if launched:
        environment |= transport.environment(environment)
    done = subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True
    )
    return [int(number) for number in done.stdout.split()]


@pytest.mark.parametrize('launched', [True, False])
def test_heap_that_was_populated_is_there_for_every_thread(launched):
    size = PIXELS * transport.BYTES_PER_PIXEL // 4
    pages = size / resource.getpagesize()
    before, after = numbers_of(
        f'in_a_thread({size})', f'transport.populate({PIXELS})', f'in_a_thread({size})',
        launched=launched,
    )  # fmt: skip
    assert after < 0.1 * pages < before


@pytest.mark.parametrize(
    ('vendor', 'past_the_caches'), [('GenuineIntel', True), ('AuthenticAMD', False), (None, False)]
)
def test_copies_go_past_the_caches_where_that_is_faster(
    tmp_path, monkeypatch, vendor, past_the_caches
):
    if vendor is not None:
        (tmp_path / 'cpuinfo').write_text(f'processor\t: 0\nvendor_id\t: {vendor}\n')
    monkeypatch.setattr(transport, 'CPU_INFO', tmp_path / 'cpuinfo')
    variables = transport.environment({})
    assert transport.MALLOC.items() <= variables.items()
    assert (transport.COPIES.items() <= variables.items()) == past_the_caches
    assert 'GLIBC_TUNABLES' not in transport.environment({'GLIBC_TUNABLES': 'of the user'})

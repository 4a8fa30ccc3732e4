"""transport.py: what messages need is there before they come."""

import os
import resource
import subprocess
import sys

from tag_perception.ros import transport

PIXELS = 2**20

BEGIN = """
import resource, threading
from tag_perception.ros import process, session, transport

def touch(size):
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    memory = bytearray(size)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begin)

def in_a_thread(*arguments):
    thread = threading.Thread(target=touch, args=arguments)
    thread.start()
    thread.join()

def work(stop):
    with session.client('populated'):
"""


def numbers_of(*lines: str) -> list[int]:
    """What `lines` print in a process of its own that has a node."""
    code = BEGIN + '\n'.join(f'        {line}' for line in lines) + '\nprocess.run(work)'
    environment = {**os.environ, **transport.environment()}
    done = subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True
    )
    return [int(number) for number in done.stdout.split()]


def test_heap_that_was_populated_is_there_for_every_thread():
    size = PIXELS * transport.BYTES_PER_PIXEL // 4
    pages = size / resource.getpagesize()
    before, after = numbers_of(
        f'in_a_thread({size})', f'transport.populate({PIXELS})', f'in_a_thread({size})'
    )
    assert after < 0.1 * pages < before

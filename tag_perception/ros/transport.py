"""What lets 6 to 8 MB images pass between processes: the DDS profile and glibc's settings.

Stock settings lose most frames of a 2048×1024 camera: the shared-memory segment is smaller than
one image, and every message buffer is mapped, faulted in and unmapped anew. Launch files hand
`environment()` to the processes they start; our own commands call `prepare()` instead.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tag_perception.share import shared_file

log = logging.getLogger(__name__)

SEGMENT_BYTES = 128 * 2**20
"""Shared memory that each process maps with config/fastdds.xml."""

MALLOC = {
    'MALLOC_MMAP_THRESHOLD_': str(2**30),
    'MALLOC_TRIM_THRESHOLD_': str(2**32),
    'MALLOC_TOP_PAD_': str(64 * 2**20),
    'MALLOC_ARENA_MAX': '1',
}
"""glibc keeps message buffers instead of returning them to the kernel after every frame, and all
threads have the same ones: memory that one has touched is there for the others."""

BYTES_PER_PIXEL = 48
"""Memory that messages need for each pixel of a camera: 3 bytes for each of five images (one is
waiting, two are in hand, one is being taken and is there twice), 5 for mask and depth, here and
five times in the history of DDS, which fills when a subscriber is late."""

COPIES = {'GLIBC_TUNABLES': 'glibc.cpu.x86_non_temporal_threshold=0x100000'}
"""Copies of a megabyte and more go past the caches, as glibc does it by itself on processors with
few megabytes of cache; where a server's hundreds are told to a virtual machine it never would, and
on Intel's processors a copy of 8 MB takes 1.2 ms instead of 0.7. On AMD's it is the other way
round: the next process finds the image in the cache, and all hops together need a quarter less."""

CPU_INFO = Path('/proc/cpuinfo')
SHARED_MEMORY = Path('/dev/shm')
NEWBORN_S = 2.0
"""A lock file this young may not be locked yet."""

PROFILE_VARIABLES = (
    'FASTDDS_DEFAULT_PROFILES_FILE',
    'FASTRTPS_DEFAULT_PROFILES_FILE',
    'FASTDDS_BUILTIN_TRANSPORTS',
)
"""If the user has set one of these, the transport is theirs."""


def environment(current: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables to add to the environment of a process that sends or receives images.

    Holds nothing that `current` sets already.
    """
    wanted = {**MALLOC, **COPIES} if _is_intel() else MALLOC
    variables = {name: value for name, value in wanted.items() if name not in current}
    if any(name in current for name in PROFILE_VARIABLES):
        return variables
    if _shared_memory_free() < 2 * SEGMENT_BYTES:
        log.warning(
            '/dev/shm has less than %d MiB free: images go over TCP, which is slower '
            '(in a container, start it with --shm-size=1g)',
            2 * SEGMENT_BYTES // 2**20,
        )
        return {**variables, 'FASTDDS_BUILTIN_TRANSPORTS': 'LARGE_DATA'}
    return {**variables, _profile_variable(): str(shared_file('config', 'fastdds.xml'))}


def prepare() -> None:
    """Apply `environment()` to this process; call before rclpy.init."""
    free_orphans()
    os.environ.update(environment())
    keep_memory()


def keep_memory() -> None:
    """MALLOC for this process, whose malloc read its variables when it started.

    Threads that have begun by then may keep memory of their own.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None:  # glibc only
        m_trim_threshold, m_top_pad, m_mmap_threshold, m_arena_max = -1, -2, -3, -8
        mallopt(m_mmap_threshold, 32 * 2**20)
        mallopt(m_trim_threshold, 2**31 - 1)
        mallopt(m_top_pad, int(MALLOC['MALLOC_TOP_PAD_']))
        mallopt(m_arena_max, int(MALLOC['MALLOC_ARENA_MAX']))


def populate(pixels: int) -> None:
    """Touch the memory that messages of cameras with so many pixels together will need.

    Otherwise the first frames do, page by page: 40 to 100 ms each on a virtual machine, in which
    the next ones are lost.
    """
    libc = ctypes.CDLL(None)
    libc.malloc.argtypes, libc.malloc.restype = (ctypes.c_size_t,), ctypes.c_void_p
    libc.free.argtypes = (ctypes.c_void_p,)
    step = 2**20
    blocks = [libc.malloc(step) for _ in range(pixels * BYTES_PER_PIXEL // step)]
    for block in filter(None, blocks):
        ctypes.memset(block, 0, step)
        libc.free(block)


def free_orphans(folder: Path = SHARED_MEMORY) -> None:
    """Delete the segments of processes that were killed: 134 MiB each, which nobody else frees.

    Fast DDS holds a lock on the file beside each segment for as long as its process lives.
    """
    for lock in folder.glob('fast*_el'):
        with suppress(OSError), lock.open('rb') as file:  # of another user, or held by its owner
            if 'port' in lock.name or time.time() - lock.stat().st_mtime < NEWBORN_S:
                continue
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.with_name(lock.name.removesuffix('_el')).unlink(missing_ok=True)
            lock.unlink()


def _is_intel() -> bool:
    try:
        return 'GenuineIntel' in CPU_INFO.read_text()
    except OSError:
        return False


def _profile_variable() -> str:
    """Fast DDS 3 (ROS 2 Kilted) renamed its variable and its library."""
    prefixes = [sys.prefix, *os.environ.get('AMENT_PREFIX_PATH', '').split(':')]
    old = any(any(Path(prefix, 'lib').glob('libfastrtps.so*')) for prefix in prefixes if prefix)
    return f'{"FASTRTPS" if old else "FASTDDS"}_DEFAULT_PROFILES_FILE'


def _shared_memory_free() -> int:
    """Free bytes of /dev/shm, 0 where there is none."""
    try:
        status = os.statvfs(SHARED_MEMORY)
    except OSError:
        return 0
    return status.f_bavail * status.f_frsize

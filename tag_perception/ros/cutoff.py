"""Recordings whose end is missing (a killed recorder, a full disk): what of them is whole."""

from __future__ import annotations

import struct
from pathlib import Path

from rosbags.rosbag2.errors import ReaderError
from rosbags.rosbag2.storage_mcap import ChunkInfo, McapReader

MAGIC = b'\x89MCAP0\r\n'
FOOTER, CHUNK, DATA_END = 0x02, 0x06, 0x0F
SQLITE = b'SQLite format 3\0'


class CutMcapReader(McapReader):
    """Reads a file up to its last complete chunk; its index, which comes last, is made anew."""

    def _open(self) -> None:
        assert self.bio is not None
        size = self.bio.seek(0, 2)
        self.bio.seek(0)
        if self.bio.read(len(MAGIC)) != MAGIC:
            raise ReaderError('File magic is invalid.')
        if self.bio.read(17)[9:] != b'\4\0\0\0ros2':
            raise ReaderError('Profile is not ros2.')
        self.data_start = self.data_end = len(MAGIC)
        chunks = []
        while (record := self._record(self.data_end, size)) is not None:
            kind, length = record
            if kind == CHUNK:
                chunks.append(self._chunk(self.data_end, length))
            self.data_end += 9 + length
        self.meta_scan()
        assert self.statistics is not None
        counts = self.statistics.channel_message_counts
        self.connections = [c._replace(msgcount=counts.get(c.id, 0)) for c in self.connections]
        # Which channels a chunk holds would need another scan; it may hold any of them.
        self.chunks = [c._replace(channel_count=dict.fromkeys(counts, 1)) for c in chunks]

    def _record(self, offset: int, size: int) -> tuple[int, int] | None:
        """Kind and length of the record at `offset`; None if it is not data or not all there."""
        assert self.bio is not None
        self.bio.seek(offset)
        head = self.bio.read(9)
        if len(head) < 9:
            return None
        kind, length = struct.unpack('<BQ', head)
        whole = offset + 9 + length <= size
        return (kind, length) if whole and kind not in (0, FOOTER, DATA_END) else None

    def _chunk(self, offset: int, length: int) -> ChunkInfo:
        assert self.bio is not None
        begin, end, uncompressed, _, name = struct.unpack('<QQQII', self.bio.read(32))
        compression = self.bio.read(name).decode()
        (compressed,) = struct.unpack('<Q', self.bio.read(8))
        return ChunkInfo(
            message_start_time=begin,
            message_end_time=end,
            chunk_start_offset=offset,
            chunk_length=9 + length,
            message_index_offsets={},
            message_index_length=0,
            compression=compression,
            compressed_size=compressed,
            uncompressed_size=uncompressed,
            channel_count={},
        )


def check_pages(path: Path) -> None:
    """Raise ReaderError for an SQLite file that ends within a page.

    SQLite itself takes what is missing of the last page for zeros, and of pages only for damage.
    """
    with path.open('rb') as file:
        head = file.read(18)
        size = file.seek(0, 2)
    if not head.startswith(SQLITE):
        return
    (page,) = struct.unpack('>H', head[16:])
    if size % (2**16 if page == 1 else page):
        raise ReaderError(f'{path.name} ends within a page.')

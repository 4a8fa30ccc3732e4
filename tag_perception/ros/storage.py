"""Bag files, written and read with the rosbags library, in which rclpy's messages lie."""

from __future__ import annotations

import importlib
import tempfile
import threading
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from rclpy.serialization import deserialize_message, serialize_message
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.rosbag2.errors import ReaderError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from tag_perception.config import InputError
from tag_perception.ros.cutoff import CutMcapReader, check_pages
from tag_perception.ros.wire import WireMessage

Storage = Literal['mcap', 'sqlite3']

FOREVER = QosTime(9223372036, 854775807)
METADATA_VERSION: Literal[8] = 8
"""Of rosbag2's metadata.yaml: the oldest that rosbags writes, so that most releases read it."""


class BagWriter:
    """A bag under construction; closed and readable however the `with` block ends.

    A path ending in .mcap becomes one file, any other path a folder with metadata.yaml.
    """

    def __init__(self, path: Path | str, storage: Storage = 'mcap') -> None:
        """Raises InputError where the path is taken or cannot be written."""
        self.path = Path(path)
        self.counts: dict[str, int] = {}
        """Messages written so far by topic."""
        self._lock = threading.Lock()
        self._closed = False
        self._connections: dict[str, Connection] = {}
        self._folder: tempfile.TemporaryDirectory | None = None
        if self.path.exists():
            raise InputError(f'{self.path} exists already: remove it or choose another name')
        single_file = self.path.suffix == '.mcap'
        if single_file and storage != 'mcap':
            raise InputError(f'{self.path}: a {storage} bag is a folder, leave the .mcap out')
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = self._open(storage, single_file)
        except OSError as error:
            raise InputError(f'{self.path}: cannot be written: {error.strerror}') from error

    def write(self, topic: str, message: Any, stamp_ns: int, latched: bool = False) -> None:
        """Append a message of rclpy, or a WireMessage."""
        if isinstance(message, WireMessage):
            kind, data = type_name(message.kind), message.memory.tobytes()
        else:
            kind, data = type_name(type(message)), serialize_message(message)
        self.write_bytes(topic, kind, data, stamp_ns, latched)

    def write_bytes(
        self, topic: str, kind: str, data: bytes, stamp_ns: int, latched: bool = False
    ) -> None:
        """Append a serialized message of type `kind`, e.g. sensor_msgs/msg/Image."""
        with self._lock:
            if self._closed:
                return
            try:
                if topic not in self._connections:
                    self._connections[topic] = self._writer.add_connection(
                        topic,
                        kind,
                        typestore=typestore(kind),
                        offered_qos_profiles=[_qos(latched)],
                    )
                self._writer.write(self._connections[topic], stamp_ns, data)
            except OSError as error:
                raise InputError(f'{self.path}: cannot be written: {error.strerror}') from error
            self.counts[topic] = self.counts.get(topic, 0) + 1

    def close(self) -> None:
        """Finish the bag; what is written later is dropped. Any thread may call it, also twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                self._writer.close()
            except OSError as error:
                raise InputError(f'{self.path}: cannot be written: {error.strerror}') from error
            finally:
                if self._folder is not None:
                    self._folder.cleanup()

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            with suppress(InputError):  # the first error is the one to tell
                self.close()

    def _open(self, storage: Storage, single_file: bool) -> Writer:
        plugin = StoragePlugin[storage.upper()]
        if not single_file:
            writer = Writer(self.path, version=METADATA_VERSION, storage_plugin=plugin)
            writer.open()
            return writer
        # rosbags writes folders only; the file moves out as soon as it is open.
        self._folder = tempfile.TemporaryDirectory(dir=self.path.parent, prefix='.bag-')
        inside = Path(self._folder.name, 'bag')
        writer = Writer(inside, version=METADATA_VERSION, storage_plugin=plugin)
        writer.open()
        (inside / 'bag.mcap').rename(self.path)
        return writer


class DamagedBag(InputError):
    """A bag ends before its time; what lies before the damage has been read."""


class BagReader:
    """An open bag: a folder with metadata.yaml, an .mcap or a .db3 file.

    An MCAP recording that was cut off is read up to its last complete chunk.
    """

    def __init__(self, path: Path | str) -> None:
        """Raises InputError with file and cause where it is missing, no bag, or not readable."""
        self.path = Path(path)
        try:
            self._reader, cause = _open(self.path)
        except FileNotFoundError as error:
            raise InputError(
                f'{self.path}: no bag (a folder with metadata.yaml, an .mcap or a .db3 file)'
            ) from error
        except Exception as error:
            text = f'{self.path}: damaged, cut off or no bag: {_cause(error)}'
            raise InputError(text) from error
        self.topics = {c.topic: c.msgtype for c in self._reader.connections}
        """Type of every topic, e.g. sensor_msgs/msg/Image."""
        self.counts = {c.topic: c.msgcount for c in self._reader.connections}
        """Number of messages of every topic."""
        self.damage: DamagedBag | None = None
        """Why the bag ends before its time, as far as that is known by now."""
        if cause is not None:
            self.damage = self._damaged(cause, sum(self.counts.values()))

    def latched(self, topic: str) -> bool:
        """Whether `topic` was recorded with transient-local durability."""
        connection = next(c for c in self._reader.connections if c.topic == topic)
        profiles = getattr(connection.ext, 'offered_qos_profiles', [])
        return any(p.durability == QosDurability.TRANSIENT_LOCAL for p in profiles)

    def messages(self, topics: Collection[str] | None = None) -> Iterator[tuple[str, int, bytes]]:
        """(topic, log time in ns, serialized message) by log time, of `topics` or of all.

        Raises DamagedBag behind the last one where the bag ends before its time.
        """
        yield from self.readable(topics)
        if self.damage is not None:
            raise self.damage

    def readable(self, topics: Collection[str] | None = None) -> Iterator[tuple[str, int, bytes]]:
        """messages() without the error: `damage` tells whether there are more."""
        chosen = [c for c in self._reader.connections if topics is None or c.topic in topics]
        # To the library no connections mean all of them.
        stream = iter(self._reader.messages(chosen) if chosen else ())
        count = 0
        while True:
            try:
                entry = next(stream, None)
            except Exception as error:  # the library fails in its own way in each of its parts
                self.damage = self._damaged(error, count)
                return
            if entry is None:
                break
            count += 1
            connection, stamp_ns, data = entry
            yield connection.topic, stamp_ns, data
        promised = sum(c.msgcount for c in chosen)
        if count < promised:  # the library skips some damage without a word
            self.damage = self._damaged(ReaderError(f'the index promises {promised}'), count)

    def decode(self, topic: str, data: bytes) -> Any:
        """The message of rclpy in `data`. Raises InputError for bytes that are none."""
        kind = self.topics[topic]
        try:
            return deserialize_message(data, message_class(kind))
        except InputError:
            raise
        except Exception as error:
            raise InputError(f'{self.path}: {topic} holds no valid {kind}') from error

    def topic_of(self, kind: str, wanted: str | None = None) -> str:
        """The topic of type `kind`: the wanted one, or the only one outside ground_truth."""
        known = [topic for topic, its_kind in self.topics.items() if its_kind == kind]
        if wanted is not None:
            known = [topic for topic in known if topic == wanted]
        elif len(known) > 1:
            known = [topic for topic in known if '/ground_truth/' not in topic]
        if len(known) == 1:
            return known[0]
        there = ', '.join(f'{topic} ({its_kind})' for topic, its_kind in self.topics.items())
        wish = f'topic {wanted} of type {kind}' if wanted else f'topic of type {kind}'
        many = 'more than one' if known else 'no'
        raise InputError(f'{self.path}: {many} {wish}; in the bag: {there or "nothing"}')

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def __enter__(self) -> BagReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _damaged(self, cause: Exception, count: int) -> DamagedBag:
        return DamagedBag(
            f'{self.path}: damaged or cut off, {count} messages were read: {_cause(cause)}'
        )


def is_bag(path: Path) -> bool:
    """Whether `path` looks like a bag, be it damaged."""
    return path.suffix in ('.mcap', '.db3') or any(
        any(path.glob(pattern)) for pattern in ('metadata.yaml', '*.mcap', '*.db3')
    )


def _open(path: Path) -> tuple[Reader | CutMcapReader, Exception | None]:
    """A reader of the bag, open, and why it reaches only a part of it."""
    try:
        reader = Reader(path)
        reader.open()
        for file in [path] if path.is_file() else path.glob('*.db3'):
            check_pages(file)
        return reader, None
    except Exception as cause:
        # The folder of a killed recorder has no metadata.yaml yet.
        files = [path] if path.is_file() else sorted(path.glob('*.mcap'))
        if len(files) != 1 or files[0].suffix != '.mcap':
            raise
        rest = CutMcapReader(files[0])
        with suppress(Exception):
            rest.open()
        if not rest.connections:
            raise
        return rest, cause


def _cause(error: Exception) -> str:
    """One line of an error of the library."""
    return ' '.join(str(error).split()) or type(error).__name__


def type_name(cls: type) -> str:
    """sensor_msgs/msg/Image of the class Image."""
    return f'{cls.__module__.split(".")[0]}/msg/{cls.__name__}'


def message_class(kind: str) -> type:
    """The class of e.g. sensor_msgs/msg/Image. Raises InputError where it is not installed."""
    package, _, name = kind.replace('/msg/', '/').partition('/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f'message type {kind} is not installed') from error


@cache
def typestore(kind: str) -> Typestore:
    """Definitions for rosbags that include `kind`; read from the installed package if need be."""
    store = get_typestore(Stores.LATEST)
    if kind not in store.types:
        package = kind.split('/')[0]
        module = importlib.import_module(package)
        folders = (p / 'share' / package / 'msg' for p in Path(module.__file__ or '').parents)
        folder = next((folder for folder in folders if folder.is_dir()), None)
        if folder is None:
            raise InputError(f'message definitions of {package} are not installed')
        for path in folder.glob('*.msg'):
            store.register(get_types_from_msg(path.read_text(), f'{package}/msg/{path.stem}'))
    return store


def _qos(latched: bool) -> Qos:
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=1 if latched else 10,
        reliability=QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        deadline=FOREVER,
        lifespan=FOREVER,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=FOREVER,
        avoid_ros_namespace_conventions=False,
    )

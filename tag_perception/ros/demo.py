"""The whole chain on one machine: a bag is played through DDS into the node and recorded again.

The node and the recorder are processes of their own; this one plays, and watches /diagnostics for
what the node says of itself. What it leaves behind: input.mcap, output.mcap, overlay.mp4,
overlay.png, summary.json, and logs and parameters of the two processes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from tqdm import tqdm

from tag_perception.config import InputError
from tag_perception.ros import film, player, session
from tag_perception.ros.bag import ANNOTATION, GROUND_TRUTH
from tag_perception.ros.children import Children
from tag_perception.ros.diagnostics import PERCENTILES
from tag_perception.ros.process import Stop
from tag_perception.ros.results import LABELS, Recording
from tag_perception.ros.storage import BagReader, BagWriter, DamagedBag
from tag_perception.runtime.engine import UNTRAINED

NODE = '/perception'
START_S = 120.0
"""How long the node may take to load and warm up."""
SETTLE_S = 10.0
"""How long to wait for diagnostics and recording to catch up with the last frame."""
OWN_PARAMETERS = {'use_sim_time': True, 'latency_window_s': 3600.0}
"""The bag's clock, and figures over all frames."""
PRODUCTS = ('input.mcap', 'output.mcap', 'overlay.mp4', 'overlay.png', 'summary.json')

WriteInput = Callable[[Path, Stop], object]
"""Writes the input bag to a path."""
Score = Callable[[Path, Path, Path], dict[str, Any]]
"""Scores a recording against the labels of its input; the third path takes what it writes."""


@dataclass(frozen=True)
class Demo:
    """Where to put the results, and what to run."""

    out: Path
    parameters: dict[str, Any]
    """Of the node, e.g. engine.checkpoint."""

    def products(self) -> list[Path]:
        """The results that exist by now."""
        return [self.out / name for name in PRODUCTS if (self.out / name).exists()]

    def run(self, write_input: WriteInput, score: Score, stop: Stop) -> dict[str, Any]:
        """Run everything; the summary, empty if `stop` ended it. Raises InputError.

        Of a damaged bag the whole part is used, and the summary says so (`damage`).
        """
        session.isolate()
        made = prepare(self.out)
        source, recording = self.out / 'input.mcap', self.out / 'output.mcap'
        _say(f'1/4  input: {source}')
        try:
            damage = write_whole_part(write_input, source, stop)
            if stop.is_set():
                return {}
            images = image_topic(source)
        except InputError:  # there is nothing to show: leave nothing
            take_back(source, made)
            raise
        with Children() as children, session.client('demo') as ros:
            stop.on_abandon(children.abandon)
            _say('2/4  the node loads its network, the recorder waits for it')
            arguments = node_arguments(self.parameters, images, self.out / 'node.yaml')
            node = children.start('the perception node', arguments, self.out / 'node.log')
            record = ['record-bag', str(recording), '--node', NODE]
            recorder = children.start('the recorder', record, self.out / 'recorder.log')
            watch = Watch(ros, children, stop)
            if not watch.until(lambda: recorder.said('recording '), START_S):
                raise InputError(f'the node is not ready after {START_S:g} s: {node.last_line()}')
            _say('3/4  frames through DDS, each after the results of the last one')
            played = watch.play(source, images)
            sent = played.messages.get(images, 0)
            if not watch.until(lambda: watch.settled(sent), SETTLE_S) and not watch.reports:
                raise InputError(f'{NODE} says nothing on /diagnostics: {node.last_line()}')
        if stop.is_set():
            return {}
        _say('4/4  pictures')
        summary = summarize(sent, played.unanswered, watch.reports, recording)
        frames = Recording(recording, source, NODE)
        film.draw_film(
            frames,
            self.out / 'overlay.mp4',
            self.out / 'overlay.png',
            note='' if summary['trained'] else UNTRAINED,
            progress=True,
            stop=stop,
        )
        damage = damage or frames.damage
        if damage is not None:
            summary['damage'] = str(damage)
        if labelled(source) and not stop.is_set():
            summary['scores'] = score(recording, source, self.out / 'scores')
        (self.out / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')
        return summary


class Watch:
    """Spins a node that listens to the perception node's diagnostics, and looks after children."""

    def __init__(self, ros: Node, children: Children, stop: Stop) -> None:
        self.reports: dict[str, dict[str, str]] = {}
        """The newest values by report: engine, input, frames, latency."""
        self._ros, self._children, self._stop = ros, children, stop
        self._problem: InputError | None = None
        self._playing = Stop()
        ros.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        ros.create_timer(0.2, self._look)

    def until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for `condition` or `stop`; False if time is up. Raises InputError if one fails."""
        deadline_s = time.monotonic() + timeout_s
        executor = SingleThreadedExecutor()
        executor.add_node(self._ros)
        try:
            while not self._stop.is_set() and not condition():
                executor.spin_once(timeout_sec=0.1)
                self._raise()
                if time.monotonic() > deadline_s:
                    return False
            return True
        finally:
            executor.remove_node(self._ros)
            executor.shutdown()

    def play(self, source: Path, images: str) -> player.Played:
        """Play a bag in lockstep. Raises InputError if a process fails meanwhile."""
        if self._stop.is_set():
            return player.Played()
        playback = player.Playback(clock=True, lockstep=NODE, images=images)
        played = player.play_bag(source, self._ros, playback, progress=True, stop=self._playing)
        self._raise()
        return played

    def settled(self, sent: int) -> bool:
        """Whether the node's figures cover every frame that can have reached it."""
        frames = self.reports.get('frames', {})
        return int(frames.get('received', 0)) >= sent and frames.get('under_way') == '0'

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            node, _, report = status.name.partition(': ')
            if node != NODE:
                continue
            self.reports[report] = {pair.key: pair.value for pair in status.values}
            if status.level == DiagnosticStatus.ERROR:
                self._fail(InputError(f'{NODE}: {status.message}'))

    def _look(self) -> None:
        try:
            self._children.check()
        except InputError as error:
            self._fail(error)
        if self._stop.is_set():
            self._playing.set()

    def _fail(self, error: InputError) -> None:
        self._problem = self._problem or error
        self._playing.set()

    def _raise(self) -> None:
        if self._problem is not None and not self._stop.is_set():
            raise self._problem


def write_whole_part(write_input: WriteInput, output: Path, stop: Stop) -> DamagedBag | None:
    """Write the input bag; the damage, if images were found before it. Raises InputError."""
    try:
        write_input(output, stop)
    except DamagedBag as damage:
        with BagReader(output) as reader:
            if player.IMAGE not in reader.topics.values():
                raise
        return damage
    return None


def copy_bag(
    source: Path | str, images: str | None, limit: int, output: Path, stop: Stop
) -> dict[str, int]:
    """Copy the first `limit` images of a bag with calibration, TF and ground truth.

    Raises DamagedBag when it has copied what lies before the damage.
    """
    with BagReader(source) as reader, BagWriter(output) as writer:
        stop.on_abandon(writer.close)
        topic = reader.topic_of(player.IMAGE, images)
        wanted = {topic, f'{topic.rpartition("/")[0]}/camera_info', '/tf', '/tf_static'}
        wanted |= {name for name in reader.topics if name.startswith(GROUND_TRUTH + '/')}
        wanted &= reader.topics.keys()
        with tqdm(desc='copy', total=min(limit, reader.counts[topic]), unit='frame') as bar:
            for name, stamp_ns, data in reader.messages(wanted):
                if stop.is_set() or (name == topic and bar.n == limit):
                    break
                writer.write_bytes(
                    name, reader.topics[name], bytes(data), stamp_ns, reader.latched(name)
                )
                bar.update(name == topic)
    return writer.counts


def prepare(out: Path) -> list[Path]:
    """Make the folder and remove what an earlier run left there; returns the folders it made."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in PRODUCTS:
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f'{out}: cannot be written: {error.strerror}') from error
    return made


def take_back(source: Path, made: Sequence[Path]) -> None:
    """Remove an input that is none, and the folders that were made for it, innermost first."""
    source.unlink(missing_ok=True)
    with suppress(OSError):  # somebody else has put something there
        for folder in made:
            folder.rmdir()


def image_topic(source: Path) -> str:
    """The camera images of a bag. Raises InputError for a bag without any."""
    with BagReader(source) as reader:
        topic = reader.topic_of(player.IMAGE)
        if not reader.counts[topic]:
            raise InputError(f'{source}: no images on {topic}')
        if topic.startswith(f'{NODE}/'):  # the node would listen to itself
            raise InputError(f'{source}: {topic} is what a node made of images: give their bag')
        return topic


def labelled(source: Path) -> bool:
    """Whether a bag has something to score against."""
    with BagReader(source) as reader:
        return not reader.topics.keys().isdisjoint({ANNOTATION, *LABELS.values()})


def node_arguments(parameters: dict[str, Any], images: str, file: Path) -> list[str]:
    """The verb and its ROS arguments for a bag's topics; writes the parameters to `file`."""
    info = f'{images.rpartition("/")[0]}/camera_info'
    # Lockstep shows every frame, so here the input is reliable: best effort may lose what is sent
    # before the node has matched the player.
    reliable = {f'qos_overrides.{t}.subscription.reliability': 'reliable' for t in (images, info)}
    values = {**OWN_PARAMETERS, **reliable, **parameters}
    file.write_text(yaml.safe_dump({'/**': {'ros__parameters': values}}))
    remaps = ['-r', f'image:={images}', '-r', f'camera_info:={info}']
    return ['node', '--ros-args', '--params-file', str(file), *remaps]


def summarize(
    sent: int, unanswered: int, reports: dict[str, dict[str, str]], recording: Path
) -> dict[str, Any]:
    """The figures that are printed, as plain data."""
    engine, frames, latency = (reports[name] for name in ('engine', 'frames', 'latency'))
    counts = {
        name: int(frames[name]) for name in ('received', 'processed', 'superseded', 'rejected')
    }
    with BagReader(recording) as reader:
        topics = dict(sorted(reader.counts.items()))
    stages = [key.removesuffix('_p50_ms') for key in latency if key.endswith('_p50_ms')]
    return {
        'frames': {'sent': sent, **counts, 'dropped': sent - counts['processed']},
        'unanswered': unanswered,
        'latency_ms': {
            stage: {f'p{p}': float(latency[f'{stage}_p{p}_ms']) for p in PERCENTILES}
            for stage in stages
        },
        **{name: engine[name] for name in ('device', 'device_name', 'precision', 'checkpoint')},
        'trained': engine['trained'] == 'True',
        'topics': topics,
    }


def format_summary(summary: dict[str, Any]) -> str:
    """The summary as a table."""
    counts = summary['frames']
    lines = ['', 'frames     ' + '   '.join(f'{name} {n}' for name, n in counts.items()), '']
    lines.append(f'{"latency, ms":18}' + ''.join(f'{f"p{p}":>10}' for p in PERCENTILES))
    for stage, row in summary['latency_ms'].items():
        lines.append(f'  {stage:16}' + ''.join(f'{value:10.1f}' for value in row.values()))
    lines += [
        '  (from the moment the image was published to its last published result; played on the',
        "   bag's clock, so that moment stands for the stamp)",
        '',
        f'device     {summary["device"]} ({summary["device_name"]}), {summary["precision"]}',
        f'checkpoint {summary["checkpoint"]}',
    ]
    if f'{NODE}/detections' not in summary['topics']:
        lines.append('detections withheld: the input has no calibration that fits its images')
    scores = dict(summary.get('scores', {}))
    remarks = scores.pop('remarks', [])
    if scores:
        lines += ['', 'scores against the ground truth of the input']
        lines += [f'  {k:16}{v:10.4f}' for k, v in scores.items() if v is not None]
        lines += [f'  ({remark})' for remark in remarks]
    return '\n'.join(lines)


def _say(text: str) -> None:
    print(text, flush=True)

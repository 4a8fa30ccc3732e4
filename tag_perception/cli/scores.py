"""Verbs that score and show results: evaluate, compare, evaluate-bag and show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tag_perception.cli.parsing import parser_of
from tag_perception.config import InputError


def evaluate(arguments: Sequence[str]) -> int:
    """Score a checkpoint on a Cityscapes-3D split; writes results and an HTML report."""
    parser = parser_of(evaluate)
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
    parser = parser_of(compare)
    parser.add_argument('results', nargs='+', help='results.json files or their folders')
    parser.add_argument(
        '--baseline', nargs='+', metavar='FILE', default=[],
        help='single-task results; without them the first of the results is the baseline',
    )  # fmt: skip
    parser.add_argument('--metrics', default='mds_amodal,miou,rmse_m', help='one per task')
    parser.add_argument(
        '--fps', nargs='+', metavar='NAME=VALUE', default=[],
        help='speeds, instead of those at which evaluate ran',
    )  # fmt: skip
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


def evaluate_bag(arguments: Sequence[str]) -> int:
    """Score recorded results against the ground truth that make-bag wrote."""
    parser = parser_of(evaluate_bag)
    parser.add_argument('bag', help='what record-bag or process-bag wrote')
    parser.add_argument('--ground-truth', metavar='BAG', help='if it is another one')
    parser.add_argument('--out', required=True, metavar='DIR', help='where the results go')
    parser.add_argument('--node', default='/perception', help='who published the results')
    args = parser.parse_args(arguments)
    from tag_perception.evaluate.run import format_headline
    from tag_perception.ros.results import Recording

    recording = Recording(args.bag, args.ground_truth, args.node)
    results, remarks = score_recording(recording, args.out)
    print('\n'.join([format_headline(results), *remarks]))
    recording.check_whole()
    return 0


def show(arguments: Sequence[str]) -> int:
    """Write an HTML page with frames, boxes, mask, depth and latency of recorded results."""
    parser = parser_of(show)
    parser.add_argument('bag', help='what record-bag or process-bag wrote')
    parser.add_argument('--input', metavar='BAG', help='the bag with the images, if another one')
    parser.add_argument('--out', metavar='FILE.html', help='default: beside the bag')
    parser.add_argument('--node', default='/perception', help='who published the results')
    parser.add_argument('--pictures', type=int, default=24, metavar='N', help='frames to draw')
    args = parser.parse_args(arguments)
    if args.pictures < 1:
        raise InputError(f'--pictures {args.pictures}: at least one')
    from tag_perception.evaluate.page import ShownFrame, write_page
    from tag_perception.ros.results import Recording

    recording = Recording(args.bag, args.input, args.node)
    frames = (
        ShownFrame(r.source.stamp_ns, r.source.image, r.source.camera, r.scene, r.latency_ms)
        for r in recording
    )
    out = args.out or str(Path(args.bag).with_suffix('.html'))
    count = write_page(frames, out, Path(args.bag).name, args.pictures)
    print(f'{out}: {count} frames, {recording.missing} without results')
    recording.check_whole()
    return 0


def score_recording(recording: Any, out: Any) -> tuple[dict[str, Any], list[str]]:
    """Scores of recorded results, and remarks on what they do not cover."""
    from tag_perception.core.structures import Sample
    from tag_perception.evaluate.recorded import RecordedFrame, evaluate_recorded
    from tag_perception.ros.results import Recorded

    def frame(recorded: Recorded) -> RecordedFrame:
        source, labels = recorded.source, recorded.source.labels
        if source.camera is None:
            raise InputError(f'{recording.source}: frame {source.stamp_ns} has no calibration')
        semantic = None if labels.semantic is None else labels.semantic.numpy()
        depth = None if labels.depth is None else labels.depth.numpy()
        boxes = None if source.annotation is None else labels.detection3d
        name = str(source.stamp_ns)
        sample = Sample(name, source.image, source.camera, semantic, depth, boxes)
        total_ms = recorded.latency_ms.get('total', float('nan'))
        return RecordedFrame(sample, recorded.scene, source.annotation, total_ms)

    bag = str(recording.results)
    about = {'name': bag, 'bag': bag, 'ground_truth': str(recording.source)}
    results = evaluate_recorded(map(frame, recording), out, about)
    remarks = []
    if recording.missing:
        remarks.append(f'{recording.missing} frames have no results and are not in these scores')
    if recording.score_threshold and results['detection3d']:
        remarks.append(
            f'boxes below {recording.score_threshold:g} were not published: record with '
            'engine.score_threshold=0.0 for the official scores'
        )
    return results, remarks

"""A bag played into the perception node, on the bag's own time.

Takes the arguments of perception.launch.py as well. The bag starts when the node is active, so
that loading the network costs no frame. `ros2 bag play` is used where rosbag2 is installed, the
package's own player otherwise.
"""

import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from ament_index_python.packages import get_package_share_directory, get_packages_with_prefixes
from launch import Action, LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    SetLaunchConfiguration,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited, SignalProcess
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from tag_perception.ros.transport import environment

SHARE = Path(get_package_share_directory('tag_perception'))
VERB = [sys.executable, '-m', 'tag_perception']
LAST_RESULTS_S = 3.0
"""Time for the results of the last frames, after the last one was played."""


def generate_launch_description() -> LaunchDescription:
    boolean = ['true', 'false']
    perception = PythonLaunchDescriptionSource(str(SHARE / 'launch' / 'perception.launch.py'))
    return LaunchDescription(
        [
            DeclareLaunchArgument('bag', description='MCAP file, or folder of a rosbag2'),
            DeclareLaunchArgument('rate', default_value='1.0', description='speed of the replay'),
            DeclareLaunchArgument(
                'loop', default_value='false', choices=boolean, description='play again and again'
            ),
            DeclareLaunchArgument(
                'score',
                default_value='false',
                choices=boolean,
                description='score the results against the labels in the bag and print that at '
                'the end; each frame then waits for the results of the last one',
            ),
            # Ahead of the included declarations, whose defaults are meant for a live camera.
            DeclareLaunchArgument(
                'image',
                default_value='/image',
                description='topic of the images in the bag',
            ),
            DeclareLaunchArgument(
                'use_sim_time',
                default_value='true',
                choices=boolean,
                description='take the time from the bag',
            ),
            OpaqueFunction(function=replay),
            IncludeLaunchDescription(perception),
        ]
    )


def replay(context: LaunchContext) -> list[Action]:
    """Play once the node is active; end with the bag, unless RViz still shows its last frame."""
    value = {
        name: LaunchConfiguration(name, default='').perform(context)
        for name in ('bag', 'rate', 'loop', 'score', 'namespace', 'rviz', 'score_threshold')
    }
    node = '/'.join(['', *filter(None, value['namespace'].split('/')), 'perception'])
    score, loop = value['score'] == 'true', value['loop'] == 'true'
    if score and loop:
        raise RuntimeError('score:=true needs a replay that ends: leave loop:=true out')
    gate = process('gate', [*VERB, 'wait-active', node])
    command = player_command(
        value['bag'],
        value['rate'],
        loop,
        lockstep=node if score else None,
        installed=set(get_packages_with_prefixes()),
    )
    player = process('player', command)
    end: list[Action] = [Shutdown(reason='the bag has ended')]
    before: list[Action] = []
    if score:
        before, end = scoring(value['bag'], node, Path(tempfile.mkdtemp(prefix='tag_perception_')))
        if not value['score_threshold']:
            before.insert(0, SetLaunchConfiguration('score_threshold', '0.0'))
    elif value['rviz'] == 'true':
        end = []

    def on_gate_exit(event: ProcessExited) -> list[Action]:
        return [Shutdown(reason='the node is not active')] if event.returncode else [player]

    def on_player_exit(_event: ProcessExited) -> list[Action]:
        return [TimerAction(period=LAST_RESULTS_S, actions=end)]

    return [*before, after(gate, on_gate_exit), after(player, on_player_exit), gate]


def scoring(bag: str, node: str, folder: Path) -> tuple[list[Action], list[Action]]:
    """What records the results from the start, and what ends that and prints the scores."""
    results = str(folder / 'results.mcap')
    recorder = process('recorder', [*VERB, 'record-bag', results, '--node', node])
    scores = str(folder / 'scores')
    options = ['--ground-truth', bag, '--node', node, '--out', scores]
    evaluation = process('scores', [*VERB, 'evaluate-bag', results, *options])
    done = Shutdown(reason='the scores are printed')
    start = [
        after(recorder, lambda _: [evaluation]),
        after(evaluation, lambda _: [done]),
        recorder,
    ]
    interrupt = SignalProcess(
        signal_number=signal.SIGINT, process_matcher=lambda action: action is recorder
    )
    return start, [EmitEvent(event=interrupt)]


def after(
    process: ExecuteProcess, then: Callable[[ProcessExited], list[Action]]
) -> RegisterEventHandler:
    """What follows a process, unless it exits because the launch ends.

    Ctrl-C ends all processes and the launch at once: another Shutdown would then be an error,
    and a timer would hold the launch back.
    """

    def on_exit(event: ProcessExited, context: LaunchContext) -> list[Action]:
        return [] if context.is_shutdown else then(event)

    return RegisterEventHandler(OnProcessExit(target_action=process, on_exit=on_exit))


def process(name: str, command: list[str]) -> ExecuteProcess:
    """One command with the transport for large images and its output on the screen."""
    return ExecuteProcess(cmd=command, name=name, output='screen', additional_env=environment())


def player_command(
    bag: str, rate: str, loop: bool, lockstep: str | None, installed: set[str]
) -> list[str]:
    """The command that publishes the bag's messages and /clock."""
    options = ['--clock', '--rate', rate, *(['--loop'] if loop else [])]
    if lockstep is not None:
        return [*VERB, 'play-bag', bag, *options, '--lockstep', lockstep]
    needed, storage = {'ros2bag', 'rosbag2_transport'}, []
    if bag.endswith('.mcap'):  # a single file tells no release before Iron how it is stored
        needed, storage = needed | {'rosbag2_storage_mcap'}, ['--storage', 'mcap']
    if needed <= installed:
        # rosbag2 does not wait for subscribers, which takes discovery a moment.
        return ['ros2', 'bag', 'play', bag, *storage, '--delay', '1.0', *options]
    return [*VERB, 'play-bag', bag, *options]

"""A bag played into the perception node, on the bag's own time.

Takes the arguments of perception.launch.py as well. The bag starts when the node is active, so
that loading the network costs no frame. `ros2 bag play` is used where rosbag2 is installed, the
package's own player otherwise.
"""

import sys
from pathlib import Path

from ament_index_python.packages import get_package_share_directory, get_packages_with_prefixes
from launch import Action, LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
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
    namespace = LaunchConfiguration('namespace', default='').perform(context).strip('/')
    shared = {'output': 'screen', 'additional_env': environment()}
    gate = ExecuteProcess(
        cmd=[*VERB, 'wait-active', f'/{namespace}/perception'.replace('//', '/')],
        name='gate',
        **shared,
    )
    player = ExecuteProcess(
        cmd=player_command(
            LaunchConfiguration('bag').perform(context),
            LaunchConfiguration('rate').perform(context),
            loop=LaunchConfiguration('loop').perform(context) == 'true',
            installed=set(get_packages_with_prefixes()),
        ),
        name='player',
        **shared,
    )

    def on_gate_exit(event: ProcessExited, _context: LaunchContext) -> list[Action]:
        return [Shutdown(reason='the node is not active')] if event.returncode else [player]

    handlers = [OnProcessExit(target_action=gate, on_exit=on_gate_exit)]
    if LaunchConfiguration('rviz', default='false').perform(context) == 'false':
        end = TimerAction(period=LAST_RESULTS_S, actions=[Shutdown(reason='the bag has ended')])
        handlers.append(OnProcessExit(target_action=player, on_exit=[end]))
    return [*map(RegisterEventHandler, handlers), gate]


def player_command(bag: str, rate: str, loop: bool, installed: set[str]) -> list[str]:
    """The command that publishes the bag's messages and /clock."""
    options = ['--clock', '--rate', rate, *(['--loop'] if loop else [])]
    needed, storage = {'ros2bag', 'rosbag2_transport'}, []
    if bag.endswith('.mcap'):  # a single file tells no release before Iron how it is stored
        needed, storage = needed | {'rosbag2_storage_mcap'}, ['--storage', 'mcap']
    if needed <= installed:
        # rosbag2 does not wait for subscribers, which takes discovery a moment.
        return ['ros2', 'bag', 'play', bag, *storage, '--delay', '1.0', *options]
    return [*VERB, 'play-bag', bag, *options]

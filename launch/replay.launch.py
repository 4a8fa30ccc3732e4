"""A bag played into the perception node, on the bag's own time.

Takes the arguments of perception.launch.py as well. The bag starts when the node is active, so
that loading the network costs no frame. `ros2 bag play` is used where rosbag2 is installed, the
package's own player otherwise.
"""

import sys
from pathlib import Path

from ament_index_python.packages import get_package_share_directory, get_packages_with_prefixes
from launch import LaunchContext, LaunchDescription
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
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.event_handlers import OnStateTransition

from tag_perception.ros.transport import environment

SHARE = Path(get_package_share_directory('tag_perception'))
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


def replay(context: LaunchContext) -> list[RegisterEventHandler]:
    """Play once the node is active; end with the bag, unless RViz still shows its last frame."""
    player = ExecuteProcess(
        cmd=player_command(
            LaunchConfiguration('bag').perform(context),
            LaunchConfiguration('rate').perform(context),
            loop=LaunchConfiguration('loop').perform(context) == 'true',
            installed=set(get_packages_with_prefixes()),
        ),
        name='player',
        output='screen',
        additional_env=environment(),
    )
    handlers = [
        RegisterEventHandler(
            OnStateTransition(goal_state='active', entities=[player], handle_once=True)
        )
    ]
    if LaunchConfiguration('rviz', default='false').perform(context) == 'false':
        end = TimerAction(period=LAST_RESULTS_S, actions=[Shutdown(reason='the bag has ended')])
        handlers.append(RegisterEventHandler(OnProcessExit(target_action=player, on_exit=[end])))
    return handlers


def player_command(bag: str, rate: str, loop: bool, installed: set[str]) -> list[str]:
    """The command that publishes the bag's messages and /clock."""
    needed, storage = {'ros2bag', 'rosbag2_transport'}, []
    if bag.endswith('.mcap'):  # a single file tells no release before Iron how it is stored
        needed, storage = needed | {'rosbag2_storage_mcap'}, ['--storage', 'mcap']
    if needed <= installed:
        player = ['ros2', 'bag', 'play', bag, *storage]
    else:
        player = [sys.executable, '-m', 'tag_perception', 'play-bag', bag]
    return [*player, '--clock', '--rate', rate, *(['--loop'] if loop else [])]

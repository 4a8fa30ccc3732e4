"""The perception node as one lifecycle process, and RViz on request.

Parameters come from `params_file`; `checkpoint`, `device` and `use_sim_time` overrule it only when
they are given. Images of a 2048×1024 camera need the transport settings that both processes get
here: with the defaults of Fast DDS most of them are lost.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from tag_perception.ros.transport import environment

SHARE = Path(get_package_share_directory('tag_perception'))
NODE_NAME = 'perception'
FROM_PARAMS_FILE = ''


def generate_launch_description() -> LaunchDescription:
    boolean = ['true', 'false']
    arguments = [
        DeclareLaunchArgument(
            'params_file',
            default_value=str(SHARE / 'config' / 'perception_node.yaml'),
            description='YAML file with the parameters of the node',
        ),
        DeclareLaunchArgument(
            'image', default_value='image', description='topic of the camera images'
        ),
        DeclareLaunchArgument(
            'camera_info',
            default_value='',
            description='topic of the calibration; empty: camera_info beside the image topic',
        ),
        DeclareLaunchArgument(
            'namespace', default_value='', description='namespace of the node and of RViz'
        ),
        DeclareLaunchArgument(
            'checkpoint',
            default_value=FROM_PARAMS_FILE,
            description='checkpoint file; empty: what params_file says',
        ),
        DeclareLaunchArgument(
            'device',
            default_value=FROM_PARAMS_FILE,
            choices=[FROM_PARAMS_FILE, 'auto', 'cuda', 'cpu'],
            description='where the network runs; empty: what params_file says',
        ),
        DeclareLaunchArgument(
            'use_sim_time',
            default_value=FROM_PARAMS_FILE,
            choices=[FROM_PARAMS_FILE, *boolean],
            description='take the time from /clock; empty: what params_file says',
        ),
        DeclareLaunchArgument(
            'rviz', default_value='false', choices=boolean, description='open RViz as well'
        ),
        DeclareLaunchArgument(
            'respawn',
            default_value='false',
            choices=boolean,
            description='start the node again when it dies',
        ),
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=processes)])


def processes(context: LaunchContext) -> list[Node]:
    """The node and, if asked for, RViz, both in the namespace and with the same topic names."""
    given = {
        name: LaunchConfiguration(name).perform(context)
        for name in (
            'params_file', 'image', 'camera_info', 'namespace', 'checkpoint', 'device',
            'use_sim_time', 'rviz', 'respawn',
        )
    }  # fmt: skip
    camera_info = given['camera_info'] or beside(given['image'], 'camera_info')
    shared = {
        'namespace': given['namespace'],
        'remappings': [('image', given['image']), ('camera_info', camera_info)],
        'additional_env': environment(),
        'output': 'screen',
    }
    overrides: dict[str, str | bool] = {
        f'engine.{name}': given[name]
        for name in ('checkpoint', 'device')
        if given[name] != FROM_PARAMS_FILE
    }
    clock = {}
    if given['use_sim_time'] != FROM_PARAMS_FILE:
        clock = {'use_sim_time': given['use_sim_time'] == 'true'}
    node = LifecycleNode(
        package='tag_perception',
        executable='perception_node',
        name=NODE_NAME,
        parameters=[given['params_file'], overrides | clock],
        respawn=given['respawn'] == 'true',
        respawn_delay=2.0,
        **shared,
    )
    rviz = Node(
        package='rviz2',
        executable='rviz2',
        name='rviz',
        arguments=['-d', str(SHARE / 'config' / 'perception.rviz')],
        parameters=[clock],
        **shared,
    )
    return [node, rviz] if given['rviz'] == 'true' else [node]


def beside(topic: str, name: str) -> str:
    """The sibling `name` of a topic: /front/image_raw → /front/camera_info."""
    return topic.rpartition('/')[0] + '/' + name if '/' in topic else name

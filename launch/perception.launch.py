"""The perception node as one lifecycle process, and RViz on request.

Parameters come from `params_file`; `checkpoint`, `device` and the like overrule it only when they
are given. Images of a 2048×1024 camera need the transport settings that both processes get
here: with the defaults of Fast DDS most of them are lost.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory, get_packages_with_prefixes
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from tag_perception.ros.outputs import OUTPUTS
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
            'cameras',
            default_value=FROM_PARAMS_FILE,
            description='names of several cameras, e.g. front,left; image and camera_info are '
            'then names below each of them: front/image; empty: what params_file says',
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
            description='checkpoint file, auto (the weights that ship) or random; '
            'empty: what params_file says',
        ),
        DeclareLaunchArgument(
            'device',
            default_value=FROM_PARAMS_FILE,
            choices=[FROM_PARAMS_FILE, 'auto', 'cuda', 'cpu'],
            description='where the network runs; empty: what params_file says',
        ),
        DeclareLaunchArgument(
            'image_transport',
            default_value=FROM_PARAMS_FILE,
            choices=[FROM_PARAMS_FILE, 'raw', 'compressed'],
            description='raw images, or JPEG and PNG; empty: what params_file says',
        ),
        DeclareLaunchArgument(
            'target_frame',
            default_value=FROM_PARAMS_FILE,
            description='TF frame of boxes and obstacles; empty: what params_file says',
        ),
        DeclareLaunchArgument(
            'score_threshold',
            default_value=FROM_PARAMS_FILE,
            description='boxes with a lower score are dropped; empty: what params_file says',
        ),
        *(
            DeclareLaunchArgument(
                f'{topic}_reliability',
                default_value=FROM_PARAMS_FILE,
                choices=[FROM_PARAMS_FILE, 'best_effort', 'reliable'],
                description=f'what the subscription to {topic} asks for; '
                'empty: what params_file says, or best_effort',
            )
            for topic in ('image', 'camera_info')
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
            'use_sim_time', 'rviz', 'respawn', 'image_transport', 'target_frame',
            'score_threshold', 'image_reliability', 'camera_info_reliability', 'cameras',
        )
    }  # fmt: skip
    if not Path(given['params_file']).is_file():  # launch would only warn and use defaults
        raise RuntimeError(f'params_file: there is no file {given["params_file"]}')
    if given['rviz'] == 'true' and 'rviz2' not in get_packages_with_prefixes():
        raise RuntimeError('rviz:=true needs the package rviz2, which is not installed')
    cameras = [name.strip() for name in given['cameras'].split(',') if name.strip()]
    topics = {
        'image': given['image'],
        'camera_info': given['camera_info'] or beside(given['image'], 'camera_info'),
    }
    if cameras:
        topics = {
            f'{camera}/{name}': f'{camera}/{relative(name, topic)}'
            for camera in cameras
            for name, topic in topics.items()
        }
    shared = {
        'namespace': given['namespace'],
        'remappings': [*topics.items()],
        'additional_env': environment(),
        'output': 'screen',
    }
    parameters = {
        'checkpoint': 'engine.checkpoint',
        'device': 'engine.device',
        'image_transport': 'image_transport',
        'target_frame': 'target_frame',
    }
    overrides: dict[str, str | bool | float | list[str]] = {
        parameter: given[argument]
        for argument, parameter in parameters.items()
        if given[argument] != FROM_PARAMS_FILE
    }
    if given['score_threshold'] != FROM_PARAMS_FILE:
        overrides['engine.score_threshold'] = number('score_threshold', given)
    if cameras:
        overrides['cameras'] = cameras
    for name, topic in topics.items():
        kind = name.rpartition('/')[2]
        reliability = given[f'{kind}_reliability']
        if reliability != FROM_PARAMS_FILE:
            full = absolute(given['namespace'], topic)
            if kind == 'image' and given['image_transport'] == 'compressed':
                full += '/compressed'
            overrides[f'qos_overrides.{full}.subscription.reliability'] = reliability
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
    if cameras:  # RViz shows the first one
        first = f'{NODE_NAME}/{cameras[0]}'
        outputs = [(f'{NODE_NAME}/{o.topic}', f'{first}/{o.topic}') for o in OUTPUTS]
        shared['remappings'] = [('image', topics[f'{cameras[0]}/image']), *outputs]
    rviz = Node(
        package='rviz2',
        executable='rviz2',
        name='rviz',
        arguments=['-d', str(SHARE / 'config' / 'perception.rviz')],
        parameters=[clock],
        **shared,
    )
    return [node, rviz] if given['rviz'] == 'true' else [node]


def number(argument: str, given: dict[str, str]) -> float:
    """The value of an argument that is a number."""
    try:
        return float(given[argument])
    except ValueError:
        raise RuntimeError(f'{argument}: {given[argument]!r} is not a number') from None


def absolute(namespace: str, topic: str) -> str:
    """The fully qualified name of a topic in a namespace."""
    return (
        topic if topic.startswith('/') else f'/{namespace.strip("/")}/{topic}'.replace('//', '/')
    )


def relative(name: str, topic: str) -> str:
    """The same topic name; raises RuntimeError if it cannot stand below a camera's."""
    if topic.startswith('/'):
        raise RuntimeError(
            f'{name}: with cameras, {topic} must be a name below each camera, such as image_rect; '
            'set what all of them lie in as namespace'
        )
    return topic


def beside(topic: str, name: str) -> str:
    """The sibling `name` of a topic: /front/image_raw → /front/camera_info."""
    return topic.rpartition('/')[0] + '/' + name if '/' in topic else name

"""Installs the package as ament_python: modules, launch files, configuration, models, scripts."""

from glob import glob
from os.path import isfile

from setuptools import find_packages, setup

NAME = 'tag_perception'


def shared(folder: str, *patterns: str) -> tuple[str, list[str]]:
    """The files of one folder, for share/. A folder among them would break the install."""
    paths = [path for pattern in patterns for path in sorted(glob(f'{folder}/{pattern}'))]
    return f'share/{NAME}/{folder}', [path for path in paths if isfile(path)]


setup(
    name=NAME,
    version='0.1.0',
    packages=find_packages(include=[NAME, f'{NAME}.*']),
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        shared('launch', '*.launch.py'),
        shared('config', '*.yaml', '*.rviz', '*.xml', '*.json'),
        *(shared(folder.rstrip('/'), '*.yaml') for folder in sorted(glob('config/*/'))),
        shared('models', '*'),
    ],
    install_requires=['setuptools'],
    extras_require={'test': ['pytest', 'hypothesis']},
    python_requires='>=3.10',
    zip_safe=True,
    author='tag_perception maintainers',
    author_email='maintainers@example.org',
    maintainer='tag_perception maintainers',
    maintainer_email='maintainers@example.org',
    description='One camera in; 3D detections, semantic segmentation and depth out.',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'perception_node = tag_perception.entry:perception_node',
            'tag_perception = tag_perception.entry:tag_perception',
            'benchmark = tag_perception.entry:benchmark',
        ],
    },
)

"""Stop, slow down or go: the smallest planner that uses detections and obstacles.
It looks along a corridor as wide as the car, straight ahead in base_link (x forward, y left).
"""

import math
from contextlib import suppress

import numpy as np
import rclpy
from nav_msgs.msg import OccupancyGrid
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from std_msgs.msg import String
from vision_msgs.msg import Detection3DArray


class Planner(Node):
    """Publishes `decision` ("stop: car 6.1 m ahead") for every grid, and when grids stay away."""

    def __init__(self) -> None:
        super().__init__('planner')
        defaults = {'half_width_m': 1.2, 'stop_m': 8.0, 'slow_m': 20.0, 'patience_s': 0.5}
        self.limit = {n: self.declare_parameter(n, v).value for n, v in defaults.items()}
        self.objects: list[tuple[float, str]] = []
        self.decisions = self.create_publisher(String, 'decision', 10)
        self.create_subscription(Detection3DArray, 'perception/detections', self._on_objects, 1)
        self.create_subscription(OccupancyGrid, 'perception/obstacles', self._on_grid, 1)
        self.watchdog = self.create_timer(self.limit['patience_s'], self._on_silence)

    def _on_objects(self, message: Detection3DArray) -> None:
        self.objects = []
        for detection in message.detections:
            at, size = detection.bbox.center.position, detection.bbox.size
            if at.x > 0 and abs(at.y) < self.limit['half_width_m'] + size.y / 2:
                nearest_m = max(at.x - math.hypot(size.x, size.y) / 2, 0.0)  # whatever its heading
                self.objects.append((nearest_m, detection.results[0].hypothesis.class_id))

    def _on_grid(self, grid: OccupancyGrid) -> None:
        self.watchdog.reset()
        info, origin = grid.info, grid.info.origin.position
        rows, columns = np.nonzero(np.asarray(grid.data).reshape(info.height, info.width) > 50)
        x, y = origin.x + columns * info.resolution, origin.y + (rows + 0.5) * info.resolution
        ahead = x[np.abs(y) < self.limit['half_width_m']]
        # Half a metre in favour of objects: they have names for what the cells only feel.
        found = [*self.objects, (float(ahead.min(initial=math.inf)), 'obstacle')]
        distance_m, what = min(found, key=lambda o: o[0] + 0.5 * (o[1] == 'obstacle'))
        action = 'stop' if distance_m < self.limit['stop_m'] else 'slow down'
        near = distance_m <= self.limit['slow_m']
        text = f'{action}: {what} {distance_m:.1f} m ahead' if near else 'go: clear'
        self.decisions.publish(String(data=text))

    def _on_silence(self) -> None:
        text = f'stop: no obstacles from perception for {self.limit["patience_s"]:g} s'
        self.decisions.publish(String(data=text))


if __name__ == '__main__':
    rclpy.init()
    with suppress(KeyboardInterrupt, ExternalShutdownException):  # Ctrl-C
        rclpy.spin(Planner())

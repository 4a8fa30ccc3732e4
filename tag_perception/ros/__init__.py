"""The ROS 2 interface: the only folder that imports rclpy and message packages."""

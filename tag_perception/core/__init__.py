"""The network and its geometry: torch and numpy, no ROS, no dataset, no file but checkpoints."""

"""The network and its geometry: torch and numpy only, no ROS, no dataset, no file but checkpoints."""

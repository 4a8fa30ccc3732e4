"""From image to Scene in real time, on CUDA or on the CPU."""

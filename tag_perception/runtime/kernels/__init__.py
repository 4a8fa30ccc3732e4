"""Kernels in Triton, for what torch does in several passes over the memory.

Importing one of these modules needs triton, which comes with torch for CUDA, and the C compiler
that triton needs. Maps are (B, C, H, W), channels last.
"""

"""Kernels for GPUs, written in Triton.

Each file holds the kernels of one operation and the custom operators around
them, by which torch.compile, autocast, checkpointing and export see them. It
needs Triton; ``table`` needs torch alone and imports a file when its kernels
are to run.
"""

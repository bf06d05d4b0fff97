"""Whether torch.compile or torch.export is reading the code just now."""

try:
    from torch.compiler import is_compiling
except ImportError:  # torch before 2.3
    from torch._dynamo import is_compiling

__all__ = ['is_compiling']

"""Convert the names of official SMT checkpoints.

https://github.com/AFeng-x/SMT: classification, segmentation and detection.
The first published detection code calls the local convolution of the
attention ``dw_conv``.
"""

from torch import Tensor

from .naming import Renamed, by_table, join, rename

# Stages, output norms and heads are numbered from 1.
_IN_BLOCK = {
    'gamma_1': 'gamma1.weight',
    'gamma_2': 'gamma2.weight',
    'norm1.*': 'norm1.*',
    'norm2.*': 'norm2.*',
    'attn.v.*': 'attn.v.*',
    'attn.s.*': 'attn.s.*',
    'attn.local_conv_#.weight': 'attn.local_convs.weight#-1',
    'attn.local_conv_#.bias': 'attn.local_convs.bias#-1',
    'attn.proj0.*': 'attn.expand.*',
    'attn.bn.*': 'attn.norm.*',
    'attn.proj1.*': 'attn.mix.*',
    'attn.qkv.*': 'attn.qkv.*',
    'attn.local_conv.*': 'attn.local_conv.*',
    'attn.dw_conv.*': 'attn.local_conv.*',
    'attn.proj.*': 'attn.proj.*',
    'mlp.fc1.*': 'mlp.fc1.*',
    'mlp.fc2.*': 'mlp.fc2.*',
    'mlp.dwconv.dwconv.*': 'mlp.local_conv.*',
}
_NAMES = {
    'head.*': 'head.fc.*',
    'norm#.*': 'norm#-1.*',
    'patch_embed1.conv.0.*': 'stem.conv.*',
    'patch_embed1.conv.1.*': 'stem.batch_norm.*',
    'patch_embed1.conv.3.*': 'stem.proj.*',
    'patch_embed1.norm.*': 'stem.norm.*',
    'patch_embed2.proj.*': 'stages.1.downsample.conv.*',
    'patch_embed2.norm.*': 'stages.1.downsample.norm.*',
    'patch_embed3.proj.*': 'stages.2.downsample.conv.*',
    'patch_embed3.norm.*': 'stages.2.downsample.norm.*',
    'patch_embed4.proj.*': 'stages.3.downsample.conv.*',
    'patch_embed4.norm.*': 'stages.3.downsample.norm.*',
}
_BLOCKS = 'block#.#', 'stages.#-1.blocks.#', _IN_BLOCK


def rename_smt(state: dict[str, Tensor]) -> Renamed:
    """Rename an official SMT checkpoint; see :func:`.naming.rename`."""
    state = join(state, '.attn.q.', '.attn.kv.', '.attn.qkv.')
    return rename(state, by_table(_NAMES, _BLOCKS))

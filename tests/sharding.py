"""Shard every registered module over two processes and compare gradients.

Run by tests/test_everyday_tools.py; prints ``OK NAME`` for each module.
"""

import copy
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

WAYS = ('owners', 'blocks')


def work(rank, folder):
    from registered import NAMES, build, make_args
    from test_everyday_tools import VARIANTS, assert_same, run
    from torch.distributed.device_mesh import init_device_mesh

    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    mesh = init_device_mesh('cpu', (2,))
    for name in NAMES + VARIANTS:
        args = make_args(name)
        for way in WAYS:
            model = build(name).eval()
            want, want_grads = run(copy.deepcopy(model), args)
            shard(model, way, mesh)
            got, grads = run(model, args)
            assert_same(got, want, atol=1e-5)
            whole = {k: g.full_tensor() for k, g in grads.items()}
            assert whole.keys() == want_grads.keys(), name
            for key, grad in whole.items():
                scale = want_grads[key].abs().max().clamp(min=1)
                torch.testing.assert_close(
                    grad, want_grads[key], rtol=0, atol=1e-5 * scale.item()
                )
        if rank == 0:
            print(f'OK {name}', flush=True)
    dist.destroy_process_group()


def shard(model, way, mesh):
    """Shard each module that owns parameters, or each block; then the rest."""
    from test_everyday_tools import owners
    from torch.distributed.fsdp import fully_shard

    from mmattn.layers import AttentionBlock

    found = owners(model).values()
    if way == 'blocks':
        found = [m for m in model.modules() if isinstance(m, AttentionBlock)]
    for module in reversed([m for m in found if m is not model]):
        fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


if __name__ == '__main__':
    import tempfile

    os.environ.setdefault('OMP_NUM_THREADS', '1')
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, (folder,), nprocs=2)

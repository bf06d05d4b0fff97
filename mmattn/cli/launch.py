"""Run in several processes on a machine without a GPU.

Without a GPU, mmengine's Runner fails twice: it asks for a CUDA device when it
initialises the process group, and it hands a device number to
DistributedDataParallel. It keeps a process group that exists and takes the
wrapper from the config, so both are prepared here.
"""

import datetime
import gc
import os
import signal
import threading
import time

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log

from mmattn.config import replace_sync_norms
from mmattn.errors import UsageError

LAUNCHER = 'MMATTN_LAUNCHER'


def prepare_cpu(cfg: Config) -> None:
    """Change a config so that it runs on a CPU, in one or more processes.

    Does nothing on machines with an accelerator. SyncBN becomes BN. With
    ``cfg.launcher`` other than ``'none'``, the process group is initialized
    with gloo and the model wrapper gets no device.

    Args:
        cfg: A Runner's config, changed in place.

    Raises:
        UsageError: If the launcher is slurm or mpi, or if its processes were
            not started by torchrun.
    """
    if get_device() != 'cpu':
        return
    replaced = replace_sync_norms(cfg.get('model'))
    if cfg.pop('sync_bn', None) is not None or replaced:
        if int(os.environ.get('RANK', 0)) == 0:
            print_log(
                'SyncBN needs a GPU, but this machine has none: replaced it '
                f'by BN in {replaced} layer configs.',
                logger='current',
            )
    if cfg.get('launcher', 'none') == 'none':
        return
    dist_cfg = cfg.get('env_cfg', {}).get('dist_cfg', {})
    init_gloo(cfg.launcher, dist_cfg.get('timeout', 1800))
    cfg.model_wrapper_cfg = {
        'type': 'MMDistributedDataParallel',
        'broadcast_buffers': False,
        'find_unused_parameters': cfg.get('find_unused_parameters', False),
        **(cfg.get('model_wrapper_cfg') or {}),
        'device_ids': None,
    }


def init_gloo(launcher: str, timeout: float) -> None:
    """Initialise the default process group for CPU tensors.

    Args:
        launcher: Launcher of the processes; only ``'pytorch'`` is supported.
        timeout: How long a process waits for the others, in seconds.

    Raises:
        UsageError: If the launcher is another one, or if the environment is
            not that of a process started by torchrun.
    """
    if launcher != 'pytorch':
        raise UsageError(
            f'--launcher {launcher} needs a GPU for each process, but this '
            'machine has none; use tools/dist_train.sh or tools/dist_test.sh'
        )
    names = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise UsageError(
            '--launcher pytorch expects the environment of torchrun, which '
            f'lacks {", ".join(missing)}; start the processes with '
            'tools/dist_train.sh or tools/dist_test.sh'
        )
    if torch.distributed.is_initialized():
        return
    torch.distributed.init_process_group(
        backend='gloo', timeout=datetime.timedelta(seconds=timeout)
    )


def count_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, 'sched_getaffinity'):  # Linux; macOS has none
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def end_processes() -> None:
    """Let the processes of a finished run end together.

    A process that ends early takes down the others that still talk to it.
    gloo's threads abort a process that ends before them; they end with the
    last user of the process group, so the caller must keep no model.
    """
    if torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def end_with_launcher() -> None:
    """End this process when the launcher is killed.

    Otherwise the processes of a killed launcher train on until a collective
    operation times out. The launcher is the parent process, or the one that
    ``MMATTN_LAUNCHER`` names, which may have been killed already.
    """
    _end_with(int(os.environ.get(LAUNCHER, os.getppid())))


def end_workers_with_process() -> None:
    """End data-loading workers when this process is killed.

    PyTorch's workers do so, too, except if the process was killed before they
    had started: they would wait forever.
    """
    parent = dict(pid=os.getpid())
    os.register_at_fork(
        before=lambda: parent.update(pid=os.getpid()),
        after_in_child=lambda: _end_with(parent['pid']),
    )


def _end_with(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()

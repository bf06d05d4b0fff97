"""Start several processes of a tool, as the dist_*.sh scripts do.

    python tools/launch_processes.py GPUS SCRIPT [arguments of SCRIPT]

Runs torch.distributed.run on this machine. Without a GPU, GPUS is the number
of processes. NNODES, NODE_RANK, MASTER_ADDR and PORT come from the
environment, as in the scripts of the OpenMMLab codebases.
"""

import os
import socket
import sys

import preflight  # noqa: F401

import torch
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing import SignalException, errors

from mmattn.cli.launch import LAUNCHER, count_cores
from mmattn.cli.usage import INTERRUPTED, UsageError, run_command

DEFAULT_PORT = 29500


def count_processes(word: str) -> int:
    """Read the number of processes and check it against the GPUs."""
    if not word.isdecimal() or int(word) == 0:
        raise UsageError(
            'GPUS must be a positive integer (the number of processes on a '
            f'machine without a GPU), got {word!r}'
        )
    available = torch.cuda.device_count()
    if 0 < available < int(word):
        raise UsageError(
            f'GPUS must be at most {available} on this machine, got {word}'
        )
    return int(word)


def share_cores(processes: int) -> None:
    """Divide the cores among the processes if there is no GPU.

    By default each process would use only one core, or all of them.
    """
    if torch.cuda.device_count() > 0:
        return
    cores = count_cores()
    threads = str(max(1, cores // processes))
    os.environ.setdefault('OMP_NUM_THREADS', threads)
    os.environ.setdefault('MKL_NUM_THREADS', threads)
    print(
        f'No GPU: {processes} processes with '
        f'{os.environ["OMP_NUM_THREADS"]} of {cores} cores each.',
        flush=True,
    )


def read_number(name: str, default: int) -> int:
    """Read a number from the environment."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise UsageError(f'{name} must be a number, got {text!r}')
    return int(text)


def find_port(nodes: int) -> int:
    """Return the port where the processes meet.

    If the default is in use, it is replaced by a free one, unless other
    machines rely on it.
    """
    port = read_number('PORT', DEFAULT_PORT)
    with socket.socket() as probe:
        is_free = probe.connect_ex(('127.0.0.1', port)) != 0
    if nodes > 1 or is_free:
        return port
    if 'PORT' in os.environ:
        raise UsageError(
            f'PORT={port} is already in use on this machine; set another '
            'one, or unset PORT to use a free one'
        )
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    print(f'Port {DEFAULT_PORT} is in use: using {port}.', flush=True)
    return port


def main() -> None:
    """Start the processes and wait for them."""
    if {'-h', '--help'} & set(sys.argv[1:3]):
        print(__doc__)
        return
    if len(sys.argv) < 3:
        raise UsageError('GPUS and SCRIPT are required; --help explains them')
    processes = count_processes(sys.argv[1])
    nodes = read_number('NNODES', 1)
    rank = read_number('NODE_RANK', 0)
    share_cores(processes)
    os.environ[LAUNCHER] = str(os.getpid())
    args = torchrun.parse_args(
        [
            f'--nnodes={nodes}',
            f'--node_rank={rank}',
            f'--nproc_per_node={processes}',
            f'--master_addr={os.environ.get("MASTER_ADDR", "127.0.0.1")}',
            f'--master_port={find_port(nodes)}',
            *sys.argv[2:],
        ]
    )
    # The processes have already printed these errors.
    try:
        torchrun.run(args)
    except errors.ChildFailedError as error:
        status = error.get_first_failure()[1].exitcode
        sys.exit(status if status > 0 else 1)
    except SignalException as error:
        sys.exit(128 + error.sigval)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == '__main__':
    run_command(main)

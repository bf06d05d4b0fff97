"""Start several processes of a tool: what the dist_*.sh scripts call.

    python tools/launch_processes.py GPUS SCRIPT [arguments of SCRIPT]

Runs torch.distributed.run on this machine. NNODES, NODE_RANK, MASTER_ADDR and
PORT come from the environment, as in the scripts of the OpenMMLab codebases.
"""

import os
import socket
import sys

import preflight  # noqa: F401

import torch
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing import errors

from mmattn.cli import usage
from mmattn.cli.launch import count_cores

DEFAULT_PORT = 29500


def count_processes(word: str) -> int:
    """Read the number of processes and check it against the GPUs."""
    if not word.isdecimal() or int(word) == 0:
        raise usage.UsageError(
            'the number of GPUs (of processes, without a GPU) '
            f'is expected as a positive integer, got {word!r}'
        )
    available = torch.cuda.device_count()
    if 0 < available < int(word):
        raise usage.UsageError(
            f'{word} GPUs were asked for, but this machine '
            f'shows {available}; ask for at most {available}'
        )
    return int(word)


def share_cores(processes: int) -> None:
    """Divide the cores among the processes where there is no GPU.

    By default each process would compute on one core only, or on all.
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


def find_port(nodes: int) -> int:
    """Return the port where the processes meet.

    The default is replaced by a free one when it is taken, except where
    other machines count on it.
    """
    asked = os.environ.get('PORT')
    if asked is not None and not asked.isdecimal():
        raise usage.UsageError(f'PORT expects a number, got {asked!r}')
    port = int(asked or DEFAULT_PORT)
    if nodes > 1 or _is_free(port):
        return port
    if asked is not None:
        raise usage.UsageError(
            f'PORT={port} is taken on this machine; name '
            'another one, or none to take a free one'
        )
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    print(f'Port {DEFAULT_PORT} is taken: using {port}.', flush=True)
    return port


def main() -> None:
    """Start the processes and wait for them."""
    if len(sys.argv) < 3:
        raise usage.UsageError('GPUS and SCRIPT are expected as arguments')
    processes = count_processes(sys.argv[1])
    nodes = int(os.environ.get('NNODES', 1))
    share_cores(processes)
    args = torchrun.parse_args(
        [
            f'--nnodes={nodes}',
            f'--node_rank={os.environ.get("NODE_RANK", 0)}',
            f'--nproc_per_node={processes}',
            f'--master_addr={os.environ.get("MASTER_ADDR", "127.0.0.1")}',
            f'--master_port={find_port(nodes)}',
            *sys.argv[2:],
        ]
    )
    try:
        torchrun.run(args)
    except errors.ChildFailedError as error:
        # The process has said what went wrong: hand on its status without a
        # second traceback.
        status = error.get_first_failure()[1].exitcode
        sys.exit(status if status > 0 else 1)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(('127.0.0.1', port)) != 0


if __name__ == '__main__':
    usage.run_command(main)

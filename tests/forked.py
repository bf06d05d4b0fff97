"""Run tools in forked processes: quick, and with nothing left behind."""

import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch

from mmattn.cli.usage import run_command

TOOLS = Path(__file__).resolve().parents[1] / 'tools'


def load_tool(name: str) -> ModuleType:
    """Import a tool."""
    path = TOOLS / f'{name}.py'
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_tool(name: str, *words: object) -> None:
    """Run a tool in this process, as from the command line."""
    sys.argv = [str(word) for word in (TOOLS / f'{name}.py', *words)]
    run_command(load_tool(name).main)


def run_forked(call: Callable[[], None], folder: Path) -> tuple[int, str]:
    """Run a function in a forked process.

    Args:
        call: The function; ``sys.exit`` ends the process.
        folder: Where it runs.

    Returns:
        Exit status, which is negative after a signal, and all output.
    """
    output = folder / 'output.txt'
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.chdir(folder)
            with output.open('wb') as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            sys.stdout = sys.stderr = open(1, 'w', closefd=False)
            torch.set_num_threads(1)  # the threads are those of the parent
            call()
            status = 0
        except SystemExit as error:
            status = error.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, output.read_text()

"""Imports run one way, and ``mmattn.ops`` runs with torch alone."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import mmattn

PACKAGE = Path(mmattn.__file__).parent
HOSTS = {'mmdet', 'mmseg', 'mmpretrain'}
STACK = {'mmengine', 'mmcv', *HOSTS}

LAYERS = {'ops', 'registry', 'layers', 'attentions', 'backbones'}
MODULES = LAYERS | {'plugins', 'necks', 'heads'}
BELOW = MODULES | {'config', 'errors', 'stack', 'zoo'}
LIBRARIES = {
    'analysis',
    'checkpoints',
    'datasets',
    'engine',
    'export',
    'inference',
    'swapping',
    'visualization',
}
# What each part may import of mmattn, besides itself.
MAY_IMPORT = {
    'errors': set(),
    'ops': set(),
    'stack': set(),
    'zoo': set(),
    'config': {'errors', 'stack', 'zoo'},
    'registry': {'stack'},
    'layers': {'ops', 'registry'},
    'attentions': {'ops', 'registry', 'layers'},
    'backbones': LAYERS,
    'plugins': LAYERS,
    'necks': LAYERS,
    'heads': LAYERS,
    **dict.fromkeys(LIBRARIES, BELOW),
    'analysis': BELOW | {'export', 'swapping'},
    'engine': BELOW | {'visualization'},
    'swapping': BELOW | {'checkpoints'},
    'cli': BELOW | LIBRARIES,
    'env_report': {'ops', 'stack'},
    '__main__': {'env_report'},
    'apis': {'inference', 'zoo'},
    '__init__': {'codebase_hooks', 'inference'},
    # In functions that a codebase calls once it is imported.
    'codebase_hooks': {'checkpoints', 'zoo'},
}
MEET_HOSTS = {
    'apis',
    'cli',
    'heads',
    'visualization',
    'datasets',
    'swapping',
}


def imports(path):
    """Dotted names that a file imports, relative ones made absolute."""
    package = ('mmattn', *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1]
            start = '.'.join(above) + '.' if node.level else ''
            yield start + (node.module or '')
            yield from (
                f'{start}{node.module or ""}.{alias.name}'.replace('..', '.')
                for alias in node.names
            )


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


FILES = sorted(PACKAGE.rglob('*.py'))


@pytest.mark.parametrize(
    'path', FILES, ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_run_one_way(path):
    part = part_of(path)
    allowed = MAY_IMPORT[part] | {part}
    for name in imports(path):
        top, *rest = name.split('.')
        if top == 'mmattn' and rest:
            known = {p.name.removesuffix('.py') for p in PACKAGE.iterdir()}
            assert rest[0] in allowed or rest[0] not in known, name
        if part in ('ops', 'stack', 'zoo', 'codebase_hooks', '__init__'):
            assert top not in STACK, name
        if part not in MEET_HOSTS:
            assert top not in HOSTS, name
        if part in MODULES:
            assert not name.startswith('mmcv.ops'), name
        assert top not in ('preflight', 'tools'), name


def test_no_part_imports_one_that_imports_it():
    graph = {part_of(path): set() for path in FILES}
    for path in FILES:
        for name in imports(path):
            top, *rest = name.split('.')
            if top == 'mmattn' and rest and rest[0] in graph:
                graph[part_of(path)].add(rest[0])
    for part, found in graph.items():
        found.discard(part)
    TopologicalSorter(graph).prepare()  # raises CycleError


def run_blocked(names, code):
    # As if they were not installed.
    code = f'import sys\nsys.modules.update(dict.fromkeys({names}))\n{code}'
    return subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
    )


def test_ops_run_with_torch_alone():
    code = (
        'import torch\n'
        'from mmattn.ops import balanced_clusters, window_attention\n'
        'x = torch.rand(2, 14, 21, 24)\n'
        'print(*window_attention(x, 2, 7, shift=3).shape)\n'
        'print(*balanced_clusters(x.flatten(1, 2)).shape)\n'
    )
    done = run_blocked([*STACK, 'torchvision', 'triton'], code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == '2 14 21 8\n2 294\n'


def test_kernels_are_measured_with_torch_alone():
    tools = PACKAGE.parent / 'tools' / 'dev'
    code = (
        f'sys.path.append({str(tools)!r})\n'
        'import benchmark_kernels as tool, torch\n'
        "case = next(tool.make_cases((1, 7, 7, 1), 'cpu', torch.float32))\n"
        'print(next(tool.measure(case, 1.0, 0)))\n'
    )
    done = run_blocked([*STACK, 'torchvision', 'triton'], code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('| window_attention |')


def test_a_backbone_runs_without_hosts_and_compiled_operations():
    code = (
        'import torch\n'
        'from mmattn.backbones import BOATSwin\n'
        "print(len(BOATSwin('nano')(torch.rand(1, 3, 40, 50))))\n"
    )
    done = run_blocked([*HOSTS, 'mmcv.ops', 'torchvision'], code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == '4\n'

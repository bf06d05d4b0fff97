"""No tool answers a mistake with a traceback."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from mmattn.cli.usage import run_command

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    'syntax.py': 'model = dict(\n',
    'itself.py': "_base_ = './itself.py'\n",
    'cycle.py': "_base_ = ['./other.py']\n",
    'other.py': "_base_ = ['./cycle.py']\n",
    'new.py': (
        'from mmengine.config import read_base\n'
        'with read_base():\n    from .new import *\n'
    ),
    'exits.py': 'import sys\nsys.exit()\n',
    'raises.py': 'x = 1 / 0\n',
    'orphan.py': "_base_ = './gone.py'\n",
    'package.py': "_base_ = 'nosuchpackage::a/gone.py'\n",
    'empty.py': '',
    'text.py': "model = 'resnet'\ndefault_scope = 'mmdet'\n",
    'list.py': "model = [1]\ndefault_scope = 'mmdet'\n",
    'scope.py': "model = dict(type='X')\ndefault_scope = 5\n",
    'config.txt': 'hello',
    'broken.json': '{"model": ',
    'page.pth': '<html>',
    'empty.pth': '',
    'metrics.json': '[]',
}
TINY = """
_base_ = '{root}/configs/swin/swin-nano_1xb32-25e_digits.py'
train_dataloader = dict(batch_size=2, dataset=dict(indices=[0, 9, 20]))
val_dataloader = dict(dataset=dict(indices=2))
test_dataloader = dict(dataset=dict(indices=2))
train_cfg = dict(max_epochs=1, val_interval=1)
"""
# Tool, words, and what the message has to name.
CONFIGS = [
    ('itself.py', 'includes itself'),
    ('cycle.py', 'includes itself'),
    ('new.py', 'includes itself'),
    ('syntax.py', 'SyntaxError'),
    ('exits.py', 'SystemExit'),
    ('raises.py', 'ZeroDivisionError'),
    ('orphan.py', 'gone.py'),
    ('package.py', 'nosuchpackage'),
    ('empty.py', 'model|train_dataloader'),
    ('text.py', "model .* must be a dict, got 'resnet'"),
    ('list.py', 'model .* must be a dict'),
    ('scope.py', 'default_scope .* must be a str'),
    ('config.txt', 'config.txt'),
    ('broken.json', 'broken.json'),
    ('gone.py', 'gone.py'),
    ('.', "'.'"),
]
READERS = {
    'train.py': '{}',
    'test.py': '{} weights.pth',
    'check_dataset.py': '{}',
    'get_flops.py': '{}',
    'visualize_attention.py': 'image.png {}',
    'publish_model.py': 'weights.pth --config {} --name a-b --zoo zoo',
}
TRAIN = {
    '=': 'KEY=VALUE',
    'x': 'KEY=VALUE',
    'model=5': 'model',
    'model.type=Nope': 'Nope',
    'model.backbone.arch=huge': 'huge',
    'model.backbone.nope=1': 'nope',
    'model.head=None': 'loss',
    'train_cfg=5': 'train_cfg',
    'train_cfg.max_epochs=x': 'x',
    'train_cfg.max_epochs=0': 'max_epochs .* 0',
    'train_dataloader=5': 'train_dataloader',
    'train_dataloader.batch_size=x': 'x',
    'train_dataloader.num_workers=x': "'str' and 'int'",
    'train_dataloader.dataset.type=Nope': 'Nope',
    'train_dataloader.dataset.data_root=5': 'int',
    'train_dataloader.dataset.data_root=gone': 'gone',
    'train_dataloader.dataset.pipeline.0.type=Nope': 'Nope',
    'optim_wrapper.optimizer.type=Nope': 'optimizer|callable',
    'optim_wrapper.optimizer.lr=x': 'float',
    'optim_wrapper.accumulative_counts=x': "'str' and 'int'",
    'param_scheduler=5': 'param_scheduler',
    'default_hooks=5': 'default_hooks',
    'default_hooks.checkpoint=5': 'hook',
    'custom_hooks=5': 'int',
    'randomness.seed=-1': 'seed|Seed',
    'visualizer=5': 'visualizer',
    'load_from=5': 'load_from',
    'load_from=gone.pth': 'gone.pth',
    'val_cfg=None': 'val_cfg',
    'runner_type=Nope': 'Nope',
    'model.backbone.init_cfg.type=Nope': 'Nope',
    'model.backbone.init_cfg=5': 'int',
}
OTHERS = [
    ('train.py', '', 'config'),
    ('train.py', 'tiny.py --nope', 'nope'),
    ('train.py', 'tiny.py --work-dir page.pth', 'page.pth'),
    ('train.py', 'tiny.py --launcher mpi', 'mpi'),
    ('train.py', 'tiny.py --resume --load-from page.pth', '--resume'),
    ('train.py', 'tiny.py --resume', 'no checkpoint'),
    ('train.py', 'tiny.py --load-from page.pth', 'page.pth'),
    ('train.py', 'tiny.py --load-from empty.pth', 'empty.pth'),
    ('test.py', 'tiny.py', 'checkpoint'),
    ('test.py', 'tiny.py weights.pth', 'weights.pth'),
    ('test.py', 'tiny.py page.pth', 'page.pth'),
    ('test.py', 'tiny.py weights.pth --out a.txt', 'a.txt'),
    ('test.py', 'tiny.py mmattn://nope', 'nope'),
    ('check_dataset.py', 'tiny.py --splits nope', 'nope'),
    ('get_flops.py', '', 'config'),
    ('get_flops.py', 'tiny.py --shape 0 5', '0'),
    ('get_flops.py', '--backbone nope', 'nope'),
    ('get_flops.py', '--backbone foo(bar', 'foo'),
    ('get_flops.py', '--backbone timm:nope', 'nope|timm'),
    ('get_flops.py', '--backbone mmdet.ResNet(depth=7)', '7'),
    ('visualize_attention.py', 'gone.png tiny.py', 'gone.png'),
    ('visualize_attention.py', 'page.pth tiny.py', 'page.pth'),
    ('visualize_attention.py', 'image.png --backbone nope', 'nope'),
    ('visualize_attention.py', 'image.png', '--backbone'),
    ('swap_backbone.py', 'gone.py', 'gone.py'),
    ('swap_backbone.py', 'text.py', 'model'),
    ('swap_backbone.py', 'itself.py', 'includes itself'),
    ('swap_backbone.py', 'mmdet::gone.py', 'gone.py'),
    ('swap_backbone.py', 'tiny.py --backbone nope', 'nope'),
    ('swap_backbone.py', 'tiny.py --out a.txt', 'a.txt'),
    ('publish_model.py', 'gone.pth --config tiny.py --name a-b', 'gone.pth'),
    ('publish_model.py', 'weights.pth --config tiny.py --name a/b', 'a/b'),
    ('convert_checkpoint.py', 'gone.pth out.pth', 'gone.pth'),
    ('convert_checkpoint.py', 'weights.pth out.txt', 'out.txt'),
    ('convert_checkpoint.py', 'page.pth out.pth', 'page.pth|checkpoint'),
    ('convert_checkpoint.py', 'weights.pth out.pth', 'a'),
    ('benchmark.py', 'nope', 'nope'),
    ('benchmark.py', 'text.py', 'model'),
    ('benchmark.py', 'smt-nano --batch 0', '--batch'),
    ('benchmark.py', 'smt-nano --sizes x', 'x'),
    ('make_digit_scenes.py', '--size 7', '7'),
    ('make_digit_scenes.py', '--out page.pth', 'page.pth'),
    ('make_digit_scenes.py', '--train -1', '-1'),
    ('quickstart.py', '--epochs 0', '--epochs'),
    ('quickstart.py', '--data-root page.pth', 'page.pth'),
    ('launch_processes.py', '2', 'SCRIPT'),
    ('launch_processes.py', 'x train.py', "'x'"),
]
CASES = [
    *(
        (tool, words.format(file), told)
        for file, told in CONFIGS
        for tool, words in READERS.items()
    ),
    *(('train.py', f'tiny.py --cfg-options {x}', y) for x, y in TRAIN.items()),
    *OTHERS,
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory, few_digits):
    path = tmp_path_factory.mktemp('mistakes')
    for name, text in FILES.items():
        (path / name).write_text(text)
    (path / 'tiny.py').write_text(TINY.format(root=ROOT))
    (path / 'data').symlink_to(few_digits.parent)
    torch.save({'a': torch.ones(1)}, path / 'weights.pth')
    Image.new('RGB', (40, 40)).save(path / 'image.png')
    return path


@pytest.fixture(scope='module')
def load_tool():
    """The tools as modules: starting a process takes seconds."""
    tools = {}

    def load(name):
        if name not in tools:
            path = ROOT / 'tools' / name
            spec = importlib.util.spec_from_file_location(path.stem, path)
            tools[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(tools[name])
        return tools[name]

    return load


@pytest.mark.parametrize('tool, words, told', CASES)
def test_mistakes_end_in_one_message(
    tool, words, told, folder, load_tool, monkeypatch, capfd
):
    main = load_tool(tool).main
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, 'argv', [tool, *words.split()])
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == 2
    message = capfd.readouterr().err.partition(f'{tool}: error: ')[2]
    assert message and 'Traceback' not in message
    assert re.search(told, message), message

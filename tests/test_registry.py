"""Our names resolve from every host's scope, in fresh processes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

BUILD = """
from mmengine.registry import MODELS, init_default_scope

init_default_scope('SCOPE')

model = MODELS.build(dict(type='mmattn.BOATSwin', arch='tiny'))
print(type(model).__module__, len(model.stages))
nested = dict(
    embed_dims=8, depths=(1, ), num_heads=(1, ),
    attentions=((dict(type='mmattn.WindowAttention'), ), ))
print(type(MODELS.build(dict(
    type='mmattn.AttentionPyramid', arch=nested, out_indices=(0, ))
).stages[0].blocks[0].attn).__name__)
"""


def run(code):
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize('scope', ['mmengine', 'mmdet', 'mmseg', 'mmpretrain'])
def test_builds_from_each_scope_without_custom_imports(scope):
    done = run(BUILD.replace('SCOPE', scope))
    assert done.stdout.splitlines() == [
        'mmattn.backbones.boat_swin 4',
        'WindowAttention',
    ]
    assert 'mmattn' not in done.stderr


@pytest.mark.parametrize('scope', ['mmengine', 'mmdet', 'mmseg', 'mmpretrain'])
def test_the_decode_head_resolves_from_each_scope(scope):
    done = run(
        'from mmengine.registry import MODELS, init_default_scope\n'
        f"init_default_scope('{scope}')\n"
        "head = dict(type='mmattn.PerspectiveHead', in_channels=(8, 16), "
        'in_index=(0, 1), channels=4, num_classes=2, '
        "loss_decode=dict(type='mmseg.CrossEntropyLoss'))\n"
        'print(type(MODELS.build(head)).__module__)'
    )
    assert done.stdout == 'mmattn.heads.perspective_head\n'


def test_only_building_a_decode_head_imports_mmseg():
    done = run(
        'import sys\n'
        'from mmengine.registry import MODELS\n'
        "for name in ('SMT', 'AttentionPlugin', 'PerspectiveHead', 'Nope'):\n"
        "    print(MODELS.get(f'mmattn.{name}') is None)\n"
        "print('mmseg' in sys.modules)\n"
        'import mmattn.heads.perspective_head\n'
        "print('mmseg' in sys.modules)\n"
    )
    assert done.stdout.split() == [*3 * ['False'], 'True', 'False', 'True']


@pytest.mark.parametrize(
    'host, build',
    [
        (
            'mmdet',
            "dict(type='FCOS', backbone=BACKBONE, "
            "neck=dict(type='FPN', in_channels=[24, 48, 96, 192], "
            'out_channels=16, num_outs=5), '
            "bbox_head=dict(type='FCOSHead', num_classes=2, in_channels=16))",
        ),
        (
            'mmseg',
            "dict(type='EncoderDecoder', backbone=BACKBONE, "
            "decode_head=dict(type='FCNHead', in_channels=192, in_index=3, "
            'channels=16, num_classes=2), train_cfg=dict(), '
            "test_cfg=dict(mode='whole'))",
        ),
        ('mmpretrain', "dict(type='ImageClassifier', backbone=BACKBONE)"),
    ],
)
def test_builds_inside_each_host(host, build):
    backbone = "dict(type='mmattn.BOATSwin', arch='nano')"
    done = run(
        f'from {host}.registry import MODELS\n'
        'from mmengine.registry import init_default_scope\n'
        f"init_default_scope('{host}')\n"
        f'model = MODELS.build({build.replace("BACKBONE", backbone)})\n'
        'print(type(model.backbone).__name__)'
    )
    assert done.stdout == 'BOATSwin\n'


def test_every_registry_of_mmengine_has_our_child():
    from mmengine.registry import Registry, root

    import mmattn.registry

    roots = [r for r in vars(root).values() if isinstance(r, Registry)]
    assert len(roots) >= 22
    for parent in roots:
        child = parent.children['mmattn']
        assert child.scope == 'mmattn'
        assert any(child is r for r in vars(mmattn.registry).values())

"""What the test command changes in the configs of the three codebases."""

from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.hooks import LoggerHook
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope

from mmattn.cli import evaluation
from mmattn.config import read_config
from mmattn.errors import UsageError


def config(scope: str, **fields) -> Config:
    pack = dict(
        mmdet='PackDetInputs', mmseg='PackSegInputs', mmpretrain='PackInputs'
    )
    return Config(
        dict(
            default_scope=scope,
            model=dict(type='Model'),
            default_hooks=dict(visualization=dict(type='Hook')),
            visualizer=dict(type='Visualizer'),
            test_dataloader=dict(
                dataset=dict(
                    pipeline=[
                        dict(type='LoadImageFromFile'),
                        dict(type=pack.get(scope, 'Pack')),
                    ]
                )
            ),
            test_evaluator=dict(type='Metric'),
            **fields,
        )
    )


def test_pictures_go_where_each_codebase_looks():
    det, seg, cls = map(config, ('mmdet', 'mmseg', 'mmpretrain'))
    for cfg in (det, seg, cls):
        evaluation.draw_predictions(cfg, True, 'out', 1.5)
        assert cfg.default_hooks.visualization.show
        assert cfg.default_hooks.visualization.wait_time == 1.5
    assert det.default_hooks.visualization.draw
    assert det.default_hooks.visualization.test_out_dir == 'out'
    assert seg.default_hooks.visualization.draw
    assert seg.visualizer.save_dir == 'out'
    assert cls.default_hooks.visualization.enable
    assert cls.default_hooks.visualization.out_dir == 'out'


def test_pictures_need_the_hook():
    cfg = config('mmdet')
    cfg.default_hooks.pop('visualization')
    with pytest.raises(UsageError, match=r'default_hooks\.visualization'):
        evaluation.draw_predictions(cfg, True, None, 2)


@pytest.mark.parametrize(
    'scope, merger',
    [
        ('mmdet', 'DetTTAModel'),
        ('mmseg', 'SegTTAModel'),
        ('mmpretrain', 'AverageClsScoreTTA'),
    ],
)
def test_tta_flips_by_default(scope, merger):
    cfg = config(scope)
    evaluation.use_tta(cfg)
    assert cfg.model.type == merger
    assert cfg.model.module.type == 'Model'
    load, augment = cfg.test_dataloader.dataset.pipeline
    assert load.type == 'LoadImageFromFile'
    assert [flip.prob for flip in augment.transforms[0]] == [0.0, 1.0]
    with MODELS.switch_scope_and_registry(scope) as models:
        assert models.get(merger).__name__ == merger
    with DefaultScope.overwrite_default_scope(scope):
        built = Compose([load, augment]).transforms[-1]
    pack = built.subroutines[0].transforms[-1]
    assert 'flip' in pack.meta_keys  # the merged boxes are flipped back


def test_tta_of_a_config_of_the_new_style(tmp_path):
    file = tmp_path / 'new.py'
    file.write_text(
        'from mmdet.datasets.transforms import PackDetInputs\n'
        'from mmdet.models import FCOS\n'
        'model = dict(type=FCOS)\n'
        "pipeline = [dict(type=PackDetInputs, meta_keys=('img_id',))]\n"
        'test_dataloader = dict(dataset=dict(pipeline=pipeline))\n'
    )
    cfg = read_config(str(file), None, ('test_dataloader',), 'testing')
    assert cfg.default_scope == 'mmdet'
    evaluation.use_tta(cfg)
    (augment,) = cfg.test_dataloader.dataset.pipeline
    _, (pack,) = augment.transforms
    assert 'flip' in TRANSFORMS.build(pack).meta_keys
    assert cfg.model.type == 'DetTTAModel'


def test_tta_of_the_config_is_taken():
    cfg = config(
        'other', tta_model=dict(type='Mine'), tta_pipeline=[dict(type='A')]
    )
    evaluation.use_tta(cfg)
    assert cfg.model == dict(type='Mine', module=dict(type='Model'))
    assert cfg.test_dataloader.dataset.pipeline == [dict(type='A')]


def test_tta_of_an_unknown_codebase():
    with pytest.raises(UsageError, match='tta_pipeline'):
        evaluation.use_tta(config('other'))


def test_tta_merges_no_masks():
    cfg = config('mmdet')
    cfg.model.roi_head = dict(mask_head=dict(type='FCNMaskHead'))
    with pytest.raises(UsageError, match='masks'):
        evaluation.use_tta(cfg)


def test_tta_and_pictures_of_mmpretrain():
    cfg = config('mmpretrain')
    evaluation.draw_predictions(cfg, False, 'out', 2)
    with pytest.raises(UsageError, match='--show-dir'):
        evaluation.use_tta(cfg)


def test_out_is_a_pickle_file_or_a_folder_of_label_maps(tmp_path):
    evaluation.check_out(config('mmdet'), 'a.pkl')
    with pytest.raises(UsageError, match="got 'a'"):
        evaluation.check_out(config('mmpretrain'), 'a')
    cfg = config('mmseg')
    evaluation.check_out(cfg, str(tmp_path / 'maps'))
    assert cfg.test_evaluator.output_dir == str(tmp_path / 'maps')
    assert (tmp_path / 'maps').is_dir()


@pytest.mark.parametrize('rank', [0, 1])
def test_one_process_writes_the_metrics(rank, monkeypatch):
    written = []

    class Logger(LoggerHook):
        def after_test_epoch(self, runner, metrics=None):
            written.append(metrics)

    runner = SimpleNamespace(hooks=[Logger()])
    evaluation.write_metrics_once(runner)
    monkeypatch.setattr('mmengine.dist.utils.get_rank', lambda group: rank)
    runner.hooks[0].after_test_epoch(runner, metrics=dict(acc=1))
    assert written == ([dict(acc=1)] if rank == 0 else [])

"""Every config parses, fits the naming rule, builds and gives a loss."""

import copy
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmcv.cnn.bricks.scale import LayerScale
from mmengine.config import Config
from mmengine.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS, DefaultScope
from mmengine.structures import InstanceData, PixelData
from torch.nn.modules.batchnorm import _BatchNorm

from mmattn.config import replace_sync_norms

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(
    path
    for path in (ROOT / 'configs').glob('*/*.py')
    if path.parent.name != '_base_'
)
METAFILES = sorted((ROOT / 'configs').glob('*/metafile.yml'))

WORD = r'[a-z0-9]+(-[a-z0-9]+)*'
# [algorithm_]backbone[_neck]_{gpus x batch}-{schedule}_data
NAME = re.compile(rf'({WORD}_){{1,3}}\d+xb\d+-{WORD}_{WORD}')


def stem(path: Path) -> str:
    return path.stem


# Of module scope, so that the tests of one config run together and share its
# model: building is what takes time.
@pytest.fixture(params=CONFIGS, ids=stem, scope='module')
def path(request) -> Path:
    return request.param


@pytest.fixture(scope='module')
def cfg(path: Path) -> Config:
    return Config.fromfile(path)


@pytest.fixture(scope='module')
def model(cfg: Config) -> torch.nn.Module:
    return build_model(cfg)


def test_there_are_configs():
    assert len(CONFIGS) >= 10


@pytest.mark.parametrize(
    'name',
    [
        'boat-swin-tiny_300e_in1k',  # no GPUs and batch
        'BOAT-Swin_8xb128-300e_in1k',
        'boat_8xb128-300e',  # no data
        'boat--swin_8xb128-300e_in1k',
    ],
)
def test_naming_rule_refuses(name):
    assert not NAME.fullmatch(name)


def test_name_fits_the_rule(path):
    assert NAME.fullmatch(path.stem), path.name


def test_names_are_unique():
    # MIM looks configs up by file name.
    counts = Counter(path.name for path in CONFIGS)
    assert [name for name, count in counts.items() if count > 1] == []


def test_base_batch_size_is_that_of_the_name(path, cfg):
    gpus, batch = re.search(r'_(\d+)xb(\d+)-', path.stem).groups()
    assert cfg.auto_scale_lr == dict(
        enable=False, base_batch_size=int(gpus) * int(batch)
    )
    assert cfg.train_dataloader.batch_size == int(batch)


def test_keeps_the_scope_of_its_host(cfg):
    assert cfg.default_scope in ('mmdet', 'mmseg', 'mmpretrain')


def test_header_gives_the_command(path):
    head = path.read_text().split('_base_')[0]
    assert 'tools/' in head
    assert path.name in head
    if 'digits' not in path.stem:  # a recipe of many GPUs
        assert '# Hardware:' in head
        assert '# Expected:' in head


def test_weights_decay_except_norms_and_position_tables(cfg, model):
    wrapper = cfg.optim_wrapper.copy()
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.get(
        wrapper.pop('constructor', 'DefaultOptimWrapperConstructor')
    )
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        optimizer = constructor(wrapper, wrapper.pop('paramwise_cfg', None))(
            model
        ).optimizer
    decay = {
        parameter: group['weight_decay']
        for group in optimizer.param_groups
        for parameter in group['params']
    }
    norms = {
        parameter
        for module in model.backbone.modules()
        if isinstance(module, (torch.nn.LayerNorm, _BatchNorm, LayerScale))
        for parameter in module.parameters()
    }
    # The recipe of DETR and its heirs names the whole backbone, for a lower
    # rate, which leaves no key for its norms, and decays by 1e-4 only.
    if 'backbone' in cfg.optim_wrapper.paramwise_cfg.custom_keys:
        assert cfg.optim_wrapper.optimizer.weight_decay <= 1e-4
        norms = set()
    for name, parameter in model.backbone.named_parameters():
        table = 'relative_position_bias_table' in name
        if parameter in norms or table:
            assert decay[parameter] == 0, name
        elif name.endswith('weight'):
            assert decay[parameter] > 0, name


def test_builds_and_gives_a_loss(cfg, model):
    torch.manual_seed(0)
    model.train()
    data = SAMPLES[cfg.default_scope](cfg)
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    total, _ = model.parse_losses(losses)
    assert torch.isfinite(total) and total > 0
    model.eval()
    with torch.no_grad():
        results = model(**model.data_preprocessor(data, False), mode='predict')
    assert len(results) == len(data['inputs'])


def build_model(cfg: Config) -> torch.nn.Module:
    """Build for a CPU and small images, without pretrained weights."""
    model = copy.deepcopy(cfg.model)
    model.backbone.init_cfg = None
    replace_sync_norms(model)
    if 'data_preprocessor' in cfg:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    if cfg.default_scope == 'mmseg':
        model.data_preprocessor.size = (64, 96)
    if 'num_queries' in model:  # no more than a small image has tokens
        model.num_queries = 20
    if 'rpn_proposal' in (model.get('train_cfg') or ()):  # fewer: sooner
        model.train_cfg.rpn_proposal.max_per_img = 20
        model.test_cfg.rpn.max_per_img = 20
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(model)
    if hasattr(model, 'rpn_head'):  # learned proposals start without a size
        model.rpn_head.init_weights()
    if hasattr(model, 'level_embed'):  # holds what the memory held before
        torch.nn.init.normal_(model.level_embed)
    return model


def random_image(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


def classification_samples(cfg: Config) -> dict:
    from mmpretrain.structures import DataSample

    classes = cfg.model.head.num_classes
    return dict(
        inputs=[random_image(64, 64) for _ in range(2)],
        data_samples=[
            DataSample().set_gt_label(label) for label in (0, classes - 1)
        ],
    )


def detection_samples(cfg: Config) -> dict:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    height, width = 64, 96
    boxes = torch.tensor([[4.0, 4.0, 40.0, 36.0], [30.0, 20.0, 90.0, 60.0]])
    masks = np.zeros((2, height, width), np.uint8)
    masks[0, 4:36, 4:40] = masks[1, 20:60, 30:90] = 1
    sample = DetDataSample(
        metainfo=dict(
            img_id=0,
            img_shape=(height, width),
            ori_shape=(height, width),
            scale_factor=(1.0, 1.0),
        )
    )
    sample.gt_instances = InstanceData(
        bboxes=boxes,
        labels=torch.tensor([0, 1]),
        masks=BitmapMasks(masks, height, width),
    )
    return dict(inputs=[random_image(height, width)], data_samples=[sample])


def segmentation_samples(cfg: Config) -> dict:
    from mmseg.structures import SegDataSample

    height, width = 64, 96
    samples = []
    for _ in range(2):
        sample = SegDataSample(
            metainfo=dict(
                img_shape=(height, width),
                ori_shape=(height, width),
                pad_shape=(height, width),
            )
        )
        labels = torch.randint(
            0, cfg.model.decode_head.num_classes, (1, height, width)
        )
        sample.gt_sem_seg = PixelData(data=labels)
        samples.append(sample)
    images = [random_image(height, width) for _ in samples]
    return dict(inputs=images, data_samples=samples)


SAMPLES = dict(
    mmpretrain=classification_samples,
    mmdet=detection_samples,
    mmseg=segmentation_samples,
)


@pytest.fixture(params=METAFILES, ids=lambda path: path.parent.name)
def metafile(request) -> Path:
    return request.param


def test_metafile_names_every_config_of_its_folder(metafile):
    models = yaml.safe_load(metafile.read_text())['Models']
    named = {model['Config'] for model in models}
    there = {
        str(path.relative_to(ROOT))
        for path in CONFIGS
        if path.parent == metafile.parent
    }
    assert named == there
    assert all(m['Name'] == Path(m['Config']).stem for m in models)


def test_metafile_is_readable_by_mmpretrain(metafile):
    modelindex = pytest.importorskip('modelindex.load_model_index')
    index = modelindex.load(str(metafile))
    index.build_models_with_collections()
    for model in index.models:
        assert model.in_collection
        for result in model.results:
            assert result.task and result.dataset


def test_metafile_parameters_are_those_of_the_model(metafile):
    for model in yaml.safe_load(metafile.read_text())['Models']:
        parameters = model.get('Metadata', {}).get('Parameters')
        if parameters is None:
            continue
        built = build_model(Config.fromfile(ROOT / model['Config']))
        assert parameters == sum(p.numel() for p in built.parameters())

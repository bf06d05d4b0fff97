"""Each fault of a data set is found, with its file, and before a training."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from PIL import Image

from mmattn.cli.data import check_data, report_data_errors
from mmattn.datasets import checking
from mmattn.errors import DataError

CLASSES = ('cat', 'dog', 'owl')
SIZE = (24, 32)  # height, width
SPLITS = ('train', 'val')


def save_image(path, seed, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3))
    Image.fromarray(pixels.astype('uint8')).save(path, **options)


def save_map(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(labels)).save(path)


def label_map(*rows):
    """Stripes of labels."""
    return (
        np.repeat(np.array(rows, 'uint8'), SIZE[0] // len(rows))
        .repeat(SIZE[1])
        .reshape(-1, SIZE[1])
    )


class Data:
    """Three images in each of two splits, and the config that reads them."""

    def __init__(self, root, codebase):
        self.root = root
        for i in range(6):
            save_image(root / SPLITS[i // 3] / CLASSES[i % 3] / f'{i}.jpg', i)
        file = root / 'config.py'
        file.write_text(f'default_scope = {codebase!r}\nmodel = dict()\n')
        self.cfg = Config.fromfile(file)
        make = dict(
            mmdet=self.detection,
            mmseg=self.segmentation,
            mmpretrain=self.classification,
        )
        steps = [dict(type='LoadImageFromFile')]
        for split in SPLITS:
            dataset = make[codebase](split, steps)
            dataset |= dict(data_root=str(root), pipeline=steps)
            self.cfg[f'{split}_dataloader'] = dict(
                dataset=dataset,
                batch_size=1,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=False),
            )
        self.dataset = self.cfg.train_dataloader.dataset

    def classification(self, split, steps):
        steps[1:] = [dict(type='PackInputs')]
        return dict(
            type='CustomDataset',
            data_prefix=split,
            metainfo=dict(classes=CLASSES),
        )

    def segmentation(self, split, steps):
        steps[1:] = [dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
        for file in (self.root / split).rglob('*.jpg'):
            target = self.root / 'maps' / file.relative_to(self.root)
            save_map(target.with_suffix('.png'), label_map(0, 1, 2, 255))
        return dict(
            type='BaseSegDataset',
            data_prefix=dict(img_path=split, seg_map_path=f'maps/{split}'),
            metainfo=dict(classes=CLASSES),
        )

    def detection(self, split, steps):
        steps[1:] = [
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='PackDetInputs'),
        ]
        box = dict(bbox=[4, 2, 8, 10], area=80, iscrowd=0)
        polygon = [[4, 2, 12, 2, 12, 12, 4, 12]]
        images, annotations = [], []
        for i, file in enumerate(sorted((self.root / split).rglob('*.jpg'))):
            name = str(file.relative_to(self.root / split))
            size = dict(height=SIZE[0], width=SIZE[1])
            images.append(dict(id=i, file_name=name, **size))
            ids = dict(id=i, image_id=i, category_id=i)
            annotations.append(dict(ids, **box, segmentation=polygon))
        categories = [dict(id=i, name=x) for i, x in enumerate(CLASSES)]
        self.json = dict(
            images=images, annotations=annotations, categories=categories
        )
        (self.root / f'{split}.json').write_text(json.dumps(self.json))
        return dict(
            type='CocoDataset',
            ann_file=f'{split}.json',
            data_prefix=dict(img=split),
            metainfo=dict(classes=CLASSES),
        )

    def change_json(self, **fields):
        """Change the second annotation of the training data."""
        file = self.root / 'train.json'
        content = json.loads(file.read_text())
        content['annotations'][1].update(fields)
        file.write_text(json.dumps(content))


IMAGE = 'train/dog/1.jpg'
MAP = 'maps/train/dog/1.png'
FAULTS = {}


def fault(codebases, file, word, stops=True):
    """Register a fault.

    Args:
        codebases: Where it can be.
        file: The file that is reported.
        word: A word of the report.
        stops: Whether a training stops, and reports the file as well. None
            if it depends on the version of OpenCV.
    """

    def register(function):
        for codebase in codebases.split():
            name = f'{codebase}-{function.__name__}'
            FAULTS[name] = (codebase, function, file, word, stops)
        return function

    return register


ALL = 'mmdet mmseg mmpretrain'


@fault(ALL, IMAGE, 'empty')
def empty_image(data):
    (data.root / IMAGE).write_bytes(b'')


@fault(ALL, IMAGE, 'cannot be read')
def head_of_an_image(data):
    file = data.root / IMAGE
    file.write_bytes(file.read_bytes()[:500])


@fault(ALL, IMAGE, 'truncated', stops=None)
def truncated_image(data):
    file = data.root / IMAGE
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 3 // 4])


@fault(ALL, IMAGE, 'not an image')
def page_instead_of_image(data):
    (data.root / IMAGE).write_text('<html>404</html>')


@fault(ALL, IMAGE, '')
def image_without_pixels(data):
    # A bitmap whose header claims no columns.
    Image.new('RGB', (8, 8)).save(data.root / IMAGE, format='bmp')
    content = bytearray((data.root / IMAGE).read_bytes())
    content[18:22] = bytes(4)
    (data.root / IMAGE).write_bytes(content)


@fault('mmdet mmseg', IMAGE, 'orientation 6', stops=False)
def rotated_image(data):
    exif = Image.Exif()
    exif[0x0112] = 6
    save_image(data.root / IMAGE, 1, exif=exif)


@fault('mmdet mmseg', IMAGE, 'orientation 3', stops=False)
def image_upside_down(data):
    exif = Image.Exif()
    exif[0x0112] = 3
    save_image(data.root / IMAGE, 1, exif=exif)


@fault(ALL, 'val/owl/5.jpg', 'train/dog/1.jpg', stops=False)
def image_in_both_splits(data):
    content = (data.root / IMAGE).read_bytes()
    (data.root / 'val/owl/5.jpg').write_bytes(content)


@fault(ALL, 'val/owl/5.jpg', 'train/dog/1.jpg', stops=False)
def image_encoded_again_in_another_split(data):
    with Image.open(data.root / IMAGE) as image:
        image.save(data.root / 'val/owl/5.jpg', format='png')


@fault('mmdet mmseg', IMAGE, 'does not exist')
def missing_image(data):
    (data.root / IMAGE).unlink()
    if data.cfg.default_scope == 'mmseg':
        data.dataset.ann_file = 'list.txt'
        (data.root / 'list.txt').write_text('cat/0\ndog/1\nowl/2\n')


@fault('mmdet mmseg', 'train', 'num_classes', stops=False)
def head_with_other_classes(data):
    data.cfg.model = dict(head=dict(num_classes=80))


# Detection.
@fault('mmdet', IMAGE, '16 x 40')
def wrong_size(data):
    file = data.root / 'train.json'
    content = json.loads(file.read_text())
    content['images'][1].update(height=16, width=40)
    content['annotations'][1]['segmentation'] = dict(
        size=[16, 40], counts=[600, 40]
    )
    file.write_text(json.dumps(content))


@fault('mmdet', IMAGE, 'its size is 8 x 8, that of the image 24 x 32')
def mask_of_another_size(data):
    data.change_json(segmentation=dict(size=[8, 8], counts=[60, 4]))


@fault('mmdet', IMAGE, 'add up to 3 pixels, the image has 768')
def mask_with_wrong_counts(data):
    data.change_json(segmentation=dict(size=SIZE, counts=[1, 2]))


@fault('mmdet', IMAGE, "KeyError: 'counts'")
def mask_without_counts(data):
    data.change_json(segmentation=dict(size=SIZE))


@fault('mmdet', IMAGE, 'without pixels', stops=False)
def polygon_of_two_points(data):
    data.change_json(segmentation=[[1, 2, 3, 4]])


@fault('mmdet', IMAGE, 'polygon')
def polygon_with_nan(data):
    data.change_json(segmentation=[[1, 2, 3, float('nan'), 5, 6]])


@fault('mmdet', IMAGE, 'without a mask')
def no_mask(data):
    data.change_json(segmentation=None)


@fault('mmdet', 'train.json', 'JSONDecodeError')
def broken_json(data):
    file = data.root / 'train.json'
    file.write_text(file.read_text()[:-40])


@fault('mmdet', 'train.json', 'JSONDecodeError')
def empty_json(data):
    (data.root / 'train.json').write_text('')


@fault('mmdet', 'train.json', 'No such file')
def missing_json(data):
    (data.root / 'train.json').unlink()


@fault('mmdet', 'train.json', 'list')
def json_of_another_kind(data):
    (data.root / 'train.json').write_text('[1, 2]')


@fault('mmdet', 'train.json', 'categories')
def json_without_categories(data):
    file = data.root / 'train.json'
    content = json.loads(file.read_text())
    del content['categories']
    file.write_text(json.dumps(content))


@fault('mmdet', 'train.json', 'no annotations', stops=False)
def no_annotations(data):
    file = data.root / 'train.json'
    content = json.loads(file.read_text())
    content['annotations'] = []
    file.write_text(json.dumps(content))


@fault('mmdet', 'train.json', 'no images')
def all_images_filtered(data):
    data.dataset.filter_cfg = dict(filter_empty_gt=True, min_size=999)


@fault('mmdet', 'train.json', 'NaN', stops=False)
def box_with_nan(data):
    data.change_json(bbox=[4, float('nan'), 8, 10])


@fault('mmdet', 'train.json', 'NaN', stops=False)
def infinite_area(data):
    data.change_json(area=float('inf'))


@fault('mmdet', 'train.json', 'dog/1.jpg')
def box_with_three_numbers(data):
    data.change_json(bbox=[4, 2, 8])


@fault('mmdet', 'train.json', 'dog/1.jpg')
def box_of_text(data):
    data.change_json(bbox=['a', 2, 8, 1])


@fault('mmdet', 'train.json', 'outside', stops=False)
def box_outside(data):
    data.change_json(bbox=[99, 2, 8, 10])


@fault('mmdet', 'train.json', 'so mmdet leaves it out', stops=False)
def box_without_area(data):
    data.change_json(bbox=[4, 2, 0, 10])


@fault('mmdet', 'train.json', 'category_id 77', stops=False)
def unknown_category(data):
    data.change_json(category_id=77)


@fault('mmdet', 'train.json', 'image_id 77', stops=False)
def unknown_image(data):
    data.change_json(image_id=77)


@fault('mmdet', 'train.json', 'no category bird', stops=False)
def unknown_class(data):
    data.dataset.metainfo = dict(classes=('cat', 'dog', 'bird'))


@fault('mmdet', 'train.json', 'order', stops=False)
def classes_in_another_order(data):
    data.dataset.metainfo = dict(classes=('owl', 'dog', 'cat'))


# Segmentation.
@fault('mmseg', MAP, 'does not exist')
def missing_map(data):
    (data.root / MAP).unlink()


@fault('mmseg', MAP, 'has no image', stops=False)
def map_without_image(data):
    (data.root / IMAGE).unlink()


@fault('mmseg', MAP, 'empty')
def empty_map(data):
    (data.root / MAP).write_bytes(b'')


@fault('mmseg', MAP, 'cannot be read')
def truncated_map(data):
    content = (data.root / MAP).read_bytes()
    (data.root / MAP).write_bytes(content[:60])


@fault('mmseg', MAP, '12 x 32', stops=False)
def map_of_another_size(data):
    save_map(data.root / MAP, label_map(0, 1, 2, 255)[::2])


@fault('mmseg', MAP, 'color')
def map_with_colors(data):
    save_map(data.root / MAP, np.stack([label_map(0, 1, 2, 255)] * 3, -1))


@fault('mmseg', MAP, 'above 255')
def map_of_16_bits(data):
    save_map(data.root / MAP, label_map(0, 1, 2, 3).astype('uint16') * 300)


@fault('mmseg', MAP, 'label 3, 4')
def labels_out_of_range(data):
    save_map(data.root / MAP, label_map(0, 2, 3, 4))


@fault('mmseg', MAP, 'reduce_zero_label=True')
def zero_is_no_class(data):
    save_map(data.root / MAP, label_map(0, 1, 2, 3))


@fault('mmseg', 'train', 'set it to False', stops=False)
def zero_is_a_class(data):
    data.dataset.reduce_zero_label = True


@fault('mmseg', 'train', 'reduce_zero_label')
def reduce_zero_label_set_twice(data):
    data.dataset.pipeline[1].reduce_zero_label = True


@fault('mmseg', MAP, 'JPEG', stops=False)
def lossy_map(data):
    Image.fromarray(label_map(0, 1, 2, 1)).save(
        data.root / MAP, format='jpeg', quality=100
    )


@fault('mmseg', MAP, 'ignored pixels only', stops=False)
def ignored_map(data):
    save_map(data.root / MAP, label_map(255, 255))


@fault('mmseg', 'train', 'no images')
def wrong_suffix(data):
    data.dataset.img_suffix = '.tif'


@fault('mmseg', 'train', 'not a subset')
def classes_of_another_set(data):
    data.dataset.type = 'ADE20KDataset'


# Classification.
@fault('mmpretrain', IMAGE, 'label 3')
def label_too_large(data):
    data.dataset.ann_file = 'list.txt'
    (data.root / 'list.txt').write_text('cat/0.jpg 0\ndog/1.jpg 3\n')


@fault('mmpretrain', IMAGE, 'label -1')
def negative_label(data):
    data.dataset.ann_file = 'list.txt'
    (data.root / 'list.txt').write_text('cat/0.jpg 0\ndog/1.jpg -1\n')


@fault('mmpretrain', 'list.txt', 'cannot be loaded')
def line_without_label(data):
    data.dataset.ann_file = 'list.txt'
    (data.root / 'list.txt').write_text('cat/0.jpg 0\ndog/1.jpg\n')


@fault('mmpretrain', 'train/dog/7.jpg', 'does not exist')
def missing_image_of_a_list(data):
    data.dataset.ann_file = 'list.txt'
    (data.root / 'list.txt').write_text('cat/0.jpg 0\ndog/7.jpg 1\n')


@fault('mmpretrain', 'train', 'subfolders')
def folder_too_many(data):
    save_image(data.root / 'train' / 'bird' / '9.jpg', 9)


@fault('mmpretrain', 'train', 'same order', stops=False)
def folders_in_another_order(data):
    data.dataset.metainfo = dict(classes=('owl', 'dog', 'cat'))


@fault('mmpretrain', 'train', 'Found 0 files')
def no_files(data):
    data.dataset.extensions = ('.tif',)


@fault('mmpretrain', 'train', 'class owl', stops=False)
def empty_class(data):
    (data.root / 'train/owl/2.jpg').unlink()


@fault('mmpretrain', IMAGE, 'orientation', stops=False)
def rotated_photo(data):
    exif = Image.Exif()
    exif[0x0112] = 6
    save_image(data.root / IMAGE, 1, exif=exif)


@pytest.mark.parametrize('name', FAULTS)
def test_faults_are_found(name, tmp_path, capsys):
    codebase, make, file, word, _ = FAULTS[name]
    data = Data(tmp_path, codebase)
    make(data)
    check_data(data.cfg, SPLITS, workers=1)
    lines = capsys.readouterr().out.splitlines()
    found = [x for x in lines if x.startswith(('error: ', 'warning: '))]
    assert any(str(tmp_path / file) in x and word in x for x in found), lines


@pytest.mark.parametrize('codebase', ALL.split())
def test_good_data_have_no_faults(codebase, tmp_path, capsys):
    data = Data(tmp_path, codebase)
    assert check_data(data.cfg, SPLITS, workers=2) == 0
    out = capsys.readouterr().out
    assert out.count('3 images of') == 2
    assert 'warning: ' not in out


@pytest.mark.parametrize(
    ('mode', 'size', 'color'),
    [
        ('RGB', (10, 20), 0),  # of the same number of pixels
        ('P', (20, 10), 1),  # the same indices, but another palette
        ('I;16', (20, 10), 300),  # as RGB equal to one of 301
    ],
)
def test_different_images_are_no_overlap(mode, size, color, tmp_path, capsys):
    data = Data(tmp_path, 'mmpretrain')
    first = Image.new('RGB', (20, 10))
    other = Image.new(mode, size, color)
    if mode == 'P':
        first = other.copy()
        first.putpalette([0] * 768)
        other.putpalette([200] * 768)
    elif mode == 'I;16':
        first = Image.new(mode, size, color + 1)
    first.save(data.root / IMAGE, format='png')
    other.save(data.root / 'val/owl/5.jpg', format='png')
    assert check_data(data.cfg, SPLITS, workers=1) == 0
    assert 'training data too' not in capsys.readouterr().out


def test_an_image_with_a_palette_equals_one_without(tmp_path, capsys):
    data = Data(tmp_path, 'mmpretrain')
    image = Image.new('P', (20, 10), 3)
    image.putpalette(range(10, 40))
    image.save(data.root / IMAGE, format='png')
    image.convert('RGB').save(data.root / 'val/owl/5.jpg', format='png')
    assert check_data(data.cfg, SPLITS, workers=1) == 1
    assert 'training data too' in capsys.readouterr().out


def test_progress_in_a_log(tmp_path, capsys, monkeypatch):
    data = Data(tmp_path, 'mmpretrain')
    empty_image(data)
    check_data(data.cfg, ['train'], workers=1)
    assert capsys.readouterr().err == ''
    monkeypatch.setattr(checking, 'REPORT_INTERVAL', 0.0)
    check_data(data.cfg, ['train'], workers=1)
    assert capsys.readouterr().err.splitlines() == [
        'train: 1 of 3 images, 0 errors',
        'train: 2 of 3 images, 1 errors',
        'train: 3 of 3 images, 1 errors',
    ]


def test_a_mistake_in_a_pipeline_is_no_fault_of_the_data(tmp_path):
    data = Data(tmp_path, 'mmseg')
    data.dataset.pipeline[0].type = 'Nope'
    for call in (load, lambda data: check_data(data.cfg, SPLITS, workers=1)):
        with pytest.raises(KeyError, match='Nope'):
            call(data)


def load(data, workers=0):
    """Read the training data as a runner does."""
    loader = data.cfg.train_dataloader
    loader.num_workers = workers
    runner = SimpleNamespace(
        cfg=data.cfg,
        _train_dataloader=loader,
        build_dataloader=Runner.build_dataloader,
    )
    report_data_errors(runner)
    with DefaultScope.overwrite_default_scope(data.cfg.default_scope):
        list(runner.build_dataloader(loader))


@pytest.mark.parametrize(
    'name', [x for x in FAULTS if FAULTS[x][4] is not None]
)
def test_a_training_names_the_file(name, tmp_path):
    codebase, make, file, word, stops = FAULTS[name]
    data = Data(tmp_path, codebase)
    make(data)
    if not stops:
        load(data)
        return
    with pytest.raises(DataError) as error:
        load(data)
    message = str(error.value)
    assert message.startswith(str(tmp_path / file)) and word in message
    assert f'tools/check_dataset.py {tmp_path}/config.py' in message


def test_workers_report_the_message_alone(tmp_path):
    data = Data(tmp_path, 'mmpretrain')
    empty_image(data)
    with pytest.raises(DataError) as error:
        load(data, workers=1)
    assert str(error.value).startswith(str(tmp_path / IMAGE))
    assert '\n' not in str(error.value)

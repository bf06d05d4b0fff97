"""The metafile entry and the model card of a published model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

# Metric of a codebase -> task, name in metafiles and scale.
_RESULTS = {
    'accuracy/top1': ('Image Classification', 'Top 1 Accuracy', 1),
    'accuracy/top5': ('Image Classification', 'Top 5 Accuracy', 1),
    'coco/bbox_mAP': ('Object Detection', 'box AP', 100),
    'coco/segm_mAP': ('Instance Segmentation', 'mask AP', 100),
    'mIoU': ('Semantic Segmentation', 'mIoU', 1),
}
# Codebase -> task, and code that loads a model.
_CODEBASES = dict(
    mmpretrain=(
        'Image Classification',
        """from mmpretrain import ImageClassificationInferencer

classify = ImageClassificationInferencer('{name}')
print(classify('image.jpg')[0]['pred_class'])""",
    ),
    mmdet=(
        'Object Detection',
        """from mmattn.apis import det_inferencer

detect = det_inferencer('{name}')
print(detect('image.jpg')['predictions'])""",
    ),
    mmseg=(
        'Semantic Segmentation',
        """from mmattn.apis import seg_inferencer

segment = seg_inferencer('{name}')
print(segment('image.jpg')['predictions'])""",
    ),
)


class Published(NamedTuple):
    """Facts about a published model.

    Args:
        name: Name of the model.
        codebase: ``'mmdet'``, ``'mmseg'`` or ``'mmpretrain'``.
        backbone: Registered name without the scope.
        data: Data set of training and evaluation.
        files: File names of the config, the .pth and the .safetensors.
        parameters: Number of parameters of the whole model.
        flops: Multiply-adds of one image.
        shape: Height and width of that image in pixels.
        metrics: Measured metrics, with the codebase's names.
        environment: Versions of the packages used, and the device.
        seed: Seed of the training, or None.
        seconds: Duration of the training, or None.
        schedule: Length of the training, such as ``{'Epochs': 25}``.
    """

    name: str
    codebase: str
    backbone: str
    data: str
    files: tuple[str, str, str]
    parameters: int
    flops: int
    shape: tuple[int, int]
    metrics: Mapping[str, float]
    environment: Mapping[str, str]
    seed: int | None
    seconds: float | None
    schedule: Mapping[str, int]


def metafile_entry(model: Published) -> dict[str, Any]:
    """Return the model's entry in a metafile, in MIM's format."""
    metadata: dict[str, Any] = {'Training Data': model.data}
    metadata |= model.schedule
    metadata |= {
        'FLOPs': model.flops,
        'Parameters': model.parameters,
        'Input Size': '{} x {}'.format(*model.shape),
        'Seed': model.seed,
        'Training Time (s)': model.seconds,
        'Environment': ', '.join(
            f'{name} {version}' for name, version in model.environment.items()
        ),
    }
    main, _ = _CODEBASES[model.codebase]
    results: dict[str, dict[str, float]] = {main: {}}
    for key, value in model.metrics.items():
        task, name, factor = _RESULTS.get(key, (main, key, 1))
        # Further digits are rounding noise.
        value = float(f'{factor * value:.6g}')
        results.setdefault(task, {})[name] = value
    return {
        'Name': model.name,
        'In Collection': model.backbone,
        'Config': f'{model.name}/{model.files[0]}',
        'Metadata': {k: v for k, v in metadata.items() if v is not None},
        'Results': [
            {'Task': task, 'Dataset': model.data, 'Metrics': metrics}
            for task, metrics in results.items()
        ],
        'Weights': f'{model.name}/{model.files[1]}',
    }


def write_card(model: Published, path: Path) -> None:
    """Write the README of a model."""
    entry = metafile_entry(model)
    contents = 'config', 'weights and meta', 'weights'
    facts = {k: v for k, v in entry['Metadata'].items() if k != 'Environment'}
    path.write_text(
        f"""# {model.name}

An {model.codebase} model with the backbone `mmattn.{model.backbone}`, trained
and evaluated on {model.data}.

## Results

{_table({k: f'{v:.6g}' for k, v in model.metrics.items()}, 'metric')}

The published file, loaded by name in a separate process, reaches the same
results. Environment: {entry['Metadata']['Environment']}.

## Facts

FLOPs are multiply-adds of one image of the input size.

{_table(facts, 'fact')}

## Files

{_table(dict(zip(model.files, contents)), 'file')}

The last 8 digits of a file name are the first of its sha256; mmattn rejects
modified files.

## Use

Set the environment variable `MMATTN_ZOO` to this zoo, then:

```python
import mmattn
{_CODEBASES[model.codebase][1].format(name=model.name)}
```

```bash
python tools/test.py {model.name} mmattn://{model.name}
```
""",
        encoding='utf-8',
    )


def _table(rows: Mapping[str, object], head: str) -> str:
    lines = [f'| {head} | |', '|---|---|']
    lines += [f'| {key} | {value} |' for key, value in rows.items()]
    return '\n'.join(lines)

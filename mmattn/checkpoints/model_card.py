"""What is said about a published model: its metafile entry and its page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

# Metric of a host -> task and name in metafiles, and what is multiplied.
_RESULTS = {
    'accuracy/top1': ('Image Classification', 'Top 1 Accuracy', 1),
    'accuracy/top5': ('Image Classification', 'Top 5 Accuracy', 1),
    'coco/bbox_mAP': ('Object Detection', 'box AP', 100),
    'coco/segm_mAP': ('Instance Segmentation', 'mask AP', 100),
    'mIoU': ('Semantic Segmentation', 'mIoU', 1),
}
_LOADING = dict(
    mmpretrain="""from mmpretrain import ImageClassificationInferencer

classify = ImageClassificationInferencer('{name}')
print(classify('image.jpg')[0]['pred_class'])""",
    mmdet="""from mmattn.apis import det_inferencer

detect = det_inferencer('{name}')
print(detect('image.jpg')['predictions'])""",
    mmseg="""from mmattn.apis import seg_inferencer

segment = seg_inferencer('{name}')
print(segment('image.jpg')['predictions'])""",
)
_TASKS = dict(
    mmpretrain='Image Classification',
    mmdet='Object Detection',
    mmseg='Semantic Segmentation',
)


class Published(NamedTuple):
    """All that is known of a published model.

    Args:
        name: Of the model.
        host: Codebase of its config: ``'mmdet'``, ``'mmseg'`` or
            ``'mmpretrain'``.
        backbone: Registered name without the scope.
        data: What it was trained and measured on.
        files: Names of the weights: .pth, then .safetensors.
        parameters: Of the whole model.
        flops: Multiply-adds of one image.
        shape: Height and width of that image, in pixels.
        metrics: What was measured, by the host's names.
        environment: What it was measured with, name to version.
        seed: Of the training, or None.
        seconds: Of the training, or None.
        schedule: Such as ``{'Epochs': 25}``.
    """

    name: str
    host: str
    backbone: str
    data: str
    files: tuple[str, str]
    parameters: int
    flops: int
    shape: tuple[int, int]
    metrics: Mapping[str, float]
    environment: Mapping[str, str]
    seed: int | None
    seconds: float | None
    schedule: Mapping[str, int]


def metafile_entry(model: Published) -> dict[str, Any]:
    """Return the entry of ``Models`` in a metafile, as MIM knows it."""
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
    results: dict[str, dict[str, float]] = {_TASKS[model.host]: {}}
    for key, value in model.metrics.items():
        task, name, factor = _RESULTS.get(key, (_TASKS[model.host], key, 1))
        # More digits than these are noise of the arithmetic.
        value = float(f'{factor * value:.6g}')
        results.setdefault(task, {})[name] = value
    return {
        'Name': model.name,
        'In Collection': model.backbone,
        'Config': f'{model.name}/{model.name}.py',
        'Metadata': {k: v for k, v in metadata.items() if v is not None},
        'Results': [
            {'Task': task, 'Dataset': model.data, 'Metrics': metrics}
            for task, metrics in results.items()
        ],
        'Weights': f'{model.name}/{model.files[0]}',
    }


def write_card(model: Published, path: Path) -> None:
    """Write the page of a model: what it is, reaches and needs."""
    entry = metafile_entry(model)
    facts = {k: v for k, v in entry['Metadata'].items() if k != 'Environment'}
    path.write_text(
        f"""# {model.name}

A model of {model.host} on the backbone `mmattn.{model.backbone}`, trained and
measured on {model.data}.

## Measured

{_table({k: f'{v:.6g}' for k, v in model.metrics.items()}, 'metric')}

Measured again from the published file, loaded by name in a process of its
own, with the same result. Environment: {entry['Metadata']['Environment']}.

## Facts

FLOPs are multiply-adds of one image of the size below.

{_table(facts, 'what')}

## Files

{_table(dict(zip(model.files, ('weights and meta', 'tensors alone'))), 'file')}

The last 8 digits of a name are the first of the file's sha256: mmattn refuses
a file that was altered.

## Use

With this zoo in the environment variable `MMATTN_ZOO`:

```python
import mmattn
{_LOADING[model.host].format(name=model.name)}
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

"""Fakes of what the check of a model cannot download or run on a CPU.

They replace the language model of detectors that read a prompt, the
assignment solver of trackers, the model that links tracks, and operations of
mmcv that only run on GPUs. The backbone does not depend on any of them.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

# Channels of BERT, which the heads of these detectors expect.
_CHANNELS = 768


class Words:
    """Prompts split into words; each word is one token.

    Args:
        prompts (Sequence[str]): One for each image.
    """

    def __init__(self, prompts: Sequence[str]) -> None:
        self.spans = [
            [found.span() for found in re.finditer(r'\w+|[^\w\s]', prompt)]
            for prompt in prompts
        ]
        count = max(map(len, self.spans))
        self.input_ids = torch.zeros(len(prompts), count, dtype=torch.long)

    def char_to_token(self, position: int) -> int | None:
        """Index of the word at a character of the first prompt."""
        for index, (start, end) in enumerate(self.spans[0]):
            if start <= position < end:
                return index
        return None


class FakeLanguageModel(nn.Module):
    """Random word embeddings with the interface of mmdet's ``BertModel``.

    Args:
        with_sentences (bool): Return an attention matrix for each prompt and
            do not pad, as Grounding DINO needs.
    """

    pad_to_max = False
    max_tokens = 256

    def __init__(self, with_sentences: bool) -> None:
        super().__init__()
        body = nn.Embedding(self.max_tokens, _CHANNELS)
        body.language_dim = _CHANNELS  # read by the detector
        self.language_backbone = nn.ModuleDict(dict(body=body))
        self.with_sentences = with_sentences

    def tokenizer(self, prompts: Sequence[str], **_: Any) -> Words:
        """Split prompts into words."""
        return Words(prompts)

    def forward(self, prompts: Sequence[str], **_: Any) -> dict[str, Tensor]:
        """Embed prompts, ``(B, L, 768)``."""
        batch, length = Words(prompts).input_ids.shape
        shape = (batch, length, length)
        if not self.with_sentences:
            length = self.max_tokens
            shape = (batch, length)
        positions = torch.arange(length).expand(batch, length)
        embedded = self.language_backbone['body'](positions)
        return dict(
            embedded=embedded,
            hidden=embedded,
            masks=torch.ones(shape, dtype=torch.bool),
            position_ids=positions,
            text_token_mask=torch.ones(batch, length, dtype=torch.bool),
        )


class _FakeBertConfig:
    """The one value that the head of GLIP reads from the config of BERT."""

    @staticmethod
    def from_pretrained(name: str) -> SimpleNamespace:
        """Return it without a download."""
        return SimpleNamespace(hidden_size=_CHANNELS)


def _lapjv(
    cost: np.ndarray, extend_cost: bool, cost_limit: float
) -> tuple[float, np.ndarray, np.ndarray]:
    """Match rows and columns below a cost, as ``lap.lapjv`` does.

    Returns:
        The cost, the column of each row and the row of each column, -1 where
        there is none.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(cost)
    near = cost[rows, columns] <= cost_limit
    rows, columns = rows[near], columns[near]
    column_of, row_of = (np.full(size, -1) for size in cost.shape)
    column_of[rows], row_of[columns] = columns, rows
    return float(cost[rows, columns].sum()), column_of, row_of


def _masked_conv2d(
    features: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor,
    padding: Any = 0,
    stride: Any = 1,
) -> Tensor:
    """Convolve and zero the output outside the mask ``(1, H, W)``."""
    return F.conv2d(features, weight, bias, stride, padding) * (mask > 0)


def _carafe(
    features: Tensor,
    masks: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> Tensor:
    """Upsample ``(B, C, H, W)`` by a weighted sum of neighbours.

    Args:
        masks: ``(B, group_size * kernel_size ** 2, H * scale, W * scale)``.
    """
    batch, channels, height, width = features.shape
    taps = kernel_size**2
    near = F.unfold(features, kernel_size, padding=kernel_size // 2)
    near = near.view(batch, channels * taps, height, width)
    near = F.interpolate(near, scale_factor=scale_factor, mode='nearest')
    height, width = near.shape[2:]
    near = near.view(batch, group_size, -1, taps, height, width)
    weights = masks.view(batch, group_size, 1, taps, height, width)
    return (near * weights).sum(3).flatten(1, 2)


def _deform_roi_pool(
    features: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    gamma: float = 0.1,
) -> Tensor:
    """Pool without offsets; they only take part in the graph."""
    from mmcv.ops import roi_align

    pooled = roi_align(
        features, rois, output_size, spatial_scale, sampling_ratio
    )
    return pooled if offset is None else pooled + 0 * offset.sum()


# Shapes and gradient paths are those of mmcv.
_CPU_OPERATIONS = {
    'masked_conv.masked_conv2d': _masked_conv2d,
    'carafe.carafe': _carafe,
    'deform_roi_pool.deform_roi_pool': _deform_roi_pool,
}


@contextmanager
def fake_dependencies(model: dict, codebase: str) -> Iterator[None]:
    """Let models run that need a download or a GPU operation.

    Args:
        model: Config of the model; parts that are faked are changed in place.
        codebase: Codebase of the model.
    """
    language = model.get('language_model')
    with ExitStack() as stack:
        if codebase == 'mmdet':
            for name, function in _CPU_OPERATIONS.items():
                stack.enter_context(patch(f'mmcv.ops.{name}', function))
        if language:
            sentences = bool(language.get('use_sub_sentence_represent'))
            model['language_model'] = dict(
                type=FakeLanguageModel, with_sentences=sentences
            )
            head = 'mmdet.models.dense_heads.atss_vlfusion_head'
            stack.enter_context(patch(f'{head}.BertConfig', _FakeBertConfig))
            stack.enter_context(patch(f'{head}.BertEncoderLayer', nn.Identity))
        if model.get('postprocess_model'):  # links tracks
            model['postprocess_model'] = dict(type=nn.Identity)
        if model.get('tracker'):
            for tracker in ('byte_tracker', 'ocsort_tracker'):
                solver = SimpleNamespace(lapjv=_lapjv)
                name = f'mmdet.models.trackers.{tracker}.lap'
                stack.enter_context(patch(name, solver))
        yield

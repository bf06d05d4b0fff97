"""Write files that a tool may be given instead of a checkpoint.

Valid checkpoints that were damaged, files of other kinds, and files made to
hang a reader, to fill its memory or to run code.
"""

import io
import json
import pickle
import random
import re
import struct
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from mmattn.backbones import BOATSwin

# Files that hold weights, if of no known model, or whose damage shows in
# nothing: no format but that of archives has checksums.
HARMLESS = re.compile(
    r'\d+_(key_empty|\w+_is_|published_|(flip|twice|more|noise)_|float8|marks'
    r'|(tensor|other)_(dimensions|no_dimensions|cuda|nowhere|quantized|getattr'
    r'|v1|state)|dictionaries|long_number|entries|comment|complex|bool|integer'
    r'|empty_|nan|infinite)'
)
VALUES = bytes(range(64))
GIGA = 1 << 30


def write_checkpoints(folder: Path) -> list[Path]:
    """Write at least 500 files that are no usable checkpoints."""
    paths = []
    for name, content in (*structures(), *damages(), *safetensors()):
        path = folder / f'{len(paths):03}_{name}'
        path.write_bytes(content)
        paths.append(path)
    return paths


# A pickle in parts: bytes stand for themselves.


def op(x: object) -> bytes:
    """Pickle a value; bytes in it are opcodes."""
    if isinstance(x, bytes):
        return x
    if x is None or isinstance(x, bool):
        return {None: b'N', True: b'\x88', False: b'\x89'}[x]
    if isinstance(x, int):
        if -(1 << 31) <= x < 1 << 31:
            return b'J' + struct.pack('<i', x)
        data = x.to_bytes(x.bit_length() // 8 + 1, 'little', signed=True)
        return b'\x8a' + bytes([len(data)]) + data
    if isinstance(x, float):
        return b'G' + struct.pack('>d', x)
    if isinstance(x, str):
        data = x.encode('utf-8', 'surrogatepass')
        return b'X' + struct.pack('<I', len(data)) + data
    if isinstance(x, tuple):
        return b'(' + b''.join(map(op, x)) + b't'
    if isinstance(x, list):
        return b'](' + b''.join(map(op, x)) + b'e'
    items = b''.join(op(key) + op(value) for key, value in x.items())
    return b'}(' + items + b'u'


def name(path: str) -> bytes:
    module, _, leaf = path.rpartition('.')
    return f'c{module}\n{leaf}\n'.encode()


def call(path: str, *args: object) -> bytes:
    return name(path) + op(args) + b'R'


def storage(
    key: object = '0',
    numel: int = 16,
    kind: str = 'torch.FloatStorage',
    location: str = 'cpu',
) -> bytes:
    return op(('storage', name(kind), key, location, numel)) + b'Q'


def tensor(
    size: object = (4, 4),
    stride: object = (4, 1),
    offset: object = 0,
    values: bytes | None = None,
    function: str = 'torch._utils._rebuild_tensor_v2',
) -> bytes:
    hooks = call('collections.OrderedDict')
    values = storage() if values is None else values
    return call(function, values, offset, size, stride, False, hooks)


def zipped(
    body: bytes,
    entries: dict[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    """An archive of torch.save with this pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', compression) as archive:
        archive.writestr('a/data.pkl', b'\x80\x02' + body + b'.')
        archive.writestr('a/byteorder', b'little')
        for key, content in (entries or {'data/0': VALUES}).items():
            archive.writestr(f'a/{key}', content)
        archive.writestr('a/version', b'3\n')
    return file.getvalue()


def legacy(body: bytes) -> bytes:
    """A file of torch.save before 1.6 with this pickle."""
    body = body.replace(b'tQ', b'NtQ')  # storages have a view, here none
    sizes = dict(short=2, int=4, long=4)
    info = dict(protocol_version=1001, little_endian=True, type_sizes=sizes)
    head = (0x1950A86A20F9469CFC6C, 1001, info)
    return (
        b''.join(pickle.dumps(x, 2) for x in head)
        + (b'\x80\x02' + body + b'.')
        + pickle.dumps(['0'], 2)
        + struct.pack('<q', 16)
        + VALUES
    )


def saved(content: object, **options: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def bodies() -> Iterator[tuple[str, bytes]]:
    """Pickles that are structurally wrong or hostile."""
    good = tensor()
    # Of dictionaries, keys and wrappers.
    yield 'contains_itself', b'}q\x00' + op('state_dict') + b'h\x00s'
    yield 'list_of_itself', b']q\x00h\x00a'
    yield (
        'weights_contain_themselves',
        b'}q\x00' + op('model') + (op({'a': good, 'model': b'h\x00'}) + b's'),
    )
    for label, key in {
        'blocks': 'stages.0.blocks.999999999.x',
        'stages': 'stages.999999999.blocks.0.norm1.weight',
        'layers': 'layers.0.blocks.999999999.attnC.x',
        'module': 'module.' * 100_000 + 'x',
        'orig_mod': '_orig_mod.' * 50_000,
        'dots': '.' * 100_000,
        'long': 'k' * 10_000_000,
        'wide': '\U0001f600' + 'k' * 1_000_000,
        'escape': 'backbone.\x1b]0;owned\x07\x1b[2J.weight',
        'newline': 'backbone.\nerror: none\n.weight',
        'zero': 'backbone.\0.weight',
        'surrogate': 'backbone.\ud800.weight',
        'right_to_left': 'backbone.\u202egnp.weight',
        'empty': '',
        'none': None,
        'integer': 7,
        'float': 0.5,
        'tuple': ('a', 1),
        'nan': float('nan'),
        'bytes': call('_codecs.encode', 'a', 'latin1'),
        'tensor': good,
        'dictionary': op({}),
        'storage': storage(),
        'class': name('torch.Tensor'),
    }.items():
        yield f'key_{label}', op({key: good})
        yield f'key_{label}_inside', op({'state_dict': {key: good, 'a': good}})
    for label, value in {
        'list': [good],
        'tensor': good,
        'none': None,
        'number': 3,
        'text': 'weights',
        'tuple': (good,),
        'storage': storage(),
        'class': name('torch.Size'),
        'empty': {},
        'set': call('builtins.set', ['a']),
        'mapping': {'a': 1},
        'integers': {0: good},
    }.items():
        whole = dict(
            meta=dict(epoch=1, iter=10, seed=0),
            state_dict={'a': good},
            message_hub=dict(log_scalars={}, runtime_info={}),
            optimizer=dict(state={}, param_groups=[]),
        )
        yield f'is_{label}', op(value)
        for place in whole:
            yield f'{place}_is_{label}', op(whole | {place: value})
        yield f'tensor_is_{label}', op({'a': good, 'backbone.a': value})
    # Of tensors.
    for label, data in {
        'stride_0': tensor((GIGA, GIGA), (0, 0)),
        'stride_0_medium': tensor((20, 1 << 20), (0, 0)),
        'beyond': tensor((4, 4), (4, 1), 5),
        'negative_size': tensor((-4, 4)),
        'negative_stride': tensor((4, 4), (-4, 1)),
        'negative_offset': tensor((2, 2), (2, 1), -8),
        'huge': tensor((1 << 62, 4), (1, 1)),
        'overflow': tensor((1 << 40, 1 << 40), (1 << 40, 1)),
        'dimensions': tensor((1,) * 500, (1,) * 500),
        'no_dimensions': tensor((), ()),
        'lengths': tensor((4, 4), (1,)),
        'float_size': tensor((4.0, 4), (4, 1)),
        'list_size': tensor([4, 4], [4, 1]),
        'text_size': tensor('ab', 'ab'),
        'none': tensor(values=op(None)),
        'numel': tensor(values=storage(numel=GIGA)),
        'negative_numel': tensor(values=storage(numel=-1)),
        'missing_key': tensor(values=storage('1')),
        'path_key': tensor(values=storage('../data.pkl')),
        'number_key': tensor(values=storage(0)),
        'meta': tensor(values=storage(location='meta')),
        'cuda': tensor(values=storage(location='cuda:7')),
        'nowhere': tensor(values=storage(location='\x1b[2J')),
        'double': tensor(values=storage(kind='torch.DoubleStorage')),
        'quantized': tensor(values=storage(kind='torch.QInt8Storage')),
        'unknown': tensor(values=storage(kind='torch.NoStorage')),
        'cuda_kind': tensor(values=storage(kind='torch.cuda.FloatStorage')),
        'not_persistent': tensor(values=op('0') + b'Q'),
        'short_persistent': tensor(values=op(('storage',)) + b'Q'),
        'v1': call('torch._utils._rebuild_tensor', storage(), 0, (GIGA,), (0,))
        + b'',
        'v3': call(
            'torch._utils._rebuild_tensor_v3',
            *(storage(kind='torch.storage.UntypedStorage', numel=64), 0),
            *((GIGA, 1), (0, 1), False, call('collections.OrderedDict')),
            *(name('torch.float32'), {}),
        ),
        'bits': call(
            'torch._utils._rebuild_tensor_v3',
            *(storage(kind='torch.storage.UntypedStorage', numel=64), 0),
            *((4,), (1,), False, call('collections.OrderedDict')),
            *(name('torch.bits8'), {}),
        ),
        'typed': call(
            'torch._tensor._rebuild_from_type_v2',
            name('torch._utils._rebuild_tensor_v2'),
            name('torch.Tensor'),
            (storage(), 0, (GIGA, GIGA), (0, 0), False, {}),
            {},
        ),
        'state': name('torch.Tensor')
        + b')\x81'
        + op((storage(), 0, (GIGA,), (0,)))
        + b'b',
        'allocated': call('torch.Tensor', 1 << 20, 1 << 14),
        'untyped': call('torch.storage.UntypedStorage', 10 * GIGA),
        'typed_allocated': call(
            'torch._tensor._rebuild_from_type_v2',
            *(name('torch.Tensor'), name('torch.Tensor')),
            *((1 << 20, 1 << 14), {}),
        ),
        'storage_of_size': call('torch.FloatStorage', 10 * GIGA),
        'numpy': call('numpy.ndarray', (10 * GIGA,)),
        'reconstruct': call(
            'numpy.core.multiarray._reconstruct',
            *(name('numpy.ndarray'), (10 * GIGA,), 'b'),
        ),
        'bytearray': call('builtins.bytearray', 100 * GIGA),
        'parameter': call('torch.nn.parameter.Parameter', 3),
        'idna': call('_codecs.encode', 'a.' * 100_000, 'idna'),
        'getattr': call('builtins.getattr', name('torch.Tensor'), '__doc__'),
        'called': op(good) + b')R',
    }.items():
        yield f'tensor_{label}', op({'backbone.a': data})
        yield f'other_{label}', op({'backbone.a': good, 'other': data})
    # Of the format.
    laughs = b']q\x00' + b''.join(
        b'](' + b'h%c' % i * 9 + b'eq%c' % (i + 1) for i in range(60)
    )
    yield 'laughs', op({'a': good, 'b': laughs})
    yield (
        'collisions',
        op({'a': good, 'b': {i * (2**61 - 1): 0 for i in range(30_000)}}),
    )
    nested = b')' + b'\x85' * 100_000
    yield 'nested_tuples', op({'a': good, 'b': nested})
    yield 'nested_key', op({'a': good, 'b': {nested: 1}})
    yield 'nested_set', op({'a': good, 'b': call('builtins.set', [nested])})
    yield 'nested_lists', op({'a': good, 'b': b']' * 100_000 + b'a' * 99_999})
    deep = op('model').join([b'}'] * 2001) + b's' * 2000
    yield 'nested_models', deep
    wide = b')q\x00' + b''.join(b'h\x00' * 3 + b'\x87q\x00' for _ in range(60))
    yield 'exponential_key', op({'a': good, 'b': {wide: 1}})
    yield 'memo', b'}r\xff\xff\xff\xff'
    yield 'marks', b'(' * 400_000 + op({'a': good})
    yield 'nothing', b'N' * 1_500_000 + op({'a': good})
    yield 'dictionaries', b'}' * 400_000 + op({'a': good})
    yield 'empty_stack', b''
    yield 'empty_mark', b't'
    yield 'no_memo', b'h\x07'
    yield 'odd_items', b'}(' + op('a') + b'u'
    yield 'items_of_list', b'](' + op('a') + op('b') + b'u'
    yield 'opcode', b'\x95' + bytes(8) + op({'a': good})
    yield 'text_number', b'I' + b'9' * 1_000_000 + b'\n'
    yield 'long_number', op({'a': good, 'b': b'\x8a\xff' + b'\x7f' * 255})
    yield 'long_text', b'X\xff\xff\xff\xffabc'
    yield 'global_line', b'c' + b'x' * 1_000_000
    yield 'same_key', op({'a': good, 'b': 1})[:-1] + op('a') + op(3) + b'u'
    yield 'many', op({f'k{i}': good for i in range(40_000)})
    for function in ('os.system', 'posix.system', 'builtins.eval'):
        yield function, op({'a': good, 'b': call(function, 'touch owned')})
    for function in (
        'torch._utils._rebuild_sparse_tensor',
        'torch._utils._rebuild_qtensor',
        'torch._utils._rebuild_meta_tensor_no_storage',
        'torch._utils._rebuild_nested_tensor',
        'torch._utils._rebuild_wrapper_subclass',
        'torch._utils._rebuild_device_tensor_from_numpy',
        'torch._utils._rebuild_parameter',
        'torch.sparse.FloatTensor',
        'torch.load',
        'mmengine.config.Config.fromfile',
        '\x1b[2J.system',
    ):
        yield function.replace('\x1b', ''), op({'a': call(function, good)})


def structures() -> Iterator[tuple[str, bytes]]:
    """Hostile pickles in both formats, and hostile archives."""
    for label, body in bodies():
        yield f'{label}.pth', zipped(body)
        if len(body) < 1_000_000:
            yield f'{label}_legacy.pth', legacy(body)
    good = op({'backbone.a': tensor()})
    bomb = bytes(60 << 20)
    deflate = zipfile.ZIP_DEFLATED
    yield 'bomb_pickle.pth', zipped(good + b'N' * len(bomb), None, deflate)
    yield 'bomb_values.pth', zipped(good, {'data/0': bomb}, deflate)
    yield 'bomb_unused.pth', zipped(good, {'x': bomb}, deflate)
    names = {f'x{i}': b'' for i in range(60_000)}
    yield 'entries.pth', zipped(good, names | {'data/0': VALUES})
    plain = zipped(good)
    end = plain.rindex(b'PK\x05\x06')
    yield 'comment.pth', plain[:-2] + b'\x09\x00comment!\n'
    yield 'prefix.pth', b'x' * 100 + plain
    yield (
        'directory_size.pth',
        (plain[: end + 12] + b'\xff\xff\xff\xfe' + plain[end + 16 :]),
    )
    start = plain.index(b'PK\x01\x02')
    for label, place, value in (
        ('size', 24, b'\xff\xff\xff\x7f'),
        ('offset', 42, b'\xff\xff\xff\x7f'),
        ('encrypted', 8, b'\x01\x00'),
        ('method', 10, b'\x63\x00'),
        ('name_length', 28, b'\xff\x7f'),
    ):
        place += start
        yield (
            f'entry_{label}.pth',
            (plain[:place] + value + plain[place + len(value) :]),
        )
    yield 'upper_case.pth', zipped(good, {'DATA.PKL': good, 'data/0': VALUES})
    yield 'two_pickles.pth', zipped(good, {'b/data.pkl': b'N.'})
    yield 'no_values.pth', zipped(good, {'x': b''})
    yield 'program.pth', zipped(good, {'constants.pkl': b'N.'})
    # Tensors of other kinds.
    ones = torch.ones(3, 3)
    for label, value in {
        'sparse': ones.to_sparse(),
        'sparse_rows': ones.to_sparse_csr(),
        'meta': torch.empty(3, device='meta'),
        'quantized': torch.quantize_per_tensor(ones, 0.1, 0, torch.qint8),
        'nested': torch.nested.nested_tensor([ones, ones[:2]]),
        'complex': ones.to(torch.complex64),
        'bool': ones.bool(),
        'integer': ones.long(),
        'float8': ones.to(torch.float8_e5m2),
        'nan': ones * float('nan'),
        'infinite': ones / 0,
        'empty': torch.empty(0, 3),
        'module': torch.nn.Linear(2, 2),
    }.items():
        for form in (True, False):
            state = dict(state_dict={'backbone.a': value})
            with suppress(KeyError, RuntimeError):  # old torch saves less
                yield (
                    f'{label}_{form}.pth',
                    saved(state, _use_new_zipfile_serialization=form),
                )
    for label, state in published():
        yield f'published_{label}.pth', saved(state)
    # Files of other kinds.
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode='w') as archive:
        archive.addfile(tarfile.TarInfo('storages'))
    yield 'tar.pth', file.getvalue()
    file = io.BytesIO()
    np.savez(file, a=np.ones(3))
    yield 'arrays.pth', file.getvalue()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield f'pickle_{protocol}.pth', pickle.dumps(dict(a=1), protocol)
    yield 'empty.pth', b''
    yield 'text.pth', b'version https://git-lfs.github.com/spec/v1\n'
    yield 'page.pth', b'<!DOCTYPE html>\n<html>\xc3\xa4</html>\n'
    yield 'escapes.pth', b'\x1b[2J\x1b]0;owned\x07'
    yield 'picture.pth', b'\x89PNG\r\n\x1a\n' + bytes(100)
    yield 'zeros.pth', bytes(100_000)
    yield 'noise.pth', random.Random(0).randbytes(10_000)


def published() -> Iterator[tuple[str, dict]]:
    """State dicts in the names of known formats with wrong tensors."""
    marks = {
        'mmattn': ('stem.proj.weight', 'stages.0.blocks.0.attn.qkv.weight'),
        'boat_swin': ('patch_embed.proj.weight', 'layers.0.blocks.0.attnC.x'),
        'swin': (
            'patch_embed.proj.weight',
            'layers.0.blocks.0.attn.relative_position_bias_table',
        ),
        'torchvision': (
            'features.0.0.weight',
            'features.1.0.attn.relative_position_bias_table',
        ),
        'openmmlab': (
            'patch_embed.projection.weight',
            'stages.0.blocks.0.attn.w_msa.relative_position_bias_table',
            'stages.0.downsample.reduction.weight',
        ),
        'cswin': (
            'stage1_conv_embed.0.weight',
            'stage1.0.attns.0.get_v.weight',
        ),
        'boat_cswin': (
            'stage1_conv_embed.0.weight',
            'stage1.0.attns.0.get_v.weight',
            'stage1.0.attns.1.get_v.weight',
            'stage1.0.content_attn.qkv.weight',
        ),
        'smt': (
            'patch_embed1.conv.0.weight',
            'block1.0.attn.q.weight',
            'block1.0.attn.kv.weight',
            'patch_embed1.conv.1.weight',
        ),
        'perspective': (
            'Encoder1.layers.0.resblock.conv1.weight',
            'Encoder2.stages.0.attn.in_proj_weight',
            'scale_integrator.transformer.norm.weight',
        ),
        'enlca': ('conv_match1.0.weight', 'attn_fn.projection_matrix'),
    }
    for label, keys in marks.items():
        for size in ((), (0,), (3,), (2, 0), (4, 4), (2, 3, 7, 7)):
            shape = 'x'.join(map(str, size))
            yield f'{label}_{shape}', dict.fromkeys(keys, torch.ones(size))
    whole = BOATSwin('nano').state_dict()
    yield 'cut', dict(list(whole.items())[::2])
    yield 'flat', {key: value.flatten() for key, value in whole.items()}
    yield 'scalars', {key: torch.ones(()) for key in whole}
    yield 'integers', {key: value.long() for key, value in whole.items()}
    yield 'nan', {key: value * float('nan') for key, value in whole.items()}
    far = {'stages.0.blocks.9999.norm1.weight': torch.ones(1)}
    yield 'far_block', whole | far
    metadata = OrderedDict(whole)
    metadata._metadata = [1]
    yield 'metadata', {'state_dict': metadata}


def damages() -> Iterator[tuple[str, bytes]]:
    """A valid checkpoint, truncated and with changed bytes."""
    rng = random.Random(1)
    state = {f'backbone.{i}.weight': torch.rand(5, 5) for i in range(4)}
    whole = dict(state_dict=state, meta=dict(epoch=1, iter=2))
    for suffix, content in (
        ('zip.pth', saved(whole)),
        ('legacy.pth', saved(whole, _use_new_zipfile_serialization=False)),
        ('x.safetensors', save(state)),
    ):
        for _ in range(12):
            yield f'cut_{suffix}', content[: rng.randrange(len(content))]
        for _ in range(24):
            changed = bytearray(content)
            changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            yield f'flip_{suffix}', bytes(changed)
        for _ in range(6):
            changed = bytearray(content)
            place = rng.randrange(len(content))
            changed[place : place + 64] = rng.randbytes(64)
            yield f'noise_{suffix}', bytes(changed)
        place = len(content) // 2
        yield f'hole_{suffix}', content[:place] + content[place + 16 :]
        yield f'twice_{suffix}', content * 2
        yield f'more_{suffix}', content + VALUES


def safetensors() -> Iterator[tuple[str, bytes]]:
    """Files of safetensors with wrong headers."""
    good = dict(dtype='F32', shape=[4, 4], data_offsets=[0, 64])
    for label, entry in {
        'beyond': good | dict(data_offsets=[0, 640]),
        'far': good | dict(data_offsets=[1 << 60, 1 << 61]),
        'negative': good | dict(data_offsets=[-64, 0]),
        'reversed': good | dict(data_offsets=[64, 0]),
        'shape': good | dict(shape=[400, 400]),
        'large_shape': good | dict(shape=[1 << 40, 1 << 40]),
        'dtype': good | dict(dtype='F33'),
        'float4': good | dict(dtype='F4', shape=[128]),
        'float8': good | dict(dtype='F8_E8M0', shape=[64]),
        'offsets': good | dict(data_offsets=[0]),
        'no_shape': dict(dtype='F32'),
        'list': [1],
        'none': None,
    }.items():
        yield f'{label}.safetensors', with_header({'backbone.a': entry})
    for label, key in {
        'escape': '\x1b[2J',
        'zero': '\0',
        'long': 'k' * 1_000_000,
        'empty': '',
        'blocks': 'stages.0.blocks.999999999.x',
        'metadata': '__metadata__',
    }.items():
        yield f'key_{label}.safetensors', with_header({key: good})
    yield 'overlap.safetensors', with_header(dict(a=good, b=good))
    none = dict(dtype='F32', shape=[0], data_offsets=[0, 0])
    many = {f'k{i}': none for i in range(120_000)}
    yield 'many.safetensors', with_header(many, b'')
    yield 'nested.safetensors', with_header(b'[' * 100_000)
    yield 'not_json.safetensors', with_header(b'\xff' * 100)
    yield 'is_list.safetensors', with_header([good])
    yield 'no_tensors.safetensors', with_header({})
    yield 'spaces.safetensors', with_header(b' ' * (21 << 20))
    for size in (0, 1, 1 << 31, (1 << 63) + 5, (1 << 64) - 1):
        yield f'header_{size}.safetensors', struct.pack('<Q', size) + b'{}'
    yield 'short.safetensors', b'\x01'
    yield 'pickle.safetensors', saved(dict(a=torch.ones(1)))


def with_header(header: object, values: bytes = VALUES) -> bytes:
    if not isinstance(header, bytes):
        header = json.dumps(header).encode()
    return struct.pack('<Q', len(header)) + header + values


def pictures() -> Iterator[tuple[str, bytes]]:
    """Images that are damaged or decode to gigabytes."""
    file = io.BytesIO()
    Image.new('RGB', (40, 30)).save(file, 'PNG')
    good = file.getvalue()
    for width, height, depth, color, pixels in (
        (60_000, 60_000, 8, 2, b''),
        (1 << 31, 1, 8, 2, b''),
        (0, 5, 8, 2, b''),
        (11_000, 11_000, 1, 0, bytes(11_000 * 1376)),  # 363 MB as RGB
    ):
        header = struct.pack('>II5B', width, height, depth, color, 0, 0, 0)
        yield (
            f'{width}x{height}.png',
            (
                good[:8]
                + chunk(b'IHDR', header)
                + chunk(b'IDAT', zlib.compress(pixels))
                + chunk(b'IEND', b'')
            ),
        )
    yield 'cut.png', good[:-20]
    yield 'flip.png', good[:50] + bytes([good[50] ^ 255]) + good[51:]
    yield 'empty.png', b''
    yield 'text.png', b'no image\x1b[2J'
    bomb = zlib.compress(bytes(100 << 20), 1)
    text = chunk(b'iTXt', b'k\0\1\0\0\0' + bomb)
    yield 'text_bomb.png', good[:33] + text + good[33:]


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG file."""
    check = struct.pack('>I', zlib.crc32(kind + content))
    return struct.pack('>I', len(content)) + kind + content + check


def texts() -> Iterator[tuple[str, bytes]]:
    """Metrics, logs and metafiles with wrong content."""
    yield 'empty', b''
    yield 'overflow', b'{"loss": 1e999, "step": 1e400, "epoch": 1, "a": 1e999}'
    yield 'integer', b'{"loss": %s, "step": 1}' % (b'9' * 5000)
    yield 'large', b'{"loss": %s, "step": 1}' % (b'9' * 400)
    yield 'nan', b'{"loss": NaN, "step": -Infinity}'
    yield 'text_value', b'{"loss": "high", "step": "x\x1b"}'
    yield 'no_step', b'{"loss": 1.0}'
    yield 'list_value', b'{"loss": [1], "step": [2]}'
    yield 'list', b'[1, 2]'
    yield 'number', b'7'
    yield 'cut', b'{"loss": 1.0, "st'
    yield 'nested', b'[' * 200_000
    yield 'nested_items', b'{"a":' * 200_000
    yield 'not_utf8', b'\xff\xfe{"loss": 1}'
    yield 'zeros', bytes(1000)
    yield (
        'laughs',
        b'a: &a [x]\n'
        + b''.join(
            b'%c: &%c [%s]\n' % (i, i, b','.join([b'*%c' % (i - 1)] * 9))
            for i in range(98, 122)
        )
        + b'Models: [*y]\nImport: [*y]\n',
    )
    yield 'itself', b'Models: &a [*a]\nImport: &b [*b]\n'
    yield 'import_itself', b'Import: [model-index.yml, metafile.yml]\n'
    yield 'import_number', b'Import: [7]\n'
    yield 'tag', b'Models: !!python/object/apply:os.system [touch owned]\n'
    yield 'models', b'Models: [[], 7, {Name: 3, Config: 4}]\n'
    yield 'entry', b'Models: [{Name: mine, Config: mine.py, Weights: 7}]\n'
    yield 'result', b'Models: [{Name: mine, Config: x, Results: [7]}]\n'
    yield 'escape', b'Models: [{Name: "\\e[2J", Config: x, Results: [7]}]\n'
    yield (
        'outside',
        b'Models: [{Name: mine, Config: /etc/passwd, Weights: ..}]\n',
    )

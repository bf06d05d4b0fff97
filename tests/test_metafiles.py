"""The model index is valid, and says what the pages of the configs say."""

import re
from pathlib import Path

import pytest

from mmattn.zoo import read_index, read_yaml

ROOT = Path(__file__).resolve().parents[1]
INDEX = ROOT / 'model-index.yml'
METAFILES = sorted((ROOT / 'configs').glob('*/metafile.yml'))
# Heads of columns in the pages -> names in metafiles.
METRICS = {
    'top-1': 'Top 1 Accuracy',
    'top-5': 'Top 5 Accuracy',
    'box AP': 'box AP',
    'box mAP': 'box AP',
    'mask AP': 'mask AP',
    'mask mAP': 'mask AP',
    'mIoU': 'mIoU',
    'mIoU, scales and flip': 'mIoU(ms+flip)',
    'mIoU, multi-scale': 'mIoU(ms+flip)',
}
NO_FIGURE = ('', '-', 'not measured')


def read_tables(text):
    """Rows of all tables, each a dict from the column's head to the cell."""
    for table in re.findall(r'(?:^\|.*\|\n)+', text + '\n', re.MULTILINE):
        lines = [
            [cell.strip() for cell in line.strip('|').split('|')]
            for line in table.splitlines()
        ]
        yield from (dict(zip(lines[0], line)) for line in lines[2:])


def page_figures(text):
    """Figures of a page by config, as written, and where they come from."""
    found = {}
    for row in read_tables(text):
        configs = re.findall(r'\(([\w.-]+)\.py\)', ' '.join(row.values()))
        if len(configs) != 1:  # an overview, or a baseline
            continue
        figures = {}
        for heads, cells in row.items():
            # 'box mAP / mask mAP' has two in each cell.
            for head, cell in zip(heads.split(' / '), cells.split(' / ')):
                if head in METRICS and cell not in NO_FIGURE:
                    figures[METRICS[head]] = cell
        if figures:
            found[configs[0]] = figures, row.get('source', '')
    return found


def forms(value, digits=3):
    """A percentage as a page may write it, in full or as a fraction."""
    yield from (f'{value:.{n}f}' for n in range(digits))
    yield from (f'{value / 100:.{n}f}' for n in range(2, digits + 2))


def metafile_figures(path):
    return {
        model['Name']: {
            name: value
            for result in model.get('Results') or ()
            for name, value in (result.get('Metrics') or {}).items()
        }
        for model in read_yaml(path)['Models']
    }


@pytest.fixture(params=METAFILES, ids=lambda path: path.parent.name)
def metafile(request):
    return request.param


def test_the_index_names_every_metafile_once():
    named = [ROOT / name for name in read_yaml(INDEX)['Import']]
    assert named == METAFILES


def test_every_config_of_the_index_exists():
    models = read_index(INDEX)
    assert len(models) > 50
    for model in models:
        assert model.config.is_file(), model.config
        assert model.tasks, model.name


def test_mmpretrain_registers_the_whole_index(monkeypatch):
    from mmpretrain.apis.model import ModelHub

    monkeypatch.setattr(ModelHub, '_models_dict', {})
    ModelHub.register_model_index(INDEX, ROOT)
    assert set(ModelHub._models_dict) == {m.name for m in read_index(INDEX)}
    for model in ModelHub._models_dict.values():
        assert Path(model.config).is_file()
        assert model.results, model.name


def test_mim_makes_a_table_of_the_index(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))  # it makes a folder there
    search = pytest.importorskip(
        'mim.commands.search', reason='needs `pip install onedl-mim`'
    )
    from modelindex.load_model_index import load

    monkeypatch.chdir(ROOT)
    index = load(str(INDEX))
    table = search.convert2df(index)
    assert set(table.index) == {model.name for model in read_index(INDEX)}
    assert table['config'].notna().all()


def test_figures_of_page_and_metafile_agree(metafile):
    text = metafile.with_name('README.md').read_text()
    page = page_figures(text)
    for name, figures in metafile_figures(metafile).items():
        told = page.get(name, ({}, ''))[0]
        if told:  # in a row of its own
            assert set(told) == set(figures), name
        for metric, value in figures.items():
            if metric in told:
                assert told[metric] in forms(value), (name, metric)
            else:  # in a table of another kind
                assert any(form in text for form in forms(value)), name


def test_every_figure_says_where_it_comes_from(metafile):
    page = page_figures(metafile.with_name('README.md').read_text())
    for name, (_, source) in page.items():
        assert re.match('reported (by|in) |measured', source), name


def test_reported_figures_are_marked_in_the_metafile_too(metafile):
    page = page_figures(metafile.with_name('README.md').read_text())
    if any(source.startswith('reported') for _, source in page.values()):
        head = metafile.read_text().split('Collections:')[0]
        assert 'report' in head and 'README.md' in head


def test_pages_with_figures_are_read():
    smt = page_figures((ROOT / 'configs/smt/README.md').read_text())
    assert smt['smt-tiny_8xb128-300e_in1k'] == (
        {'Top 1 Accuracy': '82.2', 'Top 5 Accuracy': '96.0'},
        'reported by the repository',
    )


def test_a_figure_is_recognised_in_both_ways_of_writing():
    assert {'70.2', '70.20', '0.702'} <= set(forms(70.2))
    assert '70.3' not in forms(70.2) and '0.703' not in forms(70.2)

"""Pages link to what exists, and both READMEs say the same."""

import re
from pathlib import Path

import pytest

from mmattn.registry import MODELS

ROOT = Path(__file__).parents[1]
PAGES = [
    path
    for folder in ('.', 'configs', 'docs', 'tests/golden')
    for path in sorted(
        (ROOT / folder).glob('**/*.md' if folder != '.' else '*.md')
    )
]
READMES = [
    (ROOT / name).read_text() for name in ('README.md', 'README_zh-CN.md')
]
CODE = re.compile(r'^```(\w*)\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    'page', PAGES, ids=lambda page: str(page.relative_to(ROOT))
)
def test_page(page):
    text = page.read_text()
    assert not re.search(r'@@|<!--|TODO|TBD', text)
    for link in re.findall(r'\]\(([^)#\s]+)[^)]*\)', text):
        if '://' not in link:
            assert (page.parent / link).exists(), link
    for path in re.findall(
        r'(?<![\w/.-])((?:tools|configs)/[\w./-]+\.\w+)', text
    ):
        assert (ROOT / path).exists(), path


def sections(text):
    """The text below each heading, without code blocks, by level."""
    text = CODE.sub('', text)
    parts = re.split(r'^(#+) .*\n', text, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2]))


def test_readme_is_short():
    assert len(READMES[0].splitlines()) <= 200


def test_readmes_have_the_same_headings():
    english, chinese = map(sections, READMES)
    assert [level for level, _ in english] == [level for level, _ in chinese]


def test_readmes_have_the_same_code():
    english, chinese = (
        [
            (language, re.sub(r' *#.*', '', code))
            for language, code in CODE.findall(text)
        ]
        for text in READMES
    )
    assert len(english) >= 6
    assert english == chinese


def test_readmes_have_the_same_numbers_names_and_links():
    pattern = r'\]\([^)]*\)|`[^`]+`|\d+(?:\.\d+)*(?:e-\d+)?'
    english, chinese = (
        [sorted(re.findall(pattern, part)) for _, part in sections(text)]
        for text in (
            text.replace('README_zh-CN.md', 'README.md') for text in READMES
        )
    )
    assert english == chinese


def test_readmes_have_the_same_tables():
    english, chinese = (
        [line.count('|') for line in text.splitlines() if line[:1] == '|']
        for text in READMES
    )
    assert len(english) >= 30
    assert english == chinese


def test_results_of_the_tests():
    report = (ROOT / 'docs' / 'tests.md').read_text()
    counts = r'(\d+) passed, (\d+) skipped'
    found = re.findall(rf'\*\*{counts}, 0 failed\*\*', report)
    assert len(found) == 2
    (row,) = re.findall(r'^\| \[tests\].*', READMES[0], re.MULTILINE)
    assert re.findall(counts, row) == found


@pytest.mark.parametrize('text', READMES, ids=['en', 'zh'])
def test_channels_of_every_arch(text):
    MODELS.import_from_location()
    found = {}
    for line in text.splitlines():
        row = re.fullmatch(r'\|(.*)\| ([\w, -]+) \| ([\d, ]{9,}) \|', line)
        if row is None:
            continue
        if '`' in row[1]:
            name = re.search(r'mmattn\.(\w+)', row[1])[1]
        for arch in row[2].split(', '):
            found[name, arch] = tuple(map(int, row[3].split(', ')))
    expected = {}
    for name, cls in MODELS.module_dict.items():
        for arch, sizes in getattr(cls, 'arch_zoo', {}).items():
            levels = 5 if name == 'PerspectiveEncoder' else 4
            width = sizes['embed_dims']
            expected[name, arch] = tuple(width * 2**i for i in range(levels))
    assert found == expected

"""Pages hold no blanks, and what they link to exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    path
    for folder in ('.', 'configs', 'docs', 'tests/golden')
    for path in sorted(
        (ROOT / folder).glob('**/*.md' if folder != '.' else '*.md')
    )
]


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

"""Record the result of the tests with one stack in docs/tests.md.

    bash tools/run_tests.sh --junit-xml=work_dirs/tests.xml
    PYTHONPATH=. python tools/dev/test_report.py work_dirs/tests.xml

Activate the environment that ran the tests first. The tool replaces the
section of the installed stack and keeps the other one.
"""

import argparse
import platform
import re
import subprocess
import xml.etree.ElementTree as ET
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from mmattn.stack import find_installed

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs' / 'tests.md'
# Differ from test to test and say nothing about why it is skipped.
DETAILS = re.compile(r'\d[\d.]{5,}|0x\w+|/\S+')
HEADER = """# Test results

The last complete run of the tests with each stack. To repeat one:

```bash
bash tools/run_tests.sh --junit-xml=work_dirs/tests.xml
MMATTN_STACK=openmmlab bash tools/run_tests.sh --junit-xml=work_dirs/tests.xml
```

Then activate the environment that ran the tests and replace its section here:

```bash
PYTHONPATH=. python tools/dev/test_report.py work_dirs/tests.xml
```
"""


def render(report: ET.Element, stack: str, setup: str) -> str:
    """A section of the page.

    Args:
        report: The root of a JUnit report of pytest.
        stack: Name of the stack.
        setup: Versions and commit of the run.
    """
    cases = list(report.iter('testcase'))
    failures = sum(
        case.find(kind) is not None
        for case in cases
        for kind in ('failure', 'error')
    )
    reasons = Counter(
        DETAILS.sub('...', ' '.join(skip.get('message', '').split()))
        for case in cases
        if (skip := case.find('skipped')) is not None
    )
    skipped = reasons.total()
    rows = (f'| {why} | {n} |' for why, n in reasons.most_common())
    return '\n'.join(
        (
            f'## {stack}\n',
            f'{setup}: **{len(cases) - failures - skipped} passed, {skipped} '
            f'skipped, {failures} failed**.\n',
            '| reason to skip | tests |',
            '|---|---|',
            *rows,
            '',
        )
    )


def describe_setup() -> tuple[str, str]:
    """The installed stack, and the versions and the commit of a run."""
    installed = find_installed()
    versions = {'Python': platform.python_version()}
    for name in ('torch', 'torchvision', 'numpy'):
        versions[name] = version(name).partition('+')[0]
    versions.update((x.distribution, x.version) for x in installed)
    commit = subprocess.check_output(
        ['git', 'log', '-1', '--format=commit %h of %cs'], cwd=ROOT, text=True
    )
    listed = ', '.join(f'{name} {v}' for name, v in versions.items())
    return installed[0].stack, f'{listed}; {commit.strip()}'


def replace_section(page: str, stack: str, section: str) -> str:
    """Put a section into the page, which keeps those of other stacks."""
    sections = {
        part.partition('\n')[0]: f'## {part}'.rstrip() + '\n'
        for part in page.split('\n## ')[1:]
    }
    sections[stack] = section
    return '\n'.join([HEADER, *(sections[x] for x in sorted(sections))])


def main() -> None:
    """Update the page."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('report', help='JUnit report of pytest')
    report = ET.parse(parser.parse_args().report).getroot()
    stack, setup = describe_setup()
    page = PAGE.read_text() if PAGE.exists() else ''
    section = render(report, stack, setup)
    PAGE.write_text(replace_section(page, stack, section))
    print(section)


if __name__ == '__main__':
    main()

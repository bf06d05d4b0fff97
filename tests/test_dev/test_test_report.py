"""tools/dev/test_report.py records what pytest found."""

import xml.etree.ElementTree as ET

from test_report import render, replace_section

REPORT = """<testsuites><testsuite>
<testcase name="a"/>
<testcase name="b"><skipped message="needs CUDA"/></testcase>
<testcase name="c"><skipped message="needs CUDA"/></testcase>
<testcase name="d"><skipped message="no file /home/user/a.txt"/></testcase>
<testcase name="e"><failure message="assert 0"/></testcase>
<testcase name="f"><error message="fixture"/></testcase>
</testsuite></testsuites>"""


def test_counts_and_reasons():
    text = render(ET.fromstring(REPORT), 'OneDL', 'torch 2.11.0')
    assert '1 passed, 3 skipped, 2 failed**.' in text
    assert text.endswith('| needs CUDA | 2 |\n| no file ... | 1 |\n')


def test_the_other_stack_keeps_its_section():
    page = replace_section('', 'OpenMMLab', '## OpenMMLab\n\nold\n')
    page = replace_section(page, 'OneDL', '## OneDL\n\nfirst\n')
    page = replace_section(page, 'OpenMMLab', '## OpenMMLab\n\nnew\n')
    assert page.endswith('## OneDL\n\nfirst\n\n## OpenMMLab\n\nnew\n')
    assert page.startswith('# Test results') and 'old' not in page

"""The wheel: what it holds, asks for, and that it runs by itself."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import mmattn
from mmattn.stack import ONEDL, PINS

ROOT = Path(__file__).parents[1]
DISTRIBUTION_OF = {
    'PIL': 'pillow',
    'sklearn': 'scikit-learn',
    'yaml': 'pyyaml',
}


def files_below(folder):
    return {
        path.relative_to(folder.parent).as_posix()
        for path in folder.rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }


def names_in(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata_of(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in names_in(wheel) if n.endswith('/METADATA'))
        return Parser().parsestr(archive.read(name).decode())


def requirements_of(wheel):
    """The plain requirements, and those of each extra by its name."""
    metadata = metadata_of(wheel)
    plain = []
    by_extra = {extra: [] for extra in metadata.get_all('Provides-Extra')}
    for requirement in metadata.get_all('Requires-Dist'):
        name, _, extra = requirement.partition('; extra == ')
        (by_extra[extra.strip('"\'')] if extra else plain).append(name)
    return plain, by_extra


def test_wheel_holds_the_package_and_the_mim_extension(wheel):
    names = names_in(wheel)
    assert {n for n in files_below(ROOT / 'mmattn') if '.mim' not in n} <= (
        names
    )
    for folder in ('configs', 'tools'):
        expected = {f'mmattn/.mim/{n}' for n in files_below(ROOT / folder)}
        assert expected and expected <= names
    assert 'mmattn/.mim/model-index.yml' in names
    assert not any('__pycache__' in name for name in names)
    assert not any(name.startswith(('tests', 'tools')) for name in names)


def test_building_leaves_no_mim_folder_in_the_checkout(wheel, checkout):
    assert not (checkout / 'mmattn' / '.mim').exists()


def test_wheel_from_the_sdist_is_the_same(
    wheel, checkout, build_distribution, tmp_path
):
    sdist = build_distribution('sdist', checkout, tmp_path / 'sdist')
    shutil.unpack_archive(sdist, tmp_path)
    unpacked = tmp_path / sdist.name.removesuffix('.tar.gz')
    second = build_distribution('wheel', unpacked, tmp_path / 'wheel')
    assert names_in(second) == names_in(wheel)


def test_requirements_cover_what_the_package_imports(wheel):
    """All but the stack and what torch brings; of export as an extra."""
    imported = set()
    for file in (ROOT / 'mmattn').rglob('*.py'):
        for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Import):
                imported |= {name.name.split('.')[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split('.')[0])
    # torch brings Triton, mmdet pycocotools, mmengine yapf and rich.
    brought = {'triton', 'pycocotools', 'yapf', 'rich'}
    known = sys.stdlib_module_names | set(PINS[ONEDL]) | brought
    plain, by_extra = requirements_of(wheel)
    distributions = {DISTRIBUTION_OF.get(n, n) for n in imported - known}
    assert distributions - {'mmattn'} <= {
        re.match('[a-z-]+', name)[0] for name in plain + by_extra['export']
    }


def test_metadata_requires_neither_stack(wheel):
    metadata = metadata_of(wheel)
    assert metadata['Name'] == 'mmattn'
    assert metadata['Version'] == mmattn.__version__
    assert metadata['Requires-Python'] == '>=3.10'
    assert metadata['License'] == 'Apache-2.0'
    plain, by_extra = requirements_of(wheel)
    assert set(by_extra) == {'export', 'onedl', 'openmmlab', 'tests'}
    assert any(name.startswith('torch') for name in plain)
    assert 'numpy' in plain
    assert not any('mm' in name for name in plain)
    assert all('onedl-mm' in name for name in by_extra['onedl'])
    assert not any('onedl' in name for name in by_extra['openmmlab'])


def test_installed_wheel_runs_outside_the_checkout(installed, tmp_path):
    code = (
        f'import sys; sys.path.insert(0, {str(installed)!r})\n'
        'import mmattn.env_report, mmattn.registry\n'
        'sys.exit(mmattn.env_report.main([]))'
    )
    result = subprocess.run(
        [sys.executable, '-I', '-c', code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert f'{installed}/mmattn\n' in result.stdout


def test_editable_install_makes_the_links_that_git_keeps(
    checkout, build_distribution, tmp_path
):
    copy = tmp_path / 'checkout'
    shutil.copytree(checkout, copy)
    build_distribution('editable', copy, tmp_path / 'wheel')
    made, kept = (root / 'mmattn' / '.mim' for root in (copy, ROOT))
    assert {link.name: link.readlink() for link in made.iterdir()} == {
        link.name: link.readlink() for link in kept.iterdir()
    }
    for name in ('configs', 'tools', 'model-index.yml'):
        assert (made / name).resolve() == copy / name


def test_wheel_holds_the_mim_files_where_mim_looks(wheel):
    """onedl-mim takes the folder of the first installed file."""
    names = sorted(names_in(wheel))  # pip sorts what it installed
    folder = names[0].split('/')[0]
    for name in ('model-index.yml', 'tools/train.py', 'tools/test.py'):
        assert f'{folder}/.mim/{name}' in names

"What stands twice agrees: settings.ini and pyproject.toml, the version, the pins, the licence, the files of a wheel."
import configparser, importlib.metadata as md, re, shlex, subprocess, sys, tomllib

import pytest
import yaml
from book import LIB, ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((ROOT/'pyproject.toml').read_text(encoding='utf-8'))
P, NBDEV = PROJECT['project'], PROJECT['tool']['nbdev']
INI = configparser.ConfigParser(delimiters=['='], interpolation=None)
INI.read(ROOT/'settings.ini', encoding='utf-8')
S = INI['DEFAULT']
VERSION = re.search(r'__version__ = "(.+?)"', (LIB/'__init__.py').read_text(encoding='utf-8'))[1]
PINS = [l for l in (ROOT/'constraints.txt').read_text(encoding='utf-8').splitlines() if l.strip()
        and not l.startswith('#')]

# ---- settings.ini and pyproject.toml ----

@pytest.mark.parametrize('key', sorted(set(NBDEV) & set(S)))
def test_nbdev_settings_agree(key):
    want = NBDEV[key]
    assert S[key] == (str(want) if not isinstance(want, bool) else ('True' if want else 'False'))

def test_settings_agree():
    assert (S['lib_name'] == P['name'] and S['description'] == P['description']
            and S['keywords'].split() == P['keywords'])
    assert (S['author'], S['author_email']) == (P['authors'][0]['name'], P['authors'][0]['email'])
    assert P['requires-python'] == f">={S['min_python']}"
    assert P['license'] == {'apache2': 'Apache-2.0'}[S['license']]
    assert any(c.startswith(f"Development Status :: {S['status']} ") for c in P['classifiers'])
    address = any(S[k] for k in ('doc_host', 'doc_baseurl', 'git_url')) or 'urls' in P
    assert not address, 'with an address nbdev 2 and 3 export different modules'

def test_requirements_agree():
    assert S['requirements'].split() == P['dependencies']
    assert S['dev_requirements'].split() == P['optional-dependencies']['dev']
    assert shlex.split(S['console_scripts']) == [f"edm_lab={P['scripts']['edm_lab']}"]

def test_version_stands_once_per_file():
    assert S['version'] == VERSION and P['dynamic'] == ['version']
    assert yaml.safe_load((ROOT/'CITATION.cff').read_text(encoding='utf-8'))['version'] == VERSION
    changes = (ROOT/'CHANGELOG.md').read_text(encoding='utf-8')
    section = re.search(rf'^## {re.escape(VERSION)}\b', changes, flags=re.M)
    assert section, 'CHANGELOG.md has no section for this version'

def test_script_points_at_code():
    mod, _, fn = P['scripts']['edm_lab'].partition(':')
    path = ROOT/(mod.replace('.', '/') + '.py')
    assert path.exists(), f'{mod} is not there'
    assert re.search(rf'^def {fn}\(', path.read_text(encoding='utf-8'), flags=re.M)

# ---- constraints.txt ----

def test_constraints_are_plain_pins():
    odd = [l for l in PINS if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.]*', l)]
    assert not odd, f'neither name==version, or with an address or a local build: {odd}'
    names = [canonicalize_name(l.split('==')[0]) for l in PINS]
    assert len(names) == len(set(names))
    assert not {'edm-lab', 'pip', 'setuptools', 'wheel'} & set(names)
    assert 'torch==2.13.0' in PINS, 'without +cpu: a local build is not on PyPI'
    text = (ROOT/'constraints.txt').read_text(encoding='utf-8')
    assert '://' not in text and '--' not in text

def test_constraints_meet_the_requirements():
    pins = {canonicalize_name(n): v for n, v in (l.split('==') for l in PINS)}
    for r in map(Requirement, P['dependencies'] + sum(P['optional-dependencies'].values(), [])):
        if canonicalize_name(r.name) == 'edm-lab': continue
        assert pins[canonicalize_name(r.name)] in r.specifier, f'{r} and {r.name}=={pins[canonicalize_name(r.name)]}'

def test_constraints_work_on_the_oldest_python():
    from packaging.specifiers import SpecifierSet
    for name, version in (l.split('==') for l in PINS):
        try: d = md.distribution(name)
        except md.PackageNotFoundError: continue
        if d.version.split('+')[0] == version:
            wanted = SpecifierSet(d.metadata['Requires-Python'] or '')
            assert wanted.contains(f"{S['min_python']}.5"), f'{name}=={version} needs another Python: {wanted}'

# ---- the package ----

def test_import_is_light():
    code = "import sys, edm_lab; print([m for m in ('torch', 'matplotlib', 'scipy', 'numpy') if m in sys.modules])"
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert r.stdout.strip() == '[]', r.stdout + r.stderr

def test_wheel_holds_everything():
    find_packages = pytest.importorskip('setuptools').find_packages
    found = set(find_packages(str(ROOT), **PROJECT['tool']['setuptools']['packages']['find']))
    there = {'.'.join(p.relative_to(ROOT).parts) for p in [LIB, *LIB.rglob('*')] if p.is_dir() and any(p.glob('*.py'))}
    assert there <= found, f'left out of a wheel: {sorted(there - found)}'
    assert found <= {'edm_lab'} | {n for n in found if n.startswith('edm_lab.')}
    data = PROJECT['tool']['setuptools']['package-data']['edm_lab']
    held = {p for pattern in data for p in LIB.glob(pattern)}
    other = {p for p in LIB.rglob('*') if p.is_file() and p.suffix not in ('.py', '.pyc')}
    assert other == held and LIB/'py.typed' in held, f'not in package-data: {sorted(map(str, other - held))}'
    assert any(p.suffix == '.toml' for p in held), 'the cards'

def test_ruff():
    r = subprocess.run([sys.executable, '-m', 'ruff', 'check', '--no-cache', '--output-format=concise', 'edm_lab',
                        'tools', 'tests'], cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr

# ---- licence and citation ----

def test_licence():
    text = (ROOT/'LICENSE').read_text(encoding='utf-8')
    assert 'Apache License' in text and 'Version 2.0, January 2004' in text and 'END OF TERMS AND CONDITIONS' in text
    assert P['license-files'] == ['LICENSE']

def test_citation():
    c = yaml.safe_load((ROOT/'CITATION.cff').read_text(encoding='utf-8'))
    assert c['cff-version'] == '1.2.0' and c['title'] == P['name'] and c['license'] == P['license'] and c['message']
    assert [a['name'] for a in c['authors']] == [P['authors'][0]['name']]
    assert c['abstract'] == P['description']

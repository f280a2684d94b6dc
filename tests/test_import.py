"Every module imports alone, with nothing but its declared requirements, and leaves the process as it found it."
import json, subprocess, sys

import pytest
from book import ROOT, notebooks

MODULES = [nb.module for nb in notebooks() if nb.module]
DEV_ONLY = ['nbdev', 'fastcore', 'execnb', 'IPython', 'diffusers', 'sklearn', 'tensorboard', 'pytest', 'hypothesis',
            'yaml', 'pypandoc', 'pandas']

PROBE = """
import importlib, json, os, random, sys
class Closed:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in DEV_ONLY: raise ModuleNotFoundError(f'{name} is no requirement of edm_lab', name=name)
sys.meta_path.insert(0, Closed())
import numpy, torch
def state():
    return [str(torch.get_default_dtype()), torch.get_num_threads(), torch.is_grad_enabled(), torch.initial_seed(),
            torch.get_rng_state().tolist(), str(numpy.random.get_state()), str(random.getstate()), dict(os.environ),
            os.getcwd(), str(numpy.geterr())]
before, lost, drawn = state(), {}, []
for m in MODULES:
    mod = importlib.import_module('edm_lab.' + m)
    lost[m] = [n for n in mod.__all__ if not hasattr(mod, n)]
    if 'matplotlib' in sys.modules and not drawn: drawn.append(m)
print(json.dumps(dict(same=before == state(), lost={k: v for k, v in lost.items() if v}, drawn=drawn)))
"""

@pytest.fixture(scope='module')
def probe():
    code = f'MODULES, DEV_ONLY = {MODULES}, {DEV_ONLY}\n{PROBE}'
    r = subprocess.run([sys.executable, '-W', 'error::SyntaxWarning', '-c', code], cwd=ROOT, capture_output=True,
                       text=True)
    why = 'a module needs more than the requirements of edm_lab, or fails to import'
    assert r.returncode == 0, f'{why}:\n{r.stderr[-1500:]}'
    *noise, last = r.stdout.splitlines()
    assert not noise, f'printed at import: {noise}'
    return json.loads(last)

def test_requirements_suffice(probe): pass
def test_public_names_exist(probe): assert not probe['lost']
def test_import_changes_no_global_state(probe): assert probe['same']
def test_matplotlib_is_imported_only_to_draw(probe):
    assert not probe['drawn'], f"importing edm_lab.{probe['drawn'][0]} imports matplotlib"

def test_editors_see_the_top_level():
    "The block that type checkers read names what is loaded at first use, from the same modules."
    import ast
    import edm_lab
    tree = ast.parse((ROOT/'edm_lab'/'__init__.py').read_text(encoding='utf-8'))
    block = next(o for o in tree.body if isinstance(o, ast.If) and o.test.id == 'TYPE_CHECKING')
    seen = {a.asname: o.module for o in block.body for a in o.names}
    assert seen == edm_lab._MODULE_OF
    for name in edm_lab.__all__: getattr(edm_lab, name)

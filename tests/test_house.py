"The rules of the house, read off the notebooks and the generated modules. CONTRIBUTING.md says them in prose."
import ast, json, re, shutil, subprocess, sys, warnings
from pathlib import Path

import pytest
import words
from book import LIB, NBS, ROOT, copy_tree, files, imports, notebooks

BOOK = notebooks()
FLOORS = [nb for nb in BOOK if nb.floor is not None]
EXPORTING = [nb for nb in BOOK if nb.module]
ENTRY = {'cli'} # started by the console script, imported by nobody
all_nbs, baselines, exporting = (pytest.mark.parametrize('nb', nbs, ids=[n.name for n in nbs])
                                 for nbs in (BOOK, FLOORS, EXPORTING))

# ---- the spine ----

@exporting
def test_imports_lower_floors_only(nb):
    floor_of = {o.module: o.floor for o in EXPORTING}
    for c in nb.exports:
        for m in imports(c.tree):
            assert m in floor_of, f'{nb.name} imports edm_lab.{m}, which no notebook makes'
            lower = nb.floor is None or floor_of[m] < nb.floor
            assert lower, f'{nb.name} imports edm_lab.{m} from the same or a higher floor'

@exporting
def test_exported_imports_name_what_they_take(nb):
    stars = [ast.unparse(o) for c in nb.exports for o in ast.walk(c.tree) if isinstance(o, ast.ImportFrom)
             and o.names[0].name == '*']
    assert not stars, f'star imports in exported cells: {stars}'

@all_nbs
def test_imports_stand_in_their_own_cells(nb):
    "The site runs every cell with an import, and only those and the exported ones: mixed cells break it."
    mixed = [c.src for c in nb.code if not c.exported and not c.is_imports
             and any(isinstance(o, ast.Import | ast.ImportFrom) for o in c.tree.body)]
    assert not mixed, f'{len(mixed)} cells mix imports with other code:\n' + '\n---\n'.join(mixed)

def test_every_module_has_its_notebook():
    made = {p.relative_to(LIB).with_suffix('').as_posix().replace('/', '.') for p in LIB.rglob('*.py')
            if p.name not in ('__init__.py', '_modidx.py')}
    explained = {nb.module for nb in EXPORTING}
    assert not made - explained, f'modules without a notebook: {sorted(made - explained)}'
    assert not explained - made, f'notebooks without a module: {sorted(explained - made)}; run nbdev_export'
    assert len(explained) == len(EXPORTING), 'two notebooks export the same module'

def test_every_module_is_used():
    "By another notebook, or the index sends the reader to it."
    used = {m for nb in BOOK for c in nb.code for m in imports(c.tree) if m != nb.module}
    index = '\n'.join(c.src for nb in BOOK if nb.name == 'index.ipynb' for c in nb.cells)
    mentions = lambda nb: re.search(rf'edm_lab\.{re.escape(nb.module)}\b|{re.escape(nb.name)}', index)
    listed = {nb.module for nb in EXPORTING if mentions(nb)}
    lost = {nb.module for nb in EXPORTING} - used - listed - ENTRY
    assert not lost, f'imported by no other notebook, unknown to the index: {sorted(lost)}'

def test_numbered_notebooks_export():
    assert not (mute := [nb.name for nb in FLOORS if not nb.module]), f'no default_exp: {mute}'

# ---- how a notebook reads ----

@all_nbs
def test_first_cell(nb):
    first = nb.cells[0]
    good = first.kind == 'markdown' and re.match(r'# \S.*\n\n> \S', first.src)
    assert good, 'the first cell is "# Title", an empty line, "> description"'

@baselines
def test_last_section(nb):
    heads = [(i, m[1]) for i, c in enumerate(nb.cells) if c.kind == 'markdown'
             for m in re.finditer(r'^## +(.+)$', c.src, flags=re.M)]
    last = heads[-1][1].strip() if heads else None
    assert last == 'What we now know', f'the last section is {last!r}'
    rest = nb.cells[heads[-1][0]].src.split('What we now know')[1]
    assert 1 <= len(re.findall(r'^\s*(?:[*-]|\d\.) ', rest, flags=re.M)) <= 5, 'about three lines, as a list'

@exporting
def test_every_public_name_has_its_lesson(nb):
    lost = []
    for i, c in enumerate(nb.cells):
        rest = [o for o in nb.cells[i + 1:] if o.kind == 'code' and not o.exported]
        if c.exported: lost += [name for name in c.public if not any(o.mentions(name) for o in rest)]
    assert not lost, f'public, and in no later plain cell: {lost}; show them, or begin their names with _'

@exporting
def test_lessons_follow_closely(nb):
    runs = [[]]
    for c in nb.code:
        if c.is_lesson: runs.append([])
        elif c.exported and c.public: runs[-1].append(c.public[0])
    long = [r for r in runs if len(r) > 3]
    assert not long, f'more than three exported definitions without a lesson between them: {long}'

def statements(tree):
    "Statements of a cell, without docstrings: what a reader has to follow, however the lines are broken."
    text = lambda o: isinstance(o, ast.Expr) and isinstance(o.value, ast.Constant)
    return sum(isinstance(o, ast.stmt) and not text(o) for o in ast.walk(tree))

@exporting
def test_sizes(nb):
    per = {c.public[0] if c.public else c.code[:40]: statements(c.tree) for c in nb.exports}
    total = sum(per.values())
    assert not (over := {k: n for k, n in per.items() if n > 40}), f'exported cells of more than 40 statements: {over}'
    assert total <= 320, f'{total} exported statements; split the notebook'
    if long := {k: n for k, n in per.items() if n > 25}: warnings.warn(f'{nb.name}: cells over 25 statements: {long}')

@all_nbs
def test_lines_are_short(nb):
    "At most 120 characters, one statement a line."
    assert not (long := words.long_lines(nb.path)), '\n'.join(long)

def test_modules_have_short_lines():
    "At most 120 characters; nbdev alone lays out `__all__`."
    long = []
    for p in LIB.rglob('*.py'):
        if p.name == '_modidx.py': continue
        text = re.sub(r"__all__ = \[.*?\]", '', p.read_text(encoding='utf-8'), flags=re.S)
        long += [f'{p.relative_to(LIB)}: {line}' for line in text.split('\n') if len(line) > 120]
    assert not long, '\n'.join(long)

@pytest.mark.parametrize('path', [p for p in files() if p.suffix in ('.ipynb', '.py', '.toml', '.md')
                                  and p.name not in ('_modidx.py', 'README.md') and 'results' not in p.parts
                                  and (p.suffix != '.py' or p.parent.name in ('tests', 'tools', 'bench'))],
                         ids=lambda p: p.relative_to(ROOT).as_posix())
def test_words(path):
    "The words of the field (tests/words.py has the list, and the exceptions with their reasons)."
    found = [f'{what!r} -> {instead}: {where[:120]}' for what, instead, where in words.strange(path, ROOT)]
    assert not found, f'{len(found)}\n' + '\n'.join(found[:40])

def test_one_definition_a_name():
    where = {}
    for nb in EXPORTING:
        for c in nb.exports:
            for name in c.public: where.setdefault(name, set()).add(nb.module)
    assert not (twice := {k: sorted(v) for k, v in where.items() if len(v) > 1}), f'defined twice: {twice}'

def test_titles():
    "Unique, and at most six words."
    titles = {nb.name: re.match(r'# (.+)', nb.cells[0].src)[1] for nb in BOOK}
    seen = list(titles.values())
    assert not (twice := {k: t for k, t in titles.items() if seen.count(t) > 1}), f'the same title: {twice}'
    assert not (long := {k: t for k, t in titles.items() if len(t.split()) > 6}), f'more than six words: {long}'

def annotated(f):
    "Parameters of a function that have no type, and `->` where there is none."
    args = [a for a in (*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs) if a.arg not in ('self', 'cls')]
    return [a.arg for a in args if a.annotation is None] + ['->'] * (f.returns is None)

@exporting
def test_public_functions_are_annotated(nb):
    bare = {f.name: gaps for c in nb.exports for f in c.tree.body
            if isinstance(f, ast.FunctionDef) and f.name in c.public and (gaps := annotated(f))}
    assert not bare, f'without types: {bare}'

def test_one_training_loop():
    "The optimiser's step is called by the trainer; a schedule is fitted by a descent of its own."
    calls = {nb.module for nb in EXPORTING for c in nb.exports if re.search(r'\bopt(imi[sz]er)?\.step\(', c.code)}
    may = {'training.step', 'training.loop', 'training.muon', 'training.distributed', 'samplers.trainable'}
    assert calls <= may, f'training loops beside the trainer: {calls - may}'

@exporting
def test_exported_code_is_documented_and_ascii(nb):
    mute = [o.name for c in nb.exports for o in c.tree.body if isinstance(o, ast.FunctionDef | ast.ClassDef)
            and o.name in c.public and not ast.get_docstring(o)]
    assert not mute, f'no docstring: {mute}'
    for c in nb.exports:
        names = {o.id for o in ast.walk(c.tree) if isinstance(o, ast.Name)} | {o.arg for o in ast.walk(c.tree)
                                                                               if isinstance(o, ast.arg)}
        assert not (odd := [n for n in names if not n.isascii()]), f'names that are not ASCII: {odd}'
        assert 'from __future__ import annotations' not in c.src

@exporting
def test_parameters_are_documented(nb):
    "Each parameter name of a public function has a comment (meaning, unit or range), at least once in its notebook."
    explained, bare = set(), {}
    for c in nb.exports:
        lines = c.code.split('\n')
        for f in ast.walk(c.tree):
            if not isinstance(f, ast.FunctionDef): continue
            if any('_check(' in ast.unparse(d) for d in f.decorator_list): continue # their arguments are a contract
            args = [a for a in [*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs, f.args.vararg, f.args.kwarg]
                    if a and a.arg not in ('self', 'cls')]
            explained |= {a.arg for a in args if '#' in lines[a.lineno - 1]}
            if f.name in c.public: bare |= {a.arg: f.name for a in args if '#' not in lines[a.lineno - 1]}
        explained |= {o.target.id for o in ast.walk(c.tree) if isinstance(o, ast.AnnAssign)
                 and isinstance(o.target, ast.Name) and '#' in lines[o.lineno - 1]}
    mute = {f'{f}({p})' for p, f in bare.items() if p not in explained}
    assert not mute, f'parameters that no comment explains: {sorted(mute)}'

# ---- what is stored ----

@all_nbs
def test_stored_outputs(nb):
    shown = [c for c in nb.code if not c.exported and not c.is_imports and c.code.strip()]
    assert not shown or any(c.outputs for c in shown), 'no stored output; run nbdev_test --save and nbdev_clean'
    errors = [f"{o['ename']}: {o['evalue']}" for c in nb.code for o in c.outputs if o['output_type'] == 'error']
    assert not errors, f'stored errors: {errors}'
    assert not any('\r' in c.text for c in nb.code), 'a progress bar in a stored output'
    assert nb.path.stat().st_size < 1_000_000, f'{nb.path.stat().st_size} bytes'

@all_nbs
def test_figures_ask_and_answer(nb):
    for c in nb.code:
        for png in c.pngs: assert len(png) <= 80_000, f'a figure of {len(png)} bytes'
        if not c.pngs: continue
        cap = c.directives.get('fig-cap', '')
        assert re.search(r'\?\s*\S', cap), f'a figure without a caption that asks and answers: {cap or c.code[:60]!r}'
        assert re.search(r'\bassert\b|\btest_\w+\(', c.src), f'the cell of a figure asserts its answer: {cap!r}'

def test_no_path_of_a_machine():
    "What is committed works elsewhere: no home or scratch folder of whoever wrote it."
    found, pattern = [], re.compile(r'(?<![\w.~*-])/(?:work|root|home|Users|tmp/w)/\w+')
    for p in files():
        if p.suffix in ('.png', '.npz', '.parquet', '.h5ad') or p == Path(__file__).resolve(): continue
        found += [f'{p.relative_to(ROOT)}: {m}'
                  for m in sorted(set(pattern.findall(p.read_text(encoding='utf-8', errors='ignore'))))]
    assert not found, '\n'.join(found)

# ---- made from the notebooks, and only from them ----

def snapshot(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for d in ('nbs', 'edm_lab')
            for p in sorted((root/d).rglob('*')) if p.is_file() and '__pycache__' not in p.parts
            and '.ipynb_checkpoints' not in p.parts}

@pytest.mark.skipif(shutil.which('git') is None or not (ROOT/'.git').exists(), reason='needs a git checkout')
def test_export_and_clean_change_nothing(tmp_path):
    tree = copy_tree(tmp_path/'tree')
    before = snapshot(tree)
    code = 'from nbdev.doclinks import nbdev_export; from nbdev.clean import nbdev_clean; nbdev_export(); nbdev_clean()'
    r = subprocess.run([sys.executable, '-c', code], cwd=tree, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr[-2000:]
    after = snapshot(tree)
    changed = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
    assert not changed, f'not what the notebooks say, or not clean: {changed}; run nbdev_export && nbdev_clean'

def test_every_page_is_listed():
    import yaml
    def flat(items):
        for it in items:
            if isinstance(it, str): yield it
            else: yield from [*filter(None, [it.get('href')]), *flat(it.get('contents', []))]
    sidebar = yaml.safe_load((ROOT/'_quarto.yml').read_text(encoding='utf-8'))['website']['sidebar']['contents']
    listed = list(flat(sidebar))
    assert sorted(listed) == sorted(nb.name for nb in BOOK)
    order = {nb.name: nb.floor for nb in FLOORS}
    for room in sidebar:
        here = [order[n] for n in flat([room]) if n in order]
        assert here == sorted(here), f"{room['section']}: the sidebar follows the numbers"
    assert (NBS/'_quarto.yml').resolve() == ROOT/'_quarto.yml'

def test_readme_is_the_index(tmp_path):
    tree = copy_tree(tmp_path/'tree')
    r = subprocess.run([sys.executable, 'tools/site.py', '--readme'], cwd=tree, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    made, here = ((d/'README.md').read_text(encoding='utf-8') for d in (tree, ROOT))
    assert made == here, 'run make readme'
    links = re.findall(r'\]\((?![a-z]+:|#)([^)#\s]+)', (ROOT/'README.md').read_text(encoding='utf-8'))
    assert not (dead := [l for l in links if not (ROOT/l).exists()]), f'README.md links to what is not there: {dead}'

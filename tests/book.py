"The notebooks as data, for the tests: cells with their directives, what they export, and which lower floors they use."
import ast, base64, json, re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS, LIB = ROOT/'nbs', ROOT/'edm_lab'

@dataclass
class Cell:
    kind: str
    src: str
    outputs: list
    directives: dict = field(default_factory=dict)
    def __post_init__(self):
        if self.kind != 'code': return
        for line in re.findall(r'^#\|\s*(.+)$', self.src, flags=re.M):
            key, val = re.match(r'([\w-]+)\s*:?\s*(.*)', line).groups()
            self.directives[key] = val.strip().strip('"')

    @property
    def exported(self): return bool({'export', 'exports', 'exporti'} & set(self.directives))
    @property
    def code(self): return re.sub(r'^#\|.*\n?|^[!%].*$', '', self.src, flags=re.M).strip('\n')
    @property
    def tree(self): return ast.parse(self.code if self.kind == 'code' else '')
    @property
    def is_imports(self):
        return self.kind == 'code' and bool(self.tree.body) and all(isinstance(o, ast.Import | ast.ImportFrom)
                                                                    for o in self.tree.body)
    @property
    def public(self):
        "The public names that this cell defines at its top level (`exporti` makes none)."
        names = []
        if 'exporti' in self.directives: return names
        for o in self.tree.body:
            if isinstance(o, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef): names.append(o.name)
            elif isinstance(o, ast.Assign): names += [t.id for t in o.targets if isinstance(t, ast.Name)]
            elif isinstance(o, ast.AnnAssign) and isinstance(o.target, ast.Name): names.append(o.target.id)
        return [n for n in names if not n.startswith('_')]
    @property
    def is_lesson(self):
        "A plain cell that asserts something or shows a value."
        if self.kind != 'code' or self.exported or self.is_imports: return False
        return bool(self.outputs) or bool(re.search(r'\bassert\b|\btest_\w+\(|\bexpect_fail\b', self.src))
    @property
    def pngs(self):
        return [base64.b64decode(''.join(o['data']['image/png'])) for o in self.outputs
                if 'image/png' in o.get('data', {})]
    @property
    def text(self):
        return '\n'.join(''.join(o.get('text') or o.get('data', {}).get('text/plain')
                                 or o.get('data', {}).get('text/html') or '') for o in self.outputs)
    def mentions(self, name): return bool(re.search(rf'(?<![\w]){re.escape(name)}(?![\w])', self.src))

@dataclass
class Notebook:
    path: Path
    cells: list
    @property
    def name(self): return self.path.relative_to(NBS).as_posix()
    @property
    def floor(self):
        "(10, 'a') for 10a_diffusion.sigma_dist.ipynb; None for a page without a number."
        m = re.match(r'(\d+)([a-z]*)_', self.path.name)
        return (int(m[1]), m[2]) if m and self.path.parent == NBS else None
    @property
    def module(self):
        return next((c.directives['default_exp'] for c in self.cells if 'default_exp' in c.directives), None)
    @property
    def code(self): return [c for c in self.cells if c.kind == 'code' and c.src.strip()]
    @property
    def exports(self): return [c for c in self.code if c.exported]

def imports(tree, lib='edm_lab'):
    "Modules of ours that this code imports, wherever the import stands: {'core', 'checks.scale'}."
    out = set()
    for o in ast.walk(tree):
        if isinstance(o, ast.ImportFrom) and o.module and (o.module + '.').startswith(lib + '.'):
            sub = o.module[len(lib) + 1:]
            out |= {sub} if sub else {a.name for a in o.names if (LIB/f'{a.name}.py').exists()}
            if sub and (LIB/sub.replace('.', '/')).is_dir(): out = (out - {sub}) | {f'{sub}.{a.name}' for a in o.names}
        if isinstance(o, ast.Import): out |= {a.name[len(lib) + 1:] for a in o.names if a.name.startswith(lib + '.')}
    return out

@cache
def notebooks():
    "All notebooks, in the order of their floors."
    paths = [p for p in sorted(NBS.rglob('*.ipynb')) if not any(o[0] in '._' for o in p.relative_to(NBS).parts)]
    read = lambda p: [Cell(c['cell_type'], ''.join(c['source']), c.get('outputs', []))
                      for c in json.loads(p.read_text(encoding='utf-8'))['cells']]
    nbs = [Notebook(p, read(p)) for p in paths]
    return sorted(nbs, key=lambda nb: (nb.floor or (-1, ''), nb.name))

def files():
    "What git tracks or would track."
    import subprocess
    r = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard'], cwd=ROOT, capture_output=True, text=True,
                       check=True)
    return [p for f in sorted(set(r.stdout.splitlines())) if (p := ROOT/f).exists()]

def copy_tree(to):
    "The working tree as git would see it, for tests that write."
    import shutil
    for p in files():
        q = to/p.relative_to(ROOT)
        q.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(p, q, follow_symlinks=False)
    return to

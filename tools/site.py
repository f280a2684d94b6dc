#!/usr/bin/env python3
"""The site from the notebooks, without Quarto: nbdev prepares the pages, Pandoc (from PyPI) writes them.

    python tools/site.py              # the site, into the output-dir of _quarto.yml
    python tools/site.py --out DIR    # the site, into DIR
    python tools/site.py --readme     # README.md from nbs/index.ipynb

Quarto's dialect is Pandoc's Markdown, so callouts, attributes and maths keep their meaning. Nothing is fetched.
The order of the pages is that of _quarto.yml. A notebook that is not listed there, or listed and not there, is refused.
Mistakes cost one line and exit code 2.
"""
import argparse, base64, html, json, os, re, shutil, subprocess, sys, tempfile, textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from posixpath import dirname, normpath, relpath
from string import Template

ROOT, HERE = Path(__file__).resolve().parent.parent, Path(__file__).resolve().parent
NBS = ROOT/'nbs'
PANDOC_FROM = 'markdown-citations'
LAST = 'The project' # section of the pages that are no notebooks: files of the root, and the index of names
FILES = {'CONTRIBUTING.md': 'contributing.html', 'CHANGELOG.md': 'changelog.html', 'NOTES.md': 'notes.html'}
NAMES = 'names.html'

class SiteError(Exception): "A mistake in the book, in one line."

# ---- which pages, in which order ----

def sidebar(items, section=''):
    "The pages of `_quarto.yml` in reading order, as (section, notebook)."
    for it in items:
        if isinstance(it, str): yield section, it
        elif 'href' in it: yield it.get('section', section), it['href']
        if isinstance(it, dict): yield from sidebar(it.get('contents', []), it.get('section', section))

def read_book():
    "Title, output folder and pages {notebook: (section, page)}, or a SiteError if the list and nbs/ disagree."
    import yaml
    from nbdev.config import nbpath2html
    cfg = yaml.safe_load((ROOT/'_quarto.yml').read_text(encoding='utf-8'))
    listed = list(sidebar(cfg['website']['sidebar']['contents']))
    there = {p.relative_to(NBS).as_posix() for p in NBS.rglob('*.ipynb')
             if not any(o[0] in '._' for o in p.relative_to(NBS).parts)}
    names, book, owner = [nb for _, nb in listed], {}, {}
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise SiteError(f"_quarto.yml lists {', '.join(twice)} twice")
    if gone := [n for n in names if n not in there]:
        raise SiteError(f"_quarto.yml lists {', '.join(gone)}, which nbs/ does not have")
    if new := sorted(there - set(names)):
        raise SiteError(f"nbs/ has {', '.join(new)}, which the sidebar of _quarto.yml does not list")
    for section, nb in listed:
        page = nbpath2html(Path(nb)).as_posix()
        if page in owner: raise SiteError(f"{owner[page]} and {nb} would both become {page}; rename one")
        owner[page], book[nb] = nb, (section, page)
    book |= {'names': (LAST, NAMES)} | {f: (LAST, page) for f, page in FILES.items()}
    return cfg['website']['title'], ROOT/cfg['project'].get('output-dir', '_docs'), book

# ---- one notebook -> Pandoc Markdown ----

def options(src):
    "Split a code cell into its `#| key: value` lines (as a dict) and its code."
    import yaml
    lines, opts = src.split('\n'), {}
    while lines and lines[0].startswith('#|'):
        key, _, val = lines.pop(0)[2:].strip().partition(':')
        opts[key.strip()] = yaml.safe_load(val) if val.strip() else True
    return opts, '\n'.join(lines).strip('\n')

def fence(text, attrs):
    "A fenced block that no run of backquotes inside can end."
    ticks = '`' * max([3] + [len(m) + 1 for m in re.findall('`{3,}', text)])
    return f'{ticks} {{{attrs}}}\n{text}\n{ticks}'

def figure(data, cap, path):
    "Write a picture beside the page; Markdown that shows it at the size it was drawn, with its caption."
    kind = 'png' if 'image/png' in data else 'svg'
    raw = ''.join(data['image/png' if kind == 'png' else 'image/svg+xml'])
    path = path.with_name(f'{path.name}.{kind}')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(base64.b64decode(raw) if kind == 'png' else raw.encode())
    size = ''
    if kind == 'png':
        w, h = (int.from_bytes(path.read_bytes()[i:i+4], 'big') for i in (16, 20))
        drawn = re.search(r'Figure size ([\d.]+)x', ''.join(data.get('text/plain', '')))
        scale = max(1, round(w / float(drawn[1]))) if drawn else 1 # notebooks store two pixels for one
        size = f'width={w // scale} height={h // scale}'
    return f'![{cap}](figs/{path.name}){{{size} loading=lazy}}'

def code_md(code, lang='python', attrs=''):
    "A code block; lines that all start with `!` are commands of the shell."
    shell = all(l.startswith('!') for l in code.split('\n'))
    return fence(re.sub('(?m)^!', '', code) if shell else code, f".{'sh' if shell else lang}{attrs}")

def output_md(o, opts, fig):
    "One stored output as Markdown: a figure, a table, text as it is, or text as it was printed."
    data = o.get('data', {})
    if o['output_type'] == 'error': raise SiteError(f"{o['ename']}: {o['evalue']}")
    if 'image/png' in data or 'image/svg+xml' in data: return figure(data, opts.get('fig-cap', ''), fig)
    if 'text/html' in data: return '``` {=html}\n<div class="out">' + ''.join(data['text/html']) + '</div>\n```'
    if 'text/markdown' in data or 'text/latex' in data: return ''.join(data.get('text/markdown') or data['text/latex'])
    text = ''.join(o.get('text') or data.get('text/plain', '')).rstrip()
    # long lines are sentences: they wrap
    prose = '.out .prose' if any(len(l) > 110 for l in text.split('\n')) else '.out'
    return text if opts.get('output') == 'asis' else fence(text, prose) if text else ''

def signature(md):
    "nbdev's `show_doc` block without its rule and dead [source] link, its name as code, its types short."
    md = re.sub(r'^---\n|^\[source\]\(.*?\)\{.*?\}\n', '', md, flags=re.M)
    md = re.sub(r'(?m)^\*(.+)\*$', r'\1', re.sub(r'^(#+) (.+)', r'\1 `\2`', md.strip(), count=1))
    short = (r'jaxtyping\.|__main__\.|\bedm_lab\.(?:\w+\.)+(?=[A-Z])|\btorch\.(?=Tensor\b|Generator\b)|torch\._C\.'
             r'|(?<=\w):NoneType(?==)')
    return re.sub(short, '', md).strip()

def page_md(nb, stem, figs):
    "A processed notebook as (front matter, Markdown): prose, exported code, lessons with their outputs."
    import yaml
    meta, parts, names = {}, [], []
    for cell in nb['cells']:
        src, (opts, code) = ''.join(cell['source']), options(''.join(cell['source']))
        if cell['cell_type'] == 'markdown': src = code # without `#|` lines
        if cell['cell_type'] == 'raw' and not meta: meta = yaml.safe_load(src.strip().strip('-')) or {}
        if cell['cell_type'] == 'markdown' and 'AUTOGENERATED' not in src:
            parts += names + [src]
            names = []
        if cell['cell_type'] != 'code' or opts.get('include') is False: continue
        outs = [output_md(o, opts, figs/f'{stem}-{len(parts)}-{i}')
                for i, o in enumerate(cell['outputs'])] if opts.get('output') is not False else []
        if code.startswith('show_doc('):
            names.append(signature('\n'.join(outs)))
            continue
        if names: # the code of an `exports` cell says all that its signature says: keep the heading
            parts += [n.split('\n')[0] for n in names] if 'exports' in opts else names
            names = []
        block = code_md(code, cell['metadata'].get('language', 'python'), ' .lib' if 'exports' in opts else '')
        if 'code-fold' in opts and 'exports' not in opts:
            fold, label = ' open' * (opts['code-fold'] == 'show'), opts.get('code-summary', 'Code')
            block = f"<details{fold}><summary>{label}</summary>\n\n{block}\n\n</details>"
        parts += [block] * (opts.get('echo') is not False and bool(code)) + [o for o in outs if o]
    return meta, '\n\n'.join(parts + names)

def pandoc(md):
    "Markdown -> HTML body with MathML; a warning (maths it cannot read, a picture that is not there) is an error."
    import pypandoc
    cmd = [pypandoc.get_pandoc_path(), '-f', PANDOC_FROM, '-t', 'html5', '--mathml', '--wrap=none',
           '--fail-if-warnings', '-L', HERE/'callouts.lua']
    r = subprocess.run(cmd, input=md, capture_output=True, text=True, encoding='utf-8')
    if r.returncode:
        raise SiteError(' '.join(r.stderr.replace('[WARNING]', '').split())[:300]
                        or f'pandoc ended with {r.returncode}')
    return r.stdout

# ---- HTML ----

def relink(body, page, book):
    "Links between pages: notebooks become pages, nbdev's /page.html becomes relative, what lies outside stays text."
    def one(m):
        url, text = html.unescape(m[1]), m[2]
        if re.match(r'[a-z]+:|//|#', url): return m[0]
        path, _, frag = url.partition('#')
        path = path[1:] if path.startswith('/') else normpath(dirname(page) + '/' + path if dirname(page) else path)
        path = path.removeprefix('../') if path.removeprefix('../') in FILES else path.removeprefix('nbs/')
        path = book[path][1] if path in book else path
        if path.startswith('..') or path.endswith('.md') or not path.endswith('.html'): return text
        return f'<a href="{html.escape(relpath(path, dirname(page) or "."))}{"#" + frag if frag else ""}">{text}</a>'
    return re.sub(r'<a\s+href="([^"]*)"[^>]*>(.*?)</a>', one, body, flags=re.S)

def dress(body):
    "Wide things get a box of their own to scroll in; Pandoc's line anchors and column widths go."
    body = re.sub(r'<a href="#cb[\d-]+"[^>]*></a>|<colgroup>.*?</colgroup>|(?<=<span) id="cb[\d-]+"', '', body,
                  flags=re.S)
    body = re.sub(r'<div class="sourceCode" id="cb\d+"><pre class="sourceCode (\w+)( lib)?">',
                  r'<div class="sourceCode\2"><pre class="sourceCode \1">', body)
    body = re.sub(r'<table.*?</table>', r'<div class="wide">\g<0></div>', body, flags=re.S)
    # log c, not logc
    body = re.sub(r'<mo>&#8289;</mo></mrow>(?=<m(?:i|n|sub|sup|subsup|frac|over|sqrt|row><mi)\b)',
                  '<mspace width="0.167em"></mspace></mrow>', body)
    def tall(m): # \Big)^2: a browser would shrink the bracket
        height, depth = int(m[3]) / 140, int(m[3]) / 350
        return f'{m[2]}<{m[1]}><mspace height="{height:.2f}em" depth="{depth:.2f}em"></mspace>'
    body = re.sub(r'<(msup|msub|msubsup)>(<mo minsize="(\d+)%"[^>]*>[^<]*</mo>)', tall, body)
    return re.sub(r'<math display="block".*?</math>', r'<span class="wide eq">\g<0></span>', body, flags=re.S)

def plain(s):
    return html.unescape(re.sub(r'<[^>]+>', '', re.sub(r'<annotation.*?</annotation>', '', s, flags=re.S))).strip()
def headings(body):
    return [(int(n), i, t) for n, i, t in re.findall(r'<h([1-6])[^>]*? id="([^"]+)"[^>]*>(.*?)</h\1>', body,
                                                     flags=re.S)]

def frame(site, nb, body, meta, book, titles):
    "The whole page: menu, contents of the page, text, neighbours."
    page, order, section = book[nb][1], list(book), None
    here, menu = dirname(page) or '.', []
    def link(o, attrs='', before=''):
        return f'<a {attrs} href="{html.escape(relpath(book[o][1], here))}">{before}{titles[o]}</a>'
    for section in dict.fromkeys(s for s, _ in book.values()):
        inside = [o for o in order if book[o][0] == section]
        items = ''.join(f"<li>{link(o, 'aria-current=page' if o == nb else '')}</li>" for o in inside)
        fold = ' open' if nb in inside else ''
        head = f'<summary>{html.escape(section)}</summary>'
        menu.append(f'<li><details class="room"{fold}>{head}<ul>{items}</ul></details></li>')
    toc = [f'<li class="l{n}"><a href="#{i}">{re.sub("</?a[^>]*>", "", t)}</a></li>' for n, i, t in headings(body)
           if n in (2, 3)]
    room = [o for o in order if book[o][0] == book[nb][0]]
    k = room.index(nb)
    near = [link(room[j], f'class="{w.lower()}"', f'<small>{w}</small>')
            for w, j in (('Previous', k - 1), ('Next', k + 1)) if 0 <= j < len(room)]
    made = (f"Module <code>edm_lab.{meta['module']}</code>, made from <code>nbs/{nb}</code>. Code with a coloured "
            f"edge is the library; the rest is its lesson.") if meta['module'] else ''
    contents = f'<details class="toc"><summary>On this page</summary>\n<ul>{"".join(toc)}</ul></details>' if toc else ''
    head = plain(titles[nb]) if nb == order[0] else f'{plain(titles[nb])} · {site}'
    return Template((HERE/'page.html').read_text(encoding='utf-8')).substitute(
        site=html.escape(site), up=relpath('.', here), home=html.escape(relpath(book[order[0]][1], here)),
        menu='\n'.join(menu), body=body, near=''.join(near), title=titles[nb], head=html.escape(head),
        lead=meta['lead'], about=html.escape(plain(meta['lead']), True),
        made=f'<p class="made">{made}</p>' if made else '', toc=contents)

# ---- pages that are no notebooks ----

def names_md():
    "Every public name of the package: what it is, and the page that defines it, room by room."
    import ast
    from runpy import run_path
    syms = run_path(str(ROOT/'edm_lab'/'_modidx.py'))['d']['syms']
    rooms = {}
    for module, found in syms.items():
        path = ROOT/(module.replace('.', '/') + '.py')
        tree = ast.parse(path.read_text(encoding='utf-8'))
        docs = {o.name: (ast.get_docstring(o) or '').split('\n')[0] for o in tree.body
                if isinstance(o, ast.FunctionDef | ast.ClassDef)}
        for full, (to, _) in found.items():
            name = full.removeprefix(module + '.')
            if '.' in name or name.startswith('_'): continue
            short = module.removeprefix('edm_lab.')
            rooms.setdefault(short.rpartition('.')[0] or short, []).append((name, to, short, docs.get(name, '')))
    out = ['# Names', 'Every public function and class: what it does, and where it is defined.']
    for room, rows in rooms.items():
        out += [f'## {room}', '| name | module | what it does |\n|---|---|---|']
        rows.sort(key=lambda r: r[0].lower())
        out[-1] += ''.join(f'\n| [`{n}`]({to}) | `{m}` | {cell(d)} |' for n, to, m, d in rows)
    return '\n\n'.join(out)

def cell(text):
    "A docstring as plain text in a table."
    return re.sub(r'([|*_$\[\]<>`\\^~])', r'\\\1', text)

def render_md(name, book):
    "A Markdown file of the root, or the index of names, as (front matter, HTML body, title)."
    md = names_md() if name == 'names' else (ROOT/name).read_text(encoding='utf-8')
    try: body = pandoc(re.sub(r'(?m)^(#{1,3}) .*$', r'\g<0>', md))
    except SiteError as e: raise SiteError(f'{name}: {e}') from None
    title, lead, rest = re.fullmatch(r'\s*<h1[^>]*>(.*?)</h1>\s*(<p>.*?</p>)?(.*)', body, flags=re.S).groups()
    return dict(module=None, lead=lead or ''), dress(relink(rest, book[name][1], book)), title

# ---- the two jobs ----

def render(nb, book, out):
    "One processed notebook as (front matter, HTML body, title)."
    if not nb.endswith('.ipynb'): return render_md(nb, book)
    page, raw = book[nb][1], (NBS/nb).read_text(encoding='utf-8')
    try:
        meta, md = page_md(json.loads((ROOT/'_proc'/nb).read_text(encoding='utf-8')), Path(page).stem,
                           (out/page).parent/'figs')
        if 'title' not in meta: raise SiteError('the first cell is not "# Title" with "> description"')
        body = pandoc(f"# {meta['title']}\n\n{meta.get('description', '')}\n\n::: {{#cut}}\n:::\n\n{md}")
    except SiteError as e: raise SiteError(f'nbs/{nb}: {e}') from None
    top, body = re.split(r'<div id="cut">\s*</div>', body, maxsplit=1)
    title, lead = re.fullmatch(r'\s*<h1[^>]*>(.*?)</h1>(.*)', top, flags=re.S).groups()
    module = re.search(r'#\| *default_exp +([\w.]+)', raw)
    return dict(module=module and module[1], lead=lead.strip()), dress(relink(body, page, book)), title

def check_links(bodies, book):
    "Every internal link has its page and its heading. Links that nbdev made to a method fall back to the class."
    ids = {page: {i for _, i, _ in headings(bodies[nb])} | set(re.findall(r' id="([^"]+)"', bodies[nb]))
           for nb, (_, page) in book.items()}
    for nb, (_, page) in book.items():
        def one(m):
            path, _, frag = html.unescape(m[1]).partition('#')
            to = normpath(dirname(page) + '/' + path if dirname(page) else path) if path else page
            if re.match(r'[a-z]+:|//', m[1]) or path.startswith('figs/'): return m[0]
            while to in ids and frag and frag not in ids[to] and '.' in frag: frag = frag.rpartition('.')[0]
            # a private name has no heading; a heading of the page may have taken a name's anchor
            if to in ids and frag not in ids[to] and (frag.startswith('_') or nb == 'names'): frag = ''
            if to not in ids or (frag and frag not in ids[to]):
                raise SiteError(f'{nb}: links to {html.unescape(m[1])}, which is not there')
            return f'href="{path}{"#" * bool(frag)}{frag}"'
        bodies[nb] = re.sub(r'href="([^"]*)"', one, bodies[nb])

def sections(title, page, body):
    "What the search finds of one page: [heading, address, page, text] for the page's start and each heading."
    parts = re.split(r'(?=<h[23][^>]*? id=")', body)
    for part in parts:
        m = re.match(r'<h[23][^>]*? id="([^"]+)"[^>]*>(.*?)</h[23]>', part, flags=re.S)
        text = ' '.join(plain(re.sub(r'<h[23].*?</h[23]>', '', part, count=1, flags=re.S)).split())
        yield [plain(m[2]), f'{page}#{m[1]}', title, text] if m else [title, page, '', text]

def build(out=None):
    "The whole site, written beside its place and moved there when it is complete."
    from nbdev.serve import proc_nbs
    site, default, book = read_book()
    out = Path(out).resolve() if out else default
    if out.exists() and any(out.iterdir()) and not (out/'site.css').exists():
        raise SiteError(f'{out} is neither empty nor a site made here')
    os.chdir(ROOT)
    # pages are cached by the age of their notebook; a new name in the library may add links to all of them
    cache = ROOT/'_proc'
    stale = cache.exists() and any(p.stat().st_mtime > cache.stat().st_mtime for p in (ROOT/'edm_lab').rglob('*.py'))
    try: proc_nbs(n_workers=min(2, os.cpu_count() or 1), force=stale)
    except Exception as e: raise SiteError('nbdev: ' + ' '.join(str(e).split())[:300]) from None
    with tempfile.TemporaryDirectory() as tmp, ThreadPoolExecutor(2) as pool:
        tmp = Path(tmp)
        done = dict(zip(book, pool.map(lambda nb: render(nb, book, tmp), book)))
        titles, bodies = {nb: d[2] for nb, d in done.items()}, {nb: d[1] for nb, d in done.items()}
        check_links(bodies, book)
        for nb, (_, page) in book.items():
            (tmp/page).parent.mkdir(parents=True, exist_ok=True)
            (tmp/page).write_text(frame(site, nb, bodies[nb], done[nb][0], book, titles), encoding='utf-8')
        found = [e for nb in book for e in sections(plain(titles[nb]), book[nb][1], bodies[nb])]
        (tmp/'search.js').write_text('const SEARCH = ' + json.dumps(found, ensure_ascii=False, indent=0) + '\n',
                                     encoding='utf-8')
        if (NBS/'llms.txt').exists(): shutil.copyfile(NBS/'llms.txt', tmp/'llms.txt')
        for f in ('site.css', 'site.js'): shutil.copyfile(HERE/f, tmp/f)
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(tmp, out)
    return f'{len(book)} pages: {out}/{book[next(iter(book))][1]}'

def folded(line):
    return ('\n'.join(textwrap.wrap(line, 110, subsequent_indent='    ', break_on_hyphens=False))
            if len(line) > 110 else line)

def quoted(m):
    "A callout as a block quote with its title in bold."
    text = f'**{m[2] or m[1].capitalize()}.** {m[3].strip()}'
    return '\n'.join(f'> {line}'.rstrip() for line in text.split('\n'))

def readme():
    "README.md from nbs/index.ipynb: prose, code, printed text, no pictures; links lead to the notebooks."
    parts, to_nb = (['<!-- Made from nbs/index.ipynb by `make readme`; edit the notebook. -->'],
                    {v[1]: k for k, v in read_book()[2].items()})
    for c in json.loads((NBS/'index.ipynb').read_text(encoding='utf-8'))['cells']:
        src, (opts, code) = ''.join(c['source']), options(''.join(c['source']))
        if c['cell_type'] == 'markdown':
            src = re.sub(r'(?m)^::: *\{\.callout-(\w+).*?\}\n(?:#+ (.*)\n)?([\s\S]*?)\n:::$', quoted, code)
            def one(m):
                path, _, frag = m[1].partition('#')
                path = f'nbs/{to_nb.get(path, path)}' if not path.startswith('../') else path[3:]
                return f']({path}{"#" * bool(frag)}{frag})'
            parts.append(re.sub(r'\]\((?![a-z]+:|#|/)([^)\s]+)\)', one, src))
        if c['cell_type'] != 'code' or {'hide', 'default_exp'} & set(opts) or opts.get('include') is False: continue
        if code and opts.get('echo') is not False:
            parts.append(re.sub(r' \{\.(\w+)\}\n', r'\1\n', code_md(code), count=1))
        for o in c['outputs'] * (opts.get('output') is not False):
            data = o.get('data', {})
            text = ''.join(o.get('text') or data.get('text/markdown') or data.get('text/plain', '')).rstrip()
            if not text or any(k.startswith('image/') for k in data) or text.startswith('<'): continue
            parts.append(text if 'text/markdown' in data or opts.get('output') == 'asis' else '```text\n'
                         + '\n'.join(map(folded, text.split('\n'))) + '\n```')
    return '\n\n'.join(p.strip('\n') for p in parts) + '\n'

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--out', help='folder of the site; default: output-dir of _quarto.yml')
    p.add_argument('--readme', action='store_true', help='write README.md instead')
    a = p.parse_args(argv)
    try:
        if a.readme: (ROOT/'README.md').write_text(readme(), encoding='utf-8')
        print('README.md' if a.readme else build(a.out))
    except (SiteError, ModuleNotFoundError) as e:
        print(f'site: {e}', file=sys.stderr)
        return 2

if __name__ == '__main__': sys.exit(main())

"The site and the report as a reader gets them: as text, and in a real browser at the width of a phone and of a desk."
import functools, html.parser, json, re, shutil, subprocess, sys, threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from posixpath import dirname, normpath

import pytest
from book import ROOT, notebooks

pytest.importorskip('pypandoc')
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome',
                                                'google-chrome-stable', 'chrome'))), None)
VOID = {'area', 'base', 'br', 'col', 'embed', 'hr', 'img', 'input', 'link', 'meta', 'source', 'track', 'wbr'}

class Page(html.parser.HTMLParser):
    "Ids, links, loaded addresses and captions of one page; `bad` holds what does not nest."
    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loads, self.naked, self.bad, self.open, self.fig = [], [], [], [], [], [], None
        self.feed(path.read_text(encoding='utf-8'))
        self.close()
        self.bad += self.open
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if tag not in VOID: self.open.append(tag)
        if 'id' in a: self.ids.append(a['id'])
        if tag == 'a' and 'href' in a: self.links.append(a['href'])
        for key in ('src', 'srcset', 'data', 'poster'):
            if a.get(key): self.loads.append(a[key])
        if tag == 'link': self.loads.append(a['href'])
        self.loads += re.findall(r'url\(([^)#][^)]*)\)', a.get('style') or '')
        if tag == 'figure': self.fig = dict(cap='', in_cap=False)
        if tag == 'figcaption' and self.fig: self.fig['in_cap'] = True
        if tag == 'img' and not self.fig: self.naked.append(a.get('src', '')[:60])
    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID: self.open.pop()
    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag: self.open.pop()
        elif tag not in VOID: self.bad.append(f'/{tag}')
        if tag == 'figcaption' and self.fig: self.fig['in_cap'] = False
        if tag == 'figure':
            if not self.fig['cap'].strip(): self.naked.append('a figure with an empty caption')
            self.fig = None
    def handle_data(self, data):
        if self.fig and self.fig['in_cap']: self.fig['cap'] += data

@pytest.fixture(scope='module')
def www(tmp_path_factory):
    "A folder with site/ and, once the command exists, report/index.html."
    www = tmp_path_factory.mktemp('www')
    r = subprocess.run([sys.executable, 'tools/site.py', '--out', str(www/'site')], cwd=ROOT, capture_output=True,
                       text=True)
    assert r.returncode == 0, r.stderr[-2000:]
    if (ROOT/'edm_lab'/'cli.py').exists():
        (www/'report').mkdir()
        code = 'import sys; from edm_lab.cli import main; sys.exit(main())'
        r = subprocess.run([sys.executable, '-c', code, 'diagnose', 'all', '--html', str(www/'report'/'index.html')],
                           cwd=www, capture_output=True, text=True)
        assert r.returncode == 0, r.stderr[-2000:]
    return www

@pytest.fixture(scope='module')
def pages(www): return {p.relative_to(www).as_posix(): Page(p) for p in sorted(www.rglob('*.html'))}

@pytest.fixture(scope='module')
def report(pages):
    pytest.importorskip('edm_lab.cli', reason='the command is not there yet')
    return pages['report/index.html']

# ---- read as text ----

def test_every_notebook_has_its_page(pages):
    others = {'site/names.html', 'site/contributing.html', 'site/changelog.html', 'site/notes.html'}
    made = {p for p in pages if p.startswith('site/')}
    assert others <= made and len(made) == len(notebooks()) + len(others)

def test_pages_nest(pages):
    assert not (bad := {p: o.bad for p, o in pages.items() if o.bad})

def test_ids_are_unique(pages):
    assert not (twice := {p: d for p, o in pages.items() if (d := sorted({i for i in o.ids if o.ids.count(i) > 1}))})

def test_internal_links_resolve(www, pages):
    dead = []
    for p, o in pages.items():
        for url in o.links + o.loads:
            if re.match(r'[a-z]+:', url): continue
            path, _, frag = url.partition('#')
            to = normpath(f'{dirname(p)}/{path}') if path else p
            if not (www/to).is_file() or (frag and frag not in pages[to].ids): dead.append(f'{p}: {url}')
    assert not dead, '\n'.join(dead)

def test_every_figure_is_there(www):
    assert len(list((www/'site').rglob('figs/*.png'))) == sum(len(c.pngs) for nb in notebooks() for c in nb.code)

def test_figures_have_captions(pages):
    assert not (naked := {p: o.naked for p, o in pages.items() if o.naked})

def test_nothing_is_fetched(www, pages):
    outside = [f'{p}: {u}' for p, o in pages.items() for u in o.loads if re.match(r'(?!data:)[a-z]+:|//', u)]
    for f in [*www.rglob('*.css'), *www.rglob('*.js')]:
        outside += [f'{f.name}: {m}' for m in re.findall(r'@import|https?://\S+|fetch\(|XMLHttpRequest',
                                                         f.read_text(encoding='utf-8')) if f.name != 'search.js']
    assert not outside, '\n'.join(outside)

def test_the_report_is_one_file(www, report):
    assert [p.name for p in (www/'report').iterdir()] == ['index.html']
    assert all(u.startswith('data:') for u in report.loads)

def test_a_second_build_is_the_same(www, tmp_path):
    r = subprocess.run([sys.executable, 'tools/site.py', '--out', str(tmp_path/'again')], cwd=ROOT,
                       capture_output=True, text=True)
    assert r.returncode == 0, r.stderr[-2000:]
    read = lambda d: {p.relative_to(d).as_posix(): p.read_bytes() for p in sorted(d.rglob('*')) if p.is_file()}
    assert read(www/'site') == read(tmp_path/'again')

# ---- in a browser ----

PROBE = """<script>window.errs = []
addEventListener('error', e => errs.push(e.message || 'cannot load ' + (e.target.src || e.target.href)), true)
addEventListener('unhandledrejection', e => errs.push(String(e.reason)))
addEventListener('securitypolicyviolation', e => errs.push('fetches ' + e.blockedURI))
const say = console.error; console.error = (...a) => { errs.push(a.join(' ')); say(...a) }</script>"""

# One wrapper loads all pages, one after the other, in a frame of 390 px and of 1200 px: a headless window is never
# narrower than about 500.
WRAPPER = """<!DOCTYPE html><meta charset="utf-8"><iframe></iframe><script>
const frame = document.querySelector('iframe'), out = {}, wait = ms => new Promise(r => setTimeout(r, ms))
const load = (url, width) => new Promise(r => {
  frame.style = `width:${width}px;height:800px;border:0`; frame.onload = r; frame.src = url
})
const SCROLLS = 'pre, .wide, .out, svg, math, [style*=overflow], .sourceCode'
function measure() {
  const d = frame.contentDocument, w = d.documentElement.clientWidth
  const over = e => e.getBoundingClientRect().right > w + 1 && !e.closest(SCROLLS)
  const wide = [...d.querySelectorAll('body *')].filter(over)
  return { over: d.documentElement.scrollWidth - w, wide: wide.slice(0, 3).map(e => e.outerHTML.slice(0, 120)) }
}
(async () => {
  for (const url of PAGES) for (const width of [390, 1200]) {
    await load(url, width); await wait(50)
    const d = frame.contentDocument, shut = measure()
    d.querySelectorAll('details').forEach(e => e.open = true); await wait(20)
    const q = d.querySelector('#q')
    let hits = null
    if (q && width > 1000) {
      q.value = 'denoiser'; q.dispatchEvent(new Event('input'))
      for (let i = 0; i < 100 && !d.querySelector('#hits a'); i++) await wait(30)
      hits = d.querySelectorAll('#hits a').length
    }
    const text = d.body.innerText.length, errs = frame.contentWindow.errs
    out[url + ' at ' + width] = { shut, open: measure(), hits, text, errs,
      broken: [...d.images].filter(i => i.loading != 'lazy' && !i.naturalWidth).map(i => i.src.slice(0, 80)) }
  }
  await fetch('/result', { method: 'POST', body: JSON.stringify(out) })
})().catch(e => fetch('/result', { method: 'POST', body: JSON.stringify({ wrapper: String(e) }) }))
</script>"""

class Handler(SimpleHTTPRequestHandler):
    "Serves the folder; each page gets the probe and may load from here only."
    def do_GET(self):
        path = Path(self.translate_path(self.path))
        if self.path != '/wrapper.html' and path.suffix != '.html': return super().do_GET()
        if self.path == '/wrapper.html': body = self.server.wrapper
        else: body = path.read_text(encoding='utf-8').replace('<head>', f'<head>{PROBE}', 1)
        self.send_response(200)
        self.send_header('Content-Type', 'text/html; charset=utf-8')
        self.send_header('Content-Security-Policy', "default-src 'self' data: 'unsafe-inline'")
        self.end_headers()
        self.wfile.write(body.encode())
    def do_POST(self):
        self.server.result = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        self.send_response(204)
        self.end_headers()
        self.server.done.set()
    def log_message(self, *args): pass

@pytest.fixture(scope='module')
def browser(www, pages, tmp_path_factory):
    "What one run of Chromium saw on every page."
    if CHROMIUM is None: pytest.skip('no Chromium on PATH')
    server = ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Handler, directory=str(www)))
    server.wrapper = WRAPPER.replace('PAGES', json.dumps(['/' + p for p in pages]))
    server.done, server.result = threading.Event(), None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    flags = ['--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
             '--window-size=1300,900', f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
             f'http://127.0.0.1:{server.server_port}/wrapper.html']
    proc = subprocess.Popen([CHROMIUM, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try: assert server.done.wait(180), 'Chromium did not finish in three minutes'
    finally:
        proc.terminate()
        proc.wait(20)
        server.shutdown()
    assert 'wrapper' not in server.result, server.result['wrapper']
    return server.result

def test_pages_show_text(browser): assert not (empty := [p for p, o in browser.items() if o['text'] < 200])
def test_no_console_error(browser): assert not (errs := {p: o['errs'] for p, o in browser.items() if o['errs']})
def test_no_broken_picture(browser): assert not (broken := {p: o['broken'] for p, o in browser.items() if o['broken']})
def test_no_sideways_scroll(browser):
    assert not (wide := {f'{p}, folds {k}': o[k] for p, o in browser.items() for k in ('shut', 'open')
                         if o[k]['over'] > 0})
def test_search_finds(browser): assert not (lost := [p for p, o in browser.items() if '/site/' in p and o['hits'] == 0])

#!/usr/bin/env python3
"""Run only the notebooks and tests that depend on what changed since a commit.

    python tools/quick.py                  # since the last commit, with what is not committed yet
    python tools/quick.py --since main     # since another one
    python tools/quick.py --depth 9        # importers of importers too (default 1: direct importers)
    python tools/quick.py --list           # say what would run, and run nothing

A notebook depends on the modules that any of its cells imports; a test file on the modules and commands it names.
The rules of the house (tests/test_house.py) always run.
"""
import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/"tests"))
from book import imports, notebooks  # noqa: E402

EVERYWHERE = {"tests/test_house.py", "tests/test_import.py"}


def changed(since):
    "Files that differ from a commit, those that git does not track included."
    def git(*args):
        r = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True)
        if r.returncode: sys.exit(f"quick: git {' '.join(args)}: {r.stderr.strip()}")
        return r.stdout.split("\n")
    return {f for f in git("diff", "--name-only", since) + git("ls-files", "-o", "--exclude-standard") if f}


def modules_of(files):
    "Modules whose source, or whose data beside it, changed."
    out = set()
    for f in files:
        m = re.fullmatch(r"edm_lab/(.+)\.py", f)
        if m and not f.endswith(("__init__.py", "_modidx.py")): out.add(m[1].replace("/", "."))
        if re.match(r"edm_lab/messages/(\w+)/(\w+)\.toml", f): out.add(".".join(f.split("/")[2:])[:-5])
        if f.startswith("edm_lab/cards/"): out.add("diagnosis.card")
        if f.startswith("edm_lab/recipes/"): out.add("runs.recipe")
    return out


def reached(modules, depth):
    "These modules, and those that import them."
    uses = {nb.module: {m for c in nb.exports for m in imports(c.tree)} for nb in notebooks() if nb.module}
    for _ in range(depth - 1): modules = modules | {m for m, used in uses.items() if used & modules}
    return modules


def chosen(files, depth):
    "Notebooks and test files to run."
    modules = reached(modules_of(files), depth)
    nbs = [nb for nb in notebooks() if f"nbs/{nb.name}" in files or nb.module in modules
           or {m for c in nb.code for m in imports(c.tree)} & modules]
    tests = set(EVERYWHERE)
    for p in sorted((ROOT/"tests").glob("test_*.py")):
        text, name = p.read_text(encoding="utf-8"), f"tests/{p.name}"
        if name in files or any(re.search(rf"edm_lab\.{re.escape(m)}\b", text) for m in modules): tests.add(name)
        if p.name == "test_web.py" and any(f.startswith(("tools/", "_quarto")) for f in files): tests.add(name)
        if p.name == "test_project.py" and any(f in ("pyproject.toml", "settings.ini") for f in files): tests.add(name)
    return [f"nbs/{nb.name}" for nb in nbs], sorted(tests)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--since", default="HEAD~1", help="a commit (HEAD~1)")
    p.add_argument("--depth", type=int, default=1, help="1: direct importers; more: importers of importers")
    p.add_argument("--list", action="store_true", help="run nothing")
    a = p.parse_args()
    nbs, tests = chosen(changed(a.since), a.depth)
    head = f"{len(nbs)} notebooks, {len(tests)} test files depend on what changed since {a.since}:"
    print(head, *nbs, *tests, sep="\n  ")
    if a.list: return 0
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    run = "from nbdev.test import nbdev_test; import sys; nbdev_test(sys.argv[1])"
    bad = [nb for nb in nbs if subprocess.run([sys.executable, "-c", run, nb], cwd=ROOT, env=env).returncode]
    code = subprocess.run([sys.executable, "-m", "pytest", *tests], cwd=ROOT, env=env).returncode
    if bad: print("These notebooks failed:", *bad, sep="\n  ")
    return int(bool(bad) or code != 0)


if __name__ == "__main__": sys.exit(main())

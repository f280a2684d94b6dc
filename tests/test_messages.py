"""The sentences of the checks: every message is used, every id exists, every field is passed, and they read well."""
import ast
import string
import tomllib
from pathlib import Path

import pytest

import words

ROOT = Path(__file__).resolve().parent.parent / "edm_lab"
FILES = sorted((ROOT / "messages").glob("*_checks/*.toml"))
KINDS = dict(finding=("claim", "fix"), note=("text",), unknown=("question", "measurement"))
ids = pytest.mark.parametrize("file", FILES, ids=[f"{f.parent.name}/{f.stem}" for f in FILES])


def tables(file: Path) -> dict[str, dict]:
    "The checks of a file, without what holds for all of them."
    return {k: v for k, v in tomllib.loads(file.read_text(encoding="utf-8")).items() if isinstance(v, dict)}


def messages(file: Path) -> dict[str, dict]:
    "id -> fields."
    return {f"{c}.{k}": m for c, table in tables(file).items() for k, m in table.items() if isinstance(m, dict)}


def fields(text: str) -> set[str]:
    return {name.split("[")[0].split(".")[0] for _, name, _, _ in string.Formatter().parse(text) if name}


def needed(m: dict) -> set[str]:
    "The numbers that a message cannot do without."
    return {f for k in ("claim", "fix", "text", "question", "measurement") for f in fields(m.get(k, ""))}


def offered(m: dict) -> set[str]:
    "The numbers that lines of evidence use where they are given."
    return {f for e in m.get("evidence", []) for f in ({e["each"]} if isinstance(e, dict) else fields(e))}


def literals(node: ast.expr) -> list[str]:
    "The texts that an expression may be: a constant, a choice, or an f-string around one."
    if isinstance(node, ast.Constant): return [str(node.value)]
    if isinstance(node, ast.IfExp): return literals(node.body) + literals(node.orelse)
    if isinstance(node, ast.JoinedStr):
        out = [""]
        for part in node.values:
            ends = literals(part.value if isinstance(part, ast.FormattedValue) else part)
            out = [a + b for a in out for b in ends] if ends else []
        return out
    return []


def patterns(node: ast.expr) -> str | None:
    "The beginning of an id that is made at run time."
    if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant): return str(node.values[0].value)
    return None


def calls(module: Path):
    "(kind, ids that may be meant, beginning of an id made at run time, keywords, are there `**numbers`?) of each call."
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS and node.args):
            continue
        keys = {k.arg for k in node.keywords if k.arg}
        yield (node.func.id, literals(node.args[0]), patterns(node.args[0]), keys,
               any(k.arg is None for k in node.keywords), node.lineno)


def uses(file: Path) -> list[Path]:
    "The modules that use the messages of a file: its own, the registry for those that all share, or those of a case."
    if file.stem == "run": return [ROOT / "diagnosis" / "findings.py"]
    own = ROOT / file.parent.name / f"{file.stem}.py"
    cases = (m for m in sorted((ROOT / "cases").rglob("*.py")) if f'"{file.stem}.' in m.read_text(encoding="utf-8"))
    return [own] if own.is_file() else list(cases)


@ids
def test_a_file_belongs_to_a_module(file):
    assert uses(file) and all(m.is_file() for m in uses(file)), f"{file.name} has no module"


@ids
def test_every_check_has_its_entry(file):
    assert not (lost := [c for c, t in tables(file).items() if not str(t.get("wrong_when", "")).endswith(".")]), lost


@ids
def test_every_message_is_used_and_every_id_exists(file):
    known, used, text = messages(file), set(), ""
    for module in uses(file):
        text += module.read_text(encoding="utf-8")
        for kind, meant, start, _, _, line in calls(module):
            if not meant and start: used |= {i for i in known if i.startswith(start)}
            for i in meant:
                assert i in known or (file.stem != module.stem), f"{module.name}:{line}: no message {i!r}"
                if i in known:
                    assert all(f in known[i] for f in KINDS[kind]), f"{i} is no {kind}"
                used.add(i)
    lost = [i for i in known if i not in used and i not in text]
    assert not lost, f"messages that no code uses: {lost}"


@ids
def test_every_field_is_passed(file):
    known, given = messages(file), {}
    for module in uses(file):
        for _, meant, _, keys, more, line in calls(module):
            for i in meant:
                if i not in known: continue
                lost = needed(known[i]) - keys
                assert more or not lost, f"{module.name}:{line}: {i} needs {sorted(lost)}"
                given[i] = None if more or given.get(i, ...) is None else given.get(i, set()) | keys
    for i, keys in given.items():
        assert keys is None or not (lost := offered(known[i]) - keys), f"{i}: no call passes {sorted(lost)}"


@ids
def test_sentences_read_well(file):
    own = file.parent.name == "log_checks"
    for i, m in messages(file).items():
        for k in ("claim", "fix", "text", "question", "measurement"):
            s = m.get(k)
            if s is None: continue
            ends = ".?" if k == "question" else "."
            if own or k in ("claim", "fix"):
                assert s[-1] in ends, f"{i}: {k} ends without a full stop: {s[-30:]!r}"
        assert m.get("severity", "low") in ("critical", "high", "medium", "low", "benign"), i
    assert not (odd := list(words.in_prose(file.read_text(encoding="utf-8"), f"edm_lab/messages/{file.name}"))), odd


def test_every_check_has_a_message_file():
    "Checks of a module that has its table state when they are wrong."
    import edm_lab.model_checks.examine  # noqa: F401 (registers both kinds)
    from edm_lab.diagnosis.findings import LOG_CHECKS
    from edm_lab.model_checks.context import MODEL_CHECKS
    have = {f.stem for f in FILES}
    for c in (*LOG_CHECKS.values(), *MODEL_CHECKS.values()):
        module = c.run.__module__.rpartition(".")[2]
        assert module not in have or c.wrong_when, f"{c.name}: no wrong_when in {module}.toml"


def test_essential_checks_exist():
    import edm_lab.model_checks.examine  # noqa: F401
    from edm_lab.diagnosis.findings import LOG_CHECKS
    from edm_lab.log_checks.diagnose import LOG_AREAS, MODEL_AREAS
    from edm_lab.model_checks.context import MODEL_CHECKS
    assert {n for names in MODEL_AREAS.values() for n in names} <= MODEL_CHECKS.keys()
    assert {n for kind in LOG_AREAS.values() for names in kind.values() for n in names} <= LOG_CHECKS.keys()


def test_every_cause_is_known():
    from edm_lab.diagnosis.findings import CAUSES
    lost = {i for f in FILES for i, m in messages(f).items()
            if "claim" in m and m.get("cause", i.rpartition(".")[2]) not in CAUSES}
    assert not lost, f"messages of unknown causes: {sorted(lost)}"

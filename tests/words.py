"""The words of the house: what is not said, and what is said instead.

`python tests/words.py FILE ...` lists what stands in these files.
"""
import ast
import io
import json
import re
import sys
import tokenize
from pathlib import Path

# in prose: text, docstrings, comments, messages, printed output
PROSE = [
    (r"the seed's|\bthe seed\b(?! of\b| alone\b| and\b)", "the original system, its log; \"seed\" means a random seed"),
    (r"\bknows\b|\bknowable\b|what can be known", "skill"),
    (r"\bthe null\b(?! token| condition| label| class| embedding)|\bnull(?:'s| curve| baseline| denoiser| network)",
     "zero-output baseline (F_x = 0)"),
    (r"\bsays nothing\b|\bsilent\b|\bsilence\b", "outputs zero"),
    (r"\btrivial\b", "scalar baseline (best multiple of the input)"),
    (r"\brivals?\b", "baseline (a predictor) or hypothesis (a fitted curve)"),
    (r"\bfloors?\b", "Bayes error, or best baseline: say which"),
    (r"\btold\b", "conditioned on, passed"),
    (r"\bask(?:s|ed|ing)?\b", "evaluate"),
    (r"\banswers?\b|\banswered\b", "prediction"),
    (r"(?<!power )\blaws?\b", "sigma distribution"),
    (r"\bstir(?:s|red|ring)?\b", "churn"),
    (r"\broads?\b", "method"),
    (r"\bpatients?\b", "the model"),
    (r"\bwhoever\b|\bsomebody\b|\bnobody\b|\banybody\b|\beverybody\b", "the model, a user, no denoiser"),
    (r"\bdoubts?\b", "uncertainty"),
    (r"\bspoil(?:s|ed|t)?\b|\bcook(?:s|ed)?\b|\bwakes?\b|\bspy\b|\bspies\b|\blevers?\b",
     "corrupt, build, randomize, recorder, amplification"),
]
# parts of identifiers
NAMES = {
    "knows": "skill", "rival": "baseline or hypothesis", "rivals": "baselines or hypotheses", "trivial": "scalar",
    "told": "passed, options", "ask": "predict, evaluate", "asks": "evaluates", "asked": "evaluated",
    "answer": "prediction", "answers": "predictions", "law": "sigma_dist", "laws": "sigma_dists", "stir": "churn",
    "road": "method", "roads": "methods", "patient": "model", "doubt": "uncertainty", "spoil": "corrupt",
    "cook": "build_recipe", "wake": "randomize_weights", "spy": "recorder", "lever": "amplification",
    "places": "coordinates", "said": "metadata, options", "gauge": "symmetry, unknown_frame", "silent": "zero_output",
    "whoever": "", "somebody": "", "nobody": "", "anybody": "", "floors": "baselines",
}
# (path, words, why they may stand there)
ALLOWED = [
    (r"^tests/(words|test_house|book)\.py", r".*", "the list itself, and the numbers of the notebooks"),
    (r"^(CONTRIBUTING|NOTES)\.md", r"floors?", "floor: the number of a notebook"),
    (r"^NOTES\.md|^CHANGELOG\.md", r".*", "history keeps its words"),
    (r"^nbs/43c|^tests/test_resume|^tests/test_cli_train", r"laws?", "settings of version 0.1 are called so"),
    (r"^(bench/peers|tests/test_peers_bugs)\.py", r"silent", "an argument of another library"),
    (r"(^nbs/22|cases/jsddpm|bench/jsddpm|test_run_jsddpm)", r"patients?", "people with multiple sclerosis"),
]


def allowed(path: str, word: str) -> bool:
    "May this word stand in this file?"
    return any(re.search(p, path) and re.fullmatch(w, word.lower()) for p, w, _ in ALLOWED)


def in_prose(text: str, path: str):
    "(word, instead) of every word that does not belong."
    for rx, instead in PROSE:
        for m in re.finditer(rx, text, flags=re.I):
            near = text[max(0, m.start() - 120):m.end() + 120].lower()
            if m[0].lower().startswith("answer") and ("question" in near or "fig-cap" in near): continue
            if not allowed(path, m[0]): yield m[0], instead, " ".join(near.split())


def in_code(src: str, path: str):
    "The same for Python: identifiers by their parts; comments and strings as prose."
    try: toks = list(tokenize.generate_tokens(io.StringIO(src).readline))
    except (tokenize.TokenError, SyntaxError, IndentationError): return
    for t in toks:
        if t.type == tokenize.NAME:
            for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", t.string):
                if part.lower() in NAMES and not allowed(path, part):
                    yield t.string, NAMES[part.lower()], t.line.strip()
        elif t.type in (tokenize.STRING, tokenize.COMMENT) and not re.search(r"\b(?:rng|seed_of|gen)\(", t.line):
            yield from in_prose(t.string, path)


def strange(path: Path, root: Path):
    "(what, instead, where) for a notebook, a Python, TOML or Markdown file."
    rel = path.relative_to(root).as_posix()
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        for c in json.loads(text)["cells"]:
            src = "".join(c["source"])
            if c["cell_type"] == "code":
                yield from in_code(src, rel)
                for o in c.get("outputs", []):
                    out = o.get("text") or o.get("data", {}).get("text/plain") or ""
                    yield from in_prose("".join(out), rel)
            else:
                yield from in_prose(src, rel)
                for name in re.findall(r"`([^`\n]+)`", src):
                    yield from ((m, NAMES[p], src[:60]) for m in re.findall(r"\w+", name) for p in m.lower().split("_")
                                if p in NAMES and not allowed(rel, p))
    elif path.suffix == ".py": yield from in_code(text, rel)
    else: yield from in_prose(text, rel)


def long_lines(path: Path) -> list[str]:
    "Lines of code over 120 characters, and lines with `;`."
    text, out, srcs = path.read_text(encoding="utf-8"), [], []
    if path.suffix == ".ipynb":
        srcs = ["".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "code"]
    if path.suffix == ".py": srcs = [text]
    for s in srcs:
        out += [l for l in s.split("\n") if len(l) > 120 and not l.startswith(("#| fig-cap", "#| fig-alt"))]
        try:
            out += [t.line.strip() for t in tokenize.generate_tokens(io.StringIO(s).readline)
                    if t.type == tokenize.OP and t.string == ";"]
        except (tokenize.TokenError, SyntaxError, IndentationError): pass
    return out


if __name__ == "__main__":
    root = Path(__file__).resolve().parent.parent
    for name in sys.argv[1:]:
        p = Path(name).resolve()
        for what, instead, where in strange(p, root): print(f"{name}: {what!r} -> {instead}   | {where[:130]}")
        for line in long_lines(p): print(f"{name}: long or `;`   | {line[:130]}")

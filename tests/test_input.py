"""Whatever is given, the result is a diagnosis or one clear line: random cards, bytes and tables, a million rows."""
import json
import math
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edm_lab.diagnosis.card import Card, load_card, parse_card
from edm_lab.diagnosis.schema import SCALARS, SCHEMA, TABLES, known_keys
from edm_lab.core import LabError
from edm_lab.log_checks.diagnose import diagnose, to_text
from edm_lab.diagnosis.log_readers import open_run
from edm_lab.runs.report import report_html

fair = settings(deadline=None, derandomize=True, max_examples=150, suppress_health_check=list(HealthCheck))
junk = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
                    lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(max_size=8), c, max_size=3),
                    max_leaves=8)


def one_line(e): assert str(e) and "\n" not in str(e) and len(str(e)) < 2000


def nested(flat):
    "Dotted keys to nested tables."
    tree = {}
    for key, v in flat.items():
        *path, last = key.split(".")
        node = tree
        for p in path: node = node.setdefault(p, {})
        node[last] = v
    return tree


def value(key):
    "Values that fit a key, within sane ranges."
    words = key.ok[0].removeprefix("one of ").split(", ") if key.ok and key.ok[0].startswith("one of") else None
    numbers = st.floats(1e-3, 1e3, allow_nan=False).filter(lambda v: not key.ok or key.ok[1](v))
    kinds = {float: numbers, int: st.integers(0, 2000).filter(lambda v: not key.ok or key.ok[1](v)),
             bool: st.booleans(), str: st.sampled_from(words) if words else st.text(max_size=20),
             list: st.lists(numbers, min_size=1, max_size=4),
             "words": st.lists(st.text(max_size=10), min_size=1, max_size=4),
             dict: st.dictionaries(st.sampled_from(["atom", "residue", "chain"]), st.floats(0, 100), max_size=3)}
    return kinds[key.type]


@st.composite
def cards(draw):
    "Valid cards with any subset of the keys."
    single = {f"{s}.{k}": v for s, keys in SCHEMA.items() if s not in ("source", "diagnosis")
              for k, v in keys.items()} | {f"logged.values.{k}": v for k, v in SCALARS.items()}
    flat = {k: draw(value(single[k])) for k in draw(st.lists(st.sampled_from(sorted(single)), unique=True,
                                                             max_size=40))}
    for table, cols in TABLES.items():
        if not draw(st.booleans()): continue
        n = draw(st.integers(1, 5))
        flat |= {f"{table}.{c}": draw(st.lists(st.floats(1e-3, 1 if "knn" in c else 900, allow_nan=False), min_size=n,
                                               max_size=n)) for c in cols}
    return nested(flat)


@fair
@given(st.dictionaries(st.sampled_from([*SCHEMA, "logged", "model.sigma_data", "x"]), junk, max_size=4)
       | st.dictionaries(st.sampled_from(sorted(known_keys())), junk, max_size=5).map(nested))
def test_any_tree_is_a_card_or_one_line(tree):
    try: assert isinstance(parse_card(tree, "card"), Card)
    except LabError as e: one_line(e)


@settings(fair, max_examples=100)
@given(cards())
def test_any_valid_card_gets_a_diagnosis(tree):
    try: card = parse_card(tree, "card")
    except LabError as e:  # lengths that must agree
        return one_line(e)
    d = diagnose(card)
    assert d.verdict and all(0 <= f.confidence < 1 and f.claim and f.fix for f in d.findings)
    assert not [u for u in d.unknowns if "broke on this card" in u.question], d.unknowns
    j = json.loads(d.to_json(), parse_constant=lambda c: pytest.fail(f"{c} in JSON"))
    assert j["verdict"] == d.verdict and to_text(d)


def test_a_random_card_makes_a_page():
    tree = nested({"data.kind": "<script>alert(1)</script>", "logged.scale.sigma": [1e-3, 900.],
                   "logged.scale.scale_r": [900., 0.], "model.sigma_data": 1e-3, "card.title": "\u202e<b>"})
    page = report_html([diagnose(parse_card(tree, "../../etc"))])
    assert "<script" not in page and "<b>" not in page


@fair
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_file_is_a_card_or_one_line(tmp_path_factory, data):
    f = tmp_path_factory.mktemp("card") / "x.toml"
    f.write_bytes(data)
    try: assert isinstance(load_card(f), Card)
    except LabError as e: one_line(e)


cell = st.sampled_from(["", "1", "-1", "0", "nan", "inf", "1e400", "x", '"', "0.5", "1;2", "\t", "1_0", "٣"])
header = st.lists(st.sampled_from(["sigma", "scale_r", "t", "mse_eps", "trace_r", "step", "foo", ""]), max_size=4)


@fair
@given(header, st.lists(st.lists(cell, max_size=4), max_size=5), st.sampled_from([",", ";", "\t"]))
def test_any_table_is_a_card_or_one_line(tmp_path_factory, head, rows, sep):
    f = tmp_path_factory.mktemp("csv") / "x.csv"
    f.write_text("\n".join(sep.join(r) for r in [head, *rows]), encoding="utf-8")
    try: assert diagnose(open_run(f, sigma_data=.5, schedule="cosine")).verdict
    except LabError as e: one_line(e)


@fair
@given(st.lists(junk, max_size=4)
       | st.lists(st.dictionaries(st.sampled_from(["step", "sigma", "scale_r", "t", "mse_eps", "scale_r/sigma=1"]),
                                  junk, max_size=4), max_size=5))
def test_any_jsonl_is_a_card_or_one_line(tmp_path_factory, records):
    f = tmp_path_factory.mktemp("jsonl") / "x.jsonl"
    f.write_text("\n".join(json.dumps(r, default=str) for r in records), encoding="utf-8")
    try: assert diagnose(open_run(f, sigma_data=.5, schedule="cosine")).verdict
    except LabError as e: one_line(e)


def test_rows_in_any_order_give_the_same_diagnosis(tmp_path):
    rows = list(zip([.05, .15, .4, .7, 1.2, 2.4], [.98, .78, .40, .24, .15, .08]))
    found = []
    for order in (rows, rows[::-1], rows[3:] + rows[:3]):
        f = tmp_path / "log.csv"
        f.write_text("sigma,scale_r\n" + "\n".join(f"{a},{b}" for a, b in order))
        found.append(diagnose(open_run(f, sigma_data=.16)).to_dict())
    assert found[0] == found[1] == found[2] and found[0]["cause"] == "dead_branch"


def test_a_million_rows(tmp_path):
    gen = np.random.default_rng(0)
    sigma = np.exp(gen.normal(-1.2, 1.2, 1_000_000))
    f = tmp_path / "long.csv"
    np.savetxt(f, np.c_[sigma, .5 / np.hypot(sigma, .5) * np.exp(.2 * gen.standard_normal(len(sigma)))], "%.6g", ",",
               header="sigma,scale_r", comments="")
    tracemalloc.start()
    card = open_run(f, sigma_data=.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(card["logged.scale.sigma"]) <= 64 and peak < 1e9
    d = diagnose(card)
    assert d.cause == "dead_branch" and abs(d.hypotheses[0]["scale"] / .5 - 1) < .05  # 20 % of noise a row, averaged


@pytest.mark.parametrize("name, content, says", [("a.toml", b"\x89PNG\r\n\x1a\n", "UTF-8"),
                                                 ("a.toml", "[model]\nsigma_dat = 1".encode(),
                                                  "nearest: model.sigma_data"),
                                                 ("a.toml", "[model]\nsigma_data = -1".encode(), "a positive number"),
                                                 ("a.toml", "[model]\nsigma_data = nan".encode(), "finite"),
                                                 ("a.toml", '[model]\nsigma_data = "1"'.encode("utf-16"), "UTF-8"),
                                                 ("a.toml", "[logged.scale]\nsigma = [1, 2]\nscale_r = [1]".encode(),
                                                  "as many as sigma"),
                                                 ("a.toml", "[logged.scale]\nsigma = []\nscale_r = []".encode(),
                                                  "at least one row"), ("a.toml", b"a = 1\na = 2", "not TOML"),
                                                 ("a.csv", b"", "empty"), ("a.csv", b"sigma,scale_r\n", "no rows"),
                                                 ("a.csv", b"sigma,scale_r\n-1,1\n", "a positive number"),
                                                 ("a.csv", b"sigma,scale_r\n1\n", "line 2"),
                                                 ("a.csv", b"PK\x03\x04\x00\x00", "binary"),
                                                 ("a.csv", b"sigm,scale_rr\n1,1\n", "nearest: sigma"),
                                                 ("a.jsonl", b"{", "JSON object"), ("a.npz", b"x", "ending in .npz")])
def test_the_command_ends_in_one_line(tmp_path, capsys, name, content, says):
    from edm_lab.cli import main
    f = tmp_path / name
    f.write_bytes(content)
    code = main(["diagnose", str(f), "--sigma-data", "0.5", "--html", str(tmp_path / "out" / "r.html")])
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and err.count("\n") == 1 and says in err and str(f) in err, err
    assert not (tmp_path / "out").exists()


def test_a_card_cannot_execute_code(tmp_path):
    mark = tmp_path / "ran"
    f = tmp_path / "evil.toml"
    code, shell = f"__import__('os').system('touch {mark}')", f"${{{{ touch {mark} }}}}"
    lines = ["[card]", f'title = "{code}"', "[source]", f'text = "{shell}"']
    f.write_text("\n".join(lines) + "\n")
    report_html([diagnose(load_card(f))])
    assert not mark.exists()


def test_the_installed_command():
    run = lambda *a, **k: subprocess.run([sys.executable, "-c", "import sys; from edm_lab.cli import main; "
                                          "sys.exit(main())", *a], capture_output=True, text=True, **k)
    ok, strict, bad = run("diagnose", "all", "--json"), run("diagnose", "latent",
                                                            "--strict"), run("diagnose", "nowhere.toml")
    assert [r.returncode for r in (ok, strict, bad)] == [0, 1, 2]
    cards = [d["card"] for d in json.loads(ok.stdout)]
    assert cards == ["st", "jsddpm", "pomodoro", "latent", "state"] and not ok.stderr
    assert bad.stderr.count("\n") == 1 and "Traceback" not in bad.stderr and not bad.stdout


def test_a_closed_pipe_is_no_error():
    r = subprocess.run(f"{sys.executable} -c 'import sys; from edm_lab.cli import main; sys.exit(main())' diagnose "
                       f"all | head -n 1", shell=True, capture_output=True, text=True)
    assert r.stdout.startswith("== st") and r.stderr == ""


def test_fits_are_finite_on_extreme_tables():
    for s, y in (([1e-9, 1e9], [1., 0.]), ([1.], [1.]), ([1., 1., 1.], [.5, .5, .5]),
                 ([1e-300, 1e300], [1e300, 1e-300])):
        d = diagnose(parse_card({"model": {"sigma_data": 1.}, "data": {"symmetry": "o2", "dims": 16, "live_dims": 2},
                                 "logged": {"scale": {"sigma": s, "scale_r": y}}}))
        assert all(math.isfinite(r["rms_log_error"]) and math.isfinite(r["scale"]) for r in d.hypotheses)

"`edm_lab run st`: the files and their keys, a run that is stopped and goes on, input that cannot work."
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from edm_lab.cli import main

pytest.importorskip("anndata")
pytest.importorskip("safetensors")
ROOT = Path(__file__).resolve().parent.parent
ENV = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def command(*argv, before="pass"):
    return [sys.executable, "-c", f"import sys; {before}; from edm_lab.cli import main; sys.exit(main())", "run",
            *map(str, argv)]


def run(*argv, before="pass", **k):
    return subprocess.run(command(*argv, before=before), capture_output=True, text=True, env=ENV, timeout=300, **k)


def refused(capsys, options, message):
    "One line, exit code 2."
    code, (out, err) = main(["run", *map(str, options)]), capsys.readouterr()
    assert code == 2 and out == "" and err.count("\n") == 1 and message in err, (code, out, err)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    "A small tissue whose last section has no coordinates."
    from edm_lab.data.anndata import write_h5ad
    from edm_lab.data.tissue import simulate
    t = simulate(250, sections=2, genes=80, seed=2)
    t.xy[np.flatnonzero(t.section == "section 2")] = np.nan
    return write_h5ad(t, tmp_path_factory.mktemp("data") / "slide.h5ad")


@pytest.fixture(scope="module")
def whole(slide, tmp_path_factory):
    "A run that was not stopped."
    out = tmp_path_factory.mktemp("whole") / "deep" / "run"
    r = run("st", "--data", slide, "--quick", "--out", out, "--seed", 1)
    assert r.returncode == 0 and r.stderr == "" and "\r" not in r.stdout, r.stderr
    return out, r.stdout


def test_files_and_keys(whole, slide):
    import anndata
    from edm_lab.metrics.arrangement import arrangement_scores
    out, printed = whole
    m = json.loads((out / "metrics.json").read_text())
    assert {"heldout", "one_sample", "baselines", "ceiling", "verdict", "findings", "data", "seconds"} <= m.keys()
    assert {"ridge", "expr_knn", "chance", "reference"} == m["baselines"].keys()
    for s in (m["heldout"], m["one_sample"], m["ceiling"], *m["baselines"].values()):
        assert {"knn10_recall", "knn10_chance", "spearman", "scale_ratio"} <= s.keys()
        assert all(np.isfinite(v) for v in s.values())
    assert m["verdict"] in printed and m["seconds"] > 0
    assert m["heldout"]["knn10_recall"] > m["baselines"]["chance"]["knn10_recall"]
    before, a = anndata.read_h5ad(slide), anndata.read_h5ad(out / "tissue.h5ad")
    assert list(a.obs_names) == list(before.obs_names) and np.array_equal(a.X.toarray(), before.X.toarray())
    assert np.array_equal(a.obsm["spatial"], before.obsm["spatial"], equal_nan=True)
    split, xy = a.obs["edm_lab_split"].astype(str).to_numpy(), a.obsm["X_edm_lab"]
    placed = np.isfinite(before.obsm["spatial"]).all(1)
    assert {"train", "held"} == set(split[placed]) and {"unplaced"} == set(split[~placed])
    assert m["data"]["held"] == (split == "held").sum()
    assert np.isfinite(xy).all() and (a.obs["edm_lab_uncertainty"] > 0).all()
    assert a.obs["edm_lab_confidence"].between(0, 1).all() and "cell_type" in a.obs
    h = split == "held"
    true = a.obsm["spatial"][h]
    again = arrangement_scores(true, xy[h])["knn10_recall"]
    assert abs(again - m["heldout"]["knn10_recall"]) < 1e-9, "what is scored is what is written"
    assert np.linalg.norm(xy[h].mean(0) - true.mean(0)) < .5 * true.std(), "in the frame of the tissue"
    page = (out / "report.html").read_text()
    assert page.endswith("</html>") and "src=\"http" not in page and page.count("data:image/png") >= 5
    assert m["verdict"].split("'")[0][:40] in page
    assert not [f for f in out.iterdir() if f.name.startswith(".")]


def saved(out): return sorted(f.name for f in (out / "train").glob("step-*.json"))


def test_stopped_killed_and_resumed_is_the_same_run(whole, slide, tmp_path, capsys):
    out = tmp_path / "cut"
    slow = ("import edm_lab.training.logger as R, time; old = R.Log.write; R.Log.write = lambda s, r: (old(s, r), "
            "time.sleep(.1))[0]")
    for i, (sig, code) in enumerate(((signal.SIGINT, 130), (signal.SIGKILL, -9))):
        p = subprocess.Popen(command("st", "--out", out, *(("--data", slide, "--quick", "--seed", 1) if i == 0
                                                           else ("--resume",)), before=slow), env=ENV,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        at, steps = time.time(), saved(out)
        while p.poll() is None and time.time() - at < 120 and saved(out) in (steps, []): time.sleep(.05)
        p.send_signal(sig)
        printed, err = p.communicate(timeout=120)
        assert p.returncode == code and printed == "", (printed, err)
        if code == 130: assert err == f"edm_lab: interrupted; edm_lab run st --out {out} --resume goes on\n"
        assert not (out / "metrics.json").exists() and not (out / "tissue.h5ad").exists()
    for message, options in {"--resume to go on": (), "found 2; expected 1": ("--resume", "--seed", 2),
                             "cannot go on": ("--resume", "--data", "other.h5ad")}.items():
        refused(capsys, ["st", "--out", out, *options], message)
    done = run("st", "--out", out, "--resume")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    a, b = (json.loads((d / "metrics.json").read_text()) for d in (whole[0], out))
    for m in (a, b): m.pop("seconds")
    assert a["heldout"] == b["heldout"] and a == b
    # it has ended
    assert main(["run", "st", "--out", str(out), "--resume"]) == 0 and capsys.readouterr().out == done.stdout


@pytest.mark.parametrize("options, message", [
    (["none"], "expected one of"), (["st", "--data", "none.h5ad"], "no such file"),
    (["st", "--data", __file__], "a file .py"), (["st", "--resume"], "no run"),
    (["st", "--seed", "x"], "invalid int"), (["st", "--slow"], "unrecognized")])
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, capsys, options, message):
    refused(capsys, [*options, "--out", tmp_path / "deep" / "r"], message)
    assert not (tmp_path / "deep").exists()


def test_missing_parts_are_named_first(slide, tmp_path, capsys, monkeypatch):
    import anndata
    import edm_lab.runs.case_run
    a = anndata.read_h5ad(slide)
    for name, b, message in (("lost", a[a.obs["section"] == "section 2"].copy(), "no coordinates for"),
                             ("few", a[:40].copy(), "40 cells with coordinates"),
                             ("flat", a.copy(), "no gene that varies")):
        if name == "flat": b.X = np.ones(b.shape, "float32")
        b.write_h5ad(tmp_path / f"{name}.h5ad")
        refused(capsys, ["st", "--data", tmp_path / f"{name}.h5ad", "--quick", "--out", tmp_path / "r"], message)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "tissue.h5ad").write_text("of another user")
    refused(capsys, ["st", "--quick", "--out", tmp_path / "mine"], "tissue.h5ad, and no run of st")
    old = edm_lab.runs.case_run.find_spec
    monkeypatch.setattr(edm_lab.runs.case_run, "find_spec", lambda p: None if p == "anndata" else old(p))
    refused(capsys, ["st", "--out", tmp_path / "r"], "edm_lab: run st: found no package anndata; expected pip install "
            "'edm_lab[st]'\n")
    assert not (tmp_path / "r").exists() and (tmp_path / "mine" / "tissue.h5ad").read_text() == "of another user"

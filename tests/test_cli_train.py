"`edm_lab train`, `sample`, `examine`: stopped, resumed, damaged, without the extras, on files; bad input is one line."
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("accelerate")
pytest.importorskip("safetensors")
ROOT = Path(__file__).resolve().parent.parent
SMALL = ["data.rows=256", "data.held=64", "net.width=16", "net.depth=1", "train.batch=32", "train.warmup=5",
         "train.log_every=10", "train.ckpt_every=10", "train.device=cpu"]
ENV = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}


def command(*argv, before="pass"):
    "The command in a process that hears SIGINT even where the shell ignores it, as for a background job."
    before = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {before}"
    return [sys.executable, "-c", f"import sys; {before}; from edm_lab.cli import main; sys.exit(main())",
            *map(str, argv)]


def run(*argv, before="pass", **k):
    return subprocess.run(command(*argv, before=before), capture_output=True, text=True, env=ENV, timeout=300, **k)


def weights(folder):
    from edm_lab.training.checkpoint import load_ckpt
    return load_ckpt(folder).tensors["D"]


def wait_for(folder, process):
    "Until the run has a checkpoint."
    for _ in range(1200):
        if list(folder.glob("step-*.json")) or process.poll() is not None: return
        time.sleep(.1)


def test_stopped_and_killed_and_resumed_is_the_same_run(tmp_path):
    import torch
    want, got = tmp_path / "whole", tmp_path / "cut"
    options = ["train", "classes", *SMALL, "train.steps=200"]
    whole = run(*options, "--out", want)
    assert whole.returncode == 0 and whole.stderr == "" and "\r" not in whole.stdout, whole.stderr
    for sig, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        p = subprocess.Popen(command("train", "classes", *SMALL, "train.steps=100000", "--out", got,
                                     *(["--resume"] if got.exists() else [])), env=ENV, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
        wait_for(got, p)
        p.send_signal(sig)
        out, err = p.communicate(timeout=120)
        assert p.returncode == code, (out, err)
        if sig == signal.SIGINT: assert re.search(r"stopped after step \d+, saved", out) and not err
    from edm_lab.training.checkpoint import steps_in
    at = steps_in(got)[-1]
    if at >= 200: pytest.skip("this machine was too fast for the test")
    done = run(*options, "--out", got, "--resume")
    assert done.returncode == 0 and "resumed after step" in done.stdout, done.stderr
    a, b = weights(want), weights(got)
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_of_version_0_1_goes_on(tmp_path):
    "Its card, settings and states bear the names of then; steps 30 and 40 are those that version 0.1 made."
    from edm_lab.training.logger import read_log
    shutil.copytree(ROOT / "tests" / "data" / "run_0_1", tmp_path / "r")
    r = run("train", "mixture", "net.width=16", "data.rows=4096", "train.batch=32", "train.steps=40",
            "train.log_every=10", "train.ckpt_every=20", "--out", tmp_path / "r", "--resume")
    assert r.returncode == 0 and "resumed after step 20" in r.stdout, r.stderr
    rows = {row["step"]: row for row in read_log(tmp_path / "r" / "log.jsonl")[0]}
    want = {30: dict(loss=1.0708561405306682, lr=3e-4, grad_norm=.6758673787117004, held=.9598931527470995),
            40: dict(loss=.9521897494007134, lr=4e-4, grad_norm=.38666868209838867, held=.9599996326387554)}
    assert sorted(rows) == [10, 20, 30, 40]
    for step, values in want.items():
        for k, v in values.items(): assert abs(rows[step][k] - v) < 1e-5, (step, k, rows[step][k], v)


def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path):
    assert run("train", "mixture", *SMALL, "train.steps=30", "--out", tmp_path / "r").returncode == 0
    newest = max((tmp_path / "r").glob("step-*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-9])
    r = run("sample", tmp_path / "r", "--num-samples", 4, "--out", tmp_path / "s.npz")
    assert (r.returncode == 0 and "after step 20" in r.stdout and newest.name in r.stdout + r.stderr
            and r.stderr.count("\n") <= 1), (r.stdout, r.stderr)
    r = run("train", "mixture", *SMALL, "train.steps=40", "--out", tmp_path / "r", "--resume")
    assert r.returncode == 0 and "resumed after step 20" in r.stdout and r.stderr == "", r.stderr


def test_a_file_of_rows_from_training_to_samples(tmp_path):
    g = np.random.default_rng(0)
    np.savez(tmp_path / "rows.npz", x0=g.normal(size=(300, 1, 8, 8)).astype("float32"), label=g.integers(0, 3, 300))
    (tmp_path / "card.toml").write_text('[data]\nsource = "rows.npz"\n[net]\nkind = "unet"\nchannels = [8, '
                                        '16]\nattention = [0, 1]\n[model]\nsigma_data = "measured"\n')
    r = run("train", tmp_path / "card.toml", "train.steps=12", "--out", tmp_path / "r", "train.batch=16",
            "train.log_every=6", "train.device=cpu", cwd="/")
    assert r.returncode == 0, r.stderr
    from edm_lab.diagnosis.card import load_card
    assert abs(load_card(tmp_path / "r" / "card.toml")["model.sigma_data"] - 1) < .05
    for name in ("s.npz", "s.safetensors"):
        r = run("sample", tmp_path / "r", "--num-samples", 5, "--steps", 3, "--out", tmp_path / name)
        assert r.returncode == 0, r.stderr
        from edm_lab.data.rows import load_rows
        assert load_rows(tmp_path / name).x0.shape == (5, 1, 8, 8)
    r = run("examine", tmp_path / "r", "--rows", 30, "--strict", "--plot", tmp_path / "p.png")
    assert r.returncode in (0, 1) and "Verdict" in r.stdout and "Traceback" not in r.stderr, r.stderr
    assert (tmp_path / "p.png").exists()
    assert run("examine", tmp_path / "r", "--data", tmp_path / "s.npz", "--rows", 8).returncode == 2 # too few


@pytest.mark.parametrize("package", ["accelerate", "safetensors"])
def test_without_the_extra_it_is_one_line(tmp_path, package):
    r = run("train", "mixture", *SMALL, "--out", tmp_path / "r", before=f"sys.modules['{package}'] = None")
    line = f"edm_lab: training: found no package {package}; expected pip install 'edm_lab[train]'\n"
    assert r.returncode == 2 and r.stderr == line and not (tmp_path / "r").exists(), r.stderr


@pytest.mark.parametrize("options, says", [(["nowhere.toml"], "no such file"), (["mixtur"], "nearest: mixture"),
                                        (["mixture", "train.stepz=3"], "nearest: train.steps"),
                                        (["mixture", "train.steps=0"], "positive"),
                                        (["mixture", "train.lr=nan"], "finite"),
                                        (["mixture", "net.kind=sets"], "rows of shape (points"),
                                        (["mixture", "data.source=x.npz"], "no such file"),
                                        (["mixture", "train.precision=fp16", "train.device=cpu"], "bf16"),
                                        (["points", "net.kind=mlp"], "reads the mask"),
                                        (["mixture", "--resume"], "no run")])
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, options, says):
    r = run("train", *options, "--out", tmp_path / "deep" / "r")
    assert r.returncode == 2 and r.stdout == "" and r.stderr.count("\n") == 1 and says in r.stderr, r.stderr
    assert not (tmp_path / "deep").exists()


def test_damaged_cards_and_runs(tmp_path):
    f = tmp_path / "a.toml"
    for content, says in ((b"\xff", "UTF-8"), (b"[train", "not TOML"), (b"[train]\nsteps = 'x'", "a whole number"),
                          (b"[model]\nsigma_data = 'x'", "a number"), (b"[net]\nkind = 'x'", "one of mlp"),
                          (b"model = 3", "a table of keys")):
        f.write_bytes(content)
        r = run("train", f, "--out", tmp_path / "r")
        assert r.returncode == 2 and r.stderr.count("\n") == 1 and says in r.stderr, r.stderr
        assert not (tmp_path / "r").exists()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "card.toml").write_text("")
    for what in ("sample", "examine"):
        r = run(what, tmp_path / "empty")
        assert r.returncode == 2 and "no checkpoint" in r.stderr and r.stderr.count("\n") == 1, r.stderr

"`edm_lab run jsddpm`: the files and their keys, a run that is stopped and goes on, input that cannot work."
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from edm_lab.cli import main

pytest.importorskip("nibabel")
pytest.importorskip("nilearn")
pytest.importorskip("safetensors")
ROOT = Path(__file__).resolve().parent.parent
ENV = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
FIGURES = {"intensity", "brain_share", "spectrum_slope", "edge_density", "mask_area", "mask_components",
           "mask_circularity", "lesion_contrast"}


def command(*argv, before="pass"):
    return [sys.executable, "-c", f"import sys; {before}; from edm_lab.cli import main; sys.exit(main())", "run",
            *map(str, argv)]


def refused(capsys, argv, says):
    "One line, exit code 2, nothing on standard output."
    code = main(["run", *map(str, argv)])
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and err.count("\n") == 1 and says in err, (code, out, err)


def write(folder, volumes, masks=True):
    from edm_lab.data.nifti import write_nifti
    for v in volumes:
        write_nifti(folder / f"{v.subject}_FLAIR.nii.gz", v.image, v.affine)
        if masks: write_nifti(folder / f"{v.subject}_lesion.nii.gz", v.mask, v.affine)
    return folder


@pytest.fixture(scope="module")
def brains():
    from edm_lab.data.phantom import phantom_volumes
    return phantom_volumes(5, seed=3, spacing=6.)


@pytest.fixture(scope="module")
def scans(brains, tmp_path_factory): return write(tmp_path_factory.mktemp("scans"), brains)


@pytest.fixture(scope="module")
def whole(scans, tmp_path_factory):
    "An undisturbed run."
    out = tmp_path_factory.mktemp("whole") / "deep" / "run"
    r = subprocess.run(command("jsddpm", "--data", scans, "--quick", "--out", out, "--seed", 1), capture_output=True,
                       text=True, env=ENV, timeout=600)
    assert r.returncode == 0 and r.stderr == "" and "\r" not in r.stdout, r.stderr
    return out, r.stdout


def test_files_and_keys(whole, scans):
    from edm_lab.data.nifti import find_volumes
    out, printed = whole
    m = json.loads((out / "metrics.json").read_text())
    assert {"ratio_to_scalar", "quality", "psnr_x0", "memorisation", "judge", "verdict", "findings", "data",
            "seconds"} <= m.keys()
    bins = [f"{k * 100}-{k * 100 + 99}" for k in range(10)]
    for k in ("ratio_to_scalar", "psnr_x0", "psnr_x0_post_processed", "mse_eps", "scalar"):
        assert list(m[k]) == ["image", "mask"] and all(list(v) == bins and np.isfinite(list(v.values())).all()
                                                       for v in m[k].values()), k
    for c in ("image", "mask"):
        for k in bins: assert abs(m["ratio_to_scalar"][c][k] - m["mse_eps"][c][k] / m["scalar"][c][k]) < 1e-9
    assert (max(list(m["ratio_to_scalar"]["image"].values())[2:]) < 1 and list(m["ssim_x0"]) == bins
            and all(-1 <= v <= 1 for v in m["ssim_x0"].values()))
    assert m["quality"].keys() == FIGURES and all({"samples", "real", "distance", "spread", "within"} <= q.keys()
                                                  and q["spread"] is not None for q in m["quality"].values())
    assert (list(m["ratio_to_linear"]) == bins and .2 < m["ratio_to_linear"]["900-999"] < 1.5
            and m["brightness"].keys() == {"samples", "real", "train"} and min(m["brightness"].values()) > 0)
    assert m["judge"].keys() == {"samples", "real", "astray"} and m["memorisation"]["ratio"] > .3
    assert m["judge"]["real"]["z"] > m["judge"]["astray"]["z"]
    assert (m["verdict"] in printed and m["seconds"] > 0 and "sigma_conditioning" in m["skipped"]
            and "constant_columns" not in m["skipped"] and {"cause", "claim", "evidence",
                                                            "fix"} <= m["findings"][0].keys())
    assert (not set(m["data"]["train_subjects"]) & set(m["data"]["held_subjects"])
            and m["data"]["source"] == str(scans) and m["data"]["subjects"] == 5)
    assert json.loads((out / "run.json").read_text())["seed"] == 1
    (v,) = find_volumes(out)
    n = m["data"]["samples"]
    assert v.image.shape == v.mask.shape == (32, 32, n) and np.allclose(v.affine, m["volumes"]["affine"])
    assert np.isclose(v.spacing[0], m["data"]["pixel_mm"])
    rows = [r.split(",") for r in (out / "samples.csv").read_text().splitlines()]
    z = np.array([float(r[1]) for r in rows[1:]])
    assert len(rows) == n + 1 and (np.diff(z) >= 0).all()
    assert np.abs(z - v.z).max() <= m["volumes"]["z_off_by_mm"] + 1e-3
    page = (out / "report.html").read_text()
    assert (page.endswith("</html>") and "src=\"http" not in page and page.count("data:image/png") >= 5
            and m["verdict"].split("'")[0][:40] in page and f"up to {m['volumes']['z_off_by_mm']:.1f} mm" in page)
    for name in ("samples", "real"): assert (out / f"{name}.png").read_bytes()[1:4] == b"PNG"
    assert not [f for f in out.iterdir() if f.name.startswith(".")]


def test_what_is_scored_is_what_is_written(whole, scans):
    from edm_lab.cases.jsddpm.quality import FIGURES as OF
    from edm_lab.data.nifti import find_volumes
    m, (v,) = json.loads((whole[0] / "metrics.json").read_text()), find_volumes(whole[0])
    x = torch.from_numpy(np.stack([v.image, np.where(v.mask, 1, -1).astype(np.float32)])).permute(3, 0, 2, 1).flip(2)
    for k in ("brain_share", "spectrum_slope", "edge_density", "mask_area"):
        assert abs(float(OF[k](x).mean()) - m["quality"][k]["samples"]) < 1e-6, k


def test_stopped_killed_and_resumed_is_the_same_run(whole, scans, tmp_path, capsys):
    out = tmp_path / "cut"
    slow = ("import edm_lab.training.logger as R, time; old = R.Log.write; R.Log.write = lambda s, r: (old(s, r), "
            "time.sleep(.05))[0]")
    p = subprocess.Popen(command("jsddpm", "--out", out, "--data", scans, "--quick", "--seed", 1, before=slow),
                         env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    at = time.time()
    while p.poll() is None and time.time() - at < 240 and not list((out / "train").glob("step-*.json")): time.sleep(.05)
    p.send_signal(signal.SIGINT)
    printed, err = p.communicate(timeout=240)
    again = f"edm_lab: interrupted; edm_lab run jsddpm --out {out} --resume goes on\n"
    assert (p.returncode, printed, err) == (130, "", again)
    assert not [f for f in ("metrics.json", "samples.nii.gz", "report.html", "samples.png") if (out / f).exists()]
    for says, more in {"--resume to go on": (), "found 2; expected 1": ("--resume", "--seed", 2),
                       "cannot go on": ("--resume", "--data", ROOT)}.items():
        refused(capsys, ["jsddpm", "--out", out, *more], says)
    assert main(["run", "jsddpm", "--out", str(out), "--resume"]) == 0
    done, err = capsys.readouterr()
    assert err == "", err
    a, b = (json.loads((d / "metrics.json").read_text()) for d in (whole[0], out))
    for m in (a, b): m.pop("seconds")
    assert a["eps_table"] == b["eps_table"] and a == b
    for name in ("samples.nii.gz", "samples_mask.nii.gz", "samples.csv", "samples.png"):
        assert (out / name).read_bytes() == (whole[0] / name).read_bytes(), name
    # it has ended
    assert main(["run", "jsddpm", "--out", str(out), "--resume"]) == 0 and capsys.readouterr().out == done


@pytest.mark.parametrize("options, says", [(["--data", "nowhere"], "no such folder"),
                                        (["--data", __file__], "found a file"),
                                        (["--data", "a", "--data", "b"], "2 folders"), (["--resume"], "no run"),
                                        (["--seed", "x"], "invalid int")])
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, capsys, options, says):
    refused(capsys, ["jsddpm", *options, "--out", tmp_path / "deep" / "r"], says)
    assert not (tmp_path / "deep").exists()


def test_what_is_missing_is_reported_first(brains, tmp_path, capsys, monkeypatch):
    import edm_lab.runs.case_run as R
    from edm_lab.data.nifti import write_nifti
    for name, part, masks, says in (("one", brains[:1], True, "two at least"),
                                    ("bare", brains[:2], False, "no lesion in the training subjects"),
                                    ("empty", [], True, "no scan among them")):
        (tmp_path / name).mkdir()
        refused(capsys, ["jsddpm", "--data", write(tmp_path / name, part, masks), "--quick", "--out", tmp_path / "r"],
                says)
    odd = write(tmp_path / "odd", brains[:2])
    write_nifti(odd / f"{brains[0].subject}_lesion.nii.gz", brains[0].mask[:-1], brains[0].affine)
    refused(capsys, ["jsddpm", "--data", odd, "--quick", "--out", tmp_path / "r"], "that of the image")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "samples.csv").write_text("a user's")
    refused(capsys, ["jsddpm", "--quick", "--out", tmp_path / "mine"], "samples.csv, and no run of jsddpm")
    old = R.find_spec
    monkeypatch.setattr(R, "find_spec", lambda p: None if p == "nibabel" else old(p))
    refused(capsys, ["jsddpm", "--out", tmp_path / "r"], "edm_lab: run jsddpm: found no package nibabel; expected pip "
            "install 'edm_lab[brain]'\n")
    assert not (tmp_path / "r").exists() and (tmp_path / "mine" / "samples.csv").read_text() == "a user's"


def test_another_size_by_name(scans, tmp_path, capsys):
    out = tmp_path / "odd"
    assert main(["run", "jsddpm", "size=35", "--data", str(scans), "--quick", "steps=4", "channels=8,8", "judge=20",
                 "samples=16", "--out", str(out)]) == 0
    m = json.loads((out / "metrics.json").read_text())
    assert m["data"]["size"] == 35 and m["steps"] == 4 and m["data"]["samples"] == 16
    changes = set(json.loads((out / "run.json").read_text())["changes"])
    assert changes == {"channels=8,8", "judge=20", "samples=16", "size=35", "steps=4"}
    assert len((out / "log.jsonl").read_text().splitlines()) == 4
    capsys.readouterr()
    refused(capsys, ["jsddpm", "--out", out, "--resume", "steps=9"], "cannot go on")
    for option, says in {"stepz=4": "nearest: steps", "steps=0": "a whole number from 1 on",
                       "channels=a": "a whole number from 1 on", "size=9": "at least 16 pixels",
                       "skips=noise": "names of checks"}.items():
        refused(capsys, ["jsddpm", option, "--data", scans, "--quick", "--out", tmp_path / "no"], says)
    assert not (tmp_path / "no").exists()


def test_guidance_leaves_the_brightness_alone():
    from edm_lab.cases.jsddpm.model import channel_spread
    from edm_lab.cases.jsddpm.modes import slice_modes
    from edm_lab.cases.jsddpm.sampling import _guided
    from edm_lab.cases.jsddpm.system import build_system, slice_config
    from edm_lab.core import rng
    from edm_lab.data.nifti import brain_atlas
    from edm_lab.data.phantom import phantom_slices
    slices = phantom_slices(subjects=3, size=32, seed=0)
    mean, std = channel_spread(slices.x)
    modes = slice_modes(slices)
    D = build_system(slice_config(), slices.bins, (8, 8), 4, slices.z_range, std, mean, modes=modes).eval()
    for k, v in enumerate(D.parameters()): v.data.add_(.1 * torch.randn(v.shape, generator=rng(k)))
    some = slices[list(range(0, len(slices), max(1, len(slices) // 6)))]
    cond, x = some.rows(brain_atlas(slices)).cond, some.x + 2 * torch.randn(some.x.shape, generator=rng(0, "x"))
    with torch.no_grad(): plain, guided = D(x, 2., cond), _guided(D, 3., cond, True)(x, 2., cond)
    z = [D.modes.z(v[:, 0], some.z_bin) for v in (plain, guided)]
    assert (z[0] - z[1]).abs().max() < 1e-3 and (plain - guided).abs().max() > 1e-2

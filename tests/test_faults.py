"Planted faults: the registry is sound, and two of them are named. All of them: bench/doctor.py."
import json
import warnings

import pytest
import torch
from book import ROOT

import edm_lab.faults.registry # noqa: F401 (importing it registers the faults)
from edm_lab.core import LabError
from edm_lab.model_checks.examine import examine
from edm_lab.faults.pipeline import (DATA_KINDS, FAULTS, Pipeline, context_of, control_runs, fault, fit_run,
                                     pipeline_feed, reference_config)
from edm_lab.diagnosis.findings import CAUSES

GRAVE = ('critical', 'high', 'medium')

def test_the_registry_is_sound():
    assert len(FAULTS) >= 28 and len({f.cause for f in FAULTS.values()}) >= 24
    for name, f in FAULTS.items():
        assert f.name == name and f.cause in CAUSES and f.cause != 'healthy', name
        assert f.kinds and set(f.kinds) <= set(DATA_KINDS) and len(f.doc) > 20, name

@pytest.mark.parametrize('kind', DATA_KINDS)
def test_every_fault_changes_a_run(kind):
    "A fault returns a pipeline with another piece, and leaves the reference as it is."
    p = reference_config(kind)
    before = dict(vars(p))
    for f in (f for f in FAULTS.values() if kind in f.kinds):
        q = f.plant(p)
        changed = {k for k, v in vars(q).items() if v is not before[k]}
        assert isinstance(q, Pipeline) and q.kind == kind and changed, f.name
        late = changed <= {'use', 'evaluate', 'sampler', 'schedule', 'metric'}
        assert f.trains or late, f'{f.name} says that it acts after training and changes {changed}'
    assert all(v is before[k] for k, v in vars(p).items())

def test_no_input_of_the_checks_names_the_fault():
    "No oracle, no card; the pieces are those of a user."
    p = reference_config('mixture', steps=3)
    s = context_of(p, fit_run(p))
    assert s.oracle is None and s.card is None and s.D is not s.raw
    assert torch.equal(s.feed(0, 1).x, pipeline_feed(p)(0, 1).x)

def test_the_seed_alone_decides():
    p = reference_config('points', steps=4)
    a, b = fit_run(p), fit_run(p)
    assert [r['loss'] for r in a.records] == [r['loss'] for r in b.records]

def test_bad_registrations_are_refused():
    for bad in (lambda: fault('bad_luck'), lambda: fault('healthy'), lambda: fault('dead_branch', ('cells',)),
                lambda: fault('dead_branch', into={})(lambda p: p)):
        with pytest.raises(LabError): bad()

def test_healthy_runs_are_many():
    names = [n for n, _ in control_runs()]
    assert len(names) == len(set(names)) >= 50 and sum(n.startswith('early') for n in names) == 20

@pytest.fixture(scope='module')
def shared(): return fit_run(reference_config('mixture', 1))

def report(p, t):
    s = dict(vars(context_of(p, t)))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return examine(s.pop('D'), s.pop('data'), n=512, **s)

def test_a_healthy_run_is_healthy(shared):
    r = report(reference_config('mixture', 1), shared)
    assert not [f.cause for f in r.findings if f.severity in GRAVE], str(r)
    assert not [u.question for u in r.unknowns if ' broke' in u.question]

@pytest.mark.parametrize('name', ['c_noise_rescaled', 'psnr_range_halved'])
def test_a_planted_fault_is_named(name, shared):
    r = report(FAULTS[name].plant(reference_config('mixture', 1)), shared)
    assert r.cause == FAULTS[name].cause, str(r)

def test_the_score_is_what_the_cells_say():
    "Where the bench has run: its file agrees with itself."
    path = ROOT/'bench/results/doctor.json'
    if not path.exists(): pytest.skip('make bench has not run')
    d = json.loads(path.read_text(encoding='utf-8'))
    seen = {n: c for n, c in d['confusion'].items() if n in d['per_fault']}
    hits = {n: c.get(d['planted'][n], 0) for n, c in seen.items()}
    assert d['cells'] == sum(sum(c.values()) for c in seen.values())
    assert abs(d['top1'] - sum(hits.values()) / d['cells']) < 1e-9
    assert all(abs(d['per_fault'][n] - hits[n] / sum(c.values())) < 1e-9 for n, c in seen.items())

"The examination leaves everything as it was, takes any denoiser, and separates healthy models from broken ones."
import json, random

import numpy as np
import pytest
import torch
from edm_lab.denoisers.prediction_type import VPDenoiser
from edm_lab.core import LabError, rng
from edm_lab.data.rows import Rows
from edm_lab.data.synthetic import toy
from edm_lab.model_checks.examine import examine
from edm_lab.denoisers.guidance import Guided
from edm_lab.denoisers.interop import from_kdiffusion
from edm_lab.diffusion.sigma_dist import shifted
from edm_lab.nets.mlp import MLP
from edm_lab.oracles.exact import DataOracle, GaussianOracle
from edm_lab.diffusion.precond import ZeroOutput, Precond
from edm_lab.samplers.schedules import alpha_bar
from edm_lab.model_checks.context import MODEL_CHECKS, modules_of, run_model_checks, untouched

QUICK = dict(n=128, levels=6)
G = GaussianOracle(torch.zeros(3), torch.tensor([.3, 1., 2.]))
X = G.sample(512, rng(0, 'test'))

def serious(r): return [f.cause for f in r.findings if f.severity not in ('low', 'benign')]

class Noisy(torch.nn.Module):
    "All that an examination could change: running means, dropout, a call counter, draws from global streams."
    sigma_data = 1.
    def __init__(self):
        super().__init__()
        self.norm, self.drop, self.line = torch.nn.BatchNorm1d(3), torch.nn.Dropout(.3), torch.nn.Linear(3, 3)
        self.register_buffer('calls', torch.zeros((), dtype=torch.long))
    def forward(self, x, sigma, cond=None):
        self.calls += 1
        np.random.rand()
        random.random()
        return self.drop(self.line(self.norm(x))) / (1 + torch.as_tensor(sigma).reshape(-1, 1)**2)

def snapshot(D):
    mods = modules_of(D)
    return ([t.clone() for m in mods for t in (*m.parameters(), *m.buffers())]
            + [torch.zeros(0) if p.grad is None else p.grad.clone() for m in mods for p in m.parameters()]
            + [torch.get_rng_state()], [u.training for m in mods for u in m.modules()],
            [p.requires_grad for m in mods for p in m.parameters()], np.random.get_state()[1].tolist(),
            random.getstate(), torch.is_grad_enabled(), torch.get_default_dtype())

def same(a, b): return all(torch.equal(x, y) for x, y in zip(a[0], b[0], strict=True)) and a[1:] == b[1:]

@pytest.mark.parametrize('how', ['module', 'function', 'guided'])
def test_nothing_is_changed(how):
    net = Noisy().train()
    net.drop.eval()
    net.line.bias.requires_grad_(False)
    net.line.weight.grad = torch.ones(3, 3)
    D = dict(module=net, function=lambda x, sigma, cond=None: net(x, sigma), guided=Guided(net, 2.))[how]
    before = snapshot(net)
    rows = Rows(X, {'label': torch.arange(len(X)) % 2})
    examine(D, rows, train=rows, **QUICK)
    assert same(before, snapshot(net))

def test_nothing_is_changed_when_a_check_raises():
    net = Noisy().train()
    before = snapshot(net)
    with pytest.raises(KeyboardInterrupt), untouched(net):
        net(X, 1.)
        net.eval()
        net.line.weight.data.add_(1)
        raise KeyboardInterrupt
    assert same(before, snapshot(net))

def test_no_check_breaks_on_bare_denoisers():
    for D in (ZeroOutput(1.), G, lambda x, sigma, cond=None: x / 2):
        assert not [u.question for u in examine(D, X, **QUICK).unknowns if 'broke' in u.question]

@pytest.mark.parametrize('seed', range(3))
def test_the_truth_is_healthy(seed):
    r = examine(G, G.sample(1024, rng(seed, 'healthy')), oracle=G, n=512, seed=seed)
    assert r.cause == 'no_fault_found' and not serious(r)

def test_half_of_the_rows_is_no_oracle_of_the_other():
    o = DataOracle(X[:8])
    assert serious(examine(o, X[256:], train=Rows(X[:8]), oracle=G, **QUICK))

def test_the_null_is_dead(): assert examine(ZeroOutput(1.), X, n=256).cause == 'dead_branch'

def test_seed_decides():
    assert [examine(G, X, seed=s, **QUICK).table for s in (1, 1)][0] == examine(G, X, seed=1,
                                                                                **QUICK).table != examine(G, X, seed=2,
                                                                                                          **QUICK).table

def test_vp_bridge():
    class Eps(torch.nn.Module):
        "The exact eps of the Gaussian, at unit variance."
        def forward(self, xt, t, cond=None):
            a = ab[t.long()].reshape(-1, 1).float()
            x, s = xt / a.sqrt(), ((1 - a) / a).sqrt()
            return (x - G(x, s.flatten())) / s
    ab = alpha_bar('linear', 1000)
    D = VPDenoiser(Eps(), ab, 'eps')
    r = examine(D, X, oracle=G, levels=6, n=512)
    assert not [u.question for u in r.unknowns if 'broke' in u.question]
    assert max(k['skill'] for k in r.table if k['column'] is None and k['skill'] is not None) > .9

def test_kdiffusion_convention():
    class Peer(torch.nn.Module):
        sigma_data = 1.
        def forward(self, x, sigma): return G(x, sigma)
    assert not serious(examine(from_kdiffusion(Peer()), X, n=256))

@pytest.mark.parametrize('kind', ['points', 'digits', 'classes'])
def test_every_kind_of_data(kind):
    t = toy(kind, n=256, held=256)
    x = t.train.x0 if t.train.mask is None else t.train.x0[t.train.mask]
    r = examine(ZeroOutput(float(x.std())), t.held, train=t.train, sigma_dist=shifted(float(x.std())), **QUICK)
    assert not [u.question for u in r.unknowns
                if 'broke' in u.question] and 'dead_branch' in [f.cause for f in r.findings]
    assert {'sigma', 'column', 'D', 'null', 'wiener', 'kernel', 'skill', 'slope'} <= r.table[0].keys()

def test_report_is_plain_json():
    r = examine(Precond(MLP(3, width=16, depth=1), 1.), X, train=X, **QUICK)
    d = json.loads(json.dumps(json.loads(r.to_json()), allow_nan=False))
    assert d['cause'] == r.cause and str(r).startswith('== live') and d['about']['rows'] == 128

def test_a_sheet_of_nan_is_reported():
    def D(x, sigma, cond=None): return torch.where(torch.as_tensor(sigma).reshape(-1, 1) > 3, torch.nan, G(x, sigma))
    r = examine(D, X, **QUICK)
    assert serious(r) and not [u.question for u in r.unknowns if 'broke' in u.question]

def test_mistakes_are_named():
    with pytest.raises(TypeError, match='lwa'): examine(G, X, lwa=None)
    with pytest.raises(LabError, match='held-out rows'): examine(G, X[:2])
    assert MODEL_CHECKS and callable(run_model_checks)

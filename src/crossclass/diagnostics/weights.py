"""What the weights and modes alone show, and whether batch norm fits the data."""

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from crossclass.analysis.accuracy_tests import above_chance, beats
from crossclass.analysis.network_faults import batch_norms
from crossclass.diagnostics.findings import Finding, finding, listed, percent, share, shortened
from crossclass.diagnostics.probe import Probe
from crossclass.models.model_state import evaluating


def finite_weights(p: Probe) -> list[Finding]:
    """NaN or infinity in parameters and buffers."""
    named = [*p.model.named_parameters(), *p.model.named_buffers()]
    bad = [n for n, t in named if t.is_floating_point() and not bool(t.isfinite().all())]
    evidence = f"{len(bad)} of {len(named)} tensors hold NaN or infinity{listed(bad)}"
    remedy = "take an earlier checkpoint, or train again with a smaller lr or clipped gradients"
    return [finding("non-finite-weights", "fault", bool(bad), evidence, remedy, tensors=bad)]


def zero_layers(p: Probe) -> list[Finding]:
    """Weights that are zero everywhere: layers that were lost in loading, or that died."""
    weights = [(n, t) for n, t in p.model.named_parameters() if n.endswith("weight") or t.ndim > 1]
    zero = [n for n, t in weights if t.numel() and not bool(t.any())]
    evidence = f"{len(zero)} of {len(weights)} weight tensors are all zero{listed(zero)}"
    remedy = "check that the checkpoint holds these tensors and that their names match"
    return [finding("zero-layers", "warning", bool(zero), evidence, remedy, tensors=zero)]


def degenerate_head(p: Probe) -> list[Finding]:
    """Head rows of no length, and pairs of classes with the same row."""
    W = p.model.head.weight.detach().double()
    norms = W.norm(dim=1)
    zero = (norms == 0).nonzero().flatten().tolist()
    i, j = torch.triu_indices(len(W), len(W), offset=1, device=W.device)
    gap = torch.cdist(W, W)[i, j] / torch.maximum(norms[i], norms[j]).clamp(min=torch.finfo(W.dtype).tiny)
    same = (gap < 1e-6) & (norms[i] > 0) & (norms[j] > 0)  # cdist of float32 rows in float64: exact enough
    twins = [[int(a), int(b)] for a, b in zip(i[same], j[same], strict=True)]
    evidence = f"{len(zero)} of {len(W)} head rows are zero, {len(twins)} pairs of rows are equal"
    if zero or twins:
        evidence += f" (classes {shortened([str(c) for c in zero] + [f'{a} = {b}' for a, b in twins])})"
    remedy = "check the head's weights in the checkpoint and the number of classes that it was trained on"
    return [
        finding("degenerate-head", "warning", bool(zero or twins), evidence, remedy, zero=zero, equal=twins)
    ]


def dead_features(p: Probe) -> list[Finding]:
    """Features that are the same for every image carry nothing about any class."""
    g = p.features
    dead = int((g.amax(dim=0) == g.amin(dim=0)).sum())
    evidence = f"{dead} of {g.shape[1]} features are constant over {p.conditions}"
    remedy = "the last layers died (lr too high, or lost weights); C then rests on the few that are left"
    wrong = len(g) > 1 and dead > g.shape[1] / 2  # one image varies from none
    return [finding("dead-features", "warning", wrong, evidence, remedy, dead=dead, features=g.shape[1])]


def modes(p: Probe) -> list[Finding]:
    """The modes the network came in, and whether eval() reaches every module."""
    named = [(n or "the network", m) for n, m in p.model.named_modules()]
    leaves = [(n, m) for n, m in named if not any(True for _ in m.children())]
    training = [n for n, m in leaves if m.training]
    with evaluating(p.model):
        stuck = [n for n, m in leaves if m.training]
    evidence = f"{len(training)} of {len(leaves)} modules are in train mode"
    evidence += f" ({shortened(training)})" if training else ""
    evidence += f", {len(stuck)} stay so after eval() ({shortened(stuck)})" if stuck else ""
    remedy = "call model.eval() before measuring" if not stuck else "let eval() reach these modules"
    out = [
        finding(
            "train-mode", "warning", bool(training or stuck), evidence, remedy, training=training, stuck=stuck
        )
    ]
    norms = list(batch_norms(p.model).items())
    if norms:
        frozen = [n for n, m in norms if not any(w.requires_grad for w in m.parameters()) or not m.training]
        trains = any(w.requires_grad and n not in _inside(norms) for n, w in p.model.named_parameters())
        partly = bool(frozen) and trains and bool(training)
        evidence = "the network is not in train mode"
        if training:
            evidence = (
                f"{len(frozen)} of {len(norms)} batch norms are frozen{listed(frozen) if partly else ''}"
            )
        remedy = "fine if meant (fine-tuning); else call model.train() and set requires_grad of their weights"
        out.append(finding("frozen-batch-norm", "note", partly, evidence, remedy, frozen=frozen))
    return out


def batch_norm(p: Probe) -> list[Finding]:
    """Accuracy with the running statistics against that with the statistics of the batch itself."""
    norms = [(n, m) for n, m in batch_norms(p.model).items() if m.running_mean is not None]
    if not norms or len(p.x) < 16:
        return []
    fresh = [n for n, m in norms if _never_updated(m)]
    with_batch = p.correct_by_batch_statistics
    better = beats(with_batch, p.correct, by=0.05) and above_chance(with_batch, p.y)
    evidence = (
        f"{percent(p.correct)} with running statistics, {percent(with_batch)} with those of the batch "
        f"({p.conditions})"
    )
    numbers = {"running": share(p.correct), "batch": share(with_batch)}
    remedy = "run a few hundred training batches through it in train mode without gradients, then save"
    initial = f"{len(fresh)} of {len(norms)} batch norms have mean 0, var 1 and no batch seen"
    initial += f" ({shortened(fresh)}); {evidence}" if fresh else ""
    return [
        finding("never-updated-batch-norm", "fault", bool(fresh), initial, remedy, layers=fresh, **numbers),
        finding("stale-batch-norm", "fault", better, evidence, remedy, **numbers),
    ]


def _inside(norms: list[tuple[str, _BatchNorm]]) -> set[str]:
    return {f"{n}.{k}" for n, m in norms for k, _ in m.named_parameters()}


def _never_updated(m: _BatchNorm) -> bool:
    assert m.running_mean is not None
    assert m.running_var is not None
    # files of old versions lack the counter, so the values decide as well
    counted = m.num_batches_tracked is not None and int(m.num_batches_tracked) > 0
    return not counted and not bool(m.running_mean.any()) and bool((m.running_var == 1).all())

"""Does the suite notice a wrong line? python benchmarks/mutants.py [JOBS] [out=FILE.json]

Each mutant is one line of the mathematical core, changed; it is put into a copy of the sources, and the tests
that should notice are run. A mutant that lives is a hole in the tests. `make mutants`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from timing import write

ROOT = Path(__file__).parent.parent
CORE = {
    "analysis/attribution.py": (
        "analysis/test_attribution analysis/test_instances analysis/test_torchmetrics",
        [
            (".clamp(min=1).to(torch.float64)", ".clamp(min=2).to(torch.float64)"),
            ("return sums / n[:, None]", "return sums * n[:, None]"),
            ("means_by_class(g, y, len(W)) * W", "means_by_class(g, y, len(W)) * W.abs()"),
            ("torch.where((scale > 0) & scale.isfinite(), A / scale, 0.0)", "A / scale"),
            ("A.norm(dim=1, keepdim=True)", "A.square().sum(dim=1, keepdim=True)"),
            ("(unit @ unit.T).clamp(-1.0, 1.0)", "(unit @ unit.T).clamp(0.0, 1.0)"),
            ("return float(off_diagonal(C).clamp(min=0).sum())", "return float(C.clamp(min=0).sum())"),
            ("(-off_diagonal(C)).clamp(min=0)", "(-off_diagonal(C)).clamp(max=0)"),
        ],
    ),
    "analysis/instances.py": (
        "analysis/test_instances analysis/test_torchmetrics",
        [
            ("cosines.fill_diagonal_(-torch.inf)", "pass"),
            ("if left > top:", "if left >= top + 2 * block:"),
            ("torch.where(best.isinf(), 0.0, best", "torch.where(best.isinf(), 1.0, best"),
            (".fill_diagonal_(0.0) + torch.diag(present)", ""),
            ("return means @ means.T", "return means.abs() @ means.abs().T"),
        ],
    ),
    "attacks/losses.py": (
        "attacks/test_losses attacks/test_pgd training/test_recipes",
        [
            ("return other - logits.masked_fill(~true", "return logits.masked_fill(~true"),
            ("F.kl_div(q, p, reduction", "F.kl_div(p, q, reduction"),
            (".scatter_(1, y.long()[:, None], 1.0)", ".scatter_(1, y.long()[:, None], 0.5)"),
        ],
    ),
    "attacks/norms.py": (
        "attacks/test_norms attacks/test_pgd attacks/test_model_restored",
        [
            ("return (2 * uniform(x, generator) - 1) * self.eps", "return uniform(x, generator) * self.eps"),
            (
                "return step * gradient.sign().nan_to_num(nan=0.0)",
                "return step * gradient.nan_to_num(nan=0.0)",
            ),
            ("return delta.clamp(-self.eps, self.eps)", "return delta.clamp(-self.eps, 2 * self.eps)"),
            ("radius = radius ** (1.0 / math.prod", "radius = radius ** (0.5 / math.prod"),
            ("outside = norm > self.eps", "outside = norm > 2 * self.eps"),
            ('if start != "sphere":', 'if start == "sphere":'),
        ],
    ),
    "attacks/pgd.py": (
        "attacks/test_pgd attacks/test_contract attacks/test_model_restored attacks/test_return_first",
        [
            ("return step_length(self.rel_step, self.step_size, self.threat.eps)", "return self.rel_step"),
            ("delta = x_adv.detach() - x + self", "delta = x_adv.detach() - x - self"),
            ("return -loss if self.targeted else loss", "return loss"),
            ("return hit if self.targeted else ~hit", "return ~hit"),
            (
                "(success & ~than_success) | ((success == than_success) & (score > than_score))",
                "score > than_score",
            ),
            ("best.dead_gradients + result.dead_gradients", "best.dead_gradients"),
            ("unsolved = ~success[left]", "unsolved = torch.ones_like(success[left])"),
            ("(left,) = torch.where(~success)", "left = torch.arange(len(x))"),
        ],
    ),
    "analysis/intervals.py": (
        "analysis/test_cas_intervals analysis/test_icas_intervals analysis/test_accuracy_intervals",
        [
            ("share * rate * (1 - rate)", "share * rate"),
            ("(estimate + w / 2) / (1 + w)", "(estimate + w) / (1 + w)"),
            ("(only_a + 1) / (n + 2), (only_b + 1)", "(only_a + 1) / (n + 2), (only_b + 2)"),
            ("/ sqrt(n)\n", "/ n\n"),
        ],
    ),
    "training/schedule.py": (
        "training/test_loop training/test_loop_recipes training/test_recipes",
        [
            ("return 1 - abs(2 * t / epochs - 1)", "return 1 - abs(2 * t / epochs - 1) / 2"),
            ("return t / warmup", "return t / (warmup + 1)"),
            ("(t - warmup) / max(1, epochs - warmup)", "t / max(1, epochs - warmup)"),
            ("math.ceil(t) > m", "math.ceil(t) >= m"),
        ],
    ),
    "training/recipes/trades.py": (
        "training/test_recipes",
        [
            ("self.beta * kl(logits, clean).mean(), logits", "self.beta * kl(clean, logits).mean(), logits"),
        ],
    ),
    "training/recipes/mart.py": (
        "training/test_recipes",
        [
            ("torch.log(1.0001 - rival)", "torch.log(1.01 - rival)"),
            ("doubt = 1 - clean.softmax", "doubt = clean.softmax"),
        ],
    ),
    "training/recipes/distillation.py": (
        "training/test_recipes training/test_teachers",
        [
            ("return term * self.T**2 if", "return term * self.T if"),
            ("(1 - self.lam) * cross_entropy", "cross_entropy"),
            ("(t, t.weight / total)", "(t, t.weight)"),
        ],
    ),
    "training/recipes/awp.py": (
        "training/test_recipes",
        [
            ("gamma * weight.norm() * gradient", "gamma * gradient"),
            ("if p.ndim > 1 and", "if p.ndim > 0 and"),
            ("update_stats=False)", "update_stats=True)"),
        ],
    ),
    "training/averaging.py": (
        "training/test_recipes training/test_loop training/test_loop_recipes",
        [
            ("1 / max(1, epoch - self.start + 1)", "1 / max(1, epoch - self.start + 2)"),
            ("1 - self.decay if epoch", "self.decay if epoch"),
            ("norm.momentum = None", "pass"),
        ],
    ),
    "training/labels.py": (
        "training/test_recipes training/test_loop training/test_loop_recipes",
        [
            ("smoothing * (1 - p) / (classes - 1)", "smoothing * (1 - p) / classes"),
            ("(1 - self.momentum ** visits.clamp(min=1))", "(1 - self.momentum)"),
            ("math.exp(-5 * (1 - t) ** 2)", "math.exp(-5 * (1 - t))"),
            ("share * p + (1 - share) * p.flip(0)", "share * p.flip(0) + (1 - share) * p"),
        ],
    ),
    "paper/theory/closed.py": (
        "paper/theory/test_closed paper/theory/test_truth_table",
        [
            (
                "return -d_e / (k - 1), -layout.distinguishing / (k - 1)",
                "return -d_e / k, -layout.distinguishing / k",
            ),
            ("gap = mu - 2 * eps\n    g1", "gap = mu - eps\n    g1"),
            (
                "return mu / 2 - layout.rival_factor * sigma / (2 * layout.distinguishing)",
                "return mu / 2 - layout.rival_factor * sigma",
            ),
            ("ndtr(-t) + 2 * owens_t", "ndtr(-t) + owens_t"),
            ("rise = 2 * a * (1 - r)", "rise = a * (1 - r)"),
        ],
    ),
    "analysis/saliency.py": (
        "analysis/test_saliency",
        [
            ("half = reached[:, -1:] / 2", "half = reached[:, -1:] / 3"),
            ("return ((best == labels) & (last != labels))", "return ((best == labels) & (last == labels))"),
        ],
    ),
    "analysis/evaluate.py": (
        "analysis/test_attribution analysis/test_measure",
        [
            ("torch.bincount(labels * k + predicted", "torch.bincount(predicted * k + labels"),
            ("if collapsed(share, used, k):", "if False:"),
        ],
    ),
    "analysis/metrics.py": (
        "analysis/test_attribution",
        [("share >= 0.8) or predicted", "share >= 1.1) or predicted")],
    ),
    "training/alarms/robust_overfitting.py": (
        "training/test_alarms",
        [("top - level > least and stays and", "top - level > least and")],
    ),
    "training/alarms/catastrophic_overfitting.py": (
        "training/test_alarms",
        [("holds = fallen and now.robust", "holds = now.robust")],
    ),
    "core/rng.py": (
        "core/test_rng data/test_contract training/test_loop training/test_loop_recipes training/test_resume",
        [
            ("noise = noise[g.rows]", "noise = noise[: g.rows.stop - g.rows.start]"),
            ("for part in (seed, epoch, step, _PURPOSES", "for part in (seed, epoch, _PURPOSES"),
        ],
    ),
}
"""File: the test files that should notice, and (line, changed line)."""


def lives(place: Path, file: str, before: str, after: str, tests: list[str]) -> bool:
    """Whether no test fails with the change."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        copy = Path(folder) / "src"
        shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
        path = copy / "crossclass" / file
        text = path.read_text("utf-8")
        if before not in text:
            print(f"{file} has no line {before!r}: write this mutant anew", flush=True)
            return True
        path.write_text(text.replace(before, after, 1), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
        env = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        names = [f"tests/{t}.py" for t in tests]
        done = subprocess.run([*command, *names], cwd=ROOT, env=env, capture_output=True, check=False)
        if done.returncode != 1:  # 1: a test failed; more: a name of a test file is wrong, say
            print(f"lives ({done.returncode}): {file}: {before!r} -> {after!r}", flush=True)
        return done.returncode != 1


def main() -> None:
    """Try all, print, write; exit code 1 if one lives."""
    jobs = next((int(a) for a in sys.argv[1:] if a.isdigit()), 2)
    cases = [(f, b, a, t.split()) for f, (t, pairs) in CORE.items() for b, a in pairs]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        alive = list(pool.map(lambda case: lives(Path(folder), *case), cases))
    left = [f"{f}: {b!r} -> {a!r}" for (f, b, a, _), living in zip(cases, alive, strict=True) if living]
    print(f"{len(cases)} mutants, {len(left)} live")
    write({"mutants": len(cases), "live": left})
    if left:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

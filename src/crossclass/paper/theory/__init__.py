"""The paper's synthetic model of cross-class features (section 4, appendix E): closed forms and their checks.

    optimum(mu, sigma, eps)      w1*, w2* of adversarial training; beta=... of label smoothing
    eps0(mu, sigma), eps1(mu, sigma, beta)      where w2* becomes 0 (theorems 1 and 3)
    p_pair(w1, w2, mu, sigma, eps), p_all(...)  robust probability against one other class, or all (theorem 2)

The formulas take arrays and do not check them; `check` raises UserError outside of the paper's conditions.
`quadrature`, `montecarlo` (on `samples`) and `descent` compute the same numbers without them, and
`truth_table.truth_table()` judges every statement. Nothing here needs torch.
"""

from crossclass.paper.theory.closed import eps0, eps1, loss, optimum, p_all, p_pair, ratio_at, ratio_best
from crossclass.paper.theory.setting import PAPER, READINGS, Layout, admissible, check

__all__ = [
    "PAPER",
    "READINGS",
    "Layout",
    "admissible",
    "check",
    "eps0",
    "eps1",
    "loss",
    "optimum",
    "p_all",
    "p_pair",
    "ratio_at",
    "ratio_best",
]

"""The paper's synthetic model of cross-class features (section 4, appendix E): closed forms and their checks.

    closed.optimum(mu, sigma, eps)      w1*, w2* of adversarial training; beta=... of label smoothing
    closed.eps0(mu, sigma), closed.eps1(mu, sigma, beta)       where w2* becomes 0 (theorems 1 and 3)
    closed.p_pair(w1, w2, mu, sigma, eps), closed.p_all(...)   robust probability against one class, or all

The formulas take arrays and do not check them; `setting.check` raises UserError outside of the paper's
conditions. `montecarlo` (on `samples`), `descent` and `integrals` compute the same numbers without them, and
`truth_table.truth_table()` judges every statement (`judge`). Nothing here needs torch.
"""

"""Section 4 and appendix E of the paper: closed forms, independent ways to the same numbers, a truth table.

`setting` has the conditions and layouts, `closed` the formulas; `quadrature`, `montecarlo` (on `samples`) and
`descent` reach the same numbers without them; `claims.truth_table` says which theorem holds, and where.
Nothing here needs torch.
"""

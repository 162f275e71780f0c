"""The order in which the paper brings its figures, tables and theorems.

By itself, so that what only lays results out needs no network: the entries themselves bring torch along.
"""

ORDER = (
    *("fig1", "fig2", "fig3ab", "soft", "fig3c", "fig4", "fig5", "fig6", "thm1", "thm2", "thm3"),
    *("cor1", "bridge", "table1", "fig7", "fig8", "fig9", "table2", "fig10", "fig11"),
)

"""What is trained and shown by name: runs, and the paper's figures, tables and theorems.

runs, mini, paper, published    named runs;  sizes  the same run as paper, mini or smoke
figures, maps, tables, theorems the entries (`entry`), collected in `registry`
plan, reproduce                 what is there, what is missing, and bringing it to its end
evidence, extras                what is kept of a finished run, without weights
stages, spread, claims          numbers per seed, their intervals, the word on each sentence
drawing                         stored numbers to figures
linear, bridge, effective       the theory by training
"""

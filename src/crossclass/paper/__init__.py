"""What is trained and shown by name: runs, and the paper's figures, tables and theorems.

runs, mini, paper, published    named runs;  sizes  the same run as paper, mini or smoke
figures, maps, tables, theorems the entries (`entry`), collected in `registry` by `order`
plan, reproduce                 what is there, what is missing, and bringing it to its end
evidence, extras                what is kept of a finished run, without weights
stages, spread                  numbers per seed, and their intervals
claims, sentences               the word on each sentence, and the sentences
drawing                         stored numbers to figures
linear, bridge, effective       the theory by training;  linear_claims, bridge_claims  what it shows
"""

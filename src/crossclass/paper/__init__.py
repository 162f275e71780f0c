"""What the paper says, as data: its runs, its claims, its theory, and how they are reproduced.

runs, sizes                the named runs, and the same runs in the sizes paper, mini and smoke
entry, verdict             the types: an entry (a figure, table or theorem), its claims, the word on each
inference                  what seeds and images say of a mean; corrections for many claims
figures, tables, theorems  the entries; `claims` holds what several of them claim, `entries` lists them all
evidence                   what is kept of a finished run, without weights
extra_measurements         what single figures need of a run beside the usual numbers
run_numbers                from the evidence of runs to the plain numbers that claims are judged on
reproduce, plan            the command: what is there, what is to be trained, train, measure, judge, draw
theory                     the paper's data model: closed forms, independent checks, the truth table
theory_by_training         the same by adversarial training of its linear model
theory_on_pictures         the same on pictures, where `part_weights` takes the place of w1 and w2
published_curves           training curves of others, and whether a run follows them
"""

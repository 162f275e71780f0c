"""What the paper says, as data: its runs, its claims, its theory, and how they are reproduced.

runs, sizes            the named runs, and the same runs in the sizes paper, mini and smoke
figures, tables        the entries with their claims (`claims`), each a predicate on plain numbers
theorems               the entries of the theory (`theory`), with training on its data model (`linear`) and
                       on pictures (`bridge`, `part_weights`)
registry, entry        every entry by its id, and the type of an entry
evidence, extras       what is kept of a finished run, without weights
collect                evidence to plain numbers
verdict                holds, does not hold, undecided
plan, study            what is there and what is missing; reproducing entries
published_curves       training curves of others, and whether a run follows them
"""

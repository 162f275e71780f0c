"""Checkpoint files: those of this project, with their card, and those of other people.

`load` finds the files that a target names. A file with a `card` says itself what it is. Any other file goes
through `foreign_weights`: `file_formats` and `torch_files` read its tensors, `state_dicts` lists those that
may be a network, `match_state_dict` loads them into one. `run_folder` is the folder that a run writes.
"""

"""The smallest run as a file: seconds from its settings to its page."""

TINY = """\
data: {kind: shapes, n_train: 16, n_val: 8, n_test: 9, classes: 3, size: 16}
model: {kind: preactresnet, width: 4, stem_stride: 2, blocks: [1], normalise: data}
recipe: {kind: at, attack: {kind: pgd, steps: 1}}
augment: null
epochs: 2
lr_milestones: [1]
batch: 8
validation: {attack: {kind: pgd, steps: 1}, final: {kind: pgd, steps: 1}}
"""

"""What clean predictions say about the labels: another order of classes, guessing, classes never given."""

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from crossclass.analysis.accuracy_tests import chance_level, hardly_learned
from crossclass.analysis.renumbering import explaining_renumbering, orders_of_names
from crossclass.core.classes import NO_CLASS

FEW = 20
"""Images of a class that are needed to say that it is never given."""


def label_warnings(
    clean: Int[Tensor, " n"], labels: Int[Tensor, " n"], class_names: tuple[str, ...]
) -> list[str]:
    """One sentence for each thing that makes the numbers meaningless.

    Args:
        clean: The predicted classes of the images without an attack.
        labels: Their true classes.
        class_names: Of all classes of the data.
    """
    return list(_warnings(clean, labels, class_names))


def _warnings(
    clean: Int[Tensor, " n"], labels: Int[Tensor, " n"], class_names: tuple[str, ...]
) -> Iterator[str]:
    right = clean == labels
    accuracy = float(right.double().mean())
    class_of = explaining_renumbering(clean, labels, orders_of_names(class_names))
    if class_of is not None:
        moved = [i for i, c in enumerate(class_of) if i != c]
        table = torch.tensor([*class_of, *range(len(class_of), int(clean.max()) + 1), NO_CLASS])
        after = float((table[clean] == labels).double().mean())
        names = dict(enumerate(class_names))
        shown = ", ".join(f"output {i} is {names.get(class_of[i], class_of[i])}" for i in moved[:10])
        yield (
            f"the classes seem to be numbered otherwise than in the data: clean accuracy is {accuracy:.1%}, "
            f"renumbered {after:.1%} ({shown}{' and more' if len(moved) > 10 else ''})"
        )
    elif hardly_learned(right, labels):
        yield (
            f"clean accuracy {accuracy:.1%} of {len(right):,} images is hardly better than guessing "
            f"({chance_level(labels):.1%}): the other numbers mean nothing then; 'crossclass doctor' looks "
            "for the cause"
        )
    elif missing := _never_given(clean, labels, class_names):
        shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        yield f"no image is given these classes, although there are images of them: {shown}"


def _never_given(
    clean: Int[Tensor, " n"], labels: Int[Tensor, " n"], class_names: tuple[str, ...]
) -> list[str]:
    there, given = (torch.bincount(c[c >= 0], minlength=len(class_names)).tolist() for c in (labels, clean))
    return [name for i, name in enumerate(class_names) if there[i] >= FEW and not given[i]]

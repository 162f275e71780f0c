"""Runs are named by what differs, as short as it can be said."""

import pytest

from crossclass.analysis.setting_names import differing, settings_of, with_parts, words

AT = {"recipe": {"kind": "at", "attack": {"kind": "pgd", "threat": {"kind": "linf", "eps": "8/255"}}}}


def changed(**flat):
    return settings_of(AT) | {path.replace("__", "."): value for path, value in flat.items()}


@pytest.mark.parametrize(
    ("runs", "names"),
    [
        ([changed(lr=0.1), changed(lr=0.2)], ["lr"]),
        ([changed(), changed(recipe__attack__threat__eps="4/255")], ["eps"]),
        ([changed(), changed(recipe__attack__threat="l2")], ["norm"]),
        ([changed(), changed(recipe="trades", recipe__beta=6.0)], ["recipe"]),  # beta goes without saying
        ([changed(recipe="trades", recipe__beta=b) for b in (1, 6)], ["beta"]),
        (
            [changed(recipe__attack__start=None), changed(recipe="trades", recipe__attack__start="gauss")],
            ["recipe"],
        ),
        ([changed(), changed(recipe="trades", recipe__attack__threat__eps="4/255")], ["recipe", "eps"]),
        ([changed(seed=0), changed(seed=1)], []),
        ([changed(data__seed=0), changed(data__seed=1)], ["data.seed"]),
        ([changed(data__checksum="a"), changed(data__checksum="b")], []),
        # one name for two settings that go together, a longer one for each where they do not
        ([changed(a__lr=v, b__lr=v) for v in (1, 2)], ["lr"]),
        ([changed(a__lr=v, b__lr=w) for v, w in ((1, 2), (2, 3))], ["a.lr", "b.lr"]),
        ([changed(augment=None), changed(augment__crop=4, augment__flip=True)], ["augment"]),
        ([changed(validation__attack=None), changed(validation__attack="pgd")], ["validation.attack"]),
    ],
)
def test_names_of_what_differs(runs, names):
    found = differing(runs, ("seed",))
    assert list(found) == [name.rpartition(".")[2] if name == "validation.attack" else name for name in names]


def test_a_part_that_is_left_out_is_said_in_words():
    one, two = with_parts([{"augment": None}, {"augment.crop": 4, "augment.flip": True}])
    assert words(one["augment"]) == "none"
    assert two["augment"] == "crop 4, flip true"

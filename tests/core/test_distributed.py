"""Several processes divide a batch and count every row once."""

import pytest

from crossclass.core.runtime import Runtime


@pytest.mark.parametrize(
    ("n", "rows"), [(10, [slice(0, 3), slice(3, 6), slice(6, 10)]), (2, [slice(0, 2)] * 3)]
)
def test_rows_are_divided_without_gap(monkeypatch, n, rows):
    group, found = Runtime(device="cpu").group, []
    monkeypatch.setattr(group, "size", 3)
    for rank in range(3):
        monkeypatch.setattr(group, "rank", rank)
        found.append(group.rows(n))
        assert group.weight(n) == (1 if n >= 3 else 1 / 3)
    assert found == rows

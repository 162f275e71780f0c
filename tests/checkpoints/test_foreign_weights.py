"""Files of weights in networks that nobody named."""

import pytest
import torch

from crossclass.checkpoints.foreign_weights import load_foreign
from crossclass.core.errors import UserError


@pytest.mark.parametrize("allow_partial", [False, True])
def test_a_file_that_resembles_no_network_is_refused(tmp_path, data, allow_partial):
    torch.save({"odd.weight": torch.zeros(3, 3)}, tmp_path / "odd.pt")
    with pytest.raises(UserError, match="no network that is built in; name yours"):
        load_foreign(tmp_path / "odd.pt", data, {}, allow_partial)

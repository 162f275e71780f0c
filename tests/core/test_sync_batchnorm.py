"""Batch norm of several processes: alone it is torch's, and what it cannot join is refused."""

import pytest
import torch
from torch import nn

from crossclass.core.errors import UserError
from crossclass.core.sync_batchnorm import SyncedBatchNorm2d, synchronize_batch_norm


class TestSyncedBatchNorm:
    def test_alone_and_frozen_or_in_eval_mode_it_is_torchs(self):
        torch.manual_seed(0)
        ours, torchs = SyncedBatchNorm2d(3), nn.BatchNorm2d(3)
        x = torch.randn(5, 3, 2, 2)
        for norm in (ours, torchs):
            norm.requires_grad_(False)
            norm(x)
            norm.eval()
        assert torch.equal(ours(x), torchs(x))
        assert torch.equal(ours.running_var, torchs.running_var)

    def test_what_cannot_be_joined_is_refused(self):
        with pytest.raises(UserError, match=r"works on BatchNorm2d with weights, and 0 is BatchNorm1d"):
            synchronize_batch_norm(nn.Sequential(nn.BatchNorm1d(3)))
        with pytest.raises(UserError, match="with weights"):
            synchronize_batch_norm(nn.Sequential(nn.BatchNorm2d(3, affine=False)))

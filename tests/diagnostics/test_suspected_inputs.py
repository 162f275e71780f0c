"""What looks better on few images and may be chance is a note that says how many images would tell."""

import torch
from torch import Tensor

from crossclass import diagnostics
from crossclass.data import Split, Splits
from crossclass.diagnostics import Doctor, examine
from pattern_network import PatternNetwork, pattern_splits

TINT = torch.tensor([20, 0, -20], dtype=torch.int16).view(1, 3, 1, 1)


class ReadsAFewOtherwise(PatternNetwork):
    """Tells by the tint in which order the channels are, but of a few images expects the reverse."""

    def features(self, x: Tensor) -> Tensor:
        means = x.mean(dim=(2, 3))
        is_reversed = means[:, 0] < means[:, 2]
        few = ((255 * x[:, :, 0, 0]).round().sum(dim=1) % 7 == 0) & ~is_reversed
        turned = (is_reversed | few)[:, None, None, None]
        return super().features(torch.where(turned, x.flip(1), x) - self.tint)

    tint = TINT / 255


def tinted() -> Splits:
    whole = pattern_splits()
    parts = [Split((p.images + TINT).to(torch.uint8), p.labels) for p in (whole.train, whole.val, whole.test)]
    return Splits(*parts, whole.class_names, whole.checksum)


def test_an_order_that_may_be_better_by_chance_is_a_note(monkeypatch):
    monkeypatch.setattr(diagnostics, "STAGES", diagnostics.STAGES[:3])
    net = ReadsAFewOtherwise()
    found = {f.name: f for f in examine(net, tinted(), Doctor(n=150))}
    note = found["wrong-channel-order"]
    assert note.level == "note", note
    assert "may be chance" in note.evidence
    assert "n=600" in note.remedy
    assert note.numbers["other"] > note.numbers["as given"] + 0.02
    assert found["transposed-images"].level == "fine"
    more = {f.name: f.level for f in examine(net, tinted(), Doctor(n=800))}
    assert more["wrong-channel-order"] == "fault", "what more images tell"

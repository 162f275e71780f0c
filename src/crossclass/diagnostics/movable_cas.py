"""How far CAS is a matter of how the network is written down, and not of what it predicts."""

from crossclass.analysis.equivalent_networks import moved_cas
from crossclass.diagnostics.findings import Finding, finding
from crossclass.diagnostics.probe import Probe


def movable_cas(p: Probe) -> list[Finding]:
    """CAS of the clean images, and of networks with the same predictions.

    A note where features take both signs, for then nothing says where their origin is; behind a ReLU it is
    where a feature is off.
    """
    g = p.features
    moved = moved_cas(g, p.model.head.weight.detach().float(), p.y, p.settings.seed)
    evidence = (
        f"CAS of {p.conditions} is {moved.as_it_is:.2f}; of networks with the same predictions it is "
        f"{moved.features_centred:.2f} with features less their mean, {moved.features_shifted:.2f} with "
        f"their deviation added, {moved.rotated_mean:.2f} in random bases, {moved.rows_centred:.2f} with "
        f"the head's rows less their mean, {moved.rows_shifted:.2f} with their deviation added"
    )
    numbers = {key: getattr(moved, key) for key in ("as_it_is", "rows_shifted", "rows_centred")}
    numbers |= {key: getattr(moved, key) for key in ("features_shifted", "features_centred")}
    remedy = "read decision_cas, offer_cas and profile_cas of measure beside it, which these changes leave"
    signed = bool((g < 0).any())
    return [finding("movable-cas", "note", signed, evidence, remedy, **numbers, rotated=list(moved.rotated))]

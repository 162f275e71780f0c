"""Does this device compute what the CPU computes?

    python benchmarks/device_check.py [auto|cuda|mps|cpu] [OUT.json]

The same noise is drawn on the CPU for both, so what differs is arithmetic alone. Checked, with the largest
difference: logits, input gradients and PGD images (fp32 without TF32), C, CAS and I-CAS; that bf16 crafting
stays in the ball; that an attack puts the model back; and that a short run trains on the device, resumes, and
ends near the CPU's. Exit code 1 if something is off.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from crossclass import models
from crossclass.analysis import attribution, evaluate, instances
from crossclass.attacks import FGSM, PGD
from crossclass.attacks.norms import L2, Linf
from crossclass.checkpoints.card import load_checkpoint
from crossclass.core.device import full_precision
from crossclass.core.files import json_text
from crossclass.core.runtime import Runtime
from crossclass.data import Shapes
from crossclass.models import Classifier, PreActResNet
from crossclass.training.loop import iterate_epochs, train
from crossclass.training.recipes import AT
from crossclass.training.run import Run, Validation

NET = PreActResNet(width=16, blocks=(1, 1, 1))
RUN = Run(
    data=Shapes(n_train=64, n_val=32, n_test=64, classes=4, size=16),
    model=PreActResNet(width=8, stem_stride=2, blocks=(1, 1), normalise="data"),
    recipe=AT(attack=PGD(steps=2)),
    augment=None,
    epochs=4,
    lr_milestones=(2,),
    batch=16,
    lr=0.02,
    validation=Validation(attack=PGD(steps=2), final=PGD(steps=2)),
)
TOLERANCES = {
    "logits": 1e-4,
    "input gradient (cosine to 1)": 1e-5,
    "PGD images equal (share that is not)": 0.02,
    "C": 5e-3,
    "CAS": 2e-2,
    "I-CAS": 5e-2,
    "outside of the ball": 1e-6,
    "robust accuracy, bf16 crafting against fp32": 0.03,
    "model changed by an attack": 0.0,
    "training loss of a short run": 5e-2,
    "resumed run (training loss)": 5e-2,
}


def pair(device: torch.device) -> tuple[Classifier, Classifier]:
    """A network and its copy on the device."""
    built = [models.build(NET, torch.zeros(1, 3, 32, 32, dtype=torch.uint8), 10, 0).eval() for _ in range(2)]
    return built[0], built[1].to(device)


def compared(device: torch.device) -> dict[str, float]:
    """What is compared on one network."""
    here, there = pair(device)
    splits = Shapes(n_train=10, n_val=0, n_test=400, classes=10, size=32)()
    test = splits.test
    x, y = test.images.float() / 255, test.labels
    found: dict[str, float] = {}
    with full_precision():
        logits = [m(x.to(m.mean.device)).detach().cpu() for m in (here, there)]
        found["logits"] = float((logits[0] - logits[1]).abs().max())
        gradients = []
        for m in (here, there):
            z = x.clone().to(m.mean.device).requires_grad_()
            loss = torch.nn.functional.cross_entropy(m(z), y.to(z.device), reduction="sum")
            gradients.append(torch.autograd.grad(loss, z)[0].cpu().flatten(1))
        cosine = torch.nn.functional.cosine_similarity(*gradients, dim=1)
        found["input gradient (cosine to 1)"] = float((1 - cosine).max())
        images = []
        for m in (here, there):
            place = m.mean.device
            x_adv = PGD(steps=3)(m, x.to(place), y.to(place), torch.Generator().manual_seed(1))
            images.append(x_adv.cpu())
        found["PGD images equal (share that is not)"] = float(
            ((images[0] - images[1]).abs() > 1e-6).float().mean()
        )
    before = {k: v.clone() for k, v in there.state_dict().items()}
    attacks = [PGD(precision="bf16"), PGD(threat=L2(), precision="bf16", bn="train_frozen_stats"), FGSM()]
    moved = []
    for attack in attacks:
        x_adv = attack(there, x.to(device), y.to(device), torch.Generator().manual_seed(1))
        norm = attack.threat.norm(x_adv.cpu() - x)
        moved.append(float((norm - attack.threat.eps).max()))
    found["outside of the ball"] = max(0.0, *moved)
    found["model changed by an attack"] = float(
        any(not torch.equal(v, before[k]) for k, v in there.state_dict().items())
        or any(p.grad is not None or not p.requires_grad for p in there.parameters())
    )
    seen = [
        evaluate.evaluate(m, test.to(m.mean.device), PGD(steps=10, threat=Linf(eps=2 / 255)))
        for m in (here, there)
    ]
    found["C"] = float((seen[0].C - seen[1].C).abs().max())
    found["CAS"] = abs(attribution.cas(seen[0].C) - attribution.cas(seen[1].C))
    icas = [
        attribution.cas(
            instances.instance_correlation(instances.nearest(e.features, e.W, e.labels), e.labels)
        )
        for e in seen
    ]
    found["I-CAS"] = abs(icas[0] - icas[1])
    attack = PGD(steps=10, threat=Linf(eps=2 / 255), precision="bf16")
    low = evaluate.evaluate(there, test.to(device), attack)
    right = [evaluate.accuracy(e.robust, e.labels) for e in (seen[1], low)]
    found["robust accuracy, bf16 crafting against fp32"] = abs(right[0] - right[1])
    return found


def short_runs(device: torch.device) -> dict[str, float]:
    """A run of four epochs here and there, and there once more with an interruption."""
    kind: Any = device.type
    with tempfile.TemporaryDirectory() as place:
        # without graphs, with which noise is drawn on the device
        runtimes = {"here": Runtime(device="cpu"), "there": Runtime(device=kind, graphs="off")}
        folders = {name: train(RUN, Path(place) / name, "run", r) for name, r in runtimes.items()}
        stream = iterate_epochs(RUN, Path(place) / "again", "run", runtimes["there"])
        for _ in range(2):
            next(stream)
        stream.close()
        folders["again"] = train(RUN, Path(place) / "again", "run", runtimes["there"])
        losses = {name: [r["train_loss"] for r in f.rows()] for name, f in folders.items()}
        load_checkpoint(folders["again"].checkpoint("last"))
    return {
        "training loss of a short run": gap(losses["here"], losses["there"]),
        "resumed run (training loss)": gap(losses["there"], losses["again"]),
    }


def gap(a: list[float], b: list[float]) -> float:
    """The largest difference."""
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def main() -> None:
    """Compare, print, write."""
    asked: Any = sys.argv[1] if len(sys.argv) > 1 else "auto"
    device = Runtime(device=asked).torch_device
    kind = device.type
    about = {"device": torch.cuda.get_device_name() if kind == "cuda" else kind, "torch": torch.__version__}
    found: dict[str, float] = {}
    wrong: list[str] = []
    for part in (compared, short_runs):  # each written at once: the next may be cut off
        new = part(device)
        found |= new
        wrong += [name for name, value in new.items() if not value <= TOLERANCES[name]]
        for name, value in new.items():
            verdict = "WRONG" if name in wrong else "fine"
            print(f"{verdict:5}  {name}: {value:.3g} (at most {TOLERANCES[name]:g})", flush=True)
        if len(sys.argv) > 2:
            result = about | {"found": found, "wrong": wrong}
            Path(sys.argv[2]).parent.mkdir(parents=True, exist_ok=True)
            Path(sys.argv[2]).write_text(json_text(result) + "\n", encoding="utf-8")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

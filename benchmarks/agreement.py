"""Does our PGD-20 agree with torchattacks' and foolbox's? On two public networks, by l_inf 2/255 and 8/255.

    pip install torchattacks foolbox        (for this script only; no test and no command needs them)
    python benchmarks/agreement.py nets=DIR data=DIR [n=500] [seeds=3] [batch=250] [only=resnet4b] [out=FILE]

`nets` holds resnet4b.npz and resnet20-12fca82f.npz (one array per parameter), `data` a test.npz. Each
library starts uniformly in the ball and takes 20 steps of eps/4. They draw different starts, so robust
accuracies differ by chance: an image that survives in a share p of starts adds p(1 - p) to the variance,
estimated within each library over its seeds. A difference of more than three standard errors is one.

Expected: no difference; resnet4b 61 % at 2/255 and 17 % at 8/255, resnet20 1-2 % and 0 % (the first 500).
Other people's code runs behind the fence of `External`, which also checks ball and box.
"""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crossclass.attacks import PGD, External
from crossclass.attacks.norms import Linf
from crossclass.core.errors import UserError
from crossclass.core.rng import generator
from crossclass.core.trust import trusting

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import my_nets

STEPS, SHARE = 20, 0.25
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
NETS = {
    "resnet4b": (my_nets.resnet4b, "resnet4b.npz", CIFAR10),
    "resnet20": (my_nets.resnet20, "resnet20-12fca82f.npz", IMAGENET),
}


def torchattacks_pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float, step: float, steps: int) -> Tensor:
    """PGD of torchattacks, as an attack that `External` can call."""
    import torchattacks

    attack = torchattacks.PGD(model, eps=eps, alpha=step, steps=steps, random_start=True)
    return attack(x, y)


def foolbox_pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float, step: float, steps: int) -> Tensor:
    """PGD of foolbox, as an attack that `External` can call; it returns (raw, clipped, success)."""
    import foolbox

    attack = foolbox.attacks.LinfPGD(abs_stepsize=step, steps=steps, random_start=True)
    clipped = attack(foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device), x, y, epsilons=eps)[1]
    return clipped


class Normalised(nn.Module):
    """A network behind its normalisation, so that images are in [0, 1] for every library."""

    def __init__(self, net: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Images in [0, 1] to logits."""
        return self.net((x - self.mean) / self.std)


def network(name: str, folder: Path) -> nn.Module:
    """One of the two networks with its weights, in eval mode."""
    make, file, (mean, std) = NETS[name]
    net = make()
    with np.load(folder / file) as arrays:
        missing, extra = net.load_state_dict({k: torch.from_numpy(arrays[k]) for k in arrays}, strict=False)
    assert not extra, extra
    assert all(k.endswith("num_batches_tracked") for k in missing), missing
    return Normalised(net, mean, std).eval()


def images(folder: Path, n: int) -> tuple[Tensor, Tensor]:
    """The first n test images in [0, 1] and their classes."""
    with np.load(folder / "test.npz") as arrays:
        x, y = arrays["images"][:n], arrays["labels"][:n]
    return torch.from_numpy(x).permute(0, 3, 1, 2).float().div(255), torch.from_numpy(y).long()


def attacks(eps: float) -> dict[str, Any]:
    """The same attack by three hands."""
    threat = Linf(eps=eps)
    arguments = {"eps": "eps", "step": f"eps/{1 / SHARE:g}", "steps": STEPS}
    return {
        "ours": PGD(threat=threat, steps=STEPS, step=SHARE, start="uniform"),
        "torchattacks": External(call="agreement:torchattacks_pgd", arguments=arguments, threat=threat),
        "foolbox": External(call="agreement:foolbox_pgd", arguments=arguments, threat=threat),
    }


def survived(model: nn.Module, attack: Any, x: Tensor, y: Tensor, seed: int, batch: int) -> Tensor:
    """Which images are classified rightly after the attack, as 0 or 1 [n]."""
    kept = []
    for step, (some, classes) in enumerate(zip(x.split(batch), y.split(batch), strict=True)):
        x_adv = attack(model, some, classes, generator(seed, 0, step, "measure"))
        with torch.no_grad():
            kept.append(model(x_adv).argmax(dim=1) == classes)
    return torch.cat(kept).double().cpu()


def comparison(seen: dict[str, Tensor]) -> dict[str, Any]:
    """Accuracies, differences from ours and their standard error; `seen` is [seeds, n] per library."""
    seeds, n = seen["ours"].shape
    within = torch.stack([s.var(dim=0, correction=1) for s in seen.values()]).mean(dim=0)
    error = math.sqrt(2 * float(within.sum()) / n**2 / seeds)
    accuracy = {name: float(s.mean()) for name, s in seen.items()}
    differences = {
        name: {"difference": a - accuracy["ours"], "agrees": abs(a - accuracy["ours"]) <= 3 * error + 1e-12}
        for name, a in accuracy.items()
        if name != "ours"
    }
    by_seed = {name: s.mean(dim=1).tolist() for name, s in seen.items()}
    return {"robust": accuracy, "by_seed": by_seed, "standard_error": error, "against_ours": differences}


def main(arguments: list[str]) -> int:
    """Measure, print a table, write `out`; 1 if anything disagrees."""
    given = {
        "n": "500",
        "seeds": "3",
        "batch": "250",
        "only": "",
        "out": "",
        **dict(a.split("=", 1) for a in arguments),
    }
    if missing := {"nets", "data"} - set(given):
        raise UserError(f"give {' and '.join(f'{m}=DIR' for m in sorted(missing))}")
    seeds, batch = int(given["seeds"]), int(given["batch"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x, y = (t.to(device) for t in images(Path(given["data"]), int(given["n"])))
    results = []
    for name in [given["only"]] if given["only"] else NETS:
        model = network(name, Path(given["nets"])).to(device)
        with torch.no_grad():
            clean = float((model(x).argmax(dim=1) == y).double().mean())
        for eps in (2 / 255, 8 / 255):
            began, seen = time.perf_counter(), {}
            for library, attack in attacks(eps).items():
                runs = [survived(model, attack, x, y, seed, batch) for seed in range(seeds)]
                seen[library] = torch.stack(runs)
            result = {"net": name, "eps": str(Linf(eps=eps)), "n": len(x), "clean": clean, **comparison(seen)}
            results.append(result)
            numbers = "  ".join(f"{k} {v:6.2%}" for k, v in result["robust"].items())
            against = "  ".join(
                f"{k} {d['difference']:+.2%}{'' if d['agrees'] else ' DISAGREES'}"
                for k, d in result["against_ours"].items()
            )
            error = f"standard error {result['standard_error']:.2%}"
            took = f"{time.perf_counter() - began:.0f} s"
            print(f"{name} {result['eps']}: {numbers}; against ours {against}; {error} ({took})", flush=True)
    if given["out"]:
        Path(given["out"]).write_text(json.dumps(results, indent=1) + "\n")
    return int(not all(d["agrees"] for r in results for d in r["against_ours"].values()))


if __name__ == "__main__":
    try:
        with trusting("agreement:torchattacks_pgd", "agreement:foolbox_pgd"):
            sys.exit(main(sys.argv[1:]))
    except UserError as e:
        sys.exit(f"agreement: {e}")

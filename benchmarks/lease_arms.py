"""Two arms from one parent, and a record of speed, on a lent GPU.

    python benchmarks/lease_arms.py begin  seconds=110 out=OUT data=DIR
    python benchmarks/lease_arms.py unpack seconds=20  out=OUT data=DIR parent=DIR
    python benchmarks/lease_arms.py arms   seconds=430 out=OUT data=DIR parent=DIR
    python benchmarks/lease_arms.py record seconds=230 out=OUT

`begin`: all at once, compiling, graphs against eager, and the device against the CPU; then the card. It can
go on (setsid) while other parts of the images arrive, which `unpack` decodes; `arms` waits for it.
`arms`: the best checkpoint of `lease.py main` goes on with one-hot labels (`hard`), and with its own soft
labels mixed in (`soft`: eq. 3 of the paper, lam 0.5, T 2, the parent as teacher); all else is the same.
All three are judged on the 10,000 test images in float32. PARENT holds the parent's weights, in parts, as
`lease.py` writes them.
`record`: PGD-3 AT with label smoothing and an average of the weights, from nothing to as many epochs as fit,
and APGD-CE and APGD-T on the first 1,000 test images.

Options are those of `lease.py`; `arm_epochs=N` and `record_epochs=N` fix the lengths.
"""

import json
import sys
import time
from pathlib import Path
from threading import Thread
from typing import Any

from lease import Stage, about, gathered, guarded, network, one_run, piece, ran, settle, unpack, write

BATCH = 512
ARM_LR = 0.04  # 0.01 at batch 128, the rate after the first drop
NAMES = ("hard", "soft")
EXPECTED = {"hard": 6.2, "soft": 6.2, "record": 2.6}
"""Seconds of an epoch on an H200, from 5.35 s with 11 passes, and what comes beside."""


def options(words: list[str]) -> tuple[Stage, dict[str, str]]:
    """The stage, and the options that only this file has."""
    own = {"parent": "", "arm_epochs": "0", "record_epochs": "0"}
    mine = {k: v for k, v in (w.split("=", 1) for w in words) if k in own}
    stage = Stage([w for w in words if w.split("=", 1)[0] not in own])
    return stage, own | mine


def parent_file(stage: Stage) -> Path:
    """The parent as a checkpoint of float32, put together from its parts once."""
    return stage.state / "parent.safetensors"


def assemble(stage: Stage, place: str) -> None:
    """Put the parts together: float16 on the way, float32 from here on."""
    from safetensors.torch import load

    from crossclass.checkpoints.card import Card, save_checkpoint

    if parent_file(stage).exists():
        return
    parts = sorted(Path(place).glob("at8-best-val-fp16.safetensors.*"))
    content = b"".join(p.read_bytes() for p in parts)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    known = json.loads(header["card"])
    recipe = known["recipe"]["attack"]
    recipe["rel_step"] = recipe.pop("step")
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in load(content).items()}
    keep = {k: known[k] for k in ("classes", "channels", "size", "class_names", "model", "epoch", "seed")}
    card = Card(**keep, checkpoint="best.val", recipe=known["recipe"])
    save_checkpoint(parent_file(stage), tensors, card)
    stage.say(f"parent: {len(parts)} parts, {len(tensors)} tensors, epoch {card.epoch}")


def run_of(stage: Stage, kind: str, epochs: int) -> Any:
    """The settings of an arm or of the record."""
    from crossclass.attacks import PGD
    from crossclass.data import Npz
    from crossclass.paper.runs.paper import PAPER
    from crossclass.paper.sizes import with_crafting_precision
    from crossclass.training.averaging import EMA
    from crossclass.training.recipes import AT, KnowledgeDistillation, Teacher
    from crossclass.training.run import Validation

    counts = {"n_train": 64, "n_val": 32, "n_test": 64} if stage.smoke else {"n_val": 1000}
    drop = max(1, epochs - 4)  # the last epochs at a tenth, as the parent's were
    run = PAPER["wei2025-at-linf-8"].replace(
        lr=ARM_LR,
        lr_milestones=(drop,) if drop < epochs else (),
        data=Npz(path=gathered(stage), **counts),
        model=network(stage),
        epochs=epochs,
        batch=16 if stage.smoke else BATCH,
        precision="bf16",
        checkpoint_every=0,
        validation=Validation(every=4, n=1000, batch=1000),
    )
    if kind == "record":
        recipe = AT(attack=PGD(steps=3, rel_step=0.4, bn="train"))
        run = run.replace(
            recipe=recipe, lr=0.4, schedule="cyclic", lr_peak=0.3, lr_milestones=(), label_smoothing=0.4,
            weight_averaging=EMA(decay=0.998), validation=run.validation.replace(every=max(1, epochs // 4)),
        )  # fmt: skip
    if stage.smoke:
        few = PGD(steps=2, bn="train")
        run = run.replace(recipe=AT(attack=few), validation=Validation(every=1, n=32, attack=PGD(steps=2)))
    run = with_crafting_precision(run, "bf16")
    if kind == "soft":
        teacher = Teacher(file=str(parent_file(stage)))
        run = run.replace(recipe=KnowledgeDistillation(inner=run.recipe, teachers=(teacher,)))
    return run


def start_from_parent(stage: Stage) -> None:
    """New networks begin with the parent's weights: in this process only."""
    from crossclass.checkpoints.card import load_checkpoint
    from crossclass.models import PreActResNet

    tensors, _ = load_checkpoint(parent_file(stage))
    if stage.smoke:
        return
    PreActResNet.load_pretrained = lambda self, model: model.load_state_dict(tensors)  # type: ignore


def train(stage: Stage, own: dict[str, str], kind: str) -> None:
    """Train an arm, or the record, over as many epochs as its time holds."""
    import torch

    from crossclass.core.runtime import Runtime

    fixed = int(own["record_epochs" if kind == "record" else "arm_epochs"])
    fine = ((stage.kept("warm.json") or {}).get("fine") or {}).get(str(BATCH))
    variant = "compiled" if fine and not stage.smoke else "graph"
    per = EXPECTED[kind] * (1 if variant == "compiled" else 1.4)
    if kind == "soft":  # as long as the other arm
        fixed = fixed or (stage.kept("plan-hard.json") or {}).get("trained", 0)
    reserve = 4.0 if kind != "record" else 65.0
    epochs = fixed or (3 if stage.smoke else max(6, int((stage.left - reserve - 15) / per)))
    plan: dict[str, Any] = {"kind": kind, "epochs": epochs, "variant": variant, "expected": per}
    plan["planned again"] = "never: the schedule is fixed by the time"
    stage.say(f"{kind}: {plan}")
    if kind in NAMES:
        start_from_parent(stage)
    device: Any = stage.device
    runtime = Runtime(device=device, compile=variant == "compiled")
    started = time.time()
    folder, times, _ = one_run(stage, kind, run_of(stage, kind, epochs), runtime, plan, reserve)
    settle(runtime.torch_device)
    plan |= {"trained": len(folder.rows()), "seconds": time.time() - started, "seconds of epochs": times}
    plan["seconds of training alone"] = sum(r["seconds"] for r in folder.rows())
    plan["folder"] = str(folder.path)
    stage.keep(f"plan-{kind}.json", plan)
    if runtime.torch_device.type == "cuda":
        torch.cuda.empty_cache()


def network_of(stage: Stage, kind: str) -> tuple[Any, Any, Path]:
    """The network at the end of a run, on the device, and its card; `parent` is where the arms began."""
    from lease import last_from_state

    from crossclass.checkpoints.load import load_model
    from crossclass.checkpoints.run_folder import RunFolder
    from crossclass.core.runtime import Runtime

    path = parent_file(stage)
    if kind != "parent":
        folder = RunFolder(Path(stage.kept(f"plan-{kind}.json")["folder"]))
        last_from_state(folder)
        path = folder.checkpoint("last")
    built, card = load_model(path)
    device: Any = stage.device
    return built.to(Runtime(device=device).torch_device).eval(), card, path


def judge(stage: Stage, kinds: tuple[str, ...]) -> None:
    """PGD-20, all test images, float32: every number of the product, and the differences by image."""
    import numpy as np

    from crossclass.analysis import evaluate
    from crossclass.analysis.compare import comparison
    from crossclass.analysis.measure import Measure, measurement
    from crossclass.analysis.records import result_file
    from crossclass.analysis.result_files import write_results
    from crossclass.checkpoints.load import identity
    from crossclass.core.device import cudnn_benchmark
    from crossclass.core.runtime import Runtime

    device: Any = stage.device
    runtime = Runtime(device=device)
    run = run_of(stage, "hard", 5)
    splits, attack = run.data().to(runtime.torch_device), run.final_attack()
    attack = attack.replace(steps=2) if stage.smoke else attack
    settings = Measure(batch=32 if stage.smoke else 1000)
    found: dict[str, Any] = {}
    measured, passes = {}, {}
    for kind in kinds:
        with guarded(stage, kind, found), cudnn_benchmark(runtime.torch_device):
            took = max([5.0, *found.get("seconds", {}).values()])
            if stage.left < took + 4:
                raise TimeoutError("no time left for it")
            net, card, path = network_of(stage, kind)
            passes[kind] = evaluate.evaluate(net, splits.test, attack, 0, batch=settings.batch)
            said = identity(card, path, run.data, net)
            measured[kind] = measurement(passes[kind], said, splits, attack, settings)
            row, p = measured[kind], passes[kind]
            arrays = {
                "labels": p.labels,
                "clean": p.clean,
                "robust": p.robust,
                "means": p.means,
                "W": p.W,
                "C": p.C,
            }
            np.savez_compressed(
                stage.state / f"pass-{kind}.npz", **{k: np.asarray(v) for k, v in arrays.items()}
            )
            stage.say(
                f"{kind} (epoch {card.epoch}): clean {row['clean']:.4f}, robust {row['robust']:.4f}, "
                f"under {attack}, CAS {row['cas']:.3f}, I-CAS {row['icas']:.3f}, n {row.data.n}"
            )
        pairs = [(a, b) for i, a in enumerate(measured) for b in list(measured)[i + 1 :]]
        rows = [comparison(measured[a], measured[b], (passes[a], passes[b])) for a, b in pairs]
        results = result_file(list(measured.values()), rows)
        write_results(stage.out / f"measured-{'-'.join(kinds)}.json", results)
        found["order of measurements"] = list(measured)
        stage.keep(f"judged-{'-'.join(kinds)}.json", found)


def autoattacked(stage: Stage, kind: str) -> None:
    """APGD-CE and APGD-T on the first test images: crafted in bf16, judged in float32 and in bf16."""
    import torch

    from crossclass.attacks import AutoAttack
    from crossclass.core.device import cudnn_benchmark, full_precision
    from crossclass.core.rng import generator
    from crossclass.core.runtime import Runtime

    class Lower(torch.nn.Module):
        def __init__(self, net: Any) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Any) -> Any:
            with torch.autocast(x.device.type, torch.bfloat16):
                return self.net(x).float()

    device: Any = stage.device
    place = Runtime(device=device).torch_device
    found: dict[str, Any] = {}
    with guarded(stage, "AutoAttack", found), cudnn_benchmark(place):
        net, card, _ = network_of(stage, kind)
        part = run_of(stage, "hard", 5).data().to(place).test.first(16 if stage.smoke else 1000)
        x, y = part.images.float() / 255, part.labels
        steps = {"steps": 3} if stage.smoke else {}
        attack = AutoAttack(attacks=("apgd-ce", "apgd-t"), batch=len(part), **steps)
        started = time.time()
        x_adv = attack(Lower(net), x, y, generator(0, device=place))
        took = time.time() - started
        with torch.no_grad(), full_precision():
            clean, robust = net(x).argmax(1) == y, net(x_adv).argmax(1) == y
        with torch.no_grad():
            lower = Lower(net)(x_adv).argmax(1) == y
        found |= {
            "attack": str(attack), "crafted in": "bf16", "eps": 8 / 255, "n": len(part),
            "split": "test, first", "seed": 0, "epoch": card.epoch, "seconds of the attack": took,
            "clean": float(clean.float().mean()),
            "robust": float((clean & robust).float().mean()),
            "robust in bf16 and in float32": float((clean & robust & lower).float().mean()),
            "largest change": float((x_adv - x).abs().max()),
        }  # fmt: skip
    stage.say(f"{kind}: {found}")
    stage.keep(f"autoattack-{kind}.json", found)


def bring(stage: Stage, kinds: tuple[str, ...]) -> None:
    """The networks at the end, in half precision, in parts that come back."""
    from safetensors.torch import save

    from crossclass.checkpoints.card import load_checkpoint

    for kind in kinds:
        if (plan := stage.kept(f"plan-{kind}.json")) is None:
            continue
        tensors, card = load_checkpoint(Path(plan["folder"]) / "last.safetensors")
        half = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in tensors.items()}
        content = save(half, {"card": card.model_dump_json(by_alias=True), "dtype": "float16 of float32"})
        for i in range(0, len(content), 15 * 2**20):
            write(stage.out / f"{kind}-fp16.safetensors.{i // (15 * 2**20)}", content[i : i + 15 * 2**20])


def begin(stage: Stage, own: dict[str, str]) -> None:
    """What must be known and compiled before; the pieces run side by side, for none is timed."""
    found: dict[str, Any] = {}
    with guarded(stage, "data", found):
        unpack(stage)
    here, at_once = Path(__file__).resolve().parent, []
    words = [w for w in stage.words(stage.end - 8) if not w.startswith("sizes=")]
    for name, arguments in (
        ("piece:warm", [str(here / "lease.py"), "piece:warm", *words, f"sizes={BATCH}"]),
        (
            "device_check",
            [str(here / "device_check.py"), stage.device, str(stage.state / "results/device.json")],
        ),
        ("piece:graphs", [str(here / "lease.py"), "piece:graphs", *words]),
        ("piece:recipes", [str(here / "lease.py"), "piece:recipes", *words]),
    ):
        at_once.append(Thread(target=ran, args=(stage, arguments, stage.end - 8, name)))
    for thread in at_once:
        thread.start()
    for thread in at_once:
        thread.join()
    with guarded(stage, "card", found):
        stage.keep("about.json", about(stage))
    stage.keep("begin.json", found)
    stage.publish()


def unpacked(stage: Stage, own: dict[str, str]) -> None:
    """Decode what is given, and put the parent together where it is given."""
    unpack(stage)
    if own["parent"]:
        assemble(stage, own["parent"])


def arms(stage: Stage, own: dict[str, str]) -> None:
    """Both arms, then the judgement."""
    found: dict[str, Any] = {}
    with guarded(stage, "data", found):
        unpacked(stage, own)
    until = time.time() + 100
    while stage.kept("begin.json") is None and time.time() < until:
        time.sleep(0.5)
    with guarded(stage, "all data", found):
        gathered(stage)
    stage.say(f"compiled: {(stage.kept('warm.json') or {}).get('fine')}")
    words = {k: v for k, v in own.items() if v}
    judging = 5.0 if stage.smoke else 85.0
    for i, kind in enumerate(NAMES):
        with guarded(stage, kind, found):
            piece_of(stage, kind, (stage.left - judging - 12) / (1 if i else 2), words)
    with guarded(stage, "judge", found):
        piece_of(stage, "judge", stage.left - 9, words)
    with guarded(stage, "weights", found):
        bring(stage, NAMES)
    stage.keep("arms.json", found)
    stage.publish()


def record(stage: Stage, own: dict[str, str]) -> None:
    """The record, its AutoAttack, then PGD-20."""
    found: dict[str, Any] = {}
    words = {k: v for k, v in own.items() if v}
    with guarded(stage, "data", found):
        unpack(stage)
        gathered(stage)
    with guarded(stage, "record", found):
        piece_of(stage, "record", stage.left - 12, words)
    with guarded(stage, "AutoAttack", found):
        piece_of(stage, "autoattack", stage.left - 10, words)
    if stage.left > 30 or stage.smoke:
        with guarded(stage, "judge", found):
            piece_of(stage, "judge-record", stage.left - 9, words)
    with guarded(stage, "weights", found):
        bring(stage, ("record",))
    stage.keep("record.json", found)
    stage.publish()


def piece_of(stage: Stage, name: str, limit: float, own: dict[str, str]) -> int:
    """A piece of this file in its own process."""
    return piece(stage, f"piece:{name}", limit, own, Path(__file__).resolve())


def main(words: list[str]) -> None:
    """A command or a piece."""
    name = words[0] if words else ""
    pieces: dict[str, Any] = {
        "begin": begin,
        "unpack": unpacked,
        "arms": arms,
        "record": record,
        "piece:judge": lambda stage, own: judge(stage, (*NAMES, "parent")),
        "piece:judge-record": lambda stage, own: judge(stage, ("record",)),
        "piece:autoattack": lambda stage, own: autoattacked(stage, "record"),
        **{f"piece:{k}": lambda stage, own, k=k: train(stage, own, k) for k in EXPECTED},
    }
    if name not in pieces:
        raise SystemExit(__doc__)
    stage, own = options(words[1:])
    pieces[name](stage, own)


if __name__ == "__main__":
    main(sys.argv[1:])

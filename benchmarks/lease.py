"""A lent GPU in a few short commands: what works, how fast, and the paper's run shortened.

    python benchmarks/lease.py first seconds=60  out=OUT data=DIR  the card, its rates, graphs against eager
    python benchmarks/lease.py check seconds=140 out=OUT data=DIR  device against CPU, seconds of an epoch
    python benchmarks/lease.py main  seconds=570 out=OUT data=DIR  AT, the schedule in short; KD; eps 4

Also: state=DIR (what one command leaves for the next; `lease` among the temporary files), device=auto,
smoke=1 (seconds on a CPU, the same code), epochs=N (instead of what fits), variant=eager|graph|compiled
(instead of the fastest), sizes=128,512 (the batches that are compiled for).

DIR holds a part of CIFAR-10 as lossless mosaics (`train_00.webp` and so on, labels in `*_labels.npz`); every
command decodes what it is given, and `main` wants all of it. Every piece runs in a process of its own with a
limit, so that one that fails or hangs costs its own time only. OUT gets at most eight files, written whole:
`lease.json` (all results), `log.txt`, `at-metrics.csv`, `results.zip` (every small file of every run) and the
weights of best and last in half precision, in parts.
"""

import gc
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any

HERE = Path(__file__).parent
OWN = {
    "seconds": "570",
    "out": os.environ.get("OUT", "lease-out"),
    "state": str(Path(tempfile.gettempdir()) / "lease"),
    "data": "",
    "device": "auto",
    "smoke": "0",
    "epochs": "0",
    "variant": "auto",
    "sizes": "128,512",
}
PARTS = {"train": 50, "test": 10}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PUBLISHING = Lock()
GF_STEP, GF_TRAIN = 2.2217, 3.3290
"""Operations per image of an input gradient and of a training step, PreActResNet-18 (10^9)."""


class Stage:
    """Options, folders and the clock of one command."""

    def __init__(self, words: list[str]) -> None:
        self.options = OWN | dict(w.split("=", 1) for w in words)
        unknown = set(self.options) - set(OWN) - {"end"}
        if unknown:
            raise SystemExit(f"lease.py: unknown option {sorted(unknown)}")
        self.end = float(self.options.get("end") or time.time() + float(self.options["seconds"]))
        self.state, self.out = Path(self.options["state"]), Path(self.options["out"])
        self.smoke = self.options["smoke"] == "1"
        self.state.mkdir(parents=True, exist_ok=True)
        self.out.mkdir(parents=True, exist_ok=True)
        self.device = self.options["device"]
        shm = Path("/dev/shm")
        roomy = shm.is_dir() and shutil.disk_usage(shm).free > 8e9 and not self.smoke
        self.runs = (shm / "lease-runs") if roomy else self.state / "runs"

    @property
    def left(self) -> float:
        """Seconds until the limit."""
        return self.end - time.time()

    def words(self, end: float) -> list[str]:
        """The options of a piece that must have ended by then."""
        return [f"{k}={v}" for k, v in {**self.options, "end": f"{end:.1f}"}.items()]

    def keep(self, name: str, found: Any) -> None:
        """A result as JSON in the state, from where it is published."""
        from crossclass.core.files import json_text

        write(self.state / "results" / name, json_text(found, default=str).encode())

    def kept(self, name: str) -> Any:
        """A result, or None."""
        path = self.state / "results" / name
        try:
            return json.loads(path.read_text("utf-8")) if path.exists() else None
        except ValueError:
            return None

    def say(self, text: str) -> None:
        """A line of the log."""
        line = f"[{time.strftime('%H:%M:%S')} {self.left:5.0f} s left] {text}"
        print(line, flush=True)
        with (self.state / "log.txt").open("a", encoding="utf-8") as f:
            f.write(line + "\n")

    def publish(self) -> None:
        """Everything small to OUT, in at most four files, each replaced as a whole; one thread at a time."""
        with PUBLISHING:
            self._publish()

    def _publish(self) -> None:
        from crossclass.core.files import json_text

        results = {p.stem: self.kept(p.name) for p in sorted((self.state / "results").glob("*.json"))}
        write(self.out / "lease.json", json_text(results).encode())
        log = self.state / "log.txt"
        if log.exists():
            write(self.out / "log.txt", log.read_bytes()[-4_000_000:])
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as z:
            for path in [*sorted(self.state.glob("*.txt")), *sorted(self.state.glob("*.npz"))]:
                z.write(path, path.name)
            folders = [p for p in self.runs.glob("*") if p.is_dir()] if self.runs.is_dir() else []
            for folder in sorted(folders, key=lambda p: p.stat().st_mtime):  # the newest is kept beside
                for name in ("config.yaml", "env.json", "events.jsonl", "metrics.csv", "measure.json"):
                    if (folder / name).exists():
                        z.write(folder / name, f"runs/{folder.name}/{name}")
                    if name == "metrics.csv" and folder.name.startswith("at8") and (folder / name).exists():
                        write(self.out / "at-metrics.csv", (folder / name).read_bytes())
        write(self.out / "results.zip", packed.getvalue())


def write(path: Path, content: bytes) -> None:
    """A file that is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.tmp"
    temporary.write_bytes(content)
    os.replace(temporary, path)


@contextmanager
def guarded(stage: Stage, what: str, found: dict[str, Any]) -> Any:
    """A piece whose failure is written down and goes no further."""
    started = time.time()
    try:
        yield
    except Exception as e:
        text = traceback.format_exc()
        found.setdefault("errors", []).append(
            {"in": what, "error": f"{type(e).__name__}: {e}", "trace": text}
        )
        stage.say(f"FAILED: {what}: {type(e).__name__}: {e}\n{text}")
    found.setdefault("seconds", {})[what] = round(time.time() - started, 2)


def piece(
    stage: Stage, name: str, limit: float, extra: dict[str, str] | None = None, of: Path | None = None
) -> int:
    """Run a piece of a file, else of this one, in its own process; its exit code, or -1 at the limit."""
    end = min(stage.end, time.time() + limit)
    words = [w for w in stage.words(end) if w.split("=")[0] not in (extra or {})]
    words += [f"{k}={v}" for k, v in (extra or {}).items()]
    return ran(stage, [str(of or Path(__file__).resolve()), name, *words], end + 8, name)


def ran(stage: Stage, arguments: list[str], end: float, name: str) -> int:
    """Run Python with arguments until a time; output goes to the log and to our own output."""
    stage.say(f"begin {name}")
    path = stage.state / f"{name.replace(':', '-')}.txt"
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    with path.open("ab") as f:
        process = subprocess.Popen([sys.executable, *arguments], stdout=f, stderr=subprocess.STDOUT, env=env)
        code = None
        while code is None and time.time() < end:
            try:
                code = process.wait(min(15.0, max(0.1, end - time.time())))
            except subprocess.TimeoutExpired:
                stage.publish()
        if code is None:
            process.kill()
            process.wait()
            code = -1
    tail = path.read_text("utf-8", errors="replace")[-1500:]
    stage.say(f"end {name}: {'stopped at its limit' if code == -1 else f'exit code {code}'}\n{tail}")
    stage.publish()
    return code


# --- data -------------------------------------------------------------------------------------------------


def unpack(stage: Stage) -> None:
    """Decode the mosaics that are given into one array each; the last command puts them together."""
    import numpy as np
    from PIL import Image

    if not stage.options["data"]:
        return
    place, parts = Path(stage.options["data"]), stage.state / "parts"
    parts.mkdir(parents=True, exist_ok=True)

    def page_of(path: Path) -> Any:
        try:
            return np.asarray(Image.open(path).convert("RGB"))
        except OSError:  # a Pillow without WebP
            import cv2

            return cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]

    for path in place.glob("*_labels.npz"):
        shutil.copy(path, parts / path.name)

    def decode(path: Path) -> None:
        page = page_of(path)
        images = page.reshape(25, 32, 40, 32, 3).transpose(0, 2, 1, 3, 4).reshape(1000, 32, 32, 3)
        temporary = parts / f".{path.stem}.npy"
        np.save(temporary, np.ascontiguousarray(images))
        os.replace(temporary, parts / f"{path.stem}.npy")

    todo = [p for p in sorted(place.glob("*.webp")) if not (parts / f"{p.stem}.npy").exists()]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(decode, todo))
    stage.say(f"decoded {len(todo)} mosaics; {len(list(parts.glob('[a-z]*.npy')))} of 60 there")


def gathered(stage: Stage) -> Path:
    """The folder with train.npz and test.npz, made from what was decoded: whatever there is, in order."""
    import numpy as np

    place, parts = stage.state / "cifar10", stage.state / "parts"
    told: dict[str, Any] = {}
    if (place / "done").exists():
        return place
    place.mkdir(parents=True, exist_ok=True)
    every = {s: [f"{s}_{i:02d}" for i in range(count)] for s, count in PARTS.items()}
    every = {s: [n for n in names if (parts / f"{n}.npy").exists()] for s, names in every.items()}
    if not every["test"]:  # another machine than the first command's: make do with what is here
        every["train"], every["test"] = every["train"][:-2], every["train"][-2:]
        told["WARNING"] = "the test images are not here: two thousand training images are taken instead"
    for split, there in every.items():
        of = there[0].partition("_")[0]
        labels = np.load(parts / f"{of}_labels.npz")["labels"]
        images = np.concatenate([np.load(parts / f"{n}.npy") for n in there])
        y = np.concatenate([labels[int(n[-2:]) * 1000 :][:1000] for n in there])
        told[split] = {"images": len(images), "sha256": hashlib.sha256(images.tobytes()).hexdigest()}
        np.savez(place / f"{split}.npz", images=images, labels=y, class_names=np.array(CLASSES))
    known = HERE / "cifar10.sha256.json"
    if known.exists():
        expected = json.loads(known.read_text("utf-8"))
        told["as sent, bit for bit"] = all(expected[s] == told[s]["sha256"] for s in PARTS)
    stage.keep("data.json", told)
    stage.say(f"data: {told}")
    (place / "done").write_text("", encoding="utf-8")
    return place


# --- what is measured -------------------------------------------------------------------------------------


def about(stage: Stage) -> dict[str, Any]:
    """The card, its clocks, what a bf16 product and a copy reach."""
    import numpy
    import torch

    from crossclass.core.runtime import Runtime

    kind: Any = stage.device
    device = Runtime(device=kind).torch_device
    found: dict[str, Any] = {"torch": torch.__version__, "numpy": numpy.__version__, "python": sys.version}
    found |= {"date": time.strftime("%Y-%m-%dT%H:%M:%S"), "cpus": os.cpu_count(), "device": str(device)}
    side, rounds = (512, 2) if device.type == "cpu" else (8192, 20)
    a, b = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    c = a @ b
    rates = []
    for _ in range(3):
        settle(device)
        started = time.perf_counter()
        for _ in range(rounds):
            torch.mm(a, b, out=c)
        settle(device)
        rates.append(2 * side**3 * rounds / (time.perf_counter() - started) / 1e12)
    found["bf16 matrix product, TFLOP/s"] = {"size": side, "runs": rates, "best": max(rates)}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"name": properties.name, "memory": properties.total_memory, "cuda": torch.version.cuda}
        found["cudnn"] = torch.backends.cudnn.version()
        source = torch.randint(0, 9, (2**30,), dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        settle(device)
        started = time.perf_counter()
        for _ in range(20):
            target.copy_(source)
        settle(device)
        found["copy, TB/s read and written"] = 2 * 20 * 2**30 / (time.perf_counter() - started) / 1e12
        query = "name,driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu"
        try:
            said = subprocess.run(
                ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"],
                capture_output=True, encoding="utf-8", timeout=10, check=False,
            )  # fmt: skip
            found["nvidia-smi"] = {"query": query, "after the products": said.stdout.strip()}
        except (OSError, subprocess.TimeoutExpired) as e:
            found["nvidia-smi"] = str(e)
    return found


def settle(device: Any) -> None:
    """Wait for the device."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def network(stage: Stage) -> Any:
    """PreActResNet-18, or a tiny one."""
    from crossclass.models import PreActResNet

    return PreActResNet(width=16, blocks=(1, 1)) if stage.smoke else PreActResNet()


def emulated(attack: Any, net: Any) -> Any:
    """In place of a graph, where there is none: the job itself, once more."""
    import torch

    from crossclass.models.model_state import frozen

    def capture(job: Any) -> Any:
        job()
        out = job()

        def again() -> None:
            with torch.enable_grad(), frozen(net, attack.bn, attack.precision):
                new = job()
            for place, tensor in zip(out, new, strict=True):
                place.copy_(tensor)

        return again, out

    return capture


def graphs_against_eager(stage: Stage, compiled: bool = False, batch: int = 128) -> dict[str, Any]:
    """Whether a replay is what running would be: images, loss, batch norm; also after the weights moved."""
    import torch

    from crossclass import models
    from crossclass.attacks import PGD, skip_range_check
    from crossclass.attacks.cuda_graphs import CudaGraphs
    from crossclass.attacks.losses import cross_entropy
    from crossclass.attacks.norms import L2, Linf
    from crossclass.core.device import compile_for_crafting, cudnn_benchmark, full_precision, to_device
    from crossclass.core.rng import generator
    from crossclass.core.runtime import Runtime

    kind: Any = stage.device
    runtime = Runtime(device=kind, compile=compiled)
    batch = 8 if stage.smoke else batch
    found: dict[str, Any] = {}
    kinds: dict[str, PGD] = {"l_inf, train": PGD(bn="train", precision="bf16")}
    if not compiled:
        kinds["l_inf, eval"] = PGD(bn="eval", precision="bf16")
        kinds["l_2, train"] = PGD(threat=L2(), rel_step=0.125, bn="train", precision="bf16")
        kinds["l_inf, train, fp32"] = PGD(threat=Linf(), bn="train", precision="fp32")
    for name, attack in kinds.items():
        attack = attack.replace(steps=2) if stage.smoke else attack
        device, blank = runtime.torch_device, torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
        net = to_device(models.build(network(stage), blank, 10, 0), device, runtime.memory_format)
        network_, graphs = compile_for_crafting(net, device) if compiled else net, CudaGraphs()
        if runtime.torch_device.type != "cuda":
            graphs = CudaGraphs(capture=emulated(attack, net))
        x = torch.rand(batch, 3, 32, 32, generator=generator(0)).to(runtime.torch_device)
        x = x.contiguous(memory_format=runtime.memory_format)
        y = (torch.arange(batch) % 10).to(runtime.torch_device)
        rows: list[dict[str, Any]] = []

        def crafted(seed: int, replay: bool) -> tuple[Any, Any, float]:
            noise = generator(seed, device=runtime.torch_device)
            before = [b.clone() for b in net.buffers()]  # noqa: B023
            with skip_range_check():
                if replay:
                    with graphs.active():  # noqa: B023
                        x_adv = attack(network_, x, y, noise)  # noqa: B023
                else:
                    x_adv = attack(net, x, y, noise)  # noqa: B023
            named = dict(net.named_buffers())  # noqa: B023
            counts = sum(int(b) for n, b in named.items() if n.endswith("num_batches_tracked"))
            moved = torch.cat([b.flatten() for n, b in named.items() if "running_" in n])
            gain = float(cross_entropy(net(x_adv), y).mean() - cross_entropy(net(x), y).mean())  # noqa: B023
            for buffer, was in zip(net.buffers(), before, strict=True):  # noqa: B023
                buffer.copy_(was)
            return x_adv, (moved.clone(), counts), gain

        exact = full_precision() if attack.precision == "fp32" else nullcontext()
        with cudnn_benchmark(runtime.torch_device), torch.no_grad(), exact:
            net.train()
            for _ in range(2):
                crafted(0, True)  # the first runs, the second records
            for seed in (1, 2):
                (a, (moved_a, count_a), gain_a), (b, (moved_b, count_b), gain_b) = (
                    crafted(seed, True),
                    crafted(seed, False),
                )
                again = crafted(seed, False)[0]
                rows.append(
                    {
                        "share of pixels that differ": float(((a - b).abs() > 1e-6).float().mean()),
                        "eager against itself": float(((again - b).abs() > 1e-6).float().mean()),
                        "gain of the loss": gain_a,
                        "gain of the loss, eager": gain_b,
                        "batch norm moved, relative gap": float((moved_a - moved_b).norm() / moved_b.norm()),
                        "batch norm counts": [count_a, count_b],
                        "outside of the ball": float((attack.threat.norm(a - x) - attack.threat.eps).max()),
                    }
                )
                for p in net.parameters():  # in place, as the optimizer does
                    p.add_(0.2 * p.std() * torch.randn_like(p) if p.ndim > 1 else 0.0)
        fine = graphs.replays >= 3 and not graphs.failed
        for row in rows:
            gap = abs(row["gain of the loss"] - row["gain of the loss, eager"])
            row["relative gap of the gain"] = gap / max(1e-3, abs(row["gain of the loss, eager"]))
            fine = fine and row["relative gap of the gain"] < 0.1 and row["outside of the ball"] < 1e-5
            fine = fine and row["batch norm moved, relative gap"] < 0.05
            fine = fine and len(set(row["batch norm counts"])) == 1
        found[name] = {"fine": fine, "replayed": graphs.replays, "said": graphs.pop_warning(), "rows": rows}
    found["fine"] = all(v["fine"] for v in found.values())
    return found


def state_of(stage: Stage, batch: int, batches: int, variant: str, bn: str = "train") -> Any:
    """A state of the paper's run and images for some batches, on the device."""
    import torch

    from crossclass import models
    from crossclass.attacks import PGD
    from crossclass.core.runtime import Runtime
    from crossclass.data import Npz, Split, Splits
    from crossclass.training.recipes import AT
    from crossclass.training.run import Run
    from crossclass.training.state import TrainState

    kind: Any = stage.device
    runtime = Runtime(
        device=kind, graphs="off" if variant == "eager" else "auto", compile=variant == "compiled"
    )
    # blurred noise: images whose gradients are neither all alike nor all zero
    g = torch.Generator().manual_seed(0)
    small = torch.rand(batch * batches, 3, 8, 8, generator=g)
    images = (torch.nn.functional.interpolate(small, size=32, mode="bilinear") * 255).byte()
    part = Split(images, torch.arange(len(images)) % 10).to(runtime.torch_device)
    splits = Splits(part, part.first(10), part.first(10), CLASSES, "")
    attack = PGD(steps=2 if stage.smoke else 10, bn=bn, precision="bf16")
    run = Run(data=Npz(), model=network(stage), recipe=AT(attack=attack), batch=batch, precision="bf16")
    net = models.build(run.model, images[:1], 10, 0)
    return run, runtime, TrainState(run, runtime, net, splits), splits


def timed(stage: Stage, batch: int, batches: int, variant: str, bn: str = "train") -> dict[str, Any]:
    """Seconds of a step of our own epoch, and what share of the matrix rate that is."""
    import torch

    from crossclass.core.progress import silent
    from crossclass.training.epoch import train_epoch

    started = time.perf_counter()
    run, runtime, state, splits = state_of(stage, batch, batches, variant, bn)
    said: list[str] = []
    first = splits.__class__(splits.train.first(4 * batch), splits.val, splits.test, CLASSES, "")
    train_epoch(run.recipe, state, first, 1, silent, said.append)
    settle(runtime.torch_device)
    warm = time.perf_counter() - started
    times = []
    for epoch in (2, 3, 4):
        if stage.left < 8 and times:
            break
        settle(runtime.torch_device)
        started = time.perf_counter()
        train_epoch(run.recipe, state, splits, epoch, silent, said.append)
        settle(runtime.torch_device)
        times.append((time.perf_counter() - started) / batches)
    step = min(times)
    steps = run.recipe.attack.steps
    flop = (steps * GF_STEP + GF_TRAIN) * 1e9 * batch
    rate = ((stage.kept("about.json") or {}).get("bf16 matrix product, TFLOP/s") or {}).get("best")
    found = {
        "variant": variant, "batch": batch, "bn": bn, "steps": steps, "batches": batches,
        "seconds per step": times, "best": step, "warm up, seconds": warm, "said": said,
        "seconds per epoch of 49,000": step * 49000 / batch,
        "seconds per epoch of 50,000": step * 50000 / batch,
        "TFLOP/s": flop / step / 1e12,
        "share of the bf16 matrix rate": flop / step / 1e12 / rate if rate else None,
        "replayed": state.graphs.replays if state.graphs else 0,
        "graphs failed": state.graphs.failed if state.graphs else None,
    }  # fmt: skip
    if runtime.torch_device.type == "cuda":
        found["peak memory, GB"] = torch.cuda.max_memory_allocated() / 1e9
        torch.cuda.reset_peak_memory_stats()
    del state
    gc.collect()
    return found


def warm(stage: Stage) -> None:
    """Compile the network for crafting into the cache of later processes, and check that it is right."""
    found: dict[str, Any] = {"fine": {}}
    for batch in map(int, stage.options["sizes"].split(",")):
        with guarded(stage, f"compiling for {batch}", found):
            checked = graphs_against_eager(stage, compiled=True, batch=batch)
            found["fine"][str(batch)] = checked["fine"]
            found[f"graphs against eager, {batch}"] = checked
        stage.keep("warm.json", found)


def profile(stage: Stage, variant: str) -> str:
    """Where the device's time goes in three steps."""
    import torch
    from torch.profiler import ProfilerActivity, profile as profiled

    from crossclass.core.progress import silent
    from crossclass.training.epoch import train_epoch

    run, runtime, state, splits = state_of(stage, 8 if stage.smoke else 128, 3, variant)
    train_epoch(run.recipe, state, splits, 1, silent, lambda t: None)
    cuda = runtime.torch_device.type == "cuda"
    waits: list[str] = []
    if cuda:  # where the host waits for the device within an epoch
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                train_epoch(run.recipe, state, splits, 3, silent, lambda t: None)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        places = Counter(f"{Path(w.filename).name}:{w.lineno} {str(w.message)[:80]}" for w in caught)
        waits = [
            f"{count:5} waits in an epoch of 3 steps at {place}" for place, count in places.most_common(20)
        ]
    with profiled(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as p:
        train_epoch(run.recipe, state, splits, 2, silent, lambda t: None)
        settle(runtime.torch_device)
    if not cuda:
        return "no GPU"
    from torch.autograd import DeviceType

    kernels = [e for e in p.key_averages() if e.device_type == DeviceType.CUDA]
    kernels.sort(key=lambda e: -e.self_device_time_total)
    total = sum(e.self_device_time_total for e in kernels)
    lines = [f"{variant}: {total / 3000:.3f} ms of kernels a step, 3 steps"]
    lines += [
        f"{e.self_device_time_total / 3000:9.3f} ms {e.count / 3:8.1f} x {e.key[:150]}" for e in kernels[:45]
    ]
    return "\n".join([*lines, *waits])


def bench(stage: Stage, late: bool = False) -> None:
    """Seconds of an epoch by variant, the most important first; `late` adds what was compiled late."""
    found: dict[str, Any] = (stage.kept("bench.json") if late else None) or {"rows": []}
    small, large, batches = (8, 16, 4) if stage.smoke else (128, 512, 24)
    fine = (stage.kept("warm.json") or {}).get("fine") or {}
    plan: list[tuple[int, int, str, str]] = [(small, 2 * batches, "graph", "train")]
    if fine.get("128") or stage.smoke:
        plan.append((small, 2 * batches, "compiled", "train"))
    plan += [(small, batches, "eager", "train"), (large, batches, "graph", "train")]
    if fine.get("512") or stage.smoke:
        plan.append((large, batches, "compiled", "train"))
    plan += [(large, batches // 2, "eager", "train"), (small, batches, "graph", "eval")]
    there = {(r["batch"], r["variant"], r["bn"]) for r in found["rows"]}
    if late:
        plan = [p for p in plan if p[0] == small and p[2] == "compiled"]
    for batch, count, variant, bn in plan:
        if (batch, variant, bn) in there:
            continue
        if stage.left < 12:
            stage.say(f"no time for {variant} at {batch}")
            continue
        with guarded(stage, f"{variant}, batch {batch}, bn {bn}", found):
            row = timed(stage, batch, count, variant, bn)
            found["rows"].append(row)
            stage.say(
                f"{variant}, batch {batch}, bn {bn}: {1000 * row['best']:.2f} ms a step, "
                f"{row['seconds per epoch of 50,000']:.2f} s an epoch, {row['TFLOP/s']:.0f} TFLOP/s, "
                f"replayed {row['replayed']}, {row['said']}"
            )
        stage.keep("bench.json", found)
    for variant in ("graph", "compiled") if fine.get("128") else ("graph",):
        if stage.left > 15 and not late:
            with guarded(stage, f"profile of {variant}", found):
                write(stage.state / f"profile-{variant}.txt", profile(stage, variant).encode())
    stage.keep("bench.json", found)


def recipes(stage: Stage) -> None:
    """C and CAS, KD, AWP, TRADES, l_2: a few steps here and on the CPU, in fp32 from the same noise."""
    import torch

    from crossclass import models
    from crossclass.attacks import PGD
    from crossclass.attacks.norms import L2
    from crossclass.core.device import full_precision, to_device
    from crossclass.core.progress import silent
    from crossclass.core.runtime import Runtime
    from crossclass.data import Npz, Shapes
    from crossclass.models import PreActResNet
    from crossclass.training.epoch import train_epoch
    from crossclass.training.recipes import AT, AWP, KnowledgeDistillation, Teacher, Trades
    from crossclass.training.run import Run
    from crossclass.training.state import TrainState

    found: dict[str, Any] = {"rows": {}}
    kind: Any = stage.device
    splits = Shapes(n_train=64, n_val=8, n_test=8, classes=4, size=16)()
    net = PreActResNet(width=8, blocks=(1, 1), normalise="data")
    plans = {
        "at": AT(attack=PGD(steps=2, bn="train")),
        "at l_2": AT(attack=PGD(threat=L2(), steps=2, rel_step=0.125)),
        "awp": AWP(inner=AT(attack=PGD(steps=2))),
        "trades": Trades(),
        "kd": KnowledgeDistillation(inner=AT(attack=PGD(steps=2)), teachers=(Teacher(),)),
    }
    for name, recipe in plans.items():
        with guarded(stage, name, found):
            row = {}
            for place in ("cpu", kind):
                runtime = Runtime(device=place, graphs="off")
                played: Any = recipe
                if isinstance(recipe, KnowledgeDistillation):
                    built = models.build(net, splits.train.images, 4, 1)
                    teacher = to_device(built, runtime.torch_device, runtime.memory_format).eval()
                    played = recipe.replace(teachers=(Teacher(module=teacher.requires_grad_(False)),))
                run = Run(data=Npz(), model=net, recipe=AT(), batch=16, lr=0.02, augment=None)
                state = TrainState(run, runtime, models.build(net, splits.train.images, 4, 0), splits)
                with full_precision():
                    losses = [
                        train_epoch(
                            played, state, splits.to(runtime.torch_device), e, silent, lambda t: None
                        ).train_loss
                        for e in (1, 2)
                    ]
                row[str(runtime.torch_device)] = losses
            (a, b) = (list(row.values()) * 2)[:2]
            row["fine"] = max(abs(p - q) for p, q in zip(a, b, strict=True)) < 0.02
            found["rows"][name] = row
        stage.keep("recipes.json", found)
    torch.manual_seed(0)


# --- training ---------------------------------------------------------------------------------------------


def run_of(stage: Stage, kind: str, epochs: int) -> Any:
    """The paper's run with its schedule compressed, crafted and trained in bf16."""
    from crossclass.attacks import PGD
    from crossclass.data import Npz
    from crossclass.paper.runs.paper import PAPER
    from crossclass.paper.sizes import with_crafting_precision
    from crossclass.training.recipes import KnowledgeDistillation, Teacher
    from crossclass.training.run import Validation

    place = gathered(stage)
    run = PAPER["wei2025-at-linf-4" if kind == "at4" else "wei2025-at-linf-8"]
    first = max(1, epochs // 2)
    drops = (first, max(first + 1, epochs * 3 // 4)) if epochs > 2 else ()
    counts = {"n_train": 64, "n_val": 32, "n_test": 64} if stage.smoke else {"n_val": 1000}
    run = run.replace(
        data=Npz(path=place, **counts),
        model=network(stage),
        epochs=epochs,
        lr_milestones=drops,
        checkpoint_every=0,
        precision="bf16",
        validation=Validation(every=3, n=1000, batch=1000),
    )
    if stage.smoke:
        few = PGD(steps=2, bn="train")
        run = run.replace(
            batch=16,
            recipe=run.recipe.replace(attack=few),
            validation=Validation(every=1, n=32, attack=PGD(steps=2)),
        )
    run = with_crafting_precision(run, "bf16")
    if kind == "kd8":
        teacher = best_of(stage, "at8")
        run = run.replace(
            recipe=KnowledgeDistillation(inner=run.recipe, teachers=(Teacher(file=str(teacher)),))
        )
    return run


def best_of(stage: Stage, label: str) -> Path:
    """The best checkpoint of a run of this lease."""
    return max(stage.runs.glob(f"{label}-*/best.val.safetensors"), key=lambda p: p.stat().st_mtime)


def chosen(stage: Stage, without: tuple[str, ...] = ()) -> tuple[str, float]:
    """The fastest variant that is right, at batch 128 in train mode, and its seconds per epoch."""
    rows = [
        r
        for r in (stage.kept("bench.json") or {}).get("rows", [])
        if r["bn"] == "train" and r["batch"] == (8 if stage.smoke else 128)
    ]
    first = (stage.kept("first.json") or {}).get("graphs against eager") or {}
    right = first.get("l_inf, train", {}).get("fine", True)
    rows = [r for r in rows if r["variant"] == "eager" or (not r["graphs failed"] and right)]
    rows = [r for r in rows if r["variant"] not in without]
    wanted = stage.options["variant"]
    rows = [r for r in rows if r["variant"] == wanted] or ([] if wanted != "auto" else rows)
    if not rows:
        left = [v for v in ("graph", "eager") if v not in without]
        variant = wanted if wanted != "auto" and wanted not in without else (*left, "eager")[0]
        return variant, {"eager": 22.0, "graph": 9.0, "compiled": 7.0}[variant]
    best = min(rows, key=lambda r: r["best"])
    return best["variant"], best["seconds per epoch of 49,000"]


def evaluated(
    stage: Stage, kind: str, run: Any, runtime: Any, folder: Any, splits: Any, until: float
) -> None:
    """The full evaluation of best and last in float32, best minus last; then APGD-CE on the first 1,000."""
    from crossclass.analysis import evaluate
    from crossclass.analysis.compare import comparison
    from crossclass.analysis.measure import Measure, evaluate_checkpoint, measurement
    from crossclass.analysis.records import result_file
    from crossclass.analysis.result_files import write_results
    from crossclass.attacks import AutoAttack
    from crossclass.checkpoints.load import identity, load_model
    from crossclass.core.device import to_device

    found: dict[str, Any] = {"kind": kind, "cut off": last_from_state(folder)}
    name = f"final-{kind}.json"
    settings = Measure(batch=32 if stage.smoke else 1000)
    attack, passes, measured, networks = run.final_attack(), {}, {}, {}
    if stage.smoke:
        attack = attack.replace(steps=2)

    def keep(*comparisons: Any) -> None:
        results = result_file(list(measured.values()), comparisons)
        found["results"] = results.to_dict()
        write_results(folder.path / "measure.json", results)
        stage.keep(name, found)

    for which in ("best.val", "last", "best.test"):
        with guarded(stage, which, found):
            if time.time() > until - 25 and not stage.smoke:
                raise TimeoutError("no time left for it")
            path = folder.checkpoint(which)
            if not path.exists():
                continue
            built, card = load_model(path)
            network = to_device(built, runtime.torch_device, runtime.memory_format)
            epoch = card.epoch
            networks[which] = network, epoch
            if epoch not in passes:
                passes[epoch] = evaluate_checkpoint(network, splits, attack, settings, runtime)
            row = measurement(
                passes[epoch], identity(card, path, run.data, network), splits, attack, settings
            )
            measured[which] = row
            stage.say(
                f"{kind} {which} (epoch {epoch}): clean {row['clean']:.4f}, robust {row['robust']:.4f} "
                f"under {row.attack}, CAS {row['cas']:.3f}, I-CAS {row['icas']:.3f}, n {row.data.n}"
            )
            keep()
    epochs = [networks[w][1] for w in ("best.val", "last") if w in networks]
    if len(set(epochs)) == 2:
        with guarded(stage, "comparison", found):
            pair = measured["best.val"], measured["last"]
            keep(comparison(*pair, (passes[epochs[0]], passes[epochs[1]])))
    stage.keep(name, found)
    apgd = AutoAttack(threat=run.threat, attacks=("apgd-ce",), batch=16 if stage.smoke else 1000,
                      steps=3 if stage.smoke else 100)  # fmt: skip
    for which in ("best.val", "last"):
        with guarded(stage, f"APGD-CE, {which}", found):
            took = found["seconds"].get("APGD-CE, best.val", 40.0)
            if which not in networks or (time.time() > until - 1.2 * took - 5 and not stage.smoke):
                raise TimeoutError("no time left for it")
            part = splits.test.first(16 if stage.smoke else 1000)
            e = evaluate.evaluate(networks[which][0], part, apgd, 0, batch=1000)
            found.setdefault("apgd-ce", {})[which] = {
                "epoch": networks[which][1], "attack": str(apgd), "eps": run.threat.eps, "n": len(part),
                "split": "test", "seed": 0, "dtype": "float32",
                "clean": e.accuracy("clean"), "robust": e.accuracy("robust"),
            }  # fmt: skip
            stage.say(f"{kind} {which}: {found['apgd-ce'][which]}")
        stage.keep(name, found)


def last_from_state(folder: Any) -> bool:
    """Write `last` of a run that was cut off from the state that it would resume from; whether it was."""
    from crossclass.checkpoints.card import load_checkpoint, save_checkpoint

    if folder.checkpoint("last").exists() or (state := folder.load_state()) is None:
        return False
    tensors = {k.removeprefix("model/"): v for k, v in state[0].items() if k.startswith("model/")}
    card = load_checkpoint(folder.checkpoint("best.val"))[1]
    new = {"checkpoint": "last", "epoch": state[1]["epoch"], "chosen_by": None, "scores": {}}
    save_checkpoint(folder.checkpoint("last"), tensors, card.model_copy(update=new))
    return True


def training(stage: Stage, kind: str) -> None:
    """Train one run over as many epochs as fit, then evaluate it."""
    import torch

    from crossclass.core.runtime import Runtime

    started = time.time()
    failed = stage.state / f"failed-{kind}.txt"
    variant, per_epoch = chosen(stage, tuple(failed.read_text("utf-8").split()) if failed.exists() else ())
    plan = stage.kept(f"plan-{kind}.json")
    reserve = 110.0 if kind == "at8" else 22.0  # for the evaluation at the end

    def planned(per: float) -> dict[str, Any]:
        fits = int((stage.left - reserve - 20) / per)
        epochs = int(stage.options["epochs"]) or (3 if stage.smoke else max(3, min(60, fits)))
        found = {"kind": kind, "epochs": epochs, "expected seconds per epoch": per,
                 "that would have fitted": fits, "at most": 60, "seconds left": stage.left}  # fmt: skip
        stage.keep(f"plan-{kind}.json", found)
        return found

    if plan is None:
        plan = planned(1.06 * per_epoch + 0.6 + 1.5 / 3)  # states, and a check each third epoch
    plan["variant"] = variant
    write(stage.state / f"variant-{kind}.txt", variant.encode())
    stage.say(f"{kind}: {plan}")
    place: Any = stage.device
    runtime = Runtime(
        device=place, graphs="off" if variant == "eager" else "auto", compile=variant == "compiled"
    )
    while True:
        run = run_of(stage, kind, plan["epochs"])
        folder, times, slower = one_run(stage, kind, run, runtime, plan, reserve)
        if not slower:
            break
        plan = {**planned(slower), "variant": variant, "planned again": f"{slower:.2f} seconds an epoch"}
        stage.say(f"{kind}: slower than expected, so begun again: {plan}")
    plan |= {"trained": len(folder.rows()), "seconds": time.time() - started, "seconds of epochs": times}
    stage.keep(f"plan-{kind}.json", plan)
    if runtime.torch_device.type == "cuda":
        torch.cuda.empty_cache()
    evaluated(stage, kind, run, runtime, folder, run.data().to(runtime.torch_device), stage.end)


def one_run(
    stage: Stage, kind: str, run: Any, runtime: Any, plan: dict[str, Any], reserve: float
) -> tuple[Any, list[float], float | None]:
    """Train; the folder, the seconds of each epoch, and those of one if it should be planned again."""
    from crossclass.training.loop import iterate_epochs

    last, folder, times = time.time(), None, []
    stream = iterate_epochs(run, stage.runs, kind, runtime, log=stage.say)
    try:
        for folder, row in stream:
            times.append(time.time() - last)
            last = time.time()
            stage.say(
                f"{kind} epoch {row.epoch}: lr {row.lr:g}, {row.seconds:.2f} s, all {times[-1]:.2f} s, "
                f"train robust {row.train_robust:.4f}, val {row.get('val_robust')}, "
                f"test {row.get('test_clean')} {row.get('test_robust')}, CAS {row.get('cas')}"
            )
            if row.epoch == plan["epochs"]:
                break
            need = times[-1] * (plan["epochs"] - row.epoch)
            given = "planned again" in plan or int(stage.options["epochs"])
            if len(times) == 2 and row.epoch == 2 and not given and need > 1.15 * (stage.left - reserve):
                return folder, times, times[-1] + 0.3
            if stage.left < (6 if stage.smoke else 0.5 * reserve) + 1.5 * max(times[-3:]):
                stage.say(f"{kind}: cut off after epoch {row.epoch} of {plan['epochs']}: no time left")
                break
    finally:
        stream.close()
    return folder, times, None


def weights(stage: Stage) -> None:
    """Best and last in half precision, in parts that come back."""
    from safetensors.torch import save

    from crossclass.checkpoints.card import load_checkpoint

    size = 15 * 2**20
    runs = sorted(stage.runs.glob("at8-*/best.val.safetensors"), key=lambda p: p.stat().st_mtime)
    for best in runs[-1:]:
        for which in ("best.val", "last"):
            path = best.with_name(f"{which}.safetensors")
            if not path.exists():
                continue
            tensors, card = load_checkpoint(path)
            half = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in tensors.items()}
            content = save(half, {"card": json.dumps(card.to_dict()), "dtype": "float16 of float32"})
            for i in range(0, len(content), size):
                name = f"at8-{which.replace('.', '-')}-fp16.safetensors.{i // size}"
                write(stage.out / name, content[i : i + size])


# --- commands ---------------------------------------------------------------------------------------------


def first(stage: Stage) -> None:
    """The card, and whether graphs are right on it; compiling goes on after this command."""
    found: dict[str, Any] = {}
    with guarded(stage, "data", found):
        unpack(stage)
    with guarded(stage, "card", found):
        card = about(stage)
        stage.keep("about.json", card)
        stage.say(json.dumps(card))
    piece_found: dict[str, Any] = {}
    with guarded(stage, "graphs against eager", piece_found):
        piece(stage, "piece:graphs", max(5.0, stage.left - 12))
    found |= stage.kept("first.json") or {}
    found.setdefault("seconds", {}).update(piece_found.get("seconds", {}))
    stage.keep("first.json", found)
    with guarded(stage, "compiling begun", found):
        words = stage.words(time.time() + 240)
        with (stage.state / "warm.txt").open("ab") as f:
            subprocess.Popen(
                [sys.executable, str(Path(__file__).resolve()), "piece:warm", *words],
                stdout=f, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
    stage.publish()


def check(stage: Stage) -> None:
    """Device against CPU, then seconds per epoch."""
    found: dict[str, Any] = {}
    with guarded(stage, "data", found):
        unpack(stage)
    with guarded(stage, "device check", found):
        out = stage.state / "results" / "device.json"
        limit = time.time() + min(60.0, 0.45 * stage.left)
        ran(stage, [str(HERE / "device_check.py"), stage.device, str(out)], limit, "device_check")
    with guarded(stage, "recipes", found):
        piece(stage, "piece:recipes", min(25.0, 0.25 * stage.left))
    with guarded(stage, "waiting for the compiler", found):
        while (
            stage.left > 70 and "128" not in ((stage.kept("warm.json") or {}).get("seconds") or {}).__str__()
        ):
            time.sleep(1)
    stage.say(f"compiled: {(stage.kept('warm.json') or {}).get('fine')}")
    with guarded(stage, "bench", found):
        piece(stage, "piece:bench", stage.left - 10)
    stage.keep("check.json", found)
    stage.publish()


def main(stage: Stage) -> None:
    """The paper's run in short; then what fits."""
    found: dict[str, Any] = {}
    with guarded(stage, "data", found):
        unpack(stage)
        gathered(stage)
    if stage.kept("bench.json") is None and stage.left > 300:
        with guarded(stage, "bench", found):
            piece(stage, "piece:bench", 80)
    compiled = ((stage.kept("warm.json") or {}).get("fine") or {}).get("128")
    timed_ones = [r["variant"] for r in (stage.kept("bench.json") or {}).get("rows", [])]
    if compiled and "compiled" not in timed_ones and stage.left > 300:
        with guarded(stage, "bench of what was compiled late", found):
            piece(stage, "piece:late", 50)
    stage.publish()
    for kind, least in (("at8", 20.0), ("kd8", 90.0), ("at4", 90.0)):
        if stage.left < least:
            found.setdefault("skipped", {})[kind] = f"{stage.left:.0f} s left, {least:.0f} wanted"
            stage.say(f"{kind} is skipped: {found['skipped'][kind]}")
            continue
        with guarded(stage, kind, found):
            for _ in range(3):
                code = piece(stage, f"piece:{kind}", stage.left - 12)
                if code in (0, -1) or stage.left < least:
                    break
                # what failed is left out; epochs that are there stay, and without any it is planned again
                at = stage.state / f"variant-{kind}.txt"
                variant = at.read_text("utf-8") if at.exists() else "compiled graph"
                found.setdefault("again", []).append(f"{kind}: exit code {code} as {variant}")
                with (stage.state / f"failed-{kind}.txt").open("a", encoding="utf-8") as f:
                    f.write(f"{variant} ")
                if not any(p.stat().st_size for p in stage.runs.glob(f"{kind}-*/events.jsonl")):
                    (stage.state / "results" / f"plan-{kind}.json").unlink(missing_ok=True)
        stage.keep("main.json", found)
    with guarded(stage, "weights", found):
        weights(stage)
    stage.keep("main.json", found)
    stage.publish()


def graphs(stage: Stage) -> None:
    """The piece of `first`."""
    found: dict[str, Any] = {}
    with guarded(stage, "graphs", found):
        found["graphs against eager"] = graphs_against_eager(stage)
        stage.say(json.dumps(found["graphs against eager"]))
    stage.keep("first.json", found)


STAGES: dict[str, Any] = {
    "first": first,
    "check": check,
    "main": main,
    "piece:graphs": graphs,
    "piece:warm": warm,
    "piece:bench": bench,
    "piece:late": lambda stage: bench(stage, late=True),
    "piece:recipes": recipes,
    "piece:at8": lambda stage: training(stage, "at8"),
    "piece:kd8": lambda stage: training(stage, "kd8"),
    "piece:at4": lambda stage: training(stage, "at4"),
}


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in STAGES:
        raise SystemExit(__doc__)
    STAGES[sys.argv[1]](Stage(sys.argv[2:]))

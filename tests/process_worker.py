"""What one of several processes does in tests/test_processes.py: train runs, and watch the wires meanwhile.

    python process_worker.py OUT RUNS.json     RUNS: {"name": {"run": settings, "runtime": settings}}

Raises AssertionError if anything is sent while an attack is at work.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from crossclass.attacks import PGD
from crossclass.core.config import validated
from crossclass.core.errors import UserError
from crossclass.core.runtime import Runtime
from crossclass.training import recipes
from crossclass.training.loop import train
from crossclass.training.run import Run

crafting = False
sent = 0


def watched(name: str) -> None:
    """Refuse a collective inside of an attack."""
    send = getattr(dist, name)

    def checked(*args: Any, **kwargs: Any) -> Any:
        global sent
        assert not crafting, f"{name} inside of an attack"
        sent += 1
        return send(*args, **kwargs)

    setattr(dist, name, checked)


def marked(recipe: type) -> None:
    """Note when a recipe crafts; the second process may take a step more, and the first may be killed."""
    craft = recipe.craft

    def noted(self: Any, model: Any, x: Any, y: Any, generator: Any = None) -> Any:
        global crafting, crafted
        crafting = True
        crafted += 1
        if crafted == kill_at and dist.get_rank() == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            if uneven and dist.get_rank() == 1:
                PGD(steps=3)(model, x, y)
            return craft(self, model, x, y, generator)
        finally:
            crafting = False

    recipe.craft = noted


uneven, crafted, kill_at = False, 0, None
for collective in (
    "all_reduce",
    "broadcast",
    "all_gather",
    "all_gather_object",
    "broadcast_object_list",
    "barrier",
):
    watched(collective)
for member in (recipes.AT, recipes.Trades, recipes.MART, recipes.GradAlign, recipes.KnowledgeDistillation):
    marked(member)

if __name__ == "__main__":
    torch.set_num_threads(1)
    out, wanted = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    for label, said in wanted.items():
        uneven, kill_at = said.get("uneven", False), said.get("kill_at")
        runtime = validated(Runtime, {"device": "cpu", **said.get("runtime", {})})
        try:
            train(validated(Run, said["run"]), out, label, runtime)
        except UserError as e:
            (out / f"{label}.error{runtime.group.rank}").write_text(f"{e.in_every_process} {e}")
    assert sent > 0, "nothing was sent at all"
    dist.destroy_process_group()

"""The folder of a run, which holds all that a run writes: settings, one row per epoch, checkpoints.

    <out>/<label>-<digest>/  config.yaml   the whole run, defaults included (never a path)
                             env.json      versions, device, where the data lay
                             events.jsonl  one row per epoch; metrics.csv the same numbers for pasting
                             best.val, best.test, last, last_good, epoch_NNN (.safetensors, with a card each)
                             measure.json  the full evaluation of the checkpoints that matter
                             measure-pictures.npz  a few of its images, for the page;  report.html  the page
                             measure-features.npz  features of them, for the page
                             measure-features.npz  images on which shared features are strong, for the page
                             resume/       the last two states of training;  DONE  when finished
                             states/epoch_NNN/  states that were kept for forks, with the best so far
                             failure.json  why it stopped, if a loss was no number; the batch in failure/
                             commands      digests of the command lines that ended with it (`cli.finished`)
                             .lock         held by the process that trains it

The folder is found by the digest; the label is for people.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from crossclass.checkpoints.card import load_tensors, save_tensors
from crossclass.core.config import Settings, contradictions
from crossclass.core.errors import UserError, did_you_mean
from crossclass.core.files import append_line, complete_lines, json_text, write_atomic, write_error

Row = dict[str, Any]

_EXECUTION = (
    *("torch", "device", "processor", "threads", "layout", "processes", "micro_batch", "sync_batch_norm"),
    *("graphs", "compile", "bf16"),
)
"""The keys of env.json that may change the last bits of a run that goes on elsewhere."""


def split_target(text: str) -> tuple[Path, str]:
    """The folder or file of `RUN@best.test`, and the checkpoint behind the `@`, empty if there is none.

    A path may hold an `@` itself, so what exists as a whole is not split.
    """
    whole = Path(os.path.expanduser(text))  # pathlib's own raises for ~name where there is no such home
    folder, at, which = text.rpartition("@")
    return (whole, "") if whole.exists() or not at else (Path(os.path.expanduser(folder)), which)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    @classmethod
    def of(cls, out: Path, label: str, run: Settings) -> "RunFolder":
        """The folder of a run under `out`, which `begin` makes if it is new.

        Raises UserError if it is another run's.
        """
        if (out / "config.yaml").exists():
            raise UserError(f"{out} is the folder of a run; out=DIR is the folder that holds the runs")
        digest = run.digest()
        found = sorted(out.glob(f"*-{digest}")) if out.is_dir() else []
        return cls(found[0] if found else out / f"{label}-{digest}").of_same(run)

    @classmethod
    def at(cls, path: Path) -> "RunFolder":
        """An existing run folder; raises UserError if it is none."""
        if not path.is_dir():
            near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise UserError(f"there is no run folder {path}{did_you_mean(path.name, near)}")
        if not (path / "config.yaml").exists():
            raise UserError(f"{path} is not a run folder: it has no config.yaml")
        return cls(path)

    @property
    def done(self) -> bool:
        """Whether training and the full evaluation are finished."""
        return (self.path / "DONE").exists()

    def begin(self, run: Settings, env: Mapping[str, Any]) -> list[str]:
        """Write config.yaml and env.json before training; returns notes on what differs from the last time.

        What differed is kept in `earlier` of env.json, since it may change the last bits of the numbers. The
        caller holds the lock: half-written files that a killed process left are deleted, and another process
        must not be writing them.
        """
        for path in self.path.rglob(".*.tmp"):
            _delete(path)
        self.of_same(run)
        if not (self.path / "config.yaml").exists():
            write_atomic(self.path / "config.yaml", run.yaml())
        before, notes = self.read("env.json") or {}, []
        earlier = before.get("earlier") or []
        changed = {k: before[k] for k in _EXECUTION if k in before and before[k] != env.get(k)}
        if changed:
            earlier = [*earlier, {**changed, "epochs": len(self.rows())}]
            listed = ", ".join(f"{k} {v} before, {env.get(k)} now" for k, v in changed.items())
            notes = [f"this run was begun otherwise, and its last bits may depend on it: {listed}"]
        self.write("env.json", {**env, "earlier": earlier})
        return notes

    def end(self) -> None:
        """Mark the run as finished (measure.json is written), and delete what it would resume from."""
        write_atomic(self.path / "DONE", "")
        for path in [*self._states(), self.path / "failure.json"]:
            _delete(path)

    def config(self) -> str:
        """The text of config.yaml."""
        path = self.path / "config.yaml"
        try:
            return path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise UserError(f"{path} cannot be read as text; restore it, or choose another run") from e

    def rows(self, upto: int | None = None) -> list[Row]:
        """The logged epochs, in order; a line that was cut off by a kill is left out."""
        rows: list[Row] = []
        for number, line in enumerate(complete_lines(self.path / "events.jsonl"), 1):
            try:
                row = json.loads(line)
                if not isinstance(row, dict) or type(row.get("epoch")) is not int:
                    raise ValueError("no epoch")
            except (ValueError, RecursionError) as e:
                raise UserError(f"{self.path / 'events.jsonl'}, line {number} is damaged; mend it") from e
            if upto is None or row["epoch"] <= upto:
                rows.append(row)
        return rows

    def rewind(self, epoch: int) -> list[Row]:
        """Forget rows after `epoch`, which a resumed run will write again."""
        rows = self.rows(epoch)
        text = "".join(json_text(row, None) + "\n" for row in rows)
        if text or (self.path / "events.jsonl").exists():
            write_atomic(self.path / "events.jsonl", text)
        return rows

    def log(self, row: Row, table: str) -> None:
        """Append one epoch to events.jsonl; `table` is the text of metrics.csv so far."""
        append_line(self.path / "events.jsonl", json_text(row, None))
        write_atomic(self.path / "metrics.csv", table)

    def write(self, name: str, content: Any) -> None:
        """One JSON file of the folder."""
        write_atomic(self.path / name, json_text(content) + "\n")

    def read(self, name: str) -> Any:
        """One JSON file of the folder, or None."""
        path = self.path / name
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text("utf-8"))
            if not isinstance(content, dict):
                raise ValueError("no object")
            return content
        except (OSError, ValueError, RecursionError) as e:
            raise UserError(f"{path} is damaged; delete it to have it made again") from e

    def checkpoint(self, name: str) -> Path:
        """Where `best.val`, `best.test`, `last` or `epoch_010` lies."""
        return self.path / f"{name}.safetensors"

    def checkpoints(self) -> list[str]:
        """The names of the checkpoints that exist."""
        return sorted(p.name.removesuffix(".safetensors") for p in self.path.glob("*.safetensors"))

    def save_state(self, epoch: int, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
        """Keep the state after an epoch; the one before stays as a spare until the next."""
        folder = self.path / "resume"
        save_tensors(folder / f"epoch_{epoch:05d}.safetensors", tensors, {**card, "epoch": epoch})
        for old in self._states()[2:]:
            _delete(old)

    def keep_state(self, epoch: int, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
        """Keep the state after an epoch for forks, with the best checkpoints so far; the state is last."""
        folder = self.kept_state(epoch)
        for name in ("best.val", "best.test"):
            if (path := self.checkpoint(name)).exists():
                write_atomic(folder / path.name, path.read_bytes())
        save_tensors(folder / "state.safetensors", tensors, {**card, "epoch": epoch})

    def kept_state(self, epoch: int) -> Path:
        """Where the state after an epoch lies, if it was kept: state, best.val, best.test."""
        return self.path / "states" / f"epoch_{epoch:03d}"

    def kept_states(self) -> list[int]:
        """The epochs whose states were kept, rising."""
        found = self.path.glob("states/epoch_*/state.safetensors")
        return sorted(int(p.parent.name.removeprefix("epoch_")) for p in found)

    def forget_state(self, epoch: int) -> None:
        """Delete a state that was kept."""
        for path in self.kept_state(epoch).glob("*"):
            _delete(path)
        with suppress(OSError):
            self.kept_state(epoch).rmdir()

    def load_state(self) -> tuple[dict[str, Tensor], dict[str, Any], list[str]] | None:
        """The newest readable state with notes on those that were not, or None before the first epoch.

        Raises UserError if there are states and none can be read.
        """
        notes: list[str] = []
        for path in self._states():
            try:
                tensors, card = load_tensors(path)
            except UserError as e:
                notes.append(f"{e}; going back to the state before it")
                continue
            return tensors, card, notes
        if notes:
            raise UserError(
                f"no state in {self.path / 'resume'} can be read; delete that folder to train from the start"
            )
        return None

    def of_same(self, run: Settings) -> "RunFolder":
        """This folder; raises UserError if it is not `run`'s, or does not say whose it is."""
        config = self.path / "config.yaml"
        if not config.exists():
            if self.checkpoints():
                raise UserError(f"{self.path} holds checkpoints but no config.yaml; choose another out=DIR")
        elif others := contradictions(self.config(), run, str(config)):
            raise UserError(
                f"{config} is not the run that would be trained: {others[0]} differs (another run, or "
                "another version's defaults); choose another folder with out=DIR"
            )
        return self

    def _states(self) -> list[Path]:
        return sorted((self.path / "resume").glob("epoch_*.safetensors"), reverse=True)


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as e:
        raise write_error(path, e) from e

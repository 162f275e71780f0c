"""Where a command writes what it finds out about checkpoints: the file, its mark, pictures beside it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crossclass.checkpoints.card import file_sha256
from crossclass.cli.arguments import Arguments, made_by
from crossclass.core.destinations import follow, is_stdout, takes_bytes
from crossclass.core.errors import UserError
from crossclass.core.files import require_ending, require_writable
from crossclass.core.made_by import own_name, replaced, reserved


@dataclass(frozen=True)
class Destination:
    """A JSON file that a command will write."""

    path: Path
    mark: str
    """What the file says about the command line that makes it."""
    given: bool
    """Whether the person named it; else another name is taken where it is in use."""

    @property
    def is_file(self) -> bool:
        """Whether there can be pictures beside it: it is no pipe and no device."""
        return not takes_bytes(follow(self.path))

    @property
    def is_stdout(self) -> bool:
        """Whether the result goes to stdout, so that all else goes to stderr."""
        return is_stdout(self.path)

    @contextmanager
    def written(self, say: Callable[[str], object]) -> Iterator[Path]:
        """Hold the folder while the file is written; `say` is told where something else was kept."""
        held = replaced(self.path, self.mark, say) if self.given else reserved(self.path, self.mark)
        with held as path:
            yield path

    @contextmanager
    def beside(self, end: str) -> Iterator[Path]:
        """Hold the folder while a picture is written whose name ends so, such as `-sheet.png`."""
        file = follow(self.path)
        with reserved(file.with_name(f"{file.stem}{end}"), self.mark) as path:
            yield path


def destination(command: str, read: Arguments, usual: str) -> Destination:
    """Where a command writes its result, before it computes anything.

    Args:
        command: Its name.
        read: What was typed behind it; `read.own.out` is the file, if one is named.
        usual: The name of the file if none is.

    Raises:
        UserError: No checkpoint is named, or the file cannot be written.
    """
    if not read.targets:
        raise UserError(f"{command} needs a run folder or a checkpoint, such as runs/cifar10-mini-...")
    out = read.own.out or Path(usual)
    require_ending(out, ".json")
    require_writable(out)
    files = [file_sha256(Path(target)) for target in read.targets if Path(target).is_file()]
    mark = made_by(out, command, read.targets, read.assignments, files)
    given = bool(read.own.out)
    return Destination(out if given else own_name(out, mark), mark, given)

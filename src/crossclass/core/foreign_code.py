"""Other people's code in this process: its `sys.exit` is a sentence, and what it changes is put back.

Modules that were written as scripts read the command line, end the process, change the folder, or set torch's
default type when they are imported.
"""

import io
import os
import signal
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from typing import Any

import torch

from crossclass.core.errors import UserError, first_line
from crossclass.core.hard_exit import HardExit, caught_hard_exits

_FLAGS = (
    (torch.backends.cudnn, "enabled"),
    (torch.backends.cudnn, "benchmark"),
    (torch.backends.cudnn, "deterministic"),
    (torch.backends.cudnn, "allow_tf32"),
    (torch.backends.cuda.matmul, "allow_tf32"),
    (sys, "argv"),
    (sys, "stdout"),
    (sys, "stderr"),
)


def _default_device() -> torch.device | None:
    """The device of new tensors that somebody has set; the CPU is what nobody has to set."""
    device = torch.get_default_device()
    return None if device.type == "cpu" else device


def _umask() -> int:
    """The modes that new files do not get; to ask for it is to set it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _restore_import_path(before: tuple[Any, ...]) -> None:
    """Put back the folders of imports that were taken away; later imports need those that were added."""
    folders, *there = before
    now = list(sys.path) if isinstance(sys.path, list) else []
    folders[:] = [*now, *(p for p in there if p not in now)]
    sys.path = folders


# how each switch is read and set
_SWITCHES: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    *((partial(getattr, owner, name), partial(setattr, owner, name)) for owner, name in _FLAGS),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    (torch.is_grad_enabled, torch._C._set_grad_enabled),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (_default_device, torch.set_default_device),
    (_umask, os.umask),
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (sys.gettrace, sys.settrace),  # AutoAttack traces one forward and ends whoever was tracing
    (os.getcwd, os.chdir),
    (lambda: (sys.path, *(sys.path or ())), _restore_import_path),
)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def restored_switches() -> Iterator[None]:
    """Folder, arguments, streams and signals of the process and torch's switches are put back afterwards."""
    switches = []
    for get, put in _SWITCHES:
        with suppress(OSError):  # the current folder may have been deleted
            switches.append((get, put, get()))
    handlers = [(s, signal.getsignal(s)) for s in _SIGNALS]
    try:
        yield
    finally:
        for get, put, before in switches:
            now = None
            with suppress(OSError):  # the folder that is the current one now may have been deleted
                now = get()
            with suppress(OSError):
                if now is not before and now != before:
                    put(before)
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers:
                if handler is not None and signal.getsignal(number) is not handler:
                    signal.signal(number, handler)


@contextmanager
def foreign_code(name: str, doing: str, *, imported: bool = False) -> Iterator[None]:
    """Run code of others inside; what it changes in the process is put back.

    What it prints goes to stderr. A module that is `imported` sees no arguments of our command line, and what
    it prints is shown when it is there: argparse would print its usage, which is not ours.

    Args:
        name: The code, such as `my_nets:resnet4b`.
        doing: What is done with it, for errors, such as `importing`.
        imported: Whether a module is imported.

    Raises:
        UserError: The code ends the process, or raises what is no Exception.
    """
    held = io.StringIO()
    out = sys.stderr
    try:
        with restored_switches(), caught_hard_exits(), ExitStack() as stack:
            stack.enter_context(redirect_stdout(held if imported else out))
            if imported:
                stack.enter_context(redirect_stderr(held))
                sys.argv = [name]
            yield
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as e:
        if isinstance(e, SystemExit):
            held.truncate(0)
        raise UserError(f"{doing} {name} failed: {exit_sentence(e)}") from e
    finally:
        if text := held.getvalue():
            out.write(text)


def exit_sentence(error: BaseException) -> str:
    """Which code ended the process, or raised what is no Exception, where, and what to do."""
    ours = (sysconfig.get_path("stdlib"), os.path.dirname(os.path.dirname(__file__)), "<frozen")
    frames = traceback.extract_tb(error.__traceback__)
    foreign = [f for f in frames if not f.filename.startswith(ours) or "site-packages" in f.filename]
    foreign = [f for f in foreign if f"{os.sep}jaxtyping{os.sep}" not in f.filename]  # wraps what it checks
    at = f" in {foreign[-1].filename}, line {foreign[-1].lineno}," if foreign else ""
    if not isinstance(error, SystemExit):
        why = f": {first_line(error)}" if str(error) else ""
        return f"code{at} raised {type(error).__name__}{why}; let it raise an Exception, or correct it"
    reads = any(os.path.basename(f.filename) == "argparse.py" for f in frames)
    call = error.call if isinstance(error, HardExit) else f"sys.exit({error.code!r})"
    what = "reads a command line that is not its own" if reads else f"ends the process ({call})"
    return f"code{at} {what}; remove that, or put it under if __name__ == '__main__'"

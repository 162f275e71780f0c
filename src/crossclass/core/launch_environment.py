"""The environment of this process: what a launcher such as `torchrun` says in it, and how threads wait.

A launcher says how many processes there are, and which is this.

Such variables stay behind in shells and in jobs of schedulers. An empty one counts as unset; one that cannot
be followed is refused in a sentence: torch would wait half an hour for processes that nobody started.
"""

import os

from crossclass.core.errors import UserError

_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_COMPLETE = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What every launcher that we know sets."""
_NUMBERS = (
    *_SIZES,
    "RANK",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_PORT",
    "PMI_RANK",
    "OMPI_COMM_WORLD_RANK",
)


SPIN_COUNT = "1000"
"""How often a thread of libgomp looks for the others before it sleeps; by itself 300,000 times.

Measured on 2 cores, seconds of a third of an epoch of shapes-demo with 2 threads: on idle cores 0.44 (by
itself 0.41, with OMP_WAIT_POLICY=passive 0.49), beside one busy process 1.0 (by itself 21), beside two 1.7
(passive 2.7); with one thread it takes 0.70, 0.77 and 1.15.
"""


def limit_spinning() -> None:
    """Let waiting threads sleep soon, so that a machine that others keep busy is not slower by far.

    Only before torch is imported; what the user has set stays.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT


def process_count() -> int:
    """How many processes a launcher started together; raises UserError if it is no number."""
    return _number("WORLD_SIZE", 1)


def is_main_process() -> bool:
    """Whether this process speaks and writes: always but in another than the first of several."""
    return process_count() == 1 or _number("RANK", 0) == 0


def check_launcher() -> None:
    """Raises UserError if variables of a launcher are no numbers, or announce processes that none started.

    Empty variables are removed from the environment, where torch and Accelerate would read them.
    """
    for name in (*_NUMBERS, "MASTER_ADDR"):
        if not os.environ.get(name, "-").strip():
            del os.environ[name]
    for name in _NUMBERS:
        _number(name, 1)
    for name in _SIZES:
        missing = [n for n in _COMPLETE if n not in os.environ]
        if _number(name, 1) > 1 and missing:
            raise UserError(
                f"the environment says {name}={os.environ[name]}, that several processes run together, but "
                f"{missing[0]} is not set; unset {name}, or start with torchrun"
            )


def launcher_variables() -> list[str]:
    """The names of such variables that are set, Accelerate's own among them."""
    return [n for n in os.environ if n in (*_NUMBERS, "MASTER_ADDR") or n.startswith("ACCELERATE_")]


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not text.isdecimal() or len(text) > 9:
        if name == "LOCAL_RANK" and text == "-1":  # what some launchers say for a single process
            return -1
        raise UserError(
            f"the environment says {name}={text[:30]}, which is no number; unset it, or start with torchrun"
        )
    return int(text)

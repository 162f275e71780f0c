"""Result files: records written as JSON with large matrices beside it, and read back.

Nothing here imports torch.
"""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from crossclass.analysis.metrics import METRICS
from crossclass.analysis.records import SCHEMA, MatrixFile, ResultFile, first_error
from crossclass.core.destinations import follow, takes_bytes
from crossclass.core.errors import UserError
from crossclass.core.files import json_text, write_atomic

INLINE = 100
"""Matrices of more classes than these are written to an npz file beside the JSON file."""


def write_results(path: Path, results: ResultFile) -> None:
    """Write a result file in one step; matrices of more than `INLINE` classes go to a file beside it.

    That is `<name>-matrices.npz`: `test.npz` beside `test.json` may hold somebody's images. Behind a symbolic
    link it lies beside the link's target. Beside a pipe or a device there is none, and all is in the JSON.
    """
    end = follow(path)
    inline = takes_bytes(end)
    large: dict[str, Any] = {}
    content = results.to_dict()
    for group in ("results", "comparisons"):
        for n, one in enumerate(content[group]):
            if not inline and any(len(m) > INLINE for m in one["matrices"].values() if isinstance(m, list)):
                keys = {f"{group}/{n}/{name}": m for name, m in one["matrices"].items()}
                large |= keys
                one["matrices"] = {"keys": list(keys)}
    if large:
        import numpy as np

        stream = io.BytesIO()
        np.savez_compressed(stream, **{k: np.array(m, dtype=np.float64) for k, m in large.items()})  # type: ignore[arg-type]
        beside = end.with_name(f"{end.stem}-matrices.npz")
        of = {"file": beside.name, "sha256": hashlib.sha256(stream.getvalue()).hexdigest()}
        for one in [*content["results"], *content["comparisons"]]:
            if "keys" in one["matrices"]:
                one["matrices"] |= of
        write_atomic(beside, stream.getvalue())
    write_atomic(path, json_text(content) + "\n")


def load_results(path: Path | str, *, matrices: bool = True) -> ResultFile:
    """Read a result file, with its large matrices. Raises UserError if it is not one, or is newer.

    Without `matrices` these are left out, which is much faster for many files.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; write it with 'crossclass measure ... out={path.name}'")
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("schema"), int):
        raise UserError(
            f"{path}: not what 'crossclass measure' writes (it has no 'schema'); restore or delete it"
        )
    if data["schema"] > SCHEMA:
        raise UserError(
            f"{path}: its format {data['schema']} is newer than this crossclass can read ({SCHEMA}); "
            "upgrade crossclass"
        )
    if not matrices:
        for group in ("results", "comparisons"):
            for one in data.get(group) or ():
                if isinstance(one, dict):
                    one.pop("matrices", None)
    try:
        file = ResultFile.model_validate(data)
    except ValidationError as e:
        raise UserError(f"{path}: {first_error(e)}; restore or delete the file") from e
    return file.model_copy(
        update={
            "results": [_with_matrices(r, path) for r in file.results],
            "comparisons": [_with_matrices(c, path) for c in file.comparisons],
        }
    )


def read_json(path: Path) -> Any:
    """What a JSON file holds, with None for numbers that are not finite. Raises UserError."""
    try:
        return json.loads(path.read_text("utf-8"), parse_constant=lambda _: None)
    except (OSError, ValueError, RecursionError) as e:
        raise UserError(f"{path}: not valid JSON ({e}); restore or delete the file") from e


def _with_matrices(record: Any, path: Path) -> Any:
    at = record.matrices
    if not isinstance(at, MatrixFile):
        return record
    import numpy as np

    try:
        beside = follow(path).with_name(f"{follow(path).stem}-matrices.npz")  # where the file was renamed
        named = follow(path).with_name(Path(at.file).name)
        content = (beside if beside.is_file() else named).read_bytes()
        if at.sha256 is not None and hashlib.sha256(content).hexdigest() != at.sha256:
            raise ValueError("of another measurement")
        with np.load(io.BytesIO(content)) as archive:
            read = {key.rpartition("/")[2]: archive[key].tolist() for key in at.keys}
    except (OSError, KeyError, ValueError) as e:
        raise UserError(
            f"{path.with_name(at.file)}, which should hold matrices of {path.name}, cannot be read or is of "
            "another measurement; measure again"
        ) from e
    return record.model_copy(update={"matrices": read})


def schema() -> dict[str, Any]:
    """The JSON Schema of the result file, with the metrics of this process by name."""
    out: dict[str, Any] = ResultFile.model_json_schema(by_alias=True)
    number = {"anyOf": [{"type": "number"}, {"type": "null"}]}
    for m in METRICS:
        about = {"title": m.label, "description": m.doc}
        out["$defs"]["Measurement"]["properties"][m.key] = {**number, **about}
        out["$defs"]["Comparison"]["properties"][f"d_{m.key}"] = {**number, **about}
    out["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return out

"""How is a published pickle read without running it? In a process of its own, by records that do nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workers.benchmarks.columns import Columns
from workers.errors import BenchmarkError

if TYPE_CHECKING:
    from workers.benchmarks.unpickling import Plain

#: Bytes and CPU seconds that reading may take: a floor, and for each byte of the file.
BYTES, BYTES_EACH = 1 << 30, 60
SECONDS = 900
#: Bytes in no case exceeded.
MOST = 16 << 30

#: Isolated (`-I`): neither the folder that one stands in, which may be a downloaded one, nor PYTHONPATH is searched.
_ROOT = str(Path(__file__).parents[2])
_RUN = f"import sys; sys.path.insert(0, {_ROOT!r}); from workers.benchmarks.unpickling import main; main()"


def read_pickle(path: Path) -> Plain:
    """Numbers and texts of a pickle of data frames, dicts and numpy arrays, by the path of names to each.

    Raises:
        BenchmarkError: It holds anything else, is damaged, or takes too much memory or time.
    """
    most = min(BYTES + BYTES_EACH * path.stat().st_size, MOST)
    with tempfile.TemporaryDirectory(prefix="roadtest-") as folder:
        arguments = [sys.executable, "-I", "-c", _RUN, str(path.resolve()), folder, str(SECONDS), str(most)]
        ended = subprocess.run(arguments, capture_output=True, text=True, errors="replace", check=False, env={})
        if ended.returncode:
            said = ended.stderr.strip().splitlines()
            reason = said[-1] if ended.returncode == 1 and said else "reading it took too much memory or time"
            raise BenchmarkError(
                f"{path}: not read, {reason}. Pickles are never run: data frames of pandas 1 and 2, dicts and numpy "
                "arrays are read. If you trust the file, write it as Parquet: pandas.read_pickle(…).to_parquet(…)."
            )
        told = json.loads((Path(folder) / "texts.json").read_text(encoding="utf-8"))
        with np.load(Path(folder) / "numbers.npz", allow_pickle=False) as numbers:
            found = {tuple(json.loads(name)): numbers[f"a{i}"] for i, name in enumerate(told["numbers"])}
    found |= {tuple(name): texts for name, texts in told["texts"]}
    return {tuple(name): found[tuple(name)] for name in told["order"]}


def read_frame(path: Path) -> Columns:
    """The columns of a pickled data frame.

    Raises:
        BenchmarkError: As `read_pickle`, or it is no data frame.
    """
    import pyarrow as pa

    plain = read_pickle(path)
    if any(len(name) != 1 for name in plain) or len({len(values) for values in plain.values()}) != 1:
        raise BenchmarkError(f"{path}: a pickle, but not of one data frame.")
    columns = {name: pa.array(values, from_pandas=True) for (name,), values in plain.items()}
    return Columns(path=path, names=tuple(columns), table=pa.table(columns))

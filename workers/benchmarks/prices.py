"""What does a call cost? A dated table of list prices, which a user's own file overrides."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from workers.benchmarks.columns import FORMATS, read_columns
from workers.errors import BenchmarkError

#: Ours: list prices with date and source of each.
_TABLE = Path(__file__).with_name("prices.csv")
#: Bytes of UTF-8 that count as one token where a log has no counts.
BYTES_PER_TOKEN = 4


@dataclass(frozen=True, kw_only=True)
class Price:
    """List price of a model."""

    #: USD per 1M input tokens.
    input: float
    #: USD per 1M output tokens.
    output: float
    #: USD per image, besides the tokens that it counts as.
    image: float = 0.0

    def cost(self, input_tokens: float, output_tokens: float, n_images: int = 0) -> float:
        """USD of one call."""
        return (self.input * input_tokens + self.output * output_tokens) / 1e6 + self.image * n_images


@dataclass(frozen=True, kw_only=True, eq=False)
class Prices:
    """Prices by model name."""

    #: What reports say of it: its file and, where the file has them, its dates.
    source: str
    table: dict[str, Price]

    @classmethod
    @cache
    def default(cls) -> Prices:
        """The table that travels with this project."""
        return cls.read(_TABLE)

    @classmethod
    def read(cls, path: Path) -> Prices:
        """Read a table with columns model, input, output (USD per 1M tokens) and optionally image (USD each), as_of.

        Args:
            path: CSV, Parquet or JSONL.

        Raises:
            BenchmarkError: With the row at fault.
        """
        if path.suffix not in FORMATS:
            raise BenchmarkError(f"{path}: prices are a table, one of {', '.join(FORMATS)}.")
        columns = read_columns(path, {"model", "input", "output", "image", "as_of"})
        columns.require("model", "input", "output")
        names = columns.ids("model").to_pylist()
        numbers = [columns.numbers("input"), columns.numbers("output")]
        images = columns.numbers("image") if "image" in columns.names else [0.0] * len(names)
        table: dict[str, Price] = {}
        for row, (name, given, out, image) in enumerate(zip(names, *numbers, images, strict=True)):
            image = 0.0 if image != image else float(image)
            if not all(0 <= price < float("inf") for price in (given, out, image)):
                raise BenchmarkError(f"{columns.at(row)}: prices of {name!r} must be USD, at least 0.")
            if name in table:
                raise BenchmarkError(f"{columns.at(row)}: model {name!r} stands twice; keep one of its prices.")
            table[name] = Price(input=float(given), output=float(out), image=image)
        dates = sorted({date for date in columns.strings("as_of") if date})
        dated = (
            "" if not dates else f" (as of {dates[0]})" if len(dates) == 1 else f" (as of {dates[0]} to {dates[-1]})"
        )
        return cls(source=f"{path.name}{dated}", table=table)

    def find(self, model: str) -> Price | None:
        """The price of a model by its exact name, else by its name without provider, then without organisation."""
        parts = model.split("/")
        return next((self.table[name] for i in range(len(parts)) if (name := "/".join(parts[i:])) in self.table), None)

    def cost(self, model: str, *, input_tokens: float, output_tokens: float, n_images: int = 0) -> float | None:
        """USD of one call; None where the model has no price."""
        price = self.find(model)
        return None if price is None else price.cost(input_tokens, output_tokens, n_images)


def estimate_tokens(text: str) -> int:
    """Tokens of a text where nothing counted them: a quarter of its bytes in UTF-8, rounded up.

    About right for English and code (4 characters a token) and for Chinese (3 bytes a character), and the same for
    every model: compare costs by it, do not pay bills by it.
    """
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)

"""What does a call cost? A dated table of list prices, which a user's own file overrides."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from workers.benchmarks.columns import read_columns
from workers.errors import BenchmarkError

#: Ours: list prices with date and source of each.
_TABLE = Path(__file__).with_name("prices.csv")


@dataclass(frozen=True, kw_only=True)
class Price:
    """List price of a model."""

    #: USD per 1M input tokens.
    input: float
    #: USD per 1M output tokens.
    output: float
    #: USD per image, besides the tokens that it counts as.
    image: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Prices:
    """Prices by model name."""

    #: What reports say of it: file, date.
    source: str
    table: dict[str, Price]

    @classmethod
    @cache
    def default(cls) -> Prices:
        """The table that travels with this project."""
        return cls.read(_TABLE)

    @classmethod
    def read(cls, path: Path, *, above: Prices | None = None) -> Prices:
        """Read a table with columns model, input, output (USD per 1M tokens) and optionally image (USD each).

        Args:
            path: CSV, Parquet or JSONL.
            above: Prices of models that the file does not name.

        Raises:
            BenchmarkError: With the row at fault.
        """
        columns = read_columns(path, {"model", "input", "output", "image"})
        columns.require("model", "input", "output")
        names = columns.ids("model").to_pylist()
        numbers = [columns.numbers("input"), columns.numbers("output")]
        images = columns.numbers("image") if "image" in columns.names else [0.0] * len(names)
        table = dict(above.table) if above else {}
        seen = set()
        for row, (name, given, out, image) in enumerate(zip(names, *numbers, images, strict=True)):
            image = 0.0 if image != image else float(image)
            if not (given >= 0 and out >= 0 and image >= 0):
                raise BenchmarkError(f"{columns.at(row)}: prices of {name!r} must be USD, at least 0.")
            if name in seen:
                raise BenchmarkError(f"{columns.at(row)}: model {name!r} stands twice; keep one of its prices.")
            seen.add(name)
            table[name] = Price(input=float(given), output=float(out), image=image)
        source = path.name if above is None else f"{path.name} above {above.source}"
        return cls(source=source, table=table)

    def find(self, model: str) -> Price | None:
        """The price of a model by its exact name, else by its name without provider or organisation."""
        if model in self.table:
            return self.table[model]
        return self.table.get(model.rsplit("/", 1)[-1])

    def cost(self, model: str, *, input_tokens: float, output_tokens: float, n_images: int = 0) -> float | None:
        """USD of one call; None where the model has no price."""
        price = self.find(model)
        if price is None:
            return None
        return (price.input * input_tokens + price.output * output_tokens) / 1e6 + price.image * n_images

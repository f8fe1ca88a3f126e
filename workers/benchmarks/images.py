"""Which of a benchmark's images cannot be decoded?"""

from __future__ import annotations

from workers.benchmarks.base import Benchmark
from workers.encoders.base import Input
from workers.encoders.pixels import open_image
from workers.errors import EncoderError


def bad_images(benchmark: Benchmark) -> dict[str, str]:
    """Decode every distinct image once, one at a time; the queries whose image fails, and why."""
    failed: dict[str | None, str | None] = {}
    bad: dict[str, str] = {}
    for query, image, digest in zip(benchmark.queries, benchmark.images, benchmark.image_digests, strict=True):
        if image is None:
            continue
        if digest not in failed:
            try:
                open_image(Input(image=image, image_digest=digest, query=query))
            except EncoderError as error:
                failed[digest] = str(error)
            else:
                failed[digest] = None
        reason = failed[digest]
        if reason is not None:
            bad[query] = reason
    return bad

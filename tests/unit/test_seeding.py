from __future__ import annotations

import hashlib

import numpy as np

from workers.seeding import generator


def test_a_stream_is_numpys_own_of_the_root_seed_and_the_names_sha256() -> None:
    digest = hashlib.sha256(b"fit|knn|3|utility").digest()
    words = [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 32, 4)]
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence([11, *words])))
    assert generator(11, "fit", "knn", 3, "utility").random(5).tolist() == expected.random(5).tolist()


def test_streams_differ_by_seed_role_and_every_name() -> None:
    streams = [
        generator(0, "fit", "knn", 0),
        generator(1, "fit", "knn", 0),
        generator(0, "tuning", "knn", 0),
        generator(0, "fit", "mlp", 0),
        generator(0, "fit", "knn", 1),
        generator(0, "fit", "knn"),
    ]
    assert len({stream.integers(2**63) for stream in streams}) == len(streams)


def test_the_order_in_which_streams_are_made_does_not_matter() -> None:
    one, other = generator(0, "fit", "a"), generator(0, "fit", "b")
    again_other, again_one = generator(0, "fit", "b"), generator(0, "fit", "a")
    assert one.random(3).tolist() == again_one.random(3).tolist()
    assert other.random(3).tolist() == again_other.random(3).tolist()

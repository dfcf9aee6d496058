"""What child processes run in the tests of a batcher: importable, as multiprocessing's spawn needs it."""

import asyncio

__all__ = ["digest_of", "generate", "generate_async", "put_pictures"]

PROMPTS, SEEDS = ["red", "the pan", "red"], [1, 2, 3]


def digest_of(pictures):
    """Return the pictures' bytes, which a queue carries more easily than an array."""
    return pictures.tobytes()


def generate(subject):
    """Return the pictures that a model, or a `Batcher`, makes of `PROMPTS` and `SEEDS`."""
    if hasattr(subject, "submit"):
        return digest_of(subject.submit(PROMPTS, SEEDS).result(60))
    return digest_of(subject.generate(PROMPTS, SEEDS))


def generate_async(subject):
    """Return the same, by asyncio."""
    call = subject.generate if hasattr(subject, "submit") else subject.generate_async
    return digest_of(asyncio.run(call(PROMPTS, SEEDS)))


def put_pictures(subject, results):
    """Put both into the queue `results`."""
    results.put((generate(subject), generate_async(subject)))

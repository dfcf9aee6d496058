"""A check that a picture, as floats, does not depend on the rest of its batch."""

import galip_runtime
import numpy as np

SIZES = (1, 2, 3, 5, 8)
PROMPTS = (
    "the red pan",
    "a car",
    "x",
    "an apple and a ray of red in the pan",
    "apple 4",
    "the",
    "red red red",
    "in 7 pans",
)


def check_batches(bundle, device, threads=1, precision="fp32"):
    """Compare batches of `SIZES` with one another: sentence vectors and pictures, as floats, bit for bit."""
    model = galip_runtime.load(bundle, device=device, threads=threads, precision=precision)
    noise = model.noise(range(len(PROMPTS)))
    alone = np.concatenate([model.encode_text(prompt) for prompt in PROMPTS])
    assert len(np.unique(alone, axis=0)) == len(PROMPTS)
    pictures = {size: [] for size in SIZES}
    for size in SIZES:
        other = galip_runtime.load(bundle, device=device, threads=threads, precision=precision)
        for start in range(0, len(PROMPTS), size):
            part = slice(start, start + size)
            sentence = other.encode_text(PROMPTS[part])
            np.testing.assert_array_equal(sentence, alone[part], f"sentence vectors of batches of {size}")
            pictures[size].append(other.decode(noise[part], sentence))
    together = np.concatenate(pictures.pop(SIZES[-1]))
    for size, parts in pictures.items():
        np.testing.assert_array_equal(np.concatenate(parts), together, f"pictures in batches of {size}")

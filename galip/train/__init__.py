"""Training: CLIP's towers by contrast (`contrastive`), GALIP by the paper's losses (`gan`).

Both share `run`: the loop with its folder, resume, log and stop signals. Every random number comes from
(seed, stream, step), so a resumed run repeats.
"""

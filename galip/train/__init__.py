"""Training: CLIP's towers by contrast (`clip`), GALIP by the paper's losses (`gan`).

`run` is what both share: the run's folder, resume, scalars, progress, stop signals. `augment` changes
pictures on the way in. Every random number comes from (seed, stream, step), so a resumed run repeats.
"""

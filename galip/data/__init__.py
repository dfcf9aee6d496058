"""Captioned pictures: the layouts that people have, and training batches of them."""

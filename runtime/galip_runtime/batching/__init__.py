"""Pictures for many callers at once: a queue, lanes that draw what is in it, and the `Batcher` in front."""

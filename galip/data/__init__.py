"""Pictures with captions: the layouts people have, training batches, and the icons of the default model."""

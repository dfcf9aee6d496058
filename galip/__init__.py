"""GALIP in PyTorch: model, losses, training, checkpoints and the `galip` command."""

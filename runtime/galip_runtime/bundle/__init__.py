"""A bundle's files: the manifest and its decoder, the cache of hashes, the ONNX graphs and their cuts."""

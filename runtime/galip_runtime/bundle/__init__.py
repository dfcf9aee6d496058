"""A bundle's files: the manifest and its decoder, the hash cache, the reader of ONNX graphs."""

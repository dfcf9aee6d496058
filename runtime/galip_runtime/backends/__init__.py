"""What runs graphs: the devices, a runner for each kind, TensorRT's engines, CUDA."""

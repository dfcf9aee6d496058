"""Studies of `galip serve` under load."""

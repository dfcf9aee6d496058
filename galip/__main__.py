"""Entry point of `python -m galip`, and of `torchrun -m galip train`."""

from galip.cli import main

main()

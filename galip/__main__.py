"""`python -m galip`, and so `torchrun -m galip train`: the command `galip`."""

from galip.cli import main

main()

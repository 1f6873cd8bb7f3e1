"""`python -m dsonas_hw` is the command line (torchrun needs a module)."""

from dsonas_hw.cli.main import main

if __name__ == "__main__":
    main()

"""`python -m eul_trainer`: the same as `eul-train`."""

from eul_trainer.cli.main import main

if __name__ == "__main__":
    main()

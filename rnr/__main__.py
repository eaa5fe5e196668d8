"""``python -m rnr``: the command, also where Lightning starts it anew for each further GPU."""

from rnr.cli import main

if __name__ == "__main__":
    main()

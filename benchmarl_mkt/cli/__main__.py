"""``python -m benchmarl_mkt.cli``."""

from benchmarl_mkt.cli import main

if __name__ == "__main__":
    main()

"""`python -m scoliojax.interop.opengait`."""

from scoliojax.interop.opengait.commands import main

if __name__ == "__main__":
    main()

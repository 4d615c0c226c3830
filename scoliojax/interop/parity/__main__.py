"""`python -m scoliojax.interop.parity`."""

from scoliojax.interop.parity.compare import main

if __name__ == "__main__":
    main()

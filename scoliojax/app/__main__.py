"""`python -m scoliojax.app`."""

from scoliojax.app.page import main

if __name__ == "__main__":
    main()

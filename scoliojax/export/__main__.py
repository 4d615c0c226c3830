"""`python -m scoliojax.export`."""

from scoliojax.export.artefact import main

if __name__ == "__main__":
    main()

"""`python -m scoliojax.study`."""

from scoliojax.devices import cluster
from scoliojax.runs.command import told
from scoliojax.study.ratios import main

if __name__ == "__main__":
    with told():
        cluster.join(None, None, None)  # before anything touches a device
    main()

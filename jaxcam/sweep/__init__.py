"""Explain a data set: every image of a list, on one process or several, so that it can be resumed.

A run has a folder. `plan.Plan`, written down first, says what is asked of which images; chunks of
images are explained and written one by one; when all are there they become ``maps.npy`` (float32
``[images, height, width]``, NaN where there is no map) and ``table.csv``, row by row the same
images. Chunks are independent of each other, so it does not matter who computes them, or when:
the files are the same to the byte.

    images      what is explained: a list of files that is the same on every machine
    plan        what a run is, and whether another one is the same
    folder      what is on disk: in full or not at all
    crew        the processes: who is who, and who is still there
    loading     images read ahead of the device
    rows        what the table says
    driver      all of it in order

Networks, the preparation of images and the names of classes are handed in.
"""

from jaxcam.sweep.crew import Launch
from jaxcam.sweep.driver import Job, Summary, run
from jaxcam.sweep.images import find
from jaxcam.sweep.plan import Plan, make_plan

__all__ = ["Job", "Launch", "Plan", "Summary", "find", "make_plan", "run"]

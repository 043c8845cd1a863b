"""``python -m jaxcam`` is the console script ``jaxcam``."""

import sys

from jaxcam.cli import main

sys.exit(main())

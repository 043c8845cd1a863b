"""The console script ``jaxcam``: what it exits with, and what it says when something goes wrong.

Exit status: 0 done; 1 done, but for some images of a sweep; 2 the question cannot be answered (said
in one line on standard error; nothing is written but what a sweep had finished); 130 interrupted.
Results go to standard output; progress, warnings and errors to standard error.
"""

import json
import os
import sys
import warnings
from collections.abc import Sequence

from jaxcam.cli import options
from jaxcam.errors import JaxcamError

DONE, INCOMPLETE, REFUSED, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; ``argv`` are the words behind ``jaxcam``, the process's own by default."""
    asked = options.parse(argv)
    # Behind --help and wrong options nobody waits for what commands import.
    from jaxcam.cli import cache, commands, tables

    status = DONE
    try:
        with warnings.catch_warnings(record=True) as caught:
            # Pillow doubts pictures of 90 to 180 megapixels, and refuses larger ones.
            warnings.filterwarnings("ignore", message=".*could be decompression bomb")
            # It says which EXIF entries it passes over, of which only the orientation is read.
            warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")
            # A cache that cannot be read or written is one that is not there.
            warnings.filterwarnings("ignore", message=".*persistent compilation cache")
            with cache.kept(getattr(asked, "cache", False)):
                facts = commands.run(asked)
        status = INCOMPLETE if facts.get("failed") else DONE
        told = [" ".join(str(warning.message).split()) for warning in caught]
        for words in told:
            _say(f"warning: {words}")
        if facts.get("process"):
            pass  # the first of several processes speaks for all
        elif asked.json:
            print(json.dumps(facts | {"warnings": told}, allow_nan=False))
        else:
            tables.PRINT[asked.command](facts, verbose=getattr(asked, "verbose", False))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has left: `jaxcam layers | head -1`. The interpreter flushes once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt as stopped:
        _say(": ".join(("interrupted", *map(str, stopped.args))))
        return INTERRUPTED
    except (JaxcamError, OSError) as error:
        _say(f"error: {_words(error)}")
        return REFUSED
    return status


def _words(error: JaxcamError | OSError) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


def _say(words: str) -> None:
    print(f"jaxcam: {words}", file=sys.stderr)

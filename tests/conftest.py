"""Property tests draw the same examples in every run; `--hypothesis-profile=explore` looks further.

SIGINT is delivered: a shell that starts the tests in the background has it ignored, in them and in every
process they start, and tests of Ctrl-C would wait for ever.
"""

from __future__ import annotations

import signal

from hypothesis import settings

signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("repeatable")

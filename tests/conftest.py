"""What holds for all tests."""

import signal

# A shell that starts pytest in the background lets it ignore Ctrl-C, and every process that a test
# starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

"""Run as a script: sends one `.wandb` file to W&B while another process still writes it.

Knows wandb's command line only. Ends when the whole file is sent, or when its standard input
closes: the writing process holds the other end, and without a writer the file has no end.
"""

import contextlib
import os
import sys
import threading


def main() -> None:
    """Sends the file named by the only argument; does not return."""
    threading.Thread(target=_end_with_the_writer, daemon=True).start()
    with contextlib.suppress(OSError, AttributeError):  # not allowed, or not a thing on Windows
        os.nice(10)  # the run comes first
    from wandb.cli.beta import beta

    beta(["sync", "--live", sys.argv[1]])


def _end_with_the_writer() -> None:
    # Not sys.stdin: Python aborts at its exit where another thread is still reading from that.
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()

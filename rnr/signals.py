"""A polite end: the signals of schedulers, ``kill`` and a closed terminal, treated as Ctrl-C is."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Within, SIGTERM raises ``SystemExit``, and so does SIGHUP unless it is ignored (``nohup``): whoever has begun something
    can end it. Only a main thread hears them."""

    def stop(number: int, frame: object) -> None:
        sys.exit(128 + number)

    numbers = [signal.SIGTERM, *([signal.SIGHUP] if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL else [])]
    with _handled(numbers, stop):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within, none of these signals is heard: an end that has begun is not begun again."""
    with _handled([signal.SIGINT, signal.SIGTERM, signal.SIGHUP], signal.SIG_IGN):
        yield


@contextmanager
def _handled(numbers: Sequence[int], handler: Callable[[int, object], None] | signal.Handlers) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, each in before.items():
            signal.signal(number, each)

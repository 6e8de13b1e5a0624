"""`taskq top`: a live view of a store.

    command     flags, help; a plain snapshot where there is no terminal
    app         the loop: keys, new snapshots and signals in, pictures out
    watching    a thread that looks at the store, and does there what keys ask for
    model       what was seen: snapshots, throughput
    state       what the user looks at: panel, row, detail; which key does what. Pure
    view        from both to lines that fill the screen. Pure
    keys        bytes of a terminal -> names of keys;  terminal: its modes, given back whatever happens

What is pure is tested as a function; the rest by driving it in a pseudo-terminal.
"""

from __future__ import annotations

"""`taskq top`: a live view of a store.

    app         flags and help; the loop: keys, new snapshots and signals in, pictures out
    model       snapshots of the store, the rate at which jobs end, and the thread that looks and carries out orders
    state       what the user looks at: panel, row, detail; which key does what. Pure
    view        from both to lines that fill the screen. Pure
    terminal    bytes of a terminal -> names of keys; its modes, given back at any end

What is pure is tested as a function; the rest by driving it in a pseudo-terminal.
"""

from __future__ import annotations

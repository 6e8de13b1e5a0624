"""A pool of child processes that no death can wedge, on `multiprocessing.Pool`.

    user threads                     parent                              child N
    ────────────                     ──────                              ───────
    submit ─────┐                ┌─────────────┐   socket: orders      ┌────────────┐
    map ────────┼──▶ inbox ────▶ │ dispatcher  │ ────────────────────▶ │ child.work │──▶ taskq.runner
    cancel ─────┘                │  scheduler  │   socket: reports     │            │
                                 │  supervisor │ ◀──────────────────── │ journal    │
    Job, map ◀── outcomes ────── │  watchdog   │   page: words,        └────────────┘
                                 └─────────────┘   journal, arguments
                                        ▲  exit codes
                                 multiprocessing.Pool: starts, reaps and replaces the children

The front door is `pool.ProcessPool`. Behind it, from the ground up:

    both sides   protocol (messages, shared page), payloads (how values travel), connection, functions
    parent       jobs, batches (what goes to a child at once), child_handle (one child), reports (what it sends),
                 scheduler (what waits), direct (the short way to a free child), supervisor (all children), watchdog
                 (slow and stuck ones), dispatcher (the thread), process_group and processes (multiprocessing),
                 local_map (maps)
    child        child (its loop), execution (one batch), journal (proof of what was done), reporter, output
"""

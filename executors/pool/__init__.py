"""A pool of child processes that no death can wedge, on `multiprocessing.Pool`.

    user threads                     parent                              child N
    ────────────                     ──────                              ───────
    submit ─────┐                ┌─────────────┐   socket: orders      ┌────────────┐
    stream ─────┼──▶ inbox ────▶ │ dispatcher  │ ────────────────────▶ │ child.work │──▶ taskq.runner
    cancel ─────┘                │  backlog    │   socket: reports     │            │
                                 │  children      │ ◀──────────────────── │ journal    │
    Job, Stream ◀── outcomes ─── │  supervisor   │   page: words,        └────────────┘
                                 └─────────────┘   journal, arguments
                                        ▲  exit codes
                                 multiprocessing.Pool: starts, reaps and replaces the children

Files, from the ground up: `page` (shared memory), `frames` (messages), `values` (how values travel), `channel` (a line
to a child), `processes` and `children` (Pool), `journal`, `execution` and `child` (what runs in a child), `pace`,
`jobs`, `work`, `backlog`, `child`, `outcomes` and `books` (what the parent keeps), `offer` (the short way to a free
child), `supervisor` and `dispatcher` (the parent's thread), `stream` (maps), `crew` (all of it, from start to end).
"""

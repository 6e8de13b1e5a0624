"""Durable jobs in Redis, as ordinary RQ jobs: `redis://`, `rediss://`, `unix://`.

store                     what clients ask for; subscription: how they learn that their jobs have ended
session                   what a worker asks for: claims, its outbox, notifications of new work and of commands
stock_jobs, horse, guest  jobs that stock RQ enqueued, here; jobs of ours in a stock worker
queries, doctor           what people look at
client, connection, url   talking to Redis, and where it is
scripts, lua/, records    each atomic step; between Redis' bytes and taskq's records
keys                      names of keys and fields, RQ's and ours
"""

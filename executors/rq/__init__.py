"""Durable jobs in Redis, as ordinary RQ jobs: `redis://`, `rediss://`, `unix://`.

layout              names of keys and fields, RQ's and ours
url, address        where Redis is; wire, line: how to talk to it
scripts, lua/       each atomic step
record, outcome     between Redis' bytes and taskq's records
foreign             jobs that stock RQ enqueued
store               what clients ask for
subscription        how clients learn that their jobs have ended
session             what a worker asks for, by claim and watch
inventory, doctor   what people look at
"""

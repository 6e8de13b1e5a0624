"""The commands by name: where each stands, and its line in the list. None is imported before it is asked for."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CATALOG", "Entry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A command: its "module:name", its line in `taskq --help`; hidden ones are other words for another."""

    place: str
    line: str = ""
    hidden: bool = False


#: In the order of use.
CATALOG = {
    "submit": Entry(place="taskq.cli.submit:submit", line="Submit a task or a command as a job."),
    "map": Entry(place="taskq.cli.map:map_command", line="Run a task or command per line."),
    "worker": Entry(place="taskq.cli.worker:worker", line="Run the jobs of a queue, as a daemon."),
    "status": Entry(place="taskq.cli.status:status", line="Show queues and jobs."),
    "top": Entry(place="taskq.cli.top.command:top", line="Watch queues, jobs and workers live."),
    "result": Entry(place="taskq.cli.outcome:result", line="Print a job's result."),
    "wait": Entry(place="taskq.cli.outcome:wait", line="Wait until jobs have ended."),
    "logs": Entry(place="taskq.cli.outcome:logs", line="Print what a job has written."),
    "cancel": Entry(place="taskq.cli.control:cancel", line="Cancel jobs."),
    "retry": Entry(place="taskq.cli.control:retry", line="Run failed jobs again."),
    "queues": Entry(place="taskq.cli.inventory:queues", line="Show the queues."),
    "workers": Entry(place="taskq.cli.inventory:workers", line="Show the workers."),
    "pause": Entry(place="taskq.cli.control:pause", line="Start no more jobs of a queue."),
    "resume": Entry(place="taskq.cli.control:resume", line="Start the jobs of a paused queue again."),
    "purge": Entry(place="taskq.cli.purge:purge", line="Forget jobs."),
    "transfer": Entry(place="taskq.cli.transfer:transfer", line="Move waiting jobs to another store."),
    "doctor": Entry(place="taskq.cli.doctor:doctor", line="Look for problems, and tell the cures."),
    "config": Entry(place="taskq.cli.settings:config", line="Show the settings and where they come from."),
    "completion": Entry(place="taskq.cli.completion:completion", line="Print a shell's completion script."),
    "enqueue": Entry(place="taskq.cli.submit:submit", hidden=True),
    "info": Entry(place="taskq.cli.status:status", hidden=True),
}

"""`taskq worker`: the daemon that runs the jobs of a queue.

The loop itself is an executor's affair (`open_worker`); here are its flags, its signals, and its log.
"""

from __future__ import annotations

import contextlib
import signal
import time
from typing import TYPE_CHECKING, Any

import click

from taskq import config, log
from taskq.cli.arguments import import_from_here
from taskq.cli.signals import ECHO, STOPPING
from taskq.cli.stores import keep_password, settle_url, to_open, url_file
from taskq.cli.tell import say
from taskq.connect import open_store, open_worker
from taskq.durations import parse_duration
from taskq.errors import ConfigError
from taskq.options import JobOptions
from taskq.redact import safe_url
from taskq.serving import DEFAULT, STRATEGIES, Serving

if TYPE_CHECKING:
    from types import FrameType

    from taskq.store import Store

__all__ = ["worker"]

HELP = """Run the jobs of a queue on this machine's cores, until stopped.

\b
Examples:
  taskq worker --import tasks                                    your own queue file
  taskq worker --url redis://queue-host/0 --queues high,default --processes 8 --import shop.tasks
  taskq worker --import tasks --burst                            run what is queued, and end
  taskq worker --allow-commands                                  for taskq submit -- COMMAND

Only @task functions of modules named by --import, and plain functions that those modules themselves define and whose
names do not begin with _, are run; --import app.tasks:Report.build opens this one, whatever it is. Jobs of other tasks
are left to other workers. Ctrl-C or SIGTERM: running jobs get the grace, what has not begun goes back; a second one:
at once.

--burst runs what the end of a job brings (dependents, immediate retries) too, and waits for what runs in other
workers; retries that are due later it leaves, and says how many and when. --drain waits for these as well.

\b
Exit codes: 0 stopped cleanly, 1 jobs were killed, 2 usage or --import, 3 backend unreachable.
"""

#: The log's level where nobody says another: a daemon tells that it started, and why it stopped.
LEVEL = "info"


@click.command("worker", help=HELP, short_help="Run the jobs of a queue, as a daemon.")
@url_file
@click.option("--url", metavar="URL", help="The queue; default: a file of yours, see taskq config show.")
@click.option("--queues", metavar="NAMES", default="default", show_default=True, help="Which, in order: high,default.")
@click.option(
    "--dequeue-strategy",
    "-ds",
    "strategy",
    type=click.Choice(STRATEGIES),
    default=DEFAULT,
    show_default=True,
    help="Whose turn it is: the first queue's, each one's, or a drawn one's.",
)
@click.option("--processes", "-j", metavar="N", help="Jobs run at once; default: one per CPU.")
@click.option("--import", "imports", metavar="MODULE[:NAME]", multiple=True, help="Run a module's functions, or one.")
@click.option("--allow-commands", is_flag=True, help="Run shell commands too, from anyone who can submit.")
@click.option("--burst", is_flag=True, help="End when nothing of its queues waits or runs.")
@click.option("--drain", is_flag=True, help="Like --burst, but wait for delayed retries too.")
@click.option("--max-jobs", metavar="N", type=click.IntRange(min=1), help="End after so many jobs.")
@click.option(
    "--exception-handler",
    "exception_handlers",
    metavar="MODULE:NAME",
    multiple=True,
    help="Call it with each job of RQ that fails.",
)
@click.option(
    "--disable-default-exception-handler", "-d", "unlisted", is_flag=True, help="Do not list failed jobs of RQ."
)
@click.option(
    "--results-ttl",
    metavar="SECONDS",
    type=click.IntRange(min=-1),
    help="How long results of RQ's jobs stay that do not say; default: 500, -1: for ever.",
)
@click.option("--name", metavar="NAME", help="Its name among workers; default: host and process.")
@click.option("--grace", metavar="TIME", default="30", show_default=True, help="Time that running jobs get at a stop.")
@click.option("--start-method", type=click.Choice(config.START_METHODS), help="How processes start.")
@click.option(
    "--max-tasks-per-child", metavar="N", type=click.IntRange(min=1), help="Jobs until a process is replaced."
)
@click.option("--health-port", metavar="PORT", type=click.IntRange(0, 65535), help="Serve /health and /metrics there.")
@click.option("--health-host", metavar="HOST", default="127.0.0.1", show_default=True, help="Where they are served.")
@click.option("--require-auth", is_flag=True, help="Refuse a networked Redis without password or with unchecked TLS.")
@click.option("--log-format", type=click.Choice(["console", "json"]), help="Form of messages on stderr.")
@click.option("--log-level", type=click.Choice(list(log.LEVELS)), help=f"Least level of log lines; default: {LEVEL}.")
def worker(*, url: str | None, queues: str, imports: tuple[str, ...], grace: str, **flags: Any) -> int:
    """Run the command."""
    chosen = settle_url(url)
    settings = _read_settings(flags)
    if chosen.partition("://")[0].lower() == "local":
        raise ConfigError(f"{safe_url(chosen)} has no workers: its jobs run in the program that submits them")
    if url is not None and safe_url(url) != url:
        say("the password in --url can be seen in the list of processes: give the URL by TASKQ_URL or --url-file")
    import_from_here()
    keep_password()
    foreign = {name: flags.pop(name) for name in ("unlisted", "results_ttl")}
    with contextlib.closing(open_store(to_open(chosen))) as store:
        _tell_risks(store, refuse=flags["require_auth"])
        _check_foreign(store, exception_handlers=flags["exception_handlers"], **foreign)
        daemon = open_worker(
            store,
            queues=_names(queues),
            processes=settings.processes,
            start_method=settings.start_method,
            imports=imports,
            grace=parse_duration(grace),
            serving=Serving(
                strategy=flags["strategy"],
                foreign_ttl=foreign["results_ttl"],
                lists_failures=not foreign["unlisted"],
            ),
            **{name: flags[name] for name in PASSED},
        )
        _stop_at_signals(daemon)
        code: int = daemon.run()
        return code


#: Flags that go to the worker as they are.
PASSED = (
    *("allow_commands", "burst", "drain", "max_jobs", "name", "max_tasks_per_child", "health_port", "health_host"),
    "exception_handlers",
)


def _read_settings(flags: dict[str, Any]) -> config.Settings:
    said = {name: flags.pop(name) for name in ("processes", "start_method", "log_format", "log_level")}
    settings = config.load(said)
    level = settings.log_level if "log_level" in config.trace(said) else LEVEL
    log.configure(settings.log_format, level)
    return settings


def _check_foreign(
    store: Store, *, exception_handlers: tuple[str, ...], unlisted: bool, results_ttl: int | None
) -> None:
    """Refuse what is said of jobs of RQ where there are none.

    Raises:
        ConfigError: it is.
    """
    said = {
        "--exception-handler": bool(exception_handlers),
        "--disable-default-exception-handler": unlisted,
        "--results-ttl": results_ttl is not None,
    }
    flag = next((name for name, given in said.items() if given), None)
    if flag is not None and not store.runs_foreign:
        raise ConfigError(f"{flag} is for jobs that RQ enqueued, of which {store.url} has none: leave it out")


def _tell_risks(store: Store, *, refuse: bool) -> None:
    """Warn once of what lets strangers in.

    Raises:
        ConfigError: something does, and that is to be refused.
    """
    for risk in store.risks():
        if refuse:
            raise ConfigError(f"--require-auth: {store.url}: {risk.text}; cure: {risk.cure}")
        log.get_logger("taskq.worker").warning("store_exposed", url=store.url, risk=risk.text, cure=risk.cure)


def _names(text: str) -> tuple[str, ...]:
    """Return the queues' names in their order, each once.

    Raises:
        ConfigError: one of them cannot be a queue's name.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        JobOptions(queue=name)
    return names


def _stop_at_signals(daemon: Any) -> None:
    """Have the first signal end the worker in an orderly way, and a later one at once. Main thread only.

    The handlers stay: what comes while the process is ending must not change its exit code.
    """
    told: list[float] = []

    def stop(_signum: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if not told or now - told[-1] > ECHO:
            told.append(now)
            daemon.stop()

    for number in STOPPING:  # one that is ignored stays so: that is what nohup, and a shell's & in a script, ask for
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)

"""How is Ray reached? A local one started, a cluster joined, its nodes asked, its Jobs API called."""

from __future__ import annotations

import inspect
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from orchestrator.errors import ClusterError, RunError

log = logging.getLogger("roadtest.cluster")

#: Bytes of Ray's object store on a laptop: contexts are a few MB each.
OBJECT_STORE_BYTES = 200_000_000
#: Seconds that one request to the Jobs API may take.
REQUEST_SECONDS = 30.0
#: Rays whose raylet is known to do without agents; another one gets them, and starts slower.
AGENTLESS_RAYS = ("2.60.",)
#: What lets Ray add a runtime environment, which an agent has to make, to a run that asks for none.
ENVIRONMENT_GIVERS = ("RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_RUNTIME_ENV_HOOK")
#: Seconds that a raylet may take to register, as long as Ray itself waits.
RAYLET_SECONDS = 30.0


def _settle() -> None:
    """What Ray reads from the environment and would else decide by itself, differently for server and client."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # A raylet looks for its object store before that is there, and then sleeps: for 50 ms, not for Ray's second.
    os.environ.setdefault("RAY_raylet_client_connect_timeout_milliseconds", "50")
    os.environ.setdefault("RAY_raylet_client_num_connect_attempts", "200")


def connect(address: str | None, *, workers: int | None) -> bool:
    """Start a local Ray or join the cluster at `address`.

    Args:
        address: As `ray start` printed it, or None for a local Ray of our own.
        workers: CPUs of a local Ray; default those of the machine.

    Returns:
        Whether the Ray is our own, to be ended by `disconnect`.

    Raises:
        RunError: It cannot be started or reached.
    """
    _settle()
    import ray

    # It says that it takes SIGTERM in the main thread alone: the coordinator takes it anyway.
    logging.getLogger("ray._private.worker").setLevel(logging.ERROR)
    if ray.is_initialized():
        return False
    try:
        if address is None:
            _start(workers)
        else:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except SystemExit:  # Ray's own answer to SIGTERM while it starts
        raise KeyboardInterrupt from None
    except Exception as error:
        where = f"the cluster at {address}" if address else "a local Ray"
        raise RunError(f"{where} cannot be used ({error}). `--executor local` runs without Ray.") from error
    return address is None


def _start(workers: int | None) -> None:
    """Start a local Ray; once more where a busy machine let Ray's own 30 s pass, which nothing sets."""
    import ray

    for attempt in (1, 2):
        try:
            with _few_daemons() as options:
                ray.init(
                    address="local",
                    num_cpus=workers,
                    **options,
                    object_store_memory=OBJECT_STORE_BYTES,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    configure_logging=False,
                )
            return
        except Exception as error:
            if attempt == 2 or "timed out during startup" not in str(error):
                raise
            for daemon in own_daemons():
                daemon.kill()


@contextmanager
def _few_daemons() -> Iterator[dict[str, Any]]:
    """What lets `ray.init` do without daemons that nobody asks here, and see at once that its raylet is there.

    No public switch does (docs/design/local-ray.md). Without a dashboard its server starts all the same, but not on a
    port that is taken, of which Ray then complains to nobody; the rest are names of Ray's own that are other ones for
    the while. A Ray that lacks one of them starts without it, slower.
    """
    from ray._private import parameter, services

    complaints = logging.getLogger("ray._private.services")
    level = complaints.level
    with socket.socket() as taken, ExitStack() as stack:
        taken.bind(("127.0.0.1", 0))
        stack.callback(complaints.setLevel, level)
        complaints.setLevel(logging.CRITICAL)
        for module, name, other in (
            (parameter, "RayParams", _without_monitors),
            (services, "start_ray_process", _without_agents),
            (services, "get_node", _prompt),
        ):
            if hasattr(module, name):
                made = getattr(module, name)
                stack.callback(setattr, module, name, made)
                setattr(module, name, other(made))
        yield {"include_dashboard": False, "dashboard_port": taken.getsockname()[1]}


def _without_monitors(made: type) -> Any:
    """Ray's parameters with neither autoscaler nor log monitor."""
    known = inspect.signature(made).parameters
    without = {"no_monitor": True, "include_log_monitor": False}
    return partial(made, **{name: value for name, value in without.items() if name in known})


def _without_agents(made: Callable[..., Any]) -> Callable[..., Any]:
    """Start a raylet with a `cat` for each of its two agents, which are asked nothing here and import for seconds.

    It ends with the raylet, which holds the other end of its input. That nobody serves, the raylet reads in the files
    in which it awaits its agents' ports, as a minimal agent of Ray's writes it.
    """
    import ray

    if not ray.__version__.startswith(AGENTLESS_RAYS) or any(name in os.environ for name in ENVIRONMENT_GIVERS):
        return made
    agents = ("--dashboard_agent_command=", "--runtime_env_agent_command=")
    core: Any = ray._raylet
    ports = (
        core.DASHBOARD_AGENT_LISTEN_PORT_NAME,
        core.METRICS_AGENT_PORT_NAME,
        core.METRICS_EXPORT_PORT_NAME,
        core.RUNTIME_ENV_AGENT_PORT_NAME,
    )

    def start_ray_process(command: list[str], process_type: str, *args: Any, **named: Any) -> Any:
        if process_type == "raylet":
            given = dict(argument.removeprefix("--").split("=", 1) for argument in command if "=" in argument)
            for port in ports:
                core.persist_port(given["session_dir"], given["node_id"], port, -1)
            command = [next((f"{agent}cat" for agent in agents if own.startswith(agent)), own) for own in command]
        return made(command, process_type, *args, **named)

    return start_ray_process


def _prompt(made: Callable[[str, str], Any]) -> Any:
    """Ask for a node once it is registered: Ray looks, sleeps a second, and looks again."""
    from ray._private import services, state

    def get_node(gcs_address: str, node_id: str) -> Any:
        with suppress(AttributeError):  # of another Ray
            nodes = state.GlobalState()
            nodes._initialize_global_state(services._get_gcs_client_options(gcs_address))
            until = time.monotonic() + RAYLET_SECONDS
            while time.monotonic() < until and all(node["NodeID"] != node_id for node in nodes.node_table()):
                time.sleep(0.02)
        return made(gcs_address, node_id)

    return get_node


def own_daemons() -> list[psutil.Process]:
    """Daemons of the local Ray that this process started and cannot live without."""
    return [child for child in psutil.Process().children() if child.name() in ("raylet", "gcs_server")]


def disconnect(*, owned: bool) -> None:
    """Leave Ray; end it where it is our own."""
    import ray

    if owned:
        ray.shutdown()


class Connection:
    """A local Ray or a cluster, reached in a thread of its own while this one plans, and left there while it reports.

    The kernel ends a local Ray's daemons with the thread that started them: it lives for as long as they are wanted.

    Args:
        address: As of `connect`.
        workers: As of `connect`.
    """

    def __init__(self, address: str | None, *, workers: int | None) -> None:
        self._address, self._workers = address, workers
        self._there, self._unwanted = threading.Event(), threading.Event()
        self._owned = False
        self._error: BaseException | None = None
        # By this name whoever ends the process does not wait for it.
        self._thread = threading.Thread(target=self._live, name="roadtest-worker-ray")
        self._thread.start()

    def _live(self) -> None:
        try:
            self._owned = connect(self._address, workers=self._workers)
        except BaseException as error:
            self._error = error
            return
        finally:
            self._thread.name = "roadtest-ray"
            self._there.set()
        self._unwanted.wait()
        try:
            disconnect(owned=self._owned)
        except Exception as error:
            log.warning("Ray did not end in order: %s", _first_line(error))

    def wait(self) -> bool:
        """Until it is there; whether it is a local Ray of our own.

        Raises:
            RunError: As of `connect`.
        """
        self._there.wait()
        if self._error is not None:
            raise self._error
        return self._owned

    def close(self) -> None:
        """Leave it, which takes a second; returns at once."""
        self._unwanted.set()

    def join(self) -> None:
        """Wait until it has been left."""
        self._thread.join()


# -- every node ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one node said."""

    #: Address of the node inside the cluster.
    node: str
    #: Whether it is the head, where submitted jobs have their coordinator.
    head: bool
    value: Any = None
    #: Why there is no value, None when there is one.
    error: str | None = None
    #: This machine's clock when the question left and when the answer was there, seconds since 1970.
    sent: float
    received: float


def alive_nodes() -> int:
    """Nodes of the cluster that was joined."""
    import ray

    return sum(bool(node["Alive"]) for node in ray.nodes())


def ask_every_node(work: Callable[[], Any], *, timeout: float) -> list[Answer]:
    """Call `work` once on every node that is alive, whatever else runs there; by address.

    Args:
        work: Importable on the nodes, or a partial of such a function.
        timeout: Seconds for all of them together; a node without an answer by then says so in `error`.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    call = ray.remote(num_cpus=0, max_retries=0)(_call)
    nodes, sent = {}, {}
    for node in ray.nodes():
        if node["Alive"]:
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            at = time.time()
            ref = call.options(scheduling_strategy=here).remote(work)
            nodes[ref], sent[ref] = node, at
    until = time.monotonic() + timeout
    waiting, answers = list(nodes), []
    while waiting:
        ready, waiting = ray.wait(waiting, num_returns=1, timeout=max(0.0, until - time.monotonic()))
        at = time.time()
        for ref in ready or waiting:
            value, error = None, None
            if ready:
                try:
                    value = ray.get(ref)
                except RayTaskError as failure:
                    error = _first_line(failure.cause or failure)
                except RayError as failure:
                    error = _first_line(failure)
            else:
                error = f"no answer within {timeout:g} s"
                ray.cancel(ref, force=True)
            node = nodes[ref]
            answers.append(
                Answer(
                    node=node["NodeManagerAddress"],
                    head="node:__internal_head__" in node["Resources"],
                    value=value,
                    error=error,
                    sent=sent[ref],
                    received=at,
                )
            )
        waiting = waiting if ready else []
    return sorted(answers, key=lambda answer: answer.node)


def _call(work: Callable[[], Any]) -> Any:
    return work()


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0] or 'no message'}"


# -- the Jobs API ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job of the cluster, as Ray tells it."""

    id: str
    #: Ray's word, for people: PENDING, RUNNING, SUCCEEDED, FAILED, STOPPED. A finished job was seen as FAILED.
    status: str
    #: Whether Ray says that it ended.
    over: bool
    #: Exit code of the command, None before its end and where Ray did not see it end.
    exit_code: int | None
    #: What Ray says to its status.
    message: str
    metadata: Mapping[str, str]
    started: datetime | None
    ended: datetime | None


class Jobs:
    """The Ray Jobs API of one cluster, by its dashboard's address.

    Raises:
        ClusterError: By every method, when the dashboard cannot be reached or answers with an error.
    """

    def __init__(self, address: str, *, timeout: float = REQUEST_SECONDS) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ClusterError(
                f"{parts.netloc.rpartition('@')[2] or address!r} is not the address of a Ray dashboard; give "
                "--address http://HEAD:8265, as `ray start --head` printed it, without user and password."
            )
        _settle()
        self.address = address.rstrip("/")
        # Ray lets its variables win over an argument.
        os.environ["RAY_API_SERVER_ADDRESS"] = self.address
        from ray.job_submission import JobSubmissionClient

        for name in ("job.sdk", "dashboard_sdk"):
            logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.ERROR)
        logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.ERROR)

        class Client(JobSubmissionClient):  # type: ignore[misc]
            """Ray's own, which waits for ever for a server that is silent."""

            def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
                return super()._do_request(method, endpoint, **{"timeout": timeout, **options})

        with self._asking():
            self._client = Client(self.address)

    def submit(
        self, job_id: str, command: str, folder: Path, *, metadata: Mapping[str, str], variables: Mapping[str, str]
    ) -> None:
        """Start `command` on the head, in a copy of `folder`; an id is taken once in a cluster's life."""
        with self._asking():
            self._client.submit_job(
                entrypoint=command,
                submission_id=job_id,
                runtime_env={"working_dir": str(folder), "env_vars": dict(variables)},
                metadata=dict(metadata),
            )

    def find(self, job_id: str) -> Job | None:
        """The job of this id, None without one."""
        with self._asking():
            try:
                return _job(self._client.get_job_info(job_id))
            except RuntimeError as error:
                if "status code 404" in str(error):
                    return None
                raise

    def list(self) -> list[Job]:
        """Every submitted job that the cluster remembers, the oldest first."""
        with self._asking():
            found = [_job(details) for details in self._client.list_jobs() if details.submission_id]
        return sorted(found, key=lambda job: (job.started is not None, job.started, job.id))

    def log(self, job_id: str) -> str:
        """What the job wrote so far, stdout and stderr."""
        with self._asking():
            return str(self._client.get_job_logs(job_id))

    def stop(self, job_id: str) -> bool:
        """Send the job SIGTERM; whether it ran."""
        with self._asking():
            return bool(self._client.stop_job(job_id))

    @contextmanager
    def _asking(self) -> Iterator[None]:
        from ray.exceptions import RayError

        try:
            yield
        # `requests` raises OSErrors, Ray RuntimeErrors, and a server that is no dashboard makes the client stumble.
        except (OSError, RuntimeError, ValueError, LookupError, RayError) as error:
            raise ClusterError(
                f"the Ray dashboard at {self.address} does not serve this request ({_first_line(error)}). Check that "
                "the cluster runs (`ray start --head --dashboard-host …`), that this machine reaches the port, and "
                "that RAY_AUTH_MODE is the same here and there."
            ) from error


def _job(details: Any) -> Job:
    def at(milliseconds: int | None) -> datetime | None:
        return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)

    return Job(
        id=details.submission_id,
        status=str(details.status.value),
        over=details.status.is_terminal(),
        exit_code=details.driver_exit_code,
        message=details.message or "",
        metadata=details.metadata or {},
        started=at(details.start_time),
        ended=at(details.end_time),
    )

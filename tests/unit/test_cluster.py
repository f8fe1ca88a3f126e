"""A local Ray that is slow to start is tried once more; it lives in one thread, by which the kernel ends it."""

import subprocess
import sys
import threading

import pytest

from orchestrator import cluster
from orchestrator.errors import RunError

SLOW = "The current node timed out during startup. This could happen because some of the raylet failed to startup."


@pytest.mark.parametrize(
    ("said", "tried"),
    [([SLOW], 2), ([SLOW, SLOW], 2), (["no room in /dev/shm"], 1)],
    ids=["slow once", "slow twice", "another reason"],
)
def test_a_local_ray_that_is_slow_to_start_is_tried_once_more(said, tried, monkeypatch):
    ray = pytest.importorskip("ray")
    calls = []

    def init(**options):
        calls.append(options)
        if len(calls) <= len(said):
            raise Exception(said[len(calls) - 1])

    monkeypatch.setattr(ray, "init", init)
    if tried > len(said):
        assert cluster.connect(None, workers=2)
    else:
        with pytest.raises(RunError, match=said[-1][:20]):
            cluster.connect(None, workers=2)
    assert [options["num_cpus"] for options in calls] == [2] * tried


@pytest.fixture
def threads(monkeypatch):
    """In which thread Ray was begun and left."""
    found = {}

    def connect(address, *, workers):
        found["begun"] = (threading.current_thread(), address, workers)
        return True

    def disconnect(*, owned):
        found["left"] = (threading.current_thread(), owned)

    monkeypatch.setattr(cluster, "connect", connect)
    monkeypatch.setattr(cluster, "disconnect", disconnect)
    return found


def test_a_connection_is_left_in_the_thread_that_began_it_and_not_before_it_is_closed(threads):
    connection = cluster.Connection("head:6379", workers=3)
    assert connection.wait()
    thread, *asked = threads["begun"]
    assert asked == ["head:6379", 3] and thread is not threading.current_thread()
    assert thread.is_alive() and "left" not in threads
    connection.close()
    connection.join()
    assert threads["left"] == (thread, True) and not thread.is_alive()


def test_a_connection_that_nobody_waited_for_is_left_too(threads):
    connection = cluster.Connection(None, workers=1)
    connection.close()
    connection.join()
    assert threads["left"][1] is True


def test_whoever_waits_for_a_connection_is_told_why_there_is_none(monkeypatch):
    def refuse(address, *, workers):
        raise RunError("no room")

    monkeypatch.setattr(cluster, "connect", refuse)
    connection = cluster.Connection(None, workers=1)
    for _ in range(2):
        with pytest.raises(RunError, match="no room"):
            connection.wait()
    connection.join()


@pytest.mark.slow
def test_a_local_ray_has_the_daemons_that_it_cannot_do_without_and_no_others():
    """A process of its own: Ray is there once in a process's life."""
    code = """
import psutil
from orchestrator import cluster
from ray._private import parameter, services
names = [(parameter, "RayParams"), (services, "start_ray_process"), (services, "get_node")]
made = [getattr(*name) for name in names]
connection = cluster.Connection(None, workers=1)
assert connection.wait()
assert [getattr(*name) for name in names] == made
started = psutil.Process().children(recursive=True)
for process in started:
    print(" ".join(process.cmdline()))
connection.close()
connection.join()
assert not psutil.wait_procs(started, timeout=30)[1]
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    for daemon in ("gcs_server", "raylet/raylet"):
        assert daemon in ended.stdout
    for daemon in ("dashboard/dashboard.py", "log_monitor.py", "autoscaler/_private/monitor.py"):
        assert daemon not in ended.stdout
    assert ended.stdout.splitlines().count("cat") == 2
    for agent in ("agent.py", "agent/main.py", "Agent"):
        assert agent not in ended.stdout


def test_an_agent_is_a_cat_and_its_ports_are_said_to_be_none(tmp_path):
    asked = ["raylet", f"--session_dir={tmp_path}", f"--node_id={'ab' * 28}", "--head"]
    agents = ["--dashboard_agent_command=python a.py --x=1", "--runtime_env_agent_command=python b.py"]
    start = cluster._without_agents(lambda command, kind: (command, kind))
    assert start([*asked, *agents], "raylet") == (
        [*asked, "--dashboard_agent_command=cat", "--runtime_env_agent_command=cat"],
        "raylet",
    )
    assert {path.read_text() for path in tmp_path.iterdir()} == {"-1"}
    assert len(list(tmp_path.iterdir())) == 4
    assert start(agents, "gcs_server") == (agents, "gcs_server")


@pytest.mark.parametrize("name", cluster.ENVIRONMENT_GIVERS)
def test_a_ray_that_may_have_an_environment_to_make_keeps_its_agents(monkeypatch, name):
    monkeypatch.setenv(name, "{}")
    assert cluster._without_agents(print) is print


def test_another_ray_keeps_its_agents(monkeypatch):
    monkeypatch.setattr("ray.__version__", "3.0.0")
    assert cluster._without_agents(print) is print

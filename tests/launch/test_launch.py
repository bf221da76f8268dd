"""Starting jobs: from a list of hosts, under Slurm, and the recipes as their readers parse them."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import pytest
import yaml

from mmjax.core import distributed
from mmjax.core.errors import UserError
from tests.devices import device_env

ROOT = pathlib.Path(__file__).parents[2]


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def script(folder, name, text):
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def environment(tmp_path):
    """Two devices a process, this interpreter as `python`, and a folder for commands that stand in for a cluster's."""
    script(tmp_path, "python", f'exec {sys.executable} "$@"')
    return device_env(2) | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


def findings(text):
    """Returns what -> found of the doctor's JSON among lines that may begin with '[host] '."""
    plain = re.sub(r"^\[\w+\] ", "", text.replace("\r", ""), flags=re.MULTILINE)
    return {each["what"]: each["found"] for each in json.loads(plain[plain.index("[\n") : plain.rindex("]") + 1])}


def test_a_list_of_hosts(tmp_path, environment):
    script(tmp_path, "ssh", 'shift 2; exec bash -c "$1"')  # -tt HOST COMMAND, on this machine
    command = ["launch/hosts.sh", "localhost,localhost", "doctor", "--workdir", str(tmp_path / "run"), "--json"]
    settings = environment | {"PORT": str(free_port()), "SETUP": "export SEEN=1"}
    done = subprocess.run(command, env=settings, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    found = findings(done.stdout)
    assert found["processes"].startswith("2; this is 0") and found["devices"].startswith("2 of 4 here")
    assert "GB/s a device over 4 devices" in found["all-reduce"]
    assert found[f"folder {tmp_path / 'run'} of all"] == "all processes see the same"


def test_a_host_that_fails_ends_the_others(tmp_path, environment):
    script(tmp_path, "ssh", '[ "$2" = bad ] && exit 7; exec sleep 100')
    command = ["launch/hosts.sh", "good,bad", "doctor"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 7


def test_slurm_tells_the_processes_of_one_another(environment):
    job = {"SLURM_JOB_ID": str(free_port()), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    job |= {"SLURM_STEP_NUM_NODES": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "mmjax", "doctor", "--distributed", "--json"],
            env=environment | job | {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    printed = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], printed
    assert findings(printed[0])["processes"].startswith("2; this is 0") and "processes" not in printed[1]


SLURM = {"SLURM_JOB_ID": "12", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "1"}
SLURM |= {"SLURM_STEP_NUM_NODES": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
OPEN_MPI = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911", "OMPI_COMM_WORLD_SIZE": "1"}
OPEN_MPI |= {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
JOIN = """
import jax
from mmjax.core import distributed
distributed.join(detect=True)
print(*distributed.place(), jax.config.values["jax_cuda_visible_devices"])
"""


@pytest.mark.parametrize(
    ("job", "seen"),
    [
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "1(x4)"}, "all"),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "8(x4)"}, "0"),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "1", "JAX_LOCAL_DEVICE_IDS": "2,3"}, "2,3"),
        (OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, "all"),
        (OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, "0"),
    ],
)
def test_the_only_process_of_a_node_has_all_of_its_gpus(environment, job, seen):
    settings = environment | job | {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}"}
    done = subprocess.run(
        [sys.executable, "-c", JOIN], env=settings, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["0", "1", seen], done.stderr


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"),
    [
        (75, "40", True),
        (0, "0", False),
        (3, "0", False),
        (69, "0", True),
        (134, "19", True),
        (137, "0", True),
        (143, "0", True),
        (69, "20", False),
        (134, "20", False),
    ],
)
def test_slurm_requeues_what_was_stopped(tmp_path, environment, code, restarts, requeued):
    script(tmp_path, "srun", f'echo "srun $*"; exit {code}')
    script(tmp_path, "scontrol", 'echo "scontrol $*"')
    command = ["bash", "launch/slurm.sbatch", "--config", "configs/siglip.py:B/16"]
    settings = environment | {"SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": restarts}
    done = subprocess.run(command, env=settings, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "python -m mmjax train --distributed --config configs/siglip.py:B/16" in done.stdout
    assert ("scontrol requeue 12" in done.stdout) == requeued and done.returncode == (0 if requeued else code)


@pytest.mark.parametrize("recipe", ["gke_jobset.yaml", "gke_gpu_jobset.yaml"])
def test_a_jobset_is_whole(recipe):
    jobset = yaml.safe_load((ROOT / "launch" / recipe).read_text())
    replicated = jobset["spec"]["replicatedJobs"][0]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    given = dict(each.split("=", 1) for each in container["args"])
    if recipe == "gke_jobset.yaml":
        rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
        hosts = rows * columns // container["resources"]["limits"]["google.com/tpu"]
    else:
        hosts = int(given["--num-processes"])
        name, port = given["--coordinator"].split(":")
        assert name == f"{jobset['metadata']['name']}-{replicated['name']}-0-0.{jobset['metadata']['name']}"
        assert [each["containerPort"] for each in container["ports"]] == [int(port)]
    assert job["parallelism"] == job["completions"] == hosts
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"] and pod["restartPolicy"] == "Never"
    assert {mount["name"] for mount in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"coordinator": "a:1"}, "go together"),
        ({"coordinator": "a:1", "num_processes": 2, "process_id": 2}, "must be from 0 to 1"),
        ({"detect": True, "process_id": 0}, "leave --coordinator"),
        ({"detect": True}, "finds no job to join"),
    ],
)
def test_mistakes_are_sentences(given, message):
    with pytest.raises(UserError, match=message):
        distributed.join(**given)


def test_nothing_given_joins_nothing():
    distributed.join()

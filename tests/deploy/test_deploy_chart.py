"""The Helm chart: it lints, renders, satisfies Kubernetes' own schemas, and refuses wrong values."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from eul_serve import __version__
from eul_serve.cli.engine_options import DEFAULT_CAPACITY, DEFAULT_SLOTS
from eul_serve.cli.health import command as health
from eul_serve.cli.serve import command as serve
from eul_serve.cli.serve import serve_settings
from eul_serve.rpc.server import LIVENESS, READINESS

pytestmark = pytest.mark.tools

ROOT = Path(__file__).resolve().parents[2]
CPU = ROOT / "deploy" / "values" / "cpu.yaml"
GOLDEN = Path(__file__).parent / "golden" / "cpu.yaml"

# The oldest that the chart admits, one in between, and the newest that the validator knows.
KUBERNETES = ["1.27", "1.32", "1.37"]

ALL_SECRETS = {"secrets__tokens__name": "tokens", "secrets__serverKey__name": "key", "secrets__tls__name": "tls"}
CASES: dict[str, dict[str, str]] = {
    "defaults": {},
    "secrets": ALL_SECRETS,
    "digest": {"image__digest": "sha256:" + "a" * 64, "image__pullPolicy": "Always"},
    "claims": {"model__existingClaim": "m", "model__subPath": "smollm2/v1", "registry__existingClaim": "r"},
    "policy": {"policy__existingConfigMap": "mine"},
    "headless": {"service__headless": "true", "service__annotations.team": "ml"},
    "guarded": {"podDisruptionBudget__enabled": "true", "networkPolicy__enabled": "true"},
    "placed": {"nodeSelector__disk": "ssd", "podLabels__a": "b", "podAnnotations__c": "d", "serviceAccountName": "eul"},
}

Render = Callable[..., list[dict[str, Any]]]
Helm = Callable[..., subprocess.CompletedProcess[str]]


def of_kind(manifests: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def pods(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Specs of every pod that a release may start: the server's, and that of `helm test`."""
    deployed = [manifest["spec"]["template"]["spec"] for manifest in of_kind(manifests, "Deployment")]
    return deployed + [manifest["spec"] for manifest in of_kind(manifests, "Pod")]


def server(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    (deployment,) = of_kind(manifests, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(container)


def test_lint_finds_nothing(run_helm: Helm, chart: Path) -> None:
    for flags in ([], ["--values", CPU]):
        result = run_helm("lint", "--strict", "--quiet", chart, *flags)
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("case", CASES)
def test_kubernetes_accepts_every_manifest(render: Render, case: str, version: str) -> None:
    manifests = render(**CASES[case])
    assert {"Deployment", "Service", "Pod"} <= {manifest["kind"] for manifest in manifests}
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_accepts_the_cpu_values(render: Render, version: str) -> None:
    for manifest in render(CPU):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_cpu_values_render_to_the_golden_file(render: Render) -> None:
    """A change of the chart shows as a change of what a cluster gets. To renew: see CONTRIBUTING.md."""
    expected = [document for document in yaml.safe_load_all(GOLDEN.read_text()) if document]
    by_name = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in render(CPU)}
    assert by_name == {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in expected}


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("replicas=two", "/replicas"),
        ("image.digest=latest", "/image/digest"),
        ("server.grpcport=1", "grpcport"),
        ("server.grpcPort=80", "/server/grpcPort"),
        ("engine.maxRank=513", "/engine/maxRank"),
        ("engine.slots=0", "/engine/slots"),
        ("engine.slots=20", "engine.capacity"),
        ("engine.dtype=int4", "/engine/dtype"),
        ("model.size=big", "/model/size"),
        ("model.subPath=../x", "/model/subPath"),
        ("service.type=NodePort,service.headless=true", "/service/type"),
        ("networkPolicy.clients[0].ip=10.0.0.1", "ip"),
        ("secrets.tokens.value=abc", "value"),
        ("polcy.text=x", "polcy"),
        ("policy.keys.ana=x", "/policy/keys/ana"),
        ("policy.keys.policy\\.toml=-----BEGIN PUBLIC KEY-----", "policy.toml"),
    ],
)
def test_schema_refuses(run_helm: Helm, chart: Path, value: str, complaint: str) -> None:
    result = run_helm("template", "eul", chart, "--set", value)
    assert result.returncode != 0, f"{value} was accepted"
    assert complaint in result.stderr
    assert result.stdout == ""


def test_chart_serves_this_version(chart: Path) -> None:
    assert yaml.safe_load((chart / "Chart.yaml").read_text())["appVersion"] == __version__


def test_every_value_is_in_the_schema_and_the_readme(chart: Path) -> None:
    """`additionalProperties: false` holds at every level, so what values.yaml names must be there by name."""
    values = yaml.safe_load((chart / "values.yaml").read_text())
    schema = yaml.safe_load((chart / "values.schema.json").read_text())
    assert schema["additionalProperties"] is False
    assert set(values) == set(schema["properties"]) - {"global"}
    readme = (chart / "README.md").read_text()
    assert [name for name in values if f"`{name}`" not in readme] == []


@pytest.mark.parametrize("case", CASES)
def test_pods_are_restricted(render: Render, case: str) -> None:
    """The Restricted Pod Security Standard, and more: no writable root, no token of a service account."""
    for pod in pods(render(**CASES[case])):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] >= 10000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & set(pod)
        allowed = {"persistentVolumeClaim", "emptyDir", "configMap", "secret"}
        assert all(set(volume) - {"name"} <= allowed for volume in pod.get("volumes", []))
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]
            assert "cpu" in container["resources"]["requests"]


def test_only_cache_and_tmp_can_be_written(render: Render) -> None:
    mounts = server(render(**ALL_SECRETS))["volumeMounts"]
    assert {mount["mountPath"] for mount in mounts if not mount.get("readOnly")} == {"/cache", "/tmp"}
    # A subPath mount of a ConfigMap or Secret is never renewed; the server follows these files.
    assert not [m for m in mounts if m["name"] in {"policy", "tokens", "key", "tls"} and "subPath" in m]


def test_the_chart_holds_no_secret(render: Render) -> None:
    assert of_kind(render(**ALL_SECRETS), "Secret") == []


def parsed(command: click.Command, arguments: list[str]) -> dict[str, Any]:
    """Options as the command itself reads them; an unknown flag or a value of the wrong type raises."""
    with command.make_context("eul", list(arguments)) as context:
        return context.params


@pytest.mark.parametrize("case", CASES)
def test_serve_accepts_the_arguments(render: Render, case: str) -> None:
    options = parsed(serve, server(render(**CASES[case]))["args"])
    settings = serve_settings(options)
    assert (settings.transport.certificate is None) == options["insecure"]


def test_defaults_are_those_of_the_command(render: Render) -> None:
    """A default stands in two files; they must not drift apart. The rest is places, which a pod sets otherwise."""
    arguments = server(render())["args"]
    options = parsed(serve, arguments)
    defaults = {option.name: option.default for option in serve.params}
    defaults |= {"slots": DEFAULT_SLOTS, "capacity": DEFAULT_CAPACITY}  # which a memory budget may set instead
    places = {"model", "registry", "policy", "cache", "listen", "metrics_listen", "insecure"}
    given = {argument.split("=")[0].removeprefix("--").replace("-", "_") for argument in arguments} - places
    assert {name: options[name] for name in given} == {name: defaults[name] for name in given}


def test_large_numbers_stay_whole(render: Render, tmp_path: Path) -> None:
    """Helm reads the numbers of a file as floats, and would write a million as 1e+06."""
    values = tmp_path / "values.yaml"
    values.write_text("engine: {maxContext: 1048576, capacity: 65536}\nserver: {maxRequests: 1000000}\n")
    options = parsed(serve, server(render(values))["args"])
    assert (options["max_context"], options["capacity"], options["max_requests"]) == (1048576, 65536, 1000000)


def test_extra_arguments_come_last_and_win(render: Render) -> None:
    options = parsed(serve, server(render(**{"server__extraArgs[0]": "--max-rank=128"}))["args"])
    assert options["max_rank"] == 128


def test_ports_are_those_that_the_server_listens_on(render: Render) -> None:
    container = server(render(server__grpcPort="9001", server__metricsPort="9002"))
    settings = serve_settings(parsed(serve, container["args"]))
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": settings.transport.listen.port, "metrics": settings.metrics_listen.port}
    assert container["readinessProbe"]["grpc"]["port"] == settings.transport.listen.port


def test_probes_ask_the_health_service(render: Render) -> None:
    container = server(render())
    assert container["startupProbe"]["grpc"] == {"port": 8500, "service": LIVENESS}
    assert container["livenessProbe"]["grpc"] == {"port": 8500, "service": LIVENESS}
    assert container["readinessProbe"]["grpc"]["service"] in READINESS


def test_probes_ask_through_tls_by_command(render: Render) -> None:
    """The kubelet's gRPC probe cannot speak TLS; the command asks under the name that the certificate is for."""
    manifests = render(**ALL_SECRETS)
    (deployment,) = of_kind(manifests, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    container = server(manifests)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        program, *arguments = container[probe]["exec"]["command"]
        options = parsed(health, arguments[1:])
        assert (program, arguments[0]) == ("eul", "health")
        assert options["live"] == (probe != "readinessProbe")
        assert str(options["ca_cert"]) == "/etc/eul/tls/ca.crt"
        assert options["timeout"] < container[probe]["timeoutSeconds"]
        assert pod["hostAliases"] == [{"ip": "127.0.0.1", "hostnames": [options["server"].split(":")[0]]}]


def test_a_certificate_of_a_known_authority_needs_no_file(render: Render) -> None:
    container = server(render(secrets__tls__name="tls", secrets__tls__caKey=""))
    options = parsed(health, container["readinessProbe"]["exec"]["command"][2:])
    assert options["tls"]
    assert options["ca_cert"] is None


@pytest.mark.parametrize("tls", ["", "tls"])
@pytest.mark.parametrize("seconds", [5, 299, 300, 301])
def test_startup_probe_waits_as_long_as_asked(render: Render, seconds: int, tls: str) -> None:
    probe = server(render(startup__seconds=str(seconds), secrets__tls__name=tls))["startupProbe"]
    assert seconds <= probe["periodSeconds"] * probe["failureThreshold"] < seconds + probe["periodSeconds"]


@pytest.mark.parametrize("grace", [1, 30, 600])
def test_pod_is_given_longer_than_its_requests(render: Render, grace: int) -> None:
    """preStop, the grace, and ten seconds at least for the engine's processes to end."""
    (deployment,) = of_kind(render(server__graceSeconds=str(grace)), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    wait = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= wait + grace + 10


def test_helm_test_asks_for_health(render: Render) -> None:
    for values in ({}, ALL_SECRETS):
        (pod,) = of_kind(render(**values), "Pod")
        (container,) = pod["spec"]["containers"]
        assert container["command"] == ["eul", "health"]
        assert parsed(health, container["args"])["server"] == "eul-eul-serve.serving.svc:8500"
        items = [volume["secret"]["items"] for volume in pod["spec"].get("volumes", [])]
        assert all(item["key"] == "ca.crt" for group in items for item in group), "the test pod gets a private key"


def test_services_and_policies_select_the_pods(render: Render) -> None:
    manifests = render(CPU)
    (deployment,) = of_kind(manifests, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    selectors = [manifest["spec"]["selector"] for manifest in of_kind(manifests, "Service")]
    selectors += [deployment["spec"]["selector"]["matchLabels"]]
    selectors += [budget["spec"]["selector"]["matchLabels"] for budget in of_kind(manifests, "PodDisruptionBudget")]
    selectors += [policy["spec"]["podSelector"]["matchLabels"] for policy in of_kind(manifests, "NetworkPolicy")]
    assert len(selectors) == 5  # two services, the deployment, the budget, the policy
    assert all(selector.items() <= labels for selector in selectors)
    (pod,) = of_kind(manifests, "Pod")
    assert not selectors[0].items() <= pod["metadata"]["labels"].items(), "the test pod would get requests"


def test_network_policy_denies_by_default(render: Render) -> None:
    (policy,) = of_kind(render(networkPolicy__enabled="true"), "NetworkPolicy")
    assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    assert policy["spec"]["egress"] == []
    (only,) = policy["spec"]["ingress"]
    assert only["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"


def test_long_release_names_stay_legal(run_helm: Helm, chart: Path) -> None:
    """Helm admits 53 characters; names of services and labels end at 63."""
    result = run_helm("template", "a" * 53, chart)
    manifests = [manifest for manifest in yaml.safe_load_all(result.stdout) if manifest]
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name) for _, name in names), names


def test_the_keys_of_signers_lie_beside_the_policy(render: Render) -> None:
    (made,) = of_kind(render(CPU), "ConfigMap")
    assert set(made["data"]) == {"policy.toml", "ana.pub"}
    assert load_pem_public_key(made["data"]["ana.pub"].encode()).key_size == 256


def test_policy_change_restarts_no_pod(render: Render) -> None:
    first, second = (of_kind(render(policy__text=text), "Deployment") for text in ("# one", "# two"))
    assert first == second

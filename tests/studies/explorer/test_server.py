"""The served page: on this machine only, and no file but its own."""

import http.client
import socket
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from tests.rewardmodels.small import base_folder, reward_model
from tests.studies.explorer.pages import Served


def _get(address: str, path: str, host: str | None = None) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    response = connection.getresponse()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return response.status, response.read(), headers


def test_it_listens_on_this_machine_only(explorer: Served) -> None:
    where = urlsplit(explorer.address)
    assert where.hostname == "127.0.0.1" and where.port is not None
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for host in others:
        with pytest.raises(OSError):
            socket.create_connection((str(host), where.port), timeout=2).close()


def test_no_file_is_served(explorer: Served) -> None:
    home = explorer.home
    manifest = home / "runs" / "first" / "manifest.json"
    secrets = (b"root:x:", b"nobody may read this", b"schema_version", b"[build-system]", b"Starts the explorer")
    wanted = [
        "/etc/passwd",
        str(home / "secret.txt"),
        str(manifest),
        f"{home}/gradio/../secret.txt",
        f"{manifest.parent}/../../secret.txt",
        "app.py",
        "pyproject.toml",
        "//etc/passwd",
        "..%2f..%2fetc/passwd",
    ]
    routes = ("/gradio_api/file=", "/gradio_api/file/", "/file=", "/static/../", "/assets/../", "/theme.css/../")
    for path in wanted:
        for route in routes:
            for shape in (path, quote(path, safe="")):
                _, body, _ = _get(explorer.address, f"{route}{shape}")
                assert not any(secret in body for secret in secrets), f"{route}{shape}"
    for path in (str(manifest), str(home / "secret.txt"), "/etc/passwd", f"{home}/gradio/../secret.txt"):
        assert _get(explorer.address, f"/gradio_api/file={path}")[0] == 403


def test_what_a_user_added_is_served_back(explorer: Served) -> None:
    """The control of the test above: its requests do reach the route that serves files."""
    added = explorer.home / "gradio" / "added.txt"
    added.parent.mkdir(exist_ok=True)
    added.write_text("mine")
    assert _get(explorer.address, f"/gradio_api/file={added}")[:2] == (200, b"mine")


def test_addresses_are_not_fetched_for_others(explorer: Served) -> None:
    for path in ("/gradio_api/file=https://example.com/", "/gradio_api/proxy=https://example.com/", "/proxy=http://x/"):
        assert _get(explorer.address, path)[0] == 403


def test_foreign_host_names_are_refused(explorer: Served) -> None:
    """A page of another name, whose address was changed to this machine, reads nothing here."""
    port = urlsplit(explorer.address).port
    for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example", "", "::1"):
        status, body, _ = _get(explorer.address, "/", host)
        assert status == 403 and b"Sightcheck" not in body, host
    for host in ("localhost", f"localhost:{port}", "LOCALHOST", f"127.0.0.1:{port}", f"[::1]:{port}", "[::1]"):
        assert _get(explorer.address, "/", host)[0] == 200, host


def test_every_answer_forbids_other_hosts(explorer: Served) -> None:
    status, body, headers = _get(explorer.address, "/")
    assert status == 200 and "default-src 'self'" in headers["content-security-policy"]
    assert b"fonts.googleapis" not in body


def test_statistics_and_docs_are_off(explorer: Served) -> None:
    import gradio as gr

    from studies.explorer.app import build

    assert not gr.analytics.analytics_enabled()
    assert not build(None, explorer.home / "runs", explorer.home / "none").analytics_enabled
    assert _get(explorer.address, "/docs")[0] == 404 and _get(explorer.address, "/openapi.json")[0] == 404


def test_a_taken_port_is_named(explorer: Served) -> None:
    from probes.inputs import InputError
    from studies.explorer.app import build, serve

    page = build(None, explorer.home / "runs", explorer.home / "none")
    for port in (int(explorer.address.rsplit(":", 1)[1]), 70_000):
        with pytest.raises(InputError, match=f"port {port} cannot be used"):
            serve(page, port, block=False)


def test_a_page_without_a_reward_model_says_how_to_make_one(explorer: Served) -> None:
    from studies.explorer.app import build

    page = build(None, explorer.home / "runs", explorer.home / "none")
    values = {part["props"].get("elem_id"): part["props"].get("value") for part in page.get_config_file()["components"]}
    assert "sightcheck reward train" in str(values["reward-status"]) and "--reward" in str(values["reward-status"])
    assert "reward-examples" not in values


def test_a_reward_model_is_taken_from_its_folder_or_from_the_run_that_made_it(tmp_path: Path) -> None:
    from studies.explorer.app import load_reward

    made = reward_model("llava")
    made.save_pretrained(tmp_path / "run" / "model")
    expected = made.get_score("Which one?", "a cat")
    for folder in (tmp_path / "run", tmp_path / "run" / "model"):
        assert load_reward(folder, {"device": "cpu"}).get_score("Which one?", "a cat") == pytest.approx(
            expected, abs=1e-5
        )


def test_what_is_no_reward_model_is_refused_by_name(tmp_path: Path) -> None:
    from probes.inputs import InputError
    from studies.explorer.app import load_reward

    with pytest.raises(InputError, match="nothing"):
        load_reward(tmp_path / "nothing", {})
    with pytest.raises(InputError, match="which is no reward model"):
        load_reward(base_folder("llava"), {})

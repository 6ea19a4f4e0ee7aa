"""Labelling by hand: nobody without the token, nothing lost, and a real browser does it."""

import http.client
import importlib.util
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest

import experiments.label as label
from experiments.label_journal import Journal, fingerprint, journal_path
from experiments.label_pictures import Pictures, grid_view, maze_view
from experiments.label_server import LabelServer, Session
from experiments.names import UsageError
from prefs import mdps
from prefs.feedback import PreferenceData, Segments, load, provenance, save, unlabelled
from prefs.mdps.point_maze import point_maze

ROOT = Path(__file__).parents[2]
MDP = mdps.fixed_grid()


def _walks(num=6, length=4, columns=5):
    """Walks on a grid: every second one pads its last step."""
    rng = np.random.default_rng(0)
    places = rng.integers(0, columns, (num, 1, 2)) + np.zeros((num, length + 1, 2), int)
    for t in range(length):
        step = rng.integers(-1, 2, (num, 2)) * (rng.random((num, 1)) < [0.5, 0.5])
        places[:, t + 1] = np.clip(places[:, t] + step, 0, columns - 1)
    states = places @ [columns, 1]
    mask = np.ones((num, length), bool)
    mask[1::2, -1] = False
    parts = (states[:, :-1], rng.integers(0, 4, (num, length)), np.zeros((num, length), np.float32))
    arrays = [jax.numpy.asarray(part) for part in (*parts, mask, states[:, 1:])]
    return Segments(*arrays)


@pytest.fixture(scope="module")
def data():
    pairs = unlabelled([0, 1, 2, 3, 4], [5, 2, 3, 0, 1])
    return PreferenceData(_walks(), pairs.replace(mask=np.array([True, True, False, True, True])))


@pytest.fixture
def file(tmp_path, data):
    path = tmp_path / "grid.h5"
    save(path, data, provenance(seed=0, labeller="none", view=grid_view(MDP, 5)))
    return path


@pytest.fixture
def journal(tmp_path, data):
    with Journal(tmp_path / "j.jsonl", fingerprint(data), [0, 1, 3, 4]) as journal:
        yield journal


@contextmanager
def _serving(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server(data, journal):
    with _serving(LabelServer(Session(data, {}, journal))) as server:
        yield server


def _get(address):
    with urllib.request.urlopen(address, timeout=10) as reply:
        return reply.read()


def _post(address, body):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return json.loads(_open(urllib.request.Request(address, data, method="POST")))


def _open(request):
    with urllib.request.urlopen(request, timeout=10) as reply:
        return reply.read()


def _status(call, *arguments):
    with pytest.raises(urllib.error.HTTPError) as caught:
        call(*arguments)
    caught.value.close()
    return caught.value.code


def test_only_the_token_opens_anything(server):
    base, token = f"http://127.0.0.1:{server.server_port}", server.token
    assert len(token) >= 43
    wrong = token[:-1] + ("a" if token[-1] != "a" else "b")
    for path in ("", "/", f"/{wrong}/", f"/{wrong}/state", f"/{token}", "/state", "/favicon.ico"):
        assert _status(_get, base + path) == 403, path
    for path in (f"/{wrong}/answer", "/answer", "//answer", f"/x/{token}/answer", "/é/"):
        address = base + urllib.parse.quote(path)
        assert _status(_post, address, {"pair": 0, "choice": "first"}) == 403, path
    assert not server.session.journal.answers
    assert b"Which of the two" in _get(server.address)
    assert _status(_get, server.address + "other") == 404
    assert _status(_post, server.address + "other", {}) == 404


def test_it_listens_on_the_loopback_interface_only(server):
    assert server.server_address[0] == "127.0.0.1"
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request("GET", f"/{server.token}/state", headers={"Host": "evil.example"})
    reply = connection.getresponse()
    assert reply.status == 403 and b"pair" not in reply.read()
    connection.close()


def test_the_page_runs_only_its_own_script(server):
    with urllib.request.urlopen(server.address, timeout=10) as reply:
        policy, text = reply.headers["Content-Security-Policy"], reply.read().decode()
        assert reply.headers["Referrer-Policy"] == "no-referrer"
        assert reply.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in policy and "NONCE" not in text
    nonce = text.split('<script nonce="')[1].split('"')[0]
    assert f"script-src 'nonce-{nonce}'" in policy
    assert "http" not in text.replace("<!doctype html>", "").replace("<html", "").replace(
        "</html>", ""
    )


def test_answers_undo_and_progress(server):
    state = json.loads(_get(server.address + "state"))
    assert state == {"pair": 0, "segments": [0, 5], "next": [1, 2], "answered": 0, "total": 4}
    assert _status(_post, server.address + "undo", {}) == 409
    answer = server.address + "answer"
    assert _post(answer, {"pair": 0, "choice": "second"})["pair"] == 1
    assert _status(_post, answer, {"pair": 0, "choice": "first"}) == 409  # another page's old view
    state = _post(answer, {"pair": 1, "choice": "equal"})
    assert (state["pair"], state["segments"], state["answered"]) == (3, [3, 0], 2)  # 2 is masked
    state = _post(server.address + "undo", {})
    assert (state["pair"], state["answered"]) == (1, 1)
    for pair in (1, 3, 4):
        state = _post(answer, {"pair": pair, "choice": "skip"})
    assert state["pair"] is None and state["segments"] == [] and state["answered"] == 4
    assert server.session.journal.answers == {0: "second", 1: "skip", 3: "skip", 4: "skip"}


@pytest.mark.parametrize(
    "body",
    [
        {"pair": 0, "choice": "third"},
        {"pair": "0", "choice": "first"},
        {"pair": True, "choice": "first"},
        {"choice": "first"},
        [0, "first"],
        b"not json",
        b"\xff\xfe",
        b"{" * 5000,
    ],
)
def test_bad_answers_are_refused(server, body):
    assert _status(_post, server.address + "answer", body) == 400
    assert not server.session.journal.answers


def test_an_answer_that_cannot_be_written_is_not_taken(server, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = server.session.journal.path.read_bytes()
    monkeypatch.setattr("experiments.label_journal.os.fsync", full)
    assert _status(_post, server.address + "answer", {"pair": 0, "choice": "first"}) == 507
    assert not server.session.journal.answers
    assert server.session.journal.path.read_bytes() == before
    monkeypatch.undo()
    assert _post(server.address + "answer", {"pair": 0, "choice": "first"})["answered"] == 1


def test_pictures_are_images_of_their_segment(server, data):
    first, again, other = (_get(f"{server.address}segment/{number}.png") for number in (0, 0, 3))
    assert first.startswith(b"\x89PNG\r\n") and first == again != other
    for name in ("6.png", "-1.png", "x.png", "../grid.h5", "0.svg"):
        assert _status(_get, f"{server.address}segment/{name}") == 404


def test_each_kind_of_segment_has_its_picture(data):
    rng = np.random.default_rng(1)
    maze = point_maze()
    path = rng.uniform(-0.8, 0.8, (2, 4, 2)).astype(np.float32)
    paths = Segments(path, path, path[..., 0], np.ones((2, 4), bool), path)
    grid, generic = grid_view(MDP, 5), None
    assert grid["goal"] == [24] and grid["hazard"] == [12]
    drawn = [
        Pictures(data.segments, grid).png(0),
        Pictures(data.segments, generic).png(0),
        Pictures(paths, maze_view(maze)).png(0),
        Pictures(paths, generic).png(0),
    ]
    assert len(set(drawn)) == 4
    # a view that does not fit falls back to curves
    small = {**grid, "rows": 1, "columns": 2}
    for view in (small, {"kind": "grid"}, {"kind": "maze", "walls": 3}, "grid", {"kind": "?"}):
        assert Pictures(data.segments, view).png(0) == drawn[1]
    assert Pictures(paths, {"kind": "maze", "walls": 3}).png(0) == drawn[3]
    with pytest.raises(ValueError, match="25 states are no grid of 4 columns"):
        grid_view(MDP, 4)


def test_a_journal_resumes_and_drops_a_torn_line(tmp_path, data):
    path, mark, pairs = tmp_path / "j.jsonl", fingerprint(data), [0, 1, 3, 4]
    with Journal(path, mark, pairs) as journal:
        for pair, choice in ((0, "first"), (1, "equal"), (3, "skip")):
            journal.record(pair, choice)
        assert journal.undo() == 3
        with pytest.raises(UsageError, match="in use"):
            Journal(path, mark, pairs)
    whole = path.read_bytes()
    for torn in (b'{"pair": 3, "choi', b'{"pair": 3, "choice": "first"}'):
        path.write_bytes(whole + torn)
        with Journal(path, mark, pairs) as journal:
            assert journal.answers == {0: "first", 1: "equal"}
            assert journal.next_pairs(3) == [3, 4]
        assert path.read_bytes() == whole
    path.write_bytes(whole[:10])  # torn in its first line: nothing had been answered
    with Journal(path, mark, pairs) as journal:
        assert journal.answers == {}


def test_a_foreign_or_damaged_journal_is_refused(tmp_path, data):
    path, mark = tmp_path / "j.jsonl", fingerprint(data)
    with Journal(path, mark, [0, 1]) as journal:
        journal.record(0, "first")
    with pytest.raises(UsageError, match="another data set"):
        Journal(path, "0" * 64, [0, 1])
    whole = path.read_text()
    for line in ("nonsense", "[]", '{"pair": 0, "choice": "first"}', '{"pair": 7}', '{"undo": 1}'):
        path.write_text(whole + line + "\n")
        with pytest.raises(UsageError, match="line 3: not an answer"):
            Journal(path, mark, [0, 1])
    path.write_text("other\n")
    with pytest.raises(UsageError, match="not a journal of labels"):
        Journal(path, mark, [0, 1])
    other = data.replace(segments=data.segments.replace(actions=data.segments.actions + 1))
    relabelled = data.replace(pairs=data.pairs.replace(label=data.pairs.label * 0))
    assert fingerprint(other) != mark == fingerprint(relabelled)


def test_export_writes_what_was_answered(file, data, capsys):
    with Journal(journal_path(file), fingerprint(data), [0, 1, 3, 4]) as journal:
        journal.record(0, "skip")
    label.run(label.Label(file, export=True))
    assert "nothing written" in capsys.readouterr().out
    with Journal(journal_path(file), fingerprint(data), [0, 1, 3, 4]) as journal:
        for pair, choice in ((1, "second"), (3, "equal")):
            journal.record(pair, choice)
    label.run(label.Label(file, export=True))
    written, about = load(file.with_name("grid-labelled.h5"))
    np.testing.assert_array_equal(written.pairs.mask, [False, True, False, True, False])
    np.testing.assert_array_equal(written.pairs.label, [0.5, 0.0, 0.5, 0.5, 0.5])
    jax.tree.map(np.testing.assert_array_equal, written.segments, data.segments)
    assert about["labeller"] == "human" and about["asked_of"] == "none" and about["unanswered"] == 1
    assert about["answers"] == {"first": 0, "second": 1, "equal": 1, "skip": 1}
    assert about["seed"] == 0 and about["view"]["kind"] == "grid"
    before = file.read_bytes()
    with pytest.raises(UsageError, match="must not be the data set itself"):
        label.run(label.Label(file, export=True, out=file))
    assert file.read_bytes() == before


def test_requests_that_cannot_be_met(file, tmp_path, server):
    with pytest.raises(UsageError, match="absent.h5: no such file"):
        label.run(label.Label(tmp_path / "absent.h5"))
    with pytest.raises(UsageError, match="--port must be from 0 to 65535"):
        label.run(label.Label(file, port=70000))
    with pytest.raises(UsageError, match=f"cannot listen on port {server.server_port}"):
        label.run(label.Label(file, port=server.server_port, browser=False))


@contextmanager
def _session(file, monkeypatch):
    """`label` running in a thread; the address it opens a browser with, and its end to wait for."""
    opened = queue.Queue()
    monkeypatch.setattr(label.webbrowser, "open", opened.put)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(label.run, label.Label(file))
        try:
            address = opened.get(timeout=60)
        except queue.Empty:
            running.result(timeout=0)
            raise
        try:
            yield address, running
        finally:
            if not running.done():
                _post(address + "stop", {})
            running.result(timeout=60)


def test_nothing_answered_is_lost_when_the_process_is_killed(file, monkeypatch, data):
    code = (
        "import sys; from pathlib import Path; from experiments.label import Label, run; "
        "run(Label(Path(sys.argv[1]), browser=False))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(file)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            said = next(line for line in process.stdout if line.startswith("The page is "))
            address = said.removeprefix("The page is ").strip()
            _post(address + "answer", {"pair": 0, "choice": "first"})
            _post(address + "answer", {"pair": 1, "choice": "equal"})
        finally:
            process.send_signal(signal.SIGKILL)
    with _session(file, monkeypatch) as (address, _):
        state = json.loads(_get(address + "state"))
        assert (state["pair"], state["answered"]) == (3, 2)  # the answered are not asked again
        _post(address + "answer", {"pair": 3, "choice": "second"})
    written, _ = load(file.with_name("grid-labelled.h5"))
    np.testing.assert_array_equal(written.pairs.label, [1.0, 0.5, 0.5, 0.0, 0.5])
    np.testing.assert_array_equal(written.pairs.mask, [True, True, False, True, False])


def _why_no_browser():
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if importlib.util.find_spec("selenium") is None:
        missing.append("selenium")
    return f"{', '.join(missing)} not installed" if missing else ""


@pytest.fixture
def browser(tmp_path):
    reason = _why_no_browser()
    if reason and os.environ.get("JAXRL5G_REQUIRE_BROWSER", "") not in ("", "0"):
        pytest.fail(f"JAXRL5G_REQUIRE_BROWSER=1, but {reason}")
    if reason:
        pytest.skip(reason)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    arguments = ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu")
    for argument in (*arguments, f"user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(f"--{argument}")
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options, service)
    try:
        yield driver
    finally:
        driver.quit()


def test_a_person_labels_in_a_browser(browser, file, monkeypatch):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    wait = WebDriverWait(browser, 60)
    body = lambda: browser.find_element(By.TAG_NAME, "body")  # noqa: E731

    def asked(pair, answered):
        wait.until(lambda _: body().get_attribute("data-pair") == str(pair))
        assert body().get_attribute("data-answered") == str(answered)
        assert f"{answered} of 4 answered" in browser.find_element(By.ID, "count").text

    def shown():
        drawn = "return [...document.images].every(i => i.complete && i.naturalWidth === 500)"
        wait.until(lambda _: browser.execute_script(drawn))
        return browser.execute_script("return [...document.images].map(i => i.src)")

    with _session(file, monkeypatch) as (address, running):
        browser.get(address.replace(address.split("/")[3], "guess"))
        assert "Forbidden" in body().text

        browser.get(address)
        asked(0, 0)
        assert shown() == [f"{address}segment/0.png", f"{address}segment/5.png"]
        browser.find_element(By.CSS_SELECTOR, "[data-choice=first]").click()
        asked(1, 1)
        assert shown() == [f"{address}segment/1.png", f"{address}segment/2.png"]
        body().send_keys("2")
        asked(3, 2)
        body().send_keys(Keys.ARROW_DOWN)
        asked(4, 3)
        browser.find_element(By.ID, "undo").click()
        asked(3, 2)
        browser.refresh()  # a page that is closed and opened again goes on where it was
        asked(3, 2)
        body().send_keys("s")
        asked(4, 3)
        body().send_keys(Keys.ARROW_LEFT)
        asked("none", 4)
        assert browser.find_element(By.ID, "done").is_displayed()
        assert not browser.find_element(By.ID, "asked").is_displayed()
        body().send_keys("u")
        asked(4, 3)
        browser.find_element(By.CSS_SELECTOR, "[data-choice=equal]").click()
        asked("none", 4)
        browser.find_element(By.ID, "stop").click()
        wait.until(lambda _: body().get_attribute("data-pair") == "stopped")
        running.result(timeout=60)
        severe = [entry for entry in browser.get_log("browser") if "403" not in entry["message"]]
        assert not severe
    written, _ = load(file.with_name("grid-labelled.h5"))
    np.testing.assert_array_equal(written.pairs.label, [1.0, 0.0, 0.5, 0.5, 0.5])
    np.testing.assert_array_equal(written.pairs.mask, [True, True, False, False, True])

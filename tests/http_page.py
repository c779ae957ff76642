"""The status page in headless Chromium, used as a person does: the token, the progress, a search, a click on a passage.

usage: http_page.py URL TOKEN FOLDER QUESTION TITLE
Needs chromedriver and chromium on PATH; speaks the WebDriver protocol by itself. Writes screenshots into FOLDER: light,
dark, and a phone's width. QUESTION must find a book named TITLE. Prints a line for each thing tried.
"""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

url, token, folder, question, title = sys.argv[1:6]
FIND = "element-6066-11e4-a52e-4f735466cecf"


def say(text):
    print("ok:", text, flush=True)


class Browser:
    def __init__(self, *arguments):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.profile = tempfile.mkdtemp()
        self.driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.base = f"http://127.0.0.1:{port}"
        self.session = None
        for _ in range(200):
            try:
                self.call("GET", "/status")
                break
            except OSError:
                time.sleep(0.1)
        options = {"args": [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", f"--user-data-dir={self.profile}", *arguments]}
        chromium = shutil.which("chromium")
        if chromium:
            options["binary"] = chromium
        made = self.call("POST", "/session", {"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}})
        self.session = made["sessionId"]

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            return json.load(urllib.request.urlopen(request, timeout=60))["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()) from None

    def do(self, method, path, body=None):
        return self.call(method, f"/session/{self.session}{path}", body)

    def script(self, text, *arguments):
        return self.do("POST", "/execute/sync", {"script": text, "args": list(arguments)})

    def element(self, selector):
        return self.do("POST", "/element", {"using": "css selector", "value": selector})[FIND]

    def click(self, selector):
        self.do("POST", f"/element/{self.element(selector)}/click", {})

    def type(self, selector, text):
        self.do("POST", f"/element/{self.element(selector)}/value", {"text": text})

    def text(self, selector):
        return self.do("GET", f"/element/{self.element(selector)}/text")

    def until(self, what, holds):
        for _ in range(300):
            if holds():
                return
            time.sleep(0.1)
        raise AssertionError(f"not within 30 s: {what}; the page says: {self.text('body')}; {self.log()}")

    def log(self):
        return [entry["message"] for entry in self.do("POST", "/se/log", {"type": "browser"})]

    def picture(self, name, width, height=None):
        self.do("POST", "/window/rect", {"width": width, "height": height or 900})
        time.sleep(0.3)
        tall = self.script("return document.documentElement.scrollHeight")
        self.do("POST", "/window/rect", {"width": width, "height": min(int(tall) + 200, 6000)})
        time.sleep(0.3)
        with open(os.path.join(folder, name), "wb") as file:
            file.write(base64.b64decode(self.do("GET", "/screenshot")))
        wide = self.script("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert wide[0] <= wide[1], f"{name}: the page is wider than the window: {wide}"

    def end(self):
        try:
            if self.session:
                self.call("DELETE", f"/session/{self.session}")
        finally:
            self.driver.terminate()
            self.driver.wait(10)
            shutil.rmtree(self.profile, ignore_errors=True)


def sign_in(browser, with_token):
    browser.do("POST", "/url", {"url": url + "/"})
    browser.until("the token is asked for", lambda: not browser.script(
        "return document.getElementById('login').hidden"))
    browser.type("#token", with_token)
    browser.click("#token-form button")


os.makedirs(folder, exist_ok=True)
browser = Browser("--force-color-profile=srgb")
try:
    sign_in(browser, "not-the-token-at-all")
    browser.until("a wrong token is refused", lambda: "not the token" in browser.text("#login"))
    assert browser.script("return document.getElementById('content').hidden"), "nothing is shown without the token"
    say("a wrong token shows nothing")
    browser.type("#token", token)
    browser.click("#token-form button")
    browser.until("the status is shown", lambda: "books" in browser.text("#progress-big"))
    say("the token opens: " + browser.text("#state") + ", " + browser.text("#progress-big"))
    browser.do("POST", "/refresh", {})
    browser.until("the tab keeps the token", lambda: "books" in browser.text("#progress-big"))
    assert browser.script("return localStorage.length") == 0 and browser.script("return document.cookie") == ""
    say("the tab keeps the token, and nothing else does")
    browser.type("#question", question)
    browser.click("#search-form button")
    browser.until("the book is found", lambda: title in browser.text("#hits"))
    say("found: " + browser.text("#search-note"))
    # A book's title is a stranger's text; this one tries to be a script.
    assert browser.script("return window.hacked === undefined && document.querySelectorAll('#hits img').length === 0")
    before = browser.script("return document.querySelector('#hits .passage').clientHeight")
    browser.click("#hits button")
    assert browser.script("return document.querySelector('#hits .passage').clientHeight") > before
    browser.click("#hits button")
    assert browser.script("return document.querySelector('#hits .passage').clientHeight") == before
    say("a long passage opens and closes")
    unlabelled = browser.script(
        "return [...document.querySelectorAll('input:not([hidden])')].filter((input) => !input.labels.length).length + "
        "[...document.querySelectorAll('progress,svg')].filter((part) => !part.getAttribute('aria-label') && "
        "!part.getAttribute('aria-labelledby') && !part.querySelector('title')).length")
    assert unlabelled == 0, "every field, bar and chart has a name for those who do not see it"
    browser.picture("light.png", 1100)
    browser.picture("phone.png", 500)
    say("light, and a phone's width, without scrolling sideways")
    loaded = browser.script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert all(name.startswith(url) for name in loaded), loaded
    refused = [line for line in browser.log() if "401" not in line]
    assert not refused, refused
    say("nothing was loaded from elsewhere, nothing was refused by the page's policy")
finally:
    browser.end()

browser = Browser("--force-dark-mode", "--blink-settings=preferredColorScheme=0")
try:
    sign_in(browser, token)
    browser.until("the status is shown", lambda: "books" in browser.text("#progress-big"))
    browser.type("#question", question)
    browser.click("#search-form button")
    browser.until("the book is found", lambda: title in browser.text("#hits"))
    colour = browser.script("return getComputedStyle(document.body).backgroundColor")
    assert colour == "rgb(20, 23, 27)", colour
    browser.picture("dark.png", 1100)
    say("dark where the person's system is")
finally:
    browser.end()

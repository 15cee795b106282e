"""The dashboard as a WSGI application, for gunicorn in `test_hosts.py`. Redis comes from REDIS_URL.

It answers once before the server forks, so that its loop's thread is there and does not survive."""

from __future__ import annotations

import io

from pillion.web import ANYONE_I_KNOW, dashboard

app = dashboard(auth=ANYONE_I_KNOW).wsgi()
ASKED = {
    "REQUEST_METHOD": "GET",
    "PATH_INFO": "/readyz",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "wsgi.input": io.BytesIO(),
}
assert b"".join(app(ASKED, lambda *_: None)) == b"ok\n"

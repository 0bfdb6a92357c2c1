"""Runs in: gunicorn's workers, or its master with --preload. An upload endpoint whose decoder is confined; one worker for each request."""

from __future__ import annotations

import os

import flask
from sizes import Sizes

import bunri

app = flask.Flask(__name__)

if os.environ.get("PREPARE") == "at import":
    bunri.prepare(Sizes)  # with --preload this is in the master, and every child makes its own zygotes


@app.post("/upload")
def upload() -> tuple[dict[str, object], int]:
    data = flask.request.files["image"].read()
    with Sizes.start() as worker:
        try:
            with bunri.deadline(5):
                return {"size": worker.size(data), "host": os.getpid(), "worker": worker.process.pid}, 200
        except bunri.PeerError as fault:
            return {"refused": type(fault).__name__}, 422


@app.get("/ping")
def ping() -> dict[str, int]:
    return {"host": os.getpid()}

"""Runs in: uvicorn's process, or gunicorn's uvicorn workers. An upload endpoint on a pool that lives as long as the application."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

import fastapi
from sizes import Sizes

import bunri


@contextlib.asynccontextmanager
async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[None]:
    async with Sizes.pool(2) as pool:
        app.state.pool = pool
        yield


app = fastapi.FastAPI(lifespan=lifespan)


@app.post("/upload")
async def upload(image: fastapi.UploadFile, response: fastapi.Response) -> dict[str, object]:
    data = await image.read()
    try:
        with bunri.deadline(5):
            size = await bunri.call(app.state.pool.size, data)
    except bunri.PeerError as fault:
        response.status_code = 422
        return {"refused": type(fault).__name__}
    return {"size": size, "host": os.getpid(), "loop": type(asyncio.get_running_loop()).__module__}


@app.get("/ping")
def ping() -> dict[str, int]:
    return {"host": os.getpid()}

"""Runs tests that are coroutines, each in a loop of its own, on every database and in every format."""

import asyncio
import inspect
import itertools
import os

import pytest

from server import DATABASES
from support import FORMATS, World

# The SDK would take a proxy of the environment for the way to a server on this machine.
for variable in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[variable]


@pytest.fixture(params=itertools.product(DATABASES, FORMATS), ids="-".join)
def world(request):
    world = World(*request.param)
    yield world
    world.end()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    world = pyfuncitem.funcargs["world"]

    async def run():
        try:
            await pyfuncitem.obj(world)
        finally:
            await world.close()

    asyncio.run(run())
    return True

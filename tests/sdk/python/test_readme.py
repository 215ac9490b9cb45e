"""The Python example of the README, run as a reader runs it."""

import re
import subprocess
import sys

from server import DEADLINE_S, ROOT


async def test_the_python_example_of_the_readme_prints_what_it_says(world):
    example = re.search(r"<!-- test: python -->\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    assert "127.0.0.1:8000" in example
    server = world.server()
    file = server.folder / "chat.py"
    file.write_text(example.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}"))
    run = subprocess.run([sys.executable, file], capture_output=True, text=True, timeout=DEADLINE_S)
    assert run.stdout == "1 hello from Python\n", run.stderr

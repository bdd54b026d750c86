"""Tab completion as a shell asks for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import environment
from tests.test_architecture import COMMANDS

# As bash does when Tab is pressed: it cuts the line into words, at `=` too, and calls the function.
PRESS = """
eval "$({python} -m src.train --shell-completion install=bash)" || exit 1
press() {{
    COMP_LINE=$1 COMP_POINT=${{#1}} COMP_WORDS=({python})
    _pixelwise_completion
    echo "${{COMPREPLY[*]}}"
}}
complete -p python
press "{python} -m src."
press "{python} -m src.ev"
press "{python} -m src.train network=f"
press "{python} -m src.train network=unet network.encoder_w"
press "{python} -m src.train trainer=cpu optimizer=sgd optimizer.mom"
press "{python} -m src.predict opac"
press "{python} -m json.tool --in"
press "{python} script.py --in"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_what_tab_offers(tmp_path: Path) -> None:
    result = subprocess.run(
        ["bash", "--norc", "-c", PRESS.format(python=sys.executable)],
        text=True, capture_output=True, cwd=tmp_path, env=environment(), timeout=100,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "complete -o default -o nospace -F _pixelwise_completion python",
        " ".join(f"src.{name}" for name in sorted(COMMANDS)),
        "src.evaluate",
        "fcn fpn",  # without the key: bash keeps what stands before the `=`
        "network.encoder_weights=",
        "optimizer.momentum=",
        "opacity=",
        "",
        "",
    ]

"""What is installed is what was locked, under licences that a user of this project can live with."""

from __future__ import annotations

import os
import re
import subprocess
from email.message import Message
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import Marker

from tests.conftest import ROOT

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
# Licences as packages name them: permissive ones, weak copyleft that asks nothing of who imports it, NVIDIA's for CUDA.
KNOWN = re.compile(
    r"\b(MIT|MIT-CMU|BSD|0BSD|FreeBSD|ISC|ISCL|HPND|Zlib|BSL-1\.0|CC0-1\.0|Unlicense|Apache|Apache-2\.0|"
    r"GNU Lesser General Public License v3|ZPL-2\.1|"
    r"Python Software Foundation|PSF|PSF-2\.0|MPL-2\.0|Mozilla Public License 2\.0|NVIDIA[- ]Proprietary)(?![A-Za-z])"
)
FORBIDDEN = re.compile(
    r"\bA?GPL|GNU (Affero )?General Public|SSPL|Commons Clause|Non-?Commercial|CC-BY-NC", re.IGNORECASE
)
# Packages whose metadata says nothing, and what was read elsewhere.
LOOKED_UP = {
    "cuda-toolkit": "NVIDIA Proprietary: names NVIDIA's own packages and holds no file",
    "aim-ui": "Apache-2.0: the pages of aim, built from its repository",
}
TEXTS = {"Apache License, Version 2.0": "Apache-2.0"}  # of licence files, for packages whose metadata says nothing


def licence(package: metadata.Distribution) -> str:
    """What a package says of its licence; a choice ("or") counts as its best."""
    about: Message = package.metadata  # type: ignore[assignment]
    said = [
        about.get("License-Expression"),
        *(c for c in about.get_all("Classifier") or [] if c.startswith("License ::")),
    ]
    said = [text for text in said if text] or [(about.get("License") or "").strip().split("\n")[0]]
    text = " ".join(text for text in said if text and text != "UNKNOWN")
    if not text:
        files = [f for f in package.files or [] if "LICENSE" in f.name.upper() and ".dist-info" in str(f)]
        texts = [Path(str(f.locate())).read_text(encoding="utf-8", errors="replace") for f in files]
        text = " ".join(name for phrase, name in TEXTS.items() if any(phrase in t for t in texts))
    return text or LOOKED_UP.get(str(about["Name"]).lower(), "")


def wrong(text: str) -> str | None:
    if FORBIDDEN.search(text):
        return "is forbidden here"
    return None if KNOWN.search(text) else "is none that is known; read it, then add it to this test"


def test_everything_installed_has_a_licence_that_we_can_live_with() -> None:
    packages = list(metadata.distributions())
    assert len(packages) > 100
    bad = {str(p.metadata["Name"]): f"{licence(p)!r} {wrong(licence(p))}" for p in packages if wrong(licence(p))}
    assert bad == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [("GPL-3.0-only", "forbidden"), ("AGPL-3.0", "forbidden"), ("GNU General Public License v3", "forbidden"),
     ("CC-BY-NC-4.0", "forbidden"), ("", "none that is known"), ("Proprietary", "none that is known"), ("MITRE", "none that")],
)  # fmt: skip
def test_a_licence_that_we_cannot_live_with_is_found(text: str, said: str) -> None:
    assert said in str(wrong(text))


def test_the_lock_names_hashes_and_no_hosts() -> None:
    assert "://" not in LOCK
    assert "--index-url" not in LOCK and "--find-links" not in LOCK
    pinned = [entry for entry in re.split(r"\n(?=[a-z0-9])", LOCK) if re.match(r"[a-z0-9._-]+==", entry)]
    assert len(pinned) > 150
    for entry in pinned:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.split("\n")[0]


def test_what_is_installed_is_what_is_locked() -> None:
    """Where the environment was set up by make; an own one may have other versions."""
    if os.environ.get("VIRTUAL_ENV") != str(ROOT / ".venv") and not (ROOT / ".venv/.ready").is_file():
        pytest.skip("not the environment that make sets up")
    entries = re.findall(r"^([a-z0-9._-]+)==(\S+)(?: ; (.+?))? \\$", LOCK, flags=re.MULTILINE)
    locked = {name: version for name, version, where in entries if not where or Marker(where).evaluate()}
    for package in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", str(package.metadata["Name"])).lower()
        if name not in ("pixelwise", "pip"):
            assert locked.get(name) == package.version, name


def test_the_audit_fails_where_nothing_can_be_looked_up() -> None:
    """`--strict`: a package that the service does not know, or a service that cannot be reached, is no clean bill."""
    asked = subprocess.run(["make", "--dry-run", "audit"], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    (line,) = (line for line in asked.splitlines() if "pip-audit --" in line)
    assert "--strict" in line.split()
    assert "|| true" not in line
    assert not line.startswith("-")

"""Other people's packages in versions this project does not install: an environment of their own, on top of ours."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def python(requirement: str) -> str:
    """The interpreter of an environment that has `requirement`, and everything else from the one that runs now.

    Made at the first call, in .venv-<requirement> beside .venv; needs the package index then.
    """
    folder = ROOT / f".venv-{requirement.replace('==', '-')}"
    interpreter = folder / "bin" / "python"
    done = folder / ".complete"
    if not done.exists():
        venv.create(folder, with_pip=False, clear=True, symlinks=True)
        own = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(own), requirement]
        subprocess.run(command, check=True)
        (own / "ours.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
        done.touch()
    return str(interpreter)

"""The embedded default, made faster, in a data folder that is thrown away."""

import atexit
import os
import shutil
import tempfile

os.environ["DATA_DIR"] = tempfile.mkdtemp(prefix="nestbox-test-")
atexit.register(shutil.rmtree, os.environ["DATA_DIR"], ignore_errors=True)

from config.settings.base import *  # noqa: E402, F403
from config.settings.base import DATA_DIR, DATABASES, environment  # noqa: E402

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # A file, because threads and processes share it in many tests, and a database in memory would serialise them.
    DATABASES["default"]["TEST"] = {"NAME": str(DATA_DIR / "test.sqlite3")}
    DATABASES["default"]["OPTIONS"] = environment.sqlite_options(synchronous="OFF")
else:
    # A name of its own for each run, so that two runs at once do not take each other's database away.
    DATABASES["default"]["TEST"] = {"NAME": f"test_nestbox_{os.getpid()}"}

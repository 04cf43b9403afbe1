"""The shape of the house, read from its own code: which way imports and foreign keys point, and what is never done."""

from __future__ import annotations

import ast
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from django.apps import apps
from django.conf import settings

ROOT = Path(settings.BASE_DIR)
APPS = ("annotate", "feedback", "rewardtrain")
OURS = (*APPS, "config")
LEARNING_PACKAGES = {"torch", "transformers", "trl", "peft", "accelerate", "datasets", "safetensors", "tokenizers"}
PURE = ("losses", "advantages", "kl", "reranking", "metrics", "shared_prefix", "student_t")


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imported_names(path: Path) -> Iterator[str]:
    """Every module a file imports, at any depth, relative imports resolved."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def top_level_imports(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported_names(path)}


def called_names(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """The last part of the name of everything called, with the call."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            yield name, node


def offences(files: list[Path], forbidden: set[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in sorted(top_level_imports(path) & forbidden)
    ]


def test_the_reader_of_imports_sees_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    module = tmp_path / "feedback" / "models" / "work.py"
    module.parent.mkdir(parents=True)
    module.write_text("import a.b\nfrom c import d\ndef f():\n    from ..x import y\n    from . import z\n")
    assert set(imported_names(module)) == {
        "a.b", "c", "c.d", "feedback.x", "feedback.x.y", "feedback.models", "feedback.models.z"
    }  # fmt: skip
    assert offences([module], {"c"}) == ["feedback/models/work.py imports c"]


def test_feedback_imports_neither_neighbour_nor_anything_that_learns() -> None:
    assert offences(python_files("feedback"), {"annotate", "rewardtrain", *LEARNING_PACKAGES}) == []


def test_annotate_and_rewardtrain_do_not_import_each_other() -> None:
    assert offences(python_files("annotate"), {"rewardtrain", *LEARNING_PACKAGES}) == []
    assert offences(python_files("rewardtrain"), {"annotate"}) == []


def test_the_apps_do_not_know_who_wires_them() -> None:
    """Commands are the exception: they are started by hand, and may start processes themselves."""
    files = [path for path in python_files(*APPS) if "commands" not in path.parts]
    assert offences(files, {"config"}) == []


def test_the_mathematics_knows_neither_django_nor_rows() -> None:
    """`feedback.agreement` is mathematics too: shares, intervals and the ceiling, which both apps report."""
    files = [path for path in python_files("rewardtrain") if path.stem in PURE]
    assert files
    assert offences([*files, ROOT / "feedback" / "agreement.py"], {"django", "celery", "config"}) == []
    rows = [name for path in files for name in imported_names(path) if name.split(".")[0] == "feedback"]
    assert {".".join(name.split(".")[:2]) for name in rows} <= {"feedback.agreement"}


def test_foreign_keys_point_the_way_imports_do() -> None:
    allowed = {
        "feedback": {"feedback", "auth", "contenttypes"},
        "rewardtrain": {"rewardtrain", "feedback", "auth", "contenttypes"},
    }
    wrong = [
        f"{model._meta.label}.{field.name}"
        for app, targets in allowed.items()
        for model in apps.get_app_config(app).get_models(include_auto_created=True)
        for field in model._meta.get_fields(include_hidden=False)
        if field.is_relation and not field.auto_created
        if field.related_model is None or field.related_model._meta.app_label not in targets
    ]
    assert wrong == []


def test_annotate_owns_no_tables() -> None:
    assert list(apps.get_app_config("annotate").get_models()) == []


WEB = """
import config.wsgi
from django.urls import get_resolver
def load(patterns):
    for pattern in patterns:
        load(getattr(pattern, "url_patterns", []))
load(get_resolver().url_patterns)
from django.test import Client
assert Client().get("/healthz", headers={"host": "localhost"}).status_code in (200, 503)
"""
TORCH_FREE_WORKER = "import config\nconfig.celery_app.loader.import_default_modules()\nimport django\n"


@pytest.mark.parametrize("code", [WEB, TORCH_FREE_WORKER], ids=["web", "default worker"])
def test_a_process_that_does_not_learn_never_loads_torch(code: str, tmp_path: Path) -> None:
    """The modules each process loads at its start, every address of the site included."""
    ending = "import sys, json\nprint(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    loaded = subprocess.run(
        [sys.executable, "-c", code + ending],
        cwd=ROOT,
        env=os.environ
        | {"DATA_DIR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "config.settings.base", "LOG_LEVEL": "CRITICAL"},
        capture_output=True,
        text=True,
        check=True,
    )
    modules = set(json.loads(loaded.stdout.splitlines()[-1]))
    assert {"django", "celery", "feedback", "rewardtrain"} <= modules
    assert modules & (LEARNING_PACKAGES - {"safetensors"}) == set()


def test_the_bell_is_rung_in_one_place_and_only_after_commit() -> None:
    rung = [
        str(path.relative_to(ROOT))
        for path in python_files(*OURS)
        for name, _ in called_names(path)
        if name in {"send_task", "delay", "apply_async"}
    ]
    assert rung == ["feedback/queue.py"]
    queue = tree(ROOT / "feedback" / "queue.py")
    senders = {
        function.name
        for function in ast.walk(queue)
        if isinstance(function, ast.FunctionDef)
        and any(isinstance(node, ast.Attribute) and node.attr == "send_task" for node in ast.walk(function))
    }
    after_commit = {
        getattr(call.func, "id", "")
        for name, registration in called_names(ROOT / "feedback" / "queue.py")
        if name == "on_commit"
        for call in ast.walk(registration)
        if isinstance(call, ast.Call)
    }
    assert senders and senders <= after_commit


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def reached_from(*modules: str) -> set[str]:
    """Every module of ours that these import, at any depth and through any number of others."""
    files = {module_name(path): path for path in python_files(*OURS)}
    reached: set[str] = set()
    waiting = [name for name in modules if name in files]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting.extend(found for found in imported_names(files[name]) if found in files)
    return reached


ALLOWED_TO_MEASURE = {"rehearse", "measure_starter"}
SIMULATED = {"rewardtrain.starter.oracle", "rewardtrain.starter.annotators", "rewardtrain.starter.measure"}
LEARNING_MODULES = (
    "reward_model_run",
    "policy_run",
    "gate_run",
    "reward_training",
    "reward_model",
    "ppo",
    "rollouts",
    "policy",
    "gate",
    "sampling",
    "rounds",
    "runs",
    "tasks",
)


def test_training_and_gate_never_see_the_oracle() -> None:
    """The oracle judges for simulated annotators and measures; a policy that could read it would learn nothing else."""
    commands = [
        module_name(path) for path in python_files("rewardtrain/management") if path.stem not in ALLOWED_TO_MEASURE
    ]
    reached = reached_from(*(f"rewardtrain.{name}" for name in LEARNING_MODULES), *commands)
    assert {"rewardtrain.policy_run", "rewardtrain.ppo", "rewardtrain.reward_training", "feedback.models"} <= reached
    assert reached & SIMULATED == set()
    assert reached_from("rewardtrain.starter.annotators", "rewardtrain.starter.measure") >= SIMULATED


def test_loading_data_never_runs_its_code() -> None:
    running = {"pickle", "shelve", "marshal", "joblib", "dill", "cloudpickle", "_pickle"}
    assert offences(python_files(*OURS), running) == []
    wrong = [
        f"{path.relative_to(ROOT)}:{call.lineno} {name}"
        for path in python_files(*OURS)
        for name, call in called_names(path)
        if (isinstance(call.func, ast.Name) and name in {"eval", "exec"})
        or (isinstance(call.func, ast.Attribute) and ast.unparse(call.func) in {"torch.load", "yaml.load", "np.load"})
        or any(
            keyword.arg == "trust_remote_code" and ast.unparse(keyword.value) != "False" for keyword in call.keywords
        )
        or any(keyword.arg == "shell" and ast.unparse(keyword.value) != "False" for keyword in call.keywords)
    ]
    assert wrong == []


def test_untrusted_text_is_never_declared_safe() -> None:
    """Markup comes from format_html with a literal pattern, or goes through nh3, and only there is text called safe."""
    wrong = [
        f"{path.relative_to(ROOT)}:{call.lineno} {name}"
        for path in python_files(*OURS)
        for name, call in called_names(path)
        if (name in {"mark_safe", "SafeString", "SafeText"} and "nh3" not in top_level_imports(path))
        or (name == "format_html" and not isinstance(call.args[0], ast.Constant))
    ]
    assert wrong == []


FORBIDDEN_IN_TEMPLATES = {
    "declares text safe": r"\|\s*safe\b|\{%\s*autoescape\s+off|\bsafeseq\b",
    "has an inline style": r"<[^>]*\sstyle\s*=|<style\b",
    "has an inline handler": r"<[^>]*\son[a-z]+\s*=|\bhx-on\b|[\"']js:|javascript:",
    "has a script without a nonce or a file": r"<script(?![^>]*\b(?:src|nonce)=)[^>]*>",
    "loads from another server": r"\b(?:src|href)=[\"'](?:https?:)?//(?!\{)",
}


def template_files() -> list[Path]:
    return sorted(path for folder in ("templates", *OURS) for path in (ROOT / folder).rglob("*.html"))


@pytest.mark.parametrize("what", sorted(FORBIDDEN_IN_TEMPLATES))
def test_no_template(what: str) -> None:
    """`no template declares text safe`, and so on."""
    pattern = re.compile(FORBIDDEN_IN_TEMPLATES[what], re.IGNORECASE)
    wrong = [
        f"{path.relative_to(ROOT)}: {match.group(0)[:80]}"
        for path in template_files()
        for match in pattern.finditer(
            re.sub(r"\{#.*?#\}|\{% comment %\}.*?\{% endcomment %\}", "", path.read_text(), flags=re.S)
        )
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("what", "markup"),
    [
        ("declares text safe", "{{ reply.text|safe }}"),
        ("has an inline style", '<p class="a" style="color: red">'),
        ("has an inline handler", '<button onclick="go()">'),
        ("has a script without a nonce or a file", "<script>go()</script>"),
        ("loads from another server", '<script src="https://cdn.example.org/x.js" nonce="n"></script>'),
    ],
)
def test_the_template_rules_notice(what: str, markup: str) -> None:
    assert re.search(FORBIDDEN_IN_TEMPLATES[what], markup, re.IGNORECASE)


def test_no_file_is_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "services", "common", "misc"}
    assert [str(path.relative_to(ROOT)) for path in python_files(*OURS, "tests") if path.stem in drawers] == []


def test_functions_stay_short() -> None:
    """Half of them under a dozen lines, 95 % under 45, counting the docstring and the signature."""
    lengths = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for path in python_files(*OURS)
        if "migrations" not in path.parts
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert statistics.median(lengths) <= 12
    assert statistics.quantiles(lengths, n=20)[-1] <= 45

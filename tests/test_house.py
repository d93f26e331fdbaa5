"""The house rules and the import table, read from the syntax tree of every file. Breaking one fails here."""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOUSE = ("studio", "engines", "demos", "pocket", "benchmarks", "tests", "spaces", "app.py")
STANDARD = sys.stdlib_module_names

SERVICE_LIBRARIES = {
    "pydantic",
    "numpy",
    "PIL",
    "fastapi",
    "starlette",
    "uvicorn",
    "itsdangerous",
    "jinja2",
    "prometheus_client",
    "psutil",
    "safetensors",
    "imageio",
    "imageio_ffmpeg",
    "trimesh",
    "huggingface_hub",
}
WEB_SIDE = {"gradio", "fastapi", "starlette", "uvicorn", "sqlite3", "jinja2"}
ENGINE_DEPENDENCIES = {
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "peft",
    "safetensors",
    "tokenizers",
    "numpy",
    "scipy",
    "PIL",
    "einops",
    "pydantic",
    "trimesh",
    "open3d",
    "imageio",
    "xatlas",
    "triton",
    "tqdm",
    "huggingface_hub",
}
IDEA_DEPENDENCIES = {"torch", "triton", "numpy", "einops"}
IDEAS = {
    "ultraimage": {"frequency", "concentration", "guidance", "schedule", "dype"},
    "ultravico": {"decay", "rope", "geometry", "pattern", "norepeat", "stripes", "kernel", "attention"},
    "prolificdreamer": {"vsd", "schedules", "cameras", "hashgrid", "volume", "tetrahedra", "exact", "toy"},
    "rid": {"defender", "plain", "adv_sds", "attacks", "jpeg", "framing"},
}


def python_files(*places: str) -> list[Path]:
    found: list[Path] = []
    for place in places:
        path = ROOT / place
        found += [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))
    return [path for path in found if path.exists()]


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(path: Path, *, nested: bool = True) -> Iterator[str]:
    """Dotted names a file imports; `nested=False` leaves out imports inside functions and for type checkers."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]

    def walk(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or is_type_checking(child)
            if nested or not inside:
                yield child
                yield from walk(child)

    for node in walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            full = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{full}.{alias.name}" for alias in node.names)


def top(name: str) -> str:
    return name.split(".")[0]


def under(name: str, *prefixes: str) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def foreign(path: Path, allowed: set[str], *house: str) -> list[str]:
    """Imports of `path` that are neither standard, nor in `allowed`, nor under a `house` prefix."""
    return sorted(
        {
            name
            for name in imports(path)
            if top(name) not in STANDARD and top(name) not in allowed and not under(name, *house)
        }
    )


def test_app_only_assembles():
    path = ROOT / "app.py"
    assert len(path.read_text().splitlines()) <= 120
    assert not foreign(path, {"gradio", "fastapi", "uvicorn"}, "studio", "demos", "engines")
    assert not [name for name in imports(path) if re.search(r"\.(run|pipeline)(\.|$)", name)]


@pytest.mark.parametrize("path", python_files("demos"), ids=module_name)
def test_demos_know_widgets_and_specs_only(path: Path):
    own = path.stem
    house = ["studio.contract", "studio.errors", "demos.panel", "demos.tab", f"engines.{own}.spec"]
    if own in {"__init__", "panel", "fields"}:  # the list of tabs, and the panel's own parts
        house += ["demos"]
    bad = foreign(path, {"gradio", "numpy", "PIL"}, *house)
    typed = set(imports(path)) - set(imports(path, nested=False))
    bad = [name for name in bad if not (name in typed and under(name, "studio.services", "studio.jobs"))]
    assert not bad, "services come as an argument; a tab knows its own spec only"
    assert "sqlite3" not in {top(name) for name in imports(path)}


@pytest.mark.parametrize("path", python_files("studio"), ids=module_name)
def test_studio_knows_no_pages_no_methods(path: Path):
    name = module_name(path)
    allowed = SERVICE_LIBRARIES | ({"ray"} if name == "studio.executors.ray" else set())
    house = ["studio"] + (["engines"] if name == "studio.catalog" else [])
    lazily_torch = name in {"studio.models", "studio.worker", "studio.run_context", "studio.devices"}
    assert not foreign(path, allowed | ({"torch"} if lazily_torch else set()), *house)
    assert "torch" not in {top(found) for found in imports(path, nested=False)}, "torch only inside functions"


def engine_modules() -> list[Path]:
    return [path for path in python_files("engines") if path.parent.name not in {"engines", "shared"}]


@pytest.mark.parametrize("path", engine_modules(), ids=module_name)
def test_engines_know_the_contract_only(path: Path):
    engine = path.relative_to(ROOT / "engines").parts[0]
    house = ["studio.contract", "studio.errors", "engines.shared", f"engines.{engine}"]
    if path.stem == "metrics":
        house += [
            "pocket.world",
            "pocket.people",
            "pocket.lessons",
            "pocket.renderer",
            "pocket.camera",
            "pocket.wording",
            "pocket.flatworld",
            "pocket.grammar",
        ]
    assert not foreign(path, ENGINE_DEPENDENCIES, *house)
    assert not WEB_SIDE & {top(name) for name in imports(path)}


@pytest.mark.parametrize("path", python_files("engines/shared"), ids=module_name)
def test_shared_knows_no_engine(path: Path):
    assert not foreign(path, ENGINE_DEPENDENCIES, "studio.contract", "studio.errors", "engines.shared")


@pytest.mark.parametrize(
    "path", [p for p in engine_modules() if p.stem in IDEAS.get(p.parent.name, set())], ids=module_name
)
def test_idea_files_are_pure(path: Path):
    assert not foreign(path, IDEA_DEPENDENCIES, "engines.shared", f"engines.{path.parent.name}")
    source = path.read_text()
    for word in ("from_pretrained", "open(", "logging", ".cuda(", "print("):
        assert word not in source, f"{word} in an idea file"


def test_specs_import_no_torch():
    for path in python_files("engines"):
        if path.stem == "spec" or path.parent.name == "engines":
            assert not {"torch", "diffusers", "transformers"} & {top(name) for name in imports(path)}, path


def test_only_pipelines_load_published_weights():
    for path in python_files("engines", "studio", "demos", "app.py"):
        if path.stem not in {"pipeline"}:
            assert ".from_pretrained(" not in path.read_text(), path


@pytest.mark.parametrize("path", python_files("pocket"), ids=module_name)
def test_pocket_trains_and_knows_no_pages(path: Path):
    bad = [name for name in imports(path) if top(name) in {"demos", "gradio"} or under(name, "studio")]
    bad += [
        name
        for name in imports(path)
        if top(name) == "engines"
        and not re.match(r"engines(\.\w+\.(train|pipeline|judge|neighbours|identity)(\.|$)|\.shared)", name)
    ]
    assert not bad


def test_nothing_imports_spaces_and_it_is_no_package():
    assert not list((ROOT / "spaces").rglob("__init__.py"))
    for path in python_files("studio", "engines", "demos", "pocket", "app.py"):
        assert "spaces" not in {top(name) for name in imports(path)}


def test_no_import_cycles():
    files = {module_name(path): path for path in python_files(*HOUSE)}
    edges = {
        name: {known for found in imports(path, nested=False) for known in _targets(found, files)} - {name}
        for name, path in files.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, "import cycle: " + " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for target in sorted(edges[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in sorted(edges):
        visit(name, ())


def _targets(found: str, files: dict[str, Path]) -> list[str]:
    """The project's module behind a dotted name: `a.b.C` is the module a.b."""
    while found:
        if found in files:
            return [found]
        found = found.rpartition(".")[0]
    return []


@pytest.mark.parametrize("path", python_files("studio", "engines", "demos", "pocket", "app.py"), ids=module_name)
def test_every_module_says_what_it_is(path: Path):
    docstring = ast.get_docstring(tree_of(path))
    assert docstring or not path.read_text().strip(), "a file is one noun; its docstring says what it is"


def public_definitions(path: Path) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for node in tree_of(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node


@pytest.mark.parametrize("path", [*python_files("studio"), *engine_modules()], ids=module_name)
def test_public_names_are_documented(path: Path):
    bare = [node.name for node in public_definitions(path) if not ast.get_docstring(node)]
    small_types = {
        node.name for node in public_definitions(path) if isinstance(node, ast.ClassDef) and len(node.body) < 12
    }
    assert not [name for name in bare if name not in small_types]


def test_environment_is_read_in_settings_only():
    for path in python_files("studio", "engines", "demos", "pocket", "app.py"):
        if path != ROOT / "studio" / "settings.py":
            source = path.read_text()
            assert "os.environ" not in source, path
            assert "getenv" not in source, path


BROAD_ALLOWED = re.compile(r"^(studio\.worker|studio\.web|studio\.api|demos\..*)$")


@pytest.mark.parametrize("path", python_files("studio", "engines", "demos", "pocket", "app.py"), ids=module_name)
def test_broad_catches_stand_at_the_boundaries(path: Path):
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler):
            names = "" if node.type is None else ast.unparse(node.type)
            broad = node.type is None or re.search(r"\b(Base)?Exception\b", names)
            reraises = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
            assert not broad or reraises or BROAD_ALLOWED.match(module_name(path)), f"line {node.lineno}"


def test_no_test_sleeps_or_skips():
    forbidden = re.compile(
        r"(time\.sleep\(|asyncio\.sleep\(|wait_for_timeout\(|pytest\.skip|mark\.skip|mark\.xfail|importorskip)"
    )
    for path in python_files("tests"):
        if path != Path(__file__).resolve() and "engine" not in path.parent.name:
            found = forbidden.search(path.read_text())
            assert not found, f"{path.relative_to(ROOT)}: {found.group() if found else ''}"


def test_every_requirement_is_pinned_with_a_reason():
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    for file in ROOT.glob("requirements*.txt"):
        for line in file.read_text().splitlines():
            if line.strip() and not line.startswith(("#", "-")):
                requirement, _, reason = line.partition("#")
                name = re.split(r"[\[=<> ]", requirement.strip())[0].lower().replace("_", "-")
                assert reason.strip(), f"{file.name}: {name} has no reason"
                assert "==" in requirement or name in pinned, f"{file.name}: {name} is not pinned"


def test_shipped_files_carry_source_and_licence():
    third_party = (ROOT / "THIRD_PARTY.md").read_text()
    for path in (ROOT / "assets").rglob("*"):
        if path.is_file():
            assert path.stat().st_size < 10_000_000, f"{path} is 10 MB or more"
            folder = path.relative_to(ROOT).parts[1]
            assert f"assets/{folder}" in third_party, f"assets/{folder} is not in THIRD_PARTY.md"
    photos = ROOT / "assets" / "examples" / "photos"
    told = (photos / "README.md").read_text()
    for path in photos.glob("*.png"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() in told, f"{path.name} is not the file that was licensed"
    for weights in (ROOT / "assets" / "pocket").glob("*/"):
        assert (weights / "README.md").exists(), f"{weights.name} has no model card"


def test_readme_tree_is_true():
    """Every path named in the README's annotated tree exists, and every top-level folder and room is named."""
    readme = (ROOT / "README.md").read_text()
    block = readme.split("## The tree")[1].split("```")[1]
    named = re.findall(r"^(\S+)", block, flags=re.M)
    for name in named:
        assert (ROOT / name.rstrip("/")).exists(), f"README names {name}, which does not exist"
    for path in python_files("studio", "demos"):
        name = str(path.relative_to(ROOT))
        assert name in named or path.name == "__init__.py", f"README's tree lacks {name}"
    for path in sorted((ROOT / "engines").iterdir()):
        if path.is_dir() and path.name != "__pycache__":
            assert f"engines/{path.name}/" in named, f"README's tree lacks engines/{path.name}/"


def test_every_setting_is_in_the_manual():
    manual = (ROOT / "docs" / "operations.md").read_text()
    from studio.settings import table

    for variable, _default, _text in table():
        assert variable in manual, f"{variable} is not explained in docs/operations.md"


# The base class, and ways to leave a run that are no failures.
NOT_SHOWN = {"error", "cancelled", "paused", "kept", "lease_lost", "stopping"}


def test_every_error_and_metric_is_in_the_manual():
    manual = (ROOT / "docs" / "operations.md").read_text()
    sources = {path: path.read_text() for path in python_files("studio", "engines")}
    codes = {
        code
        for text in sources.values()
        for code in re.findall(r"""(?:^    code(?:: ClassVar\[str\])? = |"code": )"(\w+)\"""", text, flags=re.M)
    } - {*NOT_SHOWN, "http"}
    assert {"worker_died", "out_of_memory", "invalid_input"} <= codes
    for code in sorted(codes):
        assert f"`{code}`" in manual, f"the error {code} is not explained in docs/operations.md"
    metrics = re.findall(r'"(atelier_\w+)"', sources[ROOT / "studio" / "metrics.py"])
    assert len(metrics) >= 10
    for metric in metrics:
        assert f"`{metric}" in manual, f"the metric {metric} is not explained in docs/operations.md"

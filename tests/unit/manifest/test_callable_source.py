from pathlib import Path

import pytest
from sample_manifest import document

from job.errors import UsageError
from job.manifest import parse
from job.manifest.callable_source import check_callable


def check(folder: Path, target: str, source: str = "") -> None:
    if source:
        (folder / "nets.py").write_text(source)
    body = document(model__name=None, model__callable=target)
    check_callable(parse(body, "m.json", folder))


@pytest.mark.parametrize(
    "source",
    [
        "def network(num_classes): ...",
        "def network(): ...",
        "def network(num_classes=10, *, width=1.0, **more): ...",
        "def network(*args): ...",
        "class network:\n    def __init__(self, num_classes): ...",
        "class network(Base): ...",
        "network = make()",
        "network, other = make()",
        "if True:\n    network: int = 1",
        "try:\n    import x\nexcept ImportError:\n    def network(): ...",
        "from elsewhere import network",
        "from elsewhere import something as network",
        "from elsewhere import *",
        "globals()['network'] = 1",
        "def __getattr__(name): ...",
        "@decorated\ndef network(a, b): ...",
        "class network:\n    @decorated\n    def __init__(self, a, b): ...",
        "for network in (1, 2): ...",
    ],
)
def test_what_can_be_called_is_accepted(tmp_path: Path, source: str) -> None:
    check(tmp_path, "nets:network", source)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def net_work(): ...", "network"),
        ("def other():\n    def network(): ...", "network"),
        ("class Other:\n    network = 1", "network"),
        ("def network(width): ...", "width"),
        ("def network(num_classes, width, depth=1): ...", "width"),
        ("def network(*, width): ...", "width"),
        ("class network:\n    def __init__(self, num_classes, width): ...", "width"),
        ("\ndef network(:", "line 2"),
    ],
)
def test_what_cannot_be_called_is_named(tmp_path: Path, source: str, found: str) -> None:
    with pytest.raises(UsageError, match=rf"(?s)/model/callable: .*nets.*{found}") as caught:
        check(tmp_path, "nets:network", source)
    assert caught.value.exit_code == 2


def test_modules_are_found_where_the_stage_imports_them(tmp_path: Path) -> None:
    package = tmp_path / "package/deep"
    package.mkdir(parents=True)
    (package / "nets.py").write_text("def network(): ...")
    (package / "__init__.py").write_text("from package.deep.nets import network")
    check(tmp_path, "package.deep.nets:network")
    check(tmp_path, "package.deep:network")
    check(tmp_path, "json:JSONDecoder")
    check(tmp_path, "math:sqrt")
    (package / "fast.cpython-311-x86_64-linux-gnu.so").touch()
    check(tmp_path, "package.deep.fast:network")


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("package.nest:network", "'nest'"),
        ("pakage.nets:network", "'pakage'"),
        ("package.nets.more:network", "'more'"),
    ],
)
def test_a_missing_module_is_named(tmp_path: Path, target: str, found: str) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package/nets.py").write_text("def network(): ...")
    with pytest.raises(UsageError, match=rf"/model/callable: .*{target}.*{found}"):
        check(tmp_path, target)


def test_nothing_is_run(tmp_path: Path) -> None:
    check(tmp_path, "nets:network", f"open({str(tmp_path / 'ran')!r}, 'w')\ndef network(): ...")
    assert not (tmp_path / "ran").exists()

import pytest

from jaxrl5g.channel import check_llvm
from jaxrl5g.channel import llvm as module
from jaxrl5g.channel.llvm import find_llvm, llvm_version


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch):
    monkeypatch.delenv("DRJIT_LIBLLVM_PATH", raising=False)
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(module, "cuda_available", lambda: False)


def install(folder, *names):
    for name in names:
        (folder / name).write_bytes(b"not really")
    return (str(folder),)


def test_the_newest_by_number_is_chosen(tmp_path):
    where = install(tmp_path, "libLLVM-9.so.1", "libLLVM-14.so.1", "libLLVM.so.19.1")
    assert find_llvm(where).name == "libLLVM.so.19.1"
    check_llvm(where)


def test_links_come_second(tmp_path):
    where = install(tmp_path, "libLLVM-15.so.1")
    (tmp_path / "libLLVM.so.19.1").symlink_to(tmp_path / "libLLVM-15.so.1")
    assert find_llvm(where).name == "libLLVM-15.so.1"


@pytest.mark.parametrize("name", ["libLLVM-14.so.1", "libLLVM-15.so.1", "libLLVM-16.so.1"])
def test_too_old(tmp_path, name):
    with pytest.raises(RuntimeError) as caught:
        check_llvm(install(tmp_path, name))
    for word in (name, "too old", "libllvm19", "DRJIT_LIBLLVM_PATH"):
        assert word in str(caught.value)


def test_none_at_all(tmp_path):
    with pytest.raises(RuntimeError, match="none was found.*libllvm19"):
        check_llvm((str(tmp_path),))


def test_the_override_wins(tmp_path, monkeypatch):
    where = install(tmp_path, "libLLVM.so.19.1", "libLLVM-15.so.1")
    monkeypatch.setenv("DRJIT_LIBLLVM_PATH", str(tmp_path / "libLLVM-15.so.1"))
    with pytest.raises(RuntimeError, match="too old"):
        check_llvm(where)
    monkeypatch.setenv("DRJIT_LIBLLVM_PATH", str(tmp_path / "gone.so"))
    with pytest.raises(RuntimeError, match="does not exist"):
        check_llvm(where)


def test_the_linkers_own_path_comes_before_the_glob(tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    (other / "libLLVM.so").symlink_to(other / "libLLVM-15.so.1")
    install(other, "libLLVM-15.so.1")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(other))
    with pytest.raises(RuntimeError, match="LLVM 15"):
        check_llvm(install(tmp_path, "libLLVM.so.19.1"))


def test_a_name_without_version_is_asked_and_may_not_answer(tmp_path):
    install(tmp_path, "libLLVM.so")
    assert llvm_version(tmp_path / "libLLVM.so") is None
    with pytest.raises(RuntimeError, match="no readable LLVM"):
        check_llvm((str(tmp_path),))


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("libLLVM-15.so.1", 15),
        ("libLLVM.so.19.1", 19),
        ("libLLVM-19.so", 19),
        ("libLLVM.so.22.0", 22),
    ],
)
def test_versions_from_names(tmp_path, name, version):
    assert llvm_version(tmp_path / name) == version


def test_a_gpu_needs_no_llvm(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "cuda_available", lambda: True)
    check_llvm((str(tmp_path),))

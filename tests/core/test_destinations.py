"""What lies at the end of a path: links, modes, pipes, devices, descriptors, files that are kept."""

import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from crossclass.core import destinations, files, made_by
from crossclass.core.errors import UserError
from crossclass.core.files import replacing, require_writable, write_atomic

ROOT = os.geteuid() == 0


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not list(tmp_path.rglob("*.tmp"))


class TestLinks:
    @pytest.mark.parametrize("target", ["store/m.json", "{here}/store/m.json", "../{name}/store/m.json"])
    def test_the_target_changes_and_the_link_stays(self, here, target):
        (here / "store").mkdir()
        (here / "store" / "m.json").write_text("old")
        (here / "a").symlink_to(target.format(here=here, name=here.name))
        (here / "b").symlink_to("a")
        write_atomic(Path("b"), "new")
        assert (here / "a").is_symlink()
        assert (here / "b").is_symlink()
        assert (here / "store" / "m.json").read_text() == "new"

    def test_a_dangling_link_makes_its_target(self, here):
        (here / "a").symlink_to("store/m.json")
        require_writable(Path("a"))
        write_atomic(Path("a"), "new")
        assert (here / "a").is_symlink()
        assert (here / "store" / "m.json").read_text() == "new"

    def test_links_in_a_circle_are_a_sentence(self, here):
        (here / "a").symlink_to("b")
        (here / "b").symlink_to("a")
        for write in (require_writable, lambda path: write_atomic(path, "")):
            with pytest.raises(UserError, match="circle"):
                write(Path("a"))

    def test_a_link_to_a_folder_is_a_folder(self, here):
        (here / "store").mkdir()
        (here / "a").symlink_to("store")
        with pytest.raises(UserError, match="folder"):
            require_writable(Path("a"))

    def test_a_folder_behind_a_link_is_written_in(self, here):
        (here / "store").mkdir()
        (here / "a").symlink_to("store")
        write_atomic(Path("a/m.json"), "new")
        assert (here / "a").is_symlink()
        assert (here / "store" / "m.json").read_text() == "new"

    def test_another_hard_link_keeps_the_old_content(self, here):
        (here / "a").write_text("old")
        os.link("a", "copy")
        write_atomic(Path("a"), "new")
        assert ((here / "a").read_text(), (here / "copy").read_text()) == ("new", "old")


class TestModes:
    @pytest.mark.parametrize("bits", [0o664, 0o600, 0o640, 0o755])
    def test_a_file_keeps_its_mode(self, here, bits):
        (here / "a").write_text("old")
        (here / "a").chmod(bits)
        write_atomic(Path("a"), "new")
        assert mode(here / "a") == bits

    @pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
    def test_a_new_file_gets_what_the_umask_leaves(self, here, umask):
        before = os.umask(umask)
        try:
            write_atomic(Path("a"), "new")
        finally:
            os.umask(before)
        assert mode(here / "a") == 0o666 & ~umask

    @pytest.mark.skipif(not ROOT, reason="only root can give files away")
    def test_a_file_keeps_its_owner(self, here):
        (here / "a").write_text("old")
        os.chown("a", 1234, 2345)
        (here / "a").chmod(0o664)
        write_atomic(Path("a"), "new")
        now = (here / "a").stat()
        assert (now.st_uid, now.st_gid, mode(here / "a")) == (1234, 2345, 0o664)

    def test_a_read_only_file_is_kept(self, here):
        (here / "a").write_text("old")
        (here / "a").chmod(0o444)
        for write in (require_writable, lambda path: write_atomic(path, "new")):
            with pytest.raises(UserError, match="read-only"):
                write(Path("a"))
        assert (here / "a").read_text() == "old"


class TestNames:
    def test_the_longest_name_is_written(self, here):
        name = "ш" * 125 + ".json"
        write_atomic(Path(name), "new")
        assert Path(name).read_text() == "new"

    @pytest.mark.parametrize("name", ["x" * 300, "a\0b", "folder", "file/b", "file/b/c"])
    def test_what_cannot_be_a_file_is_a_sentence_before_the_work(self, here, name):
        (here / "folder").mkdir()
        (here / "file").write_text("")
        for write in (require_writable, lambda path: write_atomic(path, "")):
            with pytest.raises(UserError) as e:
                write(Path(name))
            assert str(e.value).isprintable()

    def test_a_folder_that_is_gone(self, tmp_path, monkeypatch):
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        with pytest.raises(UserError, match="gone"):
            require_writable(Path("a"))


class Reader:
    """Reads a pipe to its end in a thread."""

    def __init__(self, path: Path) -> None:
        self.content = b""
        self._thread = threading.Thread(target=self._read, args=(os.open(path, os.O_RDONLY | os.O_NONBLOCK),))
        self._go = threading.Event()
        self._thread.start()

    def _read(self, number: int) -> None:
        os.set_blocking(number, True)
        self._go.wait(20)  # a read before the writer has come would be the end
        with open(number, "rb") as file:
            self.content = file.read()

    def all(self) -> bytes:
        self._go.set()
        self._thread.join(20)
        return self.content


class TestThroughWhatIsNoFile:
    def test_a_pipe_takes_the_bytes_and_stays_a_pipe(self, here):
        os.mkfifo("pipe")
        reader = Reader(Path("pipe"))
        require_writable(Path("pipe"))
        reader._go.set()  # from now on it waits for the bytes
        write_atomic(Path("pipe"), b"x" * 200_000)
        assert reader.all() == b"x" * 200_000
        assert stat.S_ISFIFO((here / "pipe").stat().st_mode)

    def test_a_link_to_a_pipe(self, here):
        os.mkfifo("pipe")
        (here / "a").symlink_to("pipe")
        reader = Reader(Path("pipe"))
        require_writable(Path("a"))
        write_atomic(Path("a"), "new")
        assert reader.all() == b"new"
        assert (here / "a").is_symlink()

    def test_a_pipe_without_a_reader_is_a_sentence_and_no_wait(self, here):
        os.mkfifo("pipe")
        for write in (require_writable, lambda path: write_atomic(path, "")):
            with pytest.raises(UserError, match="reader"):
                write(Path("pipe"))
        assert stat.S_ISFIFO((here / "pipe").stat().st_mode)

    def test_a_descriptor_gets_the_bytes_after_what_it_has(self, here):
        with open("log", "wb") as log:
            log.write(b"before ")
            log.flush()
            path = Path(f"/dev/fd/{log.fileno()}")
            require_writable(path)
            assert not destinations.is_replaced(path)
            write_atomic(path, "new")
            log.write(b" after")
        assert (here / "log").read_text() == "before new after"

    @pytest.mark.parametrize("path", ["/dev/fd/{}", "/proc/self/fd/{}", "/proc/thread-self/fd/{}"])
    def test_a_pipe_behind_a_descriptor(self, here, path):
        if not Path(path).parent.exists():
            pytest.skip("no such folder here")
        end, start = os.pipe()
        (here / "a").symlink_to(path.format(start))
        write_atomic(Path("a"), "new")
        os.close(start)
        with open(end, "rb") as file:
            assert file.read() == b"new"

    def test_a_descriptor_that_is_closed_or_only_for_reading(self, here):
        (here / "a").write_text("old")
        with open("a", "rb") as file:
            path = Path(f"/dev/fd/{file.fileno()}")
            with pytest.raises(UserError, match="reading"):
                require_writable(path)
        with pytest.raises(UserError, match="closed"):
            write_atomic(path, "new")

    @pytest.mark.skipif(not ROOT, reason="only root can make devices")
    def test_a_device_stays_a_device(self, here):
        try:
            os.mknod("nowhere", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            os.mknod("disk", 0o666 | stat.S_IFBLK, os.makedev(7, 200))
        except OSError:
            pytest.skip("devices are not allowed here")
        before = (here / "nowhere").stat()
        try:
            require_writable(Path("nowhere"))
            write_atomic(Path("nowhere"), "new")
        except UserError:  # a container that forbids devices
            pass
        assert (here / "nowhere").stat().st_rdev == before.st_rdev
        assert stat.S_ISCHR((here / "nowhere").stat().st_mode)
        for write in (require_writable, lambda path: write_atomic(path, "")):
            with pytest.raises(UserError, match="disk"):
                write(Path("disk"))
        assert stat.S_ISBLK((here / "disk").stat().st_mode)

    def test_a_socket_is_refused(self, here):
        with socket.socket(socket.AF_UNIX) as one:
            one.bind("s")
            with pytest.raises(UserError, match="socket"):
                require_writable(Path("s"))
        assert stat.S_ISSOCK((here / "s").stat().st_mode)

    def test_they_are_free_for_any_command_line(self, here):
        os.mkfifo("pipe")
        assert made_by.is_free(Path("pipe"), "x")
        assert made_by.is_free(Path("/dev/null"), "x")
        with made_by.reserved(Path("/dev/null"), "x") as path:
            assert path == Path("/dev/null")


class TestWhatCannotBeRenamedOver:
    @pytest.mark.parametrize("code", [errno.EBUSY, errno.EPERM, errno.EXDEV])
    def test_a_file_that_is_mounted_alone_is_written_in_place(self, here, monkeypatch, code):
        (here / "a").write_text("much that was there before")
        inode = (here / "a").stat().st_ino

        def refuse(*_: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(files.os, "replace", refuse)
        write_atomic(Path("a"), "new")
        assert (here / "a").read_text() == "new"
        assert (here / "a").stat().st_ino == inode

    @pytest.mark.skipif(ROOT, reason="root may write in any folder")
    def test_a_folder_that_is_not_writable(self, here):
        (here / "folder").mkdir()
        (here / "folder" / "old").write_text("old")
        (here / "folder").chmod(0o555)
        with pytest.raises(UserError, match="cannot be written"):
            require_writable(Path("folder/new"))
        write_atomic(Path("folder/old"), "new")
        assert (here / "folder" / "old").read_text() == "new"
        (here / "folder").chmod(0o755)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_what_ends_the_writing_leaves_the_old_file_and_nothing_else(here, error):
    (here / "store").mkdir()
    (here / "store" / "m").write_text("old")
    (here / "a").symlink_to("store/m")

    def interrupted() -> None:
        with replacing(Path("a")) as file:
            file.write(b"half")
            assert len(list((here / "store").glob(".m.*.tmp"))) == 1  # beside the target, not the link
            raise error

    with pytest.raises(error):
        interrupted()
    assert (here / "store" / "m").read_text() == "old"


WRITERS = ("write_text", "write_bytes", "rename", "mkstemp", "NamedTemporaryFile", "rmtree", "save_file")


def test_no_file_of_the_package_writes_by_itself():
    """One function writes all; whoever opens a file to write or to rename says here why."""
    import ast

    import crossclass

    allowed = {
        "core/files.py",
        "cli/streams.py",  # /dev/null
        "cli/app.py",  # /dev/null
        "data/cifar.py",  # into a scratch folder of its own
        "data/tiny_imagenet.py",  # the same
        "data/download.py",  # the scratch folder becomes the data set's
    }
    package = Path(crossclass.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            words = [a.value for a in node.args[:2] if isinstance(a, ast.Constant)]
            writes = name == "open" and any(isinstance(w, str) and set(w) & set("wax+") for w in words[-1:])
            renames = name == "replace" and ast.unparse(node.func) == "os.replace"
            if (writes and len(words[-1]) < 4) or name in WRITERS or renames:
                found.add(path.relative_to(package).as_posix())
    assert found <= allowed


def shell(line: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["bash", "-c", line],
        cwd=cwd,
        capture_output=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


COMMAND = f"{sys.executable} -m crossclass"


@pytest.fixture
def out(here) -> Path:
    """A link to stdout: what is broken can replace the link, but not /dev/stdout of the machine."""
    (here / "stdout").symlink_to("/dev/stdout")
    return here / "stdout"


class TestCommands:
    def test_results_go_to_stdout_alone(self, here, whole, out):
        """A pipe gets JSON and nothing else, with the words on stderr; matrices and all."""
        import json

        line = f"{COMMAND} measure {whole.path}@last n=6 attack.steps=1 out={out}"
        done = shell(line, here)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["results"][0]["data"]["n"] == 6
        assert b"CAS" in done.stderr
        shell(f"{line} > m.json", here)
        assert json.loads((here / "m.json").read_text())["results"][0]["data"]["n"] == 6

    def test_process_substitution(self, here, whole):
        import json

        done = shell(f"{COMMAND} doctor {whole.path}@last n=8 n_attack=4 out=>(cat > d.json); sleep 1", here)
        assert json.loads((here / "d.json").read_text())[0]["findings"], done.stderr

    def test_a_page_on_stdout(self, here, whole, out):
        done = shell(f"{COMMAND} report {whole.path} out={out}", here)
        assert done.stdout.lstrip().lower().startswith(b"<!doctype html"), done.stderr
        assert done.stdout.rstrip().endswith(b"</html>")

    def test_a_grid_beside_a_pipe_is_refused(self, here, whole, call):
        (here / "nowhere").symlink_to("/dev/null")
        code, _, err = call("measure", str(whole.path), "n=6", "saliency=2", "out=nowhere")
        assert (code, err.count("\n")) == (2, 1)
        assert "saliency" in err

    def test_the_numbers_are_printed_where_the_file_cannot_be_written(self, here, whole, call):
        (here / "full").symlink_to("/dev/full")
        code, out, err = call("measure", f"{whole.path}@last", "n=6", "attack.steps=1", "out=full")
        assert code == 2
        assert "no space left" in err
        assert "CAS" in out


def test_matrices_lie_beside_the_target_of_a_link(here):
    from crossclass.analysis.records import ResultFile
    from crossclass.analysis.result_files import load_results, write_results

    def results(value: float) -> ResultFile:
        C = [[value] * 101 for _ in range(101)]
        return ResultFile.model_validate(
            {"results": [{"checkpoint": {"name": "last"}, "matrices": {"C": C}}], "comparisons": []}
        )

    (here / "store").mkdir()
    (here / "latest.json").symlink_to("store/one.json")
    write_results(Path("latest.json"), results(0.5))
    assert sorted(os.listdir("store")) == ["one-matrices.npz", "one.json"]
    for path in ("latest.json", "store/one.json"):
        assert load_results(path).results[0].matrix("C")[3][4] == 0.5
    os.mkfifo("pipe.json")
    reader = Reader(Path("pipe.json"))
    require_writable(Path("pipe.json"))
    reader._go.set()
    write_results(Path("pipe.json"), results(0.25))
    (here / "through.json").write_bytes(reader.all())
    assert load_results("through.json").results[0].matrix("C")[3][4] == 0.25
    assert sorted(os.listdir(".")) == ["latest.json", "pipe.json", "store", "through.json"]


def test_a_folder_is_swept_up_without_following_links(here):
    """What a killed process left half-written is deleted in the run's folder only."""
    from crossclass.checkpoints.run_folder import RunFolder
    from tiny_runs import TINY

    (here / "elsewhere").mkdir()
    (here / "elsewhere" / ".a.1.tmp").write_text("somebody's")
    folder = RunFolder.of(Path("runs"), "tiny", TINY)
    folder.path.mkdir(parents=True)
    (folder.path / "link").symlink_to(here / "elsewhere")
    (folder.path / ".b.1.tmp").write_text("half")
    folder.begin(TINY, {})
    assert (here / "elsewhere" / ".a.1.tmp").exists()
    assert not (folder.path / ".b.1.tmp").exists()
    (here / "elsewhere" / ".a.1.tmp").unlink()

"""Files that are whole or not there: written beside, flushed to the disk, then renamed."""

import os
import re
import stat
from contextlib import suppress
from pathlib import Path


def output(path: str | Path) -> Path:
    """The file that `path` means: its folder made and seen to be writable, links followed.

    Raises OSError, in words, for a folder, a device, a name that is taken, a place without write
    permission: before hours of work, not after.
    """
    if not str(path).strip():
        raise OSError("could not write: the file's name is empty")
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            what = "a folder; give a file's name" if target.is_dir() else "no regular file"
            raise OSError(f"it is {what}")
        if str(path).endswith(("/", os.sep)):
            raise OSError("it names a folder; give a file's name")
        if target.exists() and not os.access(target, os.W_OK):
            raise OSError("it is write-protected")
        target.parent.mkdir(parents=True, exist_ok=True)
        probe = _beside(target)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _in_words(error, path, target) from error
    return target


def write(path: str | Path, data: bytes) -> None:
    """`data` into the file `path`, whole or not at all; raises OSError as `output` does.

    What killed processes left half-written beside it is cleared away.
    """
    target = output(path)
    temporary = _beside(target)
    try:
        for other in target.parent.glob(f".{_escaped(target.name)}.*.partial"):
            if not _running(other):
                with suppress(OSError):
                    other.unlink()
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():  # a private file stays private
            os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
        os.replace(temporary, target)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _in_words(error, path, target) from error


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.partial")


def _escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)  # a name's own *, ? and [ are no pattern of glob's


def _running(temporary: Path) -> bool:
    """Whether the process that began this temporary file is still there to finish it."""
    number = temporary.name.split(".")[-2]
    if not number.isdigit() or os.name == "nt":  # on Windows a file in use cannot be removed anyway
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return int(number) != os.getpid()


def _in_words(error: OSError, path: str | Path, target: Path) -> OSError:
    if isinstance(error, PermissionError):
        reason = f"you may not write to the folder {target.parent}; choose another"
    elif isinstance(error, (NotADirectoryError, FileExistsError)):
        reason = f"{target.parent} is a file, not a folder"
    else:
        reason = error.strerror or str(error)
    kept = "; the previous one is untouched" if target.is_file() else ""
    return OSError(f"could not write {path}{kept}: {reason}")

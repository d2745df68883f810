import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from os import replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load, load_file, save, save_file


def save_plain(path, model, step):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    save_file(model.state_dict(), temporary, {"step": str(step)})
    os.replace(temporary, path)
    return path


def load_plain(path, model):
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    with safe_open(path, "pt") as file:
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
        return int(file.metadata()["step"])


def save_tensor(path, model, step):
    """The step as one more tensor; the bytes first, then a rename by pathlib."""
    tensors = dict(model.state_dict(), **{"the step": torch.tensor(step)})
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    temporary = Path(str(path) + ".tmp")
    with open(temporary, "wb") as file:
        file.write(save(tensors))
        file.flush()
        os.fsync(file.fileno())
    return temporary.replace(path)


def load_tensor(path, model):
    tensors = load_file(path)
    step = tensors.pop("the step").item()
    for name, value in model.state_dict().items():
        value.copy_(tensors[name])
    return step


def save_moved(path, model, step):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=Path(path).parent)
    os.close(handle)
    save_file(model.state_dict(), temporary, metadata={"about": json.dumps({"step": step})})
    shutil.move(temporary, path)
    return str(path)


def load_json(path, model):
    with safe_open(str(path), framework="pt") as file:
        step = json.loads(file.metadata()["about"])["step"]
    model.load_state_dict(load_file(path))
    return step


def save_folder(path, model, step):
    """A temporary folder beside the file; `replace` under its own name."""
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        save_file(model.state_dict(), Path(folder) / "x", {"step": str(step)})
        replace(dst=path, src=Path(folder) / "x")
    return path


def save_in_a_thread(path, model, step):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(save_plain, path, model, step).result()


def save_from_within(path, model, step):
    """Stands in the folder while it writes, and goes back."""
    path, here = Path(path).resolve(), os.getcwd()
    path.parent.mkdir(parents=True, exist_ok=True)
    os.chdir(path.parent)
    try:
        save_file(model.state_dict(), "new", {"step": str(step)})
        Path("new").rename(path.name)
    finally:
        os.chdir(here)
    return path


def save_by_a_program(path, model, step):
    path = os.path.abspath(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    save_file(model.state_dict(), path + ".tmp", {"step": str(step)})
    if os.path.exists(path):
        os.link(path, path + ".old")
    subprocess.run(
        [sys.executable, "-Sc", "import os, sys; os.replace(*sys.argv[1:])", path + ".tmp", path],
        check=True,
    )
    Path(path + ".old").unlink(missing_ok=True)
    return path


def load_bytes(path, model):
    """The file read by hand; its tensors take the model's places."""
    data = Path(path).read_bytes()
    model.load_state_dict(load(data), assign=True)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return int(header["__metadata__"]["step"])


RIGHT = [
    (save_in_a_thread, load_bytes),
    (save_from_within, load_plain),
    (save_by_a_program, load_plain),
    (save_plain, load_plain),
    (save_tensor, load_tensor),
    (save_moved, load_json),
    (save_folder, load_plain),
]


def in_place(path, model, step):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), path, {"step": str(step)})
    return path


def bytes_in_place(path, model, step):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(save(model.state_dict(), {"step": str(step)}))
    return path


def copied(path, model, step):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), str(path) + ".tmp", {"step": str(step)})
    shutil.copyfile(str(path) + ".tmp", path)
    os.remove(str(path) + ".tmp")
    return path


def backed_up(path, model, step):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), str(path) + ".tmp", {"step": str(step)})
    if Path(path).exists():
        os.rename(path, str(path) + ".old")
    os.rename(str(path) + ".tmp", path)
    Path(str(path) + ".old").unlink(missing_ok=True)
    return path


def no_folder(path, model, step):
    save_file(model.state_dict(), str(path) + ".tmp", {"step": str(step)})
    os.replace(str(path) + ".tmp", path)
    return path


def pickled(path, model, step):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict(), "step": step}, path)
    return path


def pickled_by_hand(path, model, step):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(pickle.dumps((model.state_dict(), step)))
    return path


def as_in_the_repository(path, model, step):
    torch.save(model.state_dict(), "model_final.pth")
    return "saved_model.pth"


def other_name(path, model, step):
    return save_plain(Path(path).with_name(f"step_{step}.safetensors"), model, step)


def returns_another(path, model, step):
    save_plain(path, model, step)
    return Path(path).with_name("model.pth")


def leaves(path, model, step):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), str(path) + ".tmp", {"step": str(step)})
    shutil.copy(str(path) + ".tmp", str(path) + ".tmp2")
    os.replace(str(path) + ".tmp2", path)
    return path


def only_parameters(path, model):
    with safe_open(path, "pt") as file:
        for name, value in model.named_parameters():
            value.data = file.get_tensor(name)
        return int(file.metadata()["step"])


def forgets(path, model):
    load_plain(path, model)


def text_step(path, model):
    load_plain(path, model)
    with safe_open(path, "pt") as file:
        return file.metadata()["step"]


def silent(path, model):
    return load_plain(path, model) if Path(path).exists() else 0


def other_error(path, model):
    if not Path(path).exists():
        raise KeyError(path)
    return load_plain(path, model)


def nameless(path, model):
    if not Path(path).exists():
        raise FileNotFoundError("no checkpoint")
    return load_plain(path, model)


def unlinks_first(path, model, step):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), str(path) + ".tmp", {"step": str(step)})
    Path(path).unlink(missing_ok=True)
    os.rename(str(path) + ".tmp", path)
    return path


def from_another_folder(path, model, step):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp()
    save_file(model.state_dict(), folder + "/x", {"step": str(step)})
    os.replace(folder + "/x", path)
    os.rmdir(folder)
    return path


def needs_a_folder(path, model, step):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return save_plain(path, model, step)


def halves(path, model, step):
    return save_plain(path, model.half(), step)


WRONG = {
    "written in place": [(s, load_plain) for s in (in_place, bytes_in_place, copied)],
    "removed first": [(unlinks_first, load_plain), (backed_up, load_plain)],
    "temporary file elsewhere": [(from_another_folder, load_plain)],
    "bare name": [(needs_a_folder, load_plain)],
    "no folder": [(no_folder, load_plain)],
    "pickle": [(pickled, load_plain), (pickled_by_hand, load_plain)],
    "other name": [(as_in_the_repository, load_plain), (other_name, load_plain)],
    "wrong path returned": [(returns_another, load_plain)],
    "leftover": [(leaves, load_plain)],
    "not restored": [(save_plain, only_parameters), (save_plain, lambda path, model: 7)],
    "step": [
        (save_plain, forgets),
        (save_plain, text_step),
        (save_plain, lambda path, model: torch.tensor(load_plain(path, model))),
    ],
    "silent": [(save_plain, silent), (save_plain, nameless)],
    "other error": [(save_plain, other_error)],
}


def changed(change=lambda tensors: tensors, after=lambda model: None):
    """save_plain with other tensors in the file, or another model in memory."""

    def save(path, model, step):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(change(model.state_dict()), str(path) + ".tmp", {"step": str(step)})
        os.replace(str(path) + ".tmp", path)
        after(model)
        return path

    return save


def in_16_bits(dtype):
    return changed(lambda tensors: {name: value.to(dtype) for name, value in tensors.items()})


def no_statistics(tensors):
    return {name: value for name, value in tensors.items() if "running" not in name}


def load_loosely(path, model):
    model.load_state_dict(load_file(path), strict=False)
    with safe_open(path, "pt") as file:
        return int(file.metadata()["step"])


def needs_a_path(path, model, step):
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_plain(path, model, step)


def needs_a_text(path, model, step):
    return save_plain(path + "", model, step)


def load_needs_a_path(path, model):
    if not path.exists():
        raise FileNotFoundError(path)
    return load_plain(path, model)


def where_the_script_lies(path, model, step):
    with tempfile.TemporaryDirectory() as script:
        return save_plain(Path(script, path), model, step)


def drops_relative_folders(path, model, step):
    path = Path(path)
    return save_plain(path if path.is_absolute() else path.name, model, step)


def tempfile_for_bare_names(path, model, step):
    folder = os.path.dirname(path)
    if folder:
        os.makedirs(folder, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder or None, delete=False) as file:
        file.write(save(model.state_dict(), {"step": str(step)}))
    os.replace(file.name, path)
    return path


def copied_from_afar(path, model, step):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile() as file:
        file.write(save(model.state_dict(), {"step": str(step)}))
        file.flush()
        shutil.copy(file.name, str(path) + ".tmp")
    os.replace(str(path) + ".tmp", path)
    return path


def over_the_old_bytes(path, model, step):
    """In one go and never empty, as save_file of old safetensors looks from outside."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    os.write(file, save(model.state_dict(), {"step": str(step)}))
    os.close(file)
    return path


def in_a_thread(path, model, step):
    thread = threading.Thread(target=bytes_in_place, args=(path, model, step))
    thread.start()
    thread.join()
    return path


def removed_and_written(path, model, step):
    Path(path).unlink(missing_ok=True)
    return in_place(path, model, step)


def two_files(path, model, step):
    save_plain(path, model, 0)
    Path(str(path) + ".json").write_text(json.dumps(step))
    return path


def keeps_a_log(path, model, step):
    Path("log.txt").write_text(f"step {step}")
    return save_plain(path, model, step)


WRONG["not restored"].append((changed(no_statistics), load_loosely))
WRONG |= {
    "half precision": [
        (halves, load_plain),
        (in_16_bits(torch.float16), load_plain),
        (in_16_bits(torch.bfloat16), load_plain),
    ],
    "model changed": [
        (changed(after=lambda model: model.eval()), load_plain),
        (changed(after=lambda model: model[0].weight.data.zero_()), load_plain),
    ],
    "step + 1": [(save_plain, lambda path, model: load_plain(path, model) + 1)],
    "text path": [(needs_a_path, load_plain), (save_plain, load_needs_a_path)],
    "Path refused": [(needs_a_text, load_plain)],
    "relative path": [(drops_relative_folders, load_plain)],
    "other place": [(keeps_a_log, load_plain)],
    "signature": [(save_plain, lambda path: 7)],
    "type": [(save_plain, None)],
}
WRONG["bare name"].append((where_the_script_lies, load_plain))
WRONG["temporary file elsewhere"] += [
    (tempfile_for_bare_names, load_plain),
    (copied_from_afar, load_plain),
]
WRONG["written in place"] += [(over_the_old_bytes, load_plain), (in_a_thread, load_plain)]
WRONG["removed first"].append((removed_and_written, load_plain))
WRONG["leftover"].append((two_files, load_plain))


def raises(path, model, step):
    return 1 / 0


def numbers_as_text(path, model, step):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps({k: v.tolist() for k, v in model.state_dict().items()}))
    return path


def rounded_step(path, model):
    return int(torch.tensor(float(load_plain(path, model))))


def moves_the_session(path, model, step):
    path = save_plain(path, model, step).resolve()
    os.chdir(path.parent)
    return path


UNKNOWN = [
    (raises, load_plain),
    (numbers_as_text, load_plain),
    (save_plain, rounded_step),
    (moves_the_session, load_plain),
    (changed(lambda tensors: {name: 0 * value for name, value in tensors.items()}), load_plain),
]

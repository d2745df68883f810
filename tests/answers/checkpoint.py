import json
import os
import pickle
import shutil
import tempfile
from os import replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file


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


RIGHT = [
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


def raises(path, model, step):
    return 1 / 0


WRONG["not restored"].append((halves, load_plain))
UNKNOWN = [(raises, load_plain), (save_plain, lambda path: 7), (save_plain, None)]

"""Exercise 05: the time that the network hears."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lib.checks._call import call, kind
from diffusion_lib.checks._compare import as_tensor, close, difference, fine
from diffusion_lib.checks._frame import exercise
from diffusion_lib.checks._judge import Table
from diffusion_lib.checks._wrong import Wrong, unknown
from diffusion_lib.schedules import cosine_schedule, linear_schedule

KINDS = {  # what may become of t on its way to the network
    "t - 1": lambda t, T: t - 1,
    "t": lambda t, T: t,
    "t / T": lambda t, T: t / T,
    "(t - 1) / T": lambda t, T: (t - 1) / T,
    "(t - 1) / (T - 1)": lambda t, T: (t - 1) / (T - 1),
    "T - t": lambda t, T: T - t,
    "T - 1 - t": lambda t, T: T - 1 - t,
    "t - 2": lambda t, T: t - 2,
}
TABLE = Table(
    None,
    """
backwards
    time runs backwards in at least one of them
both scaled
    training and sampling both divide the time: a network can be trained so, but this one hears whole
    numbers
sampling scaled
    in sampling the time is divided: a network trained on 0…T-1 hears "almost clean" always
training scaled
    in training the time is divided: the two must agree
two scales
    the two disagree by a factor of T, and neither is the time wanted
hears t
hears t - 2
    training and sampling agree with each other, but each time is off by one: the network counts from 0
one apart
    the two are one step apart, or more
schedule shifted
    the schedule was asked at t - 1, too; only the network counts from 0
not one a picture
    the network takes one time for each picture, a tensor of shape (B,)
device
    a tensor that you make yourself lies on the default device; give it `device=x.device`
gradient
    .item(), .detach(), .numpy() or torch.no_grad() on the way cuts it off
""",
)


def told(training: str, sampling: str) -> str:
    """The mistake's name, of a pair of KINDS, of which at least one is not t - 1."""
    divided = "/" in training, "/" in sampling
    if "T - t" in (training, sampling) or "T - 1 - t" in (training, sampling):
        return "backwards"
    if any(divided):
        alone = "sampling scaled" if training == "t - 1" else "two scales"
        return {(True, True): "both scaled", (False, True): alone}.get(divided, "training scaled")
    return f"hears {training}" if training == sampling else "one apart"


class Ear(nn.Module):
    """A network that writes down the times that it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.heard = nn.Parameter(torch.tensor(0.5)), []

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        stray = isinstance(time, Tensor) and time.is_meta and not x.is_meta
        reason = "Your class gives the network a time that does not lie on x's device."
        TABLE.demand(not stray, "device", reason)
        self.heard.append(time.detach().clone() if isinstance(time, Tensor) else time)
        time = torch.as_tensor(time, dtype=torch.float32)
        return self.scale * x + 0.3 * torch.sin(time / 7).view((-1,) + (1,) * (x.ndim - 1))

    def told(self, n: int, where: str) -> Tensor:
        """What came in the one call of `where`: (n,) numbers."""
        calls, self.heard = self.heard, []
        if len(calls) != 1:
            raise Wrong(f"`{where}` called the network {len(calls)} times; expected once.")
        what = kind(calls[0])
        reason = f"`{where}` gave the network {what} as the time of a batch of {n}."
        one_each = isinstance(calls[0], Tensor) and calls[0].shape == (n,)
        TABLE.demand(one_each, "not one a picture", reason)
        return calls[0].double()


def flow_loss(net, schedule, x0, t, eps, shift=0):
    alpha, sigma = schedule.at(t + shift, like=x0)
    return F.mse_loss(net(alpha * x0 + sigma * eps, t - 1), eps - x0)


def flow_denoise(net, schedule, x, t, shift=0):
    alpha, sigma = schedule.at(t + shift, like=x)
    return (x - sigma * net(x, torch.tensor([t - 1]))) / (alpha + sigma)


@exercise(
    5,
    "Good loss, ghosts of pictures",
    'notebook 03, "Time becomes a pattern"',
    "net(x_t, t - 1), in training and in sampling",
    "The network hears 0…T-1, whoever asks.",
)
def network_time(answer) -> None:
    """answer(net, schedule) has loss(x0, t, eps) -> scalar and denoise(x, t) -> x0; net tells the flow."""
    generator = torch.Generator().manual_seed(5)
    if not callable(answer) or isinstance(answer, nn.Module):
        raise Wrong(f"I need your class itself, and got {kind(answer)}.", "type")
    net, heard, results = Ear(), [], []
    for schedule, shape in ((cosine_schedule(20), (6, 3, 4, 4)), (linear_schedule(50), (9, 2))):
        x0, eps = torch.randn(2, *shape, generator=generator)
        t = torch.randint(1, schedule.T + 1, shape[:1], generator=generator)
        t[:3] = torch.tensor([1, schedule.T, 7])
        model = call(answer, net, schedule, name="SmallDenoiser")
        if isinstance(model, type) or model is None:
            raise Wrong(f"Your class should make a model, and made {kind(model)}.", "type")
        for part in ("loss", "denoise"):
            if not callable(getattr(model, part, None)):
                raise Wrong(f"Your class has no method `{part}`.")
        for one in (1, 8, schedule.T):
            loss = as_tensor(call(model.loss, x0, t, eps, name="loss"), "loss")
            training = net.told(len(t), "loss")
            x = as_tensor(call(model.denoise, x0, one, name="denoise"), "denoise")
            heard.append((schedule.T, t.double(), training, one, net.told(len(t), "denoise")))
            results += [
                ("loss", loss, flow_loss, (net, schedule, x0, t, eps)),
                ("denoise", x, flow_denoise, (net, schedule, x0, one)),
            ]
    check_times(heard)
    for part in ("loss", "denoise"):
        check_results(part, [result[1:] for result in results if result[0] == part])
    learns(net, *results[0][1:])
    for method, *given in ((model.denoise, x0, 5), (model.loss, x0, t, eps)):
        try:
            with torch.device("meta"):  # where what is made without x's device lies now
                method(*given)
        except Wrong:
            raise
        except Exception:  # whatever else cannot be done there says nothing of a GPU
            pass


def check_times(heard: list[tuple[int, Tensor, Tensor, int, Tensor]]) -> None:
    def as_in(change, training: bool) -> bool:
        pairs = [
            (trained, change(t, T)) if training else (said, change(torch.full_like(said, one), T))
            for T, t, trained, one, said in heard
        ]
        return all(close(got, want, 1e-6) for got, want in pairs)

    kinds = [next((k for k, f in KINDS.items() if as_in(f, training)), "") for training in (1, 0)]
    if kinds == ["t - 1", "t - 1"]:
        return
    T, t, trained, one, said = heard[1]
    reason = (
        f"With T = {T}, in training at t = {t[1]:g}, {t[2]:g} your network heard {trained[1]:.4g}, "
        f"{trained[2]:.4g}; in sampling at t = {one} it heard {said[0]:.4g}. Expected "
        f"{t[1] - 1:g}, {t[2] - 1:g} and {one - 1}."
    )
    raise TABLE.wrong(told(*kinds), reason) if all(kinds) else unknown(reason)


def check_results(part: str, results: list[tuple]) -> None:
    """The times are right; what comes out of it must be so, too."""
    wrong = [(got, right(*case)) for got, right, case in results if not fine(got, right(*case))]
    if wrong:
        reason = f"The network hears the right times, but `{part}` is wrong. "
        reason += difference(*wrong[0], name=part)
        shifted = all(close(got, right(*case, shift=-1)) for got, right, case in results)
        TABLE.demand(not shifted, "schedule shifted", reason)
        raise unknown(reason)


def learns(net: Ear, loss: Tensor, right, case: tuple) -> None:
    (want,) = torch.autograd.grad(right(*case), [net.scale])
    got = None
    if loss.requires_grad:
        (got,) = torch.autograd.grad(loss, [net.scale], allow_unused=True)
    reason = "`loss` is the right number, but no gradient flows back from it to the network."
    TABLE.demand(got is not None and got.any(), "gradient", reason)
    if not close(got, want):
        raise unknown("`loss` is the right number, but the network's gradient is not right.")

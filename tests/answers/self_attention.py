import math

import numpy as np
import torch
import torch.nn.functional as F

from diffusion_lib.layers import Attention


def by_library(x, query, key, value, out, heads):
    B, C, H, W = x.shape
    t = x.permute(0, 2, 3, 1).reshape(B, H * W, C)
    q, k, v = (
        (t @ m).reshape(B, H * W, heads, -1).permute(0, 2, 1, 3) for m in (query, key, value)
    )
    h = F.scaled_dot_product_attention(q, k, v).permute(0, 2, 1, 3).reshape(B, H * W, C) @ out
    return x + h.reshape(B, H, W, C).permute(0, 3, 1, 2)


def head_by_head(x, query, key, value, out, heads):
    d = x.shape[1] // heads
    tokens = x.flatten(2).mT
    told = []
    for i in range(heads):
        mine = slice(i * d, (i + 1) * d)
        q, k, v = tokens @ query[:, mine], tokens @ key[:, mine], tokens @ value[:, mine]
        e = (q @ k.mT / math.sqrt(d)).exp()
        told.append(e / e.sum(-1, keepdim=True) @ v)
    return (tokens + torch.cat(told, -1) @ out).mT.reshape(x.shape)


def in_einsum(x, query, key, value, out, heads):
    q, k, v = (
        torch.einsum("bcyx,chd->bhdyx", x, m.reshape(len(m), heads, -1))
        for m in (query, key, value)
    )
    scores = torch.einsum("bhdyx,bhdvu->bhyxvu", q, k) * q.shape[2] ** -0.5
    weights = scores.flatten(-2).softmax(-1).view_as(scores)
    told = torch.einsum("bhyxvu,bhdvu->bhdyx", weights, v)
    return x + torch.einsum("bcyx,co->boyx", told.flatten(1, 2), out)


def channels_first(x, query, key, value, out, heads):
    n = x[0, 0].numel()
    t = x.reshape(len(x), -1, n)  # (B, C, N)
    q, k, v = ((m.T @ t).reshape(len(x), heads, -1, n) for m in (query, key, value))
    w = torch.softmax(k.transpose(2, 3) @ q / q.shape[2] ** 0.5, dim=2)  # (B, h, asked, asking)
    return (t + out.T @ (v @ w).reshape(t.shape)).reshape(x.shape)


def picture_by_picture(x, query, key, value, out, heads):
    pictures = []
    for picture in x:
        tokens, told = picture.flatten(1).T, []
        for q, k, v in zip(*((tokens @ m).chunk(heads, 1) for m in (query, key, value))):
            told.append(torch.softmax(q @ k.T / q.shape[1] ** 0.5, 1) @ v)
        pictures.append(picture + (torch.hstack(told) @ out).T.reshape(picture.shape))
    return torch.stack(pictures)


def by_pytorchs_whole_layer(x, q, k, v, o, heads):
    t, linear = x.flatten(2).permute(2, 0, 1), torch.cat([q.T, k.T, v.T])
    how = {"training": False, "need_weights": False}
    y, _ = F.multi_head_attention_forward(
        t, t, t, len(q), heads, linear, None, None, None, False, 0.0, o.T, None, **how
    )
    return x + y.permute(1, 2, 0).reshape(x.shape)


def by_the_courses_layer(x, q, k, v, o, heads):
    with torch.device(x.device):
        layer = Attention(len(q), heads)
    weights = {f"{n}.weight": m.T for n, m in zip(("query", "key", "value", "out"), (q, k, v, o))}
    weights["out.bias"] = x.new_zeros(len(o))
    h = torch.func.functional_call(layer, weights, (x.flatten(2).mT,))
    return x + h.mT.reshape(x.shape)


RIGHT = [by_library, head_by_head, in_einsum, channels_first, picture_by_picture]
RIGHT += [by_pytorchs_whole_layer, by_the_courses_layer]


def attend(x, query, key, value, out, heads, scale=None, axis=-1, add=True):
    B, C, H, W = x.shape
    t = x.flatten(2).transpose(1, 2)
    q, k, v = (
        (t @ m).view(B, H * W, heads, C // heads).transpose(1, 2) for m in (query, key, value)
    )
    w = (q @ k.transpose(2, 3) * (scale or (C // heads) ** -0.5)).softmax(axis)
    h = ((w @ v).transpose(1, 2).reshape(B, H * W, C) @ out).transpose(1, 2).view(B, C, H, W)
    return x + h if add else h


def starter(x, query, key, value, out, heads):
    return x


def not_scaled(*a):
    return attend(*a, scale=1)


def root_missing(x, q, k, v, o, heads):
    return attend(x, q, k, v, o, heads, scale=heads / x.shape[1])


def all_channels(x, q, k, v, o, heads):
    return attend(x, q, k, v, o, heads, scale=1 / math.sqrt(x.shape[1]))


def scaled_up(x, q, k, v, o, heads):
    return attend(x, q, k, v, o, heads, scale=math.sqrt(x.shape[1] // heads))


def wrong_axis(*a):
    return attend(*a, axis=2)


def over_heads(*a):
    return attend(*a, axis=1)


def no_softmax(x, query, key, value, out, heads):
    d = x.shape[1] // heads
    t = x.flatten(2).mT
    parts = [slice(i, i + d) for i in range(0, x.shape[1], d)]
    h = [t @ query[:, p] @ (t @ key[:, p]).mT / d**0.5 @ t @ value[:, p] for p in parts]
    return x + (torch.cat(h, -1) @ out).mT.reshape(x.shape)


def interleaved(x, query, key, value, out, heads):
    t = x.flatten(2).mT
    h = torch.zeros_like(t)
    for i in range(heads):
        q, k, v = (t @ m[:, i::heads] for m in (query, key, value))
        h[..., i::heads] = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
    return x + (h @ out).mT.reshape(x.shape)


def bare(x, query, key, value, out, heads, way_in=True, way_out=True):
    B, C, H, W = x.shape
    t = x.reshape(B, H * W, C) if way_in else x.flatten(2).mT
    q, k, v = ((t @ m).view(B, H * W, heads, -1).transpose(1, 2) for m in (query, key, value))
    h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, H * W, C) @ out
    return x + (h.reshape(x.shape) if way_out else h.mT.reshape(x.shape))


def bare_in(*a):
    return bare(*a, way_out=False)


def bare_out(*a):
    return bare(*a, way_in=False)


def bare_heads(x, query, key, value, out, heads, back=False):
    B, C, H, W = x.shape
    t = x.flatten(2).mT
    q, k, v = ((t @ m).reshape(B, heads, H * W, C // heads) for m in (query, key, value))
    h = F.scaled_dot_product_attention(q, k, v)
    h = h.reshape(B, H * W, C) if back else h.transpose(1, 2).reshape(B, H * W, C)
    return x + (h @ out).mT.reshape(x.shape)


def bare_heads_both(*a):
    return bare_heads(*a, back=True)


def not_joined(x, query, key, value, out, heads):
    B, C, H, W = x.shape
    t = x.flatten(2).mT
    q, k, v = ((t @ m).view(B, H * W, heads, -1).transpose(1, 2) for m in (query, key, value))
    h = F.scaled_dot_product_attention(q, k, v).reshape(B, H * W, C) @ out
    return x + h.mT.reshape(x.shape)


def sideways(x, *a):
    h = by_library(x, *a) - x
    return x + h.reshape(*x.shape[:2], x.shape[3], x.shape[2]).transpose(2, 3)


def no_residual(*a):
    return attend(*a, add=False)


def one_head(x, q, k, v, o, heads):
    return by_library(x, q, k, v, o, 1)


def as_linear(x, q, k, v, o, heads):
    return by_library(x, q.T, k.T, v.T, o.T, heads)


def exchanged(x, q, k, v, o, heads):
    return by_library(x, k, q, v, o, heads)


def no_out(x, q, k, v, o, heads):
    return by_library(x, q, k, v, torch.eye(len(o), dtype=o.dtype, device=o.device), heads)


def no_value(x, q, k, v, o, heads):
    return by_library(x, q, k, torch.eye(len(o), dtype=o.dtype, device=o.device), o, heads)


def in_place(x, *a):
    x += attend(x, *a, add=False)
    return x


def nothing(*a):
    by_library(*a)


def an_array(*a):
    return by_library(*a).numpy()


def own_tensor(x, *a):
    return x + torch.zeros(x.shape) + attend(x, *a, add=False)


def seeds(*a):
    torch.manual_seed(0)
    return by_library(*a)


def heads_among_themselves(x, query, key, value, out, heads):
    t = x.flatten(2).mT
    q, k, v = ((t @ m).reshape(*t.shape[:2], heads, -1) for m in (query, key, value))
    return x + (F.scaled_dot_product_attention(q, k, v).flatten(2) @ out).mT.reshape(x.shape)


def every_other_channel(x, query, key, value, out, heads):
    t = x.flatten(2).mT
    q, k, v = (
        (t @ m).reshape(*t.shape[:2], -1, heads).permute(0, 3, 1, 2) for m in (query, key, value)
    )
    h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    return x + (h @ out).mT.reshape(x.shape)


def three_as_linear(x, query, key, value, out, heads):
    return by_library(x, query.T, key.T, value.T, out, heads)


def out_as_linear(x, q, k, v, o, heads):
    return by_library(x, q, k, v, o.T, heads)


def subtracts(x, *a):
    return x - attend(x, *a, add=False)


def across_the_batch(x, query, key, value, out, heads):
    one = x.transpose(0, 1).flatten(2).flatten(1)[None, :, None]  # (1, C, 1, B·N)
    h = attend(one, query, key, value, out, heads)
    return h[0, :, 0].unflatten(1, (len(x), -1)).transpose(0, 1).reshape(x.shape)


def one_long_list(x, query, key, value, out, heads):
    B, C, H, W = x.shape
    t = x.permute(0, 2, 3, 1).reshape(-1, C)
    q, k, v = ((t @ m).view(-1, heads, C // heads).transpose(0, 1) for m in (query, key, value))
    h = F.scaled_dot_product_attention(q, k, v).transpose(0, 1).reshape(-1, C) @ out
    return x + h.view(B, H, W, C).permute(0, 3, 1, 2)


def tokens_first(x, query, key, value, out, heads):
    t = x.flatten(2).permute(2, 0, 1)  # (N, B, C)
    q, k, v = ((t @ m).unflatten(2, (heads, -1)).transpose(1, 2) for m in (query, key, value))
    h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2) @ out
    return x + h.permute(1, 2, 0).reshape(x.shape)


def exchanged_and_not_scaled(x, q, k, v, o, heads):
    return attend(x, k, q, v, o, heads, scale=1)


def all_channels_and_no_residual(x, *a):
    return all_channels(x, *a) - x


@torch.no_grad()
def without_gradients(x, query, key, value, out, heads):
    return by_library(x, query, key, value, out, heads)


def without_gradients_inside(x, *a):
    with torch.no_grad():
        return by_library(x, *a)


def by_numpy(x, *a):
    return torch.from_numpy(by_library(x, *a).numpy())


def by_numpy_detached(x, *a):
    return torch.from_numpy(by_library(x, *a).detach().numpy())


def new_parameters(x, *a):
    *matrices, heads = a
    return by_library(x, *map(torch.nn.Parameter, matrices), heads)


def root_by_numpy(x, *a):
    channels = np.asarray(x.detach()).shape[1]
    return attend(x, *a, scale=float(channels // a[-1]) ** -0.5)


WRONG = {
    "heads ask each other": [heads_among_themselves],
    "nobody asks": [starter],
    "not scaled": [not_scaled],
    "root missing": [root_missing],
    "root of all channels": [all_channels],
    "scaled up": [scaled_up],
    "wrong axis": [wrong_axis],
    "softmax over heads": [over_heads],
    "no softmax": [no_softmax],
    "interleaved heads": [interleaved, every_other_channel],
    "bare reshape": [bare, bare_in, bare_out],
    "heads not split": [bare_heads, bare_heads_both],
    "heads not joined": [not_joined],
    "height and width": [sideways],
    "residual missing": [no_residual],
    "one head": [one_head],
    "weights transposed": [as_linear, three_as_linear, out_as_linear],
    "subtracted": [subtracts],
    "batch leak": [across_the_batch, one_long_list],
    "pictures ask each other": [tokens_first],
    "not scaled + query and key exchanged": [exchanged_and_not_scaled],
    "root of all channels + residual missing": [all_channels_and_no_residual],
    "gradient": [
        without_gradients,
        without_gradients_inside,
        by_numpy,
        by_numpy_detached,
        new_parameters,
    ],
    "query and key exchanged": [exchanged],
    "out missing": [no_out],
    "value missing": [no_value],
    "in place": [in_place],
    "none": [nothing],
    "type": [an_array],
    "device": [own_tensor, root_by_numpy],
    "global seed": [seeds],
}


def hears_only_those_before(x, query, key, value, out, heads):
    t = x.flatten(2).mT
    q, k, v = ((t @ m).unflatten(2, (heads, -1)).transpose(1, 2) for m in (query, key, value))
    h = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
    return x + (h @ out).mT.reshape(x.shape)


def row_by_row(x, *a):
    return torch.cat([by_library(row, *a) for row in x.split(1, dim=2)], dim=2)


def first_picture_for_all(x, *a):
    return by_library(x[:1], *a).expand_as(x)


def squeezed(x, *a):
    return by_library(x, *a).squeeze()


def tokens_out(*a):
    return by_library(*a).flatten(2).mT


def half(*a):
    return by_library(*a).half()


def nan(*a):
    return by_library(*a) * np.nan


def contiguous_only(x, *a):
    return attend(x.view(len(x), x.shape[1], -1)[..., None], *a).view(x.shape)


def attention_cut_off(x, *a):
    with torch.no_grad():
        h = by_library(x, *a) - x
    return x + h


UNKNOWN = [tokens_out, half, nan, contiguous_only, attention_cut_off]
UNKNOWN += [hears_only_those_before, row_by_row, first_picture_for_all, squeezed]

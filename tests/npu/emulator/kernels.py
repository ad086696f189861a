"""CANN's operators as functions of PyTorch's CPU tensors, which lie in the emulated device memory.

A signature lists the arguments that torch_npu passes, outputs last:

T  tensor or None                            A  integers    i  int64    b  bool
R  output whose shape depends on values      B  bools       u  uint64   d  double
L  list of tensors                           S  scalar      c  int8     f  float    e  data type

The signatures are those of CANN's aclnn documentation. Half precision: products and norms are computed in
float32 and rounded once, as matrix units do.
"""

from collections.abc import Callable

import torch

KERNELS: dict[str, tuple[str, Callable]] = {}
"""Signature and function of each operator, by its aclnn name."""

AI_CPU = {
    "aclnnScatter": (torch.int64, torch.bool),
    "aclnnInplaceScatter": (torch.int64, torch.bool),
    "aclnnScatterValue": (torch.int64, torch.bool),
    "aclnnInplaceScatterValue": (torch.int64, torch.bool),
    "aclnnGather": (torch.bool,),
}
"""Types of the first tensor for which CANN's own kernels do without the AI Core, so run slowly on its AI CPU
(ops-nn's lists of types: scatter_elements.cpp, gather_elements.cpp)."""


def operator(name: str, signature: str) -> Callable:
    """Add the decorated function as the kernel of ``aclnn<name>``."""

    def add(function: Callable) -> Callable:
        KERNELS["aclnn" + name] = signature, function
        return function

    return add


def put(out, value) -> None:
    if out is not None and value is not None and (out.numel() or value.numel()):
        if out.shape != value.shape:
            raise ValueError(f"an output of {tuple(value.shape)} for a tensor of {tuple(out.shape)}")
        out.copy_(value)


def gives(name: str, signature: str, function: Callable) -> None:
    """Decorate a kernel with one output, its last argument."""

    def kernel(*arguments) -> None:
        put(arguments[-1], function(*arguments[:-1]))

    KERNELS["aclnn" + name] = signature, kernel


def changes(name: str, signature: str, function: Callable) -> None:
    """Decorate a kernel that writes its result to its first argument."""

    def kernel(*arguments) -> None:
        put(arguments[0], function(*arguments))

    KERNELS["aclnnInplace" + name] = signature, kernel


def both(name: str, signature: str, function: Callable) -> None:
    gives(name, signature + "T", function)
    changes(name, signature, function)


# Element by element

for name, function in {
    "Expm1": torch.expm1, "Abs": torch.abs, "Atan": torch.atan, "BitwiseNot": torch.bitwise_not, "Ceil": torch.ceil, "Cos": torch.cos, "Exp": torch.exp,
    "Floor": torch.floor, "IsFinite": torch.isfinite, "Log": torch.log, "LogicalNot": torch.logical_not,
    "Neg": torch.neg, "Reciprocal": torch.reciprocal, "Relu": torch.relu, "Round": torch.round, "Rsqrt": torch.rsqrt,
    "Sigmoid": torch.sigmoid, "Silu": torch.nn.functional.silu, "Sin": torch.sin, "Sqrt": torch.sqrt,
    "Tan": torch.tan, "Tanh": torch.tanh, "Log1p": torch.log1p, "Sign": torch.sign, "Hardswish": torch.nn.functional.hardswish,
}.items():  # fmt: skip
    both(name, "T", function)
for name, function in {
    "BitwiseAnd": torch.bitwise_and, "BitwiseOr": torch.bitwise_or, "BitwiseXor": torch.bitwise_xor,
    "Eq": torch.eq, "Ne": torch.ne, "Lt": torch.lt, "Le": torch.le, "Gt": torch.gt, "Ge": torch.ge,
}.items():  # fmt: skip
    both(name + "Tensor", "TT", function)
    both(name + "Scalar", "TS", function)
for name, function in {
    "Mul": torch.mul, "Div": torch.div, "Minimum": torch.minimum, "Maximum": torch.maximum,
    "LogicalAnd": torch.logical_and, "LogicalOr": torch.logical_or, "FloorDivide": torch.floor_divide,
    "Atan2": torch.atan2,
}.items():  # fmt: skip
    both(name, "TT", function)
for name, function in {"Muls": torch.mul, "Divs": torch.div, "FloorDivides": torch.floor_divide}.items():
    both(name, "TS", function)
both("RemainderTensorScalar", "TS", torch.remainder)
both("RemainderTensorTensor", "TT", torch.remainder)
both("PowTensorScalar", "TS", torch.pow)
both("PowTensorTensor", "TT", torch.pow)
for name, function in {"Add": torch.add, "Sub": torch.sub}.items():
    both(name, "TTS", lambda self, other, alpha, f=function: f(self, other, alpha=alpha))
    both(name + "s", "TSS", lambda self, other, alpha, f=function: f(self, other, alpha=alpha))
both("Rsubs", "TSS", lambda self, other, alpha: torch.rsub(self, other, alpha=alpha))
both("DivMod", "TTi", lambda self, other, mode: torch.div(self, other, rounding_mode=[None, "trunc", "floor"][mode]))
both("DivMods", "TSi", lambda self, other, mode: torch.div(self, other, rounding_mode=[None, "trunc", "floor"][mode]))
both("Addcmul", "TTTS", lambda self, a, b, value: torch.addcmul(self, a, b, value=value))
both("Addcdiv", "TTTS", lambda self, a, b, value: torch.addcdiv(self, a, b, value=value))
both("Lerp", "TTT", torch.lerp)
both("Lerps", "TTS", torch.lerp)
both("Clamp", "TSS", torch.clamp)
gives("ClampMin", "TST", lambda self, low: torch.clamp(self, min=low))
gives("ClampMax", "TST", lambda self, high: torch.clamp(self, max=high))
gives("ClampTensor", "TTTT", torch.clamp)
both("Hardtanh", "TSS", torch.nn.functional.hardtanh)
gives("SWhere", "TTTT", torch.where)
gives("ThresholdBackward", "TTST", torch.ops.aten.threshold_backward)
gives("HardtanhBackward", "TTSST", torch.ops.aten.hardtanh_backward)
gives("SigmoidBackward", "TTT", torch.ops.aten.sigmoid_backward)
gives("SiluBackward", "TTT", torch.ops.aten.silu_backward)
gives("LeakyRelu", "TST", torch.nn.functional.leaky_relu)
KERNELS["aclnnGelu"] = "TT", lambda self, out: put(out, torch.nn.functional.gelu(self))
gives("TanhBackward", "TTT", torch.ops.aten.tanh_backward)
gives("HardswishBackwardV2", "TTT", torch.ops.aten.hardswish_backward)
gives("LeakyReluBackward", "TTSbT", torch.ops.aten.leaky_relu_backward)
gives("GeluBackward", "TTT", torch.ops.aten.gelu_backward)


@operator("LogSigmoidForward", "TTT")
def log_sigmoid_forward(self, out, buffer) -> None:
    put(out, torch.nn.functional.logsigmoid(self))


gives("LogSigmoidBackward", "TTTT", lambda grad, self, buffer: grad * torch.sigmoid(-self))

# Filling and copying

changes("FillScalar", "TS", lambda self, value: torch.full_like(self, value))
changes("FillTensor", "TT", lambda self, value: value.expand_as(self))
changes("Zero", "T", torch.zeros_like)
changes("One", "T", torch.ones_like)
changes("Copy", "TT", lambda self, source: source.expand_as(self))
changes("MaskedFillScalar", "TTS", torch.masked_fill)
changes("MaskedFillTensor", "TTT", torch.masked_fill)
gives("Cast", "TeT", lambda self, dtype: self.to(dtype))
gives("Eye", "iiT", torch.eye)


@operator("Arange", "SSST")
def arange(start, end, step, out) -> None:
    put(out, torch.arange(start, end, step, dtype=out.dtype))


@operator("InplaceUniform", "Tdduu")
def uniform(self, low, high, seed, offset) -> None:
    generator = torch.Generator().manual_seed((seed * 1000003 + offset) % 2**63)
    put(self, torch.empty(self.shape).uniform_(low, high, generator=generator))


@operator("InplaceNormal", "Tffii")
def normal(self, mean, std, seed, offset) -> None:
    generator = torch.Generator().manual_seed((seed * 1000003 + offset) % 2**63)
    put(self, torch.empty(self.shape).normal_(mean, std, generator=generator))


@operator("InplaceRandom", "Tiiii")
def random(self, low, high, seed, offset) -> None:
    generator = torch.Generator().manual_seed((seed * 1000003 + offset) % 2**63)
    put(self, torch.empty(self.shape, dtype=torch.int64).random_(low, high, generator=generator))


# Shapes

gives("Cat", "LiT", torch.cat)
gives("Stack", "LiT", torch.stack)
gives("Flip", "TAT", torch.flip)
gives("Roll", "TAAT", torch.roll)
gives("Repeat", "TAT", lambda self, counts: self.repeat(counts))
gives("ConstantPadNd", "TAST", torch.constant_pad_nd)
gives("Tril", "TiT", torch.tril)
gives("Triu", "TiT", torch.triu)

# Reductions: no dimension means all


def over(dims, self) -> list[int]:
    return dims or list(range(self.dim()))


gives("ReduceSum", "TAbeT", lambda self, dims, keep, dtype: self.sum(over(dims, self), keep, dtype=dtype))
gives("Mean", "TAbeT", lambda self, dims, keep, dtype: self.mean(over(dims, self), keep, dtype=dtype))
gives("MeanV2", "TAbbT", lambda self, dims, keep, noop: self.mean(over(dims, self), keep))
gives("Amax", "TAbT", lambda self, dims, keep: self.amax(over(dims, self), keep))
gives("Amin", "TAbT", lambda self, dims, keep: self.amin(over(dims, self), keep))
gives("Max", "TT", torch.max)
gives("Min", "TT", torch.min)
gives("ArgMax", "TibT", torch.argmax)
gives("ArgMin", "TibT", torch.argmin)
gives("Cumsum", "TieT", lambda self, dim, dtype: self.cumsum(dim, dtype=dtype))
gives("Prod", "TeT", lambda self, dtype: self.prod(dtype=dtype))
gives("LinalgVectorNorm", "TSAbeT",
      lambda self, order, dims, keep, dtype: torch.linalg.vector_norm(self, order, dims or None, keep, dtype=dtype))  # fmt: skip
gives("Softmax", "TiT", torch.softmax)
gives("LogSoftmax", "TiT", torch.log_softmax)
gives("SoftmaxBackward", "TTiT", lambda grad, out, dim: torch.ops.aten._softmax_backward_data(grad, out, dim, out.dtype))
gives("LogSoftmaxBackward", "TTiT",
      lambda grad, out, dim: torch.ops.aten._log_softmax_backward_data(grad, out, dim, out.dtype))  # fmt: skip
gives("Std", "TAibT", lambda self, dims, correction, keep: self.std(over(dims, self), correction=correction, keepdim=keep))


@operator("All", "TAbT")
def every(self, dims, keep, out) -> None:
    put(out, torch.ops.aten.all.dims(self, over(dims, self), keep))


@operator("Any", "TAbT")
def some(self, dims, keep, out) -> None:
    put(out, torch.ops.aten.any.dims(self, over(dims, self), keep))


def pair(name: str, signature: str, function: Callable) -> None:
    def kernel(*arguments) -> None:
        for out, value in zip(arguments[-2:], function(*arguments[:-2]), strict=True):
            put(out, value)

    KERNELS["aclnn" + name] = signature, kernel


pair("MaxDim", "TibTT", torch.max)
pair("MinDim", "TibTT", torch.min)
pair("Topk", "TiibbTT", torch.topk)
pair("TopkV2", "TiibbiTT", lambda self, k, dim, largest, ordered, policy: self.topk(k, dim, largest, ordered))
pair("Sort", "TbibTT", lambda self, stable, dim, descending: self.sort(dim=dim, descending=descending, stable=stable))

# By index

REDUCE = {1: "add", 2: "multiply"}


def scatter(self, dim, index, source, reduce):
    return self.scatter(dim, index, source, **({"reduce": REDUCE[reduce]} if reduce else {}))


gives("Gather", "TiTT", torch.gather)
gives("IndexSelect", "TiTT", torch.index_select)
gives("Scatter", "TiTTiT", scatter)
changes("Scatter", "TiTTi", scatter)
gives("ScatterValue", "TiTSiT", scatter)
changes("ScatterValue", "TiTSi", scatter)
gives("ScatterAdd", "TiTTT", torch.scatter_add)
gives("IndexAdd", "TiTTST", lambda self, dim, index, source, alpha: self.index_add(dim, index, source, alpha=alpha))


def given(indices: list) -> list:
    """An empty tensor means that the dimension is not indexed."""
    return [None if index.shape == (0,) else index for index in indices]


gives("Index", "TLT", lambda self, indices: torch.ops.aten.index.Tensor(self, given(indices)))
KERNELS["aclnnIndexPutImpl"] = "TLTbb", lambda self, indices, values, accumulate, unsafe: (
    torch.ops.aten._index_put_impl_(self, given(indices), values, accumulate, unsafe)
)

KERNELS["aclnnMaskedSelect"] = "TTR", lambda self, mask, out: out.put(self.masked_select(mask))
KERNELS["aclnnNonzeroV2"] = "TR", lambda self, out: out.put(self.nonzero().t())
KERNELS["aclnnNonzero"] = "TR", lambda self, out: out.put(self.nonzero())

# Layers. The device multiplies halves exactly and adds in float32.


def wide(tensor):
    return tensor.float() if tensor is not None and tensor.dtype in (torch.float16, torch.bfloat16) else tensor


for name in ("BatchMatMul", "Matmul", "Mm"):
    KERNELS["aclnn" + name] = "TTTc", lambda self, other, out, cube: put(out, wide(self) @ wide(other))

KERNELS["aclnnAddmm"] = "TTTSSTc", lambda self, a, b, beta, alpha, out, cube: put(
    out, torch.addmm(wide(self), wide(a), wide(b), beta=beta, alpha=alpha)
)


@operator("Convolution", "TTTAAAbAiTc")
def convolution(input, weight, bias, stride, padding, dilation, transposed, output_padding, groups, out, cube) -> None:
    put(out, torch.convolution(
        wide(input), wide(weight), wide(bias), stride, padding, dilation, transposed, output_padding, groups
    ))  # fmt: skip


@operator("ConvolutionBackward", "TTTAAAAbAiBcTTT")
def convolution_backward(grad, input, weight, bias_sizes, stride, padding, dilation, transposed, output_padding,
                         groups, wanted, cube, *outs) -> None:  # fmt: skip
    found = torch.ops.aten.convolution_backward(
        wide(grad), wide(input), wide(weight), bias_sizes, stride, padding, dilation, transposed, output_padding,
        groups, wanted,
    )  # fmt: skip
    for out, value, want in zip(outs, found, wanted, strict=True):
        if want:
            put(out, value)


@operator("BatchNorm", "TTTTTbddTTT")
def batch_norm(input, weight, bias, mean, variance, training, momentum, eps, out, saved_mean, saved_invstd) -> None:
    found = torch.native_batch_norm(wide(input), weight, bias, mean, variance, training, momentum, eps)
    put(out, found[0])
    if training:
        put(saved_mean, found[1])
        put(saved_invstd, found[2])


@operator("BatchNormBackward", "TTTTTTTbdBTTT")
def batch_norm_backward(grad, input, weight, mean, variance, saved_mean, saved_invstd, training, eps, wanted,
                        *outs) -> None:  # fmt: skip
    found = torch.ops.aten.native_batch_norm_backward(
        wide(grad), wide(input), weight, mean, variance, saved_mean if training else None,
        saved_invstd if training else None, training, eps, wanted,
    )  # fmt: skip
    for out, value, want in zip(outs, found, wanted, strict=True):
        if want:
            put(out, value)


@operator("GroupNorm", "TTTiiiidTTT")
def group_norm(self, gamma, beta, n, c, hw, groups, eps, *outs) -> None:
    found = torch.native_group_norm(wide(self).contiguous(), wide(gamma), wide(beta), n, c, hw, groups, eps)
    for out, value in zip(outs, found, strict=True):
        put(out, value)


@operator("GroupNormBackward", "TTTTTiiiiBTTT")
def group_norm_backward(grad, input, mean, rstd, gamma, n, c, hw, groups, wanted, *outs) -> None:
    found = torch.ops.aten.native_group_norm_backward(
        wide(grad).contiguous(), wide(input).contiguous(), wide(mean), wide(rstd), wide(gamma), n, c, hw, groups, wanted
    )
    for out, value, want in zip(outs, found, wanted, strict=True):
        if want:
            put(out, value)


@operator("LayerNorm", "TATTdTTT")
def layer_norm(self, shape, weight, bias, eps, *outs) -> None:
    found = torch.native_layer_norm(wide(self), shape, wide(weight), wide(bias), eps)
    for out, value in zip(outs, found, strict=True):
        put(out, value)


@operator("LayerNormBackward", "TTATTTTBTTT")
def layer_norm_backward(grad, input, shape, mean, rstd, weight, bias, wanted, *outs) -> None:
    found = torch.ops.aten.native_layer_norm_backward(
        wide(grad), wide(input), shape, wide(mean), wide(rstd), wide(weight), wide(bias), wanted
    )
    for out, value, want in zip(outs, found, wanted, strict=True):
        if want:
            put(out, value)


@operator("MaxPool2dWithMask", "TAAAAbTT")
def max_pool(self, kernel, stride, padding, dilation, ceil, out, mask) -> None:
    """Leave the mask unset: the backward kernel looks for the maximum again."""
    put(out, torch.nn.functional.max_pool2d(self, kernel, stride or None, padding, dilation, ceil))


@operator("MaxPool2dWithMaskBackward", "TTTAAAAbT")
def max_pool_backward(grad, self, mask, kernel, stride, padding, dilation, ceil, out) -> None:
    _, index = torch.ops.aten.max_pool2d_with_indices(self, kernel, stride, padding, dilation, ceil)
    put(out, torch.ops.aten.max_pool2d_with_indices_backward(
        grad, self, kernel, stride, padding, dilation, ceil, index
    ))  # fmt: skip


gives("UpsampleNearest2dV2", "TAffT", lambda self, size, *scales: torch.ops.aten.upsample_nearest2d(
    self, size, *(scale if scale > 0 else None for scale in scales)))  # fmt: skip
gives("UpsampleNearest2dBackward", "TAAddT", lambda grad, size, input_size, *scales:
      torch.ops.aten.upsample_nearest2d_backward(
          grad, size, input_size, *(scale if scale > 0 else None for scale in scales)))  # fmt: skip

# Lists of tensors


def foreach(name: str, signature: str, function: Callable) -> None:
    def kernel(*arguments) -> None:
        for out, value in zip(arguments[-1], function(*arguments[:-1]), strict=True):
            put(out, value)

    KERNELS["aclnnForeach" + name] = signature, kernel


for name, function in {"Add": torch._foreach_add, "Sub": torch._foreach_sub}.items():
    foreach(f"{name}ListV2", "LLSL", lambda a, b, alpha, f=function: f(a, b, alpha=alpha))
    foreach(f"{name}ScalarV2", "LSL", function)
for name, function in {"Mul": torch._foreach_mul, "Div": torch._foreach_div}.items():
    foreach(f"{name}List", "LLL", function)
    foreach(f"{name}ScalarV2", "LSL", function)
foreach("LerpScalar", "LLSL", torch._foreach_lerp)
foreach("LerpList", "LLLL", torch._foreach_lerp)
foreach("Sqrt", "LL", torch._foreach_sqrt)
foreach("Neg", "LL", torch._foreach_neg)
foreach("Reciprocal", "LL", torch._foreach_reciprocal)
foreach("Norm", "LSL", torch._foreach_norm)
foreach("Copy", "LL", lambda source: source)
foreach("AddcmulScalarV2", "LLLSL", lambda a, b, c, value: torch._foreach_addcmul(a, b, c, value=value))
foreach("AddcdivScalarV2", "LLLSL", lambda a, b, c, value: torch._foreach_addcdiv(a, b, c, value=value))
KERNELS["aclnnForeachZeroInplace"] = "L", torch._foreach_zero_

# Optimizers


@operator("FusedSgd", "LLLTffffbbb")
def fused_sgd(parameters, gradients, momenta, grad_scale, decay, momentum, lr, dampening, nesterov, maximize,
              first) -> None:  # fmt: skip
    torch._fused_sgd_(
        parameters, gradients, momenta, weight_decay=decay, momentum=momentum, lr=lr, dampening=dampening,
        nesterov=nesterov, maximize=maximize, is_first_step=first, grad_scale=grad_scale,
    )  # fmt: skip


@operator("ApplyAdamWV2", "TTTTTTfffffbb")
def adamw(weight, mean, square, largest, grad, step, lr, beta1, beta2, decay, eps, amsgrad, maximize) -> None:
    torch._fused_adamw_(
        [weight], [grad], [mean], [square], [largest] if amsgrad else [], [step + 1], lr=lr, beta1=beta1, beta2=beta2,
        weight_decay=decay, eps=eps, amsgrad=amsgrad, maximize=maximize,
    )  # fmt: skip


@operator("ForeachNonFiniteCheckAndUnscale", "LTT")
def unscale(gradients, found_inf, factor) -> None:
    torch._amp_foreach_non_finite_check_and_unscale_(gradients, found_inf, factor)


@operator("AmpUpdateScale", "TTTddiTT")
def update_scale(scale, growth, found_inf, up, down, interval, new_scale, new_growth) -> None:
    scale, growth = scale.clone(), growth.clone()
    torch._amp_update_scale_(scale, growth, found_inf, up, down, interval)
    put(new_scale, scale)
    put(new_growth, growth)

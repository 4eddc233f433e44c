"""The ops of a PIR program, and how the legacy format writes them.

A line of the table is: names of PIR ops, ``=``, legacy op (``*``: the same name), inputs in PIR's
order, ``->``, outputs in PIR's order, ``|``, attributes. Inputs are:

- ``X``: a tensor in slot X. ``X*``: a list of tensors.
- ``axis:``: a constant that becomes the attribute ``axis``.
- ``axis:A:B``: a constant that becomes an attribute, or a tensor in slot A, or a list in slot B.
- ``-``: not written.

Outputs are slots, ``Out=X`` for an output that overwrites input X, or ``-``. Attributes are written
only if their names or presence differ: ``old:new``, or ``old:`` if the legacy op lacks it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

_TABLE = """
abs acos asin atan ceil cos cosh erf exp expm1 floor log log10 log1p log2 logsigmoid reciprocal relu
relu6 round rsqrt selu sigmoid sign silu sin sinh sqrt square stanh tan tanh tanh_shrink softsign
swish celu elu gelu softplus thresholded_relu = * X -> Out
log_softmax softmax assign flip maxout channel_shuffle pixel_shuffle logical_not = * X -> Out
mish = * X -> Out | lambda:threshold
hardsigmoid = hard_sigmoid X -> Out
hardswish = hard_swish X -> Out
hardtanh = brelu X -> Out
hardshrink = hard_shrink X -> Out
softshrink = * X -> Out | threshold:lambda
leaky_relu = * X -> Out | negative_slope:alpha
pow = * X -> Out | y:factor
prelu = * X Alpha -> Out
rrelu = * X -> Out Noise
clip = * X min:Min max:Max -> Out
scale = * X scale:ScaleTensor -> Out
dropout = * X - dropout_prob: -> Out - | mode:dropout_implementation seed: fix_seed:

conv2d depthwise_conv2d conv3d = * Input Filter -> Output
conv2d_transpose depthwise_conv2d_transpose = * Input Filter output_size: -> Output
pool2d = * X ksize: -> Out
pool3d = * X -> Out | kernel_size:ksize
max_pool2d_with_index = * X -> Out Mask | kernel_size:ksize
batch_norm_ = batch_norm X Mean Variance Scale Bias\
 -> Y MeanOut=Mean VarianceOut=Variance SavedMean SavedVariance - | data_format:data_layout
layer_norm = * X Scale Bias -> Y Mean Variance
group_norm = * X Scale Bias -> Y Mean Variance | data_format:data_layout
instance_norm = * X Scale Bias -> Y SavedMean SavedVariance
nearest_interp bilinear_interp bicubic_interp = *_v2 X OutSize SizeTensor* Scale -> Out\
 | data_format:data_layout
pad3d = * X paddings:Paddings -> Out | pad_value:value
embedding = lookup_table_v2 Ids W -> Out | sparse:
unfold = * X -> Y
grid_sample = grid_sampler X Grid -> Output
affine_grid = * Theta output_shape:OutputShape -> Output

add = elementwise_add X Y -> Out
subtract = elementwise_sub X Y -> Out
multiply = elementwise_mul X Y -> Out
divide = elementwise_div X Y -> Out
maximum = elementwise_max X Y -> Out
minimum = elementwise_min X Y -> Out
fmax = elementwise_fmax X Y -> Out
fmin = elementwise_fmin X Y -> Out
remainder = elementwise_mod X Y -> Out
floor_divide = elementwise_floordiv X Y -> Out
elementwise_pow = * X Y -> Out
equal not_equal less_than less_equal greater_than greater_equal logical_and logical_or logical_xor\
 bmm = * X Y -> Out
matmul = matmul_v2 X Y -> Out | transpose_x:trans_x transpose_y:trans_y
isfinite isinf isnan = *_v2 X -> Out
lerp = * X Y Weight -> Out
where = * Condition X Y -> Out
add_n = sum X* -> Out
einsum = * Operands* -> Out - -

mean = reduce_mean X dim: -> Out | keepdim:keep_dim
sum = reduce_sum X dim: -> Out | keepdim:keep_dim dtype:out_dtype
prod = reduce_prod X dim: -> Out | keepdim:keep_dim
max = reduce_max X dim: -> Out | keepdim:keep_dim
min = reduce_min X dim: -> Out | keepdim:keep_dim
amax = reduce_amax X -> Out | axis:dim keepdim:keep_dim
amin = reduce_amin X -> Out | axis:dim keepdim:keep_dim
logsumexp p_norm = * X -> Out
cumsum = * X axis: -> Out
argmax = arg_max X axis: -> Out
argmin = arg_min X axis: -> Out
argsort = * X -> Out Indices
topk = top_k_v2 X k:K -> Out Indices
tril = tril_triu X -> Out
roll = * X shifts:ShiftsTensor -> Out

reshape = reshape2 X shape:Shape:ShapeTensor -> Out
transpose = transpose2 X -> Out | perm:axis
flatten = flatten_contiguous_range X -> Out
squeeze = squeeze2 X axes: -> Out
unsqueeze = unsqueeze2 X axes:AxesTensor:AxesTensorList -> Out
concat = * X* axis:AxisTensor -> Out
stack = * X* -> Y
split = * X sections: axis:AxisTensor -> Out*
split_with_num = split X axis:AxisTensor -> Out*
unbind = * X -> Out*
unstack = * X -> Y*
meshgrid = * X* -> Out*
slice = * Input starts:StartsTensor:StartsTensorList ends:EndsTensor:EndsTensorList -> Out
strided_slice = * Input starts:StartsTensor:StartsTensorList ends:EndsTensor:EndsTensorList\
 strides:StridesTensor:StridesTensorList -> Out
expand = expand_v2 X shape:Shape:expand_shapes_tensor -> Out
expand_as = expand_as_v2 X Y -> Out
tile = * X repeat_times:RepeatTimes:repeat_times_tensor -> Out
gather = * X Index axis:Axis -> Out
gather_nd = * X Index -> Out
index_select = * X Index -> Out | axis:dim
take_along_axis = * Input Index -> Result | axis:Axis
repeat_interleave = * X -> Out | repeats:Repeats axis:dim
one_hot = one_hot_v2 X depth:depth_tensor -> Out
numel = size Input -> Out
full_batch_size_like = fill_constant_batch_size_like Input -> Out
full_like = fill_any_like X value: -> Out
full_with_tensor = fill_constant ValueTensor shape:ShapeTensor:ShapeTensorList -> Out
linspace = * Start Stop Num -> Out

yolo_box = * X ImgSize -> Boxes Scores
box_coder = * PriorBox PriorBoxVar TargetBox -> OutputBox
prior_box = * Input Image -> Boxes Variances
multiclass_nms3 = * BBoxes Scores RoisNum -> Out Index NmsRoisNum
matrix_nms = * BBoxes Scores -> Out Index RoisNum
"""


@dataclass(frozen=True)
class Slot:
    """An input or output of an op.

    Attributes:
        tensor: slot of a tensor; empty if there is none.
        tensors: slot of a list of tensors; empty if there is none.
        attribute: attribute that a constant input becomes; empty if there is none.
        overwrites: slot of the input that an output overwrites; empty if it overwrites none.
    """

    tensor: str = ""
    tensors: str = ""
    attribute: str = ""
    overwrites: str = ""


@dataclass(frozen=True)
class Signature:
    """How the legacy format writes an op.

    Attributes:
        kind: type of the legacy op.
        inputs: slots in the order of the PIR op's inputs.
        outputs: slots in the order of the PIR op's outputs.
        renamed: PIR attribute -> legacy attribute; empty if the legacy op lacks it.
    """

    kind: str
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    renamed: Mapping[str, str]


def _slot(text: str) -> Slot:
    if text.endswith("*"):
        return Slot(tensors=text[:-1])
    attribute, is_attribute, slots = text.partition(":")
    if is_attribute:
        return Slot(*f"{slots}:".split(":")[:2], attribute=attribute)
    tensor, _, overwrites = text.partition("=")
    return Slot("" if tensor == "-" else tensor, overwrites=overwrites)


def _signatures() -> dict[str, Signature]:
    signatures = {}
    # A line without "=" continues in the next line.
    names: list[str] = []
    for line in _TABLE.splitlines():
        left, equals, right = line.partition(" = ")
        names += left.split()
        if not equals:
            continue
        ports, _, attributes = right.partition("|")
        (kind, *inputs), outputs = (side.split() for side in ports.split("->"))
        renamed = dict(pair.split(":") for pair in attributes.split())
        for name in names:
            signatures[name] = Signature(
                kind.replace("*", name),
                tuple(map(_slot, inputs)),
                tuple(map(_slot, outputs)),
                renamed,
            )
        names = []
    return signatures


# Name of a PIR op without its dialect -> how the legacy format writes it.
SIGNATURES: Mapping[str, Signature] = _signatures()

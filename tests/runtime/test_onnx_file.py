"""ONNX files: cutting a graph while its weights stay on disk, and refusing what a bundle must not have."""

import contextlib

import numpy as np
import onnx
import onnxruntime
import pytest
from error_checks import expect_error
from galip_runtime import FileRefused
from galip_runtime.bundle.onnx_file import OnnxFile
from galip_runtime.bundle.protobuf import encode_field, encode_varint, read_fields
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

SIZE = 40  # a weight of 40 x 40 float32 stays on disk; a bias of 40 does not


def chain(layers: int = 3, **options) -> onnx.ModelProto:
    """Return a model x → layer 0 → … → y: each layer is a Gemm with its own weights; z is added last."""
    rng = np.random.default_rng(0)
    nodes, tensors = [], []
    for index in range(layers):
        source = f"h{index}" if index else "x"
        tensors += [
            numpy_helper.from_array(rng.normal(size=(SIZE, SIZE)).astype(np.float32) / 6, f"w{index}"),
            numpy_helper.from_array(rng.normal(size=SIZE).astype(np.float32), f"b{index}"),
        ]
        nodes.append(helper.make_node("Gemm", [source, f"w{index}", f"b{index}"], [f"h{index + 1}"]))
    nodes.append(helper.make_node("Add", [f"h{layers}", "z"], ["y"], doc_string="ünï"))
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ("N", SIZE))
        for name in ("x", "z", "y", *(f"h{index + 1}" for index in range(layers)))
    }
    graph = helper.make_graph(
        nodes,
        "chain",
        [values["x"], values["z"]],
        [values["y"]],
        tensors,
        value_info=[value for name, value in values.items() if name.startswith("h")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8, **options)


@pytest.fixture
def saved(tmp_path):
    """Return a function that saves a model and returns its path."""

    def save(model, name="graph.onnx"):
        path = tmp_path / name
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        return path

    return save


def run(model: bytes, folder, **inputs):
    options = onnxruntime.SessionOptions()
    key = "session.model_external_initializers_file_folder_path"
    options.add_session_config_entry(key, str(folder))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def test_padded_rows_change_no_result(saved):
    """And no product is left that has a single row."""
    rng = np.random.default_rng(0)
    stacked = numpy_helper.from_array(rng.normal(size=(3, SIZE, SIZE)).astype(np.float32), "stacked")
    model = chain()
    nodes = [
        helper.make_node("Transpose", ["wide"], ["transposed"], perm=[1, 0, 2]),  # (3, N, SIZE)
        helper.make_node("MatMul", ["transposed", "stacked"], ["products"]),
    ]
    model.graph.node.extend(nodes)
    model.graph.initializer.append(stacked)
    shapes = {"wide": ("N", 3, SIZE), "transposed": (3, "N", SIZE), "products": (3, "N", SIZE)}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in shapes}
    model.graph.input.append(values["wide"])
    model.graph.value_info.append(values["transposed"])
    model.graph.output.append(values["products"])
    path = saved(model)
    file = OnnxFile(path)
    inputs, outputs = ["x", "z", "wide"], ["y", "products"]
    feeds = {name: rng.normal(size=(5, SIZE)).astype(np.float32) for name in ("x", "z")}
    feeds["wide"] = rng.normal(size=(5, 3, SIZE)).astype(np.float32)
    for output in outputs:
        plain, padded = (file.extract(inputs, [output], threads=threads) for threads in (None, 1))
        np.testing.assert_array_equal(
            run(padded, path.parent, **feeds), run(plain, path.parent, **feeds), output
        )
        operands = {
            node.input[0]
            for node in onnx.load_from_string(padded).graph.node
            if node.op_type in ("Gemm", "MatMul")
        }
        assert operands
        assert all(name.startswith("galip_runtime/") for name in operands)
    assert file.extract(inputs, ["y"]) == file.extract(inputs, ["y"], threads=None)


@pytest.mark.parametrize("half", [False, True], ids=["float32", "from float16"])
@pytest.mark.parametrize(
    ("matrices", "width", "threads"),
    [(2, 256, 2), (2, 256, 8), (2, 256, 32), (8, 128, 2), (8, 256, 2), (8, 128, 8), (16, 128, 4)],
)
def test_a_stack_of_products_does_not_depend_on_batches_and_threads(saved, matrices, width, threads, half):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(matrices, width, width)).astype(np.float16 if half else np.float32)
    rows, result, stack = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (matrices, size, width))
        for name, size in (("rows", "N"), ("result", "N"), ("stack", width))
    )
    nodes = [helper.make_node("MatMul", ["rows", "stack" if half else "stored"], ["result"])]
    if half:
        nodes.insert(0, helper.make_node("Cast", ["stored"], ["stack"], to=TensorProto.FLOAT))
    graph = helper.make_graph(
        nodes, "stack", [rows], [result], [numpy_helper.from_array(weights, "stored")], value_info=[stack]
    )
    opset = helper.make_opsetid("", 18)
    # the batch is the second axis here, as within the generator; an input that has it first names it
    graph.input.insert(0, helper.make_tensor_value_info("noise", TensorProto.FLOAT, ("N", 1)))
    path = saved(helper.make_model(graph, opset_imports=[opset], ir_version=8))
    model = OnnxFile(path).extract(["noise", "rows"], ["result"], threads=threads)
    operators = {node.op_type for node in onnx.load_from_string(model).graph.node}
    assert operators >= ({"Split", "Concat"} if matrices < 4 * threads or width == 256 else {"Pad", "Slice"})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    key = "session.model_external_initializers_file_folder_path"
    options.add_session_config_entry(key, str(path.parent))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    noise, feeds = np.zeros((32, 1), np.float32), rng.normal(size=(matrices, 32, width)).astype(np.float32)
    together = session.run(None, {"noise": noise, "rows": feeds})[0]
    np.testing.assert_allclose(together, feeds @ weights.astype(np.float32), rtol=1e-3, atol=1e-3)
    for size in (1, 2, 4, 8):
        parts = [
            session.run(None, {"noise": noise[:size], "rows": feeds[:, start : start + size]})[0]
            for start in range(0, 32, size)
        ]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), together, f"batches of {size}")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("stack", [3, 10**9])
def test_the_weights_decide_the_size_of_a_stack(saved, stack):
    """Not the sizes that a forged file states."""
    noise, rows, result = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("noise", ("N", 1)), ("rows", (stack, "N", 4)), ("result", (stack, "N", 4)))
    )
    node = helper.make_node("MatMul", ["rows", "weights"], ["result"])
    weights = numpy_helper.from_array(np.ones((2, 4, 4), np.float32), "weights")
    graph = helper.make_graph([node], "forged", [noise, rows], [result], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    cut = OnnxFile(saved(model)).extract(["noise", "rows"], ["result"], threads=2)
    assert "Split" not in {node.op_type for node in onnx.load_from_string(cut).graph.node}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("doubled", [0, 60])
def test_a_size_computed_from_shapes(saved, doubled):
    """Exports before the rewrites have such sizes; 60 times a Concat with itself would have 2^60 axes."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ("N", 4)) for name in "xy")
    nodes = [helper.make_node("Shape", ["x"], ["s0"], start=0, end=1)]
    nodes += [helper.make_node("Concat", [f"s{i}"] * 2, [f"s{i + 1}"], axis=0) for i in range(doubled)]
    nodes.append(helper.make_node("Concat", [f"s{doubled}", "four"], ["size"], axis=0))
    nodes.append(helper.make_node("Expand", ["row", "size"], ["y"]))
    constants = {"four": np.array([4]), "row": np.ones((1, 4), np.float32)}
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "sizes", [x], [y], tensors)
    path = saved(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))
    file = OnnxFile(path)
    if doubled:
        with expect_error(FileRefused, path, "Expand"):
            file.check_memory({"x": (1, 4)}, 10**6)
    else:
        file.check_memory({"x": (1, 4)}, 10**6)
        assert run(file.extract(["x"], ["y"]), path.parent, x=np.ones((3, 4), np.float32)).shape == (3, 4)


def test_a_product_with_one_row_for_each_token_stays(saved):
    weight = numpy_helper.from_array(np.eye(SIZE, dtype=np.float32), "weight")
    tokens, product = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ("N", "L", SIZE))
        for name in ("tokens", "product")
    )
    node = helper.make_node("MatMul", ["tokens", "weight"], ["product"])
    graph = helper.make_graph([node], "tokens", [tokens], [product], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    file = OnnxFile(saved(model))
    assert file.extract(["tokens"], ["product"], threads=2) == file.extract(["tokens"], ["product"])


@pytest.fixture
def x():
    return np.random.default_rng(1).normal(size=(2, SIZE)).astype(np.float32)


def test_a_whole_graph_computes_the_same(saved, x):
    path = saved(chain())
    expected = run(path.read_bytes(), path.parent, x=x, z=x)
    model = OnnxFile(path).extract(["x", "z"], ["y"])
    assert len(model) < 3 * 4 * SIZE * SIZE / 10  # without the weights
    assert (run(model, path.parent, x=x, z=x) == expected).all()


@pytest.mark.parametrize("tensor", ["h1", "h2", "h3"])
def test_the_two_halves_of_a_cut_are_the_whole(saved, x, tensor):
    path = saved(chain(), "Graph 漢字.onnx")
    whole = run(path.read_bytes(), path.parent, x=x, z=2 * x)
    file = OnnxFile(path)
    middle = run(file.extract(["x"], [tensor]), path.parent, x=x)
    assert (run(file.extract([tensor, "z"], ["y"]), path.parent, z=2 * x, **{tensor: middle}) == whole).all()


def test_a_cut_has_only_the_nodes_and_weights_it_needs(saved):
    model = onnx.load_from_string(OnnxFile(saved(chain())).extract(["h1", "z"], ["y"]))
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Gemm", "Add"]
    assert [tensor.name for tensor in model.graph.initializer] == ["w1", "b1", "w2", "b2"]
    assert [tensor.data_location for tensor in model.graph.initializer] == [1, 0, 1, 0]
    assert [value.name for value in model.graph.input] == ["h1", "z"]
    assert (model.ir_version, model.opset_import[0].version, model.graph.name) == (8, 18, "chain")


def test_computed_tensors_and_their_widths(saved):
    path = saved(chain())
    file = OnnxFile(path)
    assert file.computes("h1")
    assert not file.computes("x")
    assert not file.computes("w1")
    assert file.width("h1") == SIZE
    with expect_error(FileRefused, path, "w1"):
        file.width("w1")


@pytest.mark.parametrize(
    ("inputs", "outputs", "missing"),
    [(["x"], ["y"], "z"), (["x"], ["q"], "q"), (["q", "x"], ["h1"], "q")],
)
def test_an_impossible_cut(saved, inputs, outputs, missing):
    path = saved(chain())
    with expect_error(FileRefused, path, missing):
        OnnxFile(path).extract(inputs, outputs)


def test_a_damaged_width(saved):
    model = chain()
    del model.graph.value_info[:]
    graph = model.graph.SerializeToString() + encode_field(
        13, encode_field(1, b"h1") + encode_field(2, b"\0\0")
    )
    path = saved(encode_field(7, graph))
    with expect_error(FileRefused, path, "byte 0"):
        OnnxFile(path).width("h1")


def test_the_first_bytes_of_a_cut_are_versions(saved):
    """A producer's name could make it look like another format: onnxruntime decides by the first bytes."""
    model = chain(producer_name="xxORTM")
    assert OnnxFile(saved(model)).extract(["x"], ["h1"]).startswith(b"\x08\x08\x42")


def test_files_that_are_no_complete_graph_are_refused(saved):
    external = chain()
    onnx.external_data_helper.set_external_data(external.graph.initializer[0], "elsewhere")
    sparse = chain()
    sparse.graph.sparse_initializer.add()
    nested = chain()
    nested.graph.node[0].attribute.append(helper.make_attribute("body", helper.make_graph([], "g", [], [])))
    constant = chain()
    constant.graph.node.append(helper.make_node("Constant", [], ["c"], value=external.graph.initializer[0]))
    several = chain()
    several.graph.node[0].attribute.append(helper.make_attribute("all", [external.graph.initializer[0]]))
    function = chain()
    function.functions.add(name="f")
    foreign = chain()
    foreign.graph.node[0].domain = "com.microsoft"
    plain = chain().graph.initializer[0].SerializeToString()
    wide = b"".join(  # keys that a reader of 32 bits takes for external_data's and data_location's
        encode_varint((number << 3 | wire) + 2**32) + value
        for number, wire, value in ((13, 2, b"\0"), (14, 0, b"\1"))
    )
    hidden = encode_field(7, encode_field(1, encode_field(4, "Add")) + encode_field(5, plain + wide))
    nameless = encode_field(7, encode_field(5, b""))
    numbered = encode_field(7, encode_field(5, encode_varint(8 << 3) + b"\1"))
    whole = chain().SerializeToString()
    OnnxFile(saved(whole))  # what all but the last ones of these are made from
    contents = [
        (external, []),
        (sparse, ["field 15"]),
        (nested, ["field 6"]),
        (constant, []),
        (several, ["field 10"]),
        (function, ["field 25"]),
        (foreign, []),
        (hidden, [f"byte {hidden.index(wide)}"]),
        (nameless, ["byte 2", 0]),
        (numbered, ["field 8"]),
        (b"", []),
        (b"\0\0\0", ["byte 0"]),
        (b"not a graph at all", ["byte"]),
        (whole * 2, [2]),
        (whole[:-7], ["byte"]),
        (helper.make_model(helper.make_graph([], "g", [], [])).SerializeToString()[:2], [0]),
    ]
    for content, values in contents:
        path = saved(content)
        with expect_error(FileRefused, path, *values):
            OnnxFile(path)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_without_a_crash(tmp_path_factory, data):
    whole = chain(1).SerializeToString()
    head = whole[:200] + whole[-300:]
    position = data.draw(st.integers(0, len(head) - 1))
    byte = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "graph.onnx"
    rest = data.draw(st.sampled_from([head, whole]))[position + 1 :]
    path.write_bytes(head[:position] + bytes([byte]) + rest)
    with contextlib.suppress(FileRefused):
        file = OnnxFile(path)
        for name in ("x", "h1", "w0", "y", ""):
            file.computes(name)
            with contextlib.suppress(FileRefused):
                file.width(name)
        file.check_memory({"x": (1, SIZE), "z": (1, SIZE)}, 10**6)
        file.extract(["x", "z"], ["y"])


@given(st.lists(st.tuples(st.integers(1, 2**29 - 1), st.binary(max_size=300) | st.integers(0, 2**64 - 1))))
def test_round_trip_of_fields(entries):
    message = b"".join(
        encode_field(number, value)
        if isinstance(value, bytes)
        else encode_varint(number << 3) + encode_varint(value)
        for number, value in entries
    )
    fields = list(read_fields(message, 0, len(message)))
    values = [message[field.begin : field.end] if field.wire == 2 else field.value for field in fields]
    assert list(zip([field.number for field in fields], values, strict=True)) == entries
    assert all(message[field.start : field.end] for field in fields)

"""Files that ONNX Runtime must not even see."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from agents.errors import BundleError
from hub import onnx_safety
from hub.onnx_safety import check_onnx

INPUT = helper.make_tensor_value_info("obs", TensorProto.FLOAT, ["batch", 2])
OUTPUT = helper.make_tensor_value_info("actions", TensorProto.FLOAT, ["batch", 2])


def weights(name="weight"):
    return numpy_helper.from_array(np.eye(2, dtype=np.float32), name)


def model(nodes=None, initializers=None, **more):
    nodes = nodes or [helper.make_node("MatMul", ["obs", "weight"], ["actions"])]
    graph = helper.make_graph(
        nodes, "policy", [INPUT], [OUTPUT], [weights()] if initializers is None else initializers
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], **more)


def refusal(content):
    if isinstance(content, onnx.ModelProto):
        content = content.SerializeToString()
    with pytest.raises(BundleError) as caught:
        check_onnx(content, "agent.onnx")
    assert str(caught.value).startswith("agent.onnx ")
    return str(caught.value)


def test_a_policy_passes():
    made = model()
    helper.set_model_props(made, {"external_data": "../../secret"})  # a text like any other
    check_onnx(made.SerializeToString(), "agent.onnx")


def external(location="../../../etc/passwd"):
    tensor = weights()
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret", "weights.bin"])
def test_weights_in_another_file(location):
    message = "weights in another file"
    assert message in refusal(model(initializers=[external(location)]))
    constant = helper.make_node("Constant", [], ["weight"], value=external(location))
    product = helper.make_node("MatMul", ["obs", "weight"], ["actions"])
    assert message in refusal(model([constant, product], initializers=[]))


def test_external_weights_are_refused_by_either_mark():
    tensor = external()
    tensor.ClearField("external_data")
    assert "weights in another file" in refusal(model(initializers=[tensor]))
    tensor = external()
    tensor.ClearField("data_location")
    assert "weights in another file" in refusal(model(initializers=[tensor]))


def test_a_second_graph_is_merged_and_so_is_looked_at():
    """Protobuf readers merge a repeated field; a check of the first one alone would be fooled."""
    second = model(initializers=[external()]).SerializeToString()
    assert "weights in another file" in refusal(model().SerializeToString() + second)


@pytest.mark.parametrize("operator", ["Loop", "If"])
def test_loops_and_branches(operator):
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "body",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    attributes = {"Loop": {"body": body}, "If": {"then_branch": body, "else_branch": body}}
    node = helper.make_node(operator, ["obs"], ["actions"], **attributes[operator])
    assert "a loop or a branch" in refusal(model([node]))


@pytest.mark.parametrize("domain", ["com.microsoft", "ai.onnx.preview.training", "x" * 1000])
def test_operators_of_others(domain):
    node = helper.make_node("Gelu", ["obs"], ["actions"], domain=domain)
    message = refusal(model([node]))
    assert f"needs operators of '{domain[:50]}'" in message
    assert len(message) < 200


def test_the_standard_domain_has_two_names():
    node = helper.make_node("MatMul", ["obs", "weight"], ["actions"], domain="ai.onnx")
    check_onnx(model([node]).SerializeToString(), "agent.onnx")


def test_functions_training_and_sparse_weights():
    function = helper.make_function(
        "own", "F", ["x"], ["y"], [helper.make_node("Identity", ["x"], ["y"])], [], []
    )
    assert "functions of its own" in refusal(model(functions=[function]))
    training = model()
    training.training_info.add()
    assert "training steps" in refusal(training)
    sparse = model()
    sparse.graph.sparse_initializer.add().dims.append(2)
    assert "sparse weights" in refusal(sparse)


def test_truncation_at_every_byte():
    """What is cut inside a message is no message; no length is believed."""
    content = model().SerializeToString()
    n_refused = 0
    for end in range(len(content)):
        try:
            check_onnx(content[:end], "agent.onnx")
        except BundleError:
            n_refused += 1
    # It can end between two fields of the outermost message; what comes after the graph (opset,
    # 6 bytes) may be missing, which is ONNX Runtime's to find.
    assert n_refused >= len(content) - 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04\x95",  # the first bytes of a pickle
        b"PK\x03\x04" + bytes(30),
        b"not protobuf at all",
        b"\x08" + b"\xff" * 20,  # a number without an end
        b"\x3a\xff\xff\xff\xff\x0f",  # four gigabytes announced, none there
        b"\x3b\x3c",  # groups
        b"\x00\x00",  # field 0
        b"\xba\x80\x80\x80\x10\x00",  # the number of `graph` in 33 bits: other readers may cut it
    ],
)
def test_what_is_no_onnx_file(content):
    assert "not an ONNX file" in refusal(content)


def test_work_and_size_are_bounded(monkeypatch):
    assert "has over 500,000 parts" in refusal(b"\x08\x01" * 500_001)
    monkeypatch.setattr(onnx_safety, "MAX_ONNX_BYTES", 10)
    assert "is larger than 10 bytes" in refusal(model())

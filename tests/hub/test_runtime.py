"""The runtime by its numbers, on small files written by hand."""

import hashlib
import json
import subprocess
import sys
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from agents.errors import BundleError, MissingDependency, ObservationError
from hub.observation_check import FAR_CALLS, FAR_STDS, IMPOSSIBLE_STDS
from hub.runtime import OnnxPolicy, UnlikeTraining

WEIGHT = [[1.0, 0.5], [0.0, -0.25], [2.0, 0.0]]
MEAN, STD = [1.0, -2.0, 0.5], [2.0, 4.0, 0.5]


@pytest.fixture
def policy(linear_onnx):
    return OnnxPolicy(linear_onnx(WEIGHT, MEAN, STD, observation_names='["x", "y", "z"]'))


def by_hand(observation):
    z = (np.asarray(observation, float) - MEAN) / STD
    return np.clip(z @ np.array(WEIGHT), -1, 1)


def test_one_observation(policy):
    # z = (0.5, 1, -0.25) → (0.5 − 0.5, 0.25 − 0.25), by hand
    action = policy(np.array([2.0, 2.0, 0.375], np.float32))
    assert action.dtype == np.float32
    assert action.tolist() == [0.0, 0.0]
    # z = (2, −1, 0) → (2, 1.25), clipped
    assert policy(np.array([5.0, -6.0, 0.5])).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batches_and_single_observations_agree(linear_onnx, dtype):
    policy = OnnxPolicy(linear_onnx(WEIGHT, MEAN, STD, dtype))
    observations = np.random.default_rng(0).normal(MEAN, STD, size=(2000, 3))
    expected = by_hand(observations)
    for n in (1, 7, 1024, 2000):
        actions = policy(observations[:n])
        assert actions.shape == (n, 2)
        np.testing.assert_allclose(actions, expected[:n], atol=1e-6)
    for observation, action in zip(observations[:50], expected, strict=False):
        np.testing.assert_allclose(policy(observation), action, atol=1e-6)


def test_an_empty_batch(policy):
    actions = policy(np.zeros((0, 3)))
    assert actions.shape == (0, 2)
    assert actions.dtype == np.float32


def test_actions_are_the_callers_own(policy):
    """The next call must not change what the last one returned, nor the other way round."""
    observations = np.random.default_rng(0).normal(MEAN, STD, size=(4, 3))
    first, batch = policy(observations[0]), policy(observations)
    kept = first.copy(), batch.copy()
    first += 1
    policy(observations[1])
    policy(observations[::-1].copy())
    np.testing.assert_array_equal(first, kept[0] + 1)
    np.testing.assert_array_equal(batch, kept[1])
    np.testing.assert_array_equal(policy(observations[0]), kept[0])


def test_no_more_buffers_than_needed(policy):
    """A caller whose batches are all of different sizes does not fill the memory."""
    for n in range(1, 50):
        assert policy(np.zeros((n, 3))).shape == (n, 2)
    assert len(policy._calls) <= 8
    assert policy(np.zeros((5000, 3))).shape == (5000, 2)
    assert all(shape[0] <= 1024 for shape in policy._calls)


@pytest.mark.parametrize(
    "observation",
    [
        [2.0, 2.0, 0.375],
        (2, 2, 0.375),
        np.array([2.0, 2.0, 0.375], np.float16),
        np.array([[2, 0, 2, 0, 0.375, 0]])[0, ::2],  # not contiguous
        np.array([2.0, 2.0, 0.375], ">f8"),
        torch.tensor([2.0, 2.0, 0.375]),
    ],
)
def test_what_numpy_casts_is_taken(policy, observation):
    for _ in range(2):  # the first call of a shape and the fast ones after it
        np.testing.assert_allclose(policy(observation), [0.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (np.zeros(4), r"'obs' has shape \(4,\); this agent takes \(3,\) \(x, y, z\), or \(n, 3\)"),
        (np.zeros((2, 4)), r"has shape \(2, 4\)"),
        (np.zeros((2, 2, 3)), r"has shape \(2, 2, 3\)"),
        (1.0, r"has shape \(\)"),
        (np.zeros(3, complex), "'obs' is an array of complex128; this agent takes float32"),
        (np.array(["a", "b", "c"]), "is an array of <U1"),
        (np.array([1, 2, None]), "is an array of object"),
        ({"obs": np.zeros(3)}, "'obs' is a dict"),
        (None, "'obs' is a NoneType"),
        ([[1.0], [1.0, 2.0]], "'obs' is not an array: .*inhomogeneous"),
        ([1.0, np.nan, 0.0], r"Element 1 \(y\) of 'obs' is nan; observations must be finite"),
        (np.array([1.0, 0.0, -np.inf]), r"Element 2 \(z\) of 'obs' is -inf"),
        (
            np.array([[1.0, 0.0, 0.0], [np.nan, 0.0, 0.0]]),
            r"Element 0 \(x\) of 'obs' is nan in row 1 of the batch",
        ),
    ],
)
def test_observations_that_do_not_fit(policy, observation, message, known):
    if known:  # the fast way must refuse what the first call does
        policy(np.zeros(3))
        policy(np.zeros((2, 3)))
    with pytest.raises(ObservationError, match=message):
        policy(observation)
    assert policy([2.0, 2.0, 0.375]).tolist() == [0.0, 0.0]  # and goes on afterwards


def test_observation_errors_are_value_errors_too(policy):
    with pytest.raises(ValueError, match="has shape"):
        policy(np.zeros(4))


def far(stds):
    return np.array([MEAN[0], MEAN[1] + stds * STD[1], MEAN[2]])


def test_warning_at_once(policy):
    with pytest.warns(
        UnlikeTraining, match=r"Element 1 \(y\) of 'obs' is 4398, 1100 standard"
    ) as w:
        policy(far(IMPOSSIBLE_STDS + 100))
    assert "training saw (-2 ± 4)" in str(w[0].message)
    assert w[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy(far(2 * IMPOSSIBLE_STDS))  # once
    with pytest.raises(ObservationError):
        policy(far(np.nan))  # but what is not a number is never taken


def test_warning_after_calls_in_a_row(policy):
    def calls(n, stds):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(n):
                policy(far(stds))
        return len(caught)

    assert calls(FAR_CALLS - 1, FAR_STDS + 1) == 0
    assert calls(1, 0.0) == 0  # the row is broken
    assert calls(FAR_CALLS - 1, FAR_STDS + 1) == 0
    assert calls(1, FAR_STDS + 1) == 1
    assert calls(3 * FAR_CALLS, FAR_STDS + 1) == 0


def test_many_elements_that_are_each_near(linear_onnx):
    """The quick sum of squares is above its limit, no element is."""
    n = 600
    policy = OnnxPolicy(linear_onnx(np.zeros((n, 1)), np.zeros(n), np.ones(n)))
    for _ in range(2 * FAR_CALLS):
        policy(np.full(n, 3.0))
    with pytest.raises(ObservationError):
        policy(np.full(n, np.nan))
    with pytest.warns(UnlikeTraining):
        policy(np.full(n, 3e3))


def test_no_warning_where_it_is_not_wanted_or_nothing_is_known(linear_onnx):
    quiet = OnnxPolicy(linear_onnx(WEIGHT, MEAN, STD), check_range=False)
    unknown = OnnxPolicy(linear_onnx(WEIGHT))
    for policy in (quiet, unknown):
        for _ in range(2 * FAR_CALLS):
            policy(far(1e6))
        policy(np.full(3, 1e18))
        with pytest.raises(ObservationError, match="Element 1 of 'obs' is nan"):
            policy(far(np.nan))


def test_what_the_file_says(linear_onnx):
    path = linear_onnx(
        WEIGHT,
        MEAN,
        STD,
        algo="npg",
        observation_names='["x", "y", "z"]',
        action_names='["hip", "knee"]',
        control_dt="0.008",
    )
    policy = OnnxPolicy(str(path))
    assert policy.path == path
    assert policy.env_id == "Test-v0"
    assert policy.metadata["algo"] == "npg"
    assert policy.observation_names == ("x", "y", "z")
    assert policy.action_names == ("hip", "knee")
    assert policy.control_dt == 0.008
    assert policy.observation_space["shape"] == [3]
    assert policy.action_space == {
        **{"type": "Box", "shape": [2], "dtype": "float32"},
        **{"low": "-inf", "high": "inf"},
    }
    bare = OnnxPolicy(linear_onnx(WEIGHT, env_id=None))
    assert (bare.env_id, bare.control_dt) == (None, None)
    assert (bare.observation_names, bare.action_names) == ((), ())


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format_version": None}, "was not exported by natural-zoo"),
        ({"format_version": "2"}, "has format 2, this natural-zoo reads 1"),
        ({"observation_space": None}, "'observation_space' is missing or unreadable"),
        ({"observation_space": "{"}, "'observation_space' of .* is not JSON"),
        ({"observation_space": "[]"}, "'observation_space' is missing or unreadable"),
        ({"observation_space": '{"type": "Dict", "spaces": {}}'}, "has inputs obs, which its"),
        ({"observation_space": '{"type": "Dict", "spaces": 3}'}, "has inputs obs, which its"),
        ({"observation_space": '{"type": "Discrete", "n": "x"}'}, "'observation_space' is missing"),
        ({"observation_space": '{"type": "MultiDiscrete", "nvec": [2]}'}, "'observation_space'"),
        ({"action_space": "3"}, "'action_space' is missing or unreadable"),
        ({"obs_mean": "[1, 2]"}, "'obs_mean' is missing or unreadable"),
        ({"obs_mean": '["a", "b", "c"]'}, "'obs_mean' is missing or unreadable"),
        ({"obs_mean": "[1, 2, NaN]"}, "'obs_mean' of .* holds NaN"),
        ({"obs_std": "[1, 0, 1]"}, "'obs_std' is missing or unreadable"),
        ({"observation_names": "[1, 2, 3]"}, "'observation_names' is missing or unreadable"),
        ({"control_dt": "fast"}, "'control_dt' is missing or unreadable"),
        ({"obs_mean": "[" * 100_000}, "nested deeper"),
    ],
)
def test_metadata_that_cannot_be_right(linear_onnx, metadata, message):
    with pytest.raises(BundleError, match=message):
        OnnxPolicy(linear_onnx(WEIGHT, MEAN, STD, **metadata))


def test_files_that_cannot_be_loaded(linear_onnx, tmp_path):
    whole = linear_onnx(WEIGHT, MEAN, STD)
    content = whole.read_bytes()
    for end in range(0, len(content), 23):
        whole.write_bytes(content[:end])
        with pytest.raises(BundleError):
            OnnxPolicy(whole)
    with pytest.raises(BundleError, match="There is no file"):
        OnnxPolicy(tmp_path / "nowhere.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(BundleError, match="There is no file"):
        OnnxPolicy(tmp_path / "folder.onnx")


@given(
    edits=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 3), st.binary(max_size=8)),
        min_size=1,
        max_size=8,
    )
)
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_damage_is_an_error_of_ours_or_none(linear_onnx, capfd, edits):
    """Whatever bytes are changed: BundleError or a policy that acts; no other error, no crash."""
    content = bytearray(linear_onnx(WEIGHT, MEAN, STD, action_names='["a", "b"]').read_bytes())
    for place, n_removed, inserted in edits:
        at = int(place * len(content))
        content[at : at + n_removed] = inserted
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numbers of any size
        try:
            actions = OnnxPolicy.from_bytes(bytes(content), check_range=False)(np.array(MEAN))
        except (BundleError, ObservationError):
            return
        finally:
            assert capfd.readouterr().out == ""
    assert actions.dtype.kind in "fiu"


def changed(path, change):
    model = onnx.load(path)
    change(model.graph)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: setattr(g.node[0], "op_type", "NoSuchOperator"), "cannot load .*NoSuchOperator"),
        (lambda g: g.initializer[0].dims.append(7), "ONNX Runtime .* cannot load"),
        (lambda g: setattr(g.output[0], "name", "scaled"), "gives scaled, no actions to apply"),
        (
            lambda g: setattr(g.input[0].type.tensor_type.shape.dim[0], "dim_value", 1),
            "a policy's are",
        ),
    ],
)
def test_graphs_that_cannot_be_right(linear_onnx, change, message):
    with pytest.raises(BundleError, match=message):
        OnnxPolicy(changed(linear_onnx(WEIGHT, MEAN, STD), change))


def test_a_graph_that_fails_on_an_observation(tmp_path):
    """Its output takes its shape from the observation: the bound buffer is never overrun."""
    policy = write(
        tmp_path / "shape.onnx",
        [
            helper.make_node("Cast", ["obs"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Reshape", ["whole", "flat"], ["shape"]),
            helper.make_node("ConstantOfShape", ["shape"], ["actions"]),
        ],
        [("obs", TensorProto.FLOAT, ["batch", 2])],
        (TensorProto.FLOAT, ["batch", 2]),
        {"flat": np.array([-1])},
        BOX,
        BOX,
    )
    assert policy([1.0, 2.0]).tolist() == [0.0, 0.0]
    for observation in ([100.0, 2.0], [2.0, 1.0], [-1.0, 2.0]):
        with pytest.raises(BundleError, match=r"shape\.onnx cannot be computed"):
            policy(observation)
    assert policy([1.0, 2.0]).tolist() == [0.0, 0.0]


def test_files_with_other_outputs(tmp_path):
    """As `hub.export --value` and `--stochastic` write them."""
    nodes = [
        helper.make_node("Neg", ["obs"], ["actions"]),
        helper.make_node("ReduceSum", ["obs", "axes"], ["value"], keepdims=0),
    ]
    constants = {"axes": np.array([1])}
    spec = ("actions", TensorProto.FLOAT, ["batch", 2]), ("value", TensorProto.FLOAT, ["batch"])
    inputs = [("obs", TensorProto.FLOAT, ["batch", 2])]
    policy = write(tmp_path / "value.onnx", nodes, inputs, spec, constants, BOX, BOX)
    assert policy([1.0, 2.0]).tolist() == [-1.0, -2.0]
    with pytest.raises(BundleError, match=r"value\.onnx gives value, no actions to apply"):
        write(tmp_path / "value.onnx", nodes[1:], inputs, spec[1:], constants, BOX, BOX)


def test_weights_outside_are_not_read(linear_onnx, tmp_path):
    """The weights are really there: without our refusal ONNX Runtime would take them."""
    path = linear_onnx(WEIGHT, MEAN, STD)
    inside = OnnxPolicy(path)([5.0, -2.0, 0.5])
    onnx.save_model(
        *(onnx.load(path), tmp_path / "outside.onnx"),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    session = onnxruntime.InferenceSession(tmp_path / "outside.onnx")
    actions = session.run(None, {"obs": np.array([[5.0, -2.0, 0.5]], np.float32)})[0]
    np.testing.assert_array_equal(actions[0], inside)
    with pytest.raises(BundleError, match="weights in another file"):
        OnnxPolicy(tmp_path / "outside.onnx")


def test_a_file_in_memory(linear_onnx):
    path = linear_onnx(WEIGHT, MEAN, STD)
    policy = OnnxPolicy.from_bytes(path.read_bytes(), name="mine.onnx")
    assert policy.path == Path("mine.onnx")
    assert policy([5.0, -6.0, 0.5]).tolist() == [1.0, 1.0]
    with pytest.raises(BundleError, match=r"^mine.onnx is not an ONNX file"):
        OnnxPolicy.from_bytes(b"", name="mine.onnx")


def test_a_file_of_a_bundle_is_the_one_that_the_bundle_lists(linear_onnx, tmp_path):
    path = linear_onnx(WEIGHT, MEAN, STD)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = tmp_path / "agent.json"
    manifest.write_text(json.dumps({"files": {"policy.onnx": {"sha256": digest}}}))
    for agent in (path, tmp_path):
        assert OnnxPolicy(agent)([5.0, -6.0, 0.5]).tolist() == [1.0, 1.0]
    for files in ({"policy.onnx": {"sha256": digest[::-1]}}, {"policy.onnx": 3}, {}, None):
        manifest.write_text(json.dumps({"files": files}))
        for agent in (path, tmp_path):
            with pytest.raises(BundleError, match=r"is not the file that agent\.json beside it"):
                OnnxPolicy(agent)
    manifest.write_text("[" * 10_000)
    with pytest.raises(BundleError, match="nested deeper"):
        OnnxPolicy(path)


def test_arguments_of_the_environment(linear_onnx):
    policy = OnnxPolicy(linear_onnx(WEIGHT, env_kwargs='{"xml_file": "ant.xml", "scale": 0.5}'))
    assert policy.env_kwargs == {"xml_file": "ant.xml", "scale": 0.5}
    assert OnnxPolicy(linear_onnx(WEIGHT)).env_kwargs == {}
    for text in ('{"xml_file": "/etc/passwd"}', '{"xml_file": "../ant.xml"}', "[]", '{"__a": 1}'):
        with pytest.raises(BundleError, match="'env_kwargs' of "):
            OnnxPolicy(linear_onnx(WEIGHT, env_kwargs=text))


# --- Other spaces -----------------------------------------------------------------------------


BOX = {"type": "Box", "shape": [2], "dtype": "float32", "low": "-inf", "high": "inf"}


def write(path, nodes, inputs, action, initializers, observation_space, action_space, **metadata):
    outputs = [("actions", *action)] if isinstance(action[0], int) else action
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info(*entry) for entry in inputs],
        [helper.make_tensor_value_info(*output) for output in outputs],
        [numpy_helper.from_array(value, name) for name, value in initializers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    texts = {
        "format_version": "1",
        "observation_space": json.dumps(observation_space),
        "action_space": json.dumps(action_space),
    }
    helper.set_model_props(model, texts | metadata)
    path.write_bytes(model.SerializeToString())
    return OnnxPolicy(path)


@pytest.fixture
def table_policy(tmp_path):
    """Discrete(3) → Discrete(4): the table 2, 0, 3."""
    return write(
        tmp_path / "table.onnx",
        [helper.make_node("Gather", ["table", "obs"], ["actions"])],
        [("obs", TensorProto.INT64, ["batch"])],
        (TensorProto.INT64, ["batch"]),
        {"table": np.array([2, 0, 3])},
        {"type": "Discrete", "n": 3, "start": 0, "dtype": "int64"},
        {"type": "Discrete", "n": 4, "start": 0, "dtype": "int64"},
    )


def test_discrete_observations_and_actions(table_policy):
    for observation in (0, np.int64(0), np.array(0), np.int32(0), True - 1):
        for _ in range(2):
            action = table_policy(observation)
            assert action == 2
            assert isinstance(action, np.int64)
    assert table_policy([0, 1, 2]).tolist() == [2, 0, 3]
    batch = table_policy(np.array([2, 2]))
    assert table_policy(np.array([1, 1])).tolist() == [0, 0]
    assert batch.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (3, "An element of 'obs' is 3; it must be in 0 … 2"),
        (np.array([0, 1, -1]), "is -1; it must be in 0 … 2"),
        (1.0, "'obs' is an array of float64; this agent takes int64"),
        (np.array([[0]]), r"has shape \(1, 1\); this agent takes \(\), or \(n\)"),
    ],
)
def test_discrete_observations_that_do_not_fit(table_policy, observation, message):
    with pytest.raises(ObservationError, match=message):
        table_policy(observation)


def test_images_may_have_their_channels_last(tmp_path):
    policy = write(
        tmp_path / "image.onnx",
        [
            helper.make_node("Cast", ["obs"], ["real"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["real"], ["actions"], axes=[2, 3], keepdims=0),
        ],
        [("obs", TensorProto.UINT8, ["batch", 3, 4, 5])],
        (TensorProto.FLOAT, ["batch", 3]),
        {},
        {"type": "Box", "shape": [3, 4, 5], "dtype": "uint8", "low": 0, "high": 255},
        {"type": "Box", "shape": [3], "dtype": "float32", "low": 0.0, "high": 255.0},
    )
    image = np.random.default_rng(0).integers(256, size=(4, 5, 3), dtype=np.uint8)
    expected = image.max(axis=(0, 1)).tolist()
    for _ in range(2):
        assert policy(image).tolist() == expected
        assert policy(np.moveaxis(image, -1, 0)).tolist() == expected
        assert policy(np.stack([image, image]))[1].tolist() == expected
    with pytest.raises(ObservationError, match="array of float64; this agent takes uint8"):
        policy(image / 255)
    with pytest.raises(ObservationError, match="array of int64; this agent takes uint8"):
        policy(image.astype(int))


@pytest.fixture
def dict_policy(tmp_path):
    """A speed and a gear: action = (speed − 2) / 4 + gear."""
    return write(
        tmp_path / "dict.onnx",
        [
            helper.make_node("Sub", ["speed", "mean"], ["centered"]),
            helper.make_node("Div", ["centered", "std"], ["scaled"]),
            helper.make_node("Unsqueeze", ["gear", "axes"], ["column"]),
            helper.make_node("Cast", ["column"], ["real"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["scaled", "real"], ["actions"]),
        ],
        [("gear", TensorProto.INT64, ["batch"]), ("speed", TensorProto.FLOAT, ["batch", 1])],
        (TensorProto.FLOAT, ["batch", 1]),
        {
            "mean": np.array([2], np.float32),
            "std": np.array([4], np.float32),
            "axes": np.array([1]),
        },
        {
            "type": "Dict",
            "keys": ["gear", "speed"],
            "spaces": {
                "gear": {"type": "Discrete", "n": 5, "start": 0, "dtype": "int64"},
                "speed": {
                    **{"type": "Box", "shape": [1], "dtype": "float32"},
                    **{"low": "-inf", "high": "inf"},
                },
            },
        },
        {"type": "Box", "shape": [1], "dtype": "float32", "low": "-inf", "high": "inf"},
        obs_mean='{"speed": [2.0]}',
        obs_std='{"speed": [4.0]}',
        observation_names='{"speed": ["m/s"]}',
    )


def test_dict_observations(dict_policy):
    for _ in range(2):
        assert dict_policy({"speed": np.array([6.0]), "gear": 3}).tolist() == [4.0]
        both = OrderedDict(gear=np.array([0, 1]), speed=np.array([[2.0], [4.0]]))
        assert dict_policy(both).tolist() == [[0.0], [1.5]]
    assert dict_policy.observation_names == {"gear": (), "speed": ("m/s",)}
    assert dict_policy({"speed": np.zeros((0, 1)), "gear": np.zeros(0, int)}).shape == (0, 1)
    with pytest.warns(UnlikeTraining, match=r"Element 0 \(m/s\) of 'speed' is 1e\+06"):
        dict_policy({"speed": [1e6], "gear": 0})


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        ({"speed": [1.0]}, "has the keys 'speed'; this agent's is a dict .* 'gear', 'speed'"),
        ({"speed": [1.0], "gear": 1, "x": 1}, "has the keys 'speed', 'gear', 'x'"),
        (np.zeros(2), "is an array of float64; this agent's is a dict"),
        ({"speed": [1.0, 2.0], "gear": 1}, r"'speed' has shape \(2,\)"),
        ({"speed": [[1.0], [2.0]], "gear": 1}, "'gear' has none, 'speed' has 2 rows"),
        ({"speed": [[1.0], [2.0]], "gear": [1]}, "'gear' has 1 rows, 'speed' has 2 rows"),
        ({"speed": [np.nan], "gear": 1}, r"Element 0 \(m/s\) of 'speed' is nan"),
        ({"speed": [1.0], "gear": 7}, "'gear' is 7; it must be in 0 … 4"),
        ({"speed": ["a"], "gear": 1}, "'speed' is a list"),
        ({"speed": [1.0], "gear": 1.5}, "'gear' is an array of float64; this agent takes int64"),
    ],
)
def test_dict_observations_that_do_not_fit(dict_policy, observation, message):
    with pytest.raises(ObservationError, match=message):
        dict_policy(observation)


# --- What it does without ---------------------------------------------------------------------

_WITHOUT = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(f"No module named '{{name}}'")
sys.meta_path.insert(0, Blocked())
"""


def run_without(blocked, code, *argv):
    script = _WITHOUT.format(blocked=blocked) + code
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, argv)], capture_output=True, text=True, timeout=60
    )


def test_needs_numpy_and_onnxruntime_only(linear_onnx):
    """No torch, no SB3, no Gymnasium, no onnx: neither needed nor loaded where they are there."""
    others = ["torch", "stable_baselines3", "gymnasium", "onnx", "safetensors", "yaml", "zoo"]
    code = f"""
from hub.runtime import OnnxPolicy
print(OnnxPolicy(sys.argv[1])([5.0, -6.0, 0.5]).tolist())
print([name for name in {others!r} if name in sys.modules])
"""
    path = linear_onnx(WEIGHT, MEAN, STD)
    for blocked in (others, []):
        done = run_without(blocked, code, path)
        assert (done.stdout, done.stderr) == ("[1.0, 1.0]\n[]\n", "")


def test_onnxruntime_is_asked_for(linear_onnx, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependency, match="Type: pip install onnxruntime"):
        OnnxPolicy(linear_onnx(WEIGHT))


def test_one_thread(linear_onnx):
    """It computes in the calling thread: no pool is started."""
    options = OnnxPolicy(linear_onnx(WEIGHT))._file.session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)

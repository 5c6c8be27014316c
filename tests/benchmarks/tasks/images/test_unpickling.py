"""Pickles written operation by operation: none reaches memory, code or a class, whatever it asks for."""

from __future__ import annotations

import collections
import io
import pickle
import struct

import image_copies as copies
import numpy as np
import pytest

from metalearn_benchmarks.tasks.images.readers import admitted, unpickling
from metalearn_core.errors import UsageError


def load(data):
    return unpickling.load(io.BytesIO(data), "x")


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def raw(data):
    return b"B" + struct.pack("<I", len(data)) + data


def named(name):
    module, _, last = name.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def number(value):
    return b"I%d\n" % value


def tuple_of(*parts):
    return b"(" + b"".join(parts) + b"t"


def call(name, *arguments):
    return named(name) + tuple_of(*arguments) + b"R"


DTYPE = "numpy.dtype"
RECONSTRUCT = "numpy._core.multiarray._reconstruct"
FROM_BUFFER = "numpy._core.numeric._frombuffer"
SCALAR = "numpy._core.multiarray.scalar"
NONE = b"N"
EMPTY = call(RECONSTRUCT, named("numpy.ndarray"), tuple_of(number(0)), raw(b"b"))


def dtype(code, *state):
    made = call(DTYPE, text(code), number(0), number(1))
    return made + tuple_of(*state) + b"b" if state else made


def plain_state(order="|"):
    return number(3), text(order), NONE, NONE, NONE, number(-1), number(-1), number(0)


BYTES = dtype("u1", *plain_state())


def array(shape=(4,), kind=BYTES, fortran=b"\x89", data=b"abcd"):
    state = tuple_of(number(1), tuple_of(*map(number, shape)), kind, fortran, raw(data))
    return EMPTY + state + b"b"


def pickled(body):
    return b"\x80\x03" + body + b"."


def test_an_array_by_hand_is_what_numpy_makes_of_it():
    """The words above are right: else a refusal below would say nothing."""
    for data in (
        array(), array((2, 2)), array((2, 2), fortran=b"\x88"), array((2,), dtype("i2", *plain_state(">"))),
        array((0, 3), data=b""), array((), data=b"a"),
        call(FROM_BUFFER, raw(b"abcd"), BYTES, tuple_of(number(2), number(2)), text("F")),
        call(SCALAR, dtype("i4", *plain_state("<")), raw(b"abcd")),
    ):  # fmt: skip
        expected, found = pickle.loads(pickled(data)), load(pickled(data))
        np.testing.assert_array_equal(found, expected)
        assert np.asarray(found).dtype == np.asarray(expected).dtype
        assert type(found) is type(expected)


RECORD_STATE = (
    number(3), text("|"), NONE, tuple_of(text("a"), text("b")),
    b"}" + text("a") + tuple_of(BYTES, number(0)) + b"s" + text("b") + tuple_of(BYTES, number(0)) + b"s",
    number(8), number(1), number(0),
)  # fmt: skip
DEEP = 100_000
"""Tuples in each other whose hash overflows the stack of the process."""
POINTERS = b"\x41" * 16
HOSTILE = {
    # an array that is made directly, over bytes of the pickle's own
    "ndarray called": call("numpy.ndarray", tuple_of(number(2)), BYTES, raw(POINTERS)),
    "ndarray called with objects": call("numpy.ndarray", tuple_of(number(2)), dtype("O"), raw(POINTERS)),
    "ndarray made by NEWOBJ": named("numpy.ndarray") + tuple_of(tuple_of(number(9))) + b"\x81",
    "ndarray made by NEWOBJ_EX": named("numpy.ndarray") + tuple_of(tuple_of(number(9))) + b"}\x92",
    "ndarray made by INST": b"(" + tuple_of(number(9)) + b"inumpy\nndarray\n",
    "ndarray made by OBJ": b"(" + named("numpy.ndarray") + tuple_of(number(9)) + b"o",
    "a list made by OBJ": b"(" + named("builtins.list") + b"o",
    "set of pointers": call("builtins.set", array((2,), dtype("O"), data=POINTERS)),
    "set of an array": call("builtins.set", array()),
    "frozenset of a set of lists": call("builtins.frozenset", b"]" + b"]" + b"a"),
    "another class than ndarray": call(RECONSTRUCT, named("builtins.set"), tuple_of(number(0)), raw(b"b")),
    "an array's own type as the class": call(RECONSTRUCT, array(), tuple_of(number(0)), raw(b"b")),
    # numbers that are none
    **{f"dtype {code}": dtype(code) for code in (
        "O", "O8", "|O", "object", "V8", "S4", "U4", "M8[ns]", "m8", "c16", "i4,O", "(2,)O", "2i4", "i3",
        "f16", "", "u1\n", "\N{ARABIC-INDIC DIGIT ONE}",
    )},
    "a dtype of a list": call(DTYPE, b"]" + tuple_of(text("a"), text("O")) + b"a"),
    "a dtype of a dictionary": call(DTYPE, b"}" + text("names") + b"]s"),
    "a dtype of a name": call(DTYPE, named("builtins.int")),
    "a record dtype whose fields overlap": dtype("u1", *RECORD_STATE),
    "a record dtype with a shape": dtype("u1", *plain_state()[:2], tuple_of(BYTES, tuple_of(number(2)))),
    "a dtype with metadata": dtype("u1", *plain_state(), b"}"),
    "a dtype of another order": dtype("u1", *plain_state("O")),
    "a dtype's state that is a list": dtype("u1")[:-1] + b"R" + b"]b",
    "a dtype's state that is short": dtype("u1") + tuple_of(number(3)) + b"b",
    "an array of a text as its dtype": array(kind=text("O")),
    # states of the wrong size
    "too few bytes": array((5,)), "too many bytes": array((3,)), "a negative axis": array((-1,)),
    "two negative axes": array((-2, -2)), "an enormous axis": array((1 << 62,)),
    "axes whose product overflows": array((1 << 33, 1 << 33)),
    "an axis that is no number":
        EMPTY + tuple_of(number(1), tuple_of(text("4")), BYTES, b"\x89", raw(b"abcd")) + b"b",
    "an axis that is a truth":
        EMPTY + tuple_of(number(1), tuple_of(b"\x88"), BYTES, b"\x89", raw(b"a")) + b"b",
    "a shape that is a list": EMPTY + tuple_of(number(1), b"]", BYTES, b"\x89", raw(b"a")) + b"b",
    "forty axes": array((1,) * 40, data=b"a"), "a flag that is none": array(fortran=number(7)),
    "a flag that is a text": array(fortran=text("yes")),
    "no bytes": EMPTY + tuple_of(number(1), tuple_of(number(4)), BYTES, b"\x89", b"]") + b"b",
    "a state of two": EMPTY + tuple_of(number(1), number(1)) + b"b",
    "a state that is a dictionary": EMPTY + b"}b",
    "a state twice": array() + tuple_of(number(1), tuple_of(number(4)), BYTES, b"\x89", raw(b"efgh")) + b"b",
    "the state of an array from a buffer": (
        call(FROM_BUFFER, raw(b"abcd"), BYTES, tuple_of(number(4)), text("C"))
        + tuple_of(number(1), tuple_of(number(4)), BYTES, b"\x89", raw(b"efgh")) + b"b"
    ),
    "a buffer that is an array": call(FROM_BUFFER, array(), BYTES, tuple_of(number(4)), text("C")),
    "a buffer that is short": call(FROM_BUFFER, raw(b"abc"), BYTES, tuple_of(number(4)), text("C")),
    "a buffer of objects": call(FROM_BUFFER, raw(POINTERS), dtype("O"), tuple_of(number(2)), text("C")),
    "a buffer in no order": call(FROM_BUFFER, raw(b"abcd"), BYTES, tuple_of(number(4)), text("A")),
    "axes twice": call(
        FROM_BUFFER, raw(b"abcd"), BYTES, tuple_of(number(2), number(2)), text("K"),
        tuple_of(number(0), number(0)),
    ),
    "a scalar of objects": call(SCALAR, dtype("O"), raw(POINTERS[:8])),
    "a scalar of few bytes": call(SCALAR, dtype("i8", *plain_state("<")), raw(b"a")),
    # states of other things, and changes of what is no container
    "a state of a list": b"]}b", "a state of a dictionary": b"}" + b"}b", "a state of a name":
        named("builtins.set") + b"}b",
    "a state of a number": number(3) + b"}b",
    "an array that is appended to": array() + number(3) + b"a",
    "an array that is set into": array() + number(0) + number(3) + b"s",
    "bytes that are appended to": b"\x96" + struct.pack("<Q", 1) + b"a" + number(3) + b"a",
    "a set that is set into": b"\x8f" + number(0) + number(3) + b"s",
    "a list that is added to": b"](" + number(3) + b"\x90",
    # calls of what is no name
    "a call of an array": array() + b")R", "a call of a text": text("a") + b")R", "a call with a list":
        named("builtins.set") + b"]R",
    "a call of a type": call("builtins.int", text("3")), "a call of a call": call("builtins.set") + b")R",
    # keys
    "a list as a key": b"}]Ns", "an array as a key": b"}" + array() + b"Ns",
    "an array as a member": b"\x8f(" + array() + b"\x90", "a list in a frozenset": b"(]\x91",
    "a key in a key in a key ...": b"}N" + b"\x85" * DEEP + b"Ns",
    "a member in a member ...": b"\x8f(N" + b"\x85" * DEEP + b"\x90",
    "pairs whose keys are nested": call(
        "collections.OrderedDict", b"](N" + b"\x85" * DEEP + b"Nta"
    ),
    # names
    **{name: named(name) for name in (
        "os.system", "builtins.eval", "builtins.getattr", "builtins.type", "builtins.object", "numpy.load",
        "numpy.memmap", "numpy.frombuffer", "numpy.ndarray.__setstate__",
        "numpy.lib.stride_tricks.as_strided",
        "numpy.ctypeslib.as_array", "ctypes.string_at", "numpy._core.multiarray.array", "codecs.encode",
        "_codecs.decode", "builtins.bytearray", "builtins.memoryview", "collections.Counter",
        "copyreg._reconstructor",
        "functools.partial", "operator.attrgetter", "torch._utils._rebuild_tensor_v2",
    )},
    "a name with dots": text("builtins") + text("set.__init__") + b"\x93",
    "a name that is no text": number(1) + b"]\x93",
    "a defaultdict that calls": call("collections.defaultdict", named("os.system")),
    "a defaultdict of an array": call("collections.defaultdict", array()),
    "an encoding": call("_codecs.encode", text("x"), text("zlib_codec")),
    "no encoding": call("_codecs.encode", text("x")),
    "an encoding of bytes": call("_codecs.encode", raw(b"x"), text("latin1")),
    # objects of other programs
    "an extension": b"\x82\x01", "an extension of two bytes": b"\x83\x01\x01",
    "an extension of four bytes": b"\x84\x01\x01\x01\x01", "a persistent id": b"Px\n",
    "a persistent id on the stack": text("x") + b"Q", "a buffer from elsewhere": b"\x97",
    "a read-only buffer from elsewhere": b"\x97\x98",
    # sizes
    "bytes that are not there": b"\x8e" + struct.pack("<Q", 1 << 40), "more bytes than there can be":
        b"\x8e" + b"\xff" * 8,
    "a frame that is not there": b"\x95" + b"\xff" * 8, "text that is not there": b"X\xff\xff\xff\x7f",
    "an integer of many bytes": b"\x8b\xff\xff\xff\x7f",
    "an integer of many digits": b"L" + b"9" * 9_000 + b"L\n",
    "a place of the memo that is empty": b"j\xff\xff\xff\xff", "a negative place of the memo": b"Np-1\n",
    "a stack that is empty": b"R", "a mark that is not there": b"t", "a line without an end": b"cnumpy",
    "an operation that there is not": b"\xff",
}  # fmt: skip


@pytest.mark.parametrize("where", ["alone", "in a dictionary"])
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_what_a_pickle_must_not_do_is_refused_in_one_line(body, where):
    data = body if where == "alone" else b"}" + text("image_data") + body + b"s"
    with pytest.raises(
        UsageError, match=r"^x: (refused, it asks for|no whole pickle|does not fit)"
    ) as caught:
        load(pickled(data))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_place_of_the_memo_takes_no_room_before_it():
    """Python's own unpickler makes a table up to the largest place: 64 GiB for this one."""
    assert load(pickled(b"Nr\xff\xff\xff\xff")) is None


def test_arrays_have_no_more_bytes_than_the_file(monkeypatch):
    monkeypatch.setattr(admitted, "FREE_BYTES", 1000)
    state = tuple_of(number(1), tuple_of(number(2000)), BYTES, b"\x89", raw(bytes(2000)) + b"q\x07")
    again = tuple_of(number(1), tuple_of(number(2000)), BYTES, b"\x89", b"h\x07")
    assert load(pickled(EMPTY + state + b"b")).nbytes == 2000
    with pytest.raises(UsageError, match="more bytes of arrays than are in the file"):
        load(pickled(EMPTY + state + b"b" + (EMPTY + again + b"b") * 9))
    with pytest.raises(UsageError, match="more bytes of arrays than are in the file"):
        load(pickled(text("x" * 2000) + b"q\x07" + call("_codecs.encode", b"h\x07", text("latin1")) * 9))


def test_there_is_an_end_of_operations(monkeypatch):
    monkeypatch.setattr(unpickling, "MOST_OPERATIONS", 100)
    assert load(pickled(b"]" * 50)) == []
    with pytest.raises(UsageError, match="more than 100 operations"):
        load(pickled(b"]" * 100))


def test_a_container_that_holds_itself_comes_back():
    found = load(pickled(b"]q\x00h\x00a"))
    assert found[0] is found


CONTAINERS = {
    "defaultdict": collections.defaultdict(list, {"a": [1, 2], 3: [b"x"]}),
    "defaultdict of sets": collections.defaultdict(set, {"a": {1, 2}}),
    "defaultdict of nothing": collections.defaultdict(None, {"a": 1}),
    "OrderedDict": collections.OrderedDict([("b", 1), ("a", (2.5, None, True))]),
    "sets": {"s": {1, 2, "c"}, "f": frozenset({b"x", (1, "y")})},
    "numbers": {"n": [0, -1, 255, 65536, -(2**31), 2**40, -(2**70), 1.5, np.float32(2), np.uint8(3)]},
    "text": {"ä": "ß\ud800", "empty": ["", b"", b"\xff" * 300, "x" * 300, bytes(70_000)]},
    "orders": [np.arange(6, dtype=">i4").reshape(2, 3).T, np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2)],
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("given", CONTAINERS.values(), ids=CONTAINERS)
def test_plain_containers_are_read_in_every_protocol(given, protocol):
    data = pickle.dumps(given, protocol)
    found = load(data)
    if isinstance(given, list):
        for one, other in zip(found, given, strict=True):
            np.testing.assert_array_equal(one, other)
        return
    assert found == given
    assert type(found) is dict
    assert list(found) == list(given)


@pytest.mark.parametrize("protocol", range(6))
def test_a_cache_is_read_as_pythons_own_unpickler_reads_it(protocol):
    data = pickle.dumps(copies.cache(copies.photos()), protocol)
    found, expected = load(data), pickle.loads(data)
    np.testing.assert_array_equal(found["image_data"], expected["image_data"])
    assert found["class_dict"] == expected["class_dict"]


def test_protocol_0_of_python_2():
    """Its strings stand in quotes, with what is no letter as an escape."""
    body = b"(dp0\nS'a\\xff\\n\\'\"\\\\'\np1\nI01\nsS\"b\"\nL12L\nsVu\\u00e4\nF2.5\ns."
    assert load(body) == {"aÿ\n'\"\\": True, "b": 12, "uä": 2.5}


@pytest.mark.parametrize("place", [5, 6, 7])
def test_a_dtype_whose_size_is_no_number_is_refused_as_numpy_refuses_it(place):
    state = list(plain_state())
    state[place] = text("x")
    data = pickled(array(kind=dtype("u1", *state)))
    with pytest.raises(TypeError):
        pickle._Unpickler(io.BytesIO(data)).load()
    with pytest.raises(UsageError, match="a dtype whose size is no number"):
        load(data)

// See evaluate.h: the interpreter. Each case of access() and check() mirrors one accessor or leaf guard of torch's
// guard tree (torch/csrc/dynamo/guards.cpp). Where torch would throw or leave an error set, the guard fails instead.
#include "check/evaluate.h"

#include "check/deep_equals.h"
#include "check/predicates.h"
#include "check/read_number.h"

#include <ATen/DeviceAccelerator.h>
#include <ATen/SavedTensorHooks.h>
#include <c10/core/InferenceMode.h>

#include <utility>

namespace unified_guards {

int current_device_index() { return at::accelerator::getDeviceIndex(); }

namespace {

// Notes the cache lines of a tensor's implementation and of its autograd metadata.
void set_tensor_hint(PyObject* object, Hint& hint) {
  c10::TensorImpl* impl = tensor_of(object).unsafeGetTensorImpl();
  const char* lines = reinterpret_cast<const char*>(impl);
  hint.set(0, lines);
  hint.set(1, lines + 64);
  hint.set(2, lines + 128);
  if (const void* autograd = impl->autograd_meta()) hint.set(3, autograd);
}

}  // namespace

// Each reference leaves the scratch before it is dropped: dropping the last one to an object may run user code, which
// must not find the scratch half emptied.
void Evaluation::drop_references() {
  while (!scratch_.owned.empty()) {
    PyObject* object = scratch_.owned.back();
    scratch_.owned.pop_back();
    Py_DECREF(object);
  }
}

inline bool Evaluation::step(Instruction& i, size_t index, PyObject* base, Hint& hint) {
  if (!is_accessor(i.op)) {
    bool holds = check(i, base, hint);
    if (runs_user_code_) [[unlikely]]
      holds &= note_answer(index, nullptr);
    return holds || fail(index);
  }
  PyObject* value = access(i, base, hint);
  if (runs_user_code_ && !note_answer(index, value)) [[unlikely]]
    return fail(index);
  if (value == nullptr) return fail(index);
  if (!passes_merged(i, value)) return fail(index, /*merged=*/true);
  hint.set(0, value);
  scratch_.registers[i.base + 1] = value;
  scratch_.paths[i.base + 1] = scratch_.paths[i.base];
  return true;
}

bool Evaluation::run(PyObject* locals) {
  return run_once(locals) && settle([&] { return run_once(locals); });
}

bool Evaluation::run_once(PyObject* locals) {
  PyObject** registers = scratch_.registers.data();
  registers[0] = unchanged(locals);
  clear_seen(program_.size.unique);
  Hint* hint = journal_.hints.of(program_.root(locals));
  for (size_t ahead = 0; ahead < Hints::kAhead; ahead++) hint[ahead].fetch();
  const size_t length = program_.code.size();
  for (size_t at = 0; at < length; at++, hint++) {
    hint[Hints::kAhead].fetch();
    Instruction& i = program_.code[at];
    if (settling_ && was_answered(at)) {
      if (!repeat_answer(i, at)) return false;
    } else if (!step(i, at, registers[i.base], *hint)) {
      return false;
    }
  }
  return true;
}

bool Evaluation::run_live(PyObject* locals, std::vector<LiveStep>& steps, PyObject* const* found,
                          const SeenTable& seen) {
  PyObject** registers = scratch_.registers.data();
  registers[0] = unchanged(locals);
  Hint nowhere;
  loads_ = {&steps, found};
  for (LiveStep& live : steps) {
    Instruction& i = live.instruction;
    if (live.load != kNoLoad) {
      registers[i.base] = found[live.load];
      scratch_.paths[i.base] = i.base;
    }
    if (settling_ && was_answered(live.at)) {
      if (!repeat_answer(i, live.at)) return false;
      continue;
    }
    if (i.op == Op::UNIQUE && seen.has(registers[i.base], i.arg)) {
      return fail(live.at);
    }
    if (!step(i, live.at, registers[i.base], nowhere)) return false;
  }
  return true;
}

bool Evaluation::fail(size_t index, bool merged) {
  journal_.last_failure = shape_failure_ >= 0 ? shape_failure_ : program_.row_of(index, merged);
  if (PyErr_Occurred()) PyErr_Clear();
  return false;
}

PyObject* Evaluation::own(PyObject* object) {
  if (object != nullptr) scratch_.owned.push_back(object);
  return object;
}

// The value below `base`, borrowed or owned by the scratch; null when there is none.
PyObject* Evaluation::access(Instruction& i, PyObject* base, Hint& hint) {
  switch (i.op) {
    case Op::DICT_ITEM:
      if (!PyDict_Check(base)) return nullptr;
      hint.set(1, cpython::entry_line(base, i.arg));
      hint.set(2, cpython::keys_line(base));
      return dict_item(i, base);
    case Op::GENERIC_DICT: {
      hint.set(1, cpython::head_line(base));
      cpython::InstanceDict instance = cpython::instance_dict(base);
      if (instance.state == cpython::DictState::kReady) return instance.dict;
      const cpython::Uncollected uncollected;
      return own(PyObject_GenericGetDict(base, nullptr));
    }
    case Op::CONSTANT: return i.object;
    case Op::GLOBAL_WEAKREF: return global_weakref(i, base);
    case Op::WEAKREF_CALL: return PyWeakref_Check(base) ? own(cpython::weakref_target(base)) : nullptr;
    case Op::ITEM: return item(i, base);
    case Op::LIST_ITEM:
      return PyList_Check(base) && i.arg < PyList_GET_SIZE(base) ? PyList_GET_ITEM(base, i.arg) : nullptr;
    case Op::TUPLE_ITEM:
      return PyTuple_Check(base) && i.arg < PyTuple_GET_SIZE(base) ? PyTuple_GET_ITEM(base, i.arg) : nullptr;
    case Op::SET_ITEM:
      return PyAnySet_CheckExact(base) || before_user_code(i) ? own(set_item_at(base, i.arg)) : nullptr;
    case Op::ATTR: return attribute(i, base, PyObject_GetAttr);
    case Op::GENERIC_ATTR:
      if (!PyType_Check(base)) return attribute(i, base, PyObject_GenericGetAttr);
      return before_user_code(i) ? own(PyObject_GenericGetAttr(base, i.object)) : nullptr;
    case Op::TYPE: return reinterpret_cast<PyObject*>(Py_TYPE(base));
    case Op::TYPE_DICT: {
      if (!PyType_Check(base)) return nullptr;
      bool is_new = false;
      PyObject* dict = cpython::type_dict(base, is_new);
      return is_new ? own(dict) : dict;
    }
    case Op::TYPE_MRO: return PyType_Check(base) ? reinterpret_cast<PyTypeObject*>(base)->tp_mro : nullptr;
    case Op::FUNC_DEFAULTS: return function_field(base, &PyFunctionObject::func_defaults);
    case Op::FUNC_KWDEFAULTS: return function_field(base, &PyFunctionObject::func_kwdefaults);
    case Op::FUNC_CODE: return function_field(base, &PyFunctionObject::func_code);
    case Op::FUNC_CLOSURE: return function_field(base, &PyFunctionObject::func_closure);
    case Op::TUPLE_ITER_ITEM: return tuple_iterator_item(base, i.arg);
    case Op::GRAD: return own(tensor_grad(base));
    case Op::TENSOR_SIZE:
    case Op::TENSOR_STRIDE:
    case Op::TENSOR_OFFSET:
      return !may_ask_python(base) || before_user_code(i) ? own(tensor_property(i.op, base, i.arg)) : nullptr;
    case Op::CALL0: return before_user_code(i) ? own(PyObject_CallNoArgs(base)) : nullptr;
    case Op::CALL1:
      if (!before_user_code(i)) return nullptr;
      count_callback();
      return own(PyObject_CallOneArg(i.object, base));
    case Op::DICT_KEY_AT: return PyDict_Check(base) ? cpython::dict_item_at(base, i.arg).key : nullptr;
    case Op::DICT_VALUE_AT: return PyDict_Check(base) ? cpython::dict_item_at(base, i.arg).value : nullptr;
#define UG_CASE(name, ...) case Op::name:
      UG_GUARDS(UG_CASE)  // an operation without a case above is a warning
#undef UG_CASE
    case Op::kCount: return nullptr;
  }
}

PyObject* Evaluation::dict_item(Instruction& i, PyObject* dict) {
  const cpython::Found found = cpython::find_purely(dict, i.object, i.arg);
  if (found.certain) return found.value;
  return before_user_code(i) ? cpython::dict_get(dict, i.object, i.arg) : nullptr;
}

PyObject* Evaluation::item(Instruction& i, PyObject* base) {
  if (PyDict_CheckExact(base)) return dict_item(i, base);
  PyObject* value = nullptr;
  if (item_purely(base, i.object, value)) return value;
  return before_user_code(i) ? own(PyObject_GetItem(base, i.object)) : nullptr;
}

PyObject* Evaluation::attribute(Instruction& i, PyObject* base, PyObject* (*get)(PyObject*, PyObject*)) {
  const PureAttribute found = attribute_purely(base, i.object, i.arg);
  if (found.certain) return found.is_new ? own(found.value) : found.value;
  return before_user_code(i) ? own(get(base, i.object)) : nullptr;
}

PyObject* Evaluation::global_weakref(Instruction& i, PyObject* base) {
  if (!PyDict_Check(base)) return nullptr;
  PyObject* reference = dict_item(i, base);
  if (reference == nullptr || !PyWeakref_Check(reference)) return nullptr;
  return own(cpython::weakref_target(reference));
}

bool Evaluation::check(Instruction& i, PyObject* base, Hint& hint) {
  switch (i.op) {
    case Op::TYPE_IS: return reinterpret_cast<uint64_t>(Py_TYPE(base)) == i.number;
    case Op::IS: return reinterpret_cast<uint64_t>(base) == i.number;
    case Op::IS_NOT: return reinterpret_cast<uint64_t>(base) != i.number;
    case Op::IS_TARGET: return is_target(base, i.object);
    case Op::EQUALS: return (compares_purely(base, i.object) || before_user_code(i)) && equal(base, i.object);
    case Op::DEEP_EQUALS: return (is_immutable(i.object) || before_user_code(i)) && deep_equals(base, i.object);
    case Op::SAME_BITS: return same_bits(base, i.object);
    case Op::LENGTH: return (has_plain_length(base) || before_user_code(i)) && has_length(base, i.arg, false);
    case Op::LENGTH_OR_SET:
      return (has_plain_length(base) || PyAnySet_Check(base) || before_user_code(i)) && has_length(base, i.arg, true);
    case Op::DICT_LENGTH: return PyDict_Check(base) && PyDict_GET_SIZE(base) == static_cast<Py_ssize_t>(i.arg);
    case Op::TUPLE_ITER_LEN: return tuple_iterator_has(base, i.number, i.arg);
    case Op::RANGE_ITER: return range_iterator_is(base, i.number, i.object);
    case Op::MAPPING_KEYS:
      return ((PyDict_CheckExact(base) && keys_compare_purely(base, i.object)) || before_user_code(i)) &&
             mapping_keys_are(base, i.object);
    case Op::KEYS:
      if (!PyDict_CheckExact(base)) return false;
      return (keys_compare_purely(base, i.object) || before_user_code(i)) && keys_are(base, i.object);
    case Op::DICT_CONTAINS: return dict_contains(i, base);
    case Op::SET_CONTAINS: return set_contains(i, base);
    case Op::NO_ATTR: return !attribute_or_null(i, base, i.object);
    case Op::FLOAT_NAN: return float_is_nan(base);
    case Op::COMPLEX_NAN: return complex_is_nan(base);
    case Op::DUAL_LEVEL: return dual_level_is(i.object);
    case Op::INFERENCE_MODE: return c10::InferenceMode::is_enabled() == static_cast<bool>(i.arg);
    case Op::DEFAULT_DEVICE: return default_device_is(i.object);
    case Op::GLOBAL_STATE: return reinterpret_cast<StateGuard*>(i.number)->holds();
    case Op::TORCH_CALL: return call_is_true(i.object, nullptr);
    case Op::MODE_STACK: return mode_stack_is(i.object);
    case Op::SAVED_HOOKS:
      if (!at::SavedTensorDefaultHooks::get_hooks(/*ignore_is_tracing=*/true)) return i.arg != 0;
      return predicate(i, base);
    case Op::DICT_VERSION: return dict_version_is(base, i.object, i.number);
    case Op::DISPATCH_KEYS: return before_user_code(i) && dispatch_keys_are(base, i.object, i.number, *dispatch_);
    case Op::SCRIPT_TYPE: return before_user_code(i) && script_type_is(base, i.object, i.number);
    case Op::DIM_MARKING: return dim_marking_matches(i, base);
    case Op::DYNAMIC_INDICES: return dynamic_indices_match(i, base);
    case Op::TENSOR: {
      const TensorSpec& spec = program_.tensors[i.arg];
      if (Py_TYPE(base) != spec.type) return false;
      set_tensor_hint(base, hint);
      if (may_ask_python(base) && !before_user_code(i)) return false;
      return tensor_matches(spec, program_.dims.data() + spec.dims, base, *dispatch_);
    }
    case Op::PREDICATE:
    case Op::TORCH_LEAF: return predicate(i, base);
    case Op::UNIQUE: return scratch_.unique.insert(base, i.arg);
    case Op::UNIQUE_STORAGE: return insert_storage(scratch_.unique, base, i.arg);
    case Op::SAVE: scratch_.saved[i.arg] = own(Py_NewRef(base)); return true;
    case Op::SAME_AS: return scratch_.saved[i.arg] == base;
    case Op::SHARES_STORAGE: return share_storage(scratch_.saved[i.arg], base);
    case Op::OVERLAP: return overlap(i);
    case Op::SHAPE_INT: return shape_int(base, i.arg);
    case Op::SHAPE_FLOAT:
      if (!PyFloat_Check(base)) return false;
      scratch_.floats[i.arg] = PyFloat_AS_DOUBLE(base);
      return true;
    case Op::SHAPE_CALL:
      return reinterpret_cast<int8_t (*)(int64_t*, double*)>(i.number)(scratch_.ints.data(), scratch_.floats.data());
    case Op::READ_SIZE:
    case Op::READ_STRIDE:
    case Op::READ_OFFSET:
    case Op::READ_INT:
    case Op::READ_FLOAT: return read(i, base);
    case Op::SHAPES: return shapes_hold(i);
    case Op::TORCH_FUNCTION_OFF: turn_torch_function_off(); return true;
#define UG_CASE(name, ...) case Op::name:
      UG_ACCESSORS(UG_CASE)  // an operation without a case above is a warning
#undef UG_CASE
    case Op::kCount: return false;
  }
}

void Evaluation::count_callback() {
  journal_.counts.python_callbacks++;
  total_counts.python_callbacks++;
}

bool Evaluation::predicate(const Instruction& i, PyObject* value) {
  if (!before_user_code(i)) return false;
  count_callback();
  return call_is_true(i.object, value);
}

bool Evaluation::dict_contains(Instruction& i, PyObject* base) {
  const bool expected = i.arg != 0;
  if (!PyDict_Check(base)) return !expected;
  const cpython::Found found = cpython::find_purely(base, i.object);
  if (found.certain) return (found.value != nullptr) == expected;
  return before_user_code(i) && contains_is(PyDict_Contains(base, i.object), expected);
}

bool Evaluation::set_contains(const Instruction& i, PyObject* base) {
  const bool expected = i.arg != 0;
  if (!PyAnySet_Check(base)) return !expected;
  if (!(cpython::is_plain(i.object) && cpython::has_plain_members(base)) && !before_user_code(i)) return false;
  return contains_is(PySet_Contains(base, i.object), expected);
}

// getattr(object, name), a new reference; null where it is absent, where asking raises, or where asking is not allowed.
Ref Evaluation::attribute_or_null(const Instruction& i, PyObject* object, PyObject* name) {
  cpython::Slot nowhere = cpython::kNoSlot;
  const PureAttribute found = attribute_purely(object, name, nowhere);
  if (found.certain) return Ref(found.is_new ? found.value : Py_XNewRef(found.value));
  PyObject* value = before_user_code(i) ? PyObject_GetAttr(object, name) : nullptr;
  if (value == nullptr) PyErr_Clear();
  return Ref(value);
}

bool Evaluation::is_subset(const Instruction& i, PyObject* marked, PyObject* expected) {
  if (PyAnySet_CheckExact(marked) && PyAnySet_CheckExact(expected)) {
    if (marked == expected) return true;
    if (!cpython::has_plain_members(marked) && !before_user_code(i)) return false;
    const Ref answer(PyObject_RichCompare(marked, expected, Py_LE));
    if (!answer) PyErr_Clear();
    return answer.get() == Py_True;
  }
  const Ref method(before_user_code(i) ? PyObject_GetAttrString(marked, "issubset") : nullptr);
  if (!method) PyErr_Clear();
  return method && call_is_true(method.get(), expected);
}

bool Evaluation::dependent_marking_matches(const Instruction& i, PyObject* object, PyObject* name,
                                           PyObject* value_and_gate) {
  PyObject* expected = PyTuple_GET_ITEM(value_and_gate, 0);
  if (!attribute_or_null(i, object, PyTuple_GET_ITEM(value_and_gate, 1))) return true;
  const Ref found = attribute_or_null(i, object, name);
  if (expected == Py_None) return !found || found.get() == Py_None;
  if (!found || (!compares_purely(found.get(), expected) && !before_user_code(i))) return false;
  return is_true(PyObject_RichCompareBool(found.get(), expected, Py_EQ));
}

// A tensor that carries a marking: what is marked must be no more than what was marked when the frame was compiled.
bool Evaluation::marking_matches(Instruction& i, PyObject* object) {
  PyObject* expected = PyTuple_GET_ITEM(i.object, 1);
  PyObject* absent = PyTuple_GET_ITEM(i.object, 2);
  PyObject* dependent = PyTuple_GET_ITEM(i.object, 3);
  if (PyDict_GET_SIZE(expected) == 0 && PyDict_GET_SIZE(dependent) == 0) return false;
  Py_ssize_t cursor = 0;
  PyObject *name = nullptr, *value = nullptr;
  while (PyDict_Next(expected, &cursor, &name, &value)) {
    const Ref marked = attribute_or_null(i, object, name);
    if (marked && !is_subset(i, marked.get(), value)) return false;
  }
  const bool lacks_all = lacks_purely(object, absent, i.arg);
  for (Py_ssize_t at = 0; !lacks_all && at < PyList_GET_SIZE(absent); at++) {
    if (attribute_or_null(i, object, PyList_GET_ITEM(absent, at))) return false;
  }
  cursor = 0;
  while (PyDict_Next(dependent, &cursor, &name, &value)) {
    if (!dependent_marking_matches(i, object, name, value)) return false;
  }
  return true;
}

bool Evaluation::dim_marking_matches(Instruction& i, PyObject* object) {
  auto version = static_cast<unsigned int>(i.number);
  const bool is_unmarked = lacks_purely(object, PyTuple_GET_ITEM(i.object, 4), version);
  i.number = version;
  return is_unmarked || !attribute_or_null(i, object, PyTuple_GET_ITEM(i.object, 0)) || marking_matches(i, object);
}

bool Evaluation::dynamic_indices_match(const Instruction& i, PyObject* object) {
  const Ref marked = attribute_or_null(i, object, PyTuple_GET_ITEM(i.object, 0));
  return !marked || is_subset(i, marked.get(), PyTuple_GET_ITEM(i.object, 1));
}

bool Evaluation::overlap(const Instruction& i) {
  PyObject* slots = PyTuple_GET_ITEM(i.object, 1);
  bool asks = false;
  for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(slots); at++) {
    asks |= may_ask_python(scratch_.saved[PyLong_AsLong(PyTuple_GET_ITEM(slots, at))]);
  }
  if (asks) return before_user_code(i) && overlap_is(scratch_.saved, i.arg, i.object);
  const cpython::Uncollected uncollected;
  return overlap_is(scratch_.saved, i.arg, i.object);
}

bool Evaluation::shape_int(PyObject* value, uint32_t index) {
  if (!PyLong_Check(value)) return false;
  int overflow = 0;
  scratch_.ints[index] = PyLong_AsLongLongAndOverflow(value, &overflow);
  return overflow == 0;
}

// Reads a number into its register. A number that fits no register leaves the decision to the exact function.
bool Evaluation::read(const Instruction& i, PyObject* base) {
  const Reading reading = read_number(i, base, scratch_.numbers[i.arg]);
  if (reading == Reading::kInexact) exact_ = false;
  return reading != Reading::kMissing;
}

bool Evaluation::shapes_hold(const Instruction& i) {
  uint16_t failed = 0;
  ShapeVerdict verdict = ShapeVerdict::kAsk;
  if (exact_) verdict = program_.shapes->run(scratch_.numbers.data(), failed);
  if (verdict == ShapeVerdict::kFails) return fail_shape(i.number + failed);
  if (verdict == ShapeVerdict::kHolds && i.arg == 0) return true;
  return predicate(i, scratch_.registers[0]);
}

bool Evaluation::fail_shape(uint64_t which) {
  shape_failure_ = static_cast<int64_t>(which);
  return false;
}

void Evaluation::turn_torch_function_off() {
  using TLS = at::impl::PythonTorchFunctionTLS;
  torch_function_before_ = TLS::get_disabled_state();
  torch_function_is_off_ = true;
  TLS::set_disabled_state(at::impl::TorchFunctionDisabledState::ALL_DISABLED);
}

void Evaluation::put_torch_function_back() {
  if (torch_function_is_off_) at::impl::PythonTorchFunctionTLS::set_disabled_state(torch_function_before_);
  torch_function_is_off_ = false;
}

}  // namespace unified_guards

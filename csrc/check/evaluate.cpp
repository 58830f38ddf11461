// Running a Program: the exact tier. Each case mirrors one accessor or leaf guard of torch's guard tree
// (torch/csrc/dynamo/guards.cpp); where torch would throw or leave an error set, the guard fails instead.
#include "check/evaluate.h"

#include "check/deep_equals.h"
#include "check/global_state.h"
#include "check/read_number.h"
#include "cpython/pure.h"
#include "cpython/ref.h"
#include "witness/witness.h"

#include <ATen/DeviceAccelerator.h>
#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/SavedTensorHooks.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/PyInterpreter.h>
#include <torch/csrc/autograd/python_variable.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

namespace unified_guards {

int current_device_index() { return at::accelerator::getDeviceIndex(); }

namespace {

// A truth value that may be an error (-1): errors are cleared and fail.
bool is_true(int truth) {
  if (truth < 0) PyErr_Clear();
  return truth > 0;
}

bool equal(PyObject* found, PyObject* expected) {
  if (found == expected) return true;
  return Py_TYPE(found) == Py_TYPE(expected) && is_true(PyObject_RichCompareBool(found, expected, Py_EQ));
}

// The object that a weak reference leads to. A dead one leads to None, which no weak reference can be made of.
bool is_target(PyObject* object, PyObject* reference) {
  if (!PyWeakref_Check(reference) || object == Py_None) return false;
  Ref target(cpython::weakref_target(reference));
  return target.get() == object;
}

bool call_is_true(PyObject* callable, PyObject* argument) {
  Ref result(argument ? PyObject_CallOneArg(callable, argument) : PyObject_CallNoArgs(callable));
  if (result.get() == nullptr) {
    PyErr_Clear();
    return false;
  }
  return is_true(PyObject_IsTrue(result.get()));
}

// A field of a function, or of the function of a method; null where there is neither.
PyObject* function_field(PyObject* object, PyObject* PyFunctionObject::* field) {
  if (PyMethod_Check(object)) object = PyMethod_GET_FUNCTION(object);
  return PyFunction_Check(object) ? reinterpret_cast<PyFunctionObject*>(object)->*field : nullptr;
}

bool has_length(PyObject* object, uint32_t length, bool measure_sets) {
  Py_ssize_t found = measure_sets && PyAnySet_Check(object) ? PySet_GET_SIZE(object) : PySequence_Length(object);
  if (found < 0) PyErr_Clear();
  return found == static_cast<Py_ssize_t>(length);
}

// `found` is what PyDict_Contains or PySet_Contains said: an error is neither.
bool contains_is(int found, bool expected) {
  if (found < 0) PyErr_Clear();
  return found == static_cast<int>(expected);
}

// Whether comparing an object with a constant runs no code of a user's.
bool compares_purely(PyObject* found, PyObject* expected) {
  if (found == expected || Py_TYPE(found) != Py_TYPE(expected)) return true;
  return cpython::is_plain(expected) || (is_immutable(expected) && is_immutable(found));
}

// The list of an exact dict's keys; of another mapping, what its code makes.
PyObject* keys_of(PyObject* mapping) {
  if (!PyDict_CheckExact(mapping)) return PyMapping_Keys(mapping);
  const cpython::Uncollected uncollected;
  return PyDict_Keys(mapping);
}

bool mapping_keys_are(PyObject* object, PyObject* expected) {
  Ref keys(keys_of(object));
  if (keys.get() == nullptr) {
    PyErr_Clear();
    return false;
  }
  return is_true(PyObject_RichCompareBool(keys.get(), expected, Py_EQ));
}

bool tuple_iterator_has(PyObject* object, uint64_t type, uint32_t left) {
  if (reinterpret_cast<uint64_t>(Py_TYPE(object)) != type) return false;
  auto* it = reinterpret_cast<cpython::TupleIterator*>(object);
  Py_ssize_t remaining = it->sequence ? PyTuple_GET_SIZE(it->sequence) - it->index : 0;
  return remaining == static_cast<Py_ssize_t>(left);
}

bool range_iterator_is(PyObject* object, uint64_t type, PyObject* expected) {
  if (reinterpret_cast<uint64_t>(Py_TYPE(object)) != type || Py_TYPE(object) != &PyRangeIter_Type) return false;
  cpython::RangeState state = cpython::range_state(object);
  return state.start == PyLong_AsLong(PyTuple_GET_ITEM(expected, 0)) &&
         state.stop == PyLong_AsLong(PyTuple_GET_ITEM(expected, 1)) &&
         state.step == PyLong_AsLong(PyTuple_GET_ITEM(expected, 2));
}

bool float_is_nan(PyObject* object) { return PyFloat_CheckExact(object) && std::isnan(PyFloat_AS_DOUBLE(object)); }

bool complex_is_nan(PyObject* object) {
  if (!PyComplex_CheckExact(object)) return false;
  const Py_complex value = PyComplex_AsCComplex(object);
  return std::isnan(value.real) || std::isnan(value.imag);
}

// `where` is (dict of a module, name, expected value).
PyObject* named_global(PyObject* where) {
  PyObject* found = PyDict_GetItemWithError(PyTuple_GET_ITEM(where, 0), PyTuple_GET_ITEM(where, 1));
  if (found == nullptr) PyErr_Clear();
  return found;
}

bool dual_level_is(PyObject* where) {
  PyObject* found = named_global(where);
  return found != nullptr && PyLong_CheckExact(found) &&
         is_true(PyObject_RichCompareBool(found, PyTuple_GET_ITEM(where, 2), Py_EQ));
}

// Code of a user's has no say: the dict is that of a module of torch's, and a default device is None or a device.
bool default_device_is(PyObject* where) {
  PyObject* found = named_global(where);
  PyObject* expected = PyTuple_GET_ITEM(where, 2);
  if (found == nullptr || found == expected) return found != nullptr;
  return compares_purely(found, expected) && is_true(PyObject_RichCompareBool(expected, found, Py_EQ));
}

bool mode_stack_is(PyObject* types) {
  using TLS = at::impl::PythonTorchFunctionTLS;
  const Py_ssize_t length = PyTuple_GET_SIZE(types);
  if (TLS::stack_len() != length) return false;
  for (Py_ssize_t i = 0; i < length; i++) {
    PyObject* mode = TLS::get_stack_at(i)->ptr(getPyInterpreter());
    if (reinterpret_cast<PyObject*>(Py_TYPE(mode)) != PyTuple_GET_ITEM(types, i)) return false;
  }
  return true;
}

bool dict_version_is(PyObject* object, PyObject* dict_version, uint64_t expected) {
  if (!PyDict_Check(object)) return false;
  Ref version(PyObject_CallOneArg(dict_version, object));
  const uint64_t found = version.get() ? PyLong_AsUnsignedLongLong(version.get()) : 0;
  if (PyErr_Occurred()) {
    PyErr_Clear();
    return false;
  }
  return found == expected;
}

bool dispatch_keys_are(PyObject* object, PyObject* raw_repr, uint64_t expected, DispatchState& dispatch) {
  Ref raw(PyObject_CallMethodNoArgs(object, raw_repr));
  const uint64_t found = raw.get() ? PyLong_AsUnsignedLongLong(raw.get()) : 0;
  if (PyErr_Occurred()) {
    PyErr_Clear();
    return false;
  }
  return dispatch.apply(c10::DispatchKeySet(c10::DispatchKeySet::RAW, found)) == expected;
}

bool script_type_is(PyObject* object, PyObject* unwrap, uint64_t type) {
  const int fake = PyObject_IsInstance(object, PyTuple_GET_ITEM(unwrap, 0));
  if (fake <= 0) return is_true(fake == 0) && reinterpret_cast<uint64_t>(Py_TYPE(object)) == type;
  Ref real(PyObject_GetAttr(object, PyTuple_GET_ITEM(unwrap, 1)));
  if (real.get() == nullptr) {
    PyErr_Clear();
    return false;
  }
  return reinterpret_cast<uint64_t>(Py_TYPE(real.get())) == type;
}

// Exactly these keys in this order: the same objects, or equal ones of the same type.
bool keys_are(PyObject* object, PyObject* expected) {
  if (!PyDict_CheckExact(object) || PyDict_GET_SIZE(object) != PyTuple_GET_SIZE(expected)) return false;
  Py_ssize_t cursor = 0, at = 0;
  PyObject *key = nullptr, *value = nullptr;
  while (PyDict_Next(object, &cursor, &key, &value)) {
    // Comparing may run user code that changes the dict.
    if (at >= PyTuple_GET_SIZE(expected)) return false;
    PyObject* wanted = PyTuple_GET_ITEM(expected, at++);
    if (key == wanted) continue;
    Ref held(Py_NewRef(key));
    if (!equal(key, wanted)) return false;
  }
  return at == PyTuple_GET_SIZE(expected);
}

// The storage of a tensor; null when it has none (a sparse one).
const c10::StorageImpl* storage_of(PyObject* tensor) {
  const c10::TensorImpl* impl = tensor_of(tensor).unsafeGetTensorImpl();
  return impl->has_storage() ? impl->unsafe_storage().unsafeGetStorageImpl() : nullptr;
}

bool insert_storage(SeenTable& seen, PyObject* object, uint32_t group) {
  if (!is_tensor(object)) return false;
  const c10::StorageImpl* storage = storage_of(object);
  return storage == nullptr || seen.insert(storage, group);
}

bool share_storage(PyObject* first, PyObject* second) {
  if (first == nullptr || !is_tensor(first) || !is_tensor(second)) return false;
  const c10::StorageImpl* storage = storage_of(first);
  return storage != nullptr && storage == storage_of(second);
}

// Exactly the first `overlapping` of the saved tensors may overlap, as torch's own C function judges it.
bool overlap_is(const std::vector<PyObject*>& saved, uint32_t overlapping, PyObject* spec) {
  PyObject* slots = PyTuple_GET_ITEM(spec, 1);
  const Py_ssize_t n = PyTuple_GET_SIZE(slots);
  Ref tensors(PyList_New(n));
  if (tensors.get() == nullptr) {
    PyErr_Clear();
    return false;
  }
  for (Py_ssize_t i = 0; i < n; i++) {
    PyObject* tensor = saved[PyLong_AsLong(PyTuple_GET_ITEM(slots, i))];
    if (tensor == nullptr) return false;
    Py_INCREF(tensor);
    PyList_SET_ITEM(tensors.get(), i, tensor);
  }
  Ref found(PyObject_CallFunctionObjArgs(PyTuple_GET_ITEM(spec, 0), tensors.get(), Py_False, nullptr));
  if (found.get() == nullptr || !PyAnySet_Check(found.get())) {
    PyErr_Clear();
    return false;
  }
  if (PySet_GET_SIZE(found.get()) != static_cast<Py_ssize_t>(overlapping)) return false;
  for (uint32_t i = 0; i < overlapping; i++) {
    Ref index(PyLong_FromUnsignedLong(i));
    if (!is_true(PySet_Contains(found.get(), index.get()))) return false;
  }
  return true;
}

PyObject* iterator_of(PyObject* set) {
  if (!PyAnySet_CheckExact(set)) return PyObject_GetIter(set);
  const cpython::Uncollected uncollected;
  return PyObject_GetIter(set);
}

PyObject* set_item_at(PyObject* object, uint32_t position) {
  Ref iterator(iterator_of(object));
  if (iterator.get() == nullptr) return nullptr;
  for (uint32_t i = 0;; i++) {
    PyObject* item = PyIter_Next(iterator.get());
    if (item == nullptr || i == position) return item;
    Py_DECREF(item);
  }
}

PyObject* tuple_iterator_item(PyObject* object, uint32_t offset) {
  if (Py_TYPE(object) != &PyTupleIter_Type) return nullptr;
  auto* it = reinterpret_cast<cpython::TupleIterator*>(object);
  if (it->sequence == nullptr || it->index + static_cast<Py_ssize_t>(offset) >= PyTuple_GET_SIZE(it->sequence)) {
    return nullptr;
  }
  return PyTuple_GET_ITEM(it->sequence, it->index + offset);
}

PyObject* int_or_null(c10::SymInt value) {
  auto known = value.maybe_as_int();
  return known ? PyLong_FromLongLong(*known) : nullptr;
}

PyObject* tensor_property(Op op, PyObject* object, uint32_t dim) {
  if (!is_tensor(object)) return nullptr;
  const at::Tensor tensor = tensor_of(object);  // held: its class may have it computed in Python
  if (op == Op::TENSOR_OFFSET) return int_or_null(tensor.sym_storage_offset());
  if (tensor.dim() <= static_cast<int64_t>(dim)) return nullptr;
  if (op == Op::TENSOR_SIZE) return int_or_null(tensor.sym_size(dim));
  const c10::SymIntArrayRef strides = tensor.sym_strides();  // a subclass may have fewer than dimensions
  return dim < strides.size() ? int_or_null(strides[dim]) : nullptr;
}

PyObject* tensor_grad(PyObject* object) {
  if (!is_tensor(object)) return nullptr;
  const cpython::Uncollected uncollected;
  return THPVariable_Wrap(tensor_of(object).unsafeGetTensorImpl()->grad());
}

// Whether what is read of a tensor may be computed in Python.
bool may_ask_python(PyObject* object) {
  return object != nullptr && is_tensor(object) && asks_python(*tensor_of(object).unsafeGetTensorImpl());
}

// The implementation and what it says of autograd.
void set_tensor_hint(PyObject* object, Hint& hint) {
  c10::TensorImpl* impl = tensor_of(object).unsafeGetTensorImpl();
  const char* lines = reinterpret_cast<const char*>(impl);
  hint.set(0, lines);
  hint.set(1, lines + 64);
  hint.set(2, lines + 128);
  if (const void* autograd = impl->autograd_meta()) hint.set(3, autograd);
}

}  // namespace

Evaluation::Evaluation(Program& program, Scratch& scratch) : program_(program), scratch_(scratch) {
  if (program_.needs_dispatch_) dispatch_.emplace();
}

Evaluation::~Evaluation() {
  put_torch_function_back();
  // Dropping the last reference may run user code, which must not find this scratch half emptied.
  while (!scratch_.owned.empty()) {
    PyObject* object = scratch_.owned.back();
    scratch_.owned.pop_back();
    Py_DECREF(object);
  }
  for (PyObject*& object : scratch_.gathered) Py_CLEAR(object);
  scratch_.asked.clear();
}

PyObject* Evaluation::take_gathered() {
  const auto n = static_cast<Py_ssize_t>(scratch_.gathered.size());
  PyObject* list = PyList_New(n);
  if (list == nullptr) {
    PyErr_Clear();
    return nullptr;
  }
  for (Py_ssize_t i = 0; i < n; i++) PyList_SET_ITEM(list, i, std::exchange(scratch_.gathered[i], nullptr));
  return list;
}

inline bool Evaluation::step(Instruction& i, size_t index, PyObject* base, Hint& hint) {
  if (!is_accessor(i.op)) {
    bool holds = check(i, base, hint);
    if (asking_) [[unlikely]]
      holds &= note_asked(index, nullptr);
    return holds || fail(index);
  }
  PyObject* value = access(i, base, hint);
  if (asking_ && !note_asked(index, value)) [[unlikely]]
    return fail(index);
  if (value == nullptr) return fail(index);
  if (!also_passes(i, value)) return fail(index, /*merged=*/true);
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
  registers[0] = as_they_were(locals);
  clear_seen(program_.size_.unique);
  Hint* hint = program_.hints_.of(program_.root(locals));
  for (size_t ahead = 0; ahead < Hints::kAhead; ahead++) hint[ahead].fetch();
  const size_t length = program_.code_.size();
  for (size_t at = 0; at < length; at++, hint++) {
    hint[Hints::kAhead].fetch();
    Instruction& i = program_.code_[at];
    if (settling_ && was_asked(at)) {
      if (!repeat_answer(i, at)) return false;
    } else if (!step(i, at, registers[i.base], *hint)) {
      return false;
    }
  }
  return true;
}

bool Evaluation::run_live(PyObject* locals, std::vector<LiveStep>& steps, PyObject* const* found,
                          const SeenTable& apart) {
  PyObject** registers = scratch_.registers.data();
  registers[0] = as_they_were(locals);
  Hint nowhere;
  loads_ = {&steps, found};
  for (LiveStep& live : steps) {
    Instruction& i = live.instruction;
    if (live.load != kNoLoad) {
      registers[i.base] = found[live.load];
      scratch_.paths[i.base] = i.base;
    }
    if (settling_ && was_asked(live.at)) {
      if (!repeat_answer(i, live.at)) return false;
      continue;
    }
    if (i.op == Op::UNIQUE && apart.has(registers[i.base], i.arg)) {
      return fail(live.at);
    }
    if (!step(i, live.at, registers[i.base], nowhere)) return false;
  }
  return true;
}

bool Evaluation::fail(size_t index, bool merged) {
  program_.last_failure_ = shape_failure_ >= 0 ? shape_failure_ : program_.origins_[index] + (merged ? 1 : 0);
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
    case Op::SET_ITEM: return PyAnySet_CheckExact(base) || ask(i) ? own(set_item_at(base, i.arg)) : nullptr;
    case Op::ATTR: return attribute(i, base, PyObject_GetAttr);
    case Op::GENERIC_ATTR:
      if (!PyType_Check(base)) return attribute(i, base, PyObject_GenericGetAttr);
      return ask(i) ? own(PyObject_GenericGetAttr(base, i.object)) : nullptr;
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
    case Op::TENSOR_OFFSET: return !may_ask_python(base) || ask(i) ? own(tensor_property(i.op, base, i.arg)) : nullptr;
    case Op::CALL0: return ask(i) ? own(PyObject_CallNoArgs(base)) : nullptr;
    case Op::CALL1:
      if (!ask(i)) return nullptr;
      count_callback();
      return own(PyObject_CallOneArg(i.object, base));
    case Op::DICT_KEY_AT: return PyDict_Check(base) ? cpython::dict_item_at(base, i.arg).key : nullptr;
    case Op::DICT_VALUE_AT: return PyDict_Check(base) ? cpython::dict_item_at(base, i.arg).value : nullptr;
    default: return nullptr;
  }
}

PyObject* Evaluation::dict_item(Instruction& i, PyObject* dict) {
  const cpython::Found found = cpython::find_purely(dict, i.object, i.arg);
  if (found.certain) return found.value;
  return ask(i) ? cpython::dict_get(dict, i.object, i.arg) : nullptr;
}

PyObject* Evaluation::item(Instruction& i, PyObject* base) {
  if (PyDict_CheckExact(base)) return dict_item(i, base);
  PyObject* value = nullptr;
  if (item_purely(base, i.object, value)) return value;
  return ask(i) ? own(PyObject_GetItem(base, i.object)) : nullptr;
}

PyObject* Evaluation::attribute(Instruction& i, PyObject* base, PyObject* (*get)(PyObject*, PyObject*)) {
  const PureAttribute found = attribute_purely(base, i.object, i.arg);
  if (found.certain) return found.is_new ? own(found.value) : found.value;
  return ask(i) ? own(get(base, i.object)) : nullptr;
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
    case Op::EQUALS: return (compares_purely(base, i.object) || ask(i)) && equal(base, i.object);
    case Op::DEEP_EQUALS: return (is_immutable(i.object) || ask(i)) && deep_equals(base, i.object);
    case Op::SAME_BITS: return same_bits(base, i.object);
    case Op::LENGTH: return (has_plain_length(base) || ask(i)) && has_length(base, i.arg, false);
    case Op::LENGTH_OR_SET:
      return (has_plain_length(base) || PyAnySet_Check(base) || ask(i)) && has_length(base, i.arg, true);
    case Op::DICT_LENGTH: return PyDict_Check(base) && PyDict_GET_SIZE(base) == static_cast<Py_ssize_t>(i.arg);
    case Op::TUPLE_ITER_LEN: return tuple_iterator_has(base, i.number, i.arg);
    case Op::RANGE_ITER: return range_iterator_is(base, i.number, i.object);
    case Op::MAPPING_KEYS:
      return ((PyDict_CheckExact(base) && keys_compare_purely(base, i.object)) || ask(i)) &&
             mapping_keys_are(base, i.object);
    case Op::KEYS:
      if (!PyDict_CheckExact(base)) return false;
      return (keys_compare_purely(base, i.object) || ask(i)) && keys_are(base, i.object);
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
    case Op::DISPATCH_KEYS: return ask(i) && dispatch_keys_are(base, i.object, i.number, *dispatch_);
    case Op::SCRIPT_TYPE: return ask(i) && script_type_is(base, i.object, i.number);
    case Op::DIM_MARKING: return dim_marking_matches(i, base);
    case Op::DYNAMIC_INDICES: return dynamic_indices_match(i, base);
    case Op::TENSOR: {
      const TensorSpec& spec = program_.tensors_[i.arg];
      if (Py_TYPE(base) != spec.type) return false;
      set_tensor_hint(base, hint);
      if (may_ask_python(base) && !ask(i)) return false;
      return tensor_matches(spec, program_.dims_.data() + spec.dims, base, *dispatch_);
    }
    case Op::PREDICATE:
    case Op::TORCH_LEAF: return predicate(i, base);
    case Op::UNIQUE: return scratch_.unique.insert(base, i.arg);
    case Op::UNIQUE_STORAGE: return insert_storage(scratch_.unique, base, i.arg);
    case Op::SAVE: scratch_.saved[i.arg] = own(Py_NewRef(base)); return true;
    case Op::SAME_AS: return scratch_.saved[i.arg] == base;
    case Op::SHARES_STORAGE: return share_storage(scratch_.saved[i.arg], base);
    case Op::GATHER: return gather(i.arg, base);
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
    default: return false;
  }
}

void Evaluation::count_callback() {
  program_.counts.python_callbacks++;
  total_counts.python_callbacks++;
}

bool Evaluation::predicate(const Instruction& i, PyObject* value) {
  if (!ask(i)) return false;
  count_callback();
  return call_is_true(i.object, value);
}

bool Evaluation::dict_contains(Instruction& i, PyObject* base) {
  const bool expected = i.arg != 0;
  if (!PyDict_Check(base)) return !expected;
  const cpython::Found found = cpython::find_purely(base, i.object);
  if (found.certain) return (found.value != nullptr) == expected;
  return ask(i) && contains_is(PyDict_Contains(base, i.object), expected);
}

bool Evaluation::set_contains(const Instruction& i, PyObject* base) {
  const bool expected = i.arg != 0;
  if (!PyAnySet_Check(base)) return !expected;
  if (!(cpython::is_plain(i.object) && cpython::has_plain_members(base)) && !ask(i)) return false;
  return contains_is(PySet_Contains(base, i.object), expected);
}

// getattr(object, name), new; null where it is absent, where that raises, or where it may not be asked.
Ref Evaluation::attribute_or_null(const Instruction& i, PyObject* object, PyObject* name) {
  cpython::Slot nowhere = cpython::kNoSlot;
  const PureAttribute found = attribute_purely(object, name, nowhere);
  if (found.certain) return Ref(found.is_new ? found.value : Py_XNewRef(found.value));
  PyObject* value = ask(i) ? PyObject_GetAttr(object, name) : nullptr;
  if (value == nullptr) PyErr_Clear();
  return Ref(value);
}

bool Evaluation::is_subset(const Instruction& i, PyObject* marked, PyObject* expected) {
  if (PyAnySet_CheckExact(marked) && PyAnySet_CheckExact(expected)) {
    if (marked == expected) return true;
    if (!cpython::has_plain_members(marked) && !ask(i)) return false;
    const Ref answer(PyObject_RichCompare(marked, expected, Py_LE));
    if (!answer) PyErr_Clear();
    return answer.get() == Py_True;
  }
  const Ref method(ask(i) ? PyObject_GetAttrString(marked, "issubset") : nullptr);
  if (!method) PyErr_Clear();
  return method && call_is_true(method.get(), expected);
}

bool Evaluation::dependent_marking_matches(const Instruction& i, PyObject* object, PyObject* name,
                                           PyObject* value_and_gate) {
  PyObject* expected = PyTuple_GET_ITEM(value_and_gate, 0);
  if (!attribute_or_null(i, object, PyTuple_GET_ITEM(value_and_gate, 1))) return true;
  const Ref found = attribute_or_null(i, object, name);
  if (expected == Py_None) return !found || found.get() == Py_None;
  if (!found || (!compares_purely(found.get(), expected) && !ask(i))) return false;
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
  return !attribute_or_null(i, object, PyTuple_GET_ITEM(i.object, 0)) || marking_matches(i, object);
}

bool Evaluation::dynamic_indices_match(const Instruction& i, PyObject* object) {
  const Ref marked = attribute_or_null(i, object, PyTuple_GET_ITEM(i.object, 0));
  return !marked || is_subset(i, marked.get(), PyTuple_GET_ITEM(i.object, 1));
}

bool Evaluation::gather(uint32_t index, PyObject* value) {
  if (settling_) return scratch_.gathered[index] == value;
  scratch_.gathered[index] = Py_NewRef(value);
  return true;
}

bool Evaluation::overlap(const Instruction& i) {
  PyObject* slots = PyTuple_GET_ITEM(i.object, 1);
  bool asks = false;
  for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(slots); at++) {
    asks |= may_ask_python(scratch_.saved[PyLong_AsLong(PyTuple_GET_ITEM(slots, at))]);
  }
  if (asks) return ask(i) && overlap_is(scratch_.saved, i.arg, i.object);
  const cpython::Uncollected uncollected;
  return overlap_is(scratch_.saved, i.arg, i.object);
}

bool Evaluation::shape_int(PyObject* value, uint32_t index) {
  if (!PyLong_Check(value)) return false;
  int overflow = 0;
  scratch_.ints[index] = PyLong_AsLongLongAndOverflow(value, &overflow);
  return overflow == 0;
}

// What has no register leaves the decision to the exact function.
bool Evaluation::read(const Instruction& i, PyObject* base) {
  const Reading reading = read_number(i, base, scratch_.numbers[i.arg]);
  if (reading == Reading::kInexact) exact_ = false;
  return reading != Reading::kMissing;
}

bool Evaluation::shapes_hold(const Instruction& i) {
  uint16_t failed = 0;
  ShapeVerdict verdict = ShapeVerdict::kAsk;
  if (exact_) verdict = program_.shapes_->run(scratch_.numbers.data(), failed);
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

bool Program::evaluate(PyObject* locals, PyObject** gathered, bool exactly) {
  bool hit = false, by_exact_tier = false;
  const bool nested = busy_;
  const auto finish = [&](Evaluation& evaluation) {
    if (hit && gathered != nullptr) hit = (*gathered = evaluation.take_gathered()) != nullptr;
  };
  const auto run = [&](Scratch& scratch) {
    Evaluation evaluation(*this, scratch);
    hit = evaluation.run(locals);
    finish(evaluation);
  };
  // By what is remembered; tells when that does not decide.
  const auto witness = [&](auto ask) {
    Evaluation evaluation(*this, scratch_);
    const Verdict verdict = ask(evaluation);
    hit = verdict == Verdict::kHolds;
    finish(evaluation);
    return verdict;
  };
  try {
    if (nested) {
      Scratch own = make_scratch();
      run(own);
    } else {
      busy_ = true;
      Verdict verdict = Verdict::kExact;
      if (witnesses_ && !exactly) verdict = witness([&](Evaluation& e) { return witnesses_->check(e, locals); });
      if (verdict == Verdict::kStale) verdict = witness([&](Evaluation& e) { return witnesses_->record(e, locals); });
      by_exact_tier = verdict == Verdict::kExact || verdict == Verdict::kStale;
      if (by_exact_tier) run(scratch_);
    }
  } catch (...) {
    // A tensor whose metadata cannot be read (a strided nested tensor, a subclass that raises): it does not match.
    if (PyErr_Occurred()) PyErr_Clear();
    hit = false;
  }
  if (!nested && witnesses_ && !exactly) witnesses_->finish(by_exact_tier, hit);
  if (!nested) busy_ = false;
  for (Counts* c : {&counts, &total_counts}) hit ? c->hits++ : c->misses++;
  return hit;
}

}  // namespace unified_guards

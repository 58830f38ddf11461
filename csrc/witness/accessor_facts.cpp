// See fact_builder.h: what accessors find, and facts that say so.
#include "cpython/pure.h"
#include "cpython/watch.h"
#include "witness/fact_builder.h"

#include <torch/csrc/Dtype.h>

namespace unified_guards {
namespace {

using cpython::DictState;
using cpython::Word;
using cpython::word_at;

// Whether an accessor that found this dict finds the same dict for as long as its facts, and the version, hold. The
// type of the dict need not be compared then. Other accessors follow a pointer that may lead to anything by now. The
// pointer to an instance dict always leads to a dict, but that may be of a subclass. An entry of a dict without facts
// on its version may hold anything else, too.
bool is_same_dict(const Instruction& i, PyObject* value, Word version, bool is_entry) {
  if (!PyDict_CheckExact(value)) return false;
  if (i.op == Op::GENERIC_DICT) return version != nullptr;
  if (i.op == Op::DICT_ITEM && is_entry) return false;
  return i.op == Op::DICT_ITEM || i.op == Op::DICT_VALUE_AT || i.op == Op::TYPE_DICT || i.op == Op::CONSTANT;
}

bool is_exact_dict_item(const Instruction& i, PyObject* base) {
  return i.op == Op::DICT_ITEM || PyDict_CheckExact(base);
}

// The index that an ITEM of an exact list or tuple asks for; -1 when it is none.
Py_ssize_t index_of(PyObject* key, Py_ssize_t size) {
  if (!PyLong_CheckExact(key)) return -1;
  int overflow = 0;
  const long long index = PyLong_AsLongLongAndOverflow(key, &overflow);
  return overflow == 0 && index >= 0 && index < size ? static_cast<Py_ssize_t>(index) : -1;
}

// Where a function keeps what an accessor of functions finds.
Word field_word(Op op, PyFunctionObject* f) {
  switch (op) {
    case Op::FUNC_DEFAULTS: return word_at(&f->func_defaults);
    case Op::FUNC_KWDEFAULTS: return word_at(&f->func_kwdefaults);
    case Op::FUNC_CODE: return word_at(&f->func_code);
    default: return word_at(&f->func_closure);
  }
}

}  // namespace

PyObject* FactBuilder::peek(Instruction& i, PyObject* base) {
  switch (i.op) {
    case Op::DICT_ITEM:
    case Op::ITEM:
      if (PyDict_Check(base) && is_exact_dict_item(i, base)) return cpython::find_purely(base, i.object, i.arg).value;
      if (i.op == Op::ITEM && PyTuple_CheckExact(base)) {
        const Py_ssize_t index = index_of(i.object, PyTuple_GET_SIZE(base));
        return index >= 0 ? PyTuple_GET_ITEM(base, index) : nullptr;
      }
      if (i.op == Op::ITEM && PyList_CheckExact(base)) {
        const Py_ssize_t index = index_of(i.object, PyList_GET_SIZE(base));
        return index >= 0 ? PyList_GET_ITEM(base, index) : nullptr;
      }
      return nullptr;
    case Op::LIST_ITEM:
      return PyList_Check(base) && i.arg < PyList_GET_SIZE(base) ? PyList_GET_ITEM(base, i.arg) : nullptr;
    case Op::TUPLE_ITEM:
      return PyTuple_Check(base) && i.arg < PyTuple_GET_SIZE(base) ? PyTuple_GET_ITEM(base, i.arg) : nullptr;
    case Op::DICT_KEY_AT: return PyDict_Check(base) ? cpython::dict_item_at(base, i.arg).key : nullptr;
    case Op::DICT_VALUE_AT: return PyDict_Check(base) ? cpython::dict_item_at(base, i.arg).value : nullptr;
    default: return nullptr;
  }
}

// Whether facts may begin at an object of the frame: the object comes back with the next call, and something is read
// below it. Containers and tensors that are arguments do not count: they are new on every call.
bool FactBuilder::is_anchor(uint32_t at, PyObject* value) const {
  return program_.tree[at].end > at + 1 && anchor_moves_[at] < kMostMoves && !cpython::is_plain(value) &&
         !PyDict_Check(value) && !PyList_Check(value) && !PyTuple_Check(value) && !PyAnySet_Check(value) &&
         !is_tensor(value);
}

PyObject* FactBuilder::read_accessor(uint32_t at, const Register& base) {
  Instruction& i = program_.code[at];
  PyObject* object = base.value;
  switch (i.op) {
    case Op::DICT_ITEM: return read_dict_item(i, base);
    case Op::DICT_KEY_AT:
    case Op::DICT_VALUE_AT: return base.has & kNeedsVersion ? peek(i, object) : nullptr;
    case Op::TUPLE_ITEM:
    case Op::LIST_ITEM:
    case Op::ITEM: return read_item(i, base);
    case Op::GENERIC_DICT: {
      const Word word = cpython::dict_word(object);
      if (word == nullptr || cpython::instance_dict(object).state != DictState::kReady) return nullptr;
      emit(FactKind::kInstanceDict, word);
      return cpython::instance_dict(object).dict;
    }
    case Op::ATTR: return read_attribute(i, base);
    case Op::TYPE: return base.has & kNeedsType ? reinterpret_cast<PyObject*>(Py_TYPE(object)) : nullptr;
    case Op::TYPE_DICT: {
      if (!PyType_Check(object)) return nullptr;
      if (!cpython::is_built_in(reinterpret_cast<PyTypeObject*>(object)))
        emit(FactKind::kClassDict, cpython::type_dict_word(object));
      bool is_new = false;
      PyObject* dict = cpython::type_dict(object, is_new);
      if (is_new) Py_XDECREF(dict);  // the type keeps it
      return dict;
    }
    case Op::TYPE_MRO:
      if (!PyType_Check(object)) return nullptr;
      emit(FactKind::kMro, cpython::mro_word(object));
      return reinterpret_cast<PyTypeObject*>(object)->tp_mro;
    case Op::FUNC_DEFAULTS:
    case Op::FUNC_KWDEFAULTS:
    case Op::FUNC_CODE:
    case Op::FUNC_CLOSURE: return read_function_field(i.op, object);
    case Op::GLOBAL_WEAKREF: {
      PyObject* reference = read_dict_item(i, base);
      if (reference != nullptr && base.has & kHasTable) emit_type(reference);
      return reference != nullptr ? read_weakref(reference) : nullptr;
    }
    case Op::WEAKREF_CALL: return read_weakref(object);
    case Op::GRAD: return read_gradient(object);
    default: return nullptr;
  }
}

PyObject* FactBuilder::read_dict_item(Instruction& i, const Register& base) {
  if (base.has & kHasTable) return read_entry(base.value, i.object).value;
  return base.has & kNeedsVersion ? cpython::find_purely(base.value, i.object, i.arg).value : nullptr;
}

PyObject* FactBuilder::read_item(Instruction& i, const Register& base) {
  PyObject* object = base.value;
  if (PyDict_CheckExact(object)) return read_dict_item(i, base);
  PyObject* value = base.has & kNeedsItems ? peek(i, object) : nullptr;
  if (value == nullptr || is_immutable(object)) return value;
  const uint32_t index = i.op == Op::ITEM ? static_cast<uint32_t>(PyLong_AsLong(i.object)) : i.arg;
  emit(FactKind::kItem,
       PyList_Check(object) ? cpython::item_word(object, index) : cpython::tuple_item_word(object, index));
  return value;
}

PyObject* FactBuilder::read_function_field(Op op, PyObject* object) {
  PyFunctionObject* function = cpython::function_of(object);
  if (function == nullptr) return nullptr;
  if (auto* itself = reinterpret_cast<PyObject*>(function); itself != object) {
    emit(FactKind::kMethodFunction, word_at(&reinterpret_cast<PyMethodObject*>(object)->im_func));
    emit_type(itself);
  }
  const Word word = field_word(op, function);
  emit(FactKind::kFunctionField, word);
  return reinterpret_cast<PyObject*>(*word);
}

PyObject* FactBuilder::read_weakref(PyObject* reference) {
  if (!PyWeakref_CheckRefExact(reference) && !PyWeakref_CheckProxy(reference)) return nullptr;
  const Word word = cpython::weakref_word(reference);
  auto* target = reinterpret_cast<PyObject*>(*word);
  if (target == nullptr || Py_REFCNT(target) <= 0) return nullptr;
  emit(FactKind::kWeakref, word);
  return target;
}

PyObject* FactBuilder::read_gradient(PyObject* tensor) {
  if (!is_tensor(tensor)) return nullptr;
  const c10::TensorImpl* implementation = tensor_of(tensor).unsafeGetTensorImpl();
  const Word autograd = autograd_word(*implementation);
  if (autograd == nullptr) return nullptr;
  emit(FactKind::kTensorImplementation, implementation_word(tensor));
  emit(FactKind::kAutogradMetadata, autograd);
  if (*autograd == 0) return Py_None;
  const at::Tensor& gradient = implementation->autograd_meta()->grad();
  emit(FactKind::kGradient, word_at(&gradient));
  if (!gradient.defined()) return Py_None;
  const Word object = object_word(*gradient.unsafeGetTensorImpl());
  if (object == nullptr) return nullptr;
  emit(FactKind::kGradientObject, object);
  return reinterpret_cast<PyObject*>(*object);
}

uint8_t FactBuilder::value_facts(uint32_t at, PyObject* value, uint8_t needs) {
  if (is_immutable(value)) {
    keep(at, value);
    return kNeedsType | kNeedsItems;
  }
  uint8_t has = 0;
  const bool is_on_its_table = needs & kNeedsVersion && PyDict_CheckExact(value) && is_on_table(value);
  Word version = nullptr;
  if (needs & kNeedsVersion && PyDict_Check(value) && !is_on_its_table) version = dict_version_word(value);
  const bool is_entry = registers_[program_.code[at].base].has & kHasTable;
  if (needs != 0 && (is_on_its_table || !is_same_dict(program_.code[at], value, version, is_entry))) emit_type(value);
  has |= kNeedsType;
  if (is_on_its_table) {
    table_facts(value);
    has |= kHasTable;
  } else if (version != nullptr) {
    emit(FactKind::kDictVersion, version);
    has |= kNeedsVersion;
  }
  if (needs & kNeedsItems && (PyList_Check(value) || PyTuple_Check(value))) {
    emit(FactKind::kLength, cpython::size_word(value));
    if (PyList_Check(value)) emit(FactKind::kListItems, cpython::items_word(value));
    has |= kNeedsItems;
  } else if (needs & kNeedsItems && PySet_CheckExact(value)) {
    emit(FactKind::kLength, cpython::set_size_word(value));
    has |= kNeedsItems;
  }
  if (needs & kNeedsAttrs) has |= attribute_facts(value);
  return has;
}

// Takes ownership of a value that facts believe by its address, unless the interpreter never frees it.
void FactBuilder::keep(uint32_t at, PyObject* value) {
  if (value == Py_None || value == Py_Ellipsis || PyBool_Check(value) || Py_TYPE(value) == &THPDtypeType) return;
  if (updating_) {
    keeps_.emplace_back(at, value);
  } else {
    facts_->kept.add(at, value);
  }
}

}  // namespace unified_guards

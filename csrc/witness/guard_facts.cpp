// See fact_builder.h: which guards facts can answer.
#include "cpython/pure.h"
#include "cpython/watch.h"
#include "witness/fact_builder.h"

namespace unified_guards {

using cpython::DictState;
using cpython::Word;

// Guards on the state of the thread. There are facts about what they read in dicts; all else is compared as a whole
// (see Witness::state_holds).
bool FactBuilder::ambient_facts(const Instruction& i) {
  if (i.op == Op::TORCH_CALL || i.op == Op::GLOBAL_STATE) return true;
  if (i.op != Op::DUAL_LEVEL && i.op != Op::DEFAULT_DEVICE) return false;
  PyObject* dict = PyTuple_GET_ITEM(i.object, 0);
  PyObject* found = cpython::find_purely(dict, PyTuple_GET_ITEM(i.object, 1)).value;
  const Word version = dict_version_word(dict);
  if (found == nullptr || !is_immutable(found) || version == nullptr) return false;
  emit(FactKind::kDictVersion, version);
  return true;
}

bool FactBuilder::guard_facts(uint32_t at, const Register& base) {
  Instruction& i = program_.code[at];
  PyObject* value = base.value;
  switch (i.op) {
    case Op::TYPE_IS: return base.has & kNeedsType;
    case Op::SAME_BITS:
    case Op::FLOAT_NAN:
    case Op::COMPLEX_NAN: return is_immutable(value);
    case Op::IS:
    case Op::IS_NOT:
    case Op::UNIQUE:
    case Op::SAVE:
    case Op::SAME_AS: return true;
    case Op::IS_TARGET:
      if (!PyWeakref_CheckRefExact(i.object)) return false;
      emit(FactKind::kWeakref, cpython::weakref_word(i.object));
      return true;
    case Op::DEEP_EQUALS: return is_immutable(value) && is_immutable(i.object);
    case Op::EQUALS: return value == i.object || (is_immutable(value) && is_immutable(i.object));
    case Op::LENGTH:
    case Op::LENGTH_OR_SET:
      return base.has & kNeedsItems && (PyList_CheckExact(value) || PyTuple_CheckExact(value) ||
                                        PySet_CheckExact(value) || PyUnicode_CheckExact(value));
    case Op::DICT_LENGTH:
      if (base.has & kHasTable) emit(FactKind::kLength, cpython::used_word(value));
      return base.has & (kNeedsVersion | kHasTable);
    case Op::DICT_VERSION: return base.has & kNeedsVersion;
    case Op::KEYS:
    case Op::MAPPING_KEYS:
      return base.has & kNeedsVersion && PyDict_CheckExact(value) && keys_compare_purely(value, i.object);
    case Op::DICT_CONTAINS:
      if (!PyDict_Check(value)) return true;
      if (base.has & kHasTable) return read_entry(value, i.object).certain;
      return base.has & kNeedsVersion && cpython::is_plain(i.object) && cpython::has_plain_keys(value);
    case Op::NO_ATTR: return absence_facts(value, i.object, base);
    case Op::DIM_MARKING:
    case Op::DYNAMIC_INDICES: return marking_facts(at, value, PyTuple_GET_ITEM(i.object, 0));
    case Op::TENSOR: return tensor_facts(at, value);
    default: return false;
  }
}

// Facts that a tensor has no marking. Hardly any tensor has attributes of its own: that a tensor has none is noted in
// its TensorFact, and needs no other facts.
bool FactBuilder::marking_facts(uint32_t at, PyObject* object, PyObject* name) {
  PyTypeObject* type = Py_TYPE(object);
  const Word version = cpython::type_version_word(type);
  if (version == nullptr || cpython::dict_word(object) == nullptr) return false;
  if (type->tp_getattro != PyObject_GenericGetAttr || _PyType_Lookup(type, name) != nullptr) return false;
  const cpython::InstanceDict instance = cpython::instance_dict(object);
  if (instance.state == DictState::kNotMade || instance.state == DictState::kOther) return false;
  TensorFact* fact = nullptr;
  if (updating_ && !tensor_changes_.empty()) fact = &tensor_changes_.back().second;
  if (!updating_ && !facts_->tensors.empty()) fact = &facts_->tensors.back();
  const bool is_its = fact != nullptr && fact->tensor == object && at > 0 && program_.code[at - 1].op == Op::TENSOR;
  Word entries = nullptr;
  if (instance.state == DictState::kReady) {
    // Facts only where nothing is marked: markings are sets, which change without a trace.
    const cpython::Found marked = cpython::find_purely(instance.dict, name);
    entries = dict_version_word(instance.dict);
    if (!marked.certain || marked.value != nullptr || entries == nullptr) return false;
  }
  if (is_its) {
    fact->type_version = type->tp_version_tag;
    fact->is_bare = entries == nullptr;
    if (fact->is_bare) return true;
  }
  emit_type(object);  // a TensorFact is compared after what is read here
  if (!is_its) emit(FactKind::kTypeVersion, version);
  emit_instance_dict(object);
  if (entries != nullptr) emit(FactKind::kDictVersion, entries);
  return true;
}

bool FactBuilder::tensor_facts(uint32_t at, PyObject* object) {
  const uint32_t which = program_.code[at].arg;
  const TensorSpec& spec = program_.tensors[which];
  if (Py_TYPE(object) != spec.type || spec.device_is_current || !facts_->types.add(spec.type)) return false;
  const c10::TensorImpl* implementation = tensor_of(object).unsafeGetTensorImpl();
  if (!reads_in_place(*implementation).likeness()) return false;
  if (autograd_word(*implementation) == nullptr) return false;
  const void* autograd = implementation->autograd_meta();
  const TensorFact fact{object, implementation, autograd != nullptr ? autograd : implementation, which, 0, 0};
  if (updating_) {
    tensor_changes_.emplace_back(facts_->remembered[at].first, fact);
  } else {
    facts_->remembered[at].first = static_cast<uint32_t>(facts_->tensors.size());
    facts_->tensors.push_back(fact);
    facts_->tensor_owners.push_back(at);
  }
  return true;
}

}  // namespace unified_guards

// See derive.h. What is found here is found by reading memory: nothing runs code of a user's, makes an object or drops
// the last reference to one.
#include "witness/derive.h"

#include "cpython/pure.h"
#include "cpython/watch.h"

#include <torch/csrc/Dtype.h>

#include <algorithm>

namespace unified_guards {
namespace {

using cpython::DictState;
using cpython::Word;
using cpython::word_at;

// Guards that covers() answers itself: they are covered only where they hold.
bool is_absence(Op op) { return op == Op::NO_ATTR || op == Op::DIM_MARKING || op == Op::DYNAMIC_INDICES; }

bool is_relation(Op op) { return op == Op::UNIQUE || op == Op::SAVE || op == Op::SAME_AS; }

// Whether an accessor that found this dict finds the same one for as long as its facts, and the version, hold. Others
// follow a pointer, at the end of which there may be anything by now. That of an instance leads to a dict in any case,
// which has a version, but may be of a subclass.
bool is_same_dict(const Instruction& i, PyObject* value, Word version) {
  if (!PyDict_CheckExact(value)) return false;
  if (i.op == Op::GENERIC_DICT) return version != nullptr;
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

PyObject* function_of(PyObject* object) {
  if (PyMethod_Check(object)) object = PyMethod_GET_FUNCTION(object);
  return PyFunction_Check(object) ? object : nullptr;
}

}  // namespace

// ---- emitting ----------------------------------------------------------------------------------------------------

void Deriver::begin(uint32_t at) {
  current_ = at;
  from_ = facts_->facts.size();
  change_from_ = changes_.size();
  if (!updating_) facts_->remembered[at].first = static_cast<uint32_t>(from_);
}

void Deriver::emit(FactKind kind, Word word) {
  if (!updating_) {
    facts_->facts.push_back({word, *word});
    facts_->owners.push_back(current_);
    facts_->kinds.push_back(kind);
    return;
  }
  const auto at = static_cast<uint32_t>(facts_->remembered[current_].first + changes_.size() - change_from_);
  if (at >= facts_->count() || facts_->owners[at] != current_ || facts_->kinds[at] != kind) {
    outcome_ = Outcome::kOther;
    return;
  }
  changes_.push_back({at, {word, *word}});
}

void Deriver::emit_type(PyObject* object) {
  if (!facts_->types.add(Py_TYPE(object))) outcome_ = Outcome::kOther;
  emit(FactKind::kType, cpython::type_word(object));
}

void Deriver::drop_emitted() {
  if (updating_) {
    changes_.resize(change_from_);
  } else {
    facts_->facts.resize(from_);
    facts_->owners.resize(from_);
    facts_->kinds.resize(from_);
  }
}

// All facts of the instruction have been emitted: when updating, as many as there were.
bool Deriver::end(uint32_t at) {
  if (!updating_) return true;
  const size_t next = facts_->remembered[at].first + emitted();
  if (outcome_ == Outcome::kOther || (next < facts_->count() && facts_->owners[next] == at)) return other();
  return true;
}

bool Deriver::standing_is(uint32_t at, Standing standing) {
  if (updating_) return facts_->remembered[at].standing == standing || other();
  facts_->remembered[at].standing = standing;
  return true;
}

void Deriver::start_update() {
  updating_ = true;
  outcome_ = Outcome::kDone;
  changes_.clear();
  finds_.clear();
  tensor_changes_.clear();
  keeps_.clear();
}

Deriver::Outcome Deriver::commit() {
  if (outcome_ != Outcome::kDone) return outcome_;
  for (const auto& [at, fact] : tensor_changes_) {
    if (!are_alike(facts_->tensors[at], fact)) return Outcome::kOther;
  }
  for (const Change& change : changes_) facts_->facts[change.at] = change.fact;
  for (const auto& [at, value] : finds_) facts_->found[at] = value;
  for (const auto& [at, fact] : tensor_changes_) facts_->tensors[at] = fact;
  for (const auto& [at, value] : keeps_) facts_->kept.replace(at, value);
  return outcome_;
}

// ---- walking -----------------------------------------------------------------------------------------------------

Deriver::Outcome Deriver::record(PyObject* locals) {
  const size_t length = program_.code_.size();
  *facts_ = Facts();
  facts_->remembered.resize(length);
  facts_->likenesses.resize(program_.tensors_.size());
  facts_->found.resize(length);
  updating_ = false;
  outcome_ = Outcome::kDone;
  registers_[0] = {locals, State::kSeen, 0};
  if (derive(0, static_cast<uint32_t>(length))) settle_relations();
  facts_->finish();
  return outcome_;
}

bool Deriver::derive(uint32_t begin, uint32_t end) {
  for (uint32_t at = begin; at < end; at++) {
    if (!(is_accessor(program_.code_[at].op) ? derive_accessor(at) : derive_guard(at))) return false;
  }
  return true;
}

bool Deriver::derive_accessor(uint32_t at) {
  Instruction& i = program_.code_[at];
  const Register base = registers_[i.base];
  work_++;
  begin(at);
  if (i.op == Op::CONSTANT) return hold(at, i.object, Standing::kCovered);
  if (base.state == State::kHidden) return leave_live(at, {});
  if (base.state == State::kSeen) {
    PyObject* value = read(i, base.value);
    if (value == nullptr) return leave_live(at, {});
    if (is_anchor(at, value)) return hold(at, value, Standing::kAnchor);
    return leave_live(at, {value, State::kSeen, 0});
  }
  PyObject* value = edge(at, base);
  if (value != nullptr) return hold(at, value, Standing::kCovered);
  drop_emitted();
  return leave_live(at, {});
}

bool Deriver::leave_live(uint32_t at, Register value) {
  registers_[program_.code_[at].base + 1] = value;
  return standing_is(at, Standing::kLive);
}

// The facts so far say that the accessor finds `value`; now those about the value itself.
bool Deriver::hold(uint32_t at, PyObject* value, Standing standing) {
  const Instruction& i = program_.code_[at];
  Remembered& remembered = facts_->remembered[at];
  if (!standing_is(at, standing)) return false;
  const auto edges = static_cast<uint16_t>(emitted());
  const uint8_t has = node(at, value, program_.places_[at].needs);
  if (updating_) {
    if (edges != remembered.edges || has != remembered.has || !end(at)) return other();
    finds_.emplace_back(at, value);
  } else {
    remembered.edges = edges;
    remembered.has = has;
    facts_->found[at] = value;
  }
  registers_[i.base + 1] = {value, State::kHeld, has};
  return also_passes(i, value) || fails(at, /*merged=*/true);
}

bool Deriver::derive_guard(uint32_t at) {
  Instruction& i = program_.code_[at];
  const Register& base = registers_[i.base];
  work_++;
  begin(at);
  const bool covered = i.base == 0 ? covers_ambient(i) : base.state == State::kHeld && covers(at, base);
  if (!covered) {
    drop_emitted();
    return standing_is(at, Standing::kLive);
  }
  if (!standing_is(at, Standing::kCovered)) return false;
  // How a group of objects relates is decided when all of them are known; nothing replaces one of them alone.
  if (is_relation(i.op)) return !updating_ || other();
  return end(at) && (is_absence(i.op) || evaluation_->passes(i, base.value) || fails(at));
}

// Objects of which each is vouched for relate as they do for as long as they are. Of those that are not, it is asked on
// every check whether they are the same as one of these.
void Deriver::settle_relations() {
  const std::vector<Instruction>& code = program_.code_;
  std::vector<bool> live_groups(code.size()), live_slots(program_.size_.saved);
  for (uint32_t at = 0; at < code.size(); at++) {
    const Instruction& i = code[at];
    const bool live = facts_->remembered[at].standing == Standing::kLive;
    if (i.op == Op::UNIQUE && live) live_groups[i.arg] = true;
    if ((i.op == Op::SAVE || i.op == Op::SAME_AS || i.op == Op::SHARES_STORAGE) && live) live_slots[i.arg] = true;
    if (i.op == Op::OVERLAP) live_slots.assign(live_slots.size(), true);
  }
  facts_->apart.clear(static_cast<size_t>(std::count_if(
      code.begin(), code.end(), [&](const Instruction& i) { return i.op == Op::UNIQUE && live_groups[i.arg]; })));
  for (uint32_t at = 0; at < code.size(); at++) {
    Remembered& remembered = facts_->remembered[at];
    if (!is_relation(code[at].op) || remembered.standing == Standing::kLive) continue;
    PyObject* value = facts_->found[program_.places_[at].parent];
    if (code[at].op != Op::UNIQUE && live_slots[code[at].arg]) {
      remembered.standing = Standing::kLive;
    } else if (!evaluation_->passes(program_.code_[at], value)) {
      fails(at);
      return;
    } else if (code[at].op == Op::UNIQUE && live_groups[code[at].arg]) {
      facts_->apart.insert(value, code[at].arg);
    }
  }
}

// ---- updating ----------------------------------------------------------------------------------------------------

Deriver::Outcome Deriver::repair(uint32_t at) {
  start_update();
  const Instruction& i = program_.code_[at];
  const uint32_t parent = program_.places_[at].parent;
  const Remembered& remembered = facts_->remembered[at];
  if (parent != at) registers_[i.base] = {facts_->found[parent], State::kHeld, facts_->remembered[parent].has};
  if (!is_accessor(i.op)) {
    derive_guard(at);
    return commit();
  }
  PyObject* value = facts_->found[at];
  begin(at);
  work_++;
  if (remembered.standing == Standing::kCovered && i.op != Op::CONSTANT) value = edge(at, registers_[i.base]);
  if (value == nullptr || outcome_ == Outcome::kOther) return Outcome::kOther;
  const bool same = value == facts_->found[at];
  if (hold(at, value, remembered.standing)) {
    same ? refresh_children(at) : derive(at + 1, program_.places_[at].end);
  }
  return commit();
}

Deriver::Outcome Deriver::replace(uint32_t anchor, PyObject* value) {
  start_update();
  begin(anchor);
  work_++;
  if (hold(anchor, value, Standing::kAnchor)) derive(anchor + 1, program_.places_[anchor].end);
  return commit();
}

// The value of the accessor is the same object, in which something has changed: what reads it directly is evaluated
// again, and what lies deeper where another object is found than before.
bool Deriver::refresh_children(uint32_t at) {
  for (uint32_t child = at + 1; child < program_.places_[at].end; child = program_.places_[child].end) {
    const Instruction& i = program_.code_[child];
    const Remembered& remembered = facts_->remembered[child];
    if (remembered.standing == Standing::kLive || is_relation(i.op)) continue;
    if (!is_accessor(i.op)) {
      if (!derive_guard(child)) return false;
      continue;
    }
    work_++;
    begin(child);
    if (i.op == Op::CONSTANT) continue;
    PyObject* value = edge(child, registers_[i.base]);
    if (value == nullptr || outcome_ == Outcome::kOther || emitted() != remembered.edges) return other();
    const bool was_dict = remembered.has & kNeedsVersion;
    if (value == facts_->found[child] && (!was_dict || PyDict_Check(value)) && !is_immutable(value)) continue;
    if (!hold(child, value, Standing::kCovered) || !derive(child + 1, program_.places_[child].end)) return false;
  }
  return true;
}

// ---- accessors ---------------------------------------------------------------------------------------------------

PyObject* Deriver::read(Instruction& i, PyObject* base) {
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

// An object that comes back with the next call and has something below it. Containers and tensors that are arguments
// are new on every call.
bool Deriver::is_anchor(uint32_t at, PyObject* value) const {
  return program_.places_[at].end > at + 1 && !program_.places_[at].is_barred() && !cpython::is_plain(value) &&
         !PyDict_Check(value) && !PyList_Check(value) && !PyTuple_Check(value) && !PyAnySet_Check(value) &&
         !is_tensor(value);
}

// The value that a covered accessor finds, with facts that say so; null when there are none.
PyObject* Deriver::edge(uint32_t at, const Register& base) {
  Instruction& i = program_.code_[at];
  PyObject* object = base.value;
  switch (i.op) {
    case Op::DICT_ITEM:
    case Op::DICT_KEY_AT:
    case Op::DICT_VALUE_AT: return base.has & kNeedsVersion ? read(i, object) : nullptr;
    case Op::TUPLE_ITEM:
    case Op::LIST_ITEM:
    case Op::ITEM: {
      const bool vouched = base.has & (PyDict_Check(object) ? kNeedsVersion : kNeedsItems);
      PyObject* value = vouched ? read(i, object) : nullptr;
      if (value == nullptr || PyDict_Check(object) || is_immutable(object)) return value;
      const uint32_t index = i.op == Op::ITEM ? static_cast<uint32_t>(PyLong_AsLong(i.object)) : i.arg;
      emit(FactKind::kItem,
           PyList_Check(object) ? cpython::item_word(object, index) : cpython::tuple_item_word(object, index));
      return value;
    }
    case Op::GENERIC_DICT: {
      const Word word = cpython::dict_word(object);
      if (word == nullptr || cpython::instance_dict(object).state != DictState::kReady) return nullptr;
      emit(FactKind::kInstanceDict, word);
      return cpython::instance_dict(object).dict;
    }
    case Op::ATTR: return edge_of_attribute(i, base);
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
    case Op::FUNC_CLOSURE: {
      PyObject* function = function_of(object);
      if (function == nullptr) return nullptr;
      if (function != object) {
        emit(FactKind::kMethodFunction, word_at(&reinterpret_cast<PyMethodObject*>(object)->im_func));
        emit_type(function);
      }
      const Word word = field_word(i.op, function);
      emit(FactKind::kFunctionField, word);
      return reinterpret_cast<PyObject*>(*word);
    }
    case Op::GLOBAL_WEAKREF: {
      if (!(base.has & kNeedsVersion)) return nullptr;
      PyObject* reference = cpython::find_purely(object, i.object, i.arg).value;
      return reference != nullptr ? edge_of_weakref(reference) : nullptr;
    }
    case Op::WEAKREF_CALL: return edge_of_weakref(object);
    case Op::GRAD: return edge_of_gradient(object);
    default: return nullptr;
  }
}

PyObject* Deriver::edge_of_weakref(PyObject* reference) {
  if (!PyWeakref_CheckRefExact(reference) && !PyWeakref_CheckProxy(reference)) return nullptr;
  const Word word = cpython::weakref_word(reference);
  auto* target = reinterpret_cast<PyObject*>(*word);
  if (target == nullptr || Py_REFCNT(target) <= 0) return nullptr;
  emit(FactKind::kWeakref, word);
  return target;
}

PyObject* Deriver::edge_of_gradient(PyObject* tensor) {
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

// ---- values ------------------------------------------------------------------------------------------------------

// Emits the facts about a value that the instructions below it need; tells for which needs there are any.
uint8_t Deriver::node(uint32_t at, PyObject* value, uint8_t needs) {
  if (is_immutable(value)) {
    keep(at, value);
    return kNeedsType | kNeedsItems;
  }
  uint8_t has = 0;
  const Word version = needs & kNeedsVersion && PyDict_Check(value) ? dict_version_word(value) : nullptr;
  if (needs != 0 && !is_same_dict(program_.code_[at], value, version)) emit_type(value);
  has |= kNeedsType;
  if (version != nullptr) {
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
  if (needs & kNeedsAttrs && attribute_facts(value)) has |= kNeedsAttrs;
  return has;
}

// Keeps a value that is believed by its address. What the interpreter never frees need not be kept.
void Deriver::keep(uint32_t at, PyObject* value) {
  if (value == Py_None || value == Py_Ellipsis || PyBool_Check(value) || Py_TYPE(value) == &THPDtypeType) return;
  if (updating_) {
    keeps_.emplace_back(at, value);
  } else {
    facts_->kept.add(at, value);
  }
}

// ---- guards ------------------------------------------------------------------------------------------------------

// Guards on the state of the thread: what they read in dicts; the rest is compared as a whole (see Witness).
bool Deriver::covers_ambient(const Instruction& i) {
  if (i.op == Op::TORCH_CALL || i.op == Op::GLOBAL_STATE) return true;
  if (i.op != Op::DUAL_LEVEL && i.op != Op::DEFAULT_DEVICE) return false;
  PyObject* dict = PyTuple_GET_ITEM(i.object, 0);
  PyObject* found = cpython::find_purely(dict, PyTuple_GET_ITEM(i.object, 1)).value;
  const Word version = dict_version_word(dict);
  if (found == nullptr || !is_immutable(found) || version == nullptr) return false;
  emit(FactKind::kDictVersion, version);
  return true;
}

// Whether facts, those of the base and those emitted here, keep the answer of a guard what it is.
bool Deriver::covers(uint32_t at, const Register& base) {
  Instruction& i = program_.code_[at];
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
    case Op::DICT_VERSION: return base.has & kNeedsVersion;
    case Op::KEYS:
    case Op::MAPPING_KEYS:
      return base.has & kNeedsVersion && PyDict_CheckExact(value) && keys_compare_purely(value, i.object);
    case Op::DICT_CONTAINS:
      if (!PyDict_Check(value)) return true;
      return base.has & kNeedsVersion && cpython::is_plain(i.object) && cpython::has_plain_keys(value);
    case Op::NO_ATTR: return covers_absence(value, i.object, base);
    case Op::DIM_MARKING:
    case Op::DYNAMIC_INDICES: return covers_marking(at, value, PyTuple_GET_ITEM(i.object, 0));
    case Op::TENSOR: return covers_tensor(at, value);
    default: return false;
  }
}

// Hardly any tensor has attributes of its own: that is noted with what is compared of the tensor.
bool Deriver::covers_marking(uint32_t at, PyObject* object, PyObject* name) {
  PyTypeObject* type = Py_TYPE(object);
  const Word version = cpython::type_version_word(type), holder = cpython::dict_word(object);
  if (version == nullptr || holder == nullptr) return false;
  if (type->tp_getattro != PyObject_GenericGetAttr || _PyType_Lookup(type, name) != nullptr) return false;
  const cpython::InstanceDict instance = cpython::instance_dict(object);
  if (instance.state == DictState::kNotMade || instance.state == DictState::kOther) return false;
  TensorFact* fact = nullptr;
  if (updating_ && !tensor_changes_.empty()) fact = &tensor_changes_.back().second;
  if (!updating_ && !facts_->tensors.empty()) fact = &facts_->tensors.back();
  const bool is_its = fact != nullptr && fact->tensor == object && at > 0 && program_.code_[at - 1].op == Op::TENSOR;
  Word entries = nullptr;
  if (instance.state == DictState::kReady) {
    // What is marked stands in sets, which change without a trace.
    const cpython::Found marked = cpython::find_purely(instance.dict, name);
    entries = dict_version_word(instance.dict);
    if (!marked.certain || marked.value != nullptr || entries == nullptr) return false;
  }
  if (is_its) {
    fact->type_version = type->tp_version_tag;
    fact->is_bare = entries == nullptr;
    if (fact->is_bare) return true;
  } else {
    emit_type(object);
    emit(FactKind::kTypeVersion, version);
  }
  emit(FactKind::kInstanceDict, holder);
  if (entries != nullptr) emit(FactKind::kDictVersion, entries);
  return true;
}

bool Deriver::covers_tensor(uint32_t at, PyObject* object) {
  const uint32_t which = program_.code_[at].arg;
  const TensorSpec& spec = program_.tensors_[which];
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

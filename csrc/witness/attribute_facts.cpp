// See fact_builder.h: who answers getattr, with which value, and the facts that keep the answer.
#include "cpython/watch.h"
#include "witness/attribute_hooks.h"
#include "witness/fact_builder.h"

namespace unified_guards {
namespace {

using cpython::DictState;
using cpython::Word;
using cpython::word_at;

// Whether reading this attribute of a class gives it unchanged, from an instance or the class: it has no __get__.
bool is_given_as_it_is(PyObject* attribute) { return Py_TYPE(attribute)->tp_descr_get == nullptr; }

// The getter that answers `object.__class__` unless a class has its own.
PyObject* class_getter() {
  static PyObject* getter = cpython::of_type(&PyBaseObject_Type, "__class__");
  return getter;
}

// Whether this attribute of a class hides an attribute of the instance: it is a data descriptor.
bool goes_first(PyObject* attribute) { return Py_TYPE(attribute)->tp_descr_set != nullptr; }

// Whether attribute access on a class starts as type's own does. A __getattr__ of the metaclass comes last.
bool plain_class_access(PyTypeObject* metaclass) {
  static PyObject* name = PyUnicode_InternFromString("__getattribute__");
  return metaclass->tp_getattro == PyType_Type.tp_getattro ||
         _PyType_Lookup(metaclass, name) == _PyType_Lookup(&PyType_Type, name);
}

// The name by which an attribute is looked up.
PyObject* name_to_look_for(PyObject* object, PyObject* name) {
  if (PyType_Check(object) || cpython::plain_attribute_access(Py_TYPE(object))) return name;
  return Hooks(object).renamed(name);
}

}  // namespace

PyObject* FactBuilder::read_attribute(Instruction& i, const Register& base) {
  PyObject *object = base.value, *name = i.object;
  if (PyCell_Check(object)) {
    if (PyUnicode_CompareWithASCIIString(name, "cell_contents") != 0) return nullptr;
    emit(FactKind::kCell, cpython::cell_word(object));
    return PyCell_GET(object);
  }
  if (!(base.has & kNeedsAttrs)) return nullptr;
  if (PyFunction_Check(object)) {
    if (PyObject* value = read_function_attribute(object, name)) return value;
  }
  return read_name(base, name, i.arg);
}

PyObject* FactBuilder::read_name(const Register& base, PyObject* name, cpython::Slot& slot) {
  PyObject* object = base.value;
  name = name_to_look_for(object, name);
  PyObject* of_type = _PyType_Lookup(Py_TYPE(object), name);
  if (of_type != nullptr && of_type == class_getter()) return reinterpret_cast<PyObject*>(Py_TYPE(object));
  if (of_type != nullptr && Py_TYPE(of_type) == &PyMemberDescr_Type) return read_member(object, of_type);
  if (of_type != nullptr && Py_TYPE(of_type) == &PyProperty_Type) return read_property(base, of_type);
  if (PyObject* value = read_class_name(object, of_type)) return value;
  if (of_type != nullptr && (goes_first(of_type) || !type_stays(of_type))) return nullptr;
  if (PyType_Check(object)) {
    PyObject* value = _PyType_Lookup(reinterpret_cast<PyTypeObject*>(object), name);
    if (value == nullptr || PyFunction_Check(value)) return value;
    return is_given_as_it_is(value) && type_stays(value) ? value : nullptr;
  }
  const cpython::InstanceDict instance = cpython::instance_dict(object);
  if (instance.state == DictState::kReady) {
    const cpython::Found found = read_instance(base, instance.dict, name, slot);
    if (!found.certain) return nullptr;
    if (found.value != nullptr) return found.value;
  }
  if (instance.state == DictState::kOther) return nullptr;
  if (instance.state == DictState::kNotMade) {
    const cpython::InlineSlot inlined = cpython::inline_slot(object, name);
    if (inlined.slot == nullptr) return nullptr;
    emit(FactKind::kInlineValues, inlined.holder);
    emit(FactKind::kInlineValue, inlined.slot);
    if (*inlined.slot != 0) return reinterpret_cast<PyObject*>(*inlined.slot);
  }
  return of_type != nullptr && is_given_as_it_is(of_type) ? of_type : nullptr;
}

// Whether the type of an attribute cannot get a __get__ or __set__ unnoticed: it is built in, or facts now say so.
bool FactBuilder::type_stays(PyObject* attribute) {
  PyTypeObject* type = Py_TYPE(attribute);
  if (cpython::is_built_in(type)) return true;
  const Word version = cpython::type_version_word(type);
  if (version == nullptr) return false;
  emit_type(attribute);
  emit(FactKind::kTypeVersion, version);
  return true;
}

// What the getters of `type` read when a class is asked for its name; null where this is no class, or where another
// getter answers.
PyObject* FactBuilder::read_class_name(PyObject* type, PyObject* of_metaclass) {
  static PyObject* name = cpython::of_type(&PyType_Type, "__name__");
  static PyObject* qualname = cpython::of_type(&PyType_Type, "__qualname__");
  if (!PyType_Check(type) || of_metaclass == nullptr || (of_metaclass != name && of_metaclass != qualname))
    return nullptr;
  const Word word = cpython::type_name_word(type, of_metaclass == qualname);
  if (word == nullptr) return nullptr;
  emit(FactKind::kClassName, word);
  return reinterpret_cast<PyObject*>(*word);
}

// The value of a property, if it is known what its getter reads. Where a getter reads another property, that one is not
// followed.
PyObject* FactBuilder::read_property(const Register& base, PyObject* property) {
  static PyObject* getter_name = PyUnicode_InternFromString("fget");
  PyObject* descriptor = _PyType_Lookup(&PyProperty_Type, getter_name);
  if (descriptor == nullptr || Py_TYPE(descriptor) != &PyMemberDescr_Type) return nullptr;
  PyObject* getter = read_member(property, descriptor);
  const AttributeHook* hook = attribute_hook(getter);
  if (hook == nullptr || follows_property_) return nullptr;
  emit_type(getter);
  emit(FactKind::kFunctionField, word_at(&reinterpret_cast<PyFunctionObject*>(getter)->func_code));
  follows_property_ = true;
  PyObject* value = read_getter(base, reinterpret_cast<PyFunctionObject*>(getter), *hook);
  follows_property_ = false;
  return value;
}

PyObject* FactBuilder::read_getter(const Register& base, PyFunctionObject* getter, const AttributeHook& hook) {
  if (hook.form == AttributeHook::Form::kAllOf) return read_all_of(base, getter, hook);
  cpython::Slot nowhere = cpython::kNoSlot;
  return hook.form == AttributeHook::Form::kReturns ? read_name(base, hook.names[0], nowhere) : nullptr;
}

// What `all` says of an attribute of every item, where each is True or False itself. There are facts on the getter's
// globals, too: another function that is made at its address may run the same code with other globals.
PyObject* FactBuilder::read_all_of(const Register& base, PyFunctionObject* getter, const AttributeHook& hook) {
  constexpr Py_ssize_t kMostItems = 1000;
  const Word globals = dict_version_word(getter->func_globals), builtins = dict_version_word(getter->func_builtins);
  if (globals == nullptr || builtins == nullptr || !finds_builtin(getter, "all") || !finds_builtin(getter, "len")) {
    return nullptr;
  }
  emit(FactKind::kFunctionField, word_at(&getter->func_globals));
  emit(FactKind::kFunctionField, word_at(&getter->func_builtins));
  emit(FactKind::kDictVersion, globals);
  emit(FactKind::kDictVersion, builtins);
  cpython::Slot nowhere = cpython::kNoSlot;
  PyObject* list = read_name(base, hook.names[0], nowhere);
  if (list == nullptr || !PyList_CheckExact(list) || PyList_GET_SIZE(list) > kMostItems) return nullptr;
  emit_type(list);
  emit(FactKind::kLength, cpython::size_word(list));
  emit(FactKind::kListItems, cpython::items_word(list));
  PyObject* all = PyList_GET_SIZE(list) > 0 ? Py_True : nullptr;
  for (Py_ssize_t at = 0; all != nullptr && at < PyList_GET_SIZE(list); at++) {
    PyObject* item = PyList_GET_ITEM(list, at);
    emit(FactKind::kItem, cpython::item_word(list, static_cast<uint32_t>(at)));
    emit_type(item);
    const uint8_t has = attribute_facts(item);
    if (!(has & kNeedsAttrs)) return nullptr;
    nowhere = cpython::kNoSlot;
    PyObject* value = read_name({item, Knows::kFacts, has}, hook.names[1], nowhere);
    if (value == nullptr || !PyBool_Check(value)) return nullptr;
    if (value == Py_False) all = Py_False;
  }
  return all;
}

// What the interpreter's getters of a function's attributes read; they give None for an empty field.
PyObject* FactBuilder::read_function_attribute(PyObject* function, PyObject* name) {
  struct Getter {
    const char* name;
    PyObject* PyFunctionObject::* field;
  };
  static constexpr Getter kGetters[] = {
      {"__defaults__", &PyFunctionObject::func_defaults}, {"__kwdefaults__", &PyFunctionObject::func_kwdefaults},
      {"__code__", &PyFunctionObject::func_code},         {"__closure__", &PyFunctionObject::func_closure},
      {"__name__", &PyFunctionObject::func_name},         {"__qualname__", &PyFunctionObject::func_qualname}};
  for (const Getter& getter : kGetters) {
    if (PyUnicode_CompareWithASCIIString(name, getter.name) != 0) continue;
    const Word word = word_at(&(reinterpret_cast<PyFunctionObject*>(function)->*getter.field));
    emit(FactKind::kFunctionField, word);
    return *word != 0 ? reinterpret_cast<PyObject*>(*word) : Py_None;
  }
  return nullptr;
}

// A field at a fixed place in the objects of one class: of __slots__, or of a type written in C. The descriptor may
// have been put into another class.
PyObject* FactBuilder::read_member(PyObject* object, PyObject* descriptor) {
  const PyMemberDef* member = reinterpret_cast<PyMemberDescrObject*>(descriptor)->d_member;
  if (!PyObject_TypeCheck(object, PyDescr_TYPE(descriptor)) || member->flags & cpython::kAuditedMember) return nullptr;
  const bool none_if_empty = member->type == cpython::kMemberOrNone;
  if (!none_if_empty && member->type != cpython::kMember) return nullptr;
  const Word word = word_at(reinterpret_cast<char*>(object) + member->offset);
  emit(FactKind::kSlot, word);
  if (*word != 0) return reinterpret_cast<PyObject*>(*word);
  return none_if_empty ? Py_None : nullptr;
}

// What decides getattr(value, ...) apart from the value of the attribute. Gives kNeedsAttrs if there are such facts.
uint8_t FactBuilder::attribute_facts(PyObject* value) {
  PyTypeObject* type = Py_TYPE(value);
  const Word version = cpython::type_version_word(type);
  if (version == nullptr) return 0;
  emit(FactKind::kTypeVersion, version);
  if (PyType_Check(value)) return class_attribute_facts(reinterpret_cast<PyTypeObject*>(value)) ? kNeedsAttrs : 0;
  if (!cpython::plain_attribute_access(type) && !hook_facts(value)) return 0;
  return instance_facts(value);
}

bool FactBuilder::class_attribute_facts(PyTypeObject* type) {
  const Word version = cpython::type_version_word(type);
  if (version == nullptr || !plain_class_access(Py_TYPE(type))) return false;
  emit(FactKind::kTypeVersion, version);
  return true;
}

uint8_t FactBuilder::instance_facts(PyObject* value) {
  const cpython::InstanceDict instance = cpython::instance_dict(value);
  if (instance.state == DictState::kNotMade) return kNeedsAttrs;
  if (instance.state == DictState::kOther) return 0;
  if (cpython::dict_word(value) == nullptr) {
    return instance.state == DictState::kNone && Py_TYPE(value)->tp_dictoffset == 0 ? kNeedsAttrs : 0;
  }
  emit_instance_dict(value);
  if (instance.state == DictState::kNone) return kNeedsAttrs;
  if (is_instance_on_table(value, instance.dict)) {
    emit_type(instance.dict);
    table_facts(instance.dict);
    return kNeedsAttrs | kHasInstanceTable;
  }
  const Word entries = dict_version_word(instance.dict);
  if (entries == nullptr) return 0;
  emit(FactKind::kDictVersion, entries);
  return kNeedsAttrs;
}

// Facts that an object still has the instance dict that it has now, or neither a dict nor attributes without one.
void FactBuilder::emit_instance_dict(PyObject* object) {
  emit(FactKind::kInstanceDict, cpython::dict_word(object));
  if (cpython::instance_dict(object).state != DictState::kNone) return;
  if (const Word values = cpython::values_word(object)) emit(FactKind::kInlineValues, values);
}

// Facts on each __getattribute__: its code, its class, and where it looks `super` up. Then facts on the dict of names.
bool FactBuilder::hook_facts(PyObject* value) {
  const Hooks hooks(value);
  if (!hooks.known) return false;
  for (PyFunctionObject* function : hooks.functions) {
    const Word globals = dict_version_word(function->func_globals);
    const Word builtins = dict_version_word(function->func_builtins);
    if (globals == nullptr || builtins == nullptr) return false;
    emit(FactKind::kFunctionField, word_at(&function->func_code));
    emit(FactKind::kFunctionField, word_at(&function->func_closure));
    emit(FactKind::kCell, cpython::cell_word(PyTuple_GET_ITEM(function->func_closure, 0)));
    emit(FactKind::kDictVersion, globals);
    emit(FactKind::kDictVersion, builtins);
  }
  if (hooks.names == nullptr) return true;
  const Word names = dict_version_word(hooks.names);
  if (names == nullptr) return false;
  emit(FactKind::kDictVersion, names);
  return true;
}

bool FactBuilder::absence_facts(PyObject* object, PyObject* name, const Register& base) {
  PyTypeObject* type = Py_TYPE(object);
  if (!(base.has & kNeedsAttrs) || PyType_Check(object)) return false;
  PyObject* getattr = cpython::of_type(type, "__getattr__");
  // A type written in C may have an access of its own.
  if (getattr == nullptr && type->tp_getattro != PyObject_GenericGetAttr && !Hooks(object).known) return false;
  name = name_to_look_for(object, name);
  if (_PyType_Lookup(type, name) != nullptr) return false;
  if (getattr != nullptr && !getattr_absence_facts(base, getattr, name)) return false;
  const cpython::InstanceDict instance = cpython::instance_dict(object);
  if (instance.state == DictState::kNone) return true;
  if (instance.state == DictState::kReady) return read_instance(base, instance.dict, name).is_absent();
  const cpython::InlineSlot inlined = cpython::inline_slot(object, name);
  if (inlined.slot == nullptr) return false;
  emit(FactKind::kInlineValues, inlined.holder);
  emit(FactKind::kInlineValue, inlined.slot);
  return *inlined.slot == 0;
}

// Whether a __getattr__ does not find the name either.
bool FactBuilder::getattr_absence_facts(const Register& base, PyObject* getattr, PyObject* name) {
  PyObject* object = base.value;
  const AttributeHook* hook = attribute_hook(getattr);
  const cpython::InstanceDict instance = cpython::instance_dict(object);
  if (hook == nullptr || hook->form != AttributeHook::Form::kLooksIn) return false;
  if (instance.state != DictState::kReady || !cpython::plain_attribute_access(Py_TYPE(object))) return false;
  if (!cpython::shows_instance_dict(object)) return false;
  emit(FactKind::kFunctionField, word_at(&reinterpret_cast<PyFunctionObject*>(getattr)->func_code));
  for (PyObject* where : hook->names) {
    const cpython::Found found = read_instance(base, instance.dict, where);
    if (!found.certain) return false;
    if (found.value == nullptr) continue;
    if (!PyDict_CheckExact(found.value) || !cpython::lacks_purely(found.value, name)) return false;
    if (base.has & kHasInstanceTable) emit_type(found.value);
    const Word version = dict_version_word(found.value);
    if (version == nullptr) return false;
    emit(FactKind::kDictVersion, version);
  }
  return true;
}

}  // namespace unified_guards

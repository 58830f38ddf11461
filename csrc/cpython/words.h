// Words of interpreter objects, which facts compare (see witness/facts.h).
//
// A word is the address of 8 bytes that change when what they stand for changes. It may be read as long as the object
// lives in which it is. Functions give null where this interpreter has no such word.
#pragma once

#include "cpython/dicts.h"
#include "cpython/objects.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <cstdint>

namespace unified_guards::cpython {

using Word = const uint64_t*;

inline Word word_at(const void* address) { return static_cast<Word>(address); }

inline uint64_t bits(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

// False until self_test() has seen that the words of types and of instances change as is said here.
inline bool words_known = false;

inline Word type_word(PyObject* object) { return word_at(&object->ob_type); }

inline bool has_base(PyObject* type, PyObject* base) {
  PyObject* bases = reinterpret_cast<PyTypeObject*>(type)->tp_bases;
  for (Py_ssize_t at = 0; bases != nullptr && at < PyTuple_GET_SIZE(bases); at++) {
    if (PyTuple_GET_ITEM(bases, at) == base) return true;
  }
  return false;
}

// Whether the version tag of a type moves with every change of the classes in which the type looks for attributes. The
// interpreter moves the tags of the types that have the changed class as a base; a metaclass may put other classes into
// the mro.
inline bool is_told_of_changes(PyTypeObject* type) {
  static PyObject* name = PyUnicode_InternFromString("mro");
  if (_PyType_Lookup(Py_TYPE(type), name) != _PyType_Lookup(&PyType_Type, name)) return false;
  PyObject* mro = type->tp_mro;
  const Py_ssize_t count = mro != nullptr ? PyTuple_GET_SIZE(mro) : 0;
  if (count == 0 || PyTuple_GET_ITEM(mro, 0) != reinterpret_cast<PyObject*>(type)) return false;
  for (Py_ssize_t at = 1; at < count; at++) {
    bool is_base = false;
    for (Py_ssize_t before = at; !is_base && before-- > 0;) {
      is_base = has_base(PyTuple_GET_ITEM(mro, before), PyTuple_GET_ITEM(mro, at));
    }
    if (!is_base) return false;
  }
  return true;
}

// Whether all keys of the dict of a class are exact strings. Other keys may run code when they are compared with a
// name.
inline bool has_plain_names(PyTypeObject* type) {
#if UG_DICT_LAYOUT == 311
  if (is_built_in(type)) return true;  // its dict is the interpreter's own
  auto* dict = reinterpret_cast<PyDictObject*>(type->tp_dict);
  return layouts_known && dict != nullptr && reinterpret_cast<DictKeys*>(dict->ma_keys)->kind != 0;
#else
  bool is_new = false, are_plain = true;
  PyObject* dict = type_dict(reinterpret_cast<PyObject*>(type), is_new);
  Py_ssize_t cursor = 0;
  PyObject *key = nullptr, *value = nullptr;
  while (are_plain && PyDict_Next(dict, &cursor, &key, &value)) are_plain = PyUnicode_CheckExact(key);
  if (is_new) Py_DECREF(dict);
  return are_plain;
#endif
}

inline bool all_have_plain_names(PyTypeObject* type) {
  PyObject* mro = type->tp_mro;
  for (Py_ssize_t at = 0; mro != nullptr && at < PyTuple_GET_SIZE(mro); at++) {
    if (!has_plain_names(reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(mro, at)))) return false;
  }
  return mro != nullptr;
}

// Whether looking a name up in a type and its bases runs no code of a user's. A class may have been made with keys that
// run code when they are compared. The answer is remembered for each version of a type, where versions are not reused.
inline bool looks_up_purely(PyTypeObject* type) {
#if PY_VERSION_HEX < 0x030B0000
  return all_have_plain_names(type);
#else
  constexpr size_t kMostVersions = 1024;
  static unsigned int pure_versions[kMostVersions];
  const unsigned int version = type->tp_version_tag;
  unsigned int& remembered = pure_versions[version % kMostVersions];
  if (version != 0 && remembered == version) return true;
  if (!all_have_plain_names(type)) return false;
  remembered = version;
  return true;
#endif
}

// The version tag of a type. It changes with every attribute of the type or of one of its bases, and no tag is used
// twice (on Python 3.10 tags are reused, so there is no such word). The four bytes after the tag are padding. Looking
// an attribute up first makes the interpreter give the type a tag, which it may refuse.
inline Word type_version_word(PyTypeObject* type) {
#if PY_VERSION_HEX < 0x030B0000
  (void)type;
  return nullptr;
#else
  static PyObject* any = PyUnicode_InternFromString("__class__");
  if (!words_known || !looks_up_purely(Py_TYPE(type)) || !looks_up_purely(type)) return nullptr;
  if (!is_told_of_changes(type)) return nullptr;
  _PyType_Lookup(type, any);
#if PY_VERSION_HEX < 0x030D0000
  if (!PyType_HasFeature(type, Py_TPFLAGS_VALID_VERSION_TAG)) return nullptr;
#endif
  return type->tp_version_tag != 0 ? word_at(&type->tp_version_tag) : nullptr;
#endif
}

#if PY_VERSION_HEX < 0x030C0000
#define UG_DICT_TAGS 1  // later versions let dicts be watched (watch.cpp)
// The version tag of a dict: another one after every change, and no tag is used twice in the process.
inline Word dict_tag_word(PyObject* dict) { return word_at(&reinterpret_cast<PyDictObject*>(dict)->ma_version_tag); }
#endif

// Where an object keeps the pointer to its instance dict, made or not. Null also for an object without any.
inline Word dict_word(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
#if UG_DICT_LAYOUT == 311
  if (type->tp_flags & Py_TPFLAGS_MANAGED_DICT) return layouts_known ? word_at(object) - 3 : nullptr;
#endif
  if (instance_dict(object).state == DictState::kNotMade || type->tp_dictoffset <= 0) return nullptr;
  return word_at(reinterpret_cast<char*>(object) + type->tp_dictoffset);
}

// What also changes with the first attribute of an object that has neither a dict nor attributes; null where attributes
// come with a dict.
inline Word values_word(PyObject* object) {
#if UG_DICT_LAYOUT == 311 && PY_VERSION_HEX >= 0x030D0000
  return word_at(own_values(object));
#else
  (void)object;
  return nullptr;
#endif
}

// Whether an object that has a dict_word() has no attributes of its own.
inline bool is_bare(PyObject* object) {
#if UG_DICT_LAYOUT == 311 && PY_VERSION_HEX >= 0x030D0000
  return instance_dict(object).state == DictState::kNone;
#else
  return *dict_word(object) == 0;
#endif
}

// An attribute of an instance whose dict has not been made. The slot holds its value, or null when it is absent, for as
// long as the word `holder` does not change.
struct InlineSlot {
  Word holder, slot;
};

#if UG_DICT_LAYOUT == 311
inline StrEntry* names_of(DictKeys* keys) {
  return reinterpret_cast<StrEntry*>(keys->indices + (static_cast<size_t>(1) << keys->log2_index_bytes));
}

// The attributes of an object whose dict has not been made: names that instances of the class share, values of its own.
struct InlineAttributes {
  DictKeys* keys;  // null where there are none, or where they are kept in a way that is not known
  Word holder;
  Values* values;
};

inline InlineAttributes inline_attributes(PyObject* object) {
  constexpr InlineAttributes none{nullptr, nullptr, nullptr};
  if (!words_known || !PyType_HasFeature(Py_TYPE(object), Py_TPFLAGS_MANAGED_DICT)) return none;
  if (instance_dict(object).state != DictState::kNotMade) return none;
#if PY_VERSION_HEX < 0x030C0000
  Word holder = word_at(object) - 4;
  auto* values = reinterpret_cast<Values*>(*holder);
#elif PY_VERSION_HEX < 0x030D0000
  Word holder = word_at(object) - 3;
  auto* values = reinterpret_cast<Values*>(*holder + 1);  // an odd address says that these are values, not a dict
#else
  Values* values = own_values(object);
  Word holder = word_at(values);
  if (values == nullptr || !values->valid) return none;
#endif
  auto* keys = reinterpret_cast<DictKeys*>(reinterpret_cast<PyHeapTypeObject*>(Py_TYPE(object))->ht_cached_keys);
  if (keys == nullptr || keys->kind != 2) return none;
  return {keys, holder, values};
}
#endif

inline InlineSlot inline_slot(PyObject* object, PyObject* name) {
#if UG_DICT_LAYOUT == 311
  const InlineAttributes found = inline_attributes(object);
  if (found.keys == nullptr) return {nullptr, nullptr};
  const StrEntry* names = names_of(found.keys);
  for (Py_ssize_t i = 0; i < found.keys->nentries; i++) {
    if (names[i].key == name) return {found.holder, word_at(found.values->values + i)};
  }
#else
  (void)object;
  (void)name;
#endif
  return {nullptr, nullptr};
}

inline Word type_dict_word(PyObject* heap_type) {
  return word_at(&reinterpret_cast<PyTypeObject*>(heap_type)->tp_dict);
}
// Where a class keeps its __name__ or __qualname__; null for one written in C, which makes a new string each time.
inline Word type_name_word(PyObject* type, bool qualified) {
  if (is_built_in(reinterpret_cast<PyTypeObject*>(type))) return nullptr;
  auto* heap_type = reinterpret_cast<PyHeapTypeObject*>(type);
  return word_at(qualified ? &heap_type->ht_qualname : &heap_type->ht_name);
}

inline Word mro_word(PyObject* type) { return word_at(&reinterpret_cast<PyTypeObject*>(type)->tp_mro); }
inline Word cell_word(PyObject* cell) { return word_at(&reinterpret_cast<PyCellObject*>(cell)->ob_ref); }
inline Word size_word(PyObject* list) { return word_at(&reinterpret_cast<PyVarObject*>(list)->ob_size); }
inline Word items_word(PyObject* list) { return word_at(&reinterpret_cast<PyListObject*>(list)->ob_item); }
inline Word item_word(PyObject* list, uint32_t at) {
  return word_at(reinterpret_cast<PyListObject*>(list)->ob_item + at);
}
inline Word tuple_item_word(PyObject* tuple, uint32_t at) {
  return word_at(reinterpret_cast<PyTupleObject*>(tuple)->ob_item + at);
}
inline Word set_size_word(PyObject* set) { return word_at(&reinterpret_cast<PySetObject*>(set)->used); }
// The target of a weak reference; None once the target is dead. The reference must not be of a subclass that overrides
// how it is called.
inline Word weakref_word(PyObject* reference) {
  return word_at(&reinterpret_cast<PyWeakReference*>(reference)->wr_object);
}

// Kinds of fields that a member descriptor may stand for. Where the field is empty, the attribute is absent (kMember)
// or None (kMemberOrNone).
#if PY_VERSION_HEX >= 0x030C0000
constexpr int kMember = Py_T_OBJECT_EX, kMemberOrNone = 6;
#else
constexpr int kMember = T_OBJECT_EX, kMemberOrNone = T_OBJECT;
#endif
constexpr int kAuditedMember = 2;  // a flag: reading the field calls the user's audit hooks

// Whether `object.__dict__`, where attribute access is object's own, is the instance dict.
bool shows_instance_dict(PyObject* object);

// What a type or its bases define by this name, borrowed; a lookup that the interpreter caches.
inline PyObject* of_type(PyTypeObject* type, const char* name) {
  PyObject* interned = PyUnicode_InternFromString(name);
  PyObject* found = interned != nullptr ? _PyType_Lookup(type, interned) : nullptr;
  Py_XDECREF(interned);
  return found;
}

}  // namespace unified_guards::cpython

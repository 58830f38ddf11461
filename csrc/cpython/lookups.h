// Looking names up without running code of a user's. Where only such code could tell, the answer says that it is not
// certain (Found::certain).
#pragma once

#include "cpython/dicts.h"
#include "cpython/words.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

namespace unified_guards::cpython {

// Whether an object never changes, and hashing or comparing it runs no code of a user's.
inline bool is_plain(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  return type == &PyUnicode_Type || type == &PyLong_Type || type == &PyFloat_Type || type == &PyBool_Type ||
         type == &PyBytes_Type || type == &PyComplex_Type || object == Py_None || object == Py_Ellipsis;
}

constexpr Py_ssize_t kMostKeysToSearch = 4096;

// Whether looking a plain key up in a dict runs no code of its other keys.
inline bool has_plain_keys(PyObject* dict) {
#if UG_DICT_LAYOUT == 311
  auto* keys = reinterpret_cast<DictKeys*>(reinterpret_cast<PyDictObject*>(dict)->ma_keys);
  if (layouts_known && keys->kind != 0) return true;
#endif
  if (PyDict_GET_SIZE(dict) > kMostKeysToSearch) return false;
  Py_ssize_t cursor = 0;
  PyObject *key = nullptr, *value = nullptr;
  while (PyDict_Next(dict, &cursor, &key, &value)) {
    if (!is_plain(key)) return false;
  }
  return true;
}

// The same of the members of a set.
inline bool has_plain_members(PyObject* set) {
  auto* table = reinterpret_cast<PySetObject*>(set)->table;
  const Py_ssize_t slots = reinterpret_cast<PySetObject*>(set)->mask + 1;
  if (!PyAnySet_CheckExact(set) || slots > kMostKeysToSearch) return false;
  for (Py_ssize_t at = 0; at < slots; at++) {
    const bool is_used = table[at].key != nullptr && table[at].hash != -1;  // -1: a member that was deleted
    if (is_used && !is_plain(table[at].key)) return false;
  }
  return true;
}

// No garbage collection starts in this scope. Up to Python 3.11 one may start wherever an object is made, and run
// finalizers.
class Uncollected {
 public:
  Uncollected() : was_enabled_(PyGC_Disable() != 0) {}
  Uncollected(const Uncollected&) = delete;
  ~Uncollected() {
    if (was_enabled_) PyGC_Enable();
  }

 private:
  bool was_enabled_;
};

struct Found {
  bool certain;     // false when only code of a user's could tell
  PyObject* value;  // borrowed; null when there is none

  bool is_absent() const { return certain && value == nullptr; }
};

#if UG_DICT_LAYOUT == 311
// Looks a name up among few others without hashing: two interned strings that are equal are one object. Uncertain where
// there are many names, or where one of them is not interned. `values` is null where the entries hold the values.
inline Found find_among_few(DictKeys* keys, Values* values, PyObject* name) {
  constexpr Py_ssize_t kFew = 16;
  constexpr Found unknown{false, nullptr};
  if (keys->kind == 0 || keys->nentries > kFew) return unknown;
  if (!PyUnicode_CheckExact(name) || !PyUnicode_CHECK_INTERNED(name)) return unknown;
  const StrEntry* entries = names_of(keys);
  for (Py_ssize_t at = 0; at < keys->nentries; at++) {
    PyObject* key = entries[at].key;  // null where it was deleted
    if (key == name) return {true, values != nullptr ? values->values[at] : entries[at].value};
    if (key != nullptr && !PyUnicode_CHECK_INTERNED(key)) return unknown;
  }
  return {true, nullptr};
}
#endif

inline Found find_among_few(PyObject* dict, PyObject* name) {
#if UG_DICT_LAYOUT == 311
  auto* object = reinterpret_cast<PyDictObject*>(dict);
  if (layouts_known) {
    return find_among_few(reinterpret_cast<DictKeys*>(object->ma_keys), reinterpret_cast<Values*>(object->ma_values),
                          name);
  }
#else
  (void)dict;
  (void)name;
#endif
  return {false, nullptr};
}

// The same of the attributes of an object whose dict has not been made.
inline Found inline_value(PyObject* object, PyObject* name) {
#if UG_DICT_LAYOUT == 311
  const InlineAttributes attributes = inline_attributes(object);
  if (attributes.keys != nullptr) return find_among_few(attributes.keys, attributes.values, name);
#else
  (void)object;
  (void)name;
#endif
  return {false, nullptr};
}

// dict[key] where looking the key up runs no code of a user's; `slot` is where the key was last found (see dict_get).
inline Found find_purely(PyObject* dict, PyObject* key, Slot& slot) {
  if (slot == kNoSlot) {
    const Found found = find_among_few(dict, key);
    if (found.certain) return found;
  } else if (layouts_known) {
    const Item item = entry_at(dict, slot);
    if (item.key == key && item.value != nullptr) return {true, item.value};
  }
  if (!is_plain(key) || !has_plain_keys(dict)) return {false, nullptr};
  return {true, dict_get(dict, key, slot)};
}

inline Found find_purely(PyObject* dict, PyObject* key) {
  Slot nowhere = kNoSlot;
  return find_purely(dict, key, nowhere);
}

// Whether a dict is certain not to have a key.
inline bool lacks_purely(PyObject* dict, PyObject* key) { return find_purely(dict, key).is_absent(); }

}  // namespace unified_guards::cpython

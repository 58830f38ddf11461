// How dicts, and the dicts of instances, lie in memory, per version. See cpython.h.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstddef>
#include <cstdint>

namespace unified_guards::cpython {

// Where an entry of a dict was last found. It is a hint: it is believed only when the entry there has our key.
using Slot = uint32_t;
// There is no slot to look at: the dict holds an equal key that is another object, or is too large to search.
constexpr Slot kNoSlot = 0xffffffff;

// ---- dict layout -------------------------------------------------------------------------------------------------

#if PY_VERSION_HEX < 0x030B0000
#define UG_DICT_LAYOUT 310
struct DictKeys {
  Py_ssize_t refcnt;
  Py_ssize_t size;
  void* lookup;
  Py_ssize_t usable;
  Py_ssize_t nentries;
  char indices[1];
};
#elif PY_VERSION_HEX < 0x03100000
#define UG_DICT_LAYOUT 311
struct DictKeys {
  Py_ssize_t refcnt;
  uint8_t log2_size;
  uint8_t log2_index_bytes;
  uint8_t kind;  // 0: any keys, 1: only str, 2: only str and shared between instances
#ifdef Py_GIL_DISABLED
  PyMutex mutex;
#endif
  uint32_t version;
  Py_ssize_t usable;
  Py_ssize_t nentries;
  char indices[1];
};
struct StrEntry {
  PyObject* key;
  PyObject* value;
};
#else
#define UG_DICT_LAYOUT 0
#endif

struct Entry {
  Py_hash_t hash;
  PyObject* key;
  PyObject* value;
};

#if PY_VERSION_HEX >= 0x030D0000
struct Values {
  uint8_t capacity, size, embedded, valid;
  PyObject* values[1];
};
#elif PY_VERSION_HEX >= 0x030B0000
struct Values {
  PyObject* values[1];
};
#endif

// False until self_test() has seen that the layouts above are this interpreter's.
inline bool layouts_known = false;

struct Item {
  PyObject* key;
  PyObject* value;
};

// Entry number `slot` of `dict` in insertion order, deleted ones included; {null, null} when there is none.
inline Item entry_at(PyObject* dict, Slot slot) {
#if UG_DICT_LAYOUT == 310
  auto* object = reinterpret_cast<PyDictObject*>(dict);
  auto* keys = reinterpret_cast<DictKeys*>(object->ma_keys);
  if (static_cast<Py_ssize_t>(slot) >= keys->nentries) return {nullptr, nullptr};
  const Py_ssize_t index_bytes = keys->size <= 0xff ? 1 : keys->size <= 0xffff ? 2 : keys->size <= 0xffffffff ? 4 : 8;
  auto* entry = reinterpret_cast<Entry*>(keys->indices + keys->size * index_bytes) + slot;
  auto* values = reinterpret_cast<PyObject**>(object->ma_values);
  return {entry->key, values ? values[slot] : entry->value};
#elif UG_DICT_LAYOUT == 311
  auto* object = reinterpret_cast<PyDictObject*>(dict);
  auto* keys = reinterpret_cast<DictKeys*>(object->ma_keys);
  if (static_cast<Py_ssize_t>(slot) >= keys->nentries) return {nullptr, nullptr};
  char* entries = keys->indices + (static_cast<size_t>(1) << keys->log2_index_bytes);
  if (keys->kind == 0) {
    auto* entry = reinterpret_cast<Entry*>(entries) + slot;
    return {entry->key, entry->value};
  }
  auto* entry = reinterpret_cast<StrEntry*>(entries) + slot;
  auto* values = reinterpret_cast<Values*>(object->ma_values);
  return {entry->key, values ? values->values[slot] : entry->value};
#else
  (void)dict;
  (void)slot;
  return {nullptr, nullptr};
#endif
}

// Puts another value at entry number `slot` of a dict that nobody watches and no version of which is remembered. Takes
// the reference to `value`. False, with nothing done, unless the entry is there and has that key.
inline bool replace_at(PyObject* dict, Slot slot, PyObject* key, PyObject* value) {
#if UG_DICT_LAYOUT == 311
  auto* object = reinterpret_cast<PyDictObject*>(dict);
  auto* keys = reinterpret_cast<DictKeys*>(object->ma_keys);
  if (!layouts_known || keys->kind != 1 || object->ma_values != nullptr) return false;
  if (static_cast<Py_ssize_t>(slot) >= keys->nentries) return false;
  auto* entry = reinterpret_cast<StrEntry*>(keys->indices + (static_cast<size_t>(1) << keys->log2_index_bytes)) + slot;
  if (entry->key != key || entry->value == nullptr) return false;
  PyObject* before = entry->value;
  entry->value = value;
  Py_DECREF(before);
  return true;
#else
  (void)dict;
  (void)slot;
  (void)key;
  (void)value;
  return false;
#endif
}

// Addresses that reading an entry, a dict's keys or an instance's head will touch. They are only for fetching ahead.
inline const void* entry_line(PyObject* dict, Slot slot) {
#if UG_DICT_LAYOUT
  auto* object = reinterpret_cast<PyDictObject*>(dict);
  if (!layouts_known || slot == kNoSlot) return object->ma_keys;
#if UG_DICT_LAYOUT == 310
  if (object->ma_values) return object->ma_values + slot;
  return object->ma_keys;
#else
  if (object->ma_values) return reinterpret_cast<Values*>(object->ma_values)->values + slot;
  auto* keys = reinterpret_cast<DictKeys*>(object->ma_keys);
  const size_t entry = keys->kind == 0 ? sizeof(Entry) : sizeof(StrEntry);
  return keys->indices + (static_cast<size_t>(1) << keys->log2_index_bytes) + entry * slot;
#endif
#else
  (void)slot;
  return dict;
#endif
}

inline const void* keys_line(PyObject* dict) { return reinterpret_cast<PyDictObject*>(dict)->ma_keys; }

inline const void* head_line(PyObject* object) { return reinterpret_cast<PyObject**>(object) - 3; }

// How many entries there are, deleted ones included; 0 where the layout is not known.
inline Slot entries_used(PyObject* dict) {
#if UG_DICT_LAYOUT
  if (!layouts_known) return 0;
  auto used = reinterpret_cast<DictKeys*>(reinterpret_cast<PyDictObject*>(dict)->ma_keys)->nentries;
  return used < 0 ? 0 : static_cast<Slot>(used);
#else
  (void)dict;
  return 0;
#endif
}

constexpr Slot kLongestSearch = 8192;

// Finds a key by hash, then remembers its slot.
inline PyObject* dict_get_and_remember(PyObject* dict, PyObject* key, Slot& slot) {
  PyObject* value = PyDict_GetItemWithError(dict, key);
  if (value == nullptr) {
    if (PyErr_Occurred()) PyErr_Clear();
    return nullptr;
  }
  const Slot used = slot == kNoSlot ? 0 : entries_used(dict);
  slot = kNoSlot;
  for (Slot i = 0; i < used && used <= kLongestSearch; i++) {
    if (entry_at(dict, i).key == key) slot = i;
  }
  return value;
}

// dict[key] without overrides, borrowed; null when missing or when hashing or comparing the key raises.
// `dict` must be a dict. A matching key object in the remembered slot proves that this is the entry: keys are unique.
inline PyObject* dict_get(PyObject* dict, PyObject* key, Slot& slot) {
  if (layouts_known && slot != kNoSlot) {
    Item item = entry_at(dict, slot);
    if (item.key == key && item.value != nullptr) return item.value;
  }
  return dict_get_and_remember(dict, key, slot);
}

// Item number `position` of a dict in its own order (deleted entries skipped); {null, null} past the end.
inline Item dict_item_at(PyObject* dict, Py_ssize_t position) {
  if (layouts_known && entries_used(dict) == static_cast<Slot>(PyDict_GET_SIZE(dict))) {
    // Not where keys are shared: an instance may have been filled in another order than its class's keys.
    if (reinterpret_cast<PyDictObject*>(dict)->ma_values == nullptr) {
      return entry_at(dict, static_cast<Slot>(position));
    }
  }
  Py_ssize_t cursor = 0, seen = 0;
  PyObject *key = nullptr, *value = nullptr;
  while (PyDict_Next(dict, &cursor, &key, &value)) {
    if (seen++ == position) return {key, value};
  }
  return {nullptr, nullptr};
}

// ---- instance dicts ----------------------------------------------------------------------------------------------

// kOther: the dict is of a subclass, which may answer for itself. Only the interpreter knows what comes of that.
enum class DictState { kNone, kReady, kNotMade, kOther };

struct InstanceDict {
  DictState state;
  PyObject* dict;  // borrowed, when kReady or kOther
};

inline InstanceDict made_dict(PyObject* dict) {
  return {PyDict_CheckExact(dict) ? DictState::kReady : DictState::kOther, dict};
}

#if PY_VERSION_HEX >= 0x030D0000
// The values of attributes that lie in an object itself, for as long as it needs no dict; null where the class has
// none.
inline Values* own_values(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  if (!PyType_HasFeature(type, Py_TPFLAGS_INLINE_VALUES)) return nullptr;
  return reinterpret_cast<Values*>(reinterpret_cast<char*>(object) + type->tp_basicsize);
}
#endif

// The instance dict of any object, without making one. kNone says that there are no attributes, either.
inline InstanceDict instance_dict(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
#if UG_DICT_LAYOUT == 311
  if (type->tp_flags & Py_TPFLAGS_MANAGED_DICT) {
    if (!layouts_known) return {DictState::kNotMade, nullptr};
#if PY_VERSION_HEX < 0x030C0000
    PyObject* dict = reinterpret_cast<PyObject**>(object)[-3];
    void* values = reinterpret_cast<void**>(object)[-4];
    if (dict != nullptr) return made_dict(dict);
    return {values != nullptr ? DictState::kNotMade : DictState::kNone, nullptr};
#elif PY_VERSION_HEX < 0x030D0000
    auto word = reinterpret_cast<uintptr_t*>(object)[-3];
    if (word & 1) return {DictState::kNotMade, nullptr};
    if (word) return made_dict(reinterpret_cast<PyObject*>(word));
    return {DictState::kNone, nullptr};
#else
    PyObject* dict = reinterpret_cast<PyObject**>(object)[-3];
    if (dict != nullptr) return made_dict(dict);
    const Values* values = own_values(object);
    return {values != nullptr && values->size != 0 ? DictState::kNotMade : DictState::kNone, nullptr};
#endif
  }
#elif UG_DICT_LAYOUT == 0
  if (type->tp_flags & Py_TPFLAGS_MANAGED_DICT) return {DictState::kNotMade, nullptr};
#endif
  if (type->tp_dictoffset == 0) return {DictState::kNone, nullptr};
  if (type->tp_dictoffset < 0) return {DictState::kNotMade, nullptr};
  PyObject* dict = *reinterpret_cast<PyObject**>(reinterpret_cast<char*>(object) + type->tp_dictoffset);
  if (dict != nullptr) return made_dict(dict);
  return {DictState::kNone, nullptr};
}

}  // namespace unified_guards::cpython
